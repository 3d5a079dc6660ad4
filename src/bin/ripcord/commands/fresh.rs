//! `fresh`: empty the database and apply everything, after a backup.

use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::{ApplyArgs, FreshArgs};

/// Runs it.
pub async fn run(app: &App, args: FreshArgs) -> Result<Exit> {
    let environment = &app.settings().environment;
    if environment.protected {
        let fact = match &environment.name {
            Some(name) => {
                format!("environment `{name}` is protected, and `fresh` empties the database")
            }
            None => "no environment is named, and the strict rules do not allow `fresh`".to_owned(),
        };
        return Err(Error::refused(fact).hint("ripcord --env development fresh"));
    }
    let ctx = app.context().await?;
    ctx.keys()?;
    confirm_database(app, args.confirm.as_deref(), ctx.target.database(), "empty", "fresh")?;
    let mut request = super::apply::request(app, &ApplyArgs::default());
    request.approver = app.approve(&format!("Empty `{}`", ctx.target.database()))?;
    let report = ripcord::ops::upkeep::fresh(&ctx, &request).await;
    app.out.report(&report);
    Ok(Exit(report.exit_code))
}

/// The database's name, typed or given, before it is emptied or replaced. `--yes` is enough only in
/// environments that are not protected.
///
/// `again` is the command, for the hint.
pub fn confirm_database(app: &App, given: Option<&str>, database: &str, verb: &str, again: &str) -> Result<()> {
    let hint = format!("ripcord {again} --confirm {database}");
    if let Some(given) = given {
        return match given == database {
            true => Ok(()),
            false => Err(Error::refused(format!(
                "`--confirm {given}` does not name the database to {verb}, which is `{database}`"
            ))
            .hint(hint)),
        };
    }
    if app.resolved.assume_yes && !app.settings().environment.protected {
        return Ok(());
    }
    let question = format!("This will {verb} database `{database}`. Type its name to go on:");
    match app.confirm(&question, database) {
        Some(true) => Ok(()),
        Some(false) => {
            Err(Error::refused(format!("what was typed is not the database's name, which is `{database}`")).hint(hint))
        }
        None => Err(Error::refused(format!(
            "to {verb} database `{database}` needs its name, and there is no terminal to ask at"
        ))
        .hint(hint)),
    }
}
