//! What every operation is given, and the connections that it works with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::control;
use crate::error::{Error, Kind, Result};
use crate::ids::Lineage;
use crate::keys::KeyRing;
use crate::postgres::guard::{self, Guard};
use crate::postgres::preflight::{self, Findings};
use crate::postgres::supabase::LeftOut;
use crate::postgres::{Session, Target, Tools};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::store::Store;

/// Who runs this, for the lock, the audit log and the history.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Operating system user.
    pub user: String,
    /// Host's name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Commit of the working copy that the migrations come from, when there is one.
    pub git_commit: Option<String>,
}

impl Identity {
    /// `user@host:pid`.
    pub fn holder(&self) -> String {
        format!("{}@{}:{}", self.user, self.host, self.pid)
    }
}

/// Everything that was resolved before an operation begins.
pub struct Context {
    /// The values to run with.
    pub settings: Settings,
    /// The database.
    pub target: Target,
    /// The master keys, or why there are none: told when an operation needs one.
    pub keys: Result<KeyRing>,
    /// Where backups live.
    pub store: Store,
    /// Who is told.
    pub progress: Progress,
    /// Who runs this.
    pub identity: Identity,
    /// `PATH`, for finding PostgreSQL's programs.
    pub path: Option<String>,
    /// Becomes true when the run shall stop in order.
    pub cancel: watch::Receiver<bool>,
    /// Becomes true when somebody asks through the database.
    pub asked: watch::Sender<bool>,
    /// Set once a failed run is being brought back: a request to stop has its answer then, and must not stop
    /// the recovery as well.
    pub bringing_back: AtomicBool,
    /// Takes the secrets of this process out of a text before it is kept: the server quotes a failing statement, and
    /// journals and rows outlive what is printed.
    pub hide: Arc<dyn Fn(&str) -> String + Send + Sync>,
    /// Where the tests make this process die or wait; empty outside tests.
    pub faults: super::fault::Faults,
    /// The name of the database that the target stands for, when it is a copy made for a while.
    pub stands_for: Option<String>,
    /// What backups of the target leave out: found out with the first session in it.
    pub left_out: OnceLock<LeftOut>,
}

/// The version that the history records.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Context {
    /// The same error without secrets.
    pub fn without_secrets(&self, error: Error) -> Error {
        error.map_texts(|text| (self.hide)(text))
    }

    /// The master keys; an error that says how to give one when there is none.
    pub fn keys(&self) -> Result<&KeyRing> {
        self.keys.as_ref().map_err(Clone::clone)
    }

    /// The same for another database of the server, which stands for the target.
    pub fn of_copy(&self, name: &str) -> Context {
        Context {
            settings: self.settings.clone(),
            target: self.target.with_database(name),
            keys: self.keys.clone(),
            store: self.store.clone(),
            progress: self.progress.clone(),
            identity: self.identity.clone(),
            path: self.path.clone(),
            cancel: self.cancel.clone(),
            asked: self.asked.clone(),
            bringing_back: AtomicBool::new(self.bringing_back.load(Ordering::Relaxed)),
            hide: self.hide.clone(),
            faults: self.faults.clone(),
            stands_for: Some(self.database().to_owned()),
            left_out: self.left_out.clone(),
        }
    }

    /// The database's name, as its backups know it.
    pub fn database(&self) -> &str {
        self.stands_for.as_deref().unwrap_or_else(|| self.target.database())
    }

    /// A session in the target.
    pub async fn connect(&self, purpose: &str) -> Result<Session> {
        let limit = self.settings.timeouts.connect;
        let session = Session::connect_retrying(&self.target, purpose, limit, &self.settings.retry).await?;
        if self.left_out.get().is_none() {
            let found = LeftOut::of(&session, self.settings.backup.exclude_schemas.as_deref()).await?;
            // Two who ask at once hear the same.
            self.left_out.get_or_init(|| found);
        }
        Ok(session)
    }

    /// The schemas that backups leave out and proofs do not look at, besides ripcord's own.
    pub fn left_out(&self) -> &[String] {
        match self.left_out.get() {
            Some(left_out) => &left_out.schemas,
            // Without a target there is nothing of Supabase's either.
            None => self.settings.backup.exclude_schemas.as_deref().unwrap_or_default(),
        }
    }

    /// Those of them that the target has.
    pub fn would_stay_behind(&self) -> &[String] {
        self.left_out.get().map_or(&[], |left_out| &left_out.there)
    }

    /// PostgreSQL's programs of the server's major version.
    pub fn tools(&self, session: &Session) -> Result<Tools> {
        let major = u32::try_from(session.server_version_num() / 10000).unwrap_or(0);
        Tools::find(major, &self.settings.pg_bin, self.path.as_deref())
    }

    /// An error once the run shall stop.
    pub fn check_cancelled(&self) -> Result<()> {
        let asked = *self.cancel.borrow() || *self.asked.borrow();
        if asked && !self.bringing_back.load(Ordering::Relaxed) { Err(stopped()) } else { Ok(()) }
    }

    /// Waits until the run shall stop; for ever when it never shall.
    pub async fn cancelled(&self) {
        let (mut signal, mut asked) = (self.cancel.clone(), self.asked.subscribe());
        let of = async |stop: &mut watch::Receiver<bool>| {
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = of(&mut signal) => {}
            () = of(&mut asked) => {}
        }
        if self.bringing_back.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

/// The failure of a run that was asked to stop.
pub fn stopped() -> Error {
    Error::failed("stopped on request")
}

/// The connections and facts of a run that holds the lock.
pub struct Live {
    /// The lock, with its session in the maintenance database.
    pub guard: Guard,
    /// The session in the target that migrations run in.
    pub session: Session,
    /// PostgreSQL's programs.
    pub tools: Tools,
    /// The database's lineage.
    pub lineage: Lineage,
    /// What the preflight found.
    pub findings: Findings,
}

impl Live {
    /// The session in the maintenance database.
    pub fn maintenance(&self) -> &Session {
        self.guard.maintenance()
    }

    /// Takes the lock again after its session was lost.
    pub async fn reacquire(&mut self, ctx: &Context) -> Result<()> {
        self.guard = Guard::acquire(&ctx.target, &ctx.settings, ctx.settings.timeouts.wait_for_lock).await?;
        Ok(())
    }

    /// Opens a new session in the target in place of one that was lost or ended.
    pub async fn reconnect(&mut self, ctx: &Context) -> Result<()> {
        self.session = ctx.connect("run").await?;
        Ok(())
    }
}

/// Takes the lock, opens the sessions, makes sure that the control schema is there, and looks around.
/// Fails before anything but ripcord's own schema was written.
pub async fn open(ctx: &Context) -> Result<Live> {
    open_as(ctx, None).await
}

/// [`open`] for a database that is about to become another lineage's (a restore on a new server). There, a
/// control schema that is missing is made for that lineage.
pub async fn open_as(ctx: &Context, lineage: Option<Lineage>) -> Result<Live> {
    let session = ctx.connect("run").await?;
    let tools = ctx.tools(&session)?;
    let state = control::inspect(session.client()).await?;
    let acquired = tokio::select! {
        acquired = guard::Guard::acquire(&ctx.target, &ctx.settings, ctx.settings.timeouts.wait_for_lock) => acquired,
        () = ctx.cancelled() => Err(stopped().hint("nothing was begun: run it again when it suits")),
    };
    let guard = match acquired {
        Ok(guard) => guard,
        Err(error) => return Err(naming_the_holder(&session, &state, error).await),
    };
    look_around(ctx, session, tools, guard, state, lineage).await
}

/// [`open`] for one who holds the lock already.
pub async fn open_holding(ctx: &Context, guard: Guard) -> Result<Live> {
    let session = ctx.connect("run").await?;
    let tools = ctx.tools(&session)?;
    let state = control::inspect(session.client()).await?;
    look_around(ctx, session, tools, guard, state, None).await
}

async fn look_around(
    ctx: &Context,
    session: Session,
    tools: Tools,
    guard: Guard,
    state: control::State,
    lineage: Option<Lineage>,
) -> Result<Live> {
    let wanted = match state {
        control::State::Present { lineage, .. } => lineage,
        control::State::Absent => lineage.unwrap_or_default(),
    };
    let found = control::ensure(session.client(), wanted).await?;
    opens_newest(ctx, lineage.unwrap_or(found)).await?;
    let findings = preflight::look(&ctx.target, &session, guard.maintenance()).await?;
    Ok(Live { guard, session, tools, lineage: lineage.unwrap_or(found), findings })
}

/// The keys held must open what is there already: a wrong key is found before anything is dumped under it.
pub async fn opens_newest(ctx: &Context, lineage: Lineage) -> Result<()> {
    let Ok(ring) = ctx.keys() else { return Ok(()) };
    let held: Vec<_> = ring.keys().iter().map(crate::keys::MasterKey::id).collect();
    let store = ctx.store.clone();
    let newest = blocking(move || match store.backups(lineage)?.last() {
        Some(id) => Ok(store.manifest(lineage, *id).and_then(|bytes| crate::manifest::decode_clear(&bytes)).ok()),
        None => Ok(None),
    })
    .await?;
    match newest {
        Some(manifest) if !manifest.wraps.iter().any(|wrap| held.contains(&wrap.key_id)) => {
            let ids = |ids: &mut dyn Iterator<Item = String>| ids.collect::<Vec<_>>().join("`, `");
            Err(Error::usage("the key is not the one that this database's backups were made with")
                .because(format!(
                    "the newest backup `{}` opens with key `{}`",
                    manifest.clear.backup,
                    ids(&mut manifest.wraps.iter().map(|wrap| wrap.key_id.to_string()))
                ))
                .because(format!("the key that was given is `{}`", ids(&mut held.iter().map(ToString::to_string))))
                .hint("give the key of the backups; ripcord key id tells which one a key is"))
        }
        _ => Ok(()),
    }
}

/// The server knows the holder's backend; the row that the holder left in the target says who that is.
async fn naming_the_holder(session: &Session, state: &control::State, error: Error) -> Error {
    if error.kind() != Kind::Locked || *state == control::State::Absent {
        return error;
    }
    match control::lock_row(session.client()).await {
        Ok(Some(row)) => error.because(format!(
            "`{}` of {}@{}:{}, since {}",
            row.command,
            row.holder,
            row.host,
            row.pid,
            row.since.format("%Y-%m-%d %H:%M:%S UTC")
        )),
        _ => error,
    }
}

/// The lineage of the target, when ripcord has met it.
pub async fn lineage_of(session: &Session) -> Result<Option<Lineage>> {
    Ok(match control::inspect(session.client()).await? {
        control::State::Present { lineage, .. } => Some(lineage),
        control::State::Absent => None,
    })
}

/// Runs blocking work (store, archive) off the async threads.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Kind::Failed, "a worker thread ended without a result").because(error)),
    }
}
