//! goose: `-- +goose Up` and `-- +goose Down`, `-- +goose NO TRANSACTION` for both. What stands between StatementBegin
//! and StatementEnd is cut into statements as everything else.

use super::super::Metadata;
use super::comments::CommentLine;
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct Goose;

impl Layout for Goose {
    fn name(&self) -> &'static str {
        "goose"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        page.comments.iter().any(|comment| annotation(comment).is_some()).then_some("goose's `-- +goose Up`")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        let is = |wanted: &'static str| move |comment: &CommentLine<'_>| annotation(comment).as_deref() == Some(wanted);
        let known = ["up", "down", "statementbegin", "statementend", "no transaction", "envsub on", "envsub off"];
        for comment in page.comments {
            if let Some(unknown) = annotation(comment).filter(|said| !known.contains(&said.as_str())) {
                return Err(Error::failed(format!(
                    "`{}`, line {}: goose has no annotation `{unknown}`",
                    page.file, comment.line
                ))
                .because("expected: `Up`, `Down`, `StatementBegin`, `StatementEnd`, `NO TRANSACTION`"));
            }
        }
        let (halves, _) = page.sections("goose", is("up"), is("down"))?;
        if let Some(comment) = page.comments.iter().find(|comment| is("envsub on")(comment)) {
            return Err(Error::failed(format!(
                "`{}`, line {}: goose's ENVSUB puts values from the environment into the text, and ripcord does not",
                page.file, comment.line
            ))
            .hint("write the values out, or as `:'name'` with `allow` below `[variables]`"));
        }
        let alone = page.comments.iter().find(|comment| is("no transaction")(comment)).map(|comment| comment.line);
        Ok(halves.alone(alone, alone))
    }
}

/// What `+goose` says, in lower case.
fn annotation(comment: &CommentLine<'_>) -> Option<String> {
    let mut words = comment.text.split_whitespace();
    let rest: Vec<&str> = words.next()?.eq_ignore_ascii_case("+goose").then(|| words.collect())?;
    Some(rest.join(" ").to_ascii_lowercase())
}
