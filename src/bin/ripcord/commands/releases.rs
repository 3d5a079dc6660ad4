//! `tag`, `release` and `changelog`: names for versions, and what lies between two.

use ripcord::Result;
use ripcord::ops::RunReport;
use ripcord::ops::releases::{self, Section};
use ripcord::ops::report::Outcome;

use crate::app::{App, Exit};
use crate::args::{ChangelogArgs, ReleaseArgs, TagArgs};

/// Gives an applied migration a name.
pub async fn tag(app: &App, args: TagArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let label = releases::tag(&ctx, &args.version, &args.tag).await?;
    app.out.report(&RunReport::new("tag", Outcome::Done, format!("unchanged; `{}` is `{label}`", args.tag)));
    Ok(Exit::DONE)
}

/// Records a release.
pub async fn release(app: &App, args: ReleaseArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let label = releases::release(&ctx, &args.version, &args.name, args.migration.as_deref()).await?;
    let state = format!("unchanged; release `{}` (`{}`) ends with `{label}`", args.version, args.name);
    app.out.report(&RunReport::new("release", Outcome::Done, state));
    Ok(Exit::DONE)
}

/// Prints what was applied, as Markdown; with `--json` as items.
pub async fn changelog(app: &App, args: ChangelogArgs) -> Result<Exit> {
    let ctx = app.context().await?;
    let sections = releases::changelog(&ctx, args.from.as_deref(), args.to.as_deref()).await?;
    app.out.data(&markdown(&sections));
    app.out.items("changelog", Outcome::Done, &sections);
    Ok(Exit::DONE)
}

fn markdown(sections: &[Section]) -> String {
    let mut text = "# Changelog\n".to_owned();
    for section in sections {
        text.push_str(&format!("\n## {}", section.title));
        if let Some(at) = section.at {
            text.push_str(&format!(" ({})", at.format("%Y-%m-%d")));
        }
        text.push_str("\n\n");
        for entry in &section.entries {
            let breaking = if entry.breaking { "**breaking:** " } else { "" };
            let what = entry.description.as_deref().unwrap_or(&entry.name);
            let tags = if entry.tags.is_empty() { String::new() } else { format!(" [{}]", entry.tags.join(", ")) };
            text.push_str(&format!(
                "- {breaking}{what} (`{}`, {}, by {}){tags}\n",
                entry.migration,
                entry.applied_at.format("%Y-%m-%d"),
                entry.applied_by
            ));
        }
    }
    text.truncate(text.trim_end().len());
    text
}
