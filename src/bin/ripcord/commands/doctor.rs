//! `doctor`: what would work here and what would not.

use ripcord::Result;
use ripcord::ops::doctor::{self, Verdict};
use ripcord::ops::report::Outcome;

use crate::app::{App, Exit};

/// Shows every check; exit code 1 when a mandatory one fails.
pub async fn run(app: &App) -> Result<Exit> {
    let ctx = app.context().await?;
    let checks = doctor::examine(&ctx).await;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Failed);
    for check in &checks {
        let word = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "WARNING",
            Verdict::Failed => "FAILED",
        };
        app.out.data(&format!("{word:<8} {:<22} {}", check.name, check.detail));
        if let Some(hint) = &check.hint {
            app.out.data(&format!("{:<31} hint: {hint}", ""));
        }
    }
    let outcome = if failed { Outcome::Unchanged } else { Outcome::Done };
    app.out.items("doctor", outcome, &checks);
    Ok(Exit(outcome.exit_code()))
}
