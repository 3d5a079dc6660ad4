//! One connection to one database.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Connection, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Target;
use super::target::{Host, SslMode};
use crate::error::{Error, Result};
use crate::settings::Retry;

mod explain;
mod stream;

pub use explain::explain;
use stream::{Address, Stream};

/// The longest that closing waits for the server.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How long the server may take to end what was cancelled.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long a cancelled statement is waited for before it is cancelled again.
const STOP_AGAIN: Duration = Duration::from_millis(500);

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Notices that are kept until somebody takes them; older ones go first.
const KEPT_NOTICES: usize = 200;

/// Settings of every session, given at its start: so RESET ALL and DISCARD ALL in a migration come back
/// to them, and a fence or a role's own limits do not stop us.
const START_SETTINGS: &[(&str, &str)] = &[
    ("default_transaction_read_only", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("client_min_messages", "warning"),
    // Definitions are read from the catalog and compared with what they are to be.
    ("quote_all_identifiers", "off"),
];

/// Sessions that run other people's SQL (migrations, checks, hooks, probes) or look names up as it does, and have the
/// database's own `search_path`. In every other one nothing is found but what is qualified: whoever owns a database
/// may put a schema with operators of their own before `pg_catalog` for everyone who connects, and they would run with
/// our rights.
const OWN_SEARCH_PATH: &[&str] = &[
    "run",
    "rehearsal",
    "health",
    "wait",
    "validate",
    "plan",
    "changelog",
    "adopt",
    "status",
    "doctor",
    "import",
    "verify-db",
];

/// A connection with its background task. Dropped, it is closed.
pub struct Session {
    client: Client,
    task: JoinHandle<()>,
    shared: Arc<Mutex<Shared>>,
    token: CancelToken,
    target: Target,
    /// A second handle to the connection, to see when the server closes it.
    watch: Stream,
    address: Address,
    /// The name that the certificate must have, when the connection is encrypted.
    tls_name: Option<String>,
    backend_pid: i32,
    server_version_num: i32,
}

/// What the background task leaves for the session.
#[derive(Default)]
struct Shared {
    notices: VecDeque<String>,
    dropped_notices: usize,
    /// Why the connection ended, when it was not us who ended it.
    ended: Option<Error>,
}

impl Session {
    /// Connects with TLS as the target's sslmode asks, sets `application_name` to `ripcord <purpose>`, TCP
    /// keepalives, and an empty `search_path`-independent state: our SQL qualifies every name. Also sets
    /// `default_transaction_read_only = off` for itself, so that our own fence does not stop us, and
    /// `statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout` to 0.
    pub async fn connect(target: &Target, purpose: &str, limit: Duration) -> Result<Session> {
        let mut last = None;
        for host in target.hosts() {
            match tokio::time::timeout(limit, connect_host(target, host, purpose)).await {
                Ok(Ok(session)) => return Ok(session),
                // Another host would say the same, and might be another server.
                Ok(Err(error)) if error.sqlstate().is_some_and(|state| !server_may_come(state)) => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    last = Some(
                        Error::failed(format!(
                            "no answer from `{}` within {} s",
                            target.redacted(),
                            limit.as_secs_f64().ceil()
                        ))
                        .with_connection_lost()
                        .hint("check host, port and firewall"),
                    );
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::usage("no database host is given")))
    }

    /// [`connect`](Self::connect), tried again while the server cannot be reached or is starting up;
    /// a wrong password or a missing database is final at once.
    pub async fn connect_retrying(target: &Target, purpose: &str, limit: Duration, retry: &Retry) -> Result<Session> {
        let mut delay = retry.delay;
        let mut attempt = 1;
        loop {
            let error = match Session::connect(target, purpose, limit).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            let again = error.connection_lost() || error.sqlstate().is_some_and(server_may_come);
            if !again || attempt >= retry.attempts {
                return Err(if attempt > 1 { error.because(format!("tried {attempt} times")) } else { error });
            }
            // Jitter: runs that were stopped by one outage should not come back in step.
            tokio::time::sleep(delay.min(LONGEST_PAUSE).mul_f64(rand::random_range(0.75..1.25))).await;
            delay = delay.saturating_mul(2);
            attempt += 1;
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client, for transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The backend's process id.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// The server's version as a number (`150018`).
    pub fn server_version_num(&self) -> i32 {
        self.server_version_num
    }

    /// The encoding of the database (`UTF8`).
    pub async fn server_encoding(&self) -> Result<String> {
        // language=SQL
        let rows = self.rows("SHOW server_encoding").await?;
        let encoding = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        encoding.ok_or_else(|| Error::failed("the server does not tell the database's encoding"))
    }

    /// The database that it is connected to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Runs SQL without parameters, any number of statements.
    pub async fn batch(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| self.explain(&error))
    }

    /// Runs SQL without parameters and returns its rows as text; for any encoding of the database, and without
    /// a prepared statement.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        Ok(self.results(sql).await?.into_iter().flatten().collect())
    }

    /// [`rows`](Self::rows) of one statement of ours, in which no name and no operator is anybody's but PostgreSQL's,
    /// whatever the session's `search_path` is: see `OWN_SEARCH_PATH`. It is what it was afterwards.
    pub async fn ours(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        // One message, and so one transaction where none is open: what is set is set for it alone.
        // language=SQL
        let guarded = format!(
            "SELECT pg_catalog.set_config('rc_session.search_path', pg_catalog.current_setting('search_path'), true); \
             SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true); \
             {sql}; \
             SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('rc_session.search_path'), true)"
        );
        let third = self.results(&guarded).await?.into_iter().nth(2);
        third.ok_or_else(|| Error::failed("the server does not answer as PostgreSQL does"))
    }

    /// The rows of each statement.
    async fn results(&self, sql: &str) -> Result<Vec<Vec<Vec<Option<String>>>>> {
        let messages = self.client.simple_query(sql).await.map_err(|error| self.explain(&error))?;
        let mut results = Vec::new();
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let mut values = Vec::with_capacity(row.len());
                    for at in 0..row.len() {
                        values.push(row.try_get(at).map_err(|error| self.explain(&error))?.map(str::to_owned));
                    }
                    rows.push(values);
                }
                SimpleQueryMessage::CommandComplete(_) => results.push(std::mem::take(&mut rows)),
                _ => {}
            }
        }
        results.push(rows);
        Ok(results)
    }

    /// Cancels what the session is doing, and returns what came of it once it has ended. A cancellation that arrives
    /// between two statements finds nothing to cancel, so it is sent until the work ends. Where the server does not
    /// end it, the connection is given up.
    ///
    /// # Errors
    /// The connection counts as lost when the work has not ended after 30 s.
    pub async fn stop<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Result<T> {
        let mut refused = None;
        let ended = tokio::time::timeout(STOP_LIMIT, async {
            loop {
                refused = self.cancel().await.err();
                if let Ok(outcome) = tokio::time::timeout(STOP_AGAIN, work.as_mut()).await {
                    return outcome;
                }
            }
        });
        if let Ok(outcome) = ended.await {
            return Ok(outcome);
        }
        self.task.abort();
        while !self.is_closed() {
            tokio::task::yield_now().await;
        }
        let error = Error::failed("the server does not end what was cancelled").with_connection_lost();
        Err(match refused {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    /// Asks the server to cancel what the session is doing, and waits until it has been dealt with.
    ///
    /// The server signals the backend, up to version 16 even twice, and then closes the connection that asked.
    /// Whoever sends something else before may have that cancelled instead (libpq's PQcancel waits for the same
    /// reason).
    pub async fn cancel(&self) -> Result<()> {
        let ask = async {
            let network = |error| explain::explain_network(&error);
            let stream = Stream::connect_to(&self.address).await.map_err(network)?;
            let (stream, mut watch) = stream.duplicate().map_err(network)?;
            let asked = match &self.tls_name {
                Some(name) => self.token.cancel_query_raw(stream, connector(self.target.tls()?, name)?).await,
                None => self.token.cancel_query_raw(stream, NoTls).await,
            };
            asked.map_err(|error| explain(&error))?;
            watch.until_closed().await;
            Ok::<(), Error>(())
        };
        let answer = tokio::time::timeout(CLOSE_LIMIT, ask).await;
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.context("the running statement could not be cancelled")),
            Err(_) => Err(Error::failed("the running statement could not be cancelled")
                .because(format!("no answer within {} s", CLOSE_LIMIT.as_secs()))),
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Notices and warnings of the server since the last call, such as those of RAISE NOTICE.
    pub fn take_notices(&self) -> Vec<String> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notices: Vec<String> = shared.notices.drain(..).collect();
        let dropped = std::mem::take(&mut shared.dropped_notices);
        if dropped > 0 {
            notices.insert(0, format!("{dropped} earlier messages are left out"));
        }
        notices
    }

    /// [`explain`], and where the connection is gone, the server's last word.
    pub fn explain(&self, error: &tokio_postgres::Error) -> Error {
        let explained = explain(error);
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match &shared.ended {
            Some(ended) if explained.connection_lost() && ended.message() != explained.message() => {
                let explained = explained.because(ended.one_line());
                match ended.sqlstate() {
                    Some(state) if explained.sqlstate().is_none() => explained.with_sqlstate(state),
                    _ => explained,
                }
            }
            _ => explained,
        }
    }

    /// Settings that cannot be given at the start, since older servers do not know them, or some platforms.
    pub(super) async fn set_later_settings(&self) -> Result<()> {
        if self.server_version_num < 140_000 {
            return Ok(());
        }
        // language=SQL
        let limits = match self.server_version_num {
            170_000.. => "SET idle_session_timeout = 0; SET transaction_timeout = 0",
            _ => "SET idle_session_timeout = 0",
        };
        self.batch(limits).await?;
        // Lets the server look whether we are still there while it works, so that a statement does not go on
        // for hours after its client was killed. Not every platform has it, which is no error.
        // language=SQL
        match self.batch("SET client_connection_check_interval = '5s'").await {
            Err(error) if error.connection_lost() => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes it in order and waits until the server has ended the backend.
    pub async fn close(self) {
        let Session { client, mut task, mut watch, .. } = self;
        drop(client);
        let ended = tokio::time::timeout(CLOSE_LIMIT, async {
            let _ = (&mut task).await;
            watch.until_closed().await;
        });
        if ended.await.is_err() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("target", &self.target).field("backend_pid", &self.backend_pid).finish()
    }
}

/// One host, with and without TLS as the mode allows.
async fn connect_host(target: &Target, host: &Host, purpose: &str) -> Result<Session> {
    let first_with_tls = !host.is_socket() && !matches!(target.ssl_mode(), SslMode::Disable | SslMode::Allow);
    let first = connect_once(target, host, purpose, first_with_tls).await;
    // `prefer` and `allow` try the other way when the first was not let in, as libpq does.
    let other_way = !host.is_socket() && matches!(target.ssl_mode(), SslMode::Allow | SslMode::Prefer);
    match first {
        Err(Refused { encryption: true, error }) if other_way => {
            match connect_once(target, host, purpose, !first_with_tls).await {
                Ok(session) => Ok(session),
                Err(second) if second.encryption => Err(error),
                Err(second) => Err(second.error),
            }
        }
        Err(refused) => Err(refused.error),
        Ok(session) => Ok(session),
    }
}

/// Why there is no connection, and whether TLS may have to do with it.
struct Refused {
    encryption: bool,
    error: Error,
}

async fn connect_once(
    target: &Target,
    host: &Host,
    purpose: &str,
    with_tls: bool,
) -> std::result::Result<Session, Refused> {
    let plain = |error| Refused { encryption: false, error };
    let mut options: Vec<_> = START_SETTINGS.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
    if !OWN_SEARCH_PATH.contains(&purpose) {
        options.push("-c search_path=pg_catalog,pg_temp".to_owned());
    }
    let mut config = target.config(host, &options.join(" "), with_tls);
    config.application_name(format!("ripcord {purpose}"));
    let shared = Arc::new(Mutex::new(Shared::default()));
    let unreachable = |error: std::io::Error| plain(explain::named(explain::explain_network(&error), target));
    let (stream, address) = Stream::connect(host).await.map_err(unreachable)?;
    let (stream, watch) = stream.duplicate().map_err(unreachable)?;
    let tls_name = with_tls.then(|| host.tls_name());
    let started = match &tls_name {
        Some(name) => {
            let tls = target.tls().and_then(|tls| connector(tls, name)).map_err(plain)?;
            start(&config, stream, tls, &shared).await
        }
        None => start(&config, stream, NoTls, &shared).await,
    };
    let (client, task) = started.map_err(|error| {
        let refused = error.code().is_some_and(|code| code.code() == "28000");
        let encryption = refused || (with_tls && explain::is_tls(&error));
        Refused { encryption, error: explain::explain_connect(&error, target) }
    })?;
    let token = client.cancel_token();
    let mut session = Session {
        client,
        task,
        shared,
        token,
        target: target.clone(),
        watch,
        address,
        tls_name,
        backend_pid: 0,
        server_version_num: 0,
    };
    session.introduce().await.map_err(plain)?;
    Ok(session)
}

impl Session {
    /// Learns whom it talks to, and checks that it is the database that was asked for: a longer name is cut
    /// by the server, and a pooler may know the database by another name.
    async fn introduce(&mut self) -> Result<()> {
        // language=SQL
        let rows = self
            .rows(
                "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version_num'), \
                 pg_catalog.encode(pg_catalog.convert_to(pg_catalog.current_database()::pg_catalog.text, \
                 pg_catalog.getdatabaseencoding()), 'hex'), pg_catalog.pg_is_in_recovery()",
            )
            .await?;
        let value = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref).unwrap_or_default();
        let number = |at: usize| {
            value(at).parse::<i32>().map_err(|_| Error::failed("the server does not answer as PostgreSQL does"))
        };
        self.backend_pid = number(0)?;
        self.server_version_num = number(1)?;
        // Compared as bytes: within a LATIN1 database, a name made under UTF-8 reads differently.
        if value(2) != hex::encode(self.target.database()) {
            return Err(Error::failed(format!(
                "asked for the database `{}`, the server let us into another",
                self.target.database()
            ))
            .hint("give a URL that leads to PostgreSQL itself, with the database's own name (at most 63 bytes)"));
        }
        if self.target.wants_writable() && value(3) == "t" {
            // As libpq does, the next host is tried.
            return Err(Error::failed(
                "the server is a standby, and `target_session_attrs` asks for one that takes writes",
            )
            .with_connection_lost());
        }
        self.set_later_settings().await
    }
}

type Connector = <MakeRustlsConnect as MakeTlsConnect<Stream>>::TlsConnect;

/// The connector for one host.
fn connector(mut tls: MakeRustlsConnect, name: &str) -> Result<Connector> {
    <MakeRustlsConnect as MakeTlsConnect<Stream>>::make_tls_connect(&mut tls, name)
        .map_err(|error| Error::failed("TLS cannot be set up").because(error))
}

async fn start<T>(
    config: &Config,
    stream: Stream,
    tls: T,
    shared: &Arc<Mutex<Shared>>,
) -> std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error>
where
    T: TlsConnect<Stream>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect_raw(stream, tls).await?;
    let shared = Arc::clone(shared);
    Ok((client, tokio::spawn(drive(connection, shared))))
}

/// Moves the bytes until the client is dropped or the connection breaks.
async fn drive<S, T>(mut connection: Connection<S, T>, shared: Arc<Mutex<Shared>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: TlsStream + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            // ROLLBACK without a transaction: we send it to be sure.
            Ok(AsyncMessage::Notice(notice)) if notice.code().code() == "25P01" => {}
            Ok(AsyncMessage::Notice(notice)) => {
                if shared.notices.len() >= KEPT_NOTICES {
                    shared.notices.pop_front();
                    shared.dropped_notices += 1;
                }
                shared.notices.push_back(explain::notice(&notice));
            }
            Ok(_) => {}
            Err(error) => {
                shared.ended = Some(explain(&error));
                return;
            }
        }
    }
}

/// Whether a server that says this may answer later, or another host instead.
fn server_may_come(sqlstate: &str) -> bool {
    // cannot_connect_now, too_many_connections
    matches!(sqlstate, "57P03" | "53300")
}

/// Whether a whole transaction that failed with this SQLSTATE may be tried again: 40001, 40P01, 55P03.
pub fn is_retryable(sqlstate: &str) -> bool {
    matches!(sqlstate, "40001" | "40P01" | "55P03")
}
