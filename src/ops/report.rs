//! What an operation returns: how it ended, in which state the database is, and what to run next.

use serde::Serialize;

/// How an operation ended. Each has one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything that was asked for was done.
    Done,
    /// There was nothing to do, and nothing was written.
    NothingToDo,
    /// It failed, and the database was not changed.
    Unchanged,
    /// What was given is not valid; nothing was touched.
    Invalid,
    /// It failed, and DOWN scripts or transactions brought the database back, with proof.
    RolledBack,
    /// It failed, and the backup brought the database back, with proof.
    Restored,
    /// It failed, and the database was not brought back.
    NotRecovered,
    /// It stopped partway because that was asked for.
    StoppedPartway,
    /// Another run holds the lock.
    Locked,
    /// A backup, a database or a proof did not hold what it should.
    VerificationFailed,
    /// A policy or a missing approval stopped it.
    Refused,
}

impl Outcome {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done | Outcome::NothingToDo => 0,
            Outcome::Unchanged | Outcome::Invalid => 1,
            Outcome::RolledBack | Outcome::Restored => 3,
            Outcome::NotRecovered | Outcome::StoppedPartway => 4,
            Outcome::Locked => 5,
            Outcome::VerificationFailed => 6,
            Outcome::Refused => 7,
        }
    }
}

/// One migration of a run.
#[derive(Clone, Debug, Serialize)]
pub struct MigrationReport {
    /// Its version.
    pub version: String,
    /// Its name.
    pub name: String,
    /// `applied`, `failed`, `rolled_back` or `skipped`.
    pub status: String,
    /// Why it was chosen: `pending`, `changed`, `again`, …
    pub reason: String,
    /// How long it took.
    pub duration_ms: u64,
    /// What went wrong, on one line.
    pub error: Option<String>,
}

/// The result of an operation. Serialised, it is the last line of `--json` output.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The command's name.
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The process's exit code, which the outcome decides.
    pub exit_code: u8,
    /// The run, when one was begun.
    pub run_id: Option<crate::ids::RunId>,
    /// The backup that was taken or used.
    pub backup_id: Option<crate::ids::BackupId>,
    /// The batch that the migrations belong to.
    pub batch: Option<i32>,
    /// The state of the database in one line: `unchanged`, ``restored from backup `…` ``, …
    pub database: String,
    /// The migrations, in the order that they were run in.
    pub migrations: Vec<MigrationReport>,
    /// What was compared to believe the outcome.
    pub proof: serde_json::Value,
    /// Rows that others wrote after the backup; `None`: not counted or not knowable.
    pub writes_since_backup: Option<u64>,
    /// What went wrong, on one line.
    pub error: Option<String>,
    /// What to run next.
    pub hint: Option<String>,
    /// What went wrong, with its causes, for people.
    #[serde(skip)]
    pub failure: Option<crate::Error>,
}
