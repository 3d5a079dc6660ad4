//! `verify-db`: whether the living database is what the folder and the configuration say.

use ripcord::Result;
use ripcord::ops::report::Outcome;
use ripcord::ops::verify_db;

use crate::app::{App, Exit};

/// Looks, and changes nothing; exit code 1 when something is not as it should be.
pub async fn run(app: &App) -> Result<Exit> {
    let verified = verify_db::verify_db(&app.context().await?).await?;
    for (check, at) in &verified.looked_at {
        let found: Vec<_> = verified.findings.iter().filter(|finding| finding.check == *check).collect();
        let word = if found.is_empty() { "ok" } else { "WRONG" };
        app.out.data(&format!("{word:<8} {check:<20} {at}"));
        for finding in found {
            app.out.data(&format!("         {}", finding.finding));
            app.out.data(&format!("         hint: {}", finding.hint));
        }
    }
    let outcome = if verified.findings.is_empty() { Outcome::Done } else { Outcome::Invalid };
    if outcome == Outcome::Invalid {
        app.out.say("database: unchanged, only looked at");
    }
    app.out.items("verify-db", outcome, &verified.findings);
    Ok(Exit(outcome.exit_code()))
}
