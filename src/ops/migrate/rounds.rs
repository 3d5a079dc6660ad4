//! A statement that repeats in batches: each round in a short transaction of its own, journaled before it commits.

use std::time::{Duration, Instant};

use super::{limits, may_retry, pause, sleep, unless_cancelled};
use crate::error::{Error, Result};
use crate::journal::Step;
use crate::migration::batch::{Batch, Keyed, Rounds};
use crate::migration::{Migration, Script};
use crate::ops::run::Run;
use crate::postgres::{counts, execute, indexes, quote};

/// How often the rounds are told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Repeats the statement until it changes no row, or until the key's end.
pub(super) async fn run(run: &mut Run<'_>, migration: &Migration, number: usize) -> Result<()> {
    let script = &migration.up;
    let (Some(batch), Some(statement)) = (script.batches.get(&number), script.statements.get(number)) else {
        return Ok(());
    };
    let line = script.line(statement);
    let rounds = batch.rounds(script.text(statement)).map_err(|why| {
        Error::failed(format!(
            "migration `{}`, line {line}: the statement cannot repeat in batches",
            migration.file_name
        ))
        .because(why)
    })?;
    let mut told =
        Told { place: format!("`{}`, line {line}", migration.file_name), rows: 0, of: None, at: Instant::now() };
    match rounds {
        Rounds::Shrinking { sql, count, picks_from } => {
            if let Some(table) = picks_from {
                refuse_partitions(run, script, &table).await?;
            }
            shrinking(run, migration, number, batch, (&sql, &count), &mut told).await?;
        }
        Rounds::Keyed(keyed) => along_key(run, migration, number, batch, &keyed, &mut told).await?,
    }
    run.ctx.progress.note(format!("{}: {} rows changed in batches", told.place, told.rows));
    Ok(())
}

/// The progress of the rounds.
struct Told {
    place: String,
    rows: u64,
    of: Option<u64>,
    at: Instant,
}

impl Told {
    fn add(&mut self, run: &Run<'_>, rows: u64) {
        self.rows += rows;
        if self.at.elapsed() >= TELL_EVERY {
            self.at = Instant::now();
            let of = self.of.map(|of| format!(" of about {of}")).unwrap_or_default();
            run.ctx.progress.note(format!("{}: {}{of} rows changed", self.place, self.rows));
        }
    }
}

async fn shrinking(
    run: &mut Run<'_>,
    migration: &Migration,
    number: usize,
    batch: &Batch,
    (sql, count): (&str, &str),
    told: &mut Told,
) -> Result<()> {
    let found: u64 = number_of(run, &migration.up, count).await?;
    told.of = Some(found);
    // Others may add rows meanwhile, but not many times what there was.
    let most = found + found / 10 + batch.size.saturating_mul(10);
    loop {
        let rows = round(run, migration, number, sql, None).await?;
        if rows == 0 {
            return Ok(());
        }
        told.add(run, rows);
        if told.rows > most {
            return Err(Error::failed(format!("{}: the rounds would never end", told.place))
                .because(format!("{found} rows were to be changed, and {} were", told.rows))
                .hint("its WHERE must leave out what is done already, or give it a key: -- ripcord: batch key=id"));
        }
        between(run, batch).await?;
    }
}

async fn along_key(
    run: &mut Run<'_>,
    migration: &Migration,
    number: usize,
    batch: &Batch,
    keyed: &Keyed,
    told: &mut Told,
) -> Result<()> {
    let script = &migration.up;
    let (table, column) = (&keyed.table, &keyed.column);
    let key_type = type_of(run, script, keyed).await?;
    let typed = |value: &str| format!("{}::{key_type}", quote::literal(value));
    let mut after = match reached_before(run, migration, number).await? {
        Some(key) => key,
        None => first_bound(run, script, keyed, &key_type).await?,
    };
    let count = format!("SELECT count(*) FROM {table} WHERE {column} > {}", typed(&after));
    told.of = Some(number_of(run, script, &count).await?);
    loop {
        let from = typed(&after);
        let next = format!(
            "SELECT max(k)::text, count(*) FROM (SELECT {column} AS k FROM {table} WHERE {column} > {from} ORDER BY {column} LIMIT {}) AS s",
            batch.size
        );
        let mut next = row_of(run, script, &next).await?.into_iter();
        let Some(upto) = next.next().flatten() else { return Ok(()) };
        let held: u64 = next.next().flatten().and_then(|text| text.parse().ok()).unwrap_or(0);
        if let Some(limit) = keyed.limit {
            let range =
                format!("SELECT count(*) FROM {table} WHERE {column} > {from} AND {column} <= {}", typed(&upto));
            let held = number_of(run, script, &range).await?;
            if held > limit {
                return Err(Error::failed(format!(
                    "{}: {held} rows lie between `{after}` and `{upto}`, and its own LIMIT {limit} would leave some out",
                    told.place
                ))
                .hint("take the LIMIT out: the range of the key is the limit"));
            }
        }
        let rows = round(run, migration, number, &keyed.sql(&from, &typed(&upto)), Some(&upto)).await?;
        told.add(run, rows);
        // The end was reached: who adds rows all the time would be followed for ever.
        if held < batch.size {
            return Ok(());
        }
        after = upto;
        between(run, batch).await?;
    }
}

/// One round. Returns the rows that it changed; without a key, one that changed none leaves nothing behind.
async fn round(run: &mut Run<'_>, migration: &Migration, number: usize, sql: &str, key: Option<&str>) -> Result<u64> {
    let mut attempt = 1;
    loop {
        run.ctx.check_cancelled()?;
        let error = match round_once(run, migration, number, sql, key).await {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        if !may_retry(run.ctx, migration, &error, attempt) {
            return Err(error);
        }
        attempt += 1;
        pause(run.ctx, &error, attempt).await?;
    }
}

async fn round_once(
    run: &mut Run<'_>,
    migration: &Migration,
    number: usize,
    sql: &str,
    key: Option<&str>,
) -> Result<u64> {
    let limits = limits(run.ctx, migration);
    execute::begin(&run.live.session, &limits).await?;
    let ran = async {
        let xid = counts::own_xid(&run.live.session).await?;
        let mut rows = 0;
        let (session, file) = (&run.live.session, &migration.file_name);
        let sent = async {
            rows = execute::run_instead(session, &migration.up, number, sql, file, &limits).await?;
            Ok(())
        };
        unless_cancelled(run, sent).await?;
        if rows > 0 || key.is_some() {
            run.ours.xids.push(xid);
            let (version, key) = (migration.version.to_string(), key.map(str::to_owned));
            run.journal.record(Step::Round { version, statement: number, xid, rows, key })?;
        }
        Ok::<u64, Error>(rows)
    }
    .await;
    match ran {
        Ok(rows) if rows > 0 || key.is_some() => {
            run.ctx.faults.at("round_before_commit").await;
            execute::commit(&run.live.session).await?;
            run.ctx.faults.at("round_committed").await;
            Ok(rows)
        }
        ended => {
            let rolled_back = execute::rollback(&run.live.session).await;
            let rows = ended?;
            rolled_back.map(|()| rows)
        }
    }
}

async fn between(run: &Run<'_>, batch: &Batch) -> Result<()> {
    if batch.pause.is_zero() { Ok(()) } else { sleep(run.ctx, batch.pause).await }
}

/// The key up to which an earlier run came for certain.
async fn reached_before(run: &Run<'_>, migration: &Migration, number: usize) -> Result<Option<String>> {
    let found = run.resumptions.get(migration.version.as_str());
    // The statements after the one at which it stopped begin at their beginning.
    let Some(resumption) = found.filter(|found| found.statements == number) else { return Ok(None) };
    // Of several rounds the one before the last is committed: the last one began after it.
    let Some((last, xid)) = resumption.keys.last() else { return Ok(None) };
    let before = || resumption.keys.iter().rev().nth(1).map(|(key, _)| key.clone());
    match indexes::transaction_status(&run.live.session, *xid).await?.as_deref() {
        Some("committed") => Ok(Some(last.clone())),
        Some("aborted") => Ok(before()),
        _ => Err(Error::failed(format!("whether the last batch, up to the key `{last}`, was committed is not known"))
            .because("its transaction is so old that the server has forgotten it")
            .hint(format!(
                "look whether its rows are there; to begin at the first statement: ripcord apply --file {} --again",
                migration.file_name
            ))),
    }
}

/// The key's type, as SQL writes it.
async fn type_of(run: &Run<'_>, script: &Script, keyed: &Keyed) -> Result<String> {
    let (table, column) = (&keyed.table, &keyed.column);
    let sql = format!("SELECT pg_typeof(k)::text FROM (SELECT {column} AS k FROM {table} LIMIT 1) AS s");
    let holes = format!("SELECT count(*) FROM {table} WHERE {column} IS NULL");
    if number_of(run, script, &holes).await? > 0 {
        return Err(Error::failed(format!("`{column}` of `{table}` is null in some rows, which no range would hold")));
    }
    // An empty table has no round, whatever its type.
    Ok(value_of(run, script, &sql).await?.unwrap_or_else(|| "text".to_owned()))
}

/// A value below every key.
async fn first_bound(run: &Run<'_>, script: &Script, keyed: &Keyed, key_type: &str) -> Result<String> {
    let (table, column) = (&keyed.table, &keyed.column);
    let bound = match key_type {
        "smallint" | "integer" | "bigint" => {
            let lowest = format!("SELECT (min({column})::numeric - 1)::text FROM {table}");
            value_of(run, script, &lowest).await?.unwrap_or_else(|| "0".to_owned())
        }
        "uuid" => "00000000-0000-0000-0000-000000000000".to_owned(),
        "date"
        | "timestamp without time zone"
        | "timestamp with time zone"
        | "real"
        | "double precision"
        | "numeric" => "-infinity".to_owned(),
        "text" | "character varying" | "character" => String::new(),
        other => {
            return Err(Error::failed(format!("a key of type `{other}` cannot be walked along"))
                .hint("use a key of numbers, texts, uuids or times"));
        }
    };
    let below = format!("SELECT count(*) FROM {table} WHERE {column} <= {}::{key_type}", quote::literal(&bound));
    if number_of(run, script, &below).await? > 0 {
        return Err(Error::failed(format!("`{column}` of `{table}` holds `{bound}`, below which there is no key")));
    }
    Ok(bound)
}

/// A row's place is told by one table alone.
async fn refuse_partitions(run: &Run<'_>, script: &Script, table: &str) -> Result<()> {
    let bare = table.strip_prefix("ONLY ").or(table.strip_prefix("only ")).unwrap_or(table);
    if bare != table {
        return Ok(());
    }
    let bound = script.variables.bind(bare);
    let sql = format!(
        "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})",
        quote::literal(&bound.sql)
    );
    if number_of(run, script, &sql).await? == 0 {
        return Ok(());
    }
    Err(Error::failed(format!("`{bare}` has partitions, whose rows cannot be picked by their place"))
        .hint("walk along a key instead: -- ripcord: batch key=id"))
}

async fn number_of(run: &Run<'_>, script: &Script, sql: &str) -> Result<u64> {
    Ok(value_of(run, script, sql).await?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The first value of a query about the statement's tables, whose names are as the author wrote them.
async fn value_of(run: &Run<'_>, script: &Script, sql: &str) -> Result<Option<String>> {
    Ok(row_of(run, script, sql).await?.into_iter().next().flatten())
}

/// The first row, likewise.
async fn row_of(run: &Run<'_>, script: &Script, sql: &str) -> Result<Vec<Option<String>>> {
    let bound = script.variables.bind(sql);
    let rows = run.live.session.rows(&bound.sql).await.map_err(|error| {
        error.map_texts(|text| script.variables.hide(text)).context("what the batches are about could not be read")
    })?;
    Ok(rows.into_iter().next().unwrap_or_default())
}
