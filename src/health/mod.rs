//! Whether the application is well: HTTP and command probes, N good answers in a row before a deadline.
//! Probes by SQL are asked by the operation that holds a session.

mod command;
mod http;

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::progress::Progress;
use crate::settings::{HealthCheck, HealthProbe};

pub use command::run_command;

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

/// What a check asks, as a person may see it: the URL without user, password and query, the command, or
/// the SQL.
pub fn subject(check: &HealthCheck) -> String {
    match &check.probe {
        HealthProbe::Url { url, .. } => http::shown(url),
        HealthProbe::Command(command) => command::shown(command),
        HealthProbe::Sql(sql) => command::shown(sql),
    }
}

/// Asks once. Checks by SQL are an error here.
///
/// A URL is asked directly, without a proxy, and redirects are followed three times at most and only
/// on the host that was named. A command gets no more of the environment than [`run_command`] gives.
pub async fn probe(check: &HealthCheck) -> Answer {
    let began = Instant::now();
    let seen = match &check.probe {
        HealthProbe::Url { .. } => http::ask(check).await,
        HealthProbe::Command(command) => run_command(command, &[], check.timeout)
            .await
            .map(|()| "exit status 0".to_owned())
            .map_err(|error| error.one_line()),
        HealthProbe::Sql(_) => Err("a check by SQL is asked in the target's session".to_owned()),
    };
    let (healthy, detail) = match seen {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    Answer {
        subject: subject(check),
        healthy,
        detail,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Asks until `successes` good answers in a row or the deadline; returns the last answer either way.
/// `ask` is called for each probe, so that the caller can answer checks by SQL.
///
/// The answer returned is healthy exactly when it is green: a good one that was not the last of
/// `successes` in a row is returned as not healthy. The last probe begins at the deadline, and its
/// answer counts when it comes within one probe's own limit after it.
pub async fn wait_green<F>(check: &HealthCheck, progress: &Progress, mut ask: F) -> Answer
where
    F: AsyncFnMut(&HealthCheck) -> Answer,
{
    let wanted = check.successes.max(1);
    let deadline = after(Instant::now(), check.deadline);
    let mut in_a_row = 0_u32;
    let mut told: Option<(bool, String)> = None;
    loop {
        let began = Instant::now();
        // A probe limits itself; this is for one that does not.
        let limit = after(deadline, check.timeout);
        let mut answer = match timeout_at(limit, ask(check)).await {
            Ok(answer) => answer,
            Err(_) => Answer {
                subject: subject(check),
                healthy: false,
                detail: "no answer before the deadline".to_owned(),
                duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
        };
        // Only changes are told: a line a probe would bury them.
        let seen = (answer.healthy, answer.detail.clone());
        if told.as_ref() != Some(&seen) {
            progress.note(format!("health: `{}`: {}", answer.subject, answer.detail));
            told = Some(seen);
        }
        if answer.healthy {
            in_a_row += 1;
            if in_a_row >= wanted {
                return answer;
            }
        } else {
            in_a_row = 0;
        }
        let now = Instant::now();
        if now >= deadline {
            if answer.healthy {
                answer.healthy = false;
                answer.detail = format!(
                    "{}, but only {in_a_row} of {wanted} good answers in a row before the deadline",
                    answer.detail
                );
            }
            return answer;
        }
        sleep_until(after(now, check.interval).min(deadline)).await;
    }
}

/// A moment later by `span`; one that no clock can hold is as far away as a year.
fn after(moment: Instant, span: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    moment + span.min(YEAR)
}

#[cfg(test)]
mod tests;
