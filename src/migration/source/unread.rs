//! Files that another tool's mark parts into halves, or into steps, which ripcord does not read. Taken for one text, they
//! would run their DOWN right after their UP.

use std::path::Path;

use super::super::Metadata;
use super::super::lexer::{Lexer, Token};
use super::comments::{CommentLine, marker};
use super::layouts::{Halves, Layout, Page};
use crate::error::{Error, Result};

pub(super) struct Unread;

impl Layout for Unread {
    fn name(&self) -> &'static str {
        "unread"
    }

    fn claims(&self, page: &Page<'_>) -> Option<&'static str> {
        find(page).map(|_| "a mark of another tool's")
    }

    fn read(&self, page: &Page<'_>, _metadata: &mut Metadata) -> Result<Halves> {
        let Some((comment, whose)) = find(page) else { return Ok(Halves { up: page.whole(), down: None }) };
        let fact = format!("`{}`, line {}: `-- {}` is {whose}", page.file, comment.line, comment.text);
        Err(Error::failed(fact)
            .because("read as one text, a DOWN would run right after its UP")
            .hint("write `-- UP` and `-- DOWN` above the halves, or reword the comment if it parts nothing"))
    }
}

fn find<'a>(page: &'a Page<'_>) -> Option<(&'a CommentLine<'a>, &'static str)> {
    page.comments.iter().find_map(|comment| Some((comment, foreign(comment).or_else(|| bare_down(page, comment))?)))
}

/// A mark that is some tool's and nobody else's.
fn foreign(comment: &CommentLine<'_>) -> Option<&'static str> {
    let text = comment.text.to_ascii_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["//@undo", ..] => Some("MyBatis Migrations' mark for DOWN, which ripcord does not read yet"),
        ["!ups" | "!downs", ..] => Some("Play's mark for a half, which ripcord does not read yet"),
        ["rambler", "up" | "down", ..] => Some("rambler's mark for a half, which ripcord does not read yet"),
        ["liquibase", "formatted", "sql", ..] => {
            Some("Liquibase's: its changesets are steps of their own, which ripcord does not read yet")
        }
        ["create", "above", "/", "drop", "below", ..] => Some("tern's mark for DOWN, which ripcord does not read yet"),
        [tool, "up" | "down", ..]
            if tool.starts_with('+') && !matches!(*tool, "+goose" | "+migrate") && tool.len() > 1 =>
        {
            Some("a mark for a half that ripcord does not know")
        }
        _ => None,
    }
}

/// `-- Rollback` with statements below, where no layout begins a DOWN so.
fn bare_down(page: &Page<'_>, comment: &CommentLine<'_>) -> Option<&'static str> {
    let words = [
        "ROLLBACK",
        "ROLLBACK MIGRATION",
        "ROLLBACK SCRIPT",
        "ROLLBACK SQL",
        "UNDO",
        "REVERT",
        "DOWN SCRIPT",
        "DOWN SQL",
        "MIGRATE DOWN",
        "MIGRATION DOWN",
        "REVERSE MIGRATION",
        "@DOWN",
        "@UNDO",
        "@ROLLBACK",
    ];
    let below = page.between(comment, None);
    let parts = words.contains(&marker(comment).as_str())
        && !page.is_blank(page.before(comment))
        && !page.is_blank(below)
        && !is_banner(page);
    // A comment about a ROLLBACK that follows is about that statement.
    let begins = |word: &str| {
        let text = page.text.get(below.start..).unwrap_or_default();
        let first = Lexer::new(text).map_while(std::result::Result::ok).find(Token::is_significant);
        first.is_some_and(|token| token.text(text).eq_ignore_ascii_case(word))
    };
    (parts && !begins("rollback")).then_some("a mark for DOWN in a spelling that ripcord does not know")
}

/// The banners have their own words for the halves, and the other markers theirs.
fn is_banner(page: &Page<'_>) -> bool {
    super::banners::Banners.claims(page).or_else(|| super::metadata::MetadataLayout.claims(page)).is_some()
}

/// Folders of tools whose order or state stands in other files than the migrations.
pub(super) fn refuse_folder(folder: &Path) -> Result<()> {
    let tells =
        |file: &str| folder.join(file).exists() || folder.parent().is_some_and(|parent| parent.join(file).is_file());
    if tells("sqitch.plan") {
        return Err(Error::failed(format!("`{}` is Sqitch's, which ripcord does not read yet", folder.display()))
            .because("its order stands in `sqitch.plan`, and its scripts are psql's"));
    }
    if folder.join("committed").is_dir() && folder.join("current.sql").is_file() {
        return Err(Error::failed(format!("`{}` is graphile-migrate's", folder.display()))
            .because("`current.sql` is not finished, and what is lies in `committed`")
            .hint("name the finished ones: --migrations-dir DIR/committed"));
    }
    Ok(())
}
