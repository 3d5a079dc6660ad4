//! What every command is given: settings, a way out, a way to be stopped.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ripcord::keys::{KeyRing, MasterKey};
use ripcord::migration::source;
use ripcord::ops::fault::Faults;
use ripcord::ops::{Context, Identity};
use ripcord::postgres::target::Target;
use ripcord::progress::Progress;
use ripcord::settings::{KeySource, OnChanged, Settings};
use ripcord::store::Store;
use ripcord::{Error, Result};
use secrecy::ExposeSecret;
use tokio::sync::watch;

use crate::args::Reach;
use crate::config::{self, Resolved};
use crate::render::Renderer;
use crate::render::events::Events;
use crate::render::scrub::Scrubber;

/// The process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// All is well.
    pub const DONE: Exit = Exit(0);
}

/// The context of a command.
pub struct App {
    /// What was resolved.
    pub resolved: Resolved,
    /// The way out.
    pub out: Arc<Renderer>,
    /// What operations tell.
    pub progress: Progress,
    /// `true` once the first signal came: stop in order.
    pub stop: watch::Receiver<bool>,
    scrubber: Arc<Scrubber>,
}

impl App {
    /// Puts it together, and says first what must be said first.
    pub fn new(
        resolved: Resolved,
        out: Arc<Renderer>,
        scrubber: Arc<Scrubber>,
        stop: watch::Receiver<bool>,
        reach: Reach,
    ) -> Result<App> {
        scrubber.add(config::secrets(&resolved));
        if let Some(folder) = &resolved.settings.logs_dir
            && reach != Reach::Nothing
        {
            out.log_to(crate::render::log::Log::open(folder)?);
        }
        for note in &resolved.notes {
            out.note(note);
        }
        for warning in &resolved.warnings {
            out.warn(warning);
        }
        let progress = Progress::new(Arc::new(Events::new(Arc::clone(&out))));
        Ok(App { resolved, out, progress, stop, scrubber })
    }

    /// What operations run with.
    pub fn settings(&self) -> &Settings {
        &self.resolved.settings
    }

    /// The database to change.
    pub fn target(&self) -> Result<Target> {
        if let Some(why) = &self.resolved.why_no_database {
            return Err(why.clone());
        }
        Target::resolve(self.settings(), &|name| {
            let variables = &self.resolved.variables;
            variables.of_process_only(name).map(str::to_owned)
        })
    }

    /// The master key; its digits are scrubbed from then on.
    pub async fn key(&self) -> Result<MasterKey> {
        let loaded = config::key::load(self.settings(), self.resolved.why_no_key.as_ref()).await?;
        self.scrubber.add([loaded.digits.expose_secret().trim().to_owned()]);
        for warning in &loaded.warnings {
            self.out.warn(warning);
        }
        Ok(loaded.key)
    }

    /// The key ring that backups are sealed and opened with: the main key, and the recovery keys. A recovery key that
    /// is not there is an error: a backup without it would not be what was asked for.
    pub async fn key_ring(&self) -> Result<KeyRing> {
        let mut keys = vec![self.key().await?];
        if let Some(why) = &self.resolved.why_no_recovery_key {
            return Err(why.clone());
        }
        for source in &self.settings().recovery_keys {
            keys.push(self.key_from(source).await.map_err(|error| error.context("a recovery key cannot be had"))?);
        }
        let first = KeyRing::new(vec![keys.remove(0)])?;
        Ok(first.with(&keys))
    }

    /// The key of one source; its digits are scrubbed from then on.
    pub async fn key_from(&self, source: &KeySource) -> Result<MasterKey> {
        let loaded = config::key::load_from(self.settings(), source).await?;
        self.scrubber.add([loaded.digits.expose_secret().trim().to_owned()]);
        for warning in &loaded.warnings {
            self.out.warn(warning);
        }
        Ok(loaded.key)
    }

    /// Where the tests make this process die or wait; nothing in a release.
    pub fn faults(&self) -> Faults {
        if cfg!(debug_assertions) {
            let text = self.resolved.variables.of_process_only("RIPCORD_FAULTS");
            text.map(Faults::parse).unwrap_or_default()
        } else {
            Faults::default()
        }
    }

    /// Everything that an operation is given. A key that is missing or wrong is told when it is needed.
    pub async fn context(&self) -> Result<Context> {
        self.context_with(self.store()?).await
    }

    /// The same with another store.
    pub async fn context_with(&self, store: Store) -> Result<Context> {
        let variable = |name: &str| self.resolved.variables.of_process_only(name).map(str::to_owned);
        let mut settings = self.settings().clone();
        settings.migrations_dir = settings.migrations_dir.or_else(|| self.migrations_dir().ok());
        // Where nothing was configured, the layout's own rule decides about changed files: with banners, a
        // changed migration runs again.
        if self.resolved.on_changed_is_default
            && let Some(folder) = &settings.migrations_dir
            && source::read(folder, settings.layout.as_deref()).is_ok_and(|folder| folder.layout == "banners")
        {
            settings.on_changed = OnChanged::Rerun;
        }
        Ok(Context {
            target: self.target()?,
            keys: self.key_ring().await,
            store,
            progress: self.progress.clone(),
            identity: identity(&self.base()),
            path: variable("PATH"),
            cancel: self.stop.clone(),
            asked: watch::Sender::new(false),
            bringing_back: AtomicBool::new(false),
            hide: {
                let scrubber = self.scrubber.clone();
                Arc::new(move |text: &str| scrubber.text(text))
            },
            faults: self.faults(),
            stands_for: None,
            left_out: std::sync::OnceLock::new(),
            settings,
        })
    }

    /// The same for another server, which only its URL names: where a drill restores.
    pub async fn context_on(&self, url: &str) -> Result<Context> {
        self.scrubber.add(crate::render::scrub::passwords_in(url));
        let mut ctx = self.context().await?;
        let mut settings = ctx.settings.clone();
        settings.database_url = Some(url.to_owned().into());
        settings.maintenance_db = None;
        let target = Target::resolve(&settings, &|name| {
            // The variables describe the target's own server.
            let own = name.starts_with("PG") && !matches!(name, "PGPASSFILE" | "PGSSLROOTCERT" | "PGCONNECT_TIMEOUT");
            if own { None } else { self.resolved.variables.of_process_only(name).map(str::to_owned) }
        })
        .map_err(|error| error.context("`--server` does not name a server"))?;
        ctx.settings = settings;
        ctx.target = target;
        Ok(ctx)
    }

    /// Where backups live, relative paths taken from the project's folder.
    pub fn store(&self) -> Result<Store> {
        let location = &self.settings().store;
        if location.contains("://") || std::path::Path::new(location).is_absolute() {
            return Store::open(location);
        }
        Store::open(&self.base().join(location).display().to_string())
    }

    /// For commands that ask the application: every header's variable must be set.
    pub fn require_health_complete(&self) -> Result<()> {
        match &self.resolved.incomplete {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Whether the backup is to be skipped; an error where the environment's rules forbid it.
    pub fn skip_backup(&self) -> Result<bool> {
        let environment = &self.settings().environment;
        if !self.resolved.skip_backup || environment.allow_skip_backup {
            return Ok(self.resolved.skip_backup);
        }
        let fact = match &environment.name {
            Some(name) => format!("environment `{name}` does not allow a run without a backup"),
            None => "no environment is named, and the strict rules do not allow a run without a backup".to_owned(),
        };
        Err(Error::refused(fact)
            .hint("leave out `--skip-backup` (and SKIP_BACKUP), or name an environment that allows it"))
    }

    /// The folder of migrations: the configured one, or the one found.
    pub fn migrations_dir(&self) -> Result<PathBuf> {
        match &self.settings().migrations_dir {
            Some(folder) => Ok(folder.clone()),
            None => ripcord::migration::source::find(&self.base()),
        }
    }

    /// The folder that things without a path of their own are looked for in.
    pub fn base(&self) -> PathBuf {
        match self.resolved.base.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => self.resolved.base.clone(),
        }
    }

    /// Asks at the terminal; the answer must be `expected`. `None`: there is no terminal to ask at.
    pub fn confirm(&self, question: &str, expected: &str) -> Option<bool> {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        let question = self.out.scrubbed(question);
        let answer = self.out.bars().suspend(|| {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "{question} ").and_then(|()| stderr.flush());
            let mut answer = String::new();
            std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
        });
        Some(answer.is_ok_and(|answer| answer.trim() == expected))
    }

    /// An approval: `--yes`, `FORCE_RUN=true`, or typed. An error where it is required and not given.
    /// Does nothing where none is required.
    pub fn approve(&self, what: &str) -> Result<Option<String>> {
        self.approve_for(what, &[])
    }

    /// [`approve`](Self::approve), which is also required when there are reasons of the run's own.
    pub fn approve_for(&self, what: &str, reasons: &[String]) -> Result<Option<String>> {
        let environment = &self.settings().environment;
        let user = ripcord::control::actor::os_user();
        if self.resolved.assume_yes {
            return Ok(Some(format!("{user}, by --yes or FORCE_RUN")));
        }
        if !environment.approval && reasons.is_empty() {
            return Ok(None);
        }
        reasons.iter().for_each(|reason| self.out.note(reason));
        let name = environment.name.as_deref().unwrap_or("this environment");
        match self.confirm(&format!("{what} in `{name}`? Type `yes` to approve:"), "yes") {
            Some(true) => Ok(Some(format!("{user}, typed"))),
            Some(false) => Err(Error::refused(format!("the approval that `{name}` requires was not given"))),
            None => Err(Error::refused(format!("`{name}` requires an approval, and there is no terminal to ask at"))
                .hint("give it with `--yes` or FORCE_RUN=true")),
        }
    }
}

/// Who runs this, on which commit.
fn identity(base: &std::path::Path) -> Identity {
    let uname = rustix::system::uname();
    let git = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(base)
        .stdin(std::process::Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    Identity {
        user: ripcord::control::actor::os_user(),
        host: uname.nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        git_commit: git.map(|commit| commit.trim().to_owned()),
    }
}

/// Takes SIGINT and SIGTERM: the first asks the operation to stop in order, the second ends the process
/// with exit code 4, because what was begun is then neither finished nor undone.
pub fn watch_signals(out: Arc<Renderer>, changes: bool) -> Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};

    let install = |kind| signal(kind).map_err(|error| Error::failed("signals cannot be taken").because(error));
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    // A limit on the size of files (`ulimit -f`) would kill the process with a signal. Taken, the signal leaves
    // an error where the store is written to, like that of a full disk.
    let mut too_large = install(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    let (sender, receiver) = watch::channel(false);
    let asked = AtomicBool::new(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = too_large.recv() => continue,
            }
            if asked.swap(true, Ordering::SeqCst) {
                out.warn("stopped at once, in the middle of the work");
                if changes {
                    out.warn("database: UNKNOWN, do not retry");
                    out.warn("what is left is finished or undone by `ripcord recover`");
                } else {
                    out.warn("an unfinished backup is left in the store; it counts for nothing and `ripcord prune` removes it");
                }
                std::process::exit(4);
            }
            out.warn("stopping in order; a second signal stops at once");
            // Nobody listening any more means that the work has just ended.
            let _ = sender.send(true);
        }
    });
    Ok(receiver)
}
