//! Periods of the calendar, spans and sizes, as reasons name them.

use std::time::Duration;

use chrono::{Datelike, Timelike};

use crate::clock::Time;

/// A period that a rule counts, in UTC.
#[derive(Clone, Copy)]
pub(super) enum Period {
    Hour,
    Day,
    /// ISO 8601: Monday to Sunday, and its own year.
    Week,
    Month,
    Year,
}

impl Period {
    pub(super) fn word(self) -> &'static str {
        match self {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Week => "week",
            Period::Month => "month",
            Period::Year => "year",
        }
    }

    /// The period's name, equal for two moments exactly when both are in it.
    pub(super) fn name(self, at: Time) -> String {
        let day = at.date_naive();
        match self {
            Period::Hour => format!("{day} {:02}:00", at.hour()),
            Period::Day => day.to_string(),
            Period::Week => {
                let week = at.iso_week();
                format!("{}-W{:02}", week.year(), week.week())
            }
            Period::Month => format!("{}-{:02}", at.year(), at.month()),
            Period::Year => at.year().to_string(),
        }
    }
}

/// A span in the largest unit that gives a whole number.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    for (length, unit) in [(86_400, "d"), (3600, "h"), (60, "m")] {
        if seconds > 0 && seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

/// A size in the largest binary unit that gives a whole number.
pub(super) fn size(bytes: u64) -> String {
    for (power, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= power {
            return format!("{}{unit}", bytes >> power);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_utc_and_of_iso_weeks() {
        for (at, week) in [
            ("2024-12-30T00:00:00Z", "2025-W01"),
            ("2024-12-29T23:59:59Z", "2024-W52"),
            ("2027-01-03T12:00:00Z", "2026-W53"),
            ("2027-01-04T00:00:00Z", "2027-W01"),
        ] {
            assert_eq!(Period::Week.name(at.parse().unwrap()), week, "{at}");
        }
        let at = "2026-03-05T07:59:59+02:00".parse().unwrap();
        assert_eq!(Period::Hour.name(at), "2026-03-05 05:00");
        assert_eq!(Period::Day.name(at), "2026-03-05");
        assert_eq!(Period::Month.name(at), "2026-03");
        assert_eq!(Period::Year.name(at), "2026");
    }

    #[test]
    fn spans_and_sizes_are_whole_numbers() {
        for (seconds, text) in [(7 * 86_400, "7d"), (36 * 3600, "36h"), (90 * 60, "90m"), (61, "61s"), (0, "0s")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        for (bytes, text) in [(10 << 30, "10GiB"), (1536 << 20, "1536MiB"), (5, "5 bytes"), (0, "0 bytes")] {
            assert_eq!(size(bytes), text);
        }
    }
}
