//! Where an earlier run stopped within a migration that runs statement by statement, found in its journal.
//!
//! A journal is a claim: it counts only while nothing has taken the database back since, and the texts of the
//! statements that were done are still those of the file.

use std::collections::BTreeMap;

use super::statements::open_statement;
use crate::control::{self, RunRow};
use crate::error::{Error, Result};
use crate::ids::{Lineage, RunId};
use crate::journal::{Entry, Step};
use crate::migration::Migration;
use crate::ops::context::Context;
use crate::ops::run::journal_of;
use crate::postgres::Session;

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// The run that stopped.
    pub run: RunId,
    /// How many statements were done.
    pub statements: usize,
    /// The statement after them was begun: the indexes of its index's name that were there before.
    pub interrupted: Option<Vec<u32>>,
    /// Of a statement that repeats in batches: the last keys that were reached, with their transactions.
    pub keys: Vec<(String, u64)>,
}

/// For each of the migrations that an earlier run has done in part: where to go on. An error when what was done is
/// not what the file says any more.
pub async fn find(
    ctx: &Context,
    session: &Session,
    lineage: Lineage,
    migrations: &[&Migration],
) -> Result<BTreeMap<String, Resumption>> {
    let mut found = BTreeMap::new();
    let candidates: Vec<&&Migration> = migrations.iter().filter(|one| one.up.no_transaction.is_some()).collect();
    if candidates.is_empty() {
        return Ok(found);
    }
    let stopped = still_standing(session).await?;
    if stopped.is_empty() {
        return Ok(found);
    }
    let rows = control::migrations(session.client()).await?;
    for migration in candidates {
        let version = migration.version.as_str();
        for run in &stopped {
            // What went well since has its own row, and what went wrong in it was before that.
            let done = rows.iter().any(|row| row.version == version && row.success && row.applied_at > run.started_at);
            if done {
                break;
            }
            let entries = journal_of(ctx, lineage, run.id).await?;
            if let Some((resumption, digest)) = reached(run.id, version, &entries) {
                if migration.up.digest(resumption.statements) != digest {
                    return Err(changed(migration, &resumption));
                }
                found.insert(version.to_owned(), resumption);
                break;
            }
        }
    }
    Ok(found)
}

/// The runs that stopped partway, newest first, as far as nothing has taken the database back behind them.
async fn still_standing(session: &Session) -> Result<Vec<RunRow>> {
    let backups = control::backups(session.client()).await?;
    let mut horizon = None;
    let mut standing = Vec::new();
    // `runs` are newest first.
    let runs = control::runs(session.client(), 1000).await?;
    for run in &runs {
        if horizon.is_some_and(|horizon| run.started_at >= horizon) {
            continue;
        }
        match (run.command.as_str(), run.outcome.as_deref()) {
            ("fresh", Some("done")) => break,
            ("restore", Some("done")) => {
                // The database is what that backup holds; a backup of a run is older than what the run changed.
                let Some(backup) = backups.iter().find(|backup| Some(backup.id) == run.backup) else { break };
                let of = runs.iter().find(|row| Some(row.id) == backup.run);
                horizon = Some(of.map_or(backup.started_at, |row| row.started_at));
            }
            ("apply", Some("stopped_partway")) => standing.push(run.clone()),
            _ => {}
        }
    }
    Ok(standing)
}

/// How far a run came in a migration, and the digest of what it had done; `None` when it did nothing of it.
fn reached(run: RunId, version: &str, entries: &[Entry]) -> Option<(Resumption, String)> {
    let mut reached: Option<(usize, String)> = None;
    let mut keys: Vec<(String, u64)> = Vec::new();
    for entry in entries {
        match &entry.step {
            Step::Resumed { version: of, statements, digest, keys: before, .. } if of == version => {
                reached = Some((*statements, digest.clone()));
                keys.clone_from(before);
            }
            Step::StatementDone { version: of, statement, digest, .. } if of == version => {
                reached = Some((statement + 1, digest.clone()));
                keys.clear();
            }
            Step::Round { version: of, key: Some(key), xid, .. } if of == version => keys.push((key.clone(), *xid)),
            Step::Round { version: of, .. } if of == version && reached.is_none() => {
                reached = Some((0, String::new()));
            }
            Step::UpDone { version: of, .. } | Step::DownDone { version: of, .. } if of == version => reached = None,
            _ => {}
        }
    }
    let open = open_statement(entries).filter(|open| open.version == version);
    let (statements, digest) = reached.or_else(|| (open.is_some() || !keys.is_empty()).then(|| (0, String::new())))?;
    let digest = if statements == 0 { crate::migration::Script::default().digest(0) } else { digest };
    let interrupted = open.filter(|open| open.statement == statements).map(|open| open.indexes.to_vec());
    Some((Resumption { run, statements, interrupted, keys }, digest))
}

fn changed(migration: &Migration, resumption: &Resumption) -> Error {
    let file = &migration.file_name;
    let noun = if resumption.statements == 1 { "statement" } else { "statements" };
    Error::failed(format!(
        "run `{}` did the first {} {noun} of `{file}`, and their text has changed since",
        resumption.run, resumption.statements
    ))
    .because("what is done cannot be told from what is to be done any more")
    .hint(format!(
        "put those statements back, then: ripcord apply\n      \
         to begin at the first statement all the same: ripcord apply --file {file} --again"
    ))
}

/// What `plan` and the report say of a migration that goes on.
pub fn reason(migration: &Migration, resumption: &Resumption) -> String {
    format!("goes on at statement {} of {}", resumption.statements + 1, migration.up.statements.len())
}
