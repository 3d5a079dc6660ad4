//! One connection to one database.

use std::time::Duration;

use tokio_postgres::Client;

use super::Target;
use crate::error::{Error, Result};
use crate::settings::Retry;

/// A connection with its background task. Dropped, it is closed.
pub struct Session {
    _private: (),
}

impl Session {
    /// Connects with TLS as the target's sslmode asks, sets `application_name` to `ripcord <purpose>`, TCP
    /// keepalives, and an empty `search_path`-independent state: our SQL qualifies every name. Also sets
    /// `default_transaction_read_only = off` for itself, so that our own fence does not stop us, and
    /// `statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout` to 0.
    pub async fn connect(_target: &Target, _purpose: &str, _limit: Duration) -> Result<Session> {
        todo!()
    }

    /// [`connect`](Self::connect), tried again while the server cannot be reached or is starting up;
    /// a wrong password or a missing database is final at once.
    pub async fn connect_retrying(
        _target: &Target,
        _purpose: &str,
        _limit: Duration,
        _retry: &Retry,
    ) -> Result<Session> {
        todo!()
    }

    /// The client.
    pub fn client(&self) -> &Client {
        todo!()
    }

    /// The client, for transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        todo!()
    }

    /// The backend's process id.
    pub fn backend_pid(&self) -> i32 {
        todo!()
    }

    /// The server's version as a number (`150018`).
    pub fn server_version_num(&self) -> i32 {
        todo!()
    }

    /// Runs SQL without parameters, any number of statements.
    pub async fn batch(&self, _sql: &str) -> Result<()> {
        todo!()
    }

    /// Asks the server to cancel what the session is doing.
    pub async fn cancel(&self) -> Result<()> {
        todo!()
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        todo!()
    }

    /// Closes it in order and waits until the server has ended the backend.
    pub async fn close(self) {
        todo!()
    }
}

/// A server's or driver's error in our words: message, then DETAIL, server HINT and CONTEXT as causes;
/// SQLSTATE kept; connection loss marked.
pub fn explain(_error: &tokio_postgres::Error) -> Error {
    todo!()
}

/// Whether a whole transaction that failed with this SQLSTATE may be tried again: 40001, 40P01, 55P03.
pub fn is_retryable(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40P01" | "55P03")
}
