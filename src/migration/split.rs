//! SQL text → statements, by PostgreSQL's own lexical rules.

use std::borrow::Cow;
use std::ops::Range;

use super::Statement;
use super::classify::examine;
use super::lexer::{Kind, Lexer, Token};
use crate::error::{Error, Result};

/// Cuts `sql` into statements: dollar quotes, nested comments, `E''`, `U&''`, quoted names, BEGIN ATOMIC
/// bodies. The last may lack its semicolon. Pieces with nothing but white space and comments are none.
/// `first_line` and `file` are for messages: an unterminated quote or comment, a psql meta-command.
pub fn split(sql: &str, file: &str, first_line: u32) -> Result<Vec<Statement>> {
    let found = found(sql, file, first_line)?;
    let classified = found.into_iter().map(|Found { text, data }| {
        let (effect, parsed) = examine(sql.get(text.clone()).unwrap_or_default());
        Statement { start: text.start, end: text.end, data, effect, parsed }
    });
    Ok(classified.collect())
}

/// The text in pieces that put together give it back, byte for byte: each ends where its statement ends, data of
/// a COPY included; the last holds what stands after the last statement, and may be empty.
pub fn pieces(sql: &str) -> Result<Vec<&str>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for Found { text, data } in found(sql, "", 1)? {
        let end = data.map_or(text.end, |data| data.end);
        pieces.push(sql.get(at..end).unwrap_or_default());
        at = end;
    }
    pieces.push(sql.get(at..).unwrap_or_default());
    Ok(pieces)
}

/// The text with `\\restrict` and `\\unrestrict`, which pg_dump puts around a dump, blanked out: positions stay.
pub(crate) fn without_dump_guards(sql: &str) -> Cow<'_, str> {
    if !sql.contains("restrict ") {
        return Cow::Borrowed(sql);
    }
    let mut kept = String::with_capacity(sql.len());
    for token in Lexer::new(sql).map_while(std::result::Result::ok) {
        let text = token.text(sql);
        if token.kind == Kind::Comment && text.starts_with('\\') {
            kept.extend(std::iter::repeat_n(' ', text.len()));
        } else {
            kept.push_str(text);
        }
    }
    kept.push_str(sql.get(kept.len()..).unwrap_or_default());
    Cow::Owned(kept)
}

/// Whether there is nothing but white space and comments.
pub(crate) fn is_blank(sql: &str) -> bool {
    Lexer::new(sql).all(|token| token.is_ok_and(|token| matches!(token.kind, Kind::Space | Kind::Comment)))
}

/// The text without comments and with white space folded, outside quotes.
pub fn fold(sql: &str) -> String {
    let mut folded = String::new();
    fold_into(sql, |piece| folded.push_str(piece));
    folded
}

/// The pieces of the folded text, one after the other: a large one is not held twice.
pub(crate) fn fold_into(sql: &str, mut take: impl FnMut(&str)) {
    let (mut gap, mut began) = (false, false);
    for token in Lexer::new(sql) {
        let text = match &token {
            Ok(token) if matches!(token.kind, Kind::Space | Kind::Comment) => {
                gap = true;
                continue;
            }
            Ok(token) => token.text(sql),
            // What never ends is kept as it stands.
            Err(rest) => sql.get(rest.start..).unwrap_or_default(),
        };
        if gap && began {
            take(" ");
        }
        (gap, began) = (false, true);
        take(text);
    }
}

/// Line and column, both from 1, of a byte offset in a text whose first line has the number given.
pub(crate) fn line_column(sql: &str, offset: usize, first_line: u32) -> (u32, u32) {
    let before = sql.as_bytes().get(..offset).unwrap_or(sql.as_bytes());
    let lines = memchr::memchr_iter(b'\n', before).count();
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(before.get(line_start..).unwrap_or_default()).chars().count();
    (
        first_line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX)),
        u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
    )
}

/// A statement's place in the text, and that of the data that follow a COPY.
struct Found {
    text: Range<usize>,
    data: Option<Range<usize>>,
}

/// The statements' places in the text. Nothing is classified.
#[cfg(test)]
fn ranges(sql: &str, file: &str, first_line: u32) -> Result<Vec<Range<usize>>> {
    Ok(found(sql, file, first_line)?.into_iter().map(|found| found.text).collect())
}

fn found(sql: &str, file: &str, first_line: u32) -> Result<Vec<Found>> {
    let place = |offset| {
        let (line, column) = line_column(sql, offset, first_line);
        format!("`{file}`, line {line}, column {column}")
    };
    let without_data = |found: &Found| {
        Error::failed(format!("{}: the data of this COPY are not there, or do not end", place(found.text.start)))
            .hint("the rows follow in the next line, and a line `\\.` ends them")
    };
    let mut all: Vec<Found> = Vec::new();
    let mut piece = Piece::default();
    // A COPY FROM STDIN whose data have not come yet.
    let mut waiting = false;
    for token in Lexer::new(sql) {
        let token = token.map_err(|open| {
            Error::failed(format!("{}: the {} that begins here never ends", place(open.start), open.what))
        })?;
        if waiting && let Some(copy) = all.last_mut() {
            if token.kind != Kind::CopyData {
                return Err(without_data(copy));
            }
            copy.data = Some(token.start..token.end);
            waiting = false;
            continue;
        }
        match token.kind {
            Kind::Space | Kind::Comment | Kind::CopyData => continue,
            Kind::Backslash => {
                let rest = sql.get(token.start..).unwrap_or_default();
                return Err(psql_command(rest, &place(token.start)));
            }
            Kind::Semicolon if piece.is_complete() => {
                if let Some(start) = piece.start {
                    waiting = piece.copies_inline;
                    all.push(Found { text: start..token.end, data: None });
                }
                piece = Piece::default();
            }
            _ => piece.add(token, sql),
        }
    }
    if let Some(start) = piece.start {
        waiting = piece.copies_inline;
        all.push(Found { text: start..piece.end, data: None });
    }
    match all.last() {
        Some(copy) if waiting => Err(without_data(copy)),
        _ => Ok(all),
    }
}

/// What to do instead of a command of psql's.
fn psql_command(rest: &str, place: &str) -> Error {
    let command = rest.split_whitespace().next().unwrap_or("\\");
    let hint = match command.trim_end_matches('+') {
        "\\i" | "\\ir" | "\\include" | "\\include_relative" => "put the other file's text here, or make it a migration",
        "\\c" | "\\connect" => "a migration runs in one database: take the line out, and name it with --database-url",
        "\\copy" => "write `COPY … FROM STDIN;`, the rows below it, and a line `\\.`",
        "\\set" => "give it from the environment: `allow = [\"NAME\"]` below `[variables]`",
        "\\echo" | "\\qecho" | "\\warn" => "take the line out, or write `DO $$ BEGIN RAISE NOTICE 'text'; END $$;`",
        "\\gexec" => "run the statements in a DO block with EXECUTE",
        "\\timing" | "\\pset" | "\\x" | "\\set_echo" => "take the line out: it only changes what psql shows",
        _ => "replace it by SQL, or remove the line",
    };
    Error::failed(format!("{place}: `{command}` is a command of psql, which the server does not understand")).hint(hint)
}

/// The statements of a text that ends with one, each with whether its rows follow (`COPY … FROM STDIN`); `None` while
/// the last one goes on.
pub(crate) fn whole(sql: &str) -> Option<Vec<(Range<usize>, bool)>> {
    let mut found = Vec::new();
    let mut piece = Piece::default();
    for token in Lexer::new(sql) {
        let token = token.ok()?;
        match token.kind {
            Kind::Space | Kind::Comment => {}
            Kind::Semicolon if piece.is_complete() => {
                let piece = std::mem::take(&mut piece);
                found.extend(piece.start.map(|start| (start..token.end, piece.copies_inline)));
            }
            _ => piece.add(token, sql),
        }
    }
    piece.start.is_none().then_some(found)
}

/// A statement while it is being read.
#[derive(Default)]
struct Piece {
    start: Option<usize>,
    end: usize,
    parentheses: usize,
    /// Its first words, in lower case: as many as tell whether it creates a routine.
    first: Vec<String>,
    /// BEGIN ATOMIC and every CASE inside it that wait for their END.
    atomic: usize,
    /// The word before, when nothing stands between.
    previous: String,
    copies_inline: bool,
}

impl Piece {
    fn is_complete(&self) -> bool {
        self.parentheses == 0 && self.atomic == 0
    }

    fn add(&mut self, token: Token, sql: &str) {
        self.start.get_or_insert(token.start);
        self.end = token.end;
        let text = token.text(sql);
        match token.kind {
            Kind::Open => self.parentheses += 1,
            // Like psql, which does not count below zero: the server will tell what is wrong.
            Kind::Close => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        if token.kind != Kind::Word {
            self.previous = if text == "." { ".".to_owned() } else { String::new() };
            return;
        }
        let word = text.to_ascii_lowercase();
        // After AS and after a dot even CASE and END are names.
        let is_name = matches!(self.previous.as_str(), "." | "as");
        match word.as_str() {
            "atomic" if self.previous == "begin" && self.atomic == 0 && self.creates_routine() => {
                self.atomic = 1;
            }
            "case" if self.atomic > 0 && !is_name => self.atomic += 1,
            "end" if self.atomic > 0 && !is_name => self.atomic -= 1,
            "stdin" if self.previous == "from" && self.parentheses == 0 => {
                self.copies_inline |= self.first.first().is_some_and(|first| first == "copy");
            }
            _ => {}
        }
        if self.first.len() < 4 {
            self.first.push(word.clone());
        }
        self.previous = word;
    }

    fn creates_routine(&self) -> bool {
        let mut words = self.first.iter().map(String::as_str);
        let mut next = || words.next().unwrap_or_default();
        if next() != "create" {
            return false;
        }
        let kind = match next() {
            "or" if next() == "replace" => next(),
            word => word,
        };
        matches!(kind, "function" | "procedure")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(sql: &str) -> Vec<&str> {
        ranges(sql, "f.sql", 1).unwrap().into_iter().map(|range| &sql[range]).collect()
    }

    #[test]
    fn semicolons_count_outside_quotes_only() {
        for one in [
            "select ';'",
            "select E'\\';'",
            "select U&'d\\0061;'",
            "select \"a;b\"",
            "select $$;$$",
            "select $x$ ; $$ ; $x$",
            "select 1 /* ; /* ; */ ; */",
            "select 1 -- ;\n",
            "create rule r as on insert to t do also (insert into a values (1); insert into b values (2))",
            "create function f() returns int language sql begin atomic select case when true then 1 else case when true then 2 end end; select 2; end",
            "create or replace procedure p() begin atomic insert into t values (1); end",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; SELECT x.case FROM x; END",
        ] {
            let sql = format!("{one};select 2;");
            let found = texts(&sql);
            assert_eq!(found.len(), 2, "{one}: {found:?}");
            assert_eq!(found[1], "select 2;");
        }
    }

    #[test]
    fn begin_without_atomic_is_a_statement_of_its_own() {
        assert_eq!(texts("begin; select 1; end;").len(), 3);
        assert_eq!(texts("create table begin (atomic int); select 1;").len(), 2);
    }

    #[test]
    fn the_last_statement_needs_no_semicolon() {
        assert_eq!(texts("select 1;\r\nselect 2 -- end\r\n"), ["select 1;", "select 2"]);
    }

    #[test]
    fn a_mark_and_empty_statements_are_nothing() {
        assert!(texts("\u{feff}").is_empty());
        assert_eq!(texts("\u{feff};; select 1;; -- x\n;"), ["select 1;"]);
        assert!(texts(" -- x\n/* y */ ").is_empty());
    }

    #[test]
    fn psql_commands_are_named_with_their_place() {
        let error = ranges("select 1;\n\\i other.sql\n", "001_a.sql", 4).unwrap_err();
        assert!(error.message().contains("`001_a.sql`, line 5, column 1: `\\i`"), "{error}");
        assert!(ranges("select 1 \\gexec", "f", 1).is_err());
        assert!(ranges("select '\\i'", "f", 1).is_ok());
        assert!(ranges("$$\n\\i x\n$$", "f", 1).is_ok());
    }

    #[test]
    fn the_data_of_a_copy_are_data() {
        let sql = "select 1;\ncopy t (a) from stdin;\nit's; $$ /* \\\\i\n\\.\nselect 2;\nCOPY \"a;b\".c FROM STDIN WITH (FORMAT csv);\r\n1,2\r\n\\.\r\n";
        let found = split(sql, "f.sql", 1).unwrap();
        let texts: Vec<&str> = found.iter().map(|one| &sql[one.start..one.end]).collect();
        assert_eq!(
            texts,
            ["select 1;", "copy t (a) from stdin;", "select 2;", "COPY \"a;b\".c FROM STDIN WITH (FORMAT csv);"]
        );
        let data: Vec<Option<&str>> = found.iter().map(|one| one.data.clone().map(|data| &sql[data])).collect();
        assert_eq!(data, [None, Some("\nit's; $$ /* \\\\i\n\\."), None, Some("\r\n1,2\r\n\\.\r")]);
        assert_eq!(pieces("copy t from stdin;\n\\.").unwrap(), ["copy t from stdin;\n\\.", ""]);
    }

    #[test]
    fn a_copy_without_its_data_is_told() {
        for sql in [
            "select 1;\ncopy t from stdin;\n1\n",
            "select 1;\ncopy t from stdin",
            "select 1;\ncopy t from stdin; select 1;\n\\.\n",
        ] {
            let error = ranges(sql, "f.sql", 1).unwrap_err();
            assert!(error.message().contains("line 2"), "{error}");
        }
        assert!(ranges("copy t from '/a/stdin';", "f.sql", 1).is_ok());
        assert!(ranges("copy (select 1 from stdin) to '/x';", "f.sql", 1).is_ok());
    }

    #[test]
    fn the_guards_of_a_dump_are_understood() {
        let sql = "\\restrict x7Y\nselect 1;\n\\unrestrict x7Y\n";
        assert_eq!(pieces(sql).unwrap(), ["\\restrict x7Y\nselect 1;", "\n\\unrestrict x7Y\n"]);
        assert_eq!(without_dump_guards(sql), "             \nselect 1;\n               \n");
        assert!(ranges("select 1 \\restrict x\n;", "f", 1).is_err());
    }

    #[test]
    fn an_open_quote_is_told_with_its_place() {
        let error = ranges("select 1;\n  select 'abc;\n", "f.sql", 10).unwrap_err();
        assert!(error.message().contains("line 11, column 10"), "{error}");
    }

    #[test]
    fn folding_keeps_what_is_quoted() {
        assert_eq!(
            fold("select  1 -- why\n , 'a  b' /* x */ , $$ c  --d $$\r\n;\n"),
            "select 1 , 'a  b' , $$ c  --d $$ ;"
        );
        assert_eq!(fold("a/**/b"), "a b");
        assert_eq!(fold("a  'open  x"), "a 'open  x");
    }

    proptest! {
        #[test]
        fn put_together_the_pieces_are_the_file(
            sql in "(select|create function f\\(\\)|begin atomic|end|case|copy x from stdin;\n|\\\\\\.\n|\\\\restrict x\n|\\$\\$|'|\"|;|;|\\(|\\)|--|/\\*|\\*/|\n|\r\n|\\\\i|é| |E'){0,40}"
        ) {
            if let Ok(pieces) = pieces(&sql) {
                prop_assert_eq!(pieces.concat(), sql.clone());
                let (rest, statements) = pieces.split_last().unwrap();
                for piece in statements {
                    prop_assert_eq!(ranges(piece, "f", 1).unwrap().len(), 1, "{:?}", piece);
                }
                prop_assert!(ranges(rest, "f", 1).unwrap().is_empty(), "{:?}", rest);
                let blanked = without_dump_guards(&sql);
                prop_assert_eq!(blanked.len(), sql.len());
                prop_assert_eq!(ranges(&blanked, "f", 1).unwrap(), ranges(&sql, "f", 1).unwrap());
            }
        }
    }
}
