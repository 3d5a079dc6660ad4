//! One file (or a pair) → one migration.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::lexer::{Kind, Lexer};
use super::super::split::{fold, fold_into};
use super::super::{Metadata, Migration, Remark, Script, Version};
use super::comments::{comment_lines, directives};
use super::drizzle::Journal;
use super::folders;
use super::layouts::{ALL, Cut, Layout, Page, whole};
use super::names::{Named, stem};
use crate::error::{Error, Result};

/// A file's bytes, known to be text.
pub(super) struct Half {
    path: PathBuf,
    file_name: String,
    text: String,
}

/// A migration's file, with its DOWN's file when it has one.
pub(super) struct SqlFile {
    pub path: PathBuf,
    pub file_name: String,
    pub named: Named,
    up: Half,
    down: Option<Half>,
}

impl Half {
    /// Reads a file that must lie in the folder, whatever links say.
    fn open(folder: &Path, path: PathBuf) -> Result<Self> {
        let shown = path.display().to_string();
        let cannot = |cause: std::io::Error| Error::failed(format!("cannot read `{shown}`")).because(cause);
        let real = path.canonicalize().map_err(cannot)?;
        let inside = folder.canonicalize().map_err(cannot)?;
        if !real.starts_with(&inside) {
            return Err(Error::failed(format!("`{shown}` is a link out of the folder, to `{}`", real.display()))
                .hint("put the file itself into the folder"));
        }
        // Reading a pipe would wait for ever.
        if !real.is_file() {
            return Err(Error::failed(format!("cannot read `{shown}`: it is no ordinary file")));
        }
        let bytes = std::fs::read(&real).map_err(cannot)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..at).unwrap_or_default();
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            Error::failed(format!("`{shown}`, line {line}: it is not UTF-8: byte {at} begins no character"))
                .hint("save the file as UTF-8")
        })?;
        if let Some(at) = text.find('\0') {
            return Err(Error::failed(format!("`{shown}` has a NUL at byte {at}, which PostgreSQL cannot take")));
        }
        // Of a migration that is a folder, the folder's name tells it apart.
        let file_name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        Ok(Half { path, file_name, text })
    }
}

/// The text of a file that is not a migration itself and says something of one. `None`: there is none.
pub(super) fn read_beside(path: &Path) -> Result<Option<String>> {
    let cannot = |cause: std::io::Error| Error::failed(format!("cannot read `{}`", path.display())).because(cause);
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => std::fs::read_to_string(path).map(Some).map_err(cannot),
        Ok(_) => Err(Error::failed(format!("cannot read `{}`: it is no ordinary file", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(error)),
    }
}

impl SqlFile {
    pub fn open(folder: &Path, path: PathBuf, named: Named, down: Option<PathBuf>) -> Result<Self> {
        let up = Half::open(folder, path)?;
        Ok(SqlFile {
            path: up.path.clone(),
            file_name: up.file_name.clone(),
            named,
            down: down.map(|down| Half::open(folder, down)).transpose()?,
            up,
        })
    }

    /// The index of the layout that claims the file, and why.
    pub fn layout(&self, journal: Option<&Journal>) -> (usize, &'static str) {
        claim(&self.file_name, &self.up.text, &self.named, self.down.is_some(), self.place(journal).is_some())
    }

    /// Its place in Drizzle's journal.
    pub fn place(&self, journal: Option<&Journal>) -> Option<usize> {
        journal?.place(stem(&self.file_name)?)
    }

    pub fn migration(&self, layout: &dyn Layout) -> Result<Migration> {
        let comments = comment_lines(&self.up.text);
        let page = Page {
            file: &self.file_name,
            text: &self.up.text,
            comments: &comments,
            style: self.named.style,
            side: self.named.side,
            has_down_file: self.down.is_some(),
            in_journal: false,
        };
        let mut metadata = Metadata::default();
        let halves = layout.read(&page, &mut metadata)?;
        let asked = directives(&comments, &self.file_name, &mut metadata)?;

        let breakpoint = layout.breakpoint();
        let mut up = cut(&self.up, halves.up, breakpoint, &mut metadata)?;
        let mut down = halves.down.map(|half| cut(&self.up, half, breakpoint, &mut metadata)).transpose()?;
        // Above the halves the directive is about both.
        let down_cut = halves.down;
        for line in asked.no_transaction.clone() {
            let within = |half: Cut| {
                let end = up_to_line(&self.up.text, half.end);
                line >= half.first_line && line <= end
            };
            let in_up = within(halves.up);
            let in_down = down_cut.is_some_and(within);
            let reason = format!("`-- ripcord: no-transaction` in line {line}");
            if in_up || !in_down {
                up.no_transaction.get_or_insert(reason.clone());
            }
            if let Some(down) = down.as_mut().filter(|_| in_down || !in_up) {
                down.no_transaction.get_or_insert(reason);
            }
        }
        asked.give_batches(&mut up, &self.file_name)?;
        if let Some(file) = &self.down {
            if let Some(half) = down_cut {
                return Err(Error::failed(format!(
                    "`{}` has a DOWN of its own in line {}, and `{}` is another",
                    self.file_name, half.first_line, file.file_name
                )));
            }
            down = Some(self.down_file(file, &mut metadata)?);
        }
        if page.is_folder()
            && let Some(line) = folders::asks_alone(&self.path)?
        {
            let reason = format!("line {line} of its metadata.toml asks for it");
            for script in [Some(&mut up), down.as_mut()].into_iter().flatten() {
                script.no_transaction.get_or_insert(reason.clone());
            }
        }
        if let Some(blank) = down.as_ref().filter(|down| down.is_empty()) {
            metadata.remarks.push(Remark {
                rule: "missing-down",
                line: blank.first_line,
                message: "its DOWN has no statement in it, and counts as none".to_owned(),
            });
            down = None;
        }
        Ok(Migration {
            version: Version(self.named.version.clone()),
            name: self.named.name.clone(),
            path: self.path.clone(),
            down_path: self.down.as_ref().map(|down| down.path.clone()),
            file_name: self.file_name.clone(),
            checksum: self.checksum(),
            loose_checksum: loose_checksum(&up, down.as_ref()),
            up,
            down,
            metadata,
            rank: None,
            master: false,
        })
    }

    fn down_file(&self, file: &Half, metadata: &mut Metadata) -> Result<Script> {
        let comments = comment_lines(&file.text);
        let mut own = Metadata::default();
        let asked = directives(&comments, &file.file_name, &mut own)?;
        metadata.allow.append(&mut own.allow);
        let mut script = cut(file, whole(&file.text), None, metadata)?;
        if let Some(line) = asked.no_transaction.first() {
            let reason = format!("`-- ripcord: no-transaction` in line {line}");
            script.no_transaction.get_or_insert(reason);
        }
        Ok(script)
    }

    fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.up.text.as_bytes());
        if let Some(down) = &self.down {
            hash.update(down.text.as_bytes());
        }
        hex::encode(hash.finalize())
    }
}

/// The index of the layout that claims a text, and why.
pub(super) fn claim(
    file: &str,
    text: &str,
    named: &Named,
    has_down_file: bool,
    in_journal: bool,
) -> (usize, &'static str) {
    let comments = comment_lines(text);
    let page =
        Page { file, text, comments: &comments, style: named.style, side: named.side, has_down_file, in_journal };
    ALL.iter().enumerate().find_map(|(at, layout)| Some((at, layout.claims(&page)?))).unwrap_or((ALL.len() - 1, ""))
}

/// The number of the line that the byte before `end` stands in.
fn up_to_line(text: &str, end: usize) -> u32 {
    let before = text.get(..end).unwrap_or(text);
    let lines = memchr::memchr_iter(b'\n', before.trim_end_matches('\n').as_bytes()).count();
    u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1)
}

/// UP and DOWN are folded apart: what moves across the marker is no harmless edit.
fn loose_checksum(up: &Script, down: Option<&Script>) -> String {
    let mut hash = Sha256::new();
    fold_into(&up.sql, |piece| hash.update(piece.as_bytes()));
    if let Some(down) = down {
        hash.update([0]);
        fold_into(&down.sql, |piece| hash.update(piece.as_bytes()));
    }
    hex::encode(hash.finalize())
}

fn cut(file: &Half, cut: Cut, breakpoint: Option<&str>, metadata: &mut Metadata) -> Result<Script> {
    let text = file.text.get(cut.start..cut.end).unwrap_or_default();
    // The byte order mark is no part of the SQL: the server would not understand it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let broken = breakpoint.map(|breakpoint| break_at(text, breakpoint));
    let text = broken.as_deref().unwrap_or(text);
    let mut script = Script::parse(text, &file.file_name, cut.first_line)?;
    if let Some(line) = cut.alone {
        script.no_transaction.get_or_insert(format!("line {line} asks for it"));
        return Ok(script);
    }
    let Some((unwrapped, by_statement)) = without_own_transactions(&script) else {
        return Ok(script);
    };
    let place = script.statements.iter().find(|one| one.effect.controls_transaction);
    let how = match by_statement {
        None => "it runs in ripcord's transaction",
        Some(_) => "each statement runs by itself",
    };
    metadata.remarks.push(Remark {
        rule: "transaction-control",
        line: place.map_or(cut.first_line, |first| script.line(first)),
        message: format!("the file's own BEGIN and COMMIT are left out: {how}"),
    });
    let mut script = Script::parse(&unwrapped, &file.file_name, cut.first_line)?;
    if let Some(reason) = by_statement {
        script.no_transaction.get_or_insert(reason);
    }
    Ok(script)
}

/// The text with a semicolon in place of each comment that parts two statements, where the one before has none.
/// Its length stays, and so do all positions.
fn break_at(text: &str, breakpoint: &str) -> String {
    let mut broken = text.to_owned();
    let mut open = false;
    for token in Lexer::new(text).map_while(std::result::Result::ok) {
        if token.is_significant() {
            open = token.text(text) != ";";
        } else if open && token.kind == Kind::Comment && token.text(text).trim_end() == breakpoint {
            let blank = format!(";{}", " ".repeat((token.end - token.start).saturating_sub(1)));
            broken.replace_range(token.start..token.end, &blank);
            open = false;
        }
    }
    broken
}

/// The text with its own BEGIN and COMMIT blanked out, so that positions stay, and why the rest runs statement by
/// statement, when it does. `None`: it has none, or they cannot be left out.
///
/// Whole transactions, around all or in the middle, join ripcord's. A COMMIT that comes before any BEGIN ends the
/// transaction of the tool that ran the file, so that what cannot run in one may follow.
fn without_own_transactions(script: &Script) -> Option<(String, Option<String>)> {
    let mut controls = Vec::new();
    for statement in &script.statements {
        let folded = fold(script.text(statement)).to_ascii_lowercase();
        let words = folded.trim_end_matches([';', ' ']);
        if !statement.effect.controls_transaction {
            continue;
        }
        let begins = matches!(words, "begin" | "begin work" | "begin transaction" | "start transaction");
        let ends =
            ["commit", "commit work", "commit transaction", "end", "end work", "end transaction"].contains(&words);
        // ROLLBACK, savepoints and modes mean more than where a transaction begins.
        if begins == ends {
            return None;
        }
        controls.push((begins, statement));
    }
    let (first_begins, _) = *controls.first()?;
    let alternate = controls.windows(2).all(|pair| matches!(pair, [(one, _), (other, _)] if one != other));
    let ends_open = first_begins && controls.last().is_some_and(|(begins, _)| *begins);
    if !alternate || ends_open {
        return None;
    }
    // What cannot run in a transaction must stand outside the file's own.
    let mut open = !first_begins;
    let mut by_statement = None;
    for statement in &script.statements {
        if let Some((begins, _)) = controls.iter().find(|(_, control)| control.start == statement.start) {
            open = *begins;
        } else if statement.effect.needs_no_transaction {
            if open {
                return None;
            }
            by_statement = Some(format!("line {} runs outside a transaction", script.line(statement)));
        }
    }
    // A COMMIT with nothing after it that asks for one is more likely a mistake than meant.
    if !first_begins && by_statement.is_none() {
        return None;
    }
    if by_statement.is_some() && script.statements.iter().any(|one| lasts_for_transaction(script.text(one))) {
        return None;
    }
    let mut text = String::with_capacity(script.sql.len());
    for (_, control) in &controls {
        text.push_str(script.sql.get(text.len()..control.start)?);
        let blank = script.sql.get(control.start..control.end)?;
        text.extend(blank.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
    }
    text.push_str(script.sql.get(text.len()..)?);
    Some((text, by_statement))
}

/// Whether a statement means something else when its transaction holds nothing but it.
fn lasts_for_transaction(statement: &str) -> bool {
    let text = fold(statement).to_ascii_lowercase();
    ["set local", "set transaction", "set constraints", "lock ", "declare "].iter().any(|word| text.starts_with(word))
        || text.contains("on commit ")
        || text.contains("set_config")
}
