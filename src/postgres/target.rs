//! Which server and database, and how to reach it.

use crate::error::Result;
use crate::settings::Settings;

/// A database on a server. Printing it never shows the password.
#[derive(Clone)]
pub struct Target {
    _private: (),
}

impl Target {
    /// From the URL or `key=value` string in `settings`, libpq's variables (`PGHOST`, `PGPORT`, `PGUSER`,
    /// `PGPASSWORD`, `PGPASSFILE`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSERVICE` is refused with
    /// a hint) as given in `environment`, and `~/.pgpass`.
    pub fn resolve(_settings: &Settings, _environment: &dyn Fn(&str) -> Option<String>) -> Result<Target> {
        todo!()
    }

    /// The same server, another database.
    pub fn with_database(&self, _name: &str) -> Target {
        todo!()
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        todo!()
    }

    /// The role's name.
    pub fn user(&self) -> &str {
        todo!()
    }

    /// The server is on this machine (a socket or a loopback address).
    pub fn is_local(&self) -> bool {
        todo!()
    }

    /// `postgresql://user@host:port/database`, without the password.
    pub fn redacted(&self) -> String {
        todo!()
    }
}
