//! Which tables a statement names as those that it drops, empties, rewrites or changes rows of.

use super::lexer::{Kind, Lexer, Token};

/// The tables that a statement itself names to be dropped, truncated, altered, updated, deleted from or
/// merged into, as written (`orders`, `shop."Order Lines"`). Tables that only triggers, cascades or
/// functions reach are not told by a text.
pub fn destroyed_tables(statement: &str) -> Vec<String> {
    let Ok(tokens) = Lexer::new(statement).collect::<Result<Vec<Token>, _>>() else { return Vec::new() };
    let tokens: Vec<Token> = tokens.into_iter().filter(Token::is_significant).collect();
    let words = Words { sql: statement, tokens: &tokens };
    let mut tables = Vec::new();
    for at in 0..tokens.len() {
        let begins = at == 0 || matches!(tokens[at - 1].kind, Kind::Open);
        let list = if begins && words.are(at, &["drop", "table"]) {
            Some((at + 2, true))
        } else if begins && words.are(at, &["truncate"]) {
            Some((at + 1, true))
        } else if (begins && words.are(at, &["alter", "table"]))
            || words.are(at, &["delete", "from"])
            || words.are(at, &["merge", "into"])
        {
            Some((at + 2, false))
        } else if words.are(at, &["update"]) && !words.follows(at, &["for", "do", "on", "no", "key", "then"]) {
            Some((at + 1, false))
        } else {
            None
        };
        if let Some((from, many)) = list {
            tables.extend(words.names(from, many));
        }
    }
    tables.sort();
    tables.dedup();
    tables
}

/// The names, without schema and quotes, of all that a statement can destroy, when its text tells that: it works on
/// tables that it names, and on nothing that hangs on them, unless that may go as well (`cascading`).
pub fn destroys_only(statement: &str, cascading: bool) -> Option<Vec<String>> {
    let tokens: Vec<Token> = Lexer::new(statement).collect::<Result<_, _>>().ok()?;
    let tokens: Vec<Token> = tokens.into_iter().filter(Token::is_significant).collect();
    let words = Words { sql: statement, tokens: &tokens };
    let begins = [&["drop", "table"][..], &["alter", "table"], &["truncate"], &["delete", "from"], &["update"]];
    let plain = begins.iter().any(|begin| words.are(0, begin));
    let cascades = (0..tokens.len()).any(|at| words.are(at, &["cascade"]));
    let names = destroyed_tables(statement);
    (plain && (cascading || !cascades) && !names.is_empty()).then(|| names.iter().map(|name| bare(name)).collect())
}

/// `shop."Order Lines"` → `Order Lines`.
fn bare(name: &str) -> String {
    match name.strip_suffix('"') {
        Some(quoted) => {
            let begin = quoted.replace("\"\"", "  ").rfind('"').map_or(0, |at| at + 1);
            quoted.get(begin..).unwrap_or_default().replace("\"\"", "\"")
        }
        None => name.rsplit('.').next().unwrap_or_default().to_lowercase(),
    }
}

/// The names that tables are given by RENAME TO, in bodies of functions too. `None`: a table may also get a name or
/// a schema that the text does not tell.
pub fn renamed_to(sql: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut words = sql.split_whitespace();
    let mut before = "";
    while let Some(word) = words.next() {
        let pair = (before.to_lowercase(), word.to_lowercase());
        before = word;
        match (pair.0.as_str(), pair.1.as_str()) {
            ("set", schema) if schema.starts_with("schema") => return None,
            ("rename", "to") => {
                before = words.next()?;
                let name = before.to_lowercase();
                let name = name.trim_matches(['"', '\'', ';', ')']);
                let told = !name.is_empty() && name.chars().all(|one| one.is_alphanumeric() || one == '_');
                names.push(told.then(|| name.to_owned())?);
            }
            _ => {}
        }
    }
    Some(names)
}

/// The schemas that a statement drops, with whatever is in them, as written.
pub fn destroyed_schemas(statement: &str) -> Vec<String> {
    let Ok(tokens) = Lexer::new(statement).collect::<Result<Vec<Token>, _>>() else { return Vec::new() };
    let tokens: Vec<Token> = tokens.into_iter().filter(Token::is_significant).collect();
    let words = Words { sql: statement, tokens: &tokens };
    if words.are(0, &["drop", "schema"]) { words.names(2, true) } else { Vec::new() }
}

struct Words<'a> {
    sql: &'a str,
    tokens: &'a [Token],
}

impl Words<'_> {
    fn word(&self, at: usize) -> Option<&str> {
        self.tokens.get(at).filter(|token| token.kind == Kind::Word).map(|token| token.text(self.sql))
    }

    fn are(&self, at: usize, wanted: &[&str]) -> bool {
        wanted
            .iter()
            .enumerate()
            .all(|(step, word)| self.word(at + step).is_some_and(|found| found.eq_ignore_ascii_case(word)))
    }

    fn follows(&self, at: usize, before: &[&str]) -> bool {
        at > 0 && self.word(at - 1).is_some_and(|found| before.iter().any(|word| found.eq_ignore_ascii_case(word)))
    }

    /// `[TABLE] [IF EXISTS] [ONLY] name [*] [, …]`.
    fn names(&self, mut at: usize, many: bool) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            while ["table", "if", "exists", "only"].iter().any(|word| self.are(at, &[word])) {
                at += 1;
            }
            let Some((name, next)) = self.name(at) else { return names };
            names.push(name);
            at = next;
            while self.tokens.get(at).is_some_and(|token| token.text(self.sql) == "*") {
                at += 1;
            }
            if !many || self.tokens.get(at).is_none_or(|token| token.text(self.sql) != ",") {
                return names;
            }
            at += 1;
        }
    }

    /// `name` or `schema.name`; returns it with where it ended.
    fn name(&self, at: usize) -> Option<(String, usize)> {
        let part = |at: usize| {
            let token = self.tokens.get(at)?;
            matches!(token.kind, Kind::Word | Kind::QuotedName).then(|| token.text(self.sql))
        };
        let first = part(at)?;
        if self.tokens.get(at + 1).is_some_and(|token| token.text(self.sql) == ".")
            && let Some(second) = part(at + 2)
        {
            return Some((format!("{first}.{second}"), at + 3));
        }
        Some((first.to_owned(), at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::{destroyed_schemas, destroyed_tables, destroys_only, renamed_to};

    #[test]
    fn names_are_found_where_the_statement_destroys() {
        for (statement, expected) in [
            ("DROP TABLE IF EXISTS a, shop.\"B c\" CASCADE", vec!["a", "shop.\"B c\""]),
            ("TRUNCATE TABLE ONLY a, b", vec!["a", "b"]),
            ("alter table only Orders drop column note", vec!["Orders"]),
            ("ALTER TABLE IF EXISTS a ALTER b TYPE int", vec!["a"]),
            ("with x as (delete from a returning *) insert into b select * from x", vec!["a"]),
            ("/* update z */ UPDATE a SET b = 'delete from c'", vec!["a"]),
            ("merge into a using b on true when matched then update set c = 1", vec!["a"]),
            ("select * from a for update", vec![]),
            ("insert into a values (1) on conflict (id) do update set b = 2", vec![]),
            ("create table a (id int references b on delete cascade)", vec![]),
        ] {
            assert_eq!(destroyed_tables(statement), expected, "{statement}");
        }
    }

    #[test]
    fn what_hangs_on_a_table_is_not_told_by_its_name() {
        let only = |statement| destroys_only(statement, false).map(|names| names.join(" "));
        assert_eq!(only("drop table if exists A, shop.\"B \"\"c\"").as_deref(), Some("a B \"c"));
        assert_eq!(only("alter table a drop b").as_deref(), Some("a"));
        for statement in ["drop table a cascade", "do $$ begin delete from a; end $$", "drop schema s", "drop type t"] {
            assert_eq!(only(statement), None, "{statement}");
        }
        assert_eq!(destroys_only("drop table a cascade", true).unwrap(), ["a"]);
        assert_eq!(destroys_only("drop schema s cascade", true), None);
    }

    #[test]
    fn new_names_are_told_or_nothing_is() {
        assert_eq!(renamed_to("alter table a RENAME\n TO \"b\"; select 1").unwrap(), ["b"]);
        assert_eq!(renamed_to("select 'alter table a rename to b'").unwrap(), ["b"]);
        assert!(renamed_to("execute format('alter table a rename to %I', x)").is_none());
        assert!(renamed_to("alter table a set schema s").is_none());
    }

    #[test]
    fn schemas_that_go_with_all_that_is_in_them() {
        assert_eq!(destroyed_schemas("drop schema if exists a, \"B c\" cascade"), ["a", "\"B c\""]);
        assert!(destroyed_schemas("drop table a").is_empty());
        assert!(destroyed_schemas("create schema a").is_empty());
    }
}
