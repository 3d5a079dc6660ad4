//! `verify-db`: whether the living database is what the folder and the configuration say. Nothing is changed.

use serde::Serialize;

use super::apply::{applied_of, read_folder};
use super::check;
use super::context::Context;
use super::judge;
use crate::control;
use crate::error::Result;
use crate::migration::lint::{self, Policy, Severity};
use crate::migration::plan::{self, Selection, was_applied};
use crate::migration::source::Folder;
use crate::migration::{Applied, Migration, destroyed_tables};
use crate::postgres::{Session, checks};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `history`, `tables`, `expected objects`, `indexes`, `constraints`, `row level security`,
    /// `checks`.
    pub check: &'static str,
    /// In one sentence.
    pub finding: String,
    /// What to do.
    pub hint: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// What was looked at, each with how much of it.
    pub looked_at: Vec<(&'static str, String)>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Verified {
    fn looked(&mut self, check: &'static str, at: impl Into<String>, found: Vec<(String, String)>) {
        self.looked_at.push((check, at.into()));
        self.findings.extend(found.into_iter().map(|(finding, hint)| Finding { check, finding, hint }));
    }
}

/// Looks at everything; what it finds is no error.
pub async fn verify_db(ctx: &Context) -> Result<Verified> {
    let session = ctx.connect("verify-db").await?;
    // Whatever a check or a view holds: it changes nothing.
    // language=SQL
    session.batch("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await?;
    let mut verified = Verified { looked_at: Vec::new(), findings: Vec::new() };
    // 1. The history against the folder.
    let folder = read_folder(ctx)?;
    let applied: Vec<Applied> = match control::inspect(session.client()).await? {
        control::State::Present { .. } => {
            control::applied(session.client()).await?.into_iter().map(applied_of).collect()
        }
        control::State::Absent => Vec::new(),
    };
    verified.looked("history", format!("{} migrations applied", applied.len()), history(ctx, &folder, &applied));
    // 2. What the applied migrations make, and what they say that they work on.
    let there: Vec<Migration> =
        folder.migrations.iter().filter(|migration| was_applied(migration, &applied)).cloned().collect();
    let (count, missing) = tables(&session, &there).await?;
    verified.looked("tables", format!("{count} of the applied migrations"), missing);
    // 3. What the configuration expects.
    let settings = &ctx.settings;
    let count = settings.expect_tables.len() + settings.expect_functions.len() + settings.expect_policies.len();
    let missing = check::missing(ctx, &session).await?;
    let missing = missing
        .into_iter()
        .map(|name| (format!("`{name}` is not there"), "bring it back, or take it out of `[expect]`".to_owned()));
    verified.looked("expected objects", format!("{count} configured"), missing.collect());
    // 4. What PostgreSQL itself knows to be unfinished.
    let invalid = checks::invalid_indexes(&session).await?.into_iter().map(|index| {
        let name = index.split(" on ").next().unwrap_or(&index).to_owned();
        (format!("index {index} is invalid"), format!("REINDEX INDEX CONCURRENTLY {name};"))
    });
    verified.looked("indexes", "all", invalid.collect());
    let open = check::not_validated(ctx, &session).await?.into_iter().map(|constraint| {
        let hint = match constraint.strip_prefix("constraint ").and_then(|rest| rest.split_once(" on ")) {
            Some((name, table)) => format!(
                "ALTER TABLE {table} VALIDATE CONSTRAINT {name}; or name it in `[expect] not_valid`: {table}.{name}"
            ),
            None => "validate it".to_owned(),
        };
        (format!("{constraint} is not validated"), hint)
    });
    verified.looked("constraints", "all", open.collect());
    // 5. Row level security, where the rules ask for it.
    let policy = Policy::new(settings.environment.protected, &settings.lint);
    if policy.severity_of("row-level-security").is_some_and(|severity| severity >= Severity::Warning) {
        let bare = judge::live_schema(&session, ctx.target.database(), &policy).await?;
        let bare = bare.into_iter().filter(|finding| finding.rule == "row-level-security");
        let bare = bare.map(|finding| (finding.message, finding.help.unwrap_or_default())).collect();
        verified.looked("row level security", "every table", bare);
    }
    // 6. The project's own checks, each of them.
    if let Some(checks_dir) = &settings.checks_dir {
        let files = check::check_files(checks_dir)?;
        let mut failed = Vec::new();
        for file in &files {
            if let Err(error) = check::run_check(&session, file).await {
                failed.push((error.one_line(), format!("psql -f {}", file.display())));
            }
        }
        verified.looked("checks", format!("{} files", files.len()), failed);
    }
    session.close().await;
    Ok(verified)
}

fn history(ctx: &Context, folder: &Folder, applied: &[Applied]) -> Vec<(String, String)> {
    let planned = plan::plan(&folder.migrations, applied, &Selection::default(), ctx.settings.on_changed);
    let mut found: Vec<(String, String)> = planned
        .errors
        .iter()
        .map(|error| (error.one_line(), error.hint_text().unwrap_or("ripcord status").to_owned()))
        .collect();
    for one in applied {
        if !folder.migrations.iter().any(|file| was_applied(file, std::slice::from_ref(one))) {
            let label = one.label();
            let hint = format!("put the file back, or: ripcord repair --forget {label}");
            found.push((format!("`{label}` is applied, but its file is gone"), hint));
        }
    }
    found
}

/// How many tables the applied migrations make or name, and those that are not there.
async fn tables(session: &Session, applied: &[Migration]) -> Result<(usize, Vec<(String, String)>)> {
    let mut expected: Vec<(String, String)> = lint::built_tables(applied)
        .into_iter()
        .filter_map(|(table, number)| Some((table, format!("`{}` makes", applied.get(number)?.file_name))))
        .collect();
    // A table that some migration drops, renames or alters may well be gone by its author's will.
    let gone: Vec<String> = applied
        .iter()
        .flat_map(|migration| migration.up.statements.iter().map(move |statement| migration.up.text(statement)))
        .filter(|text| lint::takes_tables_away(text))
        .flat_map(destroyed_tables)
        .collect();
    for migration in applied {
        for table in &migration.metadata.affected_tables {
            let known = expected.iter().any(|(other, _)| other == table) || gone.contains(table);
            if !known {
                expected.push((table.clone(), format!("`{}` says it works on", migration.file_name)));
            }
        }
    }
    let names: Vec<String> = expected.iter().map(|(table, _)| table.clone()).collect();
    let missing = checks::missing_anywhere(session, &names).await?;
    let told = expected.iter().filter(|(table, _)| missing.contains(table));
    let told = told.map(|(table, who)| {
        (format!("table `{table}`, which {who}, is not there"), "ripcord restore latest --into NAME".to_owned())
    });
    Ok((expected.len(), told.collect()))
}
