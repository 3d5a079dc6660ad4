//! `adopt`: taking over what another tool recorded as applied.

use sha2::{Digest, Sha256};

use super::backup::{self, Request as BackupRequest};
use super::context::{self, Context};
use super::{apply, beside};
use crate::control::adopt::{Adoption, Decided, OldTable};
use crate::control::known::{Holds, Known, OldRow};
use crate::control::{self, MigrationRow, known};
use crate::error::{Error, Result};
use crate::manifest::Purpose;
use crate::migration::source::{self, Folder};
use crate::migration::{Migration, Version};
use crate::postgres::Session;

/// What to adopt, and how.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The table, with or without its schema, or `drizzle`; `None`: all that are found.
    pub from: Option<String>,
    /// Rename the old objects aside and leave views and functions of their names.
    pub compat: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of one row.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Line {
    /// As the other tool calls it.
    pub migration: String,
    /// The table.
    pub table: String,
    /// `applied`, `failed`, `rolled_back`; `there`: our history has it already.
    pub state: String,
    /// The file that it means; `None`: it is gone.
    pub file: Option<String>,
    /// `same`, `changed`, `unknown` (no checksum, or of an algorithm that is not known), `no file`.
    pub checksum: &'static str,
}

/// What an adoption did, or would do.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Adopted {
    /// The tables, each with its owner.
    pub tables: Vec<String>,
    /// Each row.
    pub lines: Vec<Line>,
    /// Files that no row means: they are pending.
    pub pending: Vec<String>,
    /// Things to know.
    pub notes: Vec<String>,
    /// What was renamed and made for `--compat`.
    pub made: Vec<String>,
}

/// Takes the tables over, in one transaction. With `compat`, which changes objects of yours, a backup comes first.
pub async fn adopt(ctx: &Context, request: &Request) -> Result<Adopted> {
    let folder = apply::read_folder(ctx)?;
    if request.dry_run {
        let session = ctx.connect("adopt").await?;
        let there = match context::lineage_of(&session).await? {
            Some(_) => control::migrations(session.client()).await?,
            None => Vec::new(),
        };
        let chosen = choose(ctx, &session, request).await?;
        let adopted = take_over(&session, request, &chosen, &folder, &there, 1).await?;
        session.close().await;
        return Ok(adopted);
    }
    // Found before the schema is made: where there is nothing to adopt, nothing is written.
    let session = ctx.connect("adopt").await?;
    choose(ctx, &session, request).await?;
    session.close().await;

    let live = context::open(ctx).await?;
    let chosen = choose(ctx, &live.session, request).await?;
    if request.compat {
        ctx.keys()?;
        ctx.store.objects().check_writable()?;
        let wanted = BackupRequest {
            purpose: Purpose::Safety,
            run: None,
            tags: vec!["before-adopt".to_owned()],
            before: Vec::new(),
            properties: None,
        };
        let taken = backup::take(ctx, &live, &wanted).await?;
        ctx.progress.note(format!("what it was before is backup `{}`", beside::short(taken.id)));
    }
    let there = control::migrations(live.session.client()).await?;
    let batch = control::next_batch(live.session.client()).await?;
    ctx.faults.at("adopt_began").await;
    let adopted = take_over(&live.session, request, &chosen, &folder, &there, batch).await?;
    ctx.faults.at("adopt_done").await;
    live.session.close().await;
    live.guard.release().await?;
    Ok(adopted)
}

/// The tables that are meant: all of one schema, or the one that was named with what stands beside it.
async fn choose(ctx: &Context, session: &Session, request: &Request) -> Result<Vec<Known>> {
    let found = known::find(session.client(), ctx.left_out()).await?;
    let histories: Vec<&Known> = known::histories(&found)
        .filter(|known| request.from.as_ref().is_none_or(|from| known.is_called(from)))
        .collect();
    let mut schemas: Vec<&str> = histories.iter().map(|known| known.schema.as_str()).collect();
    schemas.sort_unstable();
    schemas.dedup();
    match schemas.as_slice() {
        [] => {
            let error = match &request.from {
                Some(from) => Error::usage(format!("there is no table of a known tool that is called `{from}`")),
                None => Error::usage("there is no table of a known tool to adopt"),
            };
            let labels: Vec<String> = known::histories(&found).map(|known| format!("`{}`", known.label())).collect();
            Err(match labels.is_empty() {
                true => error,
                false => error.because(format!("found: {}", labels.join(", "))),
            }
            .hint("where something is applied all the same, say up to which version: ripcord baseline VERSION"))
        }
        [schema] => {
            let chosen = |known: &&Known| {
                let history = matches!(known.holds, Holds::History | Holds::Drizzle);
                known.schema == *schema && (!history || histories.iter().any(|one| one.oid == known.oid))
            };
            let chosen: Vec<Known> = found.iter().filter(chosen).cloned().collect();
            refuse_all(&chosen)?;
            Ok(chosen)
        }
        _ => {
            let labels: Vec<String> = histories.iter().map(|known| format!("`{}`", known.label())).collect();
            Err(Error::usage(format!("more than one schema has a history: {}", labels.join(", ")))
                .hint("say which: ripcord adopt --from SCHEMA.TABLE"))
        }
    }
}

/// The first refusal, with every table's statement in its hint, so that one pass mends all.
fn refuse_all(tables: &[Known]) -> Result<()> {
    let Some(first) = tables.iter().find_map(|known| known.refuse().err()) else { return Ok(()) };
    let mut error = first;
    let cures: Vec<&str> = tables.iter().filter_map(|known| known.hindrance.as_ref()?.1.as_deref()).collect();
    if cures.len() > 1 {
        error = error.hint(format!("when nothing needs them any more: {}", cures.join(" ")));
    }
    Err(error)
}

async fn take_over(
    session: &Session,
    request: &Request,
    chosen: &[Known],
    folder: &Folder,
    there: &[MigrationRow],
    batch: i32,
) -> Result<Adopted> {
    let adoption = Adoption { tables: chosen, write: !request.dry_run, compat: request.compat };
    let entries = source::drizzle_entries(&folder.path)?;
    let decide = |tables: &[OldTable]| {
        let mut deciding =
            Deciding { folder, entries: &entries, there, batch, told: Adopted::default(), rows: Vec::new() };
        for table in tables {
            deciding.table(table);
        }
        deciding.finish(tables);
        Ok(Decided { rows: deciding.rows, told: deciding.told })
    };
    let (mut adopted, made) = control::adopt::adopt(session.client(), &adoption, decide).await?;
    adopted.made = made;
    Ok(adopted)
}

/// Rows of theirs becoming rows of ours.
struct Deciding<'a> {
    folder: &'a Folder,
    entries: &'a [(String, i64)],
    there: &'a [MigrationRow],
    batch: i32,
    told: Adopted,
    rows: Vec<MigrationRow>,
}

impl Deciding<'_> {
    fn table(&mut self, table: &OldTable) {
        let known = &table.known;
        self.told.tables.push(format!(
            "`{}`, owned by `{}`, {} rows",
            known.label(),
            known.owner,
            table.rows.len() + table.others.len()
        ));
        let compared: Vec<Compared> = table.rows.iter().map(|row| self.compare(known, row)).collect();
        // One that differs was changed; where all do, they were made in another way than we know.
        let unlike = compared.iter().filter(|one| one.checksum == "changed").count();
        let other_algorithm = unlike > 1 && compared.iter().all(|one| one.checksum != "same");
        if other_algorithm {
            self.told.notes.push(format!(
                "no checksum in `{}` fits its file, so that they were made in another way: the files count as they are",
                known.label()
            ));
        }
        let scripts = table.rows.iter().filter(|row| row.rollback_sql.is_some()).count();
        if let Some(why) = known.doubtful.as_ref().filter(|_| scripts > 0) {
            self.told.notes.push(format!(
                "the {scripts} rollback scripts in `{}` are not taken over, because {why}; the files' own are",
                known.label()
            ));
        }
        for (row, mut compared) in table.rows.iter().zip(compared) {
            if other_algorithm && compared.checksum == "changed" {
                compared.checksum = "unknown";
            }
            self.row(known, row, &compared);
        }
    }

    /// The file that a row means, and whether it is still what was applied.
    fn compare(&self, known: &Known, row: &OldRow) -> Compared {
        let file = match known.holds {
            Holds::Drizzle => self.drizzle_file(row),
            _ => find(&self.folder.migrations, row),
        };
        let Some(migration) = file.and_then(|at| self.folder.migrations.get(at)) else {
            return Compared { file: None, checksum: "no file" };
        };
        let told = match known.holds {
            Holds::Drizzle => Some(row.identity.as_str()),
            _ => row.checksum.as_deref(),
        };
        let told = told.map(|told| told.trim().to_ascii_lowercase());
        let told = told.filter(|told| told.len() == 64 && told.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let checksum = match told {
            None => "unknown",
            Some(told) if digests(migration).contains(&told) => "same",
            Some(_) => "changed",
        };
        Compared { file, checksum }
    }

    /// Drizzle knows a migration by its journal's time; the hash tells where the journal was made anew.
    fn drizzle_file(&self, row: &OldRow) -> Option<usize> {
        let when: Option<i64> = row.name.as_deref().and_then(|name| name.parse().ok());
        let tag = self.entries.iter().find(|(_, at)| Some(*at) == when).map(|(tag, _)| format!("{tag}.sql"));
        let by_time = tag.and_then(|tag| self.folder.migrations.iter().position(|file| file.file_name == tag));
        by_time.or_else(|| self.folder.migrations.iter().position(|file| digests(file).contains(&row.identity)))
    }

    fn row(&mut self, known: &Known, row: &OldRow, compared: &Compared) {
        let file = compared.file.and_then(|at| self.folder.migrations.get(at));
        let (version, name) = match file {
            Some(file) => (self.version_of(file), file.name.clone()),
            None => nameless(row, known),
        };
        let state = state_of(row, &mut self.told.notes, known);
        let same = |one: &MigrationRow| Version(one.version.clone()) == Version(version.clone());
        let counts = |one: &MigrationRow| matches!(one.state.as_str(), "applied" | "baseline");
        let told_before = |one: &MigrationRow| Some(one.applied_at) == row.at && one.success == (state != "failed");
        let in_effect =
            self.there.iter().any(|one| same(one) && (counts(one) || (state != "applied" && told_before(one))))
                || (state == "applied" && self.rows.iter().any(|one| same(one) && one.state == "applied"));
        if state == "rolled_back" {
            for earlier in self.rows.iter_mut().filter(|one| one.version == version && one.state == "applied") {
                earlier.state = "rolled_back".to_owned();
            }
        }
        self.told.lines.push(Line {
            migration: match known.holds {
                Holds::Drizzle => file.map_or_else(|| row.identity.clone(), |file| file.file_name.clone()),
                _ => row.identity.clone(),
            },
            table: known.label(),
            state: if in_effect { "there" } else { state }.to_owned(),
            file: file.map(|file| file.file_name.clone()),
            checksum: compared.checksum,
        });
        if in_effect {
            return;
        }
        let own_down = file.and_then(|file| file.down.as_ref()).map(|down| down.sql.to_string());
        let trusted = row.rollback_sql.clone().filter(|sql| known.doubtful.is_none() && !sql.trim().is_empty());
        let changed = compared.checksum == "changed";
        self.rows.push(MigrationRow {
            version,
            name,
            checksum: match (file, changed) {
                (Some(file), false) => file.checksum.clone(),
                _ => row.checksum.clone().unwrap_or_default(),
            },
            loose_checksum: file.filter(|_| !changed).map(|file| file.loose_checksum.clone()),
            batch: row.batch.unwrap_or(self.batch),
            state: state.to_owned(),
            applied_at: row.at.unwrap_or_else(crate::clock::now),
            execution_time_ms: row.duration_ms.unwrap_or(0),
            success: state != "failed",
            error: row.error.clone(),
            applied_by: row.by.clone().unwrap_or_else(|| known.owner.clone()),
            approver: None,
            git_commit: None,
            run: None,
            tool_version: format!("adopted from {}", known.label()),
            up_sql: file.filter(|_| !changed).map(|file| file.up.sql.to_string()),
            // What was applied with it, where that may be believed; else what the file says now.
            down_sql: if changed { trusted } else { own_down.or(trusted) },
        });
    }

    /// Two files that share a number cannot both be in effect under it: the second is known by its whole name.
    fn version_of(&self, file: &Migration) -> String {
        let first = self.folder.migrations.iter().find(|other| other.version == file.version);
        match first.is_some_and(|first| first.file_name != file.file_name) {
            true => file.label(),
            false => file.version.to_string(),
        }
    }

    fn finish(&mut self, tables: &[OldTable]) {
        let meant = |file: &Migration| {
            let whole = Version(file.label());
            let is =
                |version: &str| Version(version.to_owned()) == file.version || Version(version.to_owned()) == whole;
            self.there.iter().any(|row| matches!(row.state.as_str(), "applied" | "baseline") && is(&row.version))
                || self.rows.iter().any(|row| row.state == "applied" && is(&row.version) && (row.name == file.name))
        };
        self.told.pending =
            self.folder.migrations.iter().filter(|file| !meant(file)).map(|file| file.file_name.clone()).collect();
        if tables.iter().any(|table| table.known.holds == Holds::Drizzle) && !self.told.pending.is_empty() {
            self.told.notes.push(
                "what Drizzle has no row of is pending; where it was run by hand: ripcord baseline NAME".to_owned(),
            );
        }
        let gone = self.told.lines.iter().filter(|line| line.file.is_none() && line.state == "applied").count();
        if gone > 0 {
            self.told.notes.push(format!("{gone} applied migrations have no file in `{}`", self.folder.path.display()));
        }
        self.told.notes.dedup();
    }
}

struct Compared {
    file: Option<usize>,
    checksum: &'static str,
}

/// The file that a row's words mean: all of them together, where its number alone means several.
fn find(files: &[Migration], row: &OldRow) -> Option<usize> {
    let identity = row.identity.rsplit('/').next().unwrap_or_default().trim();
    if identity.is_empty() {
        return None;
    }
    let by_file = |wanted: &str| {
        files.iter().position(|file| file.file_name == wanted || file.file_name == format!("{wanted}.sql"))
    };
    if let Some(at) = by_file(identity) {
        return Some(at);
    }
    let called: Vec<usize> =
        files.iter().enumerate().filter(|(_, file)| file.is_called(identity)).map(|(at, _)| at).collect();
    match called.as_slice() {
        [at] => Some(*at),
        several => several
            .iter()
            .copied()
            .find(|at| files.get(*at).is_some_and(|file| row.name.as_deref().is_some_and(|name| file.is_called(name)))),
    }
}

/// SHA-256 of a file in each way that a tool is known to take it: its bytes, without white space around, with the line
/// ends of Unix, and of its UP alone.
fn digests(migration: &Migration) -> Vec<String> {
    let bytes = std::fs::read(&migration.path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let unix = text.replace("\r\n", "\n");
    let texts = [text.trim(), unix.as_str(), unix.trim(), &*migration.up.sql, migration.up.sql.trim()];
    let mut digests = vec![hex::encode(Sha256::digest(&bytes))];
    digests.extend(texts.iter().map(|text| hex::encode(Sha256::digest(text.as_bytes()))));
    digests
}

/// Version and name of a migration without a file.
fn nameless(row: &OldRow, known: &Known) -> (String, String) {
    let identity = match known.holds {
        Holds::Drizzle => format!("drizzle {}", row.name.as_deref().unwrap_or_default()),
        _ => row.identity.rsplit('/').next().unwrap_or_default().trim().to_owned(),
    };
    let stem = source::names::stem(&identity).unwrap_or(&identity).to_owned();
    let named = source::names::parse(&stem);
    let name = match (&row.name, named.name.is_empty()) {
        (Some(name), true) if known.holds != Holds::Drizzle => name.clone(),
        _ => named.name,
    };
    (named.version, name)
}

/// `applied`, `failed` or `rolled_back`: a row counts as applied only when it says so, or says nothing.
fn state_of(row: &OldRow, notes: &mut Vec<String>, known: &Known) -> &'static str {
    let word = row.status.as_deref().map(|word| word.trim().to_ascii_lowercase());
    let by_word = match word.as_deref() {
        None => None,
        Some(
            "completed" | "complete" | "applied" | "success" | "succeeded" | "successful" | "executed" | "done" | "ok",
        ) => Some("applied"),
        Some("rolled_back" | "rolledback" | "rolled-back" | "rollback" | "reverted") => Some("rolled_back"),
        Some("failed" | "failure" | "error") => Some("failed"),
        Some(other) => {
            let note = format!("status `{other}` in `{}` is taken for a failed attempt", known.label());
            if !notes.contains(&note) {
                notes.push(note);
            }
            Some("failed")
        }
    };
    let told = known.column(crate::control::known::Role::Success).is_some();
    match (by_word, row.success) {
        (Some(word), None) => word,
        (Some("applied") | None, Some(true)) => "applied",
        (Some(word), Some(true)) => word,
        (Some("rolled_back"), Some(false)) => "rolled_back",
        (_, Some(false)) => "failed",
        (None, None) if told => {
            let note =
                format!("rows of `{}` that do not say whether they went well are taken for failed", known.label());
            if !notes.contains(&note) {
                notes.push(note);
            }
            "failed"
        }
        (None, None) => "applied",
    }
}

/// A table of another tool that nobody has taken over, for `status` and `doctor`.
#[derive(Clone, Debug)]
pub struct Unadopted {
    /// `schema.table`.
    pub table: String,
    /// Its rows, where they may be read.
    pub rows: Option<i64>,
    /// Who owns it.
    pub owner: String,
}

/// Histories of other tools that hold rows and were not adopted.
pub async fn unadopted(ctx: &Context, session: &Session) -> Result<Vec<Unadopted>> {
    let client = session.client();
    let found = known::find(client, ctx.left_out()).await?;
    let mut left = Vec::new();
    let done = match known::histories(&found).next() {
        Some(_) if context::lineage_of(session).await?.is_some() => control::adopt::adopted(client).await?,
        _ => Vec::new(),
    };
    for known in known::histories(&found).filter(|known| !done.contains(&known.label())) {
        let rows = known::count(client, known).await?;
        if rows != Some(0) {
            left.push(Unadopted { table: known.label(), rows, owner: known.owner.clone() });
        }
    }
    Ok(left)
}

/// Where nothing of ours is in effect, and another tool says that something is applied, nobody knows what is pending.
pub async fn refuse_unadopted(ctx: &Context, session: &Session, in_effect: usize) -> Result<()> {
    if in_effect > 0 {
        return Ok(());
    }
    // A restore may have brought back the database of before an adoption: then its table counts again.
    let found = known::find(session.client(), ctx.left_out()).await?;
    for known in known::histories(&found) {
        let rows = known::count(session.client(), known).await?;
        if rows == Some(0) {
            continue;
        }
        let rows = rows.map_or_else(String::new, |rows| format!(" ({rows} rows)"));
        return Err(Error::refused(format!(
            "another tool's table `{}`{rows}, owned by `{}`, tells what is applied here, and it was not adopted",
            known.label(),
            known.owner
        ))
        .because("every migration would run again")
        .hint("ripcord adopt --dry-run, then: ripcord adopt"));
    }
    Ok(())
}
