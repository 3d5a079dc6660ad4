//! What a backup leaves out, and the schemas that Supabase manages.

use super::{Session, quote};
use crate::error::Result;

/// The schemas of Supabase's own services: made, changed and filled by them, owned by roles that a project has not.
pub const MANAGED: [&str; 18] = [
    "auth",
    "storage",
    "realtime",
    "_realtime",
    "extensions",
    "graphql",
    "graphql_public",
    "vault",
    "pgsodium",
    "pgsodium_masks",
    "supabase_functions",
    "supabase_migrations",
    "_supabase",
    "_supavisor",
    "_analytics",
    "pgbouncer",
    "pgtle",
    "net",
];

/// The schemas that a backup of a database leaves out, and a proof does not look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// All of them.
    pub schemas: Vec<String>,
    /// Those that the database has: what is put in its place from a backup would be without them.
    pub there: Vec<String>,
    /// Nobody configured them: they are Supabase's.
    pub supabase: bool,
}

impl LeftOut {
    /// Reads which they are. What is configured stands; where nothing is, they are Supabase's in a database of
    /// Supabase's, and none in any other.
    pub async fn of(session: &Session, configured: Option<&[String]>) -> Result<LeftOut> {
        if let Some(configured) = configured {
            let there = present(session, configured, "").await?;
            return Ok(LeftOut { schemas: configured.to_vec(), there, supabase: false });
        }
        let managed: Vec<String> = MANAGED.iter().map(|name| (*name).to_owned()).collect();
        let there = present(session, &managed, IS_SUPABASES).await?;
        Ok(LeftOut { schemas: there.clone(), supabase: !there.is_empty(), there })
    }

    /// In one line, where nobody asked for it; `None` where there is nothing to tell.
    pub fn tell(&self) -> Option<String> {
        self.supabase.then(|| {
            format!(
                "Supabase manages these schemas, and the backup leaves them out: {} (`backup.exclude_schemas` decides \
                 otherwise)",
                self.there.join(", ")
            )
        })
    }
}

/// Supabase's superuser owns the schema of its users in no other database.
// language=SQL
const IS_SUPABASES: &str = "
    AND EXISTS (
        SELECT FROM pg_catalog.pg_namespace a JOIN pg_catalog.pg_roles r ON r.oid = a.nspowner
        WHERE a.nspname = 'auth' AND r.rolname = 'supabase_admin'
    )";

/// What in schemas that are left out needs something that a backup holds: a restore in place cannot drop and make anew
/// what is needed (a trigger on `auth.users` and the function that it calls). One line each.
pub async fn leaning(session: &Session, left_out: &[String]) -> Result<Vec<String>> {
    if left_out.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session
        .ours(&LEANING.replace("$LEFT_OUT", &quote::literals(left_out)).replace("$OURS", &quote::literal("ripcord")))
        .await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

// language=SQL
const LEANING: &str = "
SELECT pg_catalog.format('%s needs %s', pg_catalog.pg_describe_object(d.classid, d.objid, 0),
                         pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0))
FROM pg_catalog.pg_depend d
LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid
LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid
LEFT JOIN pg_catalog.pg_constraint k
    ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid AND k.conrelid <> 0
LEFT JOIN pg_catalog.pg_class c ON c.oid = coalesce(
    t.tgrelid, p.polrelid, r.ev_class, a.adrelid, k.conrelid,
    CASE WHEN d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.objid END)
LEFT JOIN pg_catalog.pg_proc f ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND f.oid = d.objid
JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, f.pronamespace)
LEFT JOIN pg_catalog.pg_class rc ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND rc.oid = d.refobjid
LEFT JOIN pg_catalog.pg_proc rf ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND rf.oid = d.refobjid
LEFT JOIN pg_catalog.pg_type rt ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND rt.oid = d.refobjid
JOIN pg_catalog.pg_namespace rn ON rn.oid = coalesce(rc.relnamespace, rf.pronamespace, rt.typnamespace)
WHERE d.deptype = 'n' AND coalesce(t.tgisinternal, false) = false
  AND n.nspname IN ($LEFT_OUT)
  AND rn.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', $OURS, $LEFT_OUT)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                  WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
GROUP BY 1 ORDER BY 1";

async fn present(session: &Session, names: &[String], condition: &str) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    // language=SQL
    let sql = format!(
        "SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname IN ({}) {condition} ORDER BY n.nspname",
        quote::literals(names)
    );
    Ok(session.ours(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Makes the API in front of the database read its schema again.
pub async fn reload_schema(session: &Session) -> Result<()> {
    // language=SQL
    session.batch("NOTIFY pgrst, 'reload schema'").await
}
