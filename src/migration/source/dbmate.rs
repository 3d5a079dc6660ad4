//! dbmate: `-- migrate:up` and `-- migrate:down`, each perhaps with `transaction:false`.

use super::super::Metadata;
use super::comments::CommentLine;
use super::layouts::{Halves, Layout, Page};
use crate::error::Result;

pub(super) struct Dbmate;

impl Layout for Dbmate {
    fn name(&self) -> &'static str {
        "dbmate"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        let marked = |comment| mark(comment, "up") || mark(comment, "down");
        page.comments.iter().any(marked).then_some("dbmate's `-- migrate:up`")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        let (mut halves, marks) = page.sections("dbmate", |one| mark(one, "up"), |one| mark(one, "down"))?;
        let alone = |comment: &CommentLine<'_>| {
            comment.text.split_whitespace().any(|word| word == "transaction:false").then_some(comment.line)
        };
        let (up, down) = (alone(marks.up), marks.down.and_then(alone));
        halves.up.alone = up;
        if let Some(half) = &mut halves.down {
            half.alone = down;
        }
        Ok(halves)
    }
}

fn mark(comment: &CommentLine<'_>, half: &str) -> bool {
    let word = comment.text.split_whitespace().next().unwrap_or_default();
    word.split_once(':')
        .is_some_and(|(migrate, which)| migrate.eq_ignore_ascii_case("migrate") && which.eq_ignore_ascii_case(half))
}
