//! Variables in migrations, as psql writes them: `:name`, `:'name'`, `:"name"`.
//!
//! Only names that the configuration allows are variables; anything else after a colon is SQL: casts, slices of
//! arrays, JSON. Strings, comments, dollar quotes and a COPY's data are never looked into. Values stand nowhere but
//! in what goes to the server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::lexer::{Kind, Lexer, Token};
use super::{Migration, Parsed, Script};
use crate::error::{Error, Result};

/// The names that are allowed, and the values of those that are set.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Option<SecretString>>);

impl PartialEq for Variables {
    fn eq(&self, other: &Self) -> bool {
        self.0.keys().eq(other.0.keys())
    }
}

impl Eq for Variables {}

/// A text with the values put in.
#[derive(Debug)]
pub struct Bound<'a> {
    /// What goes to the server.
    pub sql: Cow<'a, str>,
    /// Where values stand: their ends in `sql`, and the ends of the variables in the text.
    ends: Vec<(usize, usize)>,
}

impl Bound<'_> {
    /// The place in the text of a place in what was sent.
    pub fn place(&self, sent: usize) -> usize {
        match self.ends.iter().rev().find(|(end, _)| *end <= sent) {
            Some((end, raw)) => raw + (sent - end),
            None => match self.ends.first() {
                // Within the first value.
                Some((_, raw)) => sent.min(*raw),
                None => sent,
            },
        }
    }
}

/// A variable's place, its colon included.
struct Use<'a> {
    start: usize,
    end: usize,
    name: &'a str,
    kind: Kind,
}

impl Variables {
    /// The allowed names, each with its value when it is set.
    pub fn new(names: impl IntoIterator<Item = (String, Option<SecretString>)>) -> Self {
        Variables(names.into_iter().collect())
    }

    /// Whether no name is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with the values put in. `:'name'` becomes a literal, `:"name"` a quoted name, `:name` the value as
    /// it is. One that is not set stays as it stands.
    pub fn bind<'a>(&self, sql: &'a str) -> Bound<'a> {
        let mut bound = String::new();
        let mut ends = Vec::new();
        let mut at = 0;
        for found in self.uses(sql) {
            let Some(value) = self.0.get(found.name).and_then(Option::as_ref) else { continue };
            bound.push_str(sql.get(at..found.start).unwrap_or_default());
            bound.push_str(&quoted(value.expose_secret(), found.kind));
            at = found.end;
            ends.push((bound.len(), at));
        }
        if ends.is_empty() {
            return Bound { sql: Cow::Borrowed(sql), ends };
        }
        bound.push_str(sql.get(at..).unwrap_or_default());
        Bound { sql: Cow::Owned(bound), ends }
    }

    /// The text with the colons of its variables blanked out, for readers that know only SQL: positions stay.
    pub fn as_names<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        let uses = self.uses(sql);
        if uses.is_empty() {
            return Cow::Borrowed(sql);
        }
        let mut text = String::with_capacity(sql.len());
        for found in uses {
            text.push_str(sql.get(text.len()..found.start).unwrap_or_default());
            text.push(' ');
        }
        text.push_str(sql.get(text.len()..).unwrap_or_default());
        Cow::Owned(text)
    }

    /// A text of the server's without the values, which it likes to quote: `:name` stands for each.
    pub fn hide(&self, text: &str) -> String {
        let mut hidden = text.to_owned();
        for (name, value) in &self.0 {
            let Some(value) = value.as_ref().map(ExposeSecret::expose_secret).filter(|value| !value.is_empty()) else {
                continue;
            };
            for value in [value.to_owned(), value.replace('\'', "''"), value.replace('"', "\"\"")] {
                hidden = replace_words(&hidden, &value, &format!(":{name}"));
            }
        }
        hidden
    }

    /// An error for the first variable of the migration that is allowed and not set.
    pub fn require(&self, migration: &Migration) -> Result<()> {
        for script in std::iter::once(&migration.up).chain(&migration.down) {
            for found in self.uses(&script.sql) {
                if self.0.get(found.name).is_some_and(Option::is_none) {
                    let (line, column) = script.position(found.start);
                    return Err(Error::usage(format!(
                        "`{}`, line {line}, column {column}: the variable `{}` is not set",
                        migration.file_name, found.name
                    ))
                    .hint(format!("set it in the environment: export {}=…", found.name)));
                }
            }
        }
        Ok(())
    }

    fn uses<'a>(&self, sql: &'a str) -> Vec<Use<'a>> {
        if self.is_empty() || !sql.contains(':') {
            return Vec::new();
        }
        let mut found = Vec::new();
        let tokens: Vec<Token> = Lexer::new(sql).map_while(std::result::Result::ok).collect();
        let colon = |token: Option<&Token>| token.is_some_and(|token| token.text(sql) == ":");
        for (at, token) in tokens.iter().enumerate() {
            // `a::b` is a cast.
            if !colon(Some(token)) || colon(at.checked_sub(1).and_then(|before| tokens.get(before))) {
                continue;
            }
            let Some(next) = tokens.get(at + 1) else { continue };
            let text = next.text(sql);
            let name = match next.kind {
                Kind::Word => text,
                Kind::Text | Kind::QuotedName => {
                    text.get(1..text.len().saturating_sub(1)).filter(|_| !text.starts_with(['e', 'E'])).unwrap_or("")
                }
                _ => continue,
            };
            if self.0.contains_key(name) {
                found.push(Use { start: token.start, end: next.end, name, kind: next.kind });
            }
        }
        found
    }
}

impl Script {
    /// Whether a variable stands in it.
    pub fn has_variables(&self) -> bool {
        !self.variables.uses(&self.sql).is_empty()
    }
}

impl Migration {
    /// Gives both halves the values of their variables.
    pub fn give(&mut self, variables: &Variables) {
        self.up.variables = variables.clone();
        if let Some(down) = &mut self.down {
            down.variables = variables.clone();
        }
    }

    /// The same with variables as plain names, and numbers for the ends of a batch's range: for the linter.
    pub fn with_names(&self, variables: &Variables) -> Migration {
        let mut named = self.clone();
        for script in [Some(&mut named.up), named.down.as_mut()].into_iter().flatten() {
            let changed = match variables.as_names(&script.sql) {
                Cow::Owned(changed) => changed,
                Cow::Borrowed(_) => continue,
            };
            script.sql = changed.into();
        }
        for number in self.up.batches.keys() {
            let Some(statement) = self.up.statements.get(*number) else { continue };
            let numbered = super::batch::with_numbers(named.up.text(statement));
            let mut text = named.up.sql.to_string();
            text.replace_range(statement.start..statement.end, &numbered);
            named.up.sql = text.into();
        }
        // What the parser said of the text with its variables does not hold for this one.
        let forget = |new: &mut Script, old: &Script| {
            if new.sql != old.sql {
                new.statements.iter_mut().for_each(|statement| statement.parsed = Parsed::NotAsked);
            }
        };
        forget(&mut named.up, &self.up);
        if let Some((new, old)) = named.down.as_mut().zip(self.down.as_ref()) {
            forget(new, old);
        }
        named
    }
}

/// As psql does it: a literal with backslashes becomes an `E''` string.
fn quoted(value: &str, kind: Kind) -> String {
    match kind {
        Kind::Text if value.contains('\\') => {
            format!(" E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
        }
        Kind::Text => format!("'{}'", value.replace('\'', "''")),
        Kind::QuotedName => format!("\"{}\"", value.replace('"', "\"\"")),
        _ => value.to_owned(),
    }
}

/// Short values only where they stand as a word of their own: a `1` must not eat every digit of a message.
fn replace_words(text: &str, value: &str, with: &str) -> String {
    if value.chars().count() >= 4 {
        return text.replace(value, with);
    }
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(value) {
        let (before, after) = (rest.get(..at).unwrap_or_default(), rest.get(at + value.len()..).unwrap_or_default());
        let joins = |character: Option<char>| character.is_some_and(|one| one.is_alphanumeric() || one == '_');
        replaced.push_str(before);
        let alone = !joins(before.chars().next_back().or(replaced.chars().next_back())) && !joins(after.chars().next());
        replaced.push_str(if alone { with } else { value });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let set = |name: &str, value: &str| (name.to_owned(), Some(SecretString::from(value)));
        Variables::new([set("who", "it's"), set("n", "7"), set("role", "a\"b"), ("gone".to_owned(), None)])
    }

    #[test]
    fn values_are_put_in_as_psql_does() {
        let bound = |sql: &str| variables().bind(sql).sql.into_owned();
        assert_eq!(bound("select :n, :'who', :\"role\", :'n'"), "select 7, 'it''s', \"a\"\"b\", '7'");
        assert_eq!(bound("limit :n;"), "limit 7;");
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        for sql in [
            "select 'a'::n, x::n, a[1:2], a[i:j]",
            "select ':n', $$ :n $$, \":n\" -- :n\n/* :n */",
            "select :other, :gone, y := 1",
            "copy t from stdin;\n:n\n\\.\n",
            "select '{\"a\"::n}'",
        ] {
            assert_eq!(variables().bind(sql).sql, sql);
        }
    }

    #[test]
    fn places_are_those_of_the_file() {
        let sql = "select :'who', x + :n, oops";
        let bound = variables().bind(sql);
        let at = |word: &str| (bound.sql.find(word).unwrap(), sql.find(word).unwrap());
        for word in ["select", "x +", "oops"] {
            let (sent, raw) = at(word);
            assert_eq!(bound.place(sent), raw, "{word}");
        }
        assert_eq!(variables().as_names(sql), "select  'who', x +  n, oops");
        assert_eq!(variables().as_names(sql).len(), sql.len());
    }

    #[test]
    fn values_are_hidden_in_what_the_server_says() {
        let told = variables().hide("invalid input: \"it's\", Key (x)=(7) of 17, 'it''s'");
        assert_eq!(told, "invalid input: \":who\", Key (x)=(:n) of 17, ':who'");
        assert!(!format!("{:?}", variables()).contains("it's"));
    }
}
