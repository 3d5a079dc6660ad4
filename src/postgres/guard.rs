//! The lock that lets one run at a time at a database: an advisory lock on a session of its own in the
//! maintenance database, polled for, never waited on.
//!
//! Its key comes from the database's name (docs/decisions/002-lock-by-name.md).

use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Session, Target};
use crate::error::{Error, Kind, Result};
use crate::settings::Settings;

/// The held lock. Dropped, its session ends and with it the lock.
pub struct Guard {
    session: Session,
    key: i64,
    in_target: bool,
}

/// Who holds the lock, as far as the server lets us see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its backend.
    pub pid: i32,
    /// `application_name`.
    pub application: Option<String>,
    /// Its role.
    pub user: Option<String>,
    /// Its address; `None` over a socket, or when it may not be seen.
    pub client: Option<String>,
    /// When its session began, as the server writes it.
    pub since: Option<String>,
}

/// The pause between two attempts.
const POLL: Duration = Duration::from_millis(250);

/// How long the server may take to tell whether the lock is held, or to end its holder.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

impl Guard {
    /// Takes the lock of the target's database, polling for at most `wait`; then an error of kind
    /// `Locked` that names the holder's backend (pid, since, application_name) where that can be seen.
    /// Says so when there is a pooler between (the backend changes between two statements).
    pub async fn acquire(target: &Target, settings: &Settings, wait: Duration) -> Result<Guard> {
        let (session, in_target) = open_for_lock(target, settings).await?;
        let key = key(target.database());
        let began = Instant::now();
        // language=SQL
        let attempt = format!("SELECT pg_catalog.pg_try_advisory_lock({key}), pg_catalog.pg_backend_pid()");
        loop {
            let rows = session.rows(&attempt).await?;
            let value = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref);
            if value(1) != Some(session.backend_pid().to_string().as_str()) {
                return Err(pooler(target));
            }
            if value(0) == Some("t") {
                break;
            }
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(locked(&session, target).await);
            }
            tokio::time::sleep(POLL.min(left)).await;
        }
        let guard = Guard { session, key, in_target };
        // Asked in a transaction of its own: a pooler may have answered from another backend by now.
        if !guard.still_held().await {
            return Err(pooler(target));
        }
        Ok(guard)
    }

    /// The session in the maintenance database, for CREATE DATABASE, renames and the like.
    pub fn maintenance(&self) -> &Session {
        &self.session
    }

    /// The maintenance database's target.
    pub fn maintenance_target(&self) -> &Target {
        self.session.target()
    }

    /// No other database could be reached: the lock is held in the target itself, so that it cannot be
    /// renamed, and a swap is not available.
    pub fn in_target(&self) -> bool {
        self.in_target
    }

    /// Whether the lock is still held: the session is alive and `pg_locks` shows it.
    pub async fn still_held(&self) -> bool {
        // language=SQL
        let sql = format!(
            "SELECT 1 FROM pg_catalog.pg_locks l WHERE l.pid = pg_catalog.pg_backend_pid() AND {}",
            held(self.key)
        );
        match tokio::time::timeout(ANSWER_LIMIT, self.session.rows(&sql)).await {
            Ok(Ok(rows)) => rows.len() == 1,
            _ => false,
        }
    }

    /// Releases it and checks that it was held.
    pub async fn release(self) -> Result<()> {
        // language=SQL
        let rows = self.session.rows(&format!("SELECT pg_catalog.pg_advisory_unlock({})", self.key)).await;
        self.session.close().await;
        let lost =
            || Error::failed("the lock was lost before the run ended: another run may have worked at the same time");
        match rows {
            Ok(rows) if rows == [[Some("t".to_owned())]] => Ok(()),
            Ok(_) => Err(lost()),
            Err(error) => Err(lost().because(error)),
        }
    }
}

/// Opens the maintenance database: the configured one, else `postgres`, else `template1`; never the
/// target itself.
pub async fn open_maintenance(target: &Target, settings: &Settings) -> Result<(Target, Session)> {
    let names = match settings.maintenance_db.as_deref() {
        Some(name) if name == target.database() => {
            return Err(Error::usage(format!("the maintenance database `{name}` is the target itself"))
                .hint("name another database of the server with `--maintenance-db`"));
        }
        Some(name) => vec![name],
        None => ["postgres", "template1"].into_iter().filter(|name| *name != target.database()).collect(),
    };
    let mut refused: Option<Error> = None;
    for name in names {
        let maintenance = target.with_database(name);
        match Session::connect_retrying(&maintenance, "lock", target.connect_timeout(), &settings.retry).await {
            Ok(session) => return Ok((maintenance, session)),
            // Every run must come to the same database, or two would hold the lock at once: so only a
            // refusal that the next run meets too leads to the next name.
            Err(error) if error.sqlstate().is_some_and(is_lasting) => match &mut refused {
                Some(first) => *first = first.clone().because(error),
                None => refused = Some(error),
            },
            Err(error) => return Err(error),
        }
    }
    let refused = refused.unwrap_or_else(|| Error::failed("there is no other database"));
    Err(refused
        .context("no maintenance database can be reached, to hold the lock and to create databases from")
        .hint("name one with `--maintenance-db`"))
}

/// Ends the session that holds a database's lock (for `lock release`). Returns whether there was one.
pub async fn break_lock(target: &Target, settings: &Settings) -> Result<bool> {
    let (session, _) = open_for_lock(target, settings).await?;
    let Some(found) = holder(&session, target.database()).await? else {
        session.close().await;
        return Ok(false);
    };
    // language=SQL
    session.rows(&format!("SELECT pg_catalog.pg_terminate_backend({})", found.pid)).await?;
    let deadline = Instant::now() + ANSWER_LIMIT;
    while holder(&session, target.database()).await?.is_some_and(|now| now.pid == found.pid) {
        if Instant::now() >= deadline {
            return Err(Error::failed(format!("backend {} does not end", found.pid))
                .hint("its own machine may be gone: restart the server, or wait for its TCP keepalive"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    session.close().await;
    Ok(true)
}

/// Who holds a database's lock now; `session` is in the maintenance database.
pub async fn holder(session: &Session, database: &str) -> Result<Option<Holder>> {
    // language=SQL
    let sql = format!(
        "SELECT l.pid, a.application_name, a.usename, a.client_addr, pg_catalog.date_trunc('second', a.backend_start) \
         FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid WHERE {}",
        held(key(database))
    );
    let rows = session.rows(&sql).await?;
    let Some([Some(pid), application, user, client, since]) = rows.into_iter().next().map(|row| {
        let mut row = row.into_iter();
        std::array::from_fn::<_, 5, _>(|_| row.next().flatten())
    }) else {
        return Ok(None);
    };
    let pid = pid.parse().map_err(|_| Error::failed("the server's `pg_locks` names a backend that is no number"))?;
    Ok(Some(Holder { pid, application, user, client, since }))
}

/// The session that the lock is taken on, and whether it is in the target for want of another database.
async fn open_for_lock(target: &Target, settings: &Settings) -> Result<(Session, bool)> {
    match open_maintenance(target, settings).await {
        Ok((_, session)) => Ok((session, false)),
        Err(error) if settings.maintenance_db.is_none() && error.sqlstate().is_some_and(is_lasting) => {
            let limit = target.connect_timeout();
            Ok((Session::connect_retrying(target, "lock", limit, &settings.retry).await?, true))
        }
        Err(error) => Err(error),
    }
}

/// The database is not there (3D000), is closed (55000), or does not let the role in (42501, 28000).
fn is_lasting(sqlstate: &str) -> bool {
    matches!(sqlstate, "3D000" | "55000" | "42501" | "28000")
}

fn pooler(target: &Target) -> Error {
    Error::failed(format!(
        "between here and `{}` is a pooler that changes sessions between statements",
        target.redacted()
    ))
    .because("a lock and a snapshot belong to one session and would be lost")
    .hint("give a URL that leads to PostgreSQL itself (DIRECT_URL beside DATABASE_URL)")
}

async fn locked(session: &Session, target: &Target) -> Error {
    let error =
        Error::new(Kind::Locked, format!("another run works on `{}`", target.database())).hint("ripcord lock status");
    match holder(session, target.database()).await {
        Ok(Some(holder)) => {
            let mut who = format!("held by backend {}", holder.pid);
            for (what, value) in
                [("", holder.application), ("role ", holder.user), ("from ", holder.client), ("since ", holder.since)]
            {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    who.push_str(&format!(", {what}`{value}`"));
                }
            }
            error.because(who)
        }
        _ => error,
    }
}

/// The lock's key. Frozen: two versions of ripcord must meet at the same lock.
fn key(database: &str) -> i64 {
    let digest = Sha256::new().chain_update("ripcord lock ").chain_update(database).finalize();
    let mut first = [0; 8];
    first.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    i64::from_be_bytes(first)
}

/// The condition on `pg_locks l` for the key in this database. A key of 64 bits stands there as two halves, with
/// objsubid 1 (PostgreSQL documentation, pg_locks).
fn held(key: i64) -> String {
    let [high, low] = [key >> 32, key].map(|half| half & 0xffff_ffff);
    // language=SQL
    format!(
        "l.locktype = 'advisory' AND l.granted AND l.classid = {high} AND l.objid = {low} AND l.objsubid = 1 \
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_frozen() {
        // printf 'ripcord lock app' | sha256sum | cut -c1-16
        assert_eq!(key("app"), i64::from_be_bytes(0x5277_8f41_1693_6eda_u64.to_be_bytes()));
        assert_ne!(key("app"), key("App"));
    }
}
