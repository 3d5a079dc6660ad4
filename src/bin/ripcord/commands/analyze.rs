//! `analyze`: what one migration would do.

use ripcord::Result;
use ripcord::ops::analyze;
use ripcord::ops::report::Outcome;

use super::validate;
use crate::app::{App, Exit};
use crate::args::AnalyzeArgs;

/// Tells it, and changes nothing.
pub async fn run(app: &App, args: AnalyzeArgs) -> Result<Exit> {
    let folder = validate::read(app)?;
    let ctx = app.context().await;
    let settings = ctx.as_ref().map_or_else(|_| app.settings(), |ctx| &ctx.settings);
    let asked = ctx.as_ref().map_err(Clone::clone);
    let analyzed = analyze::analyze(asked, settings, &folder, &args.migration).await?;
    if let Some(why) = &analyzed.not_asked {
        app.out.warn(&format!(
            "the database was not asked, so what is applied and how large tables are is not known: {why}"
        ));
    }
    for line in analyzed.tell() {
        app.out.data(&line);
    }
    if !analyzed.findings.is_empty() {
        app.out.data(&validate::text(&analyzed.findings, true));
    }
    if let Some(hint) = analyzed.hint {
        app.out.say(&format!("\nhint: {hint}"));
    }
    app.out.items("analyze", Outcome::Done, &[analyzed]);
    Ok(Exit::DONE)
}
