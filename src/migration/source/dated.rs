//! `2026-01-20_name.sql` with a header: `-- Version:`, `-- Author:`, `-- Dependencies:` or `-- @depends-on:`.

use super::super::{Metadata, Remark};
use super::layouts::{Halves, Layout, Page};
use super::names::Style;
use crate::error::Result;

pub(super) struct Dated;

impl Layout for Dated {
    fn name(&self) -> &'static str {
        "dated"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        (page.style == Style::Date).then_some("a date and no marker")
    }

    fn read(&self, page: &Page<'_>, metadata: &mut Metadata) -> Result<Halves> {
        for comment in page.comments {
            let Some(told) = comment.text.strip_prefix("Version:").map(str::trim) else { continue };
            if !told.is_empty() && !page.file.starts_with(told) {
                metadata.remarks.push(Remark {
                    rule: "metadata",
                    line: comment.line,
                    message: format!("the header says version `{told}`, and the file is called `{}`", page.file),
                });
            }
        }
        Ok(Halves { up: page.whole(), down: None })
    }
}
