//! `aside …`: databases that a swap kept.

use ripcord::ops::report::Outcome;
use ripcord::ops::{RunReport, backup, upkeep};
use ripcord::postgres::databases::Aside;
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::AsideCommand;

/// Runs it.
pub async fn run(app: &App, command: AsideCommand) -> Result<Exit> {
    let ctx = app.context().await?;
    let kept = upkeep::aside_list(&ctx).await?;
    match command {
        AsideCommand::List => {
            let rows: Vec<Vec<String>> = kept
                .iter()
                .map(|database| {
                    vec![
                        database.name.clone(),
                        database.bytes.map_or_else(|| "-".to_owned(), backup::bytes),
                        database.comment.as_deref().map(told).unwrap_or_default(),
                    ]
                })
                .collect();
            app.out.list("aside list", &kept, &["name", "size", "what it is"], &rows);
        }
        AsideCommand::Drop { name } => {
            // What a drill or a restore that was killed has left, and what `drill --keep` was asked to leave.
            let scratch = upkeep::scratch_list(&ctx).await?;
            if scratch.iter().any(|database| database.name == name) {
                if app.resolved.dry_run {
                    app.out.say(&format!("would drop `{name}`"));
                    return Ok(Exit::DONE);
                }
                upkeep::scratch_drop(&ctx, &name).await?;
                app.out.report(&RunReport::new("aside drop", Outcome::Done, format!("unchanged; `{name}` is gone")));
                return Ok(Exit::DONE);
            }
            if !kept.iter().any(|database| database.name == name) {
                return Err(
                    Error::usage(format!("no swap of this database has kept a `{name}`")).hint("ripcord aside list")
                );
            }
            for hindrance in upkeep::aside_hindrances(&ctx, &name).await? {
                app.out.warn(&hindrance);
            }
            if app.resolved.dry_run {
                app.out.say(&format!("would drop `{name}`"));
                return Ok(Exit::DONE);
            }
            upkeep::aside_drop(&ctx, &name).await?;
            app.out.report(&RunReport::new("aside drop", Outcome::Done, format!("unchanged; `{name}` is gone")));
        }
    }
    Ok(Exit::DONE)
}

/// What the comment of a kept database says, for people.
fn told(comment: &str) -> String {
    let Some(aside) = Aside::parse(comment) else { return comment.to_owned() };
    let mut told = format!("`{}` until {}", aside.database, aside.at.format("%Y-%m-%d %H:%M:%S UTC"));
    if let Some(backup) = aside.backup {
        told.push_str(&format!(", replaced by backup `{backup}`"));
    }
    told
}
