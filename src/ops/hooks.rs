//! Hooks: commands and SQL around the steps of a run.

use std::time::Duration;

use super::context;
use super::run::Run;
use crate::error::{Error, Result};
use crate::health;
use crate::journal::Step;
use crate::postgres::execute::{self, Limits};
use crate::settings::{Hook, HookWhat};

/// Runs a hook's steps in order; the first that fails stops, unless its failure is only told.
///
/// Commands get the run in `RIPCORD_` variables. SQL runs in the target, in a transaction of its own, whose changes
/// are the run's; before the backup it can only read, since nothing may change before there is one.
pub async fn run(run: &mut Run<'_>, name: &str) -> Result<()> {
    around(run, name, None).await
}

/// A hook around one migration, which its commands are told.
pub async fn around(run: &mut Run<'_>, name: &str, migration: Option<(&str, &str)>) -> Result<()> {
    let Some(steps) = run.ctx.settings.hooks.steps.get(name).cloned() else { return Ok(()) };
    for step in &steps {
        let ran = one(run, name, step, migration).await;
        let only_warns = step.only_warns.unwrap_or(matches!(name, "after_rollback" | "after_restore"));
        match ran {
            Ok(()) => {}
            Err(error) if only_warns && !error.connection_lost() => run.ctx.progress.warn(error.one_line()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn one(run: &mut Run<'_>, name: &str, step: &Hook, migration: Option<(&str, &str)>) -> Result<()> {
    let limit = step.timeout.unwrap_or(run.ctx.settings.hooks.timeout);
    let shown = match &step.what {
        HookWhat::Command(text) | HookWhat::Sql(text) => text.clone(),
    };
    run.ctx.progress.began("hook", format!("{name}: {shown}"));
    let ran = match &step.what {
        HookWhat::Command(text) => {
            let environment = environment(run, name, migration);
            tokio::select! {
                ran = health::run_command(text, &environment, limit) => ran,
                () = run.ctx.cancelled() => Err(context::stopped()),
            }
        }
        HookWhat::Sql(text) => sql(run, name, text, limit).await,
    };
    ran.map_err(|error| error.context(format!("hook `{name}` failed: `{shown}`")))?;
    run.ctx.progress.finished("hook", name);
    Ok(())
}

fn environment(run: &Run<'_>, name: &str, migration: Option<(&str, &str)>) -> Vec<(String, String)> {
    let mut environment = vec![
        ("RIPCORD_RUN_ID".to_owned(), run.id.to_string()),
        ("RIPCORD_HOOK".to_owned(), name.to_owned()),
        ("RIPCORD_COMMAND".to_owned(), run.row.command.clone()),
        ("RIPCORD_DATABASE".to_owned(), run.ctx.target.database().to_owned()),
        ("RIPCORD_ENVIRONMENT".to_owned(), run.ctx.settings.environment.name.clone().unwrap_or_default()),
        ("RIPCORD_BACKUP_ID".to_owned(), run.backup.as_ref().map(|backup| backup.id.to_string()).unwrap_or_default()),
    ];
    if let Some((version, name)) = migration {
        environment.push(("RIPCORD_MIGRATION_VERSION".to_owned(), version.to_owned()));
        environment.push(("RIPCORD_MIGRATION_NAME".to_owned(), name.to_owned()));
    }
    environment
}

async fn sql(run: &mut Run<'_>, name: &str, text: &str, limit: Duration) -> Result<()> {
    let limits = Limits { statement: limit, lock: run.ctx.settings.timeouts.lock, whole: limit };
    execute::begin(&run.live.session, &limits).await?;
    let ran = async {
        if name == "before_backup" {
            // language=SQL
            run.live.session.batch("SET TRANSACTION READ ONLY").await?;
        }
        let script = crate::migration::Script::parse(text, &format!("hook {name}"), 1)?;
        execute::run_in_transaction(&run.live.session, &script, &format!("hook {name}"), &limits).await?;
        // One that has only read has no id, and changes nothing that a recovery would have to know of.
        let xid = execute::transaction_id(&run.live.session).await?;
        if let Some(xid) = xid {
            run.ours.xids.push(xid);
            run.journal.record(Step::HookChanged { hook: name.to_owned(), xid })?;
            run.ours.touched = None;
        }
        Ok::<_, Error>(())
    }
    .await;
    if let Err(error) = ran {
        let _ = execute::rollback(&run.live.session).await;
        return Err(error);
    }
    execute::commit(&run.live.session).await?;
    execute::reset(&run.live.session).await
}
