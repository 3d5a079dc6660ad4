//! What a layout is to the reader: who claims a file, and where its halves are.

use super::super::Metadata;
use super::comments::CommentLine;
use super::names::{Side, Style};
use crate::error::{Error, Result};

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
    /// The line by which it asks to run outside a transaction.
    pub alone: Option<u32>,
}

/// Where UP and DOWN stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    pub up: Cut,
    pub down: Option<Cut>,
}

impl Halves {
    /// Each half with the line by which it asks to run outside a transaction.
    pub fn alone(mut self, up: Option<u32>, down: Option<u32>) -> Self {
        self.up.alone = up;
        if let Some(half) = &mut self.down {
            half.alone = down;
        }
        self
    }
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
pub(super) const ALL: [&dyn Layout; 14] = [
    &super::drizzle::Drizzle,
    &super::unread::Unread,
    &super::dbmate::Dbmate,
    &super::goose::Goose,
    &super::sql_migrate::SqlMigrate,
    &super::node_pg_migrate::NodePgMigrate,
    &super::folders::Folders,
    &super::flyway::Flyway,
    &super::banners::Banners,
    &super::metadata::MetadataLayout,
    &super::transaction::OwnTransaction,
    &super::dated::Dated,
    &super::numbered::Numbered,
    &super::plain::Plain,
];

/// The comment lines that begin the halves.
pub(super) struct Marks<'a> {
    pub up: &'a CommentLine<'a>,
    pub down: Option<&'a CommentLine<'a>>,
}

/// The whole of a text. A first line `-- no-transaction` is sqlx's wish to run outside a transaction, and
/// `-- atlas:txmode none` at the top Atlas's.
pub(super) fn whole(text: &str) -> Cut {
    let head = text.trim_start_matches('\u{feff}').lines().take_while(|line| line.starts_with("--"));
    let asks = |(at, line): (usize, &str)| {
        let words = line.trim_start_matches('-').trim();
        ((at == 0 && line.starts_with("-- no-transaction")) || words == "atlas:txmode none").then_some(at)
    };
    let alone = head.enumerate().find_map(asks).and_then(|at| u32::try_from(at + 1).ok());
    Cut { start: 0, end: text.len(), first_line: 1, alone }
}

impl Page<'_> {
    /// The whole file.
    pub fn whole(&self) -> Cut {
        whole(self.text)
    }

    /// Whether the migration is a folder of its own.
    pub fn is_folder(&self) -> bool {
        self.file.contains('/')
    }

    /// From after one comment line to the beginning of another, or to the end.
    pub fn between(&self, from: &CommentLine<'_>, to: Option<&CommentLine<'_>>) -> Cut {
        Cut {
            start: from.next,
            end: to.map_or(self.text.len(), |to| to.start),
            first_line: from.line.saturating_add(1),
            alone: None,
        }
    }

    /// The halves of a file in which a comment line begins each. A mark that stands twice, none for UP, and SQL above
    /// the first are errors; `tool` is whose marks they are.
    pub fn sections(
        &self,
        tool: &str,
        is_up: impl Fn(&CommentLine<'_>) -> bool,
        is_down: impl Fn(&CommentLine<'_>) -> bool,
    ) -> Result<(Halves, Marks<'_>)> {
        let file = self.file;
        let find = |is: &dyn Fn(&CommentLine<'_>) -> bool, half: &str| -> Result<Option<&CommentLine<'_>>> {
            let mut found = self.comments.iter().filter(|comment| is(comment));
            match (found.next(), found.next()) {
                (Some(first), Some(second)) => Err(Error::failed(format!(
                    "`{file}`, line {}: a second mark of {tool}'s for {half}; the first is in line {}",
                    second.line, first.line
                ))
                .hint("put both parts below one mark")),
                (first, _) => Ok(first),
            }
        };
        let (up, down) = (find(&is_up, "UP")?, find(&is_down, "DOWN")?);
        let Some(up) = up else {
            let line = down.map_or(1, |down| down.line);
            return Err(Error::failed(format!("`{file}`, line {line}: {tool}'s mark for UP is missing"))
                .hint("write it above the statements of UP"));
        };
        let first = down.filter(|down| down.start < up.start).unwrap_or(up);
        if !self.is_blank(self.before(first)) {
            return Err(Error::failed(format!(
                "`{file}`, line {}: SQL stands above {tool}'s first mark, and belongs to no half",
                first.line
            ))
            .hint("move it below the mark that it belongs to"));
        }
        let halves = match down {
            Some(down) if down.start < up.start => {
                Halves { up: self.between(up, None), down: Some(self.between(down, Some(up))) }
            }
            down => Halves { up: self.between(up, down), down: down.map(|down| self.between(down, None)) },
        };
        Ok((halves, Marks { up, down }))
    }

    /// From the beginning to a comment line.
    pub fn before(&self, to: &CommentLine<'_>) -> Cut {
        Cut { end: to.start, alone: None, ..self.whole() }
    }

    /// Whether a part has nothing but white space and comments in it.
    pub fn is_blank(&self, cut: Cut) -> bool {
        let text = self.text.get(cut.start..cut.end).unwrap_or_default();
        super::super::split::is_blank(text) || text.trim() == "\u{feff}"
    }
}
