//! From a text to a [`Script`].

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::lexer::{Kind, Lexer, Token};
use super::split::split;
use super::{Additive, Script, Statement};
use crate::error::Result;

impl Script {
    /// Splits and classifies `sql`, whose first line is line `first_line` of `file`.
    pub fn parse(sql: &str, file: &str, first_line: u32) -> Result<Self> {
        let sql: Arc<str> = Arc::from(&*super::split::without_dump_guards(sql));
        let statements = split(&sql, file, first_line)?;
        let mut script = Script { sql, first_line, statements, ..Script::default() };
        script.no_transaction = script.needs_no_transaction();
        Ok(script)
    }

    /// A statement's text, its semicolon included.
    pub fn text(&self, statement: &Statement) -> &str {
        self.sql.get(statement.start..statement.end).unwrap_or_default()
    }

    /// The rows that follow a COPY, without the line that ends them.
    pub fn data(&self, statement: &Statement) -> Option<&str> {
        let text = self.sql.get(statement.data.clone()?)?;
        let first = text.find('\n')? + 1;
        let last = text.rfind('\n')? + 1;
        text.get(first..last)
    }

    /// A digest of the first so many statements, whatever white space and comments stand around them. It tells
    /// whether what an earlier run did is still what the file says.
    pub fn digest(&self, statements: usize) -> String {
        let mut hash = Sha256::new();
        for statement in self.statements.iter().take(statements) {
            hash.update(super::split::fold(self.text(statement)).as_bytes());
            hash.update([0]);
            hash.update(self.data(statement).unwrap_or_default().as_bytes());
            hash.update([0]);
        }
        hex::encode(hash.finalize())
    }

    /// The line in the file on which a statement begins.
    pub fn line(&self, statement: &Statement) -> u32 {
        self.position(statement.start).0
    }

    fn needs_no_transaction(&self) -> Option<String> {
        let refused = self.statements.iter().find(|statement| statement.effect.needs_no_transaction);
        if let Some(statement) = refused {
            return Some(format!(
                "`{}` in line {} cannot run inside a transaction",
                opening(self.text(statement)),
                self.line(statement)
            ));
        }
        self.uses_new_label()
    }

    /// A label that ALTER TYPE … ADD VALUE adds cannot be used before the transaction is committed,
    /// unless the type is as new as the label.
    fn uses_new_label(&self) -> Option<String> {
        for (index, statement) in self.statements.iter().enumerate() {
            let Some((kind, label)) = new_label(self.text(statement)) else {
                continue;
            };
            let created = |other: &Statement| {
                matches!(&other.effect.additive, Additive::Creates(what) if *what == format!("type {kind}"))
                    && !other.effect.if_not_exists
            };
            if self.statements.iter().take(index).any(created) {
                continue;
            }
            let later = self.statements.iter().skip(index + 1);
            if let Some(user) = later
                .into_iter()
                .find(|later| new_label(self.text(later)).is_none() && mentions(self.text(later), &label))
            {
                return Some(format!(
                    "line {} uses the label `{label}` that line {} adds, which the server allows only after a commit",
                    self.line(user),
                    self.line(statement)
                ));
            }
        }
        None
    }
}

/// The first words of a statement, for a message.
pub(crate) fn opening(statement: &str) -> String {
    let folded = super::split::fold(statement);
    let folded = folded.trim_end_matches([';', ' ']);
    let mut words = folded.split(' ').take(6).collect::<Vec<_>>().join(" ");
    if words.len() < folded.len() {
        words.push_str(" …");
    }
    words.chars().take(80).collect()
}

/// Type and label of an ALTER TYPE … ADD VALUE.
fn new_label(statement: &str) -> Option<(String, String)> {
    let tokens: Vec<Token> =
        Lexer::new(statement).map_while(std::result::Result::ok).filter(Token::is_significant).collect();
    let is =
        |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.text(statement).eq_ignore_ascii_case(word));
    if !is(0, "alter") || !is(1, "type") {
        return None;
    }
    let add = (2..tokens.len()).find(|&at| is(at, "add") && is(at + 1, "value"))?;
    let label = tokens.iter().skip(add).find(|token| token.kind == Kind::Text)?;
    let kind: String = tokens.get(2..add)?.iter().map(|token| token.text(statement).to_ascii_lowercase()).collect();
    Some((kind, unquoted(label.text(statement))))
}

fn unquoted(literal: &str) -> String {
    let inside =
        literal.find('\'').and_then(|open| literal.get(open + 1..literal.len().saturating_sub(1))).unwrap_or(literal);
    inside.replace("''", "'")
}

/// Whether a statement has the text as a literal. Bodies in dollar quotes count when they are looked
/// into at once: those of DO and of functions in SQL.
fn mentions(statement: &str, label: &str) -> bool {
    let folded = super::split::fold(statement).to_ascii_lowercase();
    let executes = folded.starts_with("do ") || folded.contains("language sql");
    Lexer::new(statement).map_while(std::result::Result::ok).any(|token| match token.kind {
        Kind::Text => unquoted(token.text(statement)) == label,
        Kind::DollarText => executes && token.text(statement).contains(&format!("'{}'", label.replace('\'', "''"))),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(sql: &str) -> Option<String> {
        Script::parse(sql, "f.sql", 3).unwrap().no_transaction
    }

    #[test]
    fn one_statement_is_enough() {
        let found = reason("select 1;\ncreate index concurrently i on t (a);").unwrap();
        assert!(found.contains("`create index concurrently i on t …` in line 4"), "{found}");
        assert_eq!(reason("create index i on t (a);"), None);
    }

    #[test]
    fn a_new_label_may_not_be_used_at_once() {
        let add = "alter type mood add value if not exists 'it''s' after 'ok';\n";
        assert_eq!(reason(add), None);
        assert_eq!(reason(&format!("{add}alter type mood add value 'new' after 'it''s';")), None);
        assert!(reason(&format!("{add}insert into t values ('it''s');")).unwrap().contains("line 4"));
        assert!(reason(&format!("{add}do $$ begin perform 'it''s'::mood; end $$;")).is_some());
        assert_eq!(reason(&format!("{add}-- 'it''s'\nselect 'x';")), None);
        let function = "create function f() returns mood language plpgsql as $$ begin return 'it''s'; end $$;";
        assert_eq!(reason(&format!("{add}{function}")), None);
        assert_eq!(reason(&format!("create type mood as enum ('ok');{add}insert into t values ('it''s');")), None);
    }
}
