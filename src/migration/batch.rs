//! Statements that repeat in batches: `-- ripcord: batch size=1000 pause=100ms [key=[table.]column]`.
//!
//! The statement below the directive runs again and again, each time in a short transaction of its own, until it
//! changes no row. Without a key, each round takes the next rows that its WHERE finds; with one, the rounds walk
//! along the key in ranges, which reads every row once and can copy rows that stay where they are.

use std::time::Duration;

use super::lexer::{Kind, Lexer, Token};

/// What the directive says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows a round.
    pub size: u64,
    /// The pause between two rounds.
    pub pause: Duration,
    /// The column, with its table where that is not the statement's own, whose order the rounds follow.
    pub key: Option<String>,
    /// The directive's line in the file.
    pub line: u32,
}

/// How a statement repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// The same again and again, until it finds nothing more to do.
    Shrinking {
        /// What runs in each round.
        sql: String,
        /// The rows that it is about, counted before the first round: it never changes many more.
        count: String,
        /// The table whose rows are picked by their place; only one table's own may be.
        picks_from: Option<String>,
    },
    /// Along a key, from one range to the next.
    Keyed(Keyed),
}

/// A statement with a range of a key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The table that has the key, as written.
    pub table: String,
    /// The key's column, as written.
    pub column: String,
    /// The statement's text, cut where the lower and the upper end of the range come.
    parts: [String; 3],
    /// The statement has a LIMIT of its own: no range may hold more rows.
    pub limit: Option<u64>,
}

impl Keyed {
    /// The statement for the rows after `after`, up to and with `upto`: both as SQL.
    pub fn sql(&self, after: &str, upto: &str) -> String {
        let [first, second, third] = &self.parts;
        format!("{first}{after}{second}{upto}{third}")
    }
}

impl Batch {
    /// Reads what stands after the word `batch`. The error says what is wrong with it.
    pub fn parse(text: &str, line: u32, duration: impl Fn(&str) -> Result<Duration, String>) -> Result<Self, String> {
        let mut batch = Batch { size: 1000, pause: Duration::ZERO, key: None, line };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("size", value)) => {
                    batch.size = value
                        .parse()
                        .ok()
                        .filter(|size| *size > 0)
                        .ok_or_else(|| format!("`size={value}` must be a whole number above zero"))?;
                }
                Some(("pause", value)) => batch.pause = duration(value)?,
                Some(("key", value)) if !value.is_empty() => batch.key = Some(value.to_owned()),
                _ => return Err(format!("`{word}` is nothing that `batch` knows: size=1000 pause=100ms key=id")),
            }
        }
        Ok(batch)
    }

    /// How the statement repeats. The error says why it cannot.
    pub fn rounds(&self, statement: &str) -> Result<Rounds, String> {
        let shape = Shape::read(statement)?;
        match &self.key {
            Some(key) => self.keyed(&shape, key).map(Rounds::Keyed),
            None => self.shrinking(&shape),
        }
    }

    fn shrinking(&self, shape: &Shape<'_>) -> Result<Rounds, String> {
        if !shape.marks.is_empty() {
            return Err("the placeholders `?` are the ends of a range: say of which key, with `key=id`".to_owned());
        }
        let size = self.size;
        if shape.verb == Verb::Insert {
            return self.shrinking_insert(shape);
        }
        let table = shape.table;
        if shape.limit.is_some() {
            // The author limits it; all that can be counted is the table.
            let count = format!("SELECT count(*) FROM {table}");
            return Ok(Rounds::Shrinking { sql: shape.text.to_owned(), count, picks_from: None });
        }
        if shape.joins {
            return Err("with FROM or USING it needs `key=…`, or a LIMIT of its own".to_owned());
        }
        let condition = match shape.condition {
            Some(condition) => condition,
            None if shape.verb == Verb::Delete => "true",
            None => return Err("an UPDATE without a WHERE finds the same rows for ever; give it `key=…`".to_owned()),
        };
        let alias = shape.alias.map(|alias| format!(" AS {alias}")).unwrap_or_default();
        let name = shape.alias.unwrap_or(table.trim_start_matches("ONLY ").trim_start_matches("only "));
        let picked = format!("SELECT {name}.ctid FROM {table}{alias} WHERE ({condition}) LIMIT {size} FOR UPDATE");
        let (head, tail) = (shape.head.trim_end(), shape.tail);
        let sql = format!("{head} WHERE {name}.ctid = ANY (ARRAY({picked})) {tail}");
        let count = format!("SELECT count(*) FROM {table}{alias} WHERE ({condition})");
        Ok(Rounds::Shrinking { sql, count, picks_from: Some(table.to_owned()) })
    }

    fn shrinking_insert(&self, shape: &Shape<'_>) -> Result<Rounds, String> {
        let Some(select) = shape.select else {
            return Err("only an INSERT … SELECT can repeat".to_owned());
        };
        let folded = super::split::fold(select).to_ascii_lowercase();
        let shrinks = folded.contains("not exists") || folded.contains(" except ") || folded.contains("not in");
        if !shrinks || shape.conflicts {
            return Err("each round would find the same rows: give it `key=…`, or WHERE NOT EXISTS (what is there \
                        already)"
                .to_owned());
        }
        if shape.limit.is_some() {
            return Err("it has a LIMIT of its own: take it out, the directive's `size` is the limit".to_owned());
        }
        let sql = format!("{}{} LIMIT {} {}", shape.head, select.trim_end(), self.size, shape.tail);
        let count = format!("SELECT count(*) FROM ({select}) AS s");
        Ok(Rounds::Shrinking { sql, count, picks_from: None })
    }

    fn keyed(&self, shape: &Shape<'_>, key: &str) -> Result<Keyed, String> {
        let (table, column) = match key.rsplit_once('.') {
            Some((table, column)) => (table.to_owned(), column.to_owned()),
            None if shape.verb == Verb::Insert => {
                return Err(format!("say which table `{key}` belongs to: `key=table.{key}`"));
            }
            None => (shape.table.to_owned(), key.to_owned()),
        };
        if shape.limit.is_some_and(|limit| limit < self.size) {
            return Err(format!(
                "its own LIMIT is smaller than the batch, and rows would be left out: take it out, or size={}",
                shape.limit.unwrap_or_default()
            ));
        }
        let parts = match shape.marks.as_slice() {
            [(from, from_end), (to, to_end)] => [
                shape.text.get(..*from).unwrap_or_default().to_owned(),
                shape.text.get(*from_end..*to).unwrap_or_default().to_owned(),
                shape.text.get(*to_end..).unwrap_or_default().to_owned(),
            ],
            [] if shape.verb != Verb::Insert => {
                let name = shape.alias.unwrap_or(shape.table.trim_start_matches("ONLY ").trim_start_matches("only "));
                let range = format!("{name}.{column}");
                let condition = shape.condition.map(|condition| format!(" AND ({condition})")).unwrap_or_default();
                [
                    format!("{} WHERE {range} > ", shape.head.trim_end()),
                    format!(" AND {range} <= "),
                    format!("{condition} {}", shape.tail),
                ]
            }
            _ => {
                return Err(format!(
                    "it must hold the range of the key, with two placeholders: `WHERE {column} > ? AND {column} <= ?`"
                ));
            }
        };
        Ok(Keyed { table, column, parts, limit: shape.limit })
    }
}

/// The statement with a number for each placeholder, as long as it was.
pub(super) fn with_numbers(statement: &str) -> String {
    let mut text = statement.to_owned();
    for token in Lexer::new(statement).map_while(Result::ok) {
        if token.kind == Kind::Other && token.text(statement) == "?" {
            text.replace_range(token.start..token.end, "0");
        }
    }
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Update,
    Delete,
    Insert,
}

/// A statement, cut into what the rounds are made of.
struct Shape<'a> {
    verb: Verb,
    text: &'a str,
    /// The table, with ONLY where it is said.
    table: &'a str,
    alias: Option<&'a str>,
    /// Up to WHERE; of an INSERT up to its query.
    head: &'a str,
    condition: Option<&'a str>,
    /// An INSERT's query.
    select: Option<&'a str>,
    /// RETURNING and what follows.
    tail: &'a str,
    joins: bool,
    conflicts: bool,
    limit: Option<u64>,
    /// The placeholders `?`: beginnings and ends.
    marks: Vec<(usize, usize)>,
}

impl<'a> Shape<'a> {
    fn read(statement: &'a str) -> Result<Self, String> {
        let text = statement.trim_end().trim_end_matches(';');
        let tokens: Vec<Token> = Lexer::new(text).map_while(Result::ok).filter(Token::is_significant).collect();
        let word = |at: usize| tokens.get(at).map_or("", |token| token.text(text));
        let is = |at: usize, wanted: &str| word(at).eq_ignore_ascii_case(wanted);
        let (verb, mut at) = match () {
            () if is(0, "update") => (Verb::Update, 1),
            () if is(0, "delete") && is(1, "from") => (Verb::Delete, 2),
            () if is(0, "insert") && is(1, "into") => (Verb::Insert, 2),
            () => return Err("only UPDATE, DELETE and INSERT … SELECT can repeat in batches".to_owned()),
        };
        let table_start = tokens.get(at).map_or(text.len(), |token| token.start);
        at += usize::from(is(at, "only"));
        while word(at + 1) == "." {
            at += 2;
        }
        let table_end = tokens.get(at).map_or(text.len(), |token| token.end);
        let table = text.get(table_start..table_end).unwrap_or_default();
        at += 1;
        at += usize::from(word(at) == "*");
        let has_as = is(at, "as");
        at += usize::from(has_as);
        let ends_name = |at: usize| {
            ["set", "where", "using", "returning", "select", "values", "with", "default", "overriding", "("]
                .iter()
                .any(|known| is(at, known))
        };
        let alias = (at < tokens.len() && (has_as || !ends_name(at))).then(|| word(at));

        let mut shape = Shape {
            verb,
            text,
            table,
            alias,
            head: text,
            condition: None,
            select: None,
            tail: "",
            joins: false,
            conflicts: false,
            limit: None,
            marks: Vec::new(),
        };
        shape.cut(&tokens);
        Ok(shape)
    }

    /// Finds the clauses, those outside parentheses where it is about the statement's own.
    fn cut(&mut self, tokens: &[Token]) {
        let text = self.text;
        let (mut depth, mut head, mut condition, mut tail) = (0_usize, None, None, text.len());
        for (at, token) in tokens.iter().enumerate() {
            let here = token.text(text);
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                Kind::Other if here == "?" => self.marks.push((token.start, token.end)),
                Kind::Word => {
                    let word = here.to_ascii_lowercase();
                    if word == "limit" {
                        let number = tokens.get(at + 1).and_then(|next| text.get(next.start..)).unwrap_or_default();
                        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
                        self.limit = Some(digits.parse().unwrap_or(0));
                    }
                    if depth > 0 {
                        continue;
                    }
                    let insert = self.verb == Verb::Insert;
                    match word.as_str() {
                        "select" | "with" | "table" if insert && head.is_none() => head = Some(token.start),
                        "where" if !insert && condition.is_none() => {
                            head = Some(token.start);
                            condition = Some(token.end);
                        }
                        "from" | "using" if !insert && at > 1 && condition.is_none() => self.joins = true,
                        "conflict" if insert => {
                            self.conflicts = true;
                            let on = tokens.get(at.saturating_sub(1)).map_or(token.start, |before| before.start);
                            tail = tail.min(on);
                        }
                        "returning" => tail = tail.min(token.start),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.head = text.get(..head.unwrap_or(tail).min(tail)).unwrap_or_default();
        self.tail = text.get(tail..).unwrap_or_default();
        self.condition = condition.and_then(|start| text.get(start..tail)).map(str::trim);
        if self.verb == Verb::Insert {
            self.select = head.and_then(|start| text.get(start..tail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Batch {
        Batch::parse(text, 1, |_| Ok(Duration::from_millis(100))).unwrap()
    }

    fn shrinking(statement: &str) -> (String, String) {
        match batch("size=10").rounds(statement) {
            Ok(Rounds::Shrinking { sql, count, .. }) => (sql.trim_end().to_owned(), count),
            other => panic!("{statement}: {other:?}"),
        }
    }

    #[test]
    fn the_directive_is_read() {
        let read = batch("size=500 pause=100ms key=users.id");
        assert_eq!((read.size, read.pause, read.key.as_deref()), (500, Duration::from_millis(100), Some("users.id")));
        for wrong in ["size=0", "size=x", "limit=3", "1000"] {
            assert!(Batch::parse(wrong, 1, |_| Ok(Duration::ZERO)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_update_takes_the_next_rows_of_its_where() {
        let (sql, count) = shrinking("UPDATE users SET email_new = email WHERE email_new IS NULL;");
        assert_eq!(
            sql,
            "UPDATE users SET email_new = email WHERE users.ctid = ANY (ARRAY(SELECT users.ctid FROM users \
             WHERE (email_new IS NULL) LIMIT 10 FOR UPDATE))"
        );
        assert_eq!(count, "SELECT count(*) FROM users WHERE (email_new IS NULL)");
        let (sql, _) = shrinking("delete from only a.b as x where x.y in (select 1 from c where d) returning 1");
        assert_eq!(
            sql,
            "delete from only a.b as x WHERE x.ctid = ANY (ARRAY(SELECT x.ctid FROM only a.b AS x \
             WHERE (x.y in (select 1 from c where d)) LIMIT 10 FOR UPDATE)) returning 1"
        );
        assert!(shrinking("delete from old").0.starts_with("delete from old WHERE old.ctid"));
    }

    #[test]
    fn the_authors_own_limit_is_kept() {
        let statement = "UPDATE t SET s = 'x' WHERE id IN (SELECT id FROM t WHERE s IS NULL LIMIT 1000)";
        assert_eq!(shrinking(statement), (statement.to_owned(), "SELECT count(*) FROM t".to_owned()));
    }

    #[test]
    fn an_insert_needs_to_see_what_is_there() {
        let (sql, count) =
            shrinking("INSERT INTO b (id) SELECT id FROM a WHERE NOT EXISTS (SELECT FROM b WHERE b.id = a.id);");
        assert!(sql.ends_with("b.id = a.id) LIMIT 10"), "{sql}");
        assert!(count.starts_with("SELECT count(*) FROM (SELECT id FROM a"), "{count}");
    }

    #[test]
    fn what_would_never_end_is_refused() {
        for statement in [
            "UPDATE t SET a = 1",
            "INSERT INTO b SELECT * FROM a",
            "INSERT INTO b SELECT * FROM a ON CONFLICT DO NOTHING",
            "INSERT INTO b VALUES (1)",
            "UPDATE t SET a = x.a FROM x WHERE x.id = t.id",
            "CREATE TABLE x ()",
            "INSERT INTO b SELECT * FROM a WHERE id > ? AND id <= ?",
        ] {
            assert!(batch("size=10").rounds(statement).is_err(), "{statement}");
        }
    }

    #[test]
    fn ranges_of_a_key_are_put_in() {
        let keyed = |text: &str, statement: &str| match batch(text).rounds(statement) {
            Ok(Rounds::Keyed(keyed)) => keyed,
            other => panic!("{other:?}"),
        };
        let copy = "INSERT INTO users_new SELECT *, NULL FROM users WHERE id > ? AND id <= ? LIMIT 1000;";
        let found = keyed("size=1000 key=users.id", copy);
        assert_eq!((found.table.as_str(), found.column.as_str(), found.limit), ("users", "id", Some(1000)));
        assert_eq!(
            found.sql("1", "9"),
            "INSERT INTO users_new SELECT *, NULL FROM users WHERE id > 1 AND id <= 9 LIMIT 1000"
        );
        let found = keyed("key=id", "UPDATE t AS x SET a = b");
        assert_eq!(found.sql("1", "9").trim_end(), "UPDATE t AS x SET a = b WHERE x.id > 1 AND x.id <= 9");
        assert!(batch("size=2000 key=users.id").rounds(copy).is_err());
        assert!(batch("key=id").rounds(copy).is_err());
    }
}
