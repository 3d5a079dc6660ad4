//! dbmate: `-- migrate:up` and `-- migrate:down`, each perhaps with `transaction:false`.

use super::super::Metadata;
use super::comments::CommentLine;
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

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
        let (halves, marks) = page.sections("dbmate", |one| mark(one, "up"), |one| mark(one, "down"))?;
        for comment in [Some(marks.up), marks.down].into_iter().flatten() {
            let options = comment.text.split_whitespace().filter_map(|word| word.strip_prefix("transaction:"));
            if let Some(wrong) = options.into_iter().find(|option| !matches!(*option, "true" | "false")) {
                return Err(Error::failed(format!("`{}`, line {}: `transaction:{wrong}`", page.file, comment.line))
                    .because("expected: `transaction:false` or `transaction:true`"));
            }
        }
        let alone = |comment: &CommentLine<'_>| {
            comment.text.split_whitespace().any(|word| word == "transaction:false").then_some(comment.line)
        };
        Ok(halves.alone(alone(marks.up), marks.down.and_then(alone)))
    }
}

fn mark(comment: &CommentLine<'_>, half: &str) -> bool {
    let word = comment.text.split_whitespace().next().unwrap_or_default();
    word.split_once(':')
        .is_some_and(|(migrate, which)| migrate.eq_ignore_ascii_case("migrate") && which.eq_ignore_ascii_case(half))
}
