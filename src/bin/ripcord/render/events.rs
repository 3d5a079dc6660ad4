//! Events as they come: bars on a terminal, lines without one, JSON when asked for.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ripcord::progress::{Event, Observer};
use serde_json::Value;

use super::Renderer;
use crate::config::{Verbosity, units};

/// Without a terminal, moving bytes are told this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// In JSON, this often.
const JSON_INTERVAL: Duration = Duration::from_millis(500);

/// Renders what operations tell.
pub struct Events {
    out: Arc<Renderer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<(&'static str, ProgressBar)>,
    told: Option<(&'static str, Instant)>,
}

impl Events {
    /// Renders to `out`.
    pub fn new(out: Arc<Renderer>) -> Self {
        Events { out, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        match self.state.lock() {
            Ok(state) => state,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Whether it is time to tell bytes again; the end of a step's bytes is always told.
    fn due(&self, step: &'static str, interval: Duration, complete: bool) -> bool {
        let mut state = self.state();
        let due = complete || state.told.is_none_or(|(told, at)| told != step || at.elapsed() >= interval);
        if due {
            state.told = Some((step, Instant::now()));
        }
        due
    }

    fn end_bar(&self) {
        if let Some((_, bar)) = self.state().bar.take() {
            bar.finish_and_clear();
            self.out.bars().remove(&bar);
        }
    }

    fn move_bar(&self, step: &'static str, done: u64, total: Option<u64>, table: Option<&str>) {
        let mut state = self.state();
        if state.bar.as_ref().is_none_or(|(of, _)| *of != step) {
            if let Some((_, old)) = state.bar.take() {
                old.finish_and_clear();
            }
            let bar = match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            state.bar = Some((step, self.out.bars().add(bar.with_style(bar_style(total.is_some())))));
        }
        if let Some((_, bar)) = &state.bar {
            bar.set_prefix(step);
            if let Some(total) = total {
                // An estimate that was too low grows with what came.
                bar.set_length(total.max(done));
            }
            bar.set_position(done);
            bar.set_message(self.out.scrubbed(table.unwrap_or_default()));
        }
    }
}

impl Observer for Events {
    fn observe(&self, event: &Event) {
        match event {
            Event::Note { message } => return self.out.note(message),
            Event::Warning { message } => return self.out.warn(message),
            _ => {}
        }
        let style = self.out.style();
        if style.json {
            if let Event::Bytes { step, done, total, .. } = event
                && !self.due(step, JSON_INTERVAL, Some(*done) == *total)
            {
                return;
            }
            if style.verbosity > Verbosity::Quiet {
                self.out.json(serde_json::to_value(event).unwrap_or(Value::Null));
            }
        }
        match event {
            Event::Bytes { step, done, total, table } => {
                if style.json || style.verbosity == Verbosity::Quiet {
                    return;
                }
                if style.terminal {
                    self.move_bar(step, *done, *total, table.as_deref());
                } else if self.due(step, LINE_INTERVAL, false) {
                    self.out.say(&bytes_line(step, *done, *total, table.as_deref()));
                }
            }
            other => {
                if !matches!(other, Event::Retry { .. }) {
                    self.end_bar();
                }
                self.out.say(&line(other));
            }
        }
    }
}

fn bar_style(with_total: bool) -> ProgressStyle {
    let template = if with_total {
        "{prefix} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left {msg}"
    } else {
        "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec} {msg}"
    };
    // The templates are constants that a test renders; the fallback keeps a typo from ending a run.
    ProgressStyle::with_template(template)
        .map(|style| style.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn bytes_line(step: &str, done: u64, total: Option<u64>, table: Option<&str>) -> String {
    let mut line = format!("{step}: {}", units::show_size(done));
    if let Some(total) = total {
        line.push_str(&format!(" of about {}", units::show_size(total)));
    }
    if let Some(table) = table {
        line.push_str(&format!(", table `{table}`"));
    }
    line
}

/// An event in one line.
fn line(event: &Event) -> String {
    let detail = |step: &str, word: &str, detail: &str| match detail {
        "" => format!("{step}: {word}"),
        detail => format!("{step}: {detail}"),
    };
    match event {
        Event::StepBegan { step, detail: text } => detail(step, "begins", text),
        Event::StepFinished { step, detail: text } => match text.as_str() {
            "" => format!("{step}: done"),
            text => format!("{step}: done, {text}"),
        },
        Event::Bytes { step, done, total, table } => bytes_line(step, *done, *total, table.as_deref()),
        Event::MigrationBegan { version, name, direction } => {
            format!("{direction}: {}", label(version, name))
        }
        Event::MigrationFinished { version, name, direction, duration_ms } => {
            format!(
                "{direction}: {} done in {}",
                label(version, name),
                units::show_duration(Duration::from_millis(*duration_ms))
            )
        }
        Event::Retry { reason, attempt, delay_ms } => format!(
            "retry: attempt {attempt} in {}, because {reason}",
            units::show_duration(Duration::from_millis(*delay_ms))
        ),
        Event::Note { message } => format!("note: {message}"),
        Event::Warning { message } => format!("warning: {message}"),
    }
}

fn label(version: &str, name: &str) -> String {
    format!("`{}`", ripcord::migration::label(version, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for with_total in [true, false] {
            let bar = ProgressBar::hidden().with_style(bar_style(with_total));
            bar.set_position(1);
            bar.tick();
        }
        assert!(
            ProgressStyle::with_template(
                "{prefix} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left {msg}"
            )
            .is_ok()
        );
    }

    #[test]
    fn events_read_as_plain_lines() {
        let event = Event::MigrationFinished {
            version: "0042".to_owned(),
            name: "orders".to_owned(),
            direction: "up",
            duration_ms: 1_250,
        };
        assert_eq!(line(&event), "up: `0042_orders` done in 1s250ms");
        let event = Event::StepBegan { step: "backup", detail: "of database `shop`".to_owned() };
        assert_eq!(line(&event), "backup: of database `shop`");
        assert_eq!(
            bytes_line("backup", 1 << 20, Some(2 << 20), Some("public.orders")),
            "backup: 1.00 MiB of about 2.00 MiB, table `public.orders`"
        );
    }
}
