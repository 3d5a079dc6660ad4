//! `rehearse`: what is pending is run up, down and up again on a scratch database, and measured. The target is not
//! touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::apply;
use super::backup::Taken;
use super::beside::{self, Build, millis};
use super::context::Context;
use super::proof::{Depth, Evidence};
use super::run::Run;
use super::upkeep;
use crate::control;
use crate::error::{Error, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::keys::{DataKey, SubKeys};
use crate::manifest::Purpose;
use crate::migration::plan::{self, Selection};
use crate::migration::{Applied, Migration, Script, destroys};
use crate::postgres::execute::{self, Limits};
use crate::postgres::{Session, Target, Tools, counts, databases, guard, observe};

/// One way through one migration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measured {
    /// How long it took.
    pub duration_ms: u64,
    /// Bytes of the server's log.
    pub wal_bytes: u64,
    /// Whether other sessions wrote meanwhile: then some of those bytes are theirs.
    pub others_wrote: bool,
    /// The strongest lock on each table that was there before. Of what runs outside a transaction nothing is known.
    pub locks: Vec<Lock>,
    /// Tables whose rows were written anew, or emptied.
    pub rewritten: Vec<String>,
}

/// A lock on a table.
#[derive(Clone, Debug, Serialize)]
pub struct Lock {
    /// `schema.table`.
    pub table: String,
    /// As `pg_locks` names it.
    pub mode: String,
    /// From the beginning of the statement that took it to the end of the transaction.
    pub held_ms: u64,
}

/// What was found out about one migration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OfMigration {
    /// Version.
    pub version: String,
    /// Name.
    pub name: String,
    /// `estimatedDuration` of its metadata.
    pub estimated_ms: Option<u64>,
    /// The first way up.
    pub up: Measured,
    /// The way down, where there is one and it was gone.
    pub down: Option<Measured>,
    /// The second way up.
    pub up_again: Option<Measured>,
    /// Whether DOWN brings schema and rows back; `None`: not tried.
    pub down_restores: Option<bool>,
    /// Why not, or why it was not tried.
    pub why_not: Option<String>,
}

/// A rehearsal.
#[derive(Clone, Debug, Serialize)]
pub struct Rehearsed {
    /// The backup that it stood on; `None`: it began with nothing.
    pub backup: Option<BackupId>,
    /// The migrations, in order.
    pub migrations: Vec<OfMigration>,
    /// All of it.
    pub duration_ms: u64,
}

impl OfMigration {
    /// A few lines for people.
    pub fn tell(&self) -> Vec<String> {
        let mut lines = vec![format!("`{}_{}`: {}", self.version, self.name, told(&self.up))];
        if let Some(estimated) = self.estimated_ms.filter(|estimated| self.up.duration_ms > 2 * estimated) {
            lines.push(format!("  took more than twice its estimate of {estimated} ms"));
        }
        for lock in self.up.locks.iter().filter(|lock| observe::strength(&lock.mode) > 2) {
            lines.push(format!(
                "  {} on {} for {} ms: keeps out {}",
                lock.mode,
                lock.table,
                lock.held_ms,
                observe::blocks(&lock.mode)
            ));
        }
        lines.extend(self.up.rewritten.iter().map(|table| format!("  {table} is written anew, or emptied")));
        lines.push(match (self.down_restores, &self.why_not) {
            (Some(true), _) => "  DOWN brings schema and rows back".to_owned(),
            (Some(false), Some(why)) => format!("  DOWN does NOT bring everything back: {why}"),
            (_, why) => format!("  DOWN was not tried: {}", why.as_deref().unwrap_or("there is none")),
        });
        lines
    }
}

fn told(measured: &Measured) -> String {
    let whose = if measured.others_wrote { ", others' among them" } else { "" };
    format!("{} ms, {} of WAL{whose}", measured.duration_ms, super::backup::bytes(measured.wal_bytes))
}

/// Rehearses what is pending on a copy made from a fresh backup.
pub async fn on_a_copy(ctx: &Context) -> Result<Rehearsed> {
    let pending = pending(ctx).await?;
    if pending.is_empty() {
        return Ok(Rehearsed { backup: None, migrations: Vec::new(), duration_ms: 0 });
    }
    let (taken, _) = upkeep::create_backup(ctx, Purpose::Manual, vec!["rehearsal".to_owned()]).await?;
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let tools = ctx.tools(&maintenance)?;
    restored(ctx, &tools, &maintenance, &taken, RunId::new(), &pending).await
}

/// Builds the whole folder from nothing in an empty database: for CI. Needs neither key nor store.
pub async fn from_empty(ctx: &Context) -> Result<Rehearsed> {
    let folder = apply::read_folder(ctx)?;
    let planned = plan::plan(&folder.migrations, &[], &Selection::default(), ctx.settings.on_changed);
    if let Some(error) = planned.errors.into_iter().next() {
        return Err(error);
    }
    let pending: Vec<Migration> = planned.pending.into_iter().map(|pending| pending.migration).collect();
    let (_, maintenance) = guard::open_maintenance(&ctx.target, &ctx.settings).await?;
    let tools = ctx.tools(&maintenance)?;
    let like = match databases::find(&maintenance, ctx.target.database()).await? {
        Some(target) => target.name,
        None => maintenance_name(&maintenance).await?,
    };
    let properties = databases::read_properties(&maintenance, &like).await?;
    let name = databases::scratch_name();
    let comment = databases::scratch_comment(RunId::new(), BackupId::new());
    let oid = databases::create(&maintenance, &name, &properties, &comment).await?;
    let keys = DataKey::generate().subkeys();
    let rehearsed = stopping(ctx, rehearse(ctx, &tools, &name, &keys, &pending)).await;
    databases::drop_scratch(&maintenance, &name, Some(oid)).await?;
    rehearsed
}

/// Within a run, after its backup and before anything of the target is changed.
pub async fn within(run: &Run<'_>) -> Result<Rehearsed> {
    let Some(backup) = &run.backup else {
        return Err(Error::usage("a rehearsal stands on the run's backup, and there is none")
            .hint("leave out --skip-backup, or --rehearse"));
    };
    restored(run.ctx, &run.live.tools, run.live.maintenance(), backup, run.id, &run.migrations).await
}

async fn maintenance_name(maintenance: &Session) -> Result<String> {
    // language=SQL
    let rows = maintenance.rows("SELECT pg_catalog.current_database()").await?;
    let name = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    name.ok_or_else(|| Error::failed("the server does not tell the database's name"))
}

async fn pending(ctx: &Context) -> Result<Vec<Migration>> {
    let folder = apply::read_folder(ctx)?;
    let session = ctx.connect("rehearsal").await?;
    let applied: Vec<Applied> = match control::inspect(session.client()).await? {
        control::State::Present { .. } => {
            control::applied(session.client()).await?.into_iter().map(apply::applied_of).collect()
        }
        control::State::Absent => Vec::new(),
    };
    session.close().await;
    let planned = plan::plan(&folder.migrations, &applied, &Selection::default(), ctx.settings.on_changed);
    match planned.errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(planned.pending.into_iter().map(|pending| pending.migration).collect()),
    }
}

async fn restored(
    ctx: &Context,
    tools: &Tools,
    maintenance: &Session,
    backup: &Taken,
    run: RunId,
    pending: &[Migration],
) -> Result<Rehearsed> {
    let name = databases::scratch_name();
    let comment = databases::scratch_comment(run, backup.id);
    // A lineage of its own: a scratch database is not the database.
    let build = Build { backup, name: &name, comment: &comment, lineage: Lineage::new() };
    let (scratch, _) = beside::build(ctx, tools, maintenance, &build).await?;
    let rehearsed = stopping(ctx, rehearse(ctx, tools, &name, &backup.keys, pending)).await;
    databases::drop_scratch(maintenance, &name, Some(scratch.oid)).await?;
    let mut rehearsed = rehearsed?;
    rehearsed.backup = Some(backup.id);
    Ok(rehearsed)
}

/// A rehearsal can be stopped at any point: nothing depends on it.
async fn stopping(ctx: &Context, work: impl Future<Output = Result<Rehearsed>>) -> Result<Rehearsed> {
    tokio::select! {
        done = work => done,
        () = ctx.cancelled() => Err(super::context::stopped()),
    }
}

/// All of them up; down again one after the other, as long as each brings back what was; and up once more.
async fn rehearse(
    ctx: &Context,
    tools: &Tools,
    name: &str,
    keys: &SubKeys,
    pending: &[Migration],
) -> Result<Rehearsed> {
    let began = Instant::now();
    ctx.progress.began("rehearse", format!("{} migrations in `{name}`", pending.len()));
    let target = ctx.target.with_database(name);
    let stage = Stage { ctx, tools, target: &target, keys, session: connect(ctx, &target).await? };
    let mut found: Vec<OfMigration> = pending.iter().map(of_migration).collect();

    let mut before = Vec::with_capacity(pending.len());
    for (migration, found) in pending.iter().zip(&mut found) {
        before.push(stage.look().await?);
        found.up = stage.up(migration).await.map_err(|error| failed(migration, "UP", error))?;
    }
    let mut undone = 0;
    for ((migration, found), before) in pending.iter().zip(&mut found).zip(&before).rev() {
        if !stage.down(migration, found, before).await? {
            break;
        }
        undone += 1;
    }
    for (migration, found) in pending.iter().zip(&mut found).skip(pending.len() - undone) {
        let again = stage.up(migration).await.map_err(|error| failed(migration, "the second UP", error))?;
        found.up_again = Some(again);
    }
    stage.session.close().await;
    for line in found.iter().flat_map(OfMigration::tell) {
        ctx.progress.note(line);
    }
    ctx.progress.finished("rehearse", format!("{} migrations", found.len()));
    Ok(Rehearsed { backup: None, migrations: found, duration_ms: millis(began.elapsed()) })
}

async fn connect(ctx: &Context, target: &Target) -> Result<Session> {
    Session::connect(target, "rehearsal", ctx.settings.timeouts.connect).await
}

fn of_migration(migration: &Migration) -> OfMigration {
    OfMigration {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        estimated_ms: migration.metadata.estimated_duration.map(millis),
        why_not: Some("a later one cannot be undone".to_owned()),
        ..OfMigration::default()
    }
}

fn failed(migration: &Migration, what: &str, error: Error) -> Error {
    error
        .context(format!("the rehearsal failed: {what} of `{}`", migration.label()))
        .hint("mend the migration, then rehearse it again: ripcord rehearse")
}

/// Where it is rehearsed.
struct Stage<'a> {
    ctx: &'a Context,
    tools: &'a Tools,
    target: &'a Target,
    keys: &'a SubKeys,
    session: Session,
}

impl Stage<'_> {
    async fn look(&self) -> Result<Evidence> {
        Evidence::read(self.ctx, self.tools, self.target, &self.session, self.keys, Depth::Rows).await
    }

    async fn up(&self, migration: &Migration) -> Result<Measured> {
        self.run(&migration.up, &migration.file_name, &self.limits(migration)).await
    }

    /// Whether the database is as it was before this migration, so that the one before it can be undone as well. A
    /// DOWN that fails, or that loses what its UP did not destroy, is an error.
    async fn down(&self, migration: &Migration, found: &mut OfMigration, before: &Evidence) -> Result<bool> {
        let Some(down) = migration.down.as_ref().filter(|down| !down.is_empty()) else {
            found.why_not = Some("there is none".to_owned());
            return Ok(false);
        };
        let file = format!("{} (DOWN)", migration.file_name);
        let measured = self.run(down, &file, &self.limits(migration)).await;
        found.down = Some(measured.map_err(|error| failed(migration, "DOWN", error))?);
        let proof = before.compare(&self.look().await?, Depth::Rows);
        found.down_restores = Some(proof.holds);
        found.why_not = (!proof.holds).then(|| proof.why_not());
        if proof.holds || destroys(&[&migration.up]).is_some() {
            // What UP destroys by its own words, nobody expects of a DOWN: the way back is a restore.
            return Ok(proof.holds);
        }
        let lost = Error::verification(format!("DOWN does not bring everything back: {}", proof.why_not()));
        Err(failed(migration, "DOWN", lost))
    }

    fn limits(&self, migration: &Migration) -> Limits {
        let timeouts = &self.ctx.settings.timeouts;
        Limits {
            statement: migration.metadata.statement_timeout.unwrap_or(timeouts.statement),
            lock: migration.metadata.lock_timeout.unwrap_or(timeouts.lock),
            whole: timeouts.migration,
        }
    }

    /// Runs a script and commits it, measuring.
    async fn run(&self, script: &Script, file: &str, limits: &Limits) -> Result<Measured> {
        let session = &self.session;
        let files = observe::files(session).await?;
        let (wal, moment) = (observe::wal_position(session).await?, counts::moment(session).await?);
        let began = Instant::now();
        let mut taken: BTreeMap<String, (String, Duration)> = BTreeMap::new();
        let own = if script.no_transaction.is_some() {
            self.run_by_statement(script, file, limits).await?;
            None
        } else {
            execute::begin(session, limits).await?;
            let ran = self.run_whole(script, file, limits, &files, began, &mut taken).await;
            if let Err(error) = ran {
                let _ = execute::rollback(session).await;
                return Err(error);
            }
            execute::commit(session).await?;
            Some(1)
        };
        let duration = began.elapsed();
        execute::reset(session).await?;
        let later = counts::moment(session).await?;
        let wal_bytes = observe::wal_position(session).await?.saturating_sub(wal);
        let alone = |own| moment.is_quiet_until(later, own);
        let locks = taken.into_iter().map(|(table, (mode, since))| Lock {
            table,
            mode,
            held_ms: millis(duration.saturating_sub(since)),
        });
        Ok(Measured {
            duration_ms: millis(duration),
            wal_bytes,
            others_wrote: !own.is_some_and(alone) && !alone(0),
            locks: locks.collect(),
            rewritten: observe::rewritten(&files, &observe::files(session).await?),
        })
    }

    /// In the open transaction. After each statement, the locks that it brought are written down with the moment at
    /// which it began.
    async fn run_whole(
        &self,
        script: &Script,
        file: &str,
        limits: &Limits,
        files: &observe::Files,
        began: Instant,
        taken: &mut BTreeMap<String, (String, Duration)>,
    ) -> Result<()> {
        for number in 0..script.statements.len() {
            let since = began.elapsed();
            let left = limits.whole.saturating_sub(since).max(Duration::from_millis(1));
            let left = Limits { whole: left, ..*limits };
            execute::run_one_in_transaction(&self.session, script, number, file, &left).await?;
            for (table, mode) in observe::locks(&self.session, files).await? {
                let stronger =
                    taken.get(&table).is_none_or(|(held, _)| observe::strength(&mode) > observe::strength(held));
                if stronger {
                    taken.insert(table, (mode, since));
                }
            }
        }
        Ok(())
    }

    async fn run_by_statement(&self, script: &Script, file: &str, limits: &Limits) -> Result<()> {
        for (number, statement) in script.statements.iter().enumerate() {
            if statement.effect.needs_no_transaction {
                execute::run_statement(&self.session, script, number, file, limits).await?;
                continue;
            }
            if script.batches.contains_key(&number) {
                return Err(Error::failed(format!(
                    "`{file}`, line {}: a statement that repeats in batches is not rehearsed",
                    script.line(statement)
                ))
                .hint("try that file on a copy: ripcord restore latest --into NAME"));
            }
            execute::begin(&self.session, limits).await?;
            let ran = execute::run_one_in_transaction(&self.session, script, number, file, limits).await;
            if let Err(error) = ran {
                let _ = execute::rollback(&self.session).await;
                return Err(error);
            }
            execute::commit(&self.session).await?;
        }
        Ok(())
    }
}
