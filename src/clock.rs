//! The one place that asks what time it is.

use chrono::{DateTime, SubsecRound, Utc};

/// A moment, in UTC.
pub type Time = DateTime<Utc>;

/// The present moment, cut to microseconds: what PostgreSQL's `timestamptz` can hold, so that a
/// moment compares equal to itself after a round trip through a table.
pub fn now() -> Time {
    Utc::now().trunc_subsecs(6)
}
