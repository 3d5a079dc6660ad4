//! Everything that is printed goes out here: data on stdout, the rest on stderr, secrets nowhere.

pub mod events;
pub mod log;
pub mod result;
pub mod scrub;
pub mod table;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::OnceLock;

use indicatif::MultiProgress;
use ripcord::Error;
use ripcord::ops::report::{Outcome, RunReport};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Verbosity;
use log::Log;
use scrub::Scrubber;

/// How things are printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// One JSON object a line on stdout.
    pub json: bool,
    /// How much is said.
    pub verbosity: Verbosity,
    /// Colour on stderr.
    pub color: bool,
    /// stderr is a terminal: bars may move.
    pub terminal: bool,
}

impl Style {
    /// From the options, before configuration is known. Colour needs a terminal and nobody against it
    /// (no-color.org: any value that is not empty).
    pub fn of(json: bool, no_color: bool, quiet: bool, verbose: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let forbidden = no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style {
            json,
            verbosity: match (quiet, verbose) {
                (true, _) => Verbosity::Quiet,
                (_, true) => Verbosity::Verbose,
                _ => Verbosity::Normal,
            },
            color: terminal && !forbidden,
            terminal,
        }
    }
}

/// The way out.
pub struct Renderer {
    style: Style,
    scrubber: Arc<Scrubber>,
    bars: MultiProgress,
    log: OnceLock<Log>,
}

impl Renderer {
    /// Prints in this style, through this scrubber.
    pub fn new(style: Style, scrubber: Arc<Scrubber>) -> Self {
        Renderer { style, scrubber, bars: MultiProgress::new(), log: OnceLock::new() }
    }

    /// The style.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Where bars are drawn.
    pub fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// From now on, what is told is appended to this file too.
    pub fn log_to(&self, log: Log) {
        // Only one file is ever opened; a second call would have nothing to add.
        let _ = self.log.set(log);
    }

    /// Data, on stdout. Nothing in JSON mode: there the result holds it.
    pub fn data(&self, line: &str) {
        if !self.style.json {
            self.stdout(&self.scrubber.text(line));
        }
    }

    /// Data that is meant to be a secret: a new key's digits for a pipe.
    pub fn secret_data(&self, line: &str) {
        self.stdout(line);
    }

    /// A line of JSON, on stdout.
    pub fn json(&self, value: Value) {
        if self.style.json {
            self.stdout(&result::line(self.scrubber.json(value)));
        }
    }

    /// A line on stderr that is wanted unless `--quiet`.
    pub fn say(&self, line: &str) {
        let line = self.scrubber.text(line);
        self.to_log(&line);
        if self.style.verbosity > Verbosity::Quiet && !self.style.json {
            self.stderr(&line);
        }
    }

    /// A note: `note: …` on stderr, or an event, unless `--quiet`.
    pub fn note(&self, message: &str) {
        if self.style.verbosity > Verbosity::Quiet {
            self.json(json!({ "event": "note", "message": message }));
        }
        self.say(&format!("note: {message}"));
    }

    /// A warning, on stderr and as an event, whatever was asked for.
    pub fn warn(&self, message: &str) {
        self.json(json!({ "event": "warning", "message": message }));
        self.loud("warning", message, "33");
    }

    /// An error, with what is known of the database.
    pub fn error(&self, command: &str, error: &Error, database: Option<&str>) {
        self.lines(&result::error_lines(error, database));
        self.json(result::error_json(command, error, database));
    }

    /// A run's result.
    pub fn report(&self, report: &RunReport) {
        let lines = result::report_lines(report);
        if report.exit_code == 0 {
            for line in lines {
                self.say(&line);
            }
        } else {
            self.lines(&lines);
        }
        self.json(result::report_json(report));
    }

    /// A list: a table on stdout, or the result with `items`.
    pub fn list<T: Serialize>(&self, command: &str, items: &[T], headings: &[&str], rows: &[Vec<String>]) {
        for line in table::table(headings, rows) {
            self.data(&line);
        }
        self.json(result::list_json(command, Outcome::Done, items));
    }

    /// A list of which something failed: the error, and the result with `items` all the same.
    pub fn failed_list<T: Serialize>(&self, command: &str, error: &Error, items: &[T]) {
        let unchanged = Some("unchanged");
        self.lines(&result::error_lines(error, unchanged));
        let mut value = result::error_json(command, error, unchanged);
        value["items"] = serde_json::to_value(items).unwrap_or_default();
        self.json(value);
    }

    /// A command's result that is no run's and no table's.
    pub fn items<T: Serialize>(&self, command: &str, outcome: Outcome, items: &[T]) {
        self.json(result::list_json(command, outcome, items));
    }

    /// Appends to the log file alone.
    pub fn to_log(&self, text: &str) {
        if let Some(log) = self.log.get() {
            log.write(text);
        }
    }

    /// What the scrubber makes of a text.
    pub fn scrubbed(&self, text: &str) -> String {
        self.scrubber.text(text)
    }

    fn lines(&self, lines: &[String]) {
        for line in lines {
            match line.split_once(": ") {
                Some(("error", rest)) => self.loud("error", rest, "31"),
                _ => {
                    let line = self.scrubber.text(line);
                    self.to_log(&line);
                    self.stderr(&line);
                }
            }
        }
    }

    fn loud(&self, word: &str, message: &str, color: &str) {
        let message = self.scrubber.text(message);
        self.to_log(&format!("{word}: {message}"));
        if self.style.color {
            self.stderr(&format!("\x1b[1;{color}m{word}:\x1b[0m {message}"));
        } else {
            self.stderr(&format!("{word}: {message}"));
        }
    }

    // A closed pipe or terminal must not turn into a panic in the middle of a recovery.
    fn stdout(&self, line: &str) {
        self.bars.suspend(|| {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        });
    }

    fn stderr(&self, line: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }
}
