//! `analyze`: what one migration would do, told before anybody runs it. Nothing is changed, and nothing is guessed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::apply::{applied_of, here};
use super::beside::millis;
use super::context::Context;
use super::{adopt, backup, judge, masters, proof};
use crate::clock::Time;
use crate::control::{self, MigrationRow};
use crate::error::{Error, Result};
use crate::migration::lint::{self, Finding, Policy};
use crate::migration::locks::{On, Touch, Work, touches};
use crate::migration::plan::{self, Selection, was_applied};
use crate::migration::source::Folder;
use crate::migration::{Additive, Applied, Migration, Script, additive_run, destroys};
use crate::postgres::checks::{self, Surroundings, TableSize};
use crate::postgres::{Session, observe};
use crate::settings::Settings;

/// What is known of a migration.
#[derive(Clone, Debug, Serialize)]
pub struct Analyzed {
    /// Version.
    pub version: String,
    /// Name.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// `pending`, `applied`, `changed after it was applied`, …
    pub state: String,
    /// Why the database was not asked; `None`: it was.
    pub not_asked: Option<String>,
    /// Every time that it ran, the oldest first.
    pub ran: Vec<Ran>,
    /// `estimatedDuration` of its metadata.
    pub estimated_ms: Option<u64>,
    /// Why it runs statement by statement; `None`: in one transaction.
    pub no_transaction: Option<String>,
    /// What the file says of how it runs, and the timeouts that hold.
    pub settings: Vec<String>,
    /// Its statements, in order.
    pub statements: Vec<OfStatement>,
    /// The tables that it locks and that are there.
    pub tables: Vec<OfTable>,
    /// What stands against it.
    pub findings: Vec<Finding>,
    /// What brings the database back when it, or the run after it, fails.
    pub way_back: WayBack,
    /// The command that measures it.
    pub hint: Option<&'static str>,
}

/// One time that it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Ran {
    /// When.
    pub at: Time,
    /// What became of it: `applied`, `failed`, `rolled_back`, …
    pub state: String,
    /// How long it took, as it was measured then; `None`: it was only recorded.
    pub duration_ms: Option<i64>,
    /// What went wrong.
    pub error: Option<String>,
}

/// One statement.
#[derive(Clone, Debug, Serialize)]
pub struct OfStatement {
    /// Its line in the file.
    pub line: u32,
    /// How it begins.
    pub statement: String,
    /// The strongest lock on each table. Partitions and children are locked with their table.
    pub locks: Vec<OfLock>,
    /// What else it may lock, which its text does not tell.
    pub not_known: Vec<String>,
    /// What it destroys.
    pub destroys: Option<String>,
    /// Rows a round, where it repeats in batches.
    pub batch: Option<u64>,
}

/// One lock.
#[derive(Clone, Debug, Serialize)]
pub struct OfLock {
    /// The table, as the statement names it; where it names an index, that index's table, when it is known.
    pub table: String,
    /// As `pg_locks` names it.
    pub mode: String,
    /// Whom it keeps out.
    pub keeps_out: &'static str,
    /// `untouched`, `by plan`, `read`, `written anew`, `emptied`, or the condition on which it depends.
    pub rows: &'static str,
    /// The migration makes the table itself: nobody waits for it.
    pub made_here: bool,
}

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct OfTable {
    /// As the statements name it.
    pub table: String,
    /// As the planner estimates them.
    pub rows: u64,
    /// With indexes and TOAST, partitions included.
    pub bytes: u64,
    /// Partitions and children, which are locked with it.
    pub below: u64,
}

/// What brings the database back.
#[derive(Clone, Debug, Serialize)]
pub struct WayBack {
    /// `down` or `backup`.
    pub by: &'static str,
    /// How that is proved, or why DOWN does not count.
    pub why: String,
}

impl Analyzed {
    /// The lines for people, the findings left out.
    pub fn tell(&self) -> Vec<String> {
        let mut lines = vec![format!("`{}`: {}", self.file, self.state)];
        for ran in &self.ran {
            let took = ran.duration_ms.map_or_else(String::new, |took| format!(", {took} ms"));
            let error = ran.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
            lines.push(format!("  {} {}{took}{error}", ran.at.format("%Y-%m-%d %H:%M:%S UTC"), ran.state));
        }
        lines.extend(self.estimated_ms.map(|estimated| format!("  its author expects {estimated} ms")));
        lines.push(match &self.no_transaction {
            None => "  in one transaction: each lock is held until its end".to_owned(),
            Some(why) => format!("  statement by statement, each committed by itself: {why}"),
        });
        lines.extend(self.settings.iter().map(|one| format!("  {one}")));
        for statement in &self.statements {
            lines.push(format!("line {}: {}", statement.line, statement.statement));
            lines.extend(statement.batch.map(|rows| format!("  in rounds of {rows} rows, each committed by itself")));
            lines.extend(statement.destroys.iter().map(|what| format!("  DESTROYS: it {what}")));
            lines.extend(statement.locks.iter().filter(|lock| !lock.made_here).map(|lock| self.tell_lock(lock)));
            if statement.locks.iter().all(|lock| lock.made_here) && statement.not_known.is_empty() {
                lines.push("  locks no table that is there".to_owned());
            }
            lines.extend(statement.not_known.iter().map(|what| format!("  not known: {what}")));
        }
        let by = if self.way_back.by == "down" { "DOWN" } else { "the backup alone" };
        lines.push(format!("the way back: {by}, {}", self.way_back.why));
        lines
    }

    fn tell_lock(&self, lock: &OfLock) -> String {
        let table = self.tables.iter().find(|table| table.table == lock.table);
        let size = match (table, &self.not_asked) {
            (Some(table), _) => {
                let below = match table.below {
                    0 => String::new(),
                    below => format!(", with {below} partitions or children"),
                };
                format!(" (about {} rows in {}{below})", table.rows, backup::bytes(table.bytes))
            }
            (None, None) => " (not there yet)".to_owned(),
            (None, Some(_)) => String::new(),
        };
        let rows = match lock.rows {
            "untouched" | "by plan" => String::new(),
            "read" => "; reads all its rows".to_owned(),
            "written anew" => "; writes the table anew, with its indexes".to_owned(),
            "emptied" => "; its rows go".to_owned(),
            depends => format!("; rows: {depends}"),
        };
        format!("  {} on `{}`{size}: keeps out {}{rows}", lock.mode, lock.table, lock.keeps_out)
    }
}

/// Analyzes the migration that `wanted` names.
///
/// The text alone tells most of it, and it is asked for before a deploy, often where the database cannot be reached:
/// so an answer without the database is given, and says what is missing. `ctx` is an error where not even its address
/// is known. What goes wrong once the database has answered is an error.
pub async fn analyze(ctx: Result<&Context>, settings: &Settings, folder: &Folder, wanted: &str) -> Result<Analyzed> {
    let all: Vec<&Migration> = folder.migrations.iter().collect();
    let Some(migration) = all.get(plan::find(&all, wanted)?) else {
        return Err(Error::usage(format!("no migration is called `{wanted}`")).hint("ripcord status"));
    };
    let policy = Policy::new(settings.environment.protected, &settings.lint);
    let one = std::slice::from_ref(*migration);
    let mut analyzed = of_text(migration, settings);
    analyzed.findings = lint::judge(&folder.migrations, one, &policy);

    let asked = async {
        let ctx = ctx?;
        let session = Session::connect(&ctx.target, "analyze", settings.timeouts.connect).await?;
        Ok::<_, Error>((ctx, session))
    };
    let (ctx, session) = match asked.await {
        Ok(asked) => asked,
        Err(why) => {
            analyzed.not_asked = Some(why.one_line());
            return Ok(analyzed);
        }
    };
    read_history(ctx, &session, folder, migration, &mut analyzed).await?;
    look_around(&session, migration, &mut analyzed).await?;
    // What is applied has done its work already: what the database is now says nothing of what it was.
    if analyzed.ran.iter().all(|ran| ran.state != "applied") {
        let large = settings.lint.large_table_rows;
        judge::weigh(&session, one, &policy, large, &mut analyzed.findings).await?;
    }
    if analyzed.way_back.by == "down" {
        let down: Vec<&Script> = migration.down.iter().collect();
        analyzed.way_back = proved(proof::only_adds(&session, &[&migration.up], &down).await?);
    }
    session.close().await;
    Ok(analyzed)
}

/// What the file tells.
fn of_text(migration: &Migration, settings: &Settings) -> Analyzed {
    let script = &migration.up;
    let mut made: Vec<String> = Vec::new();
    let mut statements = Vec::new();
    for (number, statement) in script.statements.iter().enumerate() {
        let mut touch = touches(script, statement);
        // A table of its own has no triggers but those that the file gives it.
        touch.fires &= !touch.held.iter().all(|held| made.contains(&held.name));
        let batch = script.batches.get(&number);
        statements.push(OfStatement {
            line: script.line(statement),
            statement: crate::migration::opening(script.text(statement)),
            locks: touch.held.iter().map(|held| lock(held, &made)).collect(),
            not_known: not_known(&touch, None),
            destroys: statement.effect.destroys_data.clone(),
            batch: batch.map(|batch| batch.size),
        });
        if let Additive::Creates(objects) = &statement.effect.additive
            && !statement.effect.if_not_exists
        {
            made.extend(objects.split(", ").filter_map(|object| object.strip_prefix("table ")).map(str::to_owned));
        }
    }
    let repeats = !script.batches.is_empty();
    Analyzed {
        version: migration.version.to_string(),
        name: migration.name.clone(),
        file: migration.file_name.clone(),
        state: "not known whether it is applied".to_owned(),
        not_asked: None,
        ran: Vec::new(),
        estimated_ms: migration.metadata.estimated_duration.map(millis),
        no_transaction: script.no_transaction.clone(),
        settings: in_effect(migration, settings),
        statements,
        tables: Vec::new(),
        findings: Vec::new(),
        way_back: way_back(migration),
        hint: Some(if repeats {
            "measure it on a copy: ripcord restore latest --into NAME, and apply it there"
        } else {
            "measure it on a copy: ripcord rehearse"
        }),
    }
}

fn lock(held: &crate::migration::locks::Held, made: &[String]) -> OfLock {
    let mode = held.mode.name();
    OfLock {
        table: match held.on {
            On::Itself => held.name.clone(),
            On::TableOfIndex => format!("the table of index {}", held.name),
        },
        keeps_out: observe::blocks(&mode),
        mode,
        rows: match held.work {
            Work::Untouched => "untouched",
            Work::Query => "by plan",
            Work::Scanned => "read",
            Work::Depends(why) => why,
            Work::Emptied => "emptied",
            Work::Rewritten => "written anew",
        },
        made_here: held.on == On::Itself && made.contains(&held.name),
    }
}

/// What the text does not tell; of triggers and foreign keys the catalog knows more, where it was asked.
fn not_known(touch: &Touch, around: Option<&BTreeMap<String, Surroundings>>) -> Vec<String> {
    let mut told = touch.not_known.clone();
    let Some(around) = around else {
        if touch.fires {
            told.push("what its triggers lock, where there are any".to_owned());
        }
        if touch.ties {
            told.push("the tables that its foreign keys refer to, which are locked as strongly".to_owned());
        }
        return told;
    };
    for held in
        touch.held.iter().filter(|held| touch.fires && held.mode >= crate::migration::locks::Mode::RowExclusiveLock)
    {
        for trigger in around.get(&held.name).map(|one| one.triggers.as_slice()).unwrap_or_default() {
            told.push(format!("what the trigger `{trigger}` of `{}` does and locks", held.name));
        }
    }
    told
}

/// The timeouts that hold, and what the file says of how it runs.
fn in_effect(migration: &Migration, settings: &Settings) -> Vec<String> {
    let (said, timeouts) = (&migration.metadata, &settings.timeouts);
    let limit = |name: &str, own: Option<Duration>, configured: Duration| match own {
        Some(own) => format!("{name}: {own:?}, as the file says"),
        None => format!("{name}: {configured:?}"),
    };
    let mut lines = vec![
        limit("waits for a lock at most", said.lock_timeout, timeouts.lock),
        limit("a statement may take", said.statement_timeout, timeouts.statement),
        limit("all of it may take", None, timeouts.migration),
    ];
    let list = |name: &str, values: &[String]| (!values.is_empty()).then(|| format!("{name}: {}", values.join(", ")));
    lines.extend(said.retry.map(|attempts| format!("tried {attempts} times where a lock stands in its way")));
    lines.extend(list("only in", &said.environments));
    lines.extend(list("depends on", &said.dependencies));
    lines.extend(said.allow.iter().map(|(rule, reason)| format!("allows `{rule}`: {reason}")));
    lines.extend(said.risk.as_ref().map(|risk| format!("its author calls the risk {risk}")));
    if said.requires_downtime {
        lines.push("its author asks for a downtime".to_owned());
    }
    lines
}

/// What brings it back, by its text.
fn way_back(migration: &Migration) -> WayBack {
    let backup = |why: String| WayBack { by: "backup", why };
    if let Some(what) = destroys(&[&migration.up]) {
        return backup(format!("for no DOWN brings back what it destroys: {what}"));
    }
    if migration.metadata.rollback_strategy.as_deref() == Some("restore") {
        return backup("as the file asks (`rollbackStrategy`)".to_owned());
    }
    match migration.down.as_ref().filter(|down| !down.is_empty()) {
        Some(down) => proved(additive_run(&[&migration.up], &[down])),
        None => backup("for there is no DOWN".to_owned()),
    }
}

fn proved(additive: std::result::Result<(), String>) -> WayBack {
    let why = match additive {
        Ok(()) => "proved by the schema alone: it only adds, and its DOWN takes that away".to_owned(),
        Err(why) => format!("proved by the digests of the rows, when nobody else wrote meanwhile: {why}"),
    };
    WayBack { by: "down", why }
}

/// Whether it is applied, and how long it took each time.
async fn read_history(
    ctx: &Context,
    session: &Session,
    folder: &Folder,
    migration: &Migration,
    analyzed: &mut Analyzed,
) -> Result<()> {
    let rows = match control::inspect(session.client()).await? {
        control::State::Present { .. } => control::migrations(session.client()).await?,
        control::State::Absent => Vec::new(),
    };
    let in_effect = |row: &&MigrationRow| matches!(row.state.as_str(), "applied" | "baseline");
    let applied: Vec<Applied> = rows.iter().filter(in_effect).cloned().map(applied_of).collect();
    let own = |row: &&MigrationRow| was_applied(migration, &[applied_of((*row).clone())]);
    for row in rows.iter().filter(own) {
        // A restore that put a row in effect again copied it: it ran once all the same.
        analyzed.ran.retain(|ran| ran.at != row.applied_at);
        analyzed.ran.push(Ran {
            at: row.applied_at,
            state: row.state.clone(),
            duration_ms: (row.state != "baseline").then_some(row.execution_time_ms),
            error: row.error.clone(),
        });
    }
    let selection = here(ctx, &Selection::default());
    let mut planned = plan::plan(&folder.migrations, &applied, &selection, ctx.settings.on_changed);
    masters::settle(ctx, session, &mut planned, &applied).await?;
    let pending = planned.pending.iter().find(|pending| pending.migration.file_name == migration.file_name);
    let others = adopt::unadopted(ctx, session).await?;
    let record = applied.iter().find(|one| was_applied(migration, std::slice::from_ref(*one)));
    analyzed.state = match (record, pending) {
        (None, _) if applied.is_empty() && !others.is_empty() => {
            "not known whether it is applied: another tool's history was not adopted (ripcord adopt --dry-run)"
                .to_owned()
        }
        (None, Some(_)) if analyzed.ran.last().is_some_and(|ran| ran.state == "failed") => {
            "pending, and failed before".to_owned()
        }
        (None, Some(pending)) => pending.reason.clone(),
        (None, None) => {
            let named = format!("`{}`", migration.file_name);
            let why = planned.errors.iter().map(Error::one_line).chain(planned.notes.iter().cloned());
            why.into_iter().find(|line| line.contains(&named)).unwrap_or_else(|| "not pending".to_owned())
        }
        (Some(record), _) if record.checksum == migration.checksum => "applied".to_owned(),
        (Some(record), _) if record.loose_checksum.as_ref() == Some(&migration.loose_checksum) => {
            "applied; only comments or white space were changed since".to_owned()
        }
        (Some(_), Some(_)) => "changed after it was applied, and would run again".to_owned(),
        (Some(_), None) => "changed after it was applied".to_owned(),
    };
    if analyzed.state.starts_with("applied") {
        analyzed.hint = None;
    }
    Ok(())
}

/// What the catalog knows of the tables that it locks: sizes, partitions, triggers, foreign keys.
async fn look_around(session: &Session, migration: &Migration, analyzed: &mut Analyzed) -> Result<()> {
    let script = &migration.up;
    let all: Vec<Touch> = script.statements.iter().map(|statement| touches(script, statement)).collect();
    let mut names: Vec<String> = all.iter().flat_map(|touch| &touch.held).map(|held| held.name.clone()).collect();
    names.sort();
    names.dedup();
    let around = checks::surroundings(session, &names).await?;
    for (touch, statement) in all.iter().zip(&mut analyzed.statements) {
        statement.not_known = not_known(touch, Some(&around));
        for (held, lock) in touch.held.iter().zip(&mut statement.locks) {
            if held.on == On::TableOfIndex
                && let Some(of) = around.get(&held.name)
            {
                lock.table = of.table.clone();
            }
        }
        for held in touch.held.iter().filter(|_| touch.ties) {
            for table in around.get(&held.name).map(|one| one.refers_to.as_slice()).unwrap_or_default() {
                let tied = crate::migration::locks::Held { name: table.clone(), work: Work::Untouched, ..held.clone() };
                statement.locks.push(lock(&tied, &[]));
            }
        }
    }
    let mut locked: Vec<String> =
        analyzed.statements.iter().flat_map(|one| &one.locks).map(|lock| lock.table.clone()).collect();
    locked.sort();
    locked.dedup();
    // The words for an index that is not there yet are no name.
    locked.retain(|table| !table.starts_with("the table of index "));
    let sizes: BTreeMap<String, TableSize> = checks::table_sizes(session, &locked).await?;
    analyzed.tables = sizes
        .into_iter()
        .map(|(table, size)| {
            let below = around.values().find(|one| one.table == table).or_else(|| around.get(&table));
            OfTable { rows: size.rows, bytes: size.bytes, below: below.map_or(0, |one| one.below), table }
        })
        .collect();
    Ok(())
}
