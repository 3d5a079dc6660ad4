//! node-pg-migrate's SQL files: `-- Up Migration` and `-- Down Migration`.

use super::super::Metadata;
use super::comments::CommentLine;
use super::layouts::{Halves, Layout, Page};
use crate::error::Result;

pub(super) struct NodePgMigrate;

impl Layout for NodePgMigrate {
    fn name(&self) -> &'static str {
        "node-pg-migrate"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        let marked = |comment| mark(comment, "up") || mark(comment, "down");
        page.comments.iter().any(marked).then_some("node-pg-migrate's `-- Up Migration`")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        // Without a mark for UP, what stands above the one for DOWN is UP.
        if !page.comments.iter().any(|comment| mark(comment, "up"))
            && let Some(down) = page.comments.iter().find(|comment| mark(comment, "down"))
        {
            return Ok(Halves { up: page.before(down), down: Some(page.between(down, None)) });
        }
        Ok(page.sections("node-pg-migrate", |one| mark(one, "up"), |one| mark(one, "down"))?.0)
    }
}

fn mark(comment: &CommentLine<'_>, half: &str) -> bool {
    let bare = comment.text.trim_matches(|one: char| one == '=' || one == '-' || one == '*' || one.is_whitespace());
    let mut words = bare.split_whitespace();
    let mut next = |wanted: &str| words.next().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
    next(half) && next("migration") && words.next().is_none()
}
