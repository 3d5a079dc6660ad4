//! `-- FORWARD MIGRATION` and `-- ROLLBACK` between rules of `====`.

use super::super::Metadata;
use super::comments::{CommentLine, is_rule, marker};
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct Banners;

impl Layout for Banners {
    fn name(&self) -> &'static str {
        "banners"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        let found = Found::find(page.comments);
        (!found.forward.is_empty() || !found.rollback.is_empty()).then_some("a FORWARD MIGRATION or ROLLBACK banner")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        let found = Found::find(page.comments);
        for (name, lines) in [("FORWARD MIGRATION", &found.forward), ("ROLLBACK", &found.rollback)] {
            if let [first, second, ..] = lines.as_slice() {
                return Err(Error::failed(format!(
                    "`{}`, line {}: a second `-- {name}` banner; the first is in line {}",
                    page.file, second.line, first.line
                )));
            }
        }
        let (forward, rollback) = (found.forward.first(), found.rollback.first());
        let up = match (forward, rollback) {
            (Some(forward), Some(rollback)) if rollback.start < forward.start => {
                return Err(Error::failed(format!(
                    "`{}`, line {}: the `-- ROLLBACK` banner stands before `-- FORWARD MIGRATION`",
                    page.file, rollback.line
                )));
            }
            (Some(forward), rollback) => page.between(forward, rollback.copied()),
            (None, Some(rollback)) => page.before(rollback),
            (None, None) => page.whole(),
        };
        if let Some(forward) = forward.filter(|forward| !page.is_blank(page.before(forward))) {
            return Err(Error::failed(format!(
                "`{}`, line {}: SQL stands before the `-- FORWARD MIGRATION` banner",
                page.file, forward.line
            ))
            .hint("move it below the banner"));
        }
        Ok(Halves { up, down: rollback.map(|rollback| page.between(rollback, None)) })
    }
}

struct Found<'a> {
    forward: Vec<&'a CommentLine<'a>>,
    rollback: Vec<&'a CommentLine<'a>>,
}

impl<'a> Found<'a> {
    /// A comment `-- rollback` alone may stand in any file; it is a banner below a FORWARD MIGRATION
    /// or next to a rule.
    fn find(comments: &'a [CommentLine<'a>]) -> Self {
        let is = |comment: &CommentLine<'_>, texts: [&str; 2]| {
            let marker = marker(comment);
            texts.iter().any(|text| marker == *text)
        };
        let forward: Vec<_> = comments
            .iter()
            .filter(|comment| is(comment, ["FORWARD MIGRATION", "FORWARD"]))
            .filter(|comment| marker(comment) != "FORWARD" || ruled(comments, comment))
            .collect();
        let rollback = comments
            .iter()
            .filter(|comment| is(comment, ["ROLLBACK", "ROLLBACK MIGRATION"]))
            .filter(|comment| !forward.is_empty() || ruled(comments, comment))
            .collect();
        Found { forward, rollback }
    }
}

fn ruled(comments: &[CommentLine<'_>], comment: &CommentLine<'_>) -> bool {
    comments.iter().any(|other| is_rule(other) && other.line.abs_diff(comment.line) == 1 && other.text.len() >= 3)
}
