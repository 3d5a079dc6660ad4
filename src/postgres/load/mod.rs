//! A dump's contents → an empty database.

mod analyze;
mod child;
mod early;
mod foreign;
mod gate;
mod rows;
mod script;
mod tables;
mod witness;

use std::io::Read;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Session, TEXT_SETTINGS, Target, Tools};
use crate::error::{Error, Result};
use crate::progress::{Event, Progress};
pub use analyze::analyze;
use child::{Input, Memory, STDIN_PATH, run};
use early::Builder;
pub use foreign::{Script, load_file, run_script};
pub use gate::{Gate, Waiting, committed};
pub use script::write_script;
pub use tables::{Selection, copy_rows, load_selected, prepare, read_rows};
pub use witness::{Witness, Witnesses};

/// The step that bytes are told of.
const STEP: &str = "load";

/// A table's rows to load.
#[derive(Clone, Debug)]
pub struct TableLoad {
    /// For the data source.
    pub block: usize,
    /// `schema.table`, for messages.
    pub table: String,
    /// The dump's own COPY statement, in the database's encoding.
    pub copy_statement: Vec<u8>,
    /// Rows that must arrive.
    pub rows: u64,
    /// COPY text's bytes, for the order and the progress.
    pub bytes: u64,
}

/// Where the bytes come from; implemented over an archive by the restore operation.
pub trait DataSource: Send + Sync {
    /// The dump's header and table of contents alone (`pg_restore` takes it as a dump without data).
    fn table_of_contents(&self) -> Result<Vec<u8>>;
    /// The same with the large objects' data blocks spliced in; `None` when there are none.
    fn with_large_objects(&self) -> Result<Option<Box<dyn Read + Send>>>;
    /// The whole dump, front to back, behind this header and table of contents: its own, or one made of them.
    fn whole(&self, contents: Vec<u8>) -> Result<Box<dyn Read + Send>>;
    /// One table's COPY text.
    fn rows(&self, block: usize) -> Result<Box<dyn Read + Send>>;
    /// The entries, by their numbers, that may be restored as soon as these rows are in, while others are still
    /// being loaded: the table's own indexes. None: they wait for the rest.
    fn indexes_of(&self, _block: usize) -> Vec<i32> {
        Vec::new()
    }
}

/// What to load and how.
#[derive(Clone)]
pub struct LoadPlan {
    /// Where the bytes come from.
    pub source: Arc<dyn DataSource>,
    /// The tables, any order.
    pub tables: Vec<TableLoad>,
    /// The dump's encoding, such as `UTF8`.
    pub encoding: String,
    /// Connections and pg_restore jobs at once.
    pub jobs: u32,
    /// Role that everything is done as, when not the target's own (`SET ROLE`).
    pub role: Option<String>,
    /// All plaintext bytes, for the progress.
    pub total_bytes: u64,
}

/// What was loaded.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Rows by `schema.table`, as COPY counted them; empty when the whole dump was piped to pg_restore, which
    /// counts none.
    pub rows: Vec<(String, u64)>,
    /// What pg_restore said on stderr without failing.
    pub warnings: Vec<String>,
}

/// Loads into `target` (a fresh scratch database): pre-data from the table of contents, rows over `jobs`
/// connections, largest first, large objects and sequence values, post-data with `-j`. A connection that has no
/// more rows to load builds the indexes of tables that are loaded. The table of
/// contents goes to pg_restore as a memfd, never as a file. Where names or statements cannot be sent as
/// UTF-8 (SQL_ASCII, other encodings), the whole dump is piped to one pg_restore instead. Every row
/// count is checked. Always `-e`.
///
/// pg_restore counts no rows: where the whole dump was piped, [`Loaded::rows`] is empty, and it is for the
/// caller to read them back. Dropped, the children are ended and the connections closed; the database is
/// then half loaded and good for nothing but being dropped.
pub async fn load(tools: &Tools, target: &Target, plan: &LoadPlan, progress: &Progress) -> Result<Loaded> {
    let counter = Arc::new(Counter::new(progress, plan.total_bytes));
    let mut restore = Restore { tools, target, role: plan.role.as_deref(), fresh: true, sort_memory: None };
    if !is_utf8(plan) {
        let input = stream(plan.source.whole(plan.source.table_of_contents()?)?, &counter);
        let said = restore.run(&["--exit-on-error"], input, None, "the dump could not be loaded").await?;
        return Ok(Loaded { rows: Vec::new(), warnings: said });
    }
    let source = Arc::clone(&plan.source);
    let contents = blocking(move || source.table_of_contents()).await?;
    let contents = Memory::new(&contents)?;
    let memory = || Input::Memory(contents.clone());

    // What the rows go into.
    let before = ["--exit-on-error", "--section=pre-data", STDIN_PATH];
    let mut warnings = restore.run(&before, memory(), None, "the schema could not be loaded").await?;

    // The rows, and indexes while the last of them are on their way.
    restore.sort_memory = sort_memory(target, plan.jobs.max(1)).await?;
    let builder = Arc::new(Builder::new(&restore, contents.clone()));
    let (rows, built) = rows::load_and_build(target, plan, &counter, Some(&builder)).await?;
    warnings.extend(builder.warnings());

    // What else is data: large objects, and the sequences' values.
    if let Some(list) = restore.other_data(memory()).await? {
        let list = Memory::new(&list)?;
        let failed = "large objects and sequence values could not be loaded";
        let source = Arc::clone(&plan.source);
        warnings.extend(match blocking(move || source.with_large_objects()).await? {
            Some(reader) => {
                let arguments = ["--exit-on-error", "--section=data"];
                restore.run(&arguments, stream(reader, &counter), Some(&list), failed).await?
            }
            None => {
                let arguments = ["--exit-on-error", "--section=data", STDIN_PATH];
                restore.run(&arguments, memory(), Some(&list), failed).await?
            }
        });
    }

    // Indexes, constraints, triggers, the refresh of materialized views.
    let jobs = format!("--jobs={}", plan.jobs.max(1));
    let after = ["--exit-on-error", "--section=post-data", &jobs, STDIN_PATH];
    let failed = "indexes, constraints and triggers could not be loaded";
    for part in restore.post_data(memory(), &built).await? {
        let arguments = if part.at_once { &after[..] } else { &["--exit-on-error", "--section=post-data", STDIN_PATH] };
        warnings.extend(restore.run(arguments, memory(), Some(&part.list), failed).await?);
    }
    Ok(Loaded { rows, warnings })
}

/// In place: pipes the whole dump, with this table of contents, to `pg_restore -1 --clean --if-exists -e` in `target`.
/// All of it is one transaction: on an error the database is as it was.
pub async fn load_in_place(
    tools: &Tools,
    target: &Target,
    plan: &LoadPlan,
    contents: Vec<u8>,
    progress: &Progress,
) -> Result<Loaded> {
    let counter = Arc::new(Counter::new(progress, plan.total_bytes));
    let restore = Restore { tools, target, role: plan.role.as_deref(), fresh: false, sort_memory: None };
    let arguments = ["--exit-on-error", "--single-transaction", "--clean", "--if-exists"];
    let input = stream(plan.source.whole(contents)?, &counter);
    let said = restore.run(&arguments, input, None, "the dump could not be loaded in place").await?;
    Ok(Loaded { rows: Vec::new(), warnings: said })
}

/// Whether everything can go through our own sessions, which speak UTF-8.
fn is_utf8(plan: &LoadPlan) -> bool {
    matches!(plan.encoding.to_ascii_uppercase().as_str(), "UTF8" | "UTF-8")
        && plan.tables.iter().all(|table| std::str::from_utf8(&table.copy_statement).is_ok())
}

/// What each of `jobs` sessions may sort in, `None` when it has that much already. All of them together get
/// half of what the server's owner gave its cache, which tells a small server from a large one better than
/// `maintenance_work_mem`, left at its 64 MB on most; more than 1 GB for one speeds up little.
async fn sort_memory(target: &Target, jobs: u32) -> Result<Option<String>> {
    let session = Session::connect(target, "restore", target.connect_timeout()).await?;
    let row = session
        .client()
        .query_one(
            // language=SQL
            "SELECT least(pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 2 / $1, \
                          1073741824) / 1024, \
                    pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) / 1024",
            &[&i64::from(jobs)],
        )
        .await
        .map_err(|error| session.explain(&error))?;
    let (wanted, set) = (row.try_get::<_, i64>(0), row.try_get::<_, i64>(1));
    session.close().await;
    match (wanted, set) {
        (Ok(wanted), Ok(set)) if wanted > set => Ok(Some(format!("{wanted}kB"))),
        _ => Ok(None),
    }
}

/// pg_restore into one database.
struct Restore<'a> {
    tools: &'a Tools,
    target: &'a Target,
    role: Option<&'a str>,
    /// The database is new and of no use before the load has ended.
    fresh: bool,
    /// `maintenance_work_mem` for its sessions, when it is to be another than the server's.
    sort_memory: Option<String>,
}

impl Restore<'_> {
    /// Runs it with these arguments, and returns what it said.
    async fn run(
        &self,
        arguments: &[&str],
        input: Input,
        list: Option<&Memory>,
        failed: &'static str,
    ) -> Result<Vec<String>> {
        let mut command = self.command();
        // An empty name leaves the choice to PGDATABASE, which takes any name as it is.
        command.args(["--no-password", "--dbname="]);
        if let Some(role) = self.role {
            command.arg(format!("--role={role}"));
        }
        command.args(arguments);
        Ok(run(command, input, list, failed).await?.stderr)
    }

    /// The list, for `--use-list`, of the data entries that are not tables' rows; `None` when there are none.
    async fn other_data(&self, contents: Input) -> Result<Option<Vec<u8>>> {
        let listed = self.listed("--section=data", contents).await?;
        let mut list = Vec::new();
        for line in listed.split_inclusive(|byte| *byte == b'\n').filter(|line| is_other_data(line)) {
            list.extend_from_slice(line);
        }
        Ok((!list.is_empty()).then_some(list))
    }

    /// The post-data entries that were not built yet, in parts of which each waits for the one before. Indexes are
    /// attached to those of partitioned tables one after the other: two sessions that attach at once do not see each
    /// other's, and each leaves an index above them invalid.
    async fn post_data(&self, contents: Input, built: &[i32]) -> Result<Vec<Part>> {
        let listed = self.listed("--section=post-data", contents).await?;
        let (mut all, mut indexes, mut attached, mut rest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for line in listed.split_inclusive(|byte| *byte == b'\n') {
            if entry_number(line).is_some_and(|number| !built.contains(&number)) {
                all.extend_from_slice(line);
                match kind_of(line) {
                    kind if kind.starts_with(b"INDEX ATTACH ") => &mut attached,
                    kind if kind.starts_with(b"INDEX ") || kind.starts_with(b"CONSTRAINT ") => &mut indexes,
                    _ => &mut rest,
                }
                .extend_from_slice(line);
            }
        }
        let parts = if attached.is_empty() {
            vec![(all, true)]
        } else {
            vec![(indexes, true), (attached, false), (rest, true)]
        };
        let parts = parts.into_iter().filter(|(list, _)| !list.is_empty());
        parts.map(|(list, at_once)| Ok(Part { list: Memory::new(&list)?, at_once })).collect()
    }

    /// The lines of a section's entries.
    async fn listed(&self, section: &str, contents: Input) -> Result<Vec<u8>> {
        let mut command = self.command();
        command.args(["--list", section, STDIN_PATH]);
        Ok(run(command, contents, None, "the table of contents could not be listed").await?.stdout)
    }

    fn command(&self) -> Command {
        // How the dump wrote its values; and our own fence must not stop us.
        let mut settings = TEXT_SETTINGS.to_vec();
        settings.push(("default_transaction_read_only", "off"));
        if self.fresh {
            // A crash loses the scratch database anyway, and the swap's commit waits for all before it.
            settings.push(("synchronous_commit", "off"));
        }
        if let Some(sort_memory) = &self.sort_memory {
            settings.push(("maintenance_work_mem", sort_memory));
        }
        super::tools::client(&self.tools.pg_restore, self.target, &settings)
    }
}

/// Entries to restore.
struct Part {
    list: Memory,
    /// Several sessions may.
    at_once: bool,
}

/// A line of `pg_restore --list` from the kind of its entry on.
fn kind_of(line: &[u8]) -> &[u8] {
    line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or_default()
}

/// The number at the start of a line of `pg_restore --list`.
fn entry_number(line: &[u8]) -> Option<i32> {
    let end = line.iter().position(|byte| *byte == b';')?;
    std::str::from_utf8(line.get(..end)?).ok()?.parse().ok()
}

/// A line of `pg_restore --list` (`3470; 0 0 SEQUENCE SET public sq owner`) that is no table's rows.
fn is_other_data(line: &[u8]) -> bool {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let is_entry = words.next().is_some_and(|id| id.ends_with(b";") && id.len() > 1);
    is_entry && words.nth(2).is_some_and(|rest| !rest.starts_with(b"TABLE DATA "))
}

fn stream(reader: Box<dyn Read + Send>, counter: &Arc<Counter>) -> Input {
    let counter = Arc::clone(counter);
    Input::Stream(reader, Box::new(move |bytes| counter.add(bytes, None)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::failed("the backup could not be read").because(error))?
}

/// Bytes so far, told as they move.
struct Counter {
    progress: Progress,
    done: AtomicU64,
    total: u64,
}

impl Counter {
    fn new(progress: &Progress, total: u64) -> Counter {
        Counter { progress: progress.clone(), done: AtomicU64::new(0), total }
    }

    fn add(&self, bytes: u64, table: Option<&str>) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = (self.total > 0).then_some(self.total);
        self.progress.tell(Event::Bytes { step: STEP, done, total, table: table.map(str::to_owned) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrys_number_is_read_from_its_line() {
        assert_eq!(entry_number(b"3302; 2606 16391 CONSTRAINT public t t_pkey owner\n"), Some(3302));
        for line in [&b";\n"[..], b"; Selected TOC Entries:\n", b"\n", b"x; 1"] {
            assert_eq!(entry_number(line), None);
        }
    }

    #[test]
    fn tables_rows_are_left_out_of_the_list() {
        for line in [
            &b"3470; 0 0 SEQUENCE SET public sq owner\n"[..],
            b"3465; 0 0 BLOBS - BLOBS \n",
            b"3464; 2613 16501 BLOB METADATA - 16501 owner\n",
            b"3474; 0 0 COMMENT - LARGE OBJECT 16501 owner\n",
            b"9; 0 0 SEQUENCE SET TABLE DATA x \xe9\n",
        ] {
            assert!(is_other_data(line), "{}", String::from_utf8_lossy(line));
        }
        for line in [&b"3455; 0 16440 TABLE DATA public fa owner\n"[..], b";\n", b"; Selected TOC Entries:\n", b"\n"] {
            assert!(!is_other_data(line), "{}", String::from_utf8_lossy(line));
        }
    }
}
