//! The lock that lets one run at a time at a database: an advisory lock on a session of its own in the
//! maintenance database, polled for, never waited on.

use std::time::Duration;

use super::Target;
use crate::error::Result;
use crate::settings::Settings;

/// The held lock. Dropped, its session ends and with it the lock.
pub struct Guard {
    _private: (),
}

impl Guard {
    /// Takes the lock of the target's database, polling for at most `wait`; then an error of kind
    /// `Locked` that names the holder's backend (pid, since, application_name) where that can be seen.
    /// Says so when there is a pooler between (the backend changes between two statements).
    pub async fn acquire(_target: &Target, _settings: &Settings, _wait: Duration) -> Result<Guard> {
        todo!()
    }

    /// The session in the maintenance database, for CREATE DATABASE, renames and the like.
    pub fn maintenance(&self) -> &super::Session {
        todo!()
    }

    /// The maintenance database's target.
    pub fn maintenance_target(&self) -> &Target {
        todo!()
    }

    /// Whether the lock is still held: the session is alive and `pg_locks` shows it.
    pub async fn still_held(&self) -> bool {
        todo!()
    }

    /// Releases it and checks that it was held.
    pub async fn release(self) -> Result<()> {
        todo!()
    }
}

/// Opens the maintenance database: the configured one, else `postgres`, else `template1`; never the
/// target itself.
pub async fn open_maintenance(_target: &Target, _settings: &Settings) -> Result<(Target, super::Session)> {
    todo!()
}

/// Ends the session that holds a database's lock (for `lock release`). Returns whether there was one.
pub async fn break_lock(_target: &Target, _settings: &Settings) -> Result<bool> {
    todo!()
}
