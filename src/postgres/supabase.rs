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

async fn present(session: &Session, names: &[String], condition: &str) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = names.iter().map(|name| quote::literal(name)).collect();
    // language=SQL
    let sql = format!(
        "SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname IN ({}) {condition} ORDER BY n.nspname",
        names.join(", ")
    );
    Ok(session.ours(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Makes the API in front of the database read its schema again.
pub async fn reload_schema(session: &Session) -> Result<()> {
    // language=SQL
    session.batch("NOTIFY pgrst, 'reload schema'").await
}
