//! What the words of a statement tell, without a tree.

use super::super::lexer::{Kind, Lexer, Token};

/// The words of a statement outside quotes, in lower case.
pub(super) struct Words {
    /// It is a DO whose body commits or rolls back.
    commits_inside: bool,
    /// Those outside parentheses.
    outer: Vec<String>,
    /// All of them.
    all: Vec<String>,
}

impl Words {
    pub fn of(statement: &str) -> Self {
        let mut words = Words { commits_inside: commits_inside(statement), outer: Vec::new(), all: Vec::new() };
        let mut depth = 0_usize;
        for token in significant(statement) {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                Kind::Word => {
                    let word = token.text(statement).to_ascii_lowercase();
                    if depth == 0 {
                        words.outer.push(word.clone());
                    }
                    words.all.push(word);
                }
                _ => {}
            }
        }
        words
    }

    pub fn begins(&self, with: &[&str]) -> bool {
        with.iter().enumerate().all(|(at, word)| self.outer.get(at).is_some_and(|found| found == word))
    }

    fn has(&self, word: &str) -> bool {
        self.all.iter().any(|found| found == word)
    }

    fn second(&self) -> &str {
        self.outer.get(1).map_or("", String::as_str)
    }

    /// For a statement without a tree: any word that may stand for a loss.
    pub fn destroys(&self) -> Option<String> {
        let words = ["delete", "drop", "merge", "restart", "setval", "truncate", "type", "update"];
        let word = words.iter().find(|word| self.has(word))?;
        Some(format!("could not be parsed, and says `{word}`"))
    }

    /// It is about the transaction itself. SAVEPOINT, RELEASE and ROLLBACK TO stay inside it.
    pub fn controls_transaction(&self) -> bool {
        match self.outer.first().map_or("", String::as_str) {
            "begin" | "commit" | "end" | "abort" => true,
            "start" => self.second() == "transaction",
            "prepare" => self.second() == "transaction",
            "rollback" => !self.outer.iter().any(|word| word == "to"),
            _ => false,
        }
    }

    /// The server refuses it in a transaction block (`PreventInTransactionBlock` in its source).
    pub fn needs_no_transaction(&self) -> bool {
        let second = self.second();
        match self.outer.first().map_or("", String::as_str) {
            "vacuum" => true,
            "cluster" | "repack" => self.outer.len() == 1 || self.outer == ["cluster", "verbose"],
            "create" => {
                matches!(second, "database" | "tablespace")
                    || (second == "subscription" && !self.makes_no_slot())
                    || self.is_concurrent_index()
            }
            "drop" => matches!(second, "database" | "tablespace" | "subscription") || self.is_concurrent_index(),
            "reindex" => self.has("concurrently") || matches!(second, "database" | "system" | "schema"),
            "alter" => match second {
                "system" => true,
                "database" => self.follows("set", "tablespace"),
                "table" => self.has("detach") && self.outer.last().is_some_and(|last| last == "concurrently"),
                "subscription" if self.sets("refresh", "false") => false,
                "subscription" => ["refresh", "publication", "failover", "two_phase"].iter().any(|word| self.has(word)),
                _ => false,
            },
            "discard" => second == "all",
            "do" => self.commits_inside,
            "commit" | "rollback" => second == "prepared",
            _ => false,
        }
    }

    fn is_concurrent_index(&self) -> bool {
        let at = if self.second() == "unique" { 2 } else { 1 };
        let word = |at: usize| self.outer.get(at).map_or("", String::as_str);
        word(at) == "index" && word(at + 1) == "concurrently"
    }

    /// CREATE SUBSCRIPTION … WITH (connect = false) or (create_slot = false).
    fn makes_no_slot(&self) -> bool {
        self.sets("connect", "false") || self.sets("create_slot", "false")
    }

    /// An option and its value, one after the other.
    fn sets(&self, option: &str, value: &str) -> bool {
        self.all.windows(2).any(|pair| matches!(pair, [one, two] if one == option && two == value))
    }

    fn follows(&self, first: &str, second: &str) -> bool {
        self.outer.windows(2).any(|pair| matches!(pair, [one, two] if one == first && two == second))
    }
}

/// INSERT … VALUES with nothing but literals: data files hold hundreds of thousands of them, and no tree
/// would tell more.
pub(super) fn inserts_literals(statement: &str) -> bool {
    let mut tokens = significant(statement);
    let mut word_is = |word: &str| tokens.next().is_some_and(|token| token.text(statement).eq_ignore_ascii_case(word));
    if !word_is("insert") || !word_is("into") {
        return false;
    }
    let is_values = |token: &Token| token.kind == Kind::Word && token.text(statement).eq_ignore_ascii_case("values");
    let mut values = significant(statement).skip_while(|token| !is_values(token)).skip(1).peekable();
    values.peek().is_some()
        && values.all(|token| match token.kind {
            Kind::Word => {
                ["null", "true", "false", "default"].iter().any(|word| token.text(statement).eq_ignore_ascii_case(word))
            }
            Kind::QuotedName => false,
            _ => true,
        })
}

/// A DO block runs at once, so that its COMMIT and ROLLBACK count, as statements of its own.
fn commits_inside(statement: &str) -> bool {
    let mut tokens = significant(statement).peekable();
    if !tokens.peek().is_some_and(|first| first.text(statement).eq_ignore_ascii_case("do")) {
        return false;
    }
    let Some(body) = tokens.find(|token| matches!(token.kind, Kind::DollarText | Kind::Text)) else { return false };
    let text = body.text(statement);
    let open = match body.kind {
        Kind::DollarText => text.get(1..).and_then(|rest| rest.find('$')).map_or(0, |at| at + 2),
        _ => text.find('\'').map_or(0, |at| at + 1),
    };
    let inside = text.get(open..text.len().saturating_sub(open)).unwrap_or_default();
    let tokens: Vec<Token> = significant(inside).collect();
    let word = |at: Option<usize>| {
        at.and_then(|at| tokens.get(at)).map(|token| token.text(inside).to_ascii_lowercase()).unwrap_or_default()
    };
    (0..tokens.len()).any(|at| {
        let before = word(at.checked_sub(1));
        matches!(word(Some(at)).as_str(), "commit" | "rollback")
            && matches!(before.as_str(), ";" | "begin" | "then" | "else" | "loop" | "")
            && matches!(word(Some(at + 1)).as_str(), ";" | "and")
    })
}

fn significant(statement: &str) -> impl Iterator<Item = Token> {
    Lexer::new(statement).map_while(Result::ok).filter(Token::is_significant)
}

/// The name, as written, of the index that a CREATE INDEX CONCURRENTLY makes; `None` when it gives none.
pub(super) fn concurrent_index(statement: &str) -> Option<String> {
    let words = Words::of(statement);
    if !words.begins(&["create"]) || !words.is_concurrent_index() {
        return None;
    }
    let is = |token: &Token, word: &str| token.kind == Kind::Word && token.text(statement).eq_ignore_ascii_case(word);
    let mut tokens = significant(statement)
        .skip_while(|token| !is(token, "concurrently"))
        .skip(1)
        .skip_while(|token| ["if", "not", "exists"].iter().any(|word| is(token, word)))
        .take_while(|token| !is(token, "on"));
    let first = tokens.next()?;
    let last = tokens.last().unwrap_or(first);
    statement.get(first.start..last.end).map(str::to_owned)
}
