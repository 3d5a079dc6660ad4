//! What an operation tells while it works.
//!
//! Operations emit [`Event`]s and never print; the binary renders them as bars, lines or JSON, and
//! the tests read them as the order of events.

use std::sync::Arc;

use serde::Serialize;

/// One thing that happened. Serialised, it is a line of `--json` output.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step of an operation began. Steps have stable snake_case names such as `backup` or `health`.
    StepBegan {
        /// The step's name.
        step: &'static str,
        /// What it works on, for people.
        detail: String,
    },
    /// The step ended well.
    StepFinished {
        /// The step's name.
        step: &'static str,
        /// What came of it, for people.
        detail: String,
    },
    /// Bytes moved within the step that began last.
    Bytes {
        /// The step's name.
        step: &'static str,
        /// Plaintext bytes so far.
        done: u64,
        /// The estimate of all of them, when there is one.
        total: Option<u64>,
        /// The table that is being read or written.
        table: Option<String>,
    },
    /// A migration began.
    MigrationBegan {
        /// Its version.
        version: String,
        /// Its name.
        name: String,
        /// `up` or `down`.
        direction: &'static str,
    },
    /// A migration ended well.
    MigrationFinished {
        /// Its version.
        version: String,
        /// Its name.
        name: String,
        /// `up` or `down`.
        direction: &'static str,
        /// How long it took.
        duration_ms: u64,
    },
    /// Something is tried again after a pause.
    Retry {
        /// What failed.
        reason: String,
        /// The attempt that comes, counted from 1.
        attempt: u32,
        /// The pause before it.
        delay_ms: u64,
    },
    /// Something a person should know.
    Note {
        /// In one sentence.
        message: String,
    },
    /// Something a person should do something about.
    Warning {
        /// In one sentence.
        message: String,
    },
}

/// Whoever is told.
pub trait Observer: Send + Sync {
    /// Takes one event; must not block for long.
    fn observe(&self, event: &Event);
}

/// The handle that operations hold.
#[derive(Clone)]
pub struct Progress(Arc<dyn Observer>);

impl Progress {
    /// Tells `observer`.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Progress(observer)
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        struct Nobody;
        impl Observer for Nobody {
            fn observe(&self, _: &Event) {}
        }
        Progress(Arc::new(Nobody))
    }

    /// Tells one event.
    pub fn tell(&self, event: Event) {
        self.0.observe(&event);
    }

    /// [`Event::StepBegan`].
    pub fn began(&self, step: &'static str, detail: impl Into<String>) {
        self.tell(Event::StepBegan { step, detail: detail.into() });
    }

    /// [`Event::StepFinished`].
    pub fn finished(&self, step: &'static str, detail: impl Into<String>) {
        self.tell(Event::StepFinished { step, detail: detail.into() });
    }

    /// [`Event::Note`].
    pub fn note(&self, message: impl Into<String>) {
        self.tell(Event::Note { message: message.into() });
    }

    /// [`Event::Warning`].
    pub fn warn(&self, message: impl Into<String>) {
        self.tell(Event::Warning { message: message.into() });
    }
}
