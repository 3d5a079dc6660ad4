//! `doctor`: what would work here and what would not.

use ripcord::Result;
use ripcord::ops::doctor::{self, Verdict};
use ripcord::ops::report::Outcome;
use ripcord::store::Store;

use crate::app::{App, Exit};

/// Shows every check; exit code 1 when a mandatory one fails.
pub async fn run(app: &App) -> Result<Exit> {
    let checks = match app.store() {
        Ok(_) => doctor::examine(&app.context().await?, None).await,
        // The rest is told all the same; nothing is looked for in the folder that stands in.
        Err(error) => {
            let ctx = app.context_with(Store::open(&std::env::temp_dir().display().to_string())?).await?;
            doctor::examine(&ctx, Some(error)).await
        }
    };
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
