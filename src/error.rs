//! What went wrong, in the words that a person reads.
//!
//! An [`Error`] is one plain fact, then its causes (outermost first), then one command to run. What
//! state the database is in is not the error's to say: the operation that failed says it.

use std::fmt;

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which promise was not kept; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something failed, and the database was not changed by it. Exit code 1.
    Failed,
    /// The command line or the configuration is wrong. Exit code 2.
    Usage,
    /// Another run holds the lock. Exit code 5.
    Locked,
    /// A backup, a database or a proof did not hold what it should. Exit code 6.
    Verification,
    /// A policy or a missing approval stopped it. Exit code 7.
    Refused,
    /// The database was changed and not brought back. Exit code 4.
    NotRecovered,
}

impl Kind {
    /// The process's exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotRecovered => 4,
            Kind::Locked => 5,
            Kind::Verification => 6,
            Kind::Refused => 7,
        }
    }
}

/// A failure: the fact, its causes, and what to do about it.
#[derive(Clone, Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    sqlstate: Option<String>,
    connection_lost: bool,
}

impl Error {
    /// A failure of the kind given. `message` is lower case, without a final stop, values in backticks.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                causes: Vec::new(),
                hint: None,
                sqlstate: None,
                connection_lost: false,
            }),
        }
    }

    /// [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// [`Kind::Verification`].
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(Kind::Verification, message)
    }

    /// [`Kind::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// Adds a cause, one fact, after those already there.
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.inner.causes.push(cause.to_string());
        self
    }

    /// Sets the one command (or one plain step) that helps.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Gives a hint where there is none yet.
    pub fn hint_if_none(self, hint: impl Into<String>) -> Self {
        if self.inner.hint.is_some() { self } else { self.hint(hint) }
    }

    /// Puts a wider fact in front; what was the message becomes the first cause.
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let narrower = std::mem::replace(&mut self.inner.message, message.into());
        self.inner.causes.insert(0, narrower);
        self
    }

    /// Changes the kind, and with it the exit code.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// Records the server's SQLSTATE.
    pub fn with_sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.inner.sqlstate = Some(sqlstate.into());
        self
    }

    /// Records that the connection is gone: nothing is known of what the server did last.
    pub fn with_connection_lost(mut self) -> Self {
        self.inner.connection_lost = true;
        self
    }

    /// Which promise was not kept.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The plain fact.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The causes, outermost first.
    pub fn causes(&self) -> &[String] {
        &self.inner.causes
    }

    /// What to run next.
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The server's SQLSTATE, when it was the server that said no.
    pub fn sqlstate(&self) -> Option<&str> {
        self.inner.sqlstate.as_deref()
    }

    /// Whether the connection was lost, so that the outcome of the last statement is unknown.
    pub fn connection_lost(&self) -> bool {
        self.inner.connection_lost
    }

    /// The same with every text changed by `change`.
    pub fn map_texts(mut self, change: impl Fn(&str) -> String) -> Error {
        let Inner { message, causes, hint, .. } = &mut *self.inner;
        for text in std::iter::once(message).chain(causes).chain(hint) {
            *text = change(text);
        }
        self
    }

    /// The fact and its causes on one line, for tables and JSON.
    pub fn one_line(&self) -> String {
        let mut line = self.inner.message.clone();
        for cause in &self.inner.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line())
    }
}

impl std::error::Error for Error {}
