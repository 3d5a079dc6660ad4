//! What a layout is to the reader: who claims a file, and where its halves are.

use super::super::Metadata;
use super::comments::CommentLine;
use super::names::{Side, Style};
use crate::error::Result;

/// A file as the layouts see it.
pub(super) struct Page<'a> {
    /// For messages.
    pub file: &'a str,
    pub text: &'a str,
    pub comments: &'a [CommentLine<'a>],
    pub style: Style,
    pub side: Side,
    /// A `.down.sql` file belongs to it.
    pub has_down_file: bool,
    /// A journal of Drizzle's names it.
    pub in_journal: bool,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub start: usize,
    pub end: usize,
    /// The line on which it begins, from 1.
    pub first_line: u32,
}

/// Where UP and DOWN stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    pub up: Cut,
    pub down: Option<Cut>,
}

/// One spelling of a migration file.
pub(super) trait Layout: Sync {
    /// As people name it in configuration.
    fn name(&self) -> &'static str;

    /// Why the file is in this layout; `None`: it is not.
    fn claims(&self, page: &Page<'_>) -> Option<&'static str>;

    /// Cuts the file, and fills the metadata that stands in it.
    fn read(&self, page: &Page<'_>, metadata: &mut Metadata) -> Result<Halves>;

    /// What ends a statement besides its semicolon: a comment that says this.
    fn breakpoint(&self) -> Option<&'static str> {
        None
    }
}

/// All layouts; the first that claims a file reads it.
pub(super) const ALL: [&dyn Layout; 7] = [
    &super::drizzle::Drizzle,
    &super::banners::Banners,
    &super::metadata::MetadataLayout,
    &super::transaction::OwnTransaction,
    &super::dated::Dated,
    &super::numbered::Numbered,
    &super::plain::Plain,
];

impl Page<'_> {
    /// The whole file.
    pub fn whole(&self) -> Cut {
        Cut { start: 0, end: self.text.len(), first_line: 1 }
    }

    /// From after one comment line to the beginning of another, or to the end.
    pub fn between(&self, from: &CommentLine<'_>, to: Option<&CommentLine<'_>>) -> Cut {
        Cut {
            start: from.next,
            end: to.map_or(self.text.len(), |to| to.start),
            first_line: from.line.saturating_add(1),
        }
    }

    /// From the beginning to a comment line.
    pub fn before(&self, to: &CommentLine<'_>) -> Cut {
        Cut { end: to.start, ..self.whole() }
    }

    /// Whether a part has nothing but white space and comments in it.
    pub fn is_blank(&self, cut: Cut) -> bool {
        let text = self.text.get(cut.start..cut.end).unwrap_or_default();
        super::super::split::fold(text).is_empty() || text.trim() == "\u{feff}"
    }
}
