//! A run: the lock, the journal, the rows that say what is going on.

use std::collections::BTreeMap;

use super::backup::Taken;
use super::context::{Context, Live, TOOL_VERSION, blocking};
use super::heartbeat::Heartbeat;
use super::in_place::Progressed;
use super::journals::{Readers, hand_to_all};
use super::losses::Ours;
use super::migrate::resumption::Resumption;
use super::report::{MigrationReport, Outcome, RunReport};
use crate::clock;
use crate::control::{self, LockRow, MigrationRow, RunRow};
use crate::error::{Error, Kind, Result};
use crate::ids::{BackupId, Lineage, RunId};
use crate::journal::{Entry, Journal, Step, StepLog};
use crate::migration::Migration;
use crate::postgres::{databases, supabase, writes};
use crate::settings::{OnFailure, Writes};
use crate::store::Store;

/// A run that holds the lock and has an open journal.
pub struct Run<'a> {
    /// What was resolved.
    pub ctx: &'a Context,
    /// The connections.
    pub live: Live,
    /// Which run.
    pub id: RunId,
    /// Its record outside the database.
    pub journal: Journal,
    /// Its row.
    pub row: RunRow,
    /// Its backup, once there is one.
    pub backup: Option<Taken>,
    /// The migrations that it set out to apply.
    pub migrations: Vec<Migration>,
    /// What to do when it fails.
    pub on_failure: OnFailure,
    /// What holds for others' writes.
    pub writes: Writes,
    /// What became of each migration.
    pub reports: Vec<MigrationReport>,
    /// Whether the fence is up, and the setting that it replaced.
    pub fenced: Option<Option<String>>,
    /// What is known of the run's own writes.
    pub ours: Ours,
    /// Renews the row of the lock.
    pub heartbeat: Option<Heartbeat>,
    /// The migrations of which an earlier run did a part: where to go on.
    pub resumptions: BTreeMap<String, Resumption>,
    /// Who approved it.
    pub approver: Option<String>,
    /// Whether every table is locked against writers before the first statement of a transaction: the strict fence.
    pub strict: bool,
    /// What a restore in place has done that is not proved yet.
    pub in_place: Progressed,
    /// A failed attempt that could not be written down while the server was gone.
    pub unrecorded: Option<MigrationRow>,
}

/// What a later `recover` must know of a run; kept in the journal's first step.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Intent {
    /// What to do when it fails.
    pub on_failure: OnFailure,
    /// What holds for others' writes.
    pub writes: Writes,
    /// The migrations that it set out to apply: version, file name, checksum.
    pub migrations: Vec<(String, String, String)>,
    /// The backup that a restore command restores.
    pub backup: Option<BackupId>,
    /// The batch.
    pub batch: Option<i32>,
}

/// The journal's steps as objects of the store.
pub struct StoreLog {
    /// The store.
    pub store: Store,
    /// The lineage.
    pub lineage: Lineage,
    /// The run.
    pub run: RunId,
}

impl StepLog for StoreLog {
    fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.store.append_step(self.lineage, self.run, name, bytes)
    }

    fn load(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.store.steps(self.lineage, self.run)
    }
}

impl<'a> Run<'a> {
    /// Opens the journal and writes the rows that show the run to others.
    pub async fn begin(
        ctx: &'a Context,
        live: Live,
        command: &str,
        intent: &Intent,
        migrations: Vec<Migration>,
    ) -> Result<Run<'a>> {
        let id = RunId::new();
        let database = databases::find(live.maintenance(), ctx.target.database())
            .await?
            .ok_or_else(|| Error::failed(format!("database `{}` is not there", ctx.target.database())))?;
        let opened = Step::Opened {
            command: command.to_owned(),
            database: ctx.target.database().to_owned(),
            database_oid: database.oid,
            holder: ctx.identity.holder(),
            settings: serde_json::to_value(intent)
                .map_err(|error| Error::failed("the run's intent cannot be written").because(error))?,
        };
        let log = StoreLog { store: ctx.store.clone(), lineage: live.lineage, run: id };
        hand_to_all(&ctx.store, ctx.keys()?, live.lineage)?;
        let journal = Journal::begin(Box::new(log), live.lineage, id, ctx.keys()?.primary().journal_key(), opened)?;
        let row = RunRow {
            id,
            command: command.to_owned(),
            environment: ctx.settings.environment.name.clone(),
            started_at: clock::now(),
            finished_at: None,
            outcome: None,
            exit_code: None,
            database_state: None,
            error: None,
            backup: intent.backup,
            batch: intent.batch,
            holder: ctx.identity.holder(),
            tool_version: TOOL_VERSION.to_owned(),
        };
        control::put_run(live.session.client(), &row).await?;
        let mut run = Run {
            ctx,
            live,
            id,
            journal,
            row,
            backup: None,
            reports: migrations.iter().map(pending_report).collect(),
            migrations,
            on_failure: intent.on_failure,
            writes: intent.writes,
            fenced: None,
            ours: Ours { touched: Some(Vec::new()), ..Ours::default() },
            resumptions: BTreeMap::new(),
            approver: None,
            heartbeat: None,
            strict: false,
            in_place: Progressed::default(),
            unrecorded: None,
        };
        run.show_lock(command).await?;
        Ok(run)
    }

    /// Puts the visible row of the lock.
    pub async fn show_lock(&mut self, command: &str) -> Result<()> {
        let now = clock::now();
        let row = LockRow {
            run: self.id,
            command: command.to_owned(),
            holder: self.ctx.identity.user.clone(),
            host: self.ctx.identity.host.clone(),
            pid: i32::try_from(self.ctx.identity.pid).unwrap_or(0),
            since: now,
            heartbeat: now,
            expires_at: now + chrono::TimeDelta::minutes(5),
        };
        control::put_lock(self.live.session.client(), &row).await?;
        let limit = self.ctx.settings.timeouts.connect;
        self.heartbeat = Some(Heartbeat::begin(self.ctx.target.clone(), self.id, limit, self.ctx.asked.clone()));
        Ok(())
    }

    /// Remembers the run's backup, in the journal first.
    pub async fn set_backup(&mut self, backup: Taken, safety: bool) -> Result<()> {
        self.journal.record(Step::BackupComplete { backup: backup.id, safety })?;
        self.row.backup = Some(backup.id);
        self.backup = Some(backup);
        control::put_run(self.live.session.client(), &self.row).await
    }

    /// Puts the fence up, journaled first.
    pub async fn fence(&mut self, previous: Option<String>) -> Result<()> {
        self.journal.record(Step::FenceBegan { previous: previous.clone() })?;
        self.fenced = Some(previous.clone());
        self.ctx.progress.began("fence", "others can only read until the run is over");
        let limit = std::time::Duration::from_secs(30);
        let (maintenance, database) = (self.live.maintenance(), self.ctx.target.database());
        if let Err(error) = writes::fence(maintenance, database, previous.as_deref(), limit).await {
            // It took away again what stood of it, unless the server is gone.
            if !error.connection_lost() {
                self.journal.record(Step::FenceEnded)?;
                self.fenced = None;
            }
            return Err(error);
        }
        // The fence ended our own session too, unless it was spared.
        if self.live.session.is_closed() {
            self.live.reconnect(self.ctx).await?;
        }
        self.ctx.progress.finished("fence", "up");
        Ok(())
    }

    /// Takes the fence away, if it is up.
    pub async fn unfence(&mut self) -> Result<()> {
        if let Some(previous) = self.fenced.clone() {
            let (maintenance, database) = (self.live.maintenance(), self.ctx.target.database());
            super::resume::unfence(self.ctx, maintenance, database, previous.as_deref()).await?;
            self.journal.record(Step::FenceEnded)?;
            self.fenced = None;
            self.ctx.progress.note("the fence is gone; others can write again");
        }
        Ok(())
    }

    /// Drops the scratch databases that the run's journal names and that are still there. The journal's word
    /// is a claim: one that is not this run's by its comment stays, with a warning.
    pub async fn sweep_scratch(&mut self) -> Result<()> {
        let began = self.journal.entries().iter().filter_map(|entry| match &entry.step {
            Step::ScratchBegan { name, .. } => Some(name.clone()),
            _ => None,
        });
        let names: Vec<String> = began.collect();
        if names.is_empty() {
            return Ok(());
        }
        if self.live.maintenance().is_closed() {
            self.live.reacquire(self.ctx).await?;
        }
        for name in names {
            let Some(found) = databases::find(self.live.maintenance(), &name).await? else { continue };
            let half_made = found.comment.is_none() && !found.allows_connections;
            if !half_made && !found.comment.as_deref().is_some_and(|comment| comment.contains(&self.id.to_string())) {
                self.ctx.progress.warn(format!("database `{name}` is not the one that this run made, and stays"));
                continue;
            }
            match databases::drop_scratch(self.live.maintenance(), &name, Some(found.oid)).await {
                Ok(()) => self.ctx.progress.note(format!("removed the scratch database `{name}`")),
                Err(error) if error.kind() == Kind::Refused => self.ctx.progress.warn(error.one_line()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The report of one of the run's migrations.
    pub fn report_mut(&mut self, version: &str) -> Option<&mut MigrationReport> {
        self.reports.iter_mut().find(|report| report.version == version)
    }

    /// PostgREST keeps the schema in mind: it is told to look again after whatever changed it, the way back included.
    async fn tell_postgrest(&self, report: &RunReport) {
        let changed = matches!(
            report.outcome,
            Outcome::Done
                | Outcome::RolledBack
                | Outcome::Restored
                | Outcome::StoppedPartway
                | Outcome::NotRecovered
                | Outcome::VerificationFailed
        );
        if !self.ctx.settings.postgrest_notify || !changed {
            return;
        }
        match supabase::reload_schema(&self.live.session).await {
            Ok(()) => self.ctx.progress.note("told PostgREST to read the schema again (NOTIFY pgrst)"),
            Err(error) => self.ctx.progress.warn(format!("PostgREST was not told to read the schema again: {error}")),
        }
    }

    /// Closes the run: rows, journal, lock. What cannot be written any more is a warning, since the
    /// outcome stands already.
    pub async fn close(mut self, mut report: RunReport) -> RunReport {
        self.heartbeat = None;
        if let Err(error) = self.unfence().await {
            report = still_fenced(report, error);
        }
        report.run_id = Some(self.id);
        report.batch = report.batch.or(self.row.batch);
        report.backup_id = report.backup_id.or(self.backup.as_ref().map(|backup| backup.id));
        report.migrations = std::mem::take(&mut self.reports);
        self.row.finished_at = Some(clock::now());
        self.row.outcome =
            serde_json::to_value(report.outcome).ok().and_then(|value| value.as_str().map(str::to_owned));
        self.row.exit_code = Some(i32::from(report.exit_code));
        self.row.database_state = Some(report.database.clone());
        self.row.error = report.error.as_deref().map(|text| (self.ctx.hide)(text));
        if self.live.session.is_closed()
            && let Err(error) = self.live.reconnect(self.ctx).await
        {
            self.ctx.progress.warn(format!("the run could not be recorded in the database: {error}"));
        }
        if !self.live.session.is_closed() {
            let detail = serde_json::json!({
                "outcome": self.row.outcome, "exit_code": report.exit_code, "database": report.database,
                "backup": report.backup_id, "error": self.row.error,
            });
            self.tell_postgrest(&report).await;
            let client = self.live.session.client();
            let recorded = async {
                if let Some(failed) = &self.unrecorded {
                    control::record_migration(client, failed).await?;
                }
                control::put_run(client, &self.row).await?;
                control::audit(client, Some(self.id), &format!("{} finished", self.row.command), &detail, None).await?;
                control::clear_lock(client, Some(self.id)).await
            };
            if let Err(error) = recorded.await {
                self.ctx.progress.warn(format!("the run could not be recorded in the database: {error}"));
            }
        }
        // A run that was not brought back stays open, and so does one that left something behind: `recover`
        // takes it up again.
        let swept = self.sweep_scratch().await;
        if let Err(error) = &swept {
            self.ctx.progress.warn(format!("a scratch database of the run is left: {error}"));
            report.hint = Some("ripcord recover".to_owned());
        }
        self.ctx.faults.at("closing").await;
        if report.outcome != Outcome::NotRecovered && swept.is_ok() && self.fenced.is_none() {
            let outcome = self.row.outcome.clone().unwrap_or_default();
            if let Err(error) = self.journal.record(Step::Closed { outcome, database: report.database.clone() }) {
                self.ctx.progress.warn(format!("the journal could not be closed: {error}"));
            }
        }
        let Live { guard, session, .. } = self.live;
        session.close().await;
        if let Err(error) = guard.release().await {
            self.ctx.progress.warn(format!("the lock could not be released in order: {error}"));
        }
        report
    }
}

/// Whatever the run did: as long as its fence is up, the application cannot write.
fn still_fenced(report: RunReport, error: Error) -> RunReport {
    let database = format!("{}; but others can only READ, the fence of the run is still up", report.database);
    let error = match &report.error {
        Some(first) => Error::failed(first.clone()).because(error.one_line()),
        None => error,
    };
    RunReport { outcome: Outcome::NotRecovered, exit_code: Outcome::NotRecovered.exit_code(), database, ..report }
        .failed(error.context("the fence could not be taken away"))
        .hint("ripcord recover")
}

pub(super) fn pending_report(migration: &Migration) -> MigrationReport {
    MigrationReport {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        status: "pending".to_owned(),
        reason: "pending".to_owned(),
        duration_ms: 0,
        error: None,
        beside: Vec::new(),
    }
}

/// A run whose journal is not closed.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Whose.
    pub lineage: Lineage,
    /// Which.
    pub run: RunId,
    /// What it wrote down.
    pub entries: Vec<Entry>,
}

impl Unfinished {
    /// The first step.
    pub fn opened(&self) -> Option<(&str, &str, u32, &str)> {
        match &self.entries.first()?.step {
            Step::Opened { command, database, database_oid, holder, .. } => {
                Some((command, database, *database_oid, holder))
            }
            _ => None,
        }
    }

    /// What it set out to do.
    pub fn intent(&self) -> Option<Intent> {
        match &self.entries.first()?.step {
            Step::Opened { settings, .. } => serde_json::from_value(settings.clone()).ok(),
            _ => None,
        }
    }

    /// The backups that it made or was asked to restore.
    pub fn backups(&self) -> Vec<BackupId> {
        let made = self.entries.iter().filter_map(|entry| match entry.step {
            Step::BackupComplete { backup, .. } | Step::ScratchBegan { backup, .. } | Step::InPlaceBegan { backup } => {
                Some(backup)
            }
            _ => None,
        });
        made.chain(self.intent().and_then(|intent| intent.backup)).collect()
    }
}

/// The unfinished runs of a lineage, oldest first. A journal that was altered is an error.
pub async fn unfinished(ctx: &Context, lineage: Lineage) -> Result<Vec<Unfinished>> {
    let store = ctx.store.clone();
    let key = ctx.keys()?.clone();
    let read = blocking(move || {
        let mut found = Vec::new();
        let readers = Readers::of(&store, &key, lineage)?;
        for run in store.runs(lineage)? {
            let entries = readers.read(run)?;
            if !entries.iter().any(|entry| matches!(entry.step, Step::Closed { .. })) && !entries.is_empty() {
                found.push(Unfinished { lineage, run, entries });
            }
        }
        Ok(found)
    })
    .await;
    if read.as_ref().is_err_and(|error| error.kind() == Kind::Refused) {
        // A wrong key is the likelier cause, and another thing to do.
        super::context::opens_newest(ctx, lineage).await?;
    }
    read
}

/// What a run wrote down, checked; empty when it has no journal here.
pub async fn journal_of(ctx: &Context, lineage: Lineage, run: RunId) -> Result<Vec<Entry>> {
    let store = ctx.store.clone();
    let keys = ctx.keys()?.clone();
    blocking(move || Readers::of(&store, &keys, lineage)?.read(run)).await
}

/// The backups that unfinished runs need, for retention. When a journal cannot be read, the error says
/// so, and nothing is to be pruned.
pub async fn needed_backups(ctx: &Context, lineage: Lineage) -> Result<BTreeMap<BackupId, RunId>> {
    let mut needed = BTreeMap::new();
    for run in unfinished(ctx, lineage).await? {
        for backup in run.backups() {
            needed.insert(backup, run.run);
        }
    }
    Ok(needed)
}
