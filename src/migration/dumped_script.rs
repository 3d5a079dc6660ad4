//! A script as pg_dump writes it for psql, read piece by piece: statements, rows of COPY, and what psql alone
//! understands.
//!
//! Of psql's commands only those are known that pg_dump writes. A script of psql's own (`\i`, `\gset`, variables) is not
//! what is read here.

use std::io::BufRead;

use super::split::{fold, whole};
use crate::error::{Error, Result};

/// The longest statement that is read, in bytes: PostgreSQL takes no text of 1 GB either.
const MOST_STATEMENT_BYTES: usize = 512 << 20;

/// Rows that are given out at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A piece of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A statement, and the line on which it begins.
    Statement(u32, String),
    /// A COPY statement whose rows follow.
    Copy(u32, String),
    /// Some of them, whole lines.
    Rows(Vec<u8>),
    /// The end of them.
    RowsEnd,
}

/// What is to be done with a statement of a dump that is loaded into a database of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is run.
    Run,
    /// It is about the database as a whole, whose place another one takes: it is left out.
    OfTheDatabase,
    /// It gives things to roles or lets them in: left out when that was asked for.
    OfRoles,
    /// It reaches beyond the database: the script is refused. Says what it is.
    Refused(&'static str),
}

/// Reads a script.
pub struct DumpedScript<R> {
    lines: R,
    line: u32,
    within_rows: bool,
    /// The database that the script has connected to.
    connected: Option<String>,
    /// Statements that stood together.
    waiting: std::collections::VecDeque<Piece>,
}

impl<R: BufRead> DumpedScript<R> {
    /// Begins at the first line.
    pub fn new(lines: R) -> Self {
        DumpedScript { lines, line: 0, within_rows: false, connected: None, waiting: Default::default() }
    }

    /// The line that was read last, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The next piece; `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        if self.within_rows {
            return self.rows().map(Some);
        }
        if self.waiting.is_empty() {
            self.read_statements()?;
        }
        let next = self.waiting.pop_front();
        self.within_rows = matches!(next, Some(Piece::Copy(..)));
        Ok(next)
    }

    fn read_line(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let count = self
            .lines
            .read_until(b'\n', into)
            .map_err(|error| Error::failed("the file could not be read").because(error))?;
        self.line = self.line.saturating_add(u32::from(count > 0));
        Ok(count > 0)
    }

    /// Reads on until at least one statement is whole.
    fn read_statements(&mut self) -> Result<()> {
        let mut text = String::new();
        let mut first_line = 0;
        let mut line = Vec::new();
        while self.read_line(&mut line)? {
            let words = std::str::from_utf8(&line).map_err(|_| {
                Error::failed(format!("line {} is not in UTF-8", self.line))
                    .hint("have the script written so: pg_dump --encoding=UTF8")
            })?;
            let trimmed = words.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                first_line = self.line;
                if trimmed.starts_with('\\') {
                    self.command(trimmed)?;
                    line.clear();
                    continue;
                }
                if trimmed.is_empty() || trimmed.starts_with("--") {
                    line.clear();
                    continue;
                }
            }
            text.push_str(words);
            if text.len() > MOST_STATEMENT_BYTES {
                return Err(Error::failed(format!("the statement that begins in line {first_line} never ends")));
            }
            // Statements end with a line, in what pg_dump writes; a comment may follow.
            let may_end = trimmed.ends_with(';') || (trimmed.contains(';') && trimmed.contains("--"));
            line.clear();
            if let Some(found) = may_end.then(|| whole(&text)).flatten() {
                return self.take(&text, first_line, found);
            }
        }
        match whole(&format!("{text};")) {
            // The last one needs no semicolon.
            Some(found) => self.take(&format!("{text};"), first_line, found),
            None => Err(Error::failed(format!("the statement that begins in line {first_line} never ends"))
                .because("the file was cut off, perhaps")),
        }
    }

    fn take(&mut self, text: &str, first_line: u32, found: Vec<(std::ops::Range<usize>, bool)>) -> Result<()> {
        let count = found.len();
        for (at, (range, copies)) in found.into_iter().enumerate() {
            let line = first_line.saturating_add(lines_before(text, range.start));
            let statement = text.get(range).unwrap_or_default().to_owned();
            if copies && at + 1 < count {
                return Err(Error::failed(format!("line {line}: the rows of COPY do not follow it")));
            }
            self.waiting.push_back(if copies {
                Piece::Copy(line, statement)
            } else {
                Piece::Statement(line, statement)
            });
        }
        Ok(())
    }

    /// A command of psql's: those that pg_dump writes mean nothing here.
    fn command(&mut self, line: &str) -> Result<()> {
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            "\\restrict" | "\\unrestrict" | "\\." => Ok(()),
            "\\connect" | "\\c" => {
                let database = words.next().unwrap_or_default().to_owned();
                match &self.connected {
                    Some(before) if *before != database => Err(Error::failed(format!(
                        "line {}: the script goes on in another database, `{database}` after `{before}`",
                        self.line
                    ))
                    .hint("dump each database by itself: pg_dump DATABASE")),
                    _ => {
                        self.connected = Some(database);
                        Ok(())
                    }
                }
            }
            other => Err(Error::failed(format!("line {}: `{other}` is a command of psql that no dump has", self.line))
                .hint("import what pg_dump wrote")),
        }
    }

    fn rows(&mut self) -> Result<Piece> {
        let mut rows = Vec::with_capacity(PIECE_BYTES);
        let mut line = Vec::new();
        while self.read_line(&mut line)? {
            if matches!(line.as_slice(), b"\\.\n" | b"\\.\r\n" | b"\\.") {
                self.within_rows = false;
                if rows.is_empty() {
                    return Ok(Piece::RowsEnd);
                }
                self.waiting.push_front(Piece::RowsEnd);
                return Ok(Piece::Rows(rows));
            }
            rows.append(&mut line);
            if rows.len() >= PIECE_BYTES {
                return Ok(Piece::Rows(rows));
            }
        }
        Err(Error::failed(format!("the file ends in line {} within the rows of a table", self.line))
            .because("it was cut off, perhaps"))
    }
}

fn lines_before(text: &str, at: usize) -> u32 {
    let count = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What is to be done with a statement. A dump that was made with `--create` drops and makes its own database, and one
/// of the whole cluster makes roles: neither must happen where it is loaded for a while.
pub fn verdict(statement: &str) -> Verdict {
    let opening: String = statement.chars().take(4096).collect();
    let folded = fold(&opening).to_ascii_lowercase();
    let words: Vec<&str> = folded.split_whitespace().take(6).collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default().trim_end_matches(';');
    let on_database = folded.split_whitespace().any(|word| word == "database") && folded.contains(" on database ");
    match (word(0), word(1)) {
        ("create" | "drop" | "alter", "database") => Verdict::OfTheDatabase,
        ("comment" | "security" | "grant" | "revoke", _) if on_database => Verdict::OfTheDatabase,
        ("create" | "drop" | "alter", "user") if word(2) == "mapping" => Verdict::Run,
        ("create" | "drop" | "alter", "role" | "user" | "group") => Verdict::Refused("it makes or changes roles"),
        ("create" | "drop" | "alter", "tablespace") => Verdict::Refused("it makes or changes tablespaces"),
        ("alter", "system") => Verdict::Refused("it changes the server's settings"),
        ("copy", _) => Verdict::Refused("it copies from or to a file of the server"),
        ("set", "client_encoding") if !folded.contains("utf") && !folded.contains("unicode") => {
            Verdict::Refused("its rows are not in UTF-8: pg_dump --encoding=UTF8")
        }
        ("set", "standard_conforming_strings") if folded.contains("off") => {
            Verdict::Refused("its strings are written in the old way")
        }
        ("grant" | "revoke", _) | ("alter", "default") => Verdict::OfRoles,
        ("set", "session") if word(2) == "authorization" => Verdict::OfRoles,
        ("alter", _) if gives_away(&folded) => Verdict::OfRoles,
        _ => Verdict::Run,
    }
}

/// `ALTER … OWNER TO role;`
fn gives_away(folded: &str) -> bool {
    folded.rsplit_once(" owner to ").is_some_and(|(_, role)| {
        let role = role.trim_end_matches([';', ' ']);
        let is_quoted = role.len() > 1 && role.starts_with('"') && role.ends_with('"');
        is_quoted || role.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Result<Vec<Piece>> {
        let mut script = DumpedScript::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(piece) = script.next_piece()? {
            all.push(piece);
        }
        Ok(all)
    }

    fn statement(line: u32, text: &str) -> Piece {
        Piece::Statement(line, text.to_owned())
    }

    #[test]
    fn a_dump_comes_apart() {
        let text = "--\n-- PostgreSQL database dump\n--\n\n\\restrict k\n\nSET a = 1;\nCREATE FUNCTION f() RETURNS int\n    \
            AS $$\nselect 1;\n-- it's; \\x\n$$;\n\nCOPY t (a) FROM stdin;\n1\tit's; -- no\n\\\\.\n\\N\n\\.\n\n\nSELECT 1; SELECT 2;\n\
            INSERT INTO t VALUES ('a;\n\\b;\n');\n\\unrestrict k\n\nSELECT 'last'";
        assert_eq!(
            pieces(text).unwrap(),
            [
                statement(7, "SET a = 1;"),
                statement(8, "CREATE FUNCTION f() RETURNS int\n    AS $$\nselect 1;\n-- it's; \\x\n$$;"),
                Piece::Copy(14, "COPY t (a) FROM stdin;".to_owned()),
                Piece::Rows(b"1\tit's; -- no\n\\\\.\n\\N\n".to_vec()),
                Piece::RowsEnd,
                statement(21, "SELECT 1;"),
                statement(21, "SELECT 2;"),
                statement(22, "INSERT INTO t VALUES ('a;\n\\b;\n');"),
                statement(27, "SELECT 'last';"),
            ]
        );
        assert_eq!(pieces("").unwrap(), []);
        assert_eq!(pieces("-- only\n\n").unwrap(), []);
        let empty = pieces("COPY t FROM stdin;\n\\.\n").unwrap();
        assert_eq!(empty, [Piece::Copy(1, "COPY t FROM stdin;".to_owned()), Piece::RowsEnd]);
    }

    #[test]
    fn what_is_no_dump_is_told_with_its_line() {
        for (text, told) in [
            ("SELECT 1;\n\\i other.sql\n", "line 2: `\\i`"),
            ("\\connect a\n\\connect a\n\\connect b\n", "line 3: the script goes on in another database"),
            ("COPY t FROM stdin;\n1\n", "ends in line 2 within the rows"),
            ("SELECT 1;\nSELECT 'a\n", "begins in line 2 never ends"),
        ] {
            let error = pieces(text).unwrap_err();
            assert!(error.message().contains(told), "{text}: {error}");
        }
        let mut script = DumpedScript::new(&b"SELECT 'caf\xe9';\n"[..]);
        assert!(script.next_piece().unwrap_err().message().contains("line 1 is not in UTF-8"));
    }

    #[test]
    fn what_reaches_beyond_the_database_is_known() {
        for (text, expected) in [
            ("CREATE DATABASE shop WITH TEMPLATE = template0;", Verdict::OfTheDatabase),
            ("DROP DATABASE IF EXISTS shop;", Verdict::OfTheDatabase),
            ("ALTER DATABASE shop OWNER TO x;", Verdict::OfTheDatabase),
            ("/* x */ drop\n database shop;", Verdict::OfTheDatabase),
            ("COMMENT ON DATABASE shop IS 'x';", Verdict::OfTheDatabase),
            ("GRANT ALL ON DATABASE shop TO x;", Verdict::OfTheDatabase),
            ("GRANT ALL ON TABLE public.t TO x;", Verdict::OfRoles),
            ("ALTER TABLE public.t OWNER TO \"a b\";", Verdict::OfRoles),
            ("ALTER FUNCTION public.f(a int) OWNER TO x;", Verdict::OfRoles),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE x GRANT ALL ON TABLES TO y;", Verdict::OfRoles),
            ("ALTER TABLE ONLY public.t ADD CONSTRAINT c CHECK ((a <> ' owner to '::text));", Verdict::Run),
            ("CREATE USER MAPPING FOR x SERVER s;", Verdict::Run),
            ("CREATE TABLE public.database (a int);", Verdict::Run),
            ("SET client_encoding = 'UTF8';", Verdict::Run),
        ] {
            assert_eq!(verdict(text), expected, "{text}");
        }
        for text in [
            "CREATE ROLE x;",
            "alter user x password 'y';",
            "CREATE TABLESPACE s LOCATION '/x';",
            "ALTER SYSTEM SET a = 1;",
            "COPY t FROM '/etc/passwd';",
            "COPY t FROM PROGRAM 'id';",
            "SET client_encoding = 'LATIN1';",
        ] {
            assert!(matches!(verdict(text), Verdict::Refused(_)), "{text}");
        }
    }
}
