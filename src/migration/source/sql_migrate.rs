//! sql-migrate: `-- +migrate Up` and `-- +migrate Down`, each perhaps with `notransaction`.

use super::super::Metadata;
use super::comments::CommentLine;
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct SqlMigrate;

impl Layout for SqlMigrate {
    fn name(&self) -> &'static str {
        "sql-migrate"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        page.comments.iter().any(|comment| words(comment).is_some()).then_some("sql-migrate's `-- +migrate Up`")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        for comment in page.comments {
            let Some(said) = words(comment) else { continue };
            let known = matches!(
                said.iter().map(String::as_str).collect::<Vec<_>>().as_slice(),
                ["up" | "down"] | ["up" | "down", "notransaction"] | ["statementbegin" | "statementend"]
            );
            if !known {
                return Err(Error::failed(format!(
                    "`{}`, line {}: sql-migrate has no mark `{}`",
                    page.file, comment.line, comment.text
                ))
                .because("expected: `+migrate Up` or `+migrate Down`, perhaps with `notransaction`"));
            }
        }
        let (halves, marks) = page.sections("sql-migrate", |one| mark(one, "up"), |one| mark(one, "down"))?;
        let alone =
            |comment: &CommentLine<'_>| words(comment).is_some_and(|said| said.len() > 1).then_some(comment.line);
        Ok(halves.alone(alone(marks.up), marks.down.and_then(alone)))
    }
}

fn mark(comment: &CommentLine<'_>, half: &str) -> bool {
    words(comment).is_some_and(|said| said.first().is_some_and(|first| first == half))
}

/// What stands behind `+migrate`, in lower case.
fn words(comment: &CommentLine<'_>) -> Option<Vec<String>> {
    let mut words = comment.text.split_whitespace();
    words.next()?.eq_ignore_ascii_case("+migrate").then(|| words.map(str::to_ascii_lowercase).collect())
}
