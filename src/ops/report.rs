//! What an operation that changes something says at its end.

use serde::Serialize;

use crate::error::{Error, Kind};
use crate::ids::{BackupId, RunId};

/// How a run ended. Each has one exit code, and scripts hold on to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything asked for was done.
    Done,
    /// There was nothing to do, and nothing was written.
    NothingToDo,
    /// It failed, and the database is as it was.
    Unchanged,
    /// Validation stopped it before anything was touched.
    Invalid,
    /// It failed, and DOWN scripts brought the database back, with proof.
    RolledBack,
    /// It failed, and a restore brought the database back.
    Restored,
    /// It failed, and the database was not brought back.
    NotRecovered,
    /// It was stopped partway because the settings ask for that.
    StoppedPartway,
    /// Another run holds the lock.
    Locked,
    /// A backup or a database does not hold what it should.
    VerificationFailed,
    /// An approval is missing or a policy forbids it.
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

    /// The outcome of a failure before anything was touched.
    pub fn of(error: &Error) -> Outcome {
        match error.kind() {
            Kind::Failed | Kind::Usage => Outcome::Unchanged,
            Kind::Locked => Outcome::Locked,
            Kind::Verification => Outcome::VerificationFailed,
            Kind::Refused => Outcome::Refused,
            Kind::NotRecovered => Outcome::NotRecovered,
        }
    }
}

/// One migration's part in a run.
#[derive(Clone, Debug, Serialize)]
pub struct MigrationReport {
    /// Version.
    pub version: String,
    /// Name.
    pub name: String,
    /// `pending`, `applied`, `failed`, `rolled_back`, `skipped`.
    pub status: String,
    /// Why it was part of the run: `pending`, `changed`, …
    pub reason: String,
    /// How long it took.
    pub duration_ms: u64,
    /// What went wrong.
    pub error: Option<String>,
    /// In a plan: the files that may run at the same time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
}

/// The end of a run: the result object of `--json`, and the last lines on the terminal.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// `apply`, `rollback`, `restore`, `recover`, …
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The process's exit code.
    pub exit_code: u8,
    /// The run.
    pub run_id: Option<RunId>,
    /// The backup that it took or restored.
    pub backup_id: Option<BackupId>,
    /// The batch of its migrations.
    pub batch: Option<i32>,
    /// The state of the database in one line.
    pub database: String,
    /// Its migrations.
    pub migrations: Vec<MigrationReport>,
    /// What was compared to prove the state of the database.
    pub proof: serde_json::Value,
    /// Rows that others wrote after the backup, where they were counted.
    pub writes_since_backup: Option<u64>,
    /// The first failure, on one line.
    pub error: Option<String>,
    /// The one command to run next.
    pub hint: Option<String>,
    /// The first failure with its causes, for the terminal.
    #[serde(skip)]
    pub failure: Option<Error>,
}

impl RunReport {
    /// A report with nothing in it but how the run ended and what state the database is in.
    pub fn new(command: &str, outcome: Outcome, database: impl Into<String>) -> RunReport {
        RunReport {
            command: command.to_owned(),
            outcome,
            exit_code: outcome.exit_code(),
            run_id: None,
            backup_id: None,
            batch: None,
            database: database.into(),
            migrations: Vec::new(),
            proof: serde_json::Value::Null,
            writes_since_backup: None,
            error: None,
            hint: None,
            failure: None,
        }
    }

    /// The report of a failure before anything was touched.
    pub fn untouched(command: &str, error: Error) -> RunReport {
        let outcome = Outcome::of(&error);
        let mut report = RunReport::new(command, outcome, "unchanged").failed(error.clone());
        // A wrong command line or configuration has its own code; the database is untouched all the same.
        report.exit_code = error.kind().exit_code();
        report
    }

    /// Adds the failure; its hint becomes the report's.
    pub fn failed(mut self, error: Error) -> RunReport {
        self.error = Some(error.one_line());
        if let Some(hint) = error.hint_text() {
            self.hint = Some(hint.to_owned());
        }
        self.failure = Some(error);
        self
    }

    /// Sets the next command, in place of the failure's own hint.
    pub fn hint(mut self, hint: impl Into<String>) -> RunReport {
        self.hint = Some(hint.into());
        self
    }
}
