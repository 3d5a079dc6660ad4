//! Statements as pg_dump writes them, taken apart: what a table's copy under another name needs of them.
//!
//! pg_dump writes `CREATE TABLE schema.name (` with one column after the other, each as name, type, default or
//! generation, NOT NULL, collation, in this order (PostgreSQL's `pg_dump.c`, `dumpTableSchema`).

use super::lexer::{Kind, Lexer, Token};

/// A table's definition without its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableText {
    /// The columns that it names itself, in order.
    pub columns: Vec<ColumnText>,
    /// The composite type that its columns come from (`OF type`), as written.
    pub of_type: Option<String>,
    /// The tables that the rest of its columns come from, as written.
    pub inherits: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnText {
    /// Its name, as written.
    pub name: String,
    /// Its definition, without a default.
    pub definition: String,
    /// Whether a default was left out of it.
    pub had_default: bool,
}

/// A COPY statement's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyText<'a> {
    /// The relation that it names, as written.
    pub relation: &'a str,
    /// The columns in their parentheses, as written; empty where the table has none.
    pub columns: &'a str,
}

/// Takes a table's definition apart; `None` when it is not one that pg_dump writes.
pub fn table(definition: &str) -> Option<TableText> {
    let words = significant(definition)?;
    let name = words.iter().position(|token| is(token, definition, "table"))? + 1;
    let mut at = after_name(&words, definition, name)?;
    let mut table = TableText::default();
    if is(words.get(at)?, definition, "of") {
        let end = after_name(&words, definition, at + 1)?;
        table.of_type = Some(between(&words, definition, at + 1, end)?.to_owned());
        return Some(table);
    }
    if words.get(at)?.kind != Kind::Open {
        return None;
    }
    let close = closing(&words, definition, at)?;
    for (start, end) in elements(&words, definition, at + 1, close) {
        // Constraints of the whole table are no columns; a column of that name would stand in quotes.
        let first = words.get(start)?;
        if !["constraint", "check"].iter().any(|word| is(first, definition, word)) {
            table.columns.push(column(&words, definition, start, end)?);
        }
    }
    at = close + 1;
    if words.get(at).is_some_and(|token| is(token, definition, "inherits")) {
        let close = closing(&words, definition, at + 1)?;
        for (start, end) in elements(&words, definition, at + 2, close) {
            table.inherits.push(between(&words, definition, start, end)?.to_owned());
        }
    }
    Some(table)
}

/// Takes a COPY statement apart.
pub fn copy(statement: &str) -> Option<CopyText<'_>> {
    let words = significant(statement)?;
    if !is(words.first()?, statement, "copy") {
        return None;
    }
    let end = after_name(&words, statement, 1)?;
    let columns = match words.get(end)?.kind {
        Kind::Open => between(&words, statement, end, closing(&words, statement, end)? + 1)?,
        _ => "",
    };
    Some(CopyText { relation: between(&words, statement, 1, end)?, columns })
}

/// `PRIMARY KEY (id)` of the statement that adds it to a table, with what belongs to it; `None` when the statement
/// adds something else.
pub fn primary_key(statement: &str) -> Option<&str> {
    let words = significant(statement)?;
    let add = words.iter().position(|token| is(token, statement, "add"))?;
    let primary = add + 3;
    let is_key = is(words.get(add + 1)?, statement, "constraint") && is(words.get(primary)?, statement, "primary");
    let end = words.iter().position(|token| token.kind == Kind::Semicolon).unwrap_or(words.len());
    if is_key { between(&words, statement, primary, end) } else { None }
}

/// The parts of a qualified name, without quotes; words without quotes in lower case. `None` when it is none.
pub fn name_parts(text: &str) -> Option<Vec<String>> {
    let words = significant(text)?;
    let mut parts = Vec::new();
    for (at, token) in words.iter().enumerate() {
        let word = token.text(text);
        match (at % 2, token.kind) {
            (0, Kind::Word) => parts.push(word.to_lowercase()),
            (0, Kind::QuotedName) => {
                let inside = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'))?;
                parts.push(inside.replace("\"\"", "\""));
            }
            (1, _) if word == "." => {}
            _ => return None,
        }
    }
    (words.len() % 2 == 1).then_some(parts)
}

/// The tokens that mean something; `None` when one of them never ends.
fn significant(text: &str) -> Option<Vec<Token>> {
    Lexer::new(text).filter(|token| token.as_ref().map_or(true, Token::is_significant)).collect::<Result<_, _>>().ok()
}

fn is(token: &Token, text: &str, word: &str) -> bool {
    token.kind == Kind::Word && token.text(text).eq_ignore_ascii_case(word)
}

/// The text from one token up to another.
fn between<'a>(words: &[Token], text: &'a str, start: usize, end: usize) -> Option<&'a str> {
    let last = words.get(end.checked_sub(1)?)?;
    text.get(words.get(start)?.start..last.end)
}

/// Where a qualified name that begins at `at` has ended.
fn after_name(words: &[Token], text: &str, at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        if !matches!(words.get(at)?.kind, Kind::Word | Kind::QuotedName) {
            return None;
        }
        at += 1;
        if words.get(at).is_none_or(|token| token.text(text) != ".") {
            return Some(at);
        }
        at += 1;
    }
}

/// How much deeper the next token stands: parentheses, and the brackets of an array.
fn deeper(token: &Token, text: &str) -> isize {
    match (token.kind, token.text(text)) {
        (Kind::Open, _) | (Kind::Other, "[") => 1,
        (Kind::Close, _) | (Kind::Other, "]") => -1,
        _ => 0,
    }
}

/// The parenthesis that closes the one at `open`.
fn closing(words: &[Token], text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, token) in words.iter().enumerate().skip(open) {
        depth += deeper(token, text);
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// What stands between commas from `start` up to `end`.
fn elements(words: &[Token], text: &str, start: usize, end: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut depth, mut from) = (0, start);
    for (at, token) in words.iter().enumerate().take(end).skip(start) {
        depth += deeper(token, text);
        if depth == 0 && token.text(text) == "," {
            found.push((from, at));
            from = at + 1;
        }
    }
    if from < end {
        found.push((from, end));
    }
    found
}

fn column(words: &[Token], text: &str, start: usize, end: usize) -> Option<ColumnText> {
    let name = words.get(start)?.text(text).to_owned();
    let (mut kept, mut depth, mut within_default, mut had_default) = (String::new(), 0, false, false);
    let mut last = words.get(start)?.start;
    for token in words.get(start..end)? {
        let top = depth == 0;
        depth += deeper(token, text);
        if top && is(token, text, "default") {
            (within_default, had_default) = (true, true);
        } else if top && ["not", "constraint", "collate"].iter().any(|word| is(token, text, word)) {
            within_default = false;
        }
        if !within_default {
            // White space as it was written: a type's name may hold some.
            if !kept.is_empty() && last < token.start {
                kept.push(' ');
            }
            kept.push_str(token.text(text));
        }
        last = token.end;
    }
    Some(ColumnText { name, definition: kept, had_default })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_apart() {
        let text = "CREATE UNLOGGED TABLE public.\"Or, ders\" (\n    id integer NOT NULL,\n    \
            \"default\" numeric(10,2) DEFAULT 0.0 NOT NULL,\n    tags text[] DEFAULT ARRAY['a'::text, 'b'::text],\n    \
            note character varying(20) DEFAULT 'it''s, NOT; NULL'::character varying COLLATE \"C\",\n    \
            total numeric GENERATED ALWAYS AS ((price * (2)::numeric)) STORED,\n    \
            at timestamp(3) with time zone DEFAULT (now() - '1 day'::interval) CONSTRAINT n NOT NULL,\n    \
            CONSTRAINT c CHECK ((id > 0))\n)\nPARTITION BY RANGE (id);\nALTER TABLE ONLY public.x ALTER COLUMN a;\n";
        let table = table(text).unwrap();
        let found: Vec<_> = table.columns.iter().map(|c| (c.definition.as_str(), c.had_default)).collect();
        assert_eq!(
            found,
            [
                ("id integer NOT NULL", false),
                ("\"default\" numeric(10,2) NOT NULL", true),
                ("tags text[]", true),
                ("note character varying(20) COLLATE \"C\"", true),
                ("total numeric GENERATED ALWAYS AS ((price * (2)::numeric)) STORED", false),
                ("at timestamp(3) with time zone CONSTRAINT n NOT NULL", true),
            ]
        );
        assert_eq!(table.columns[1].name, "\"default\"");
        assert!(table.inherits.is_empty() && table.of_type.is_none());
    }

    #[test]
    fn where_the_other_columns_come_from() {
        let child = table("CREATE TABLE a.b (\n    x integer\n)\nINHERITS (a.\"p, q\", r);").unwrap();
        assert_eq!(child.inherits, ["a.\"p, q\"", "r"]);
        let typed = table("CREATE TABLE a.b OF a.\"T\";\n").unwrap();
        assert_eq!(typed.of_type.as_deref(), Some("a.\"T\""));
        assert!(table("CREATE TABLE a.b (\n);\n").unwrap().columns.is_empty());
        for other in
            ["", "CREATE VIEW a.b AS SELECT 1", "CREATE TABLE", "CREATE TABLE a.b (x int", "CREATE TABLE a.b AS"]
        {
            assert_eq!(table(other), None, "{other}");
        }
    }

    #[test]
    fn copy_statements_and_keys_come_apart() {
        let parts = copy("COPY public.\"a (b\" (id, \"x)\") FROM stdin;\n").unwrap();
        assert_eq!((parts.relation, parts.columns), ("public.\"a (b\"", "(id, \"x)\")"));
        assert_eq!(copy("COPY public.t  FROM stdin;").unwrap().columns, "");
        assert_eq!(copy("INSERT INTO t"), None);
        let key =
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"t;pk\" PRIMARY KEY (id) INCLUDE (a) DEFERRABLE;\n\nALTER";
        assert_eq!(primary_key(key), Some("PRIMARY KEY (id) INCLUDE (a) DEFERRABLE"));
        assert_eq!(primary_key("ALTER TABLE ONLY t ADD CONSTRAINT u UNIQUE (id);"), None);
    }

    #[test]
    fn names_come_apart() {
        assert_eq!(name_parts("Public.\"O\"\"x.y\"").unwrap(), ["public", "O\"x.y"]);
        assert_eq!(name_parts("orders").unwrap(), ["orders"]);
        for wrong in ["", "a.", ".a", "a b", "a-b", "\"a", "1a"] {
            assert_eq!(name_parts(wrong), None, "{wrong}");
        }
    }
}
