//! Which rungs of the ladder a run would have, found out and told before anything is touched.

use serde::Serialize;

use super::context::{Context, Live};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::postgres::preflight::Findings;
use crate::postgres::supabase;

/// How a database could be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreWay {
    /// A new database beside, then a swap of names.
    Swap,
    /// Into the database itself.
    InPlace,
    /// Not at all.
    None,
}

/// The rungs, and what stands against the missing ones.
#[derive(Clone, Debug, Serialize)]
pub struct Rungs {
    /// How a restore would be done.
    pub restore: RestoreWay,
    /// Why it is not the swap.
    pub why_not_swap: Vec<String>,
    /// Things to know.
    pub warnings: Vec<String>,
}

impl Rungs {
    /// In one line.
    pub fn tell(&self) -> String {
        let restore = match self.restore {
            RestoreWay::Swap => "restore beside and swap".to_owned(),
            RestoreWay::InPlace => format!("restore in place only ({})", self.why_not_swap.join("; ")),
            RestoreWay::None => "NO restore".to_owned(),
        };
        format!("if it fails: transaction rollback, DOWN with proof, {restore}")
    }
}

/// Finds them out. Fails when a backup could not be taken at all.
pub async fn available(ctx: &Context, live: &Live, skip_backup: bool) -> Result<Rungs> {
    let findings = &live.findings;
    let rungs = judge(findings, skip_backup, live.guard.in_target(), ctx.would_stay_behind());
    if !skip_backup {
        can_dump(ctx, findings)?;
    }
    if let [_, ..] = ctx.would_stay_behind() {
        for what in supabase::leaning(&live.session, ctx.would_stay_behind()).await? {
            ctx.progress.warn(format!("{what}: a restore in place would be refused until it is dropped"));
        }
    }
    for warning in &rungs.warnings {
        ctx.progress.warn(warning.clone());
    }
    if !rungs.why_not_swap.is_empty() && rungs.restore != RestoreWay::Swap {
        ctx.progress.warn(format!("a restore beside with a swap is not available: {}", rungs.why_not_swap.join("; ")));
    }
    Ok(rungs)
}

/// What would make pg_dump fail, or promise less than it seems to.
fn can_dump(ctx: &Context, findings: &Findings) -> Result<()> {
    if let Some(first) = findings.row_security.first() {
        return Err(Error::failed(format!(
            "row security hides rows of {first} from `{}`, so a backup would not hold them all",
            ctx.target.user()
        ))
        .hint(format!("connect as the tables' owner, or: ALTER ROLE {} BYPASSRLS", ctx.target.user())));
    }
    if findings.in_recovery {
        return Err(
            Error::failed("the server is a standby, and a standby takes no migrations").hint("connect to the primary")
        );
    }
    if let Some(free) = ctx.store.objects().free_bytes()? {
        // Dumps compress; half of the database's size is a safe upper bound for nearly all of them, and the
        // store says so itself when it is full.
        if free < findings.database_bytes / 4 {
            ctx.progress.warn(format!(
                "the store has {} free, and the database has {}",
                super::backup::bytes(free),
                super::backup::bytes(findings.database_bytes)
            ));
        }
    }
    Ok(())
}

/// Pure: from what was found to what could be done.
pub fn judge(findings: &Findings, skip_backup: bool, lock_in_target: bool, left_out: &[String]) -> Rungs {
    let mut why_not_swap = Vec::new();
    if lock_in_target {
        why_not_swap.push("no other database of the server can be reached (--maintenance-db)".to_owned());
    }
    if !left_out.is_empty() {
        why_not_swap.push(format!("schemas that the backup leaves out would not come along: {}", left_out.join(", ")));
    }
    let mut warnings = Vec::new();
    if !findings.superuser && !findings.createdb {
        why_not_swap.push("the role may not create databases (ALTER ROLE … CREATEDB)".to_owned());
    }
    if !findings.superuser && !findings.owns_database {
        why_not_swap.push("the role does not own the database".to_owned());
    }
    if !findings.prepared.is_empty() {
        why_not_swap.push(format!("prepared transactions are open: {}", findings.prepared.join(", ")));
    }
    if !findings.slots.is_empty() {
        why_not_swap.push(format!("logical slots would stay with the old database: {}", findings.slots.join(", ")));
    }
    if !findings.subscriptions.is_empty() {
        why_not_swap.push(format!("subscriptions would have to be moved: {}", findings.subscriptions.join(", ")));
    }
    if !findings.missing_extensions.is_empty() {
        warnings.push(format!(
            "the server no longer offers extensions that a restore needs: {}",
            findings.missing_extensions.join(", ")
        ));
    }
    if !findings.foreign_owners.is_empty() && !findings.superuser {
        warnings.push(format!(
            "a restore could not give objects back to roles that `SET ROLE` does not reach: {}",
            findings.foreign_owners.join(", ")
        ));
    }
    if !findings.foreign_tables.is_empty() {
        warnings
            .push(format!("rows of foreign tables are no part of a backup: {}", findings.foreign_tables.join(", ")));
    }
    if !findings.running_dumps.is_empty() {
        warnings.push(format!("another dump is running and holds locks: {}", findings.running_dumps.join(", ")));
    }
    if let Some(free) = findings.server_free_bytes
        && free < findings.database_bytes
    {
        warnings.push("the server's disk has no room for a second copy of the database".to_owned());
    }
    let restore = if skip_backup {
        RestoreWay::None
    } else if why_not_swap.is_empty() {
        RestoreWay::Swap
    } else {
        RestoreWay::InPlace
    };
    Rungs { restore, why_not_swap, warnings }
}

/// A restore over the target makes it what the backup holds. Where the two do not mean the same schemas, it would drop
/// those that the backup left out, or prove nothing of those that it holds.
pub fn same_set(ctx: &Context, manifest: &Manifest) -> Result<()> {
    let now = ctx.left_out();
    let backed_up = &manifest.sealed.left_out;
    let blocks = || manifest.sealed.streams.iter().flat_map(|stream| &stream.index.blocks);
    let hint = format!("set under `[backup]` in ripcord.toml: exclude_schemas = {backed_up:?}");
    if let Some(schema) = backed_up.iter().find(|schema| !now.contains(schema)) {
        let fact = format!("the backup leaves out schema `{schema}`, and a restore would drop it");
        return Err(Error::refused(fact).hint(hint));
    }
    match now.iter().find(|schema| blocks().any(|block| !block.large_objects && block.namespace.lossy() == **schema)) {
        None => Ok(()),
        Some(schema) => Err(Error::refused(format!(
            "the backup holds schema `{schema}`, which is left out here, so that its restore could not be proved"
        ))
        .hint(hint)),
    }
}
