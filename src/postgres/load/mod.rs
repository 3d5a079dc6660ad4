//! A dump's contents → an empty database.

use std::io::Read;
use std::sync::Arc;

use super::{Target, Tools};
use crate::error::Result;
use crate::progress::Progress;

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
    /// The whole dump, front to back.
    fn whole(&self) -> Result<Box<dyn Read + Send>>;
    /// One table's COPY text.
    fn rows(&self, block: usize) -> Result<Box<dyn Read + Send>>;
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
    /// Rows by `schema.table`, as COPY counted them.
    pub rows: Vec<(String, u64)>,
    /// What pg_restore said on stderr without failing.
    pub warnings: Vec<String>,
}

/// Loads into `target` (a fresh scratch database): pre-data from the table of contents, rows over `jobs`
/// connections, largest first, large objects and sequence values, post-data with `-j`. The table of
/// contents goes to pg_restore as a memfd, never as a file. Where names or statements cannot be sent as
/// UTF-8 (SQL_ASCII, other encodings), the whole dump is piped to one pg_restore instead. Every row
/// count is checked. Always `-e`.
pub async fn load(_tools: &Tools, _target: &Target, _plan: &LoadPlan, _progress: &Progress) -> Result<Loaded> {
    todo!()
}

/// In place: pipes the whole dump to `pg_restore -1 --clean --if-exists -e` in `target`.
pub async fn load_in_place(_tools: &Tools, _target: &Target, _plan: &LoadPlan, _progress: &Progress) -> Result<Loaded> {
    todo!()
}
