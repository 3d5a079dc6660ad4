//! Names for versions (`tag`, `release`), and what lies between two of them (`changelog`).

use serde::Serialize;

use super::apply::{self, applied_of};
use super::context::{self, Context};
use crate::clock::Time;
use crate::control::{self, MigrationRow, ReleaseRow};
use crate::error::{Error, Result};
use crate::migration::{Migration, Version};
use crate::postgres::Session;

/// Names a migration that is applied, given by its own version or by a release's. Returns its label.
pub async fn tag(ctx: &Context, version: &str, tag: &str) -> Result<String> {
    let live = context::open(ctx).await?;
    let releases = control::releases(live.session.client()).await?;
    let wanted = resolve(&releases, version).map_or(version, |row| row.version.as_str());
    let row = find(&control::applied(live.session.client()).await?, wanted)?;
    record(ctx, &live.session, "tag", tag, &row, None).await?;
    live.session.close().await;
    live.guard.release().await?;
    Ok(applied_of(row).label())
}

/// Records a release that ends with a migration, else with the last one applied. Returns that one's label.
pub async fn release(ctx: &Context, version: &str, name: &str, migration: Option<&str>) -> Result<String> {
    let live = context::open(ctx).await?;
    let rows = control::applied(live.session.client()).await?;
    let row = match migration {
        Some(wanted) => find(&rows, wanted)?,
        None => rows.last().cloned().ok_or_else(|| {
            Error::usage("nothing is applied, so that a release would hold nothing").hint("ripcord apply")
        })?,
    };
    record(ctx, &live.session, "release", version, &row, Some(name)).await?;
    live.session.close().await;
    live.guard.release().await?;
    Ok(applied_of(row).label())
}

async fn record(
    ctx: &Context,
    session: &Session,
    kind: &str,
    name: &str,
    row: &MigrationRow,
    title: Option<&str>,
) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::usage(format!("a {kind} needs a name")));
    }
    // Where a command takes either, a migration's own version comes first, and the name would never be reached.
    let files = apply::read_folder(ctx).map(|folder| folder.migrations).unwrap_or_default();
    if let Some(file) = files.iter().find(|file| file.is_called(name)) {
        return Err(Error::usage(format!("`{name}` is what the migration `{}` is called", file.file_name))
            .hint(format!("choose another name: v{name}")));
    }
    control::add_release(session.client(), kind, name, &row.version).await?;
    let detail = serde_json::json!({ "name": name, "title": title, "version": row.version });
    control::audit(session.client(), None, kind, &detail, None).await
}

fn find(rows: &[MigrationRow], wanted: &str) -> Result<MigrationRow> {
    let file = wanted.strip_suffix(".sql").unwrap_or(wanted);
    rows.iter()
        .find(|row| applied_of((*row).clone()).is_called(file))
        .cloned()
        .ok_or_else(|| Error::usage(format!("no applied migration is called `{wanted}`")).hint("ripcord history"))
}

/// The migration that a tag or a release stands for, by its version; `None`: there is no such name.
pub async fn meaning(session: &Session, name: &str) -> Result<Option<Version>> {
    if context::lineage_of(session).await?.is_none() {
        return Ok(None);
    }
    let releases = control::releases(session.client()).await?;
    Ok(resolve(&releases, name).map(|row| Version(row.version.clone())))
}

/// By its name; a semantic version also with or without a `v` before it.
fn resolve<'a>(releases: &'a [ReleaseRow], name: &str) -> Option<&'a ReleaseRow> {
    let bare = |name: &str| name.strip_prefix(['v', 'V']).unwrap_or(name).to_owned();
    releases
        .iter()
        .rev()
        .find(|row| row.name == name)
        .or_else(|| releases.iter().rev().find(|row| bare(&row.name) == bare(name)))
}

/// What a command that takes a version was given: a migration's own, or what a tag or release stands for.
pub async fn target(session: &Session, files: &[Migration], wanted: Option<String>) -> Result<Option<String>> {
    let Some(wanted) = wanted else { return Ok(None) };
    if files.iter().any(|file| file.is_called(&wanted)) {
        return Ok(Some(wanted));
    }
    Ok(Some(meaning(session, &wanted).await?.map_or(wanted, |version| version.to_string())))
}

/// A migration in a changelog.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Version and name.
    pub migration: String,
    /// Its name in words.
    pub name: String,
    /// What the file says that it is for.
    pub description: Option<String>,
    /// Old versions of the application break.
    pub breaking: bool,
    /// The file's own words.
    pub tags: Vec<String>,
    /// When.
    pub applied_at: Time,
    /// Who.
    pub applied_by: String,
}

/// What came with one release or tag.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Its name; `Unreleased` for what came after the last.
    pub title: String,
    /// When it was named.
    pub at: Option<Time>,
    /// Its migrations, in the order of applying.
    pub entries: Vec<Entry>,
}

/// What is applied after `from`, up to and with `to`, by release, the newest first.
pub async fn changelog(ctx: &Context, from: Option<&str>, to: Option<&str>) -> Result<Vec<Section>> {
    let session = ctx.connect("changelog").await?;
    let (rows, releases) = match context::lineage_of(&session).await? {
        Some(_) => (control::applied(session.client()).await?, control::releases(session.client()).await?),
        None => (Vec::new(), Vec::new()),
    };
    session.close().await;
    let files = apply::read_folder(ctx).map(|folder| folder.migrations).unwrap_or_default();
    let place = |wanted: &str| -> Result<usize> {
        let version = resolve(&releases, wanted).map(|row| row.version.clone());
        let at = rows.iter().position(|row| match &version {
            Some(version) => row.version == *version,
            None => applied_of(row.clone()).is_called(wanted),
        });
        at.ok_or_else(|| {
            let known: Vec<String> = releases.iter().map(|row| format!("`{}`", row.name)).collect();
            let error = Error::usage(format!("no tag, release or applied migration is called `{wanted}`"));
            if known.is_empty() { error } else { error.because(format!("named are {}", known.join(", "))) }
        })
    };
    let begin = from.map(&place).transpose()?.map_or(0, |at| at + 1);
    let end = to.map(&place).transpose()?.map_or(rows.len(), |at| at + 1);
    if begin > end {
        return Err(Error::usage("`--from` comes after `--to`").hint("exchange them"));
    }
    let mut sections: Vec<Section> = Vec::new();
    let mut open: Vec<Entry> = Vec::new();
    for row in rows.iter().skip(begin).take(end - begin) {
        open.push(entry(row, &files));
        // A release names more than a tag does.
        let named = releases.iter().filter(|release| release.version == row.version);
        if let Some(release) = named.max_by_key(|release| (release.kind == "release", release.at)) {
            let title = release.name.clone();
            sections.push(Section { title, at: Some(release.at), entries: std::mem::take(&mut open) });
        }
    }
    if !open.is_empty() {
        sections.push(Section { title: "Unreleased".to_owned(), at: None, entries: open });
    }
    sections.reverse();
    Ok(sections)
}

fn entry(row: &MigrationRow, files: &[Migration]) -> Entry {
    let label = applied_of(row.clone()).label();
    let file = files.iter().find(|file| file.label() == label);
    let metadata = file.map(|file| file.metadata.clone()).unwrap_or_default();
    Entry {
        name: row.name.replace(['_', '-'], " ").trim().to_owned(),
        migration: label,
        description: metadata.description.filter(|text| !text.trim().is_empty()),
        breaking: metadata.breaking,
        tags: metadata.tags,
        applied_at: row.applied_at,
        applied_by: row.applied_by.clone(),
    }
}
