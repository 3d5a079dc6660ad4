//! sql-migrate: `-- +migrate Up` and `-- +migrate Down`, each perhaps with `notransaction`.

use super::super::Metadata;
use super::comments::CommentLine;
use super::layouts::{Halves, Layout, Page};
use crate::error::Result;

pub(super) struct SqlMigrate;

impl Layout for SqlMigrate {
    fn name(&self) -> &'static str {
        "sql-migrate"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        let marked = |comment| mark(comment, "up") || mark(comment, "down");
        page.comments.iter().any(marked).then_some("sql-migrate's `-- +migrate Up`")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        let (mut halves, marks) = page.sections("sql-migrate", |one| mark(one, "up"), |one| mark(one, "down"))?;
        let alone = |comment: &CommentLine<'_>| {
            let asks = |word: &str| word.eq_ignore_ascii_case("notransaction");
            comment.text.split_whitespace().skip(2).any(asks).then_some(comment.line)
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
    let mut words = comment.text.split_whitespace();
    let mut next = |wanted: &str| words.next().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
    next("+migrate") && next(half)
}
