//! Whether the application is well: HTTP and command probes, N good answers in a row before a deadline.
//! Probes by SQL are asked by the operation that holds a session.

use std::time::Duration;

use serde::Serialize;

use crate::error::Result;
use crate::progress::Progress;
use crate::settings::HealthCheck;

/// One probe's answer.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// What was asked: the URL without credentials, or the command.
    pub subject: String,
    /// Whether it was well.
    pub healthy: bool,
    /// What was seen, in a few words: `200`, `503, expected 200`, `connection refused`.
    pub detail: String,
    /// How long it took.
    pub duration_ms: u64,
}

/// Asks once. Checks by SQL are an error here.
pub async fn probe(_check: &HealthCheck) -> Answer {
    todo!()
}

/// Asks until `successes` good answers in a row or the deadline; returns the last answer either way.
/// `ask` is called for each probe, so that the caller can answer checks by SQL.
pub async fn wait_green<F>(_check: &HealthCheck, _progress: &Progress, _ask: F) -> Answer
where
    F: AsyncFnMut(&HealthCheck) -> Answer,
{
    todo!()
}

/// Runs a hook or health command with `sh -c` in its own process group, a cleared environment plus
/// `environment`, and a limit; returns its last output line on failure.
pub async fn run_command(_command: &str, _environment: &[(String, String)], _limit: Duration) -> Result<()> {
    todo!()
}
