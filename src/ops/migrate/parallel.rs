//! Migrations beside each other: each on a session and in a transaction of its own, while the run stays one.
//!
//! Whoever has something to write down holds the run while doing so. A migration holds it from the row that records
//! it until its COMMIT was answered: rows, journal and commits have one and the same order, and the DOWNs of the
//! ladder and of `recover` go in its reverse.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, watch};

use super::destroying;
use super::transaction::declared_tables;
use super::{applied_row, limits, may_retry, pause, record_failure, tell_finished};
use crate::control;
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::migration::Migration;
use crate::migration::lanes::Lanes;
use crate::ops::beside::millis;
use crate::ops::context::{Context, stopped};
use crate::ops::resume::end_stale_sessions;
use crate::ops::run::Run;
use crate::postgres::{Session, counts, execute};
use crate::progress::Event;

/// Applies those of `migrations` at the positions of `part`, up to `most` at once, each after those that `lanes`
/// names. After the first failure none begins, and those that are not committed are stopped.
pub async fn up_beside(
    run: &mut Run<'_>,
    migrations: &[Migration],
    part: Range<usize>,
    lanes: &Lanes,
    batch: i32,
    most: usize,
) -> Result<()> {
    let ctx = run.ctx;
    let (failed, stop) = watch::channel(false);
    let mut waiting: Vec<(usize, &Migration)> = part.clone().filter_map(|at| Some((at, migrations.get(at)?))).collect();
    let mut applied: BTreeSet<usize> = (0..part.start).collect();
    let mut idle: Vec<Session> = Vec::new();
    let mut first: Option<Error> = None;
    let mut lost = false;
    {
        let shared = Mutex::new(&mut *run);
        let mut running = FuturesUnordered::new();
        loop {
            while first.is_none() && running.len() < most {
                let free = |(at, _): &(usize, &Migration)| lanes.before(*at).iter().all(|one| applied.contains(one));
                let Some(next) = waiting.iter().position(free) else { break };
                let (at, migration) = waiting.remove(next);
                ctx.progress.tell(Event::MigrationBegan {
                    version: migration.version.to_string(),
                    name: migration.name.clone(),
                    direction: "up",
                });
                let lane = Lane { shared: &shared, ctx, migration, batch, stop: stop.clone() };
                running.push(lane.run(at, idle.pop()));
            }
            let Some(ended) = running.next().await else { break };
            match ended.result {
                Ok(()) => {
                    applied.insert(ended.at);
                    idle.extend(ended.session);
                }
                Err(End::Stopped) => {}
                Err(End::Failed(error)) => {
                    lost |= error.connection_lost();
                    failed.send_replace(true);
                    match &first {
                        None => first = Some(error),
                        Some(_) => ctx.progress.warn(format!("another one failed too: {}", error.one_line())),
                    }
                }
            }
        }
    }
    for session in idle {
        session.close().await;
    }
    let Some(error) = first else { return Ok(()) };
    if lost && let Err(left) = end_stale_sessions(ctx, &run.live).await {
        ctx.progress.note(format!("what the lost session did may go on: {}", left.one_line()));
    }
    Err(error)
}

/// Why one was not applied.
enum End {
    /// It failed.
    Failed(Error),
    /// Another one failed, and this one was stopped.
    Stopped,
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Failed(error)
    }
}

/// How one ended, with its session where that can be used again.
struct Ended {
    at: usize,
    session: Option<Session>,
    result: Result<(), End>,
}

/// One migration beside others.
struct Lane<'l, 'r, 'c> {
    shared: &'l Mutex<&'r mut Run<'c>>,
    ctx: &'c Context,
    migration: &'l Migration,
    batch: i32,
    /// Becomes true when another one failed.
    stop: watch::Receiver<bool>,
}

impl Lane<'_, '_, '_> {
    async fn run(self, at: usize, session: Option<Session>) -> Ended {
        let began = Instant::now();
        let connected = match session {
            Some(session) => Ok(session),
            None => self.ctx.connect("run").await,
        };
        let (session, result) = match connected {
            Ok(session) => {
                let result = self.until_committed(&session, began).await;
                (Some(session), result)
            }
            Err(error) => (None, Err(End::Failed(error))),
        };
        if let Err(end) = &result {
            self.fail(end, millis(began.elapsed())).await;
        }
        Ended { at, session: session.filter(|_| result.is_ok()), result }
    }

    /// The failed attempt stays as a row; one that was only stopped did nothing that would have to be known.
    async fn fail(&self, end: &End, duration_ms: u64) {
        let mut run = self.shared.lock().await;
        let (status, why) = match end {
            End::Failed(error) => ("failed", error.one_line()),
            End::Stopped => ("rolled_back", "stopped, because another one failed".to_owned()),
        };
        if let Some(report) = run.report_mut(self.migration.version.as_str()) {
            report.duration_ms = duration_ms;
            report.status = status.to_owned();
            report.error = Some(why);
        }
        match end {
            End::Failed(error) => record_failure(&mut run, self.migration, self.batch, duration_ms, error).await,
            End::Stopped => {
                self.ctx.progress.note(format!("`{}` was stopped and rolled back", self.migration.file_name));
            }
        }
    }

    /// Tries the transaction again as long as that can help.
    async fn until_committed(&self, session: &Session, began: Instant) -> Result<(), End> {
        let mut attempt = 1;
        loop {
            self.ctx.check_cancelled()?;
            let error = match self.attempt(session, began).await {
                Err(End::Failed(error)) => error,
                ended => return ended,
            };
            if !may_retry(self.ctx, self.migration, &error, attempt) {
                return Err(End::Failed(error));
            }
            attempt += 1;
            pause(self.ctx, &error, attempt).await?;
        }
    }

    async fn attempt(&self, session: &Session, began: Instant) -> Result<(), End> {
        execute::begin(session, &limits(self.ctx, self.migration)).await?;
        let mut counted = destroying::Counted::new();
        let ran = match self.up_to_the_row(session, &mut counted).await {
            Ok((xid, touched)) => self.commit(session, xid, touched, began).await,
            Err(end) => Err(end),
        };
        let Err(end) = ran else {
            // The session goes on to the next one as it was.
            return execute::reset(session).await.map_err(End::from);
        };
        // The first failure is the one to tell. A lost connection has rolled back by itself.
        let _ = execute::rollback(session).await;
        // What was counted holds no longer: the tables stand again, and others write to them.
        let mut run = self.shared.lock().await;
        for (table, _) in &counted {
            run.ours.counted_before.remove(table);
        }
        Err(end)
    }

    /// Everything that can wait for somebody else's lock; nobody waits for us meanwhile.
    async fn up_to_the_row(
        &self,
        session: &Session,
        counted: &mut destroying::Counted,
    ) -> Result<(u64, Vec<String>), End> {
        let migration = self.migration;
        self.count(session, counted).await?;
        let limits = limits(self.ctx, migration);
        let work = async {
            execute::run_in_transaction(session, &migration.up, &migration.file_name, &limits).await?;
            // What is put off until the COMMIT is done now: a COMMIT must not wait for a lock that one beside it
            // holds, which waits for its turn to commit.
            // language=SQL
            session.batch("RESET SESSION AUTHORIZATION; RESET ROLE; SET CONSTRAINTS ALL IMMEDIATE").await
        };
        let mut work = pin!(work);
        let mut failed = self.stop.clone();
        let stop = tokio::select! {
            done = &mut work => done.map(|()| None)?,
            () = self.ctx.cancelled() => Some(End::Failed(stopped())),
            Ok(_) = failed.wait_for(|failed| *failed) => Some(End::Stopped),
        };
        if let Some(end) = stop {
            let _ = session.stop(work).await?;
            return Err(end);
        }
        let (xid, mut touched) = counts::own_and_touched(session).await?;
        touched.extend(declared_tables(migration));
        Ok((xid, touched))
    }

    /// As [`destroying::count_before_destroying`]. One beside may commit between the look at what is ours and the
    /// lock; then it is counted again.
    async fn count(&self, session: &Session, counted: &mut destroying::Counted) -> Result<()> {
        loop {
            let (backup, ours) = {
                let run = self.shared.lock().await;
                let Some(backup) = run.backup.clone() else { return Ok(()) };
                (backup, run.ours.clone())
            };
            let up = &self.migration.up;
            let found = destroying::count(session, &backup, &ours, up, &up.statements).await?;
            if found.is_empty() {
                return Ok(());
            }
            let mut run = self.shared.lock().await;
            if run.ours.xids.len() == ours.xids.len() {
                counted.clone_from(&found);
                return destroying::keep(&mut run, found);
            }
        }
    }

    /// The row, the journal, the COMMIT: one migration at a time.
    async fn commit(&self, session: &Session, xid: u64, touched: Vec<String>, began: Instant) -> Result<(), End> {
        let mut run = self.shared.lock().await;
        if *self.stop.borrow() {
            return Err(End::Stopped);
        }
        self.ctx.check_cancelled()?;
        let migration = self.migration;
        let row = applied_row(&run, migration, self.batch, began);
        control::record_migration(session.client(), &row).await?;
        run.ours.xids.push(xid);
        if let Some(all) = &mut run.ours.touched {
            all.extend(touched.iter().cloned());
        }
        let (version, name) = (migration.version.to_string(), migration.name.clone());
        run.journal.record(Step::UpCommits { version, name, xid, touched })?;
        self.ctx.faults.at("beside_before_commit").await;
        execute::commit(session).await?;
        self.ctx.faults.at("beside_committed").await;
        let duration_ms = millis(began.elapsed());
        if let Some(report) = run.report_mut(migration.version.as_str()) {
            report.duration_ms = duration_ms;
            report.status = "applied".to_owned();
        }
        tell_finished(self.ctx, migration, duration_ms);
        Ok(())
    }
}
