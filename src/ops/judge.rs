//! Judging migrations with the live database beside: its parser, the size of its tables, what it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::context::Context;
use crate::control;
use crate::error::Result;
use crate::migration::lint::rules::{self, Group};
use crate::migration::lint::{self, Finding, Policy, Severity};
use crate::migration::source::Folder;
use crate::migration::{self, Migration, Version};
use crate::postgres::checks::{self, TableSize};
use crate::postgres::{Session, databases};

/// Judges what is pending of a folder, and the live database itself.
pub async fn online(ctx: &Context, folder: &Folder, policy: &Policy) -> Result<Vec<Finding>> {
    let session = ctx.connect("validate").await?;
    let pending = pending(&session, folder).await?;
    let mut findings = lint::judge(&folder.migrations, &pending, policy);
    findings.extend(lint::misnamed(folder, policy));
    weigh(&session, &pending, policy, ctx.settings.lint.large_table_rows, &mut findings).await?;
    findings.extend(live_schema(&session, ctx.target.database(), policy).await?);
    session.close().await;
    Ok(findings)
}

/// Mends what can be mended mechanically in files that are not applied, and says what. Nobody may change a file
/// that is applied, so a database that does not answer is an error.
pub async fn mend(ctx: &Context, folder: &Folder, policy: &Policy) -> Result<Vec<String>> {
    let session = ctx.connect("validate").await?;
    let pending = pending(&session, folder).await?;
    session.close().await;
    let mut told = Vec::new();
    for migration in &pending {
        told.extend(lint::mend(migration, policy)?);
    }
    Ok(told)
}

/// The migrations whose version is not applied.
async fn pending(session: &Session, folder: &Folder) -> Result<Vec<Migration>> {
    let applied: BTreeSet<Version> = match control::inspect(session.client()).await? {
        control::State::Present { .. } => {
            control::applied(session.client()).await?.into_iter().map(|row| Version(row.version)).collect()
        }
        control::State::Absent => BTreeSet::new(),
    };
    Ok(folder.migrations.iter().filter(|migration| !applied.contains(&migration.version)).cloned().collect())
}

/// Weighs the findings of migrations that are pending by what the live database is: the server's own parser has the
/// last word on syntax, a lock on a table that is small or not there yet is only a note, and statements that work
/// through a large table are added (`large-table`). Large is what has `large_rows` rows or more.
pub async fn weigh(
    session: &Session,
    migrations: &[Migration],
    policy: &Policy,
    large_rows: u64,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    doubt_syntax(session, migrations, findings).await?;
    spare_new_tables(session, migrations, findings).await?;
    let swept = lint::sweeps(migrations, policy);
    let mut names: Vec<String> = findings.iter().chain(&swept).filter_map(|finding| finding.table.clone()).collect();
    names.sort();
    names.dedup();
    let sizes = checks::table_sizes(session, &names).await?;
    for finding in findings.iter_mut().filter(|finding| depends_on_size(finding)) {
        soften(finding, &sizes, large_rows);
    }
    for mut finding in swept {
        let size = finding.table.as_ref().and_then(|table| sizes.get(table));
        if let Some(size) = size.filter(|size| size.rows >= large_rows) {
            finding.message.push_str(&format!(", which has {}", describe(size)));
            findings.push(finding);
        }
    }
    Ok(())
}

/// What destroys only in tables that are not there destroys nothing that is there: a note. A table that the same
/// run gives such a name by renaming is there. Where nobody has made anything yet, there is none to rename, and
/// nothing that hangs on what is dropped.
async fn spare_new_tables(session: &Session, migrations: &[Migration], findings: &mut [Finding]) -> Result<()> {
    let empty = databases::is_empty(session, &[]).await?;
    let statements = migrations.iter().flat_map(|one| one.up.statements.iter().map(|statement| one.up.text(statement)));
    let renamed = match empty {
        true => Vec::new(),
        false => match statements.map(migration::renamed_to).collect::<Option<Vec<_>>>() {
            Some(renamed) => renamed,
            None => return Ok(()),
        },
    };
    let mut found: Vec<(&mut Finding, Vec<String>)> = Vec::new();
    for finding in findings.iter_mut().filter(|one| matches!(one.rule, "destructive" | "destructive-without-down")) {
        let named = migrations.iter().filter(|one| one.path == finding.file).find_map(|one| {
            let place = (finding.line?, finding.column?);
            let statement = one.up.statements.iter().find(|statement| one.up.position(statement.start) == place)?;
            migration::destroys_only(one.up.text(statement), empty)
        });
        found.extend(named.map(|names| (finding, names)));
    }
    let mut names: Vec<String> = found.iter().flat_map(|(_, names)| names.clone()).collect();
    names.sort();
    names.dedup();
    let mut there = checks::relations_called(session, &names).await?;
    there.extend(renamed.into_iter().flatten());
    for (finding, names) in found {
        if !names.iter().any(|name| there.contains(name)) {
            finding.severity = Severity::Note;
            finding.message.push_str("; the table is not there yet");
        }
    }
    Ok(())
}

/// Locks and compatibility matter where there are rows and readers.
fn depends_on_size(finding: &Finding) -> bool {
    finding.severity == Severity::Warning
        && finding.table.is_some()
        && rules::rule(finding.rule).is_some_and(|rule| rule.group == Group::Locks)
}

fn soften(finding: &mut Finding, sizes: &BTreeMap<String, TableSize>, large_rows: u64) {
    match finding.table.as_ref().and_then(|table| sizes.get(table)) {
        Some(size) if size.rows >= large_rows => {
            finding.message.push_str(&format!(" (the table has {})", describe(size)));
        }
        Some(size) => {
            finding.severity = Severity::Note;
            finding.message.push_str(&format!("; the table has only {}", describe(size)));
        }
        None => {
            finding.severity = Severity::Note;
            finding.message.push_str("; the table is not there yet");
        }
    }
}

fn describe(size: &TableSize) -> String {
    format!("about {} rows in {}", size.rows, super::backup::bytes(size.bytes))
}

/// What the live database itself lacks, whoever made it: indexes for foreign keys, and row level security where
/// the policy asks for it. The findings name the database in place of a file.
pub async fn live_schema(session: &Session, database: &str, policy: &Policy) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut add = |id: &'static str, message: String, help: String| {
        if let Some(severity) = policy.severity_of(id) {
            findings.push(Finding {
                rule: id,
                severity,
                file: Path::new(database).to_owned(),
                line: None,
                column: None,
                message,
                help: Some(help),
                table: None,
            });
        }
    };
    for (table, key, columns) in checks::bare_foreign_keys(session).await? {
        add(
            "foreign-key-without-index",
            format!("in the database, no index of `{table}` begins with `{columns}` of the foreign key `{key}`"),
            format!("CREATE INDEX CONCURRENTLY ON {table} ({columns});"),
        );
    }
    for table in checks::tables_without_row_security(session).await? {
        add(
            "row-level-security",
            format!("in the database, `{table}` has no row level security"),
            format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; and its policies"),
        );
    }
    Ok(findings)
}

/// The linter's parser may lag behind the server's own. Where it found a syntax error, the server is asked as
/// well: in a transaction that is rolled back, PL/pgSQL parses the statement in a function that is never run.
/// What the server takes is only a note.
async fn doubt_syntax(session: &Session, migrations: &[Migration], findings: &mut [Finding]) -> Result<()> {
    for finding in findings.iter_mut().filter(|finding| finding.rule == "syntax" && finding.severity == Severity::Error)
    {
        let Some(statement) = statement_at(migrations, finding) else { continue };
        match server_refusal(session, &statement).await? {
            None => {
                finding.severity = Severity::Note;
                finding.message =
                    format!("the server knows this syntax, ripcord's own parser does not: {}", finding.message);
            }
            // Its words are the ones that a search finds.
            Some(refusal) => finding.message = refusal,
        }
    }
    Ok(())
}

/// The statement that a finding's line lies in.
fn statement_at(migrations: &[Migration], finding: &Finding) -> Option<String> {
    let line = finding.line?;
    let halves = migrations.iter().flat_map(Migration::placed).filter(|half| half.file == finding.file);
    let scripts = halves.map(|half| half.script);
    let statements = scripts.flat_map(|script| script.statements.iter().map(move |statement| (script, statement)));
    statements
        .filter(|(script, statement)| (script.line(statement)..=script.position(statement.end).0).contains(&line))
        .map(|(script, statement)| script.text(statement).to_owned())
        .next()
}

/// What the server's parser says against a statement; `None`: nothing.
async fn server_refusal(session: &Session, statement: &str) -> Result<Option<String>> {
    let body = format!("BEGIN RETURN; {}; END", statement.trim_end().trim_end_matches(';'));
    session.batch("BEGIN").await?;
    // language=SQL
    let made = session
        .batch(&format!(
            "CREATE FUNCTION pg_temp.ripcord_syntax() RETURNS pg_catalog.void LANGUAGE plpgsql AS {}",
            crate::postgres::quote::literal(&body)
        ))
        .await;
    session.batch("ROLLBACK").await?;
    match made {
        Ok(()) => Ok(None),
        Err(error) if error.connection_lost() => Err(error),
        Err(error) => Ok(Some(error.message().to_owned())),
    }
}
