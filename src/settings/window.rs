//! Maintenance windows: when an environment may be changed.

use chrono::{Datelike, Days, NaiveTime, Weekday};

use crate::clock::Time;

/// Days of the week and a span of time on each, in UTC. A span that ends before it begins goes over midnight, and
/// belongs to the day on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    days: [bool; 7],
    from: NaiveTime,
    to: NaiveTime,
}

/// As windows are written.
const EXAMPLE: &str = "`Sat,Sun 22:00-04:00`, `Mon-Fri 01:00-05:00` or `01:00-05:00`, in UTC";

impl Window {
    /// Reads one. The error says how they are written.
    pub fn parse(text: &str) -> Result<Window, String> {
        let wrong = || format!("`{text}` is no maintenance window such as {EXAMPLE}");
        let (days, span) = match text.trim().rsplit_once(char::is_whitespace) {
            Some((days, span)) => (Some(days.trim()), span),
            None => (None, text.trim()),
        };
        let (from, to) = span.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| match text {
            "24:00" => Ok(NaiveTime::MIN),
            other => NaiveTime::parse_from_str(other, "%H:%M").map_err(|_| wrong()),
        };
        let mut window = Window { days: [days.is_none(); 7], from: time(from)?, to: time(to)? };
        for part in days.into_iter().flat_map(|days| days.split(',')) {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            let day = |text: &str| text.trim().parse::<Weekday>().map_err(|_| wrong());
            let (mut at, last) = (day(first)?, day(last)?);
            loop {
                if let Some(is) = window.days.get_mut(at.num_days_from_monday() as usize) {
                    *is = true;
                }
                if at == last {
                    break;
                }
                at = at.succ();
            }
        }
        Ok(window)
    }

    /// Whether a moment lies in it.
    pub fn holds(&self, now: Time) -> bool {
        let time = now.time();
        let today = self.on(now.weekday());
        let yesterday = self.on(now.weekday().pred());
        if self.from < self.to {
            today && self.from <= time && time < self.to
        } else {
            (today && self.from <= time) || (yesterday && time < self.to)
        }
    }

    /// When it begins next, after a moment that it does not hold.
    pub fn next(&self, now: Time) -> Option<Time> {
        (0..=7_u64).find_map(|days| {
            let day = now.date_naive().checked_add_days(Days::new(days))?;
            let at = day.and_time(self.from).and_utc();
            (self.on(day.weekday()) && at > now).then_some(at)
        })
    }

    fn on(&self, day: Weekday) -> bool {
        self.days.get(day.num_days_from_monday() as usize).copied().unwrap_or(false)
    }
}

/// When the next of these windows begins; `None`: a moment lies in one, or there are none.
pub fn closed_until(windows: &[Window], now: Time) -> Option<Time> {
    if windows.iter().any(|window| window.holds(now)) {
        return None;
    }
    windows.iter().filter_map(|window| window.next(now)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 is a Saturday.
    fn at(day: u32, time: &str) -> Time {
        format!("2026-11-{day:02}T{time}:00Z").parse().unwrap()
    }

    #[test]
    fn a_window_holds_its_days_and_times() {
        for (text, inside, outside) in [
            ("01:00-05:00", vec![at(21, "01:00"), at(25, "04:59")], vec![at(21, "05:00"), at(21, "00:59")]),
            ("Sat,Sun 22:00-04:00", vec![at(21, "22:00"), at(22, "03:59"), at(23, "03:59")], vec![at(21, "03:59")]),
            ("Mon-Fri 00:00-24:00", vec![at(23, "00:00"), at(27, "23:59")], vec![at(21, "12:00"), at(22, "12:00")]),
            ("Fri-Mon 12:00-13:00", vec![at(20, "12:00"), at(23, "12:59")], vec![at(24, "12:00")]),
        ] {
            let window = Window::parse(text).unwrap();
            assert!(inside.iter().all(|at| window.holds(*at)), "{text}");
            assert!(outside.iter().all(|at| !window.holds(*at)), "{text}");
        }
        for wrong in ["", "Sat", "Someday 01:00-02:00", "1-2", "25:00-26:00", "Sat-x 01:00-02:00"] {
            assert!(Window::parse(wrong).unwrap_err().contains("no maintenance window"), "{wrong}");
        }
    }

    #[test]
    fn the_next_one_is_told() {
        let windows = [Window::parse("Sat 22:00-23:00").unwrap(), Window::parse("Mon 02:00-03:00").unwrap()];
        assert_eq!(closed_until(&windows, at(21, "12:00")), Some(at(21, "22:00")));
        assert_eq!(closed_until(&windows, at(21, "22:30")), None);
        assert_eq!(closed_until(&windows, at(21, "23:00")), Some(at(23, "02:00")));
        assert_eq!(closed_until(&windows[..1], at(21, "23:00")), Some(at(28, "22:00")));
        assert_eq!(closed_until(&[], at(21, "12:00")), None);
    }
}
