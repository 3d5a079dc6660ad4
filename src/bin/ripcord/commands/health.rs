//! `health`: the health checks, the expected objects, the checks folder.

use ripcord::Result;
use ripcord::ops::check;
use ripcord::ops::report::Outcome;
use ripcord::postgres::checks;

use crate::app::{App, Exit};

/// Asks everything once; exit code 6 when something is not well.
pub async fn run(app: &App) -> Result<Exit> {
    app.require_health_complete()?;
    let ctx = app.context().await?;
    let session = ctx.connect("health").await?;
    let mut items = vec![("connectivity".to_owned(), true, ctx.target.redacted())];
    for one in &ctx.settings.health {
        let answer = check::ask(&session, one).await;
        items.push((answer.subject, answer.healthy, answer.detail));
    }
    let missing = check::missing(&ctx, &session).await?;
    items.push((
        "expected objects".to_owned(),
        missing.is_empty(),
        if missing.is_empty() { "there".to_owned() } else { format!("missing: {}", missing.join(", ")) },
    ));
    let invalid = checks::invalid_indexes(&session).await?;
    items.push((
        "indexes".to_owned(),
        invalid.is_empty(),
        if invalid.is_empty() { "all valid".to_owned() } else { format!("invalid: {}", invalid.join(", ")) },
    ));
    if let Some(folder) = &ctx.settings.checks_dir {
        let result = check::run_checks(&session, folder).await;
        items.push((
            "checks".to_owned(),
            result.is_ok(),
            result.err().map_or_else(|| "no rows".to_owned(), |error| error.one_line()),
        ));
    }
    let well = items.iter().all(|(_, healthy, _)| *healthy);
    for (name, healthy, detail) in &items {
        app.out.data(&format!("{:<8} {name:<20} {detail}", if *healthy { "ok" } else { "NOT WELL" }));
    }
    let values: Vec<_> = items
        .iter()
        .map(|(name, healthy, detail)| serde_json::json!({ "check": name, "healthy": healthy, "detail": detail }))
        .collect();
    let outcome = if well { Outcome::Done } else { Outcome::VerificationFailed };
    app.out.items("health", outcome, &values);
    Ok(Exit(outcome.exit_code()))
}
