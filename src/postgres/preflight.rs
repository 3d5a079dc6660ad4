//! What would stop a dump, a restore or a swap, found out before anything is touched.

use serde::Serialize;

use super::{Session, Target};
use crate::error::{Error, Result};

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// `SHOW server_version`.
    pub server_version: String,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// The role is a superuser.
    pub superuser: bool,
    /// The role may create databases.
    pub createdb: bool,
    /// The role owns the database, or is a member of its owner.
    pub owns_database: bool,
    /// Roles that own something here and that the role is not a member of.
    pub foreign_owners: Vec<String>,
    /// Tables that row security would hide rows of, from this role.
    pub row_security: Vec<String>,
    /// Prepared transactions of this database (gid).
    pub prepared: Vec<String>,
    /// Logical slots of this database.
    pub slots: Vec<String>,
    /// Subscriptions of this database.
    pub subscriptions: Vec<String>,
    /// Event triggers of this database.
    pub event_triggers: Vec<String>,
    /// Unlogged, foreign tables: whose rows a dump cannot promise.
    pub foreign_tables: Vec<String>,
    /// Other dumps that run in this database (pid, since).
    pub running_dumps: Vec<String>,
    /// Extensions that the server does not offer any more.
    pub missing_extensions: Vec<String>,
    /// The server is a standby.
    pub in_recovery: bool,
    /// Who may pass a read-only fence: role-in-database settings, apply workers, prepared transactions.
    pub fence_leaks: Vec<String>,
    /// Free bytes where the server keeps its data, when that can be known.
    pub server_free_bytes: Option<u64>,
}

/// Looks at the target and, through `maintenance`, at the server.
pub async fn look(target: &Target, session: &Session, maintenance: &Session) -> Result<Findings> {
    let list = |sql: &'static str| async move {
        let rows = session.ours(sql).await?;
        Ok::<_, Error>(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect::<Vec<String>>())
    };

    // language=SQL
    let rows = session
        .ours(
            "SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_database_size(d.oid), \
             pg_catalog.pg_is_in_recovery(), pg_catalog.pg_has_role(current_user, d.datdba, 'MEMBER') \
             FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        )
        .await?;
    let value = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref).unwrap_or_default();
    // language=SQL
    let role = maintenance
        .rows(
            "SELECT r.rolsuper, r.rolsuper OR r.rolcreatedb FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
        )
        .await?;
    let holds = |at: usize| role.first().and_then(|row| row.get(at)).and_then(Option::as_deref) == Some("t");

    let prepared = list(PREPARED).await?;
    let subscriptions = list(SUBSCRIPTIONS).await?;
    let mut fence_leaks = list(ROLES_OF_THEIR_OWN).await?;
    fence_leaks.extend(list(APPLY_WORKERS).await?);
    fence_leaks.extend(prepared.iter().map(|gid| format!("prepared transaction `{gid}` can still be committed")));

    Ok(Findings {
        server_version: value(0).to_owned(),
        database_bytes: value(1).parse().map_err(|_| Error::failed("the server tells no size of the database"))?,
        superuser: holds(0),
        createdb: holds(1),
        owns_database: value(3) == "t",
        foreign_owners: list(FOREIGN_OWNERS).await?,
        row_security: list(ROW_SECURITY).await?,
        prepared,
        slots: list(SLOTS).await?,
        subscriptions,
        event_triggers: list(EVENT_TRIGGERS).await?,
        foreign_tables: list(FOREIGN_TABLES).await?,
        running_dumps: list(RUNNING_DUMPS).await?,
        missing_extensions: list(MISSING_EXTENSIONS).await?,
        in_recovery: value(2) == "t",
        fence_leaks,
        server_free_bytes: if target.is_local() { free_bytes(session).await } else { None },
    })
}

/// Owners that a restore must give objects to. Not counted: members of extensions, which CREATE EXTENSION makes,
/// and `public` with the owner that every new database gives it.
// language=SQL
const FOREIGN_OWNERS: &str = "
WITH owned (classid, objid, owner) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relowner FROM pg_catalog.pg_class c
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proowner FROM pg_catalog.pg_proc p
    WHERE p.oid >= 16384
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner FROM pg_catalog.pg_type t
    WHERE t.oid >= 16384 AND t.typrelid = 0 AND t.typelem = 0
    UNION ALL
    SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, n.nspowner FROM pg_catalog.pg_namespace n
    WHERE n.oid >= 16384 AND n.nspname !~ '^pg_'
    UNION ALL
    SELECT s.classid, s.objid, s.refobjid FROM pg_catalog.pg_shdepend s
    WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
    AND s.deptype = 'o' AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
    AND s.classid NOT IN ('pg_catalog.pg_extension'::pg_catalog.regclass, 'pg_catalog.pg_class'::pg_catalog.regclass)
)
SELECT DISTINCT r.rolname FROM owned o JOIN pg_catalog.pg_roles r ON r.oid = o.owner
WHERE NOT pg_catalog.pg_has_role(current_user, o.owner, 'MEMBER')
AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend e WHERE e.classid = o.classid AND e.objid = o.objid AND e.deptype = 'e')
AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_namespace p WHERE p.oid = o.objid AND p.nspname = 'public'
    AND o.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND r.rolname = 'pg_database_owner')
ORDER BY 1";

// language=SQL
const ROW_SECURITY: &str = "
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND pg_catalog.row_security_active(c.oid) ORDER BY 1";

// language=SQL
const PREPARED: &str = "
SELECT p.gid FROM pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database() ORDER BY 1";

// language=SQL
const SLOTS: &str = "
SELECT s.slot_name FROM pg_catalog.pg_replication_slots s
WHERE s.database = pg_catalog.current_database() ORDER BY 1";

// language=SQL
const SUBSCRIPTIONS: &str = "
SELECT s.subname FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database() ORDER BY 1";

// language=SQL
const APPLY_WORKERS: &str = "
SELECT 'subscription `' || s.subname || '` applies changes' FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = pg_catalog.current_database() AND s.subenabled ORDER BY 1";

// language=SQL
const EVENT_TRIGGERS: &str = "SELECT t.evtname FROM pg_catalog.pg_event_trigger t ORDER BY 1";

// language=SQL
const FOREIGN_TABLES: &str = "
SELECT n.nspname || '.' || c.relname || CASE c.relkind WHEN 'f' THEN ' (foreign)' ELSE ' (unlogged)' END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'f' OR (c.relkind = 'r' AND c.relpersistence = 'u') ORDER BY 1";

// language=SQL
const RUNNING_DUMPS: &str = "
SELECT 'pid ' || a.pid || coalesce(', since ' || pg_catalog.date_trunc('second', a.backend_start), '')
FROM pg_catalog.pg_stat_activity a
WHERE a.datname = pg_catalog.current_database() AND a.application_name = 'pg_dump' ORDER BY 1";

// language=SQL
const MISSING_EXTENSIONS: &str = "
SELECT e.extname FROM pg_catalog.pg_extension e
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_available_extensions a WHERE a.name = e.extname) ORDER BY 1";

/// A role's own setting counts before the database's, with which the fence is made.
// language=SQL
const ROLES_OF_THEIR_OWN: &str = "
SELECT DISTINCT 'role `' || r.rolname || '` has a default_transaction_read_only of its own'
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS u (setting)
WHERE (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
AND pg_catalog.lower(u.setting) LIKE 'default\\_transaction\\_read\\_only=%'
AND pg_catalog.split_part(pg_catalog.lower(u.setting), '=', 2) NOT IN ('on', 'true', '1', 'yes') ORDER BY 1";

/// Free bytes for an unprivileged user on the file system of the server's data directory, which must be on this
/// machine. `None` when the role may not know where it is, or it is not here (a forwarded port, a container).
async fn free_bytes(session: &Session) -> Option<u64> {
    // language=SQL
    let rows = session.rows("SELECT pg_catalog.current_setting('data_directory')").await.ok()?;
    let folder = rows.into_iter().next()?.into_iter().next()??;
    let found = rustix::fs::statvfs(&folder).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}
