//! `001_name.sql`, with DOWN in `001_name.down.sql` or not at all; also `001_name.up.sql`.

use super::super::Metadata;
use super::layouts::{Halves, Layout, Page};
use super::names::{Side, Style};
use crate::error::Result;

pub(super) struct Numbered;

impl Layout for Numbered {
    fn name(&self) -> &'static str {
        "numbered"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        if page.has_down_file || page.side == (Side::Up { marked: true }) {
            Some("UP and DOWN are files of their own")
        } else if page.style == Style::Number {
            Some("a number and no marker")
        } else {
            None
        }
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        Ok(Halves { up: page.whole(), down: None })
    }
}
