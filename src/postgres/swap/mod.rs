//! Two databases change names in one transaction.

mod sessions;
mod waiting;

use std::time::{Duration, Instant};

use super::databases::{self, get, pending_comment};
use super::{Session, Target, quote, session};
use crate::error::{Error, Kind, Result};
use sessions::wait_gone;

pub(super) use sessions::{Whom, end_others};
pub use sessions::{end_named, end_sessions};
pub use waiting::stuck_behind;

/// PostgreSQL cuts longer names off, and two names could become one.
const MAX_NAME_BYTES: usize = 63;

/// How long the database being swapped in may take to lose its sessions, and our own session to be gone.
const SETTLE: Duration = Duration::from_secs(20);

/// How long a statement waits for somebody else's lock on the database, while nobody can get in.
const LOCK_TIMEOUT: &str = "5s";

/// The target, closed to everyone but one session of ours. Dropped or failed, [`reopen`](Self::reopen)
/// must be called: `recover` does so too.
pub struct Closed {
    inside: Session,
    target: Target,
    oid: u32,
    since: Instant,
}

/// Closes `target`: opens one session in it, ALLOW_CONNECTIONS false in a commit of its own, ends the other
/// sessions until none is left (autovacuum and workers too), for at most `limit`. On any error it is
/// open again.
pub async fn close(maintenance: &Session, target: &Target, limit: Duration) -> Result<Closed> {
    let name = target.database();
    let inside = Session::connect(target, "swap", limit).await?;
    let oid = match checked_oid(maintenance, &inside, name).await {
        Ok(oid) => oid,
        Err(error) => {
            inside.close().await;
            return Err(error);
        }
    };
    if let Err(error) = inside.batch(settings_inside(inside.server_version_num())).await {
        inside.close().await;
        return Err(error);
    }
    let since = Instant::now();
    // In a commit of its own: only what is committed keeps newcomers out.
    if let Err(error) = allow_connections(maintenance, name, false).await {
        inside.close().await;
        // Without an answer it may be closed; with one it is as open as before.
        return Err(if error.connection_lost() { reopened(maintenance, oid, error).await } else { error });
    }
    if let Err(error) = end_others(maintenance, oid, name, &[inside.backend_pid()], Whom::All, limit).await {
        inside.close().await;
        return Err(reopened(maintenance, oid, error.context(format!("database `{name}` could not be closed"))).await);
    }
    Ok(Closed { inside, target: target.clone(), oid, since })
}

/// What the session inside counts with. Before these versions, parallel workers cannot enter a database that
/// is closed, and a statement that wants some fails (release notes of 17.3, 16.7, 15.11, 14.16 and 13.19).
fn settings_inside(server_version_num: i32) -> &'static str {
    let first = match server_version_num / 10_000 {
        ..=13 => 130_019,
        14 => 140_016,
        15 => 150_011,
        16 => 160_007,
        17 => 170_003,
        _ => 0,
    };
    // Compiling takes longer than it saves in statements this simple.
    // language=SQL
    if server_version_num < first { "SET jit = off; SET max_parallel_workers_per_gather = 0" } else { "SET jit = off" }
}

/// The database's oid, when both sessions are on one server and `maintenance` is in another database.
async fn checked_oid(maintenance: &Session, inside: &Session, name: &str) -> Result<u32> {
    // language=SQL
    let sql = "SELECT d.oid, d.datname = pg_catalog.current_database(), \
                      EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = $2 AND a.datid = d.oid) \
               FROM pg_catalog.pg_database AS d WHERE d.datname = $1";
    let row = maintenance
        .client()
        .query_opt(sql, &[&name, &inside.backend_pid()])
        .await
        .map_err(|error| session::explain(&error))?
        .ok_or_else(|| {
            Error::failed(format!("database `{name}` does not exist on the maintenance database's server"))
        })?;
    if get(&row, 1)? {
        return Err(Error::failed(format!(
            "database `{name}` is the maintenance database itself: it cannot be swapped"
        )));
    }
    if !get::<bool>(&row, 2)? {
        return Err(Error::failed(format!(
            "the sessions in database `{name}` and in the maintenance database are not on the same server"
        )));
    }
    get(&row, 0)
}

impl Closed {
    /// The one session inside.
    pub fn inside(&self) -> &Session {
        &self.inside
    }

    /// Lets everyone in again, the swap not done.
    pub async fn reopen(self, maintenance: &Session) -> Result<()> {
        let name = name_of(maintenance, self.oid).await?;
        let opened = allow_connections(maintenance, &name, true).await;
        self.inside.close().await;
        opened
    }

    /// Ends the session inside, then renames both in one transaction: the target to `aside`, `replacement`
    /// to the target's name. Lets everyone into the new one; the one aside stays closed, with a comment
    /// that says what it is (`aside_comment`). On any error the old one is open under its own name.
    /// Returns how long the database was closed.
    ///
    /// Subscriptions of the old database are disabled first: two databases must not feed on one slot. The
    /// same transaction gives the new one the comment that it was to have.
    ///
    /// # Errors
    /// [`Kind::NotRecovered`] when the connection was lost and which database has the name is unknown.
    pub async fn swap(
        self,
        maintenance: &Session,
        replacement: &str,
        aside: &str,
        aside_comment: &str,
    ) -> Result<Duration> {
        let Closed { inside, target, oid, since } = self;
        let name = target.database();
        let mut disabled = Vec::new();
        let prepared = prepare(maintenance, &inside, oid, name, replacement, aside, &mut disabled).await;
        let inside_pid = inside.backend_pid();
        // Its own session would block the rename.
        inside.close().await;
        let renamed = match prepared {
            Ok(replacement) => match wait_gone(maintenance, inside_pid).await {
                Ok(()) => rename(maintenance, name, oid, &replacement, aside, aside_comment).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match renamed {
            Ok(()) => Ok(since.elapsed()),
            Err(error) if error.kind() == Kind::NotRecovered => Err(error),
            Err(error) => {
                let error =
                    reopened(maintenance, oid, error.context(format!("database `{name}` was not swapped"))).await;
                Err(enable_subscriptions(&target, &disabled, error).await)
            }
        }
    }
}

/// Gives a scratch database, which is nobody's yet, the name under which it is to live, and the comment that
/// it was to have. A name that is taken is an error.
pub async fn give_name(maintenance: &Session, scratch: &str, name: &str) -> Result<()> {
    let Some(found) = databases::find(maintenance, scratch).await? else {
        return Err(Error::failed(format!("database `{scratch}` does not exist")));
    };
    let comment = pending_comment(scratch, found.comment.as_deref());
    end_others(maintenance, found.oid, scratch, &[], Whom::All, SETTLE).await?;
    let comment = comment.as_deref().map_or_else(|| "NULL".to_owned(), quote::literal);
    let ident = quote::ident(name);
    // language=SQL
    let steps = [
        "BEGIN".to_owned(),
        format!("ALTER DATABASE {} RENAME TO {ident}", quote::ident(scratch)),
        format!("COMMENT ON DATABASE {ident} IS {comment}"),
        "COMMIT".to_owned(),
    ];
    for step in &steps {
        if let Err(error) = maintenance.batch(step).await {
            let _ = maintenance.batch("ROLLBACK").await;
            return Err(error.context(format!("database `{scratch}` could not be named `{name}`")));
        }
    }
    Ok(())
}

/// The database that takes the target's name.
struct Replacement {
    name: String,
    oid: u32,
    comment: Option<String>,
}

/// Everything that can be found out and done before the database has no session of ours any more.
async fn prepare(
    maintenance: &Session,
    inside: &Session,
    oid: u32,
    name: &str,
    replacement: &str,
    aside: &str,
    disabled: &mut Vec<String>,
) -> Result<Replacement> {
    if aside.len() > MAX_NAME_BYTES || aside.is_empty() {
        return Err(Error::failed(format!("`{aside}` is no name for a database: it may have {MAX_NAME_BYTES} bytes")));
    }
    // What the journal or the caller believes is checked against the catalog.
    let now = name_of(maintenance, oid).await?;
    if now != name {
        return Err(Error::failed(format!("database `{name}` has been renamed to `{now}`")));
    }
    if databases::find(maintenance, aside).await?.is_some() {
        return Err(Error::failed(format!("a database `{aside}` exists already")));
    }
    let Some(found) = databases::find(maintenance, replacement).await? else {
        return Err(Error::failed(format!("database `{replacement}`, which is to take its place, does not exist")));
    };
    refuse_prepared(maintenance, &[name, replacement]).await?;
    disable_subscriptions(inside, disabled).await?;
    // Agents that watch every database of a server come back within seconds.
    allow_connections(maintenance, replacement, false).await?;
    let ended = end_others(maintenance, found.oid, replacement, &[], Whom::All, SETTLE).await;
    if let Err(error) = ended {
        let _ = allow_connections(maintenance, replacement, true).await;
        return Err(error);
    }
    let comment = pending_comment(replacement, found.comment.as_deref());
    Ok(Replacement { name: replacement.to_owned(), oid: found.oid, comment })
}

/// A prepared transaction makes a rename fail, after five seconds of waiting for it.
async fn refuse_prepared(maintenance: &Session, databases: &[&str]) -> Result<()> {
    // language=SQL
    let sql = "SELECT p.gid, p.owner::pg_catalog.text, p.database::pg_catalog.text \
               FROM pg_catalog.pg_prepared_xacts AS p \
               WHERE p.database::pg_catalog.text = ANY ($1) ORDER BY p.prepared";
    let rows = maintenance.client().query(sql, &[&databases]).await.map_err(|error| session::explain(&error))?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut error = Error::failed("a database with prepared transactions cannot be renamed")
        .hint("commit or roll back each of them: COMMIT PREPARED '…' or ROLLBACK PREPARED '…'");
    for row in &rows {
        let (gid, owner, database): (String, String, String) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        error = error.because(format!("`{gid}` of role `{owner}` in database `{database}` is prepared"));
    }
    Err(error)
}

/// Disables the subscriptions of the session's database; their names go to `disabled` one by one, so that
/// a failure in the middle leaves those known that must be enabled again.
async fn disable_subscriptions(inside: &Session, disabled: &mut Vec<String>) -> Result<()> {
    // language=SQL
    let sql = "SELECT u.subname::pg_catalog.text FROM pg_catalog.pg_subscription AS u \
               JOIN pg_catalog.pg_database AS d ON d.oid = u.subdbid \
               WHERE d.datname = pg_catalog.current_database() AND u.subenabled ORDER BY u.subname";
    let rows = inside.client().query(sql, &[]).await.map_err(|error| session::explain(&error))?;
    for row in &rows {
        let subscription: String = get(row, 0)?;
        // language=SQL
        inside
            .batch(&format!("ALTER SUBSCRIPTION {} DISABLE", quote::ident(&subscription)))
            .await
            .map_err(|error| error.context(format!("subscription `{subscription}` could not be disabled")))?;
        disabled.push(subscription);
    }
    Ok(())
}

async fn enable_subscriptions(target: &Target, disabled: &[String], mut error: Error) -> Error {
    if disabled.is_empty() {
        return error;
    }
    let inside = match Session::connect(target, "swap", SETTLE).await {
        Ok(inside) => inside,
        Err(other) => {
            return error.because(format!("subscriptions are left disabled ({}): {other}", disabled.join(", ")));
        }
    };
    for subscription in disabled {
        // language=SQL
        let enabled = inside.batch(&format!("ALTER SUBSCRIPTION {} ENABLE", quote::ident(subscription))).await;
        if let Err(other) = enabled {
            error = error.because(format!("subscription `{subscription}` is left disabled: {other}"));
        }
    }
    inside.close().await;
    error
}

/// Both renames, the opening and the comments, at once. On an error both databases have their own names;
/// the replacement is open again.
async fn rename(
    maintenance: &Session,
    name: &str,
    oid: u32,
    replacement: &Replacement,
    aside: &str,
    aside_comment: &str,
) -> Result<()> {
    let mut tries_left = 3;
    let error = loop {
        tries_left -= 1;
        let error = match rename_once(maintenance, name, replacement, aside, aside_comment).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.connection_lost() || maintenance.is_closed() {
            return Err(unknown(name, aside, error));
        }
        let _ = maintenance.batch("ROLLBACK").await;
        // A session that had passed the check before the database was closed turns up only afterwards.
        if error.sqlstate() != Some("55006") || tries_left == 0 {
            break error;
        }
        for (oid, name) in [(oid, name), (replacement.oid, &replacement.name)] {
            end_others(maintenance, oid, name, &[], Whom::All, SETTLE).await?;
        }
    };
    // The server said no; that nothing happened is looked at all the same.
    match (name_of(maintenance, oid).await, name_of(maintenance, replacement.oid).await) {
        (Ok(old), Ok(new)) if old == name && new == replacement.name => {
            let _ = allow_connections(maintenance, &replacement.name, true).await;
            Err(match error.sqlstate() {
                Some("42501") => error.hint_if_none(format!(
                    "renaming needs CREATEDB and the rights of the owner of `{name}` and `{}`",
                    replacement.name
                )),
                _ => error,
            })
        }
        (Ok(old), Ok(new)) if old == aside && new == name => Ok(()),
        _ => Err(unknown(name, aside, error)),
    }
}

async fn rename_once(
    maintenance: &Session,
    name: &str,
    replacement: &Replacement,
    aside: &str,
    aside_comment: &str,
) -> Result<()> {
    let (name, aside, new) = (quote::ident(name), quote::ident(aside), quote::ident(&replacement.name));
    let comment = replacement.comment.as_deref().map_or_else(|| "NULL".to_owned(), quote::literal);
    // language=SQL
    let steps = [
        "BEGIN".to_owned(),
        format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"),
        format!("ALTER DATABASE {name} RENAME TO {aside}"),
        format!("ALTER DATABASE {new} RENAME TO {name}"),
        format!("COMMENT ON DATABASE {aside} IS {}", quote::literal(aside_comment)),
        format!("COMMENT ON DATABASE {name} IS {comment}"),
        format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"),
        "COMMIT".to_owned(),
    ];
    for step in &steps {
        maintenance.batch(step).await?;
    }
    Ok(())
}

fn unknown(name: &str, aside: &str, error: Error) -> Error {
    error
        .context(format!(
            "the connection was lost during the swap: either `{name}` is still the old database and closed, \
             or it is the restored one and the old one is `{aside}`"
        ))
        .with_kind(Kind::NotRecovered)
        .hint("ripcord recover")
}

/// Opens the database again after an error, under whatever name it has.
async fn reopened(maintenance: &Session, oid: u32, error: Error) -> Error {
    let opened = match name_of(maintenance, oid).await {
        Ok(name) => allow_connections(maintenance, &name, true).await,
        Err(other) => Err(other),
    };
    match opened {
        Ok(()) => error,
        Err(other) => error
            .because(format!("the database could not be opened again: {other}"))
            .with_kind(Kind::NotRecovered)
            .hint("ripcord recover"),
    }
}

async fn name_of(maintenance: &Session, oid: u32) -> Result<String> {
    // language=SQL
    let sql = "SELECT d.datname::pg_catalog.text FROM pg_catalog.pg_database AS d WHERE d.oid = $1";
    let row = maintenance.client().query_opt(sql, &[&oid]).await.map_err(|error| session::explain(&error))?;
    get(&row.ok_or_else(|| Error::failed(format!("the database with oid {oid} is gone")))?, 0)
}

/// Sets ALLOW_CONNECTIONS.
pub async fn allow_connections(maintenance: &Session, database: &str, allow: bool) -> Result<()> {
    // Opening waits as long as it must; closing, which somebody's open GRANT or COMMENT on the database
    // would hold up, does not. Both statements are one transaction, as they are sent together.
    let limit = if allow { String::new() } else { format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; ") };
    // language=SQL
    let sql = format!("{limit}ALTER DATABASE {} WITH ALLOW_CONNECTIONS {allow}", quote::ident(database));
    maintenance.batch(&sql).await.map_err(|error| {
        error.context(format!("database `{database}` could not be {}", if allow { "opened" } else { "closed" }))
    })
}

/// A name for a database kept aside, `<name>_aside_<yyyymmddThhmmss>`, cut so that it fits 63 bytes.
pub fn aside_name(database: &str, now: crate::clock::Time) -> String {
    let suffix = now.format("_aside_%Y%m%dt%H%M%S").to_string();
    let mut end = database.len().min(MAX_NAME_BYTES - suffix.len());
    while !database.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", database.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aside_names_fit_and_keep_whole_characters() {
        let now = "2026-11-21T10:20:30Z".parse().unwrap();
        assert_eq!(aside_name("orders", now), "orders_aside_20261121t102030");
        let long = aside_name(&"ü".repeat(40), now);
        assert!(long.len() <= 63 && long.len() >= 62, "{long}");
        assert!(long.ends_with("ü_aside_20261121t102030"));
        assert_eq!(aside_name(&"d".repeat(63), now).len(), 63);
    }
}
