//! What is wrong with a folder before anything is touched.

use std::path::PathBuf;

use serde::Serialize;

use super::Migration;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Note,
    /// Stops a run where the environment's policy says so.
    Warning,
    /// Stops every run.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id, such as `syntax` or `missing-down`.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// In one sentence.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// Checks a folder: syntax by a PostgreSQL parser, duplicate versions, gaps, missing DOWN, empty files,
/// destructive statements (an error when `protected` and there is no DOWN), own transaction control.
pub fn lint(_migrations: &[Migration], _protected: bool) -> Vec<Finding> {
    todo!()
}
