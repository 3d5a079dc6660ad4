//! `<version>_<name>.sql` without markers, whatever the version looks like: a date, a timestamp.

use super::super::Metadata;
use super::layouts::{Halves, Layout, Page};
use crate::error::Result;

pub(super) struct Plain;

impl Layout for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn claims(&self, _page: &Page<'_>) -> Option<&'static str> {
        Some("a version and no marker")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        Ok(Halves { up: page.whole(), down: None })
    }
}
