//! Which server and database, and how to reach it.

mod child;
mod parse;
mod passfile;
mod tls;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslNegotiation, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};
use crate::settings::Settings;
use passfile::PassFile;
pub(super) use tls::SslMode;

/// A database on a server. Printing it never shows the password.
#[derive(Clone)]
pub struct Target {
    server: Arc<Server>,
    database: String,
}

/// What all databases of a server share.
struct Server {
    hosts: Vec<Host>,
    user: String,
    password: Option<(SecretString, String)>,
    pass_path: Option<PathBuf>,
    pass_file: PassFile,
    options: Option<String>,
    ssl_mode: SslMode,
    ssl_files: tls::Files,
    direct_tls: bool,
    channel_binding: ChannelBinding,
    session_attrs: TargetSessionAttrs,
    connect_timeout: Duration,
    home: Option<PathBuf>,
    warnings: Vec<String>,
}

/// One of the hosts that are tried in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Host name, address, or a socket's folder.
    name: String,
    /// The address to connect to instead of looking `name` up.
    address: Option<std::net::IpAddr>,
    port: u16,
}

impl Host {
    /// A Unix socket's folder, which no TLS goes over.
    pub(super) fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with('/')
    }

    /// Host name, address, or a socket's folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The address to connect to instead of looking the name up.
    pub(super) fn address(&self) -> Option<std::net::IpAddr> {
        self.address
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The name that a certificate must have.
    pub(super) fn tls_name(&self) -> String {
        match self.address {
            Some(address) if self.name.is_empty() => address.to_string(),
            _ => self.name.clone(),
        }
    }

    fn is_local(&self) -> bool {
        match self.address.or_else(|| self.name.parse().ok()) {
            Some(address) => address.is_loopback(),
            None => self.is_socket() || self.name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// An option of libpq's and the variable that gives it when the string does not.
const VARIABLES: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("options", "PGOPTIONS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    // Refused below: they ask for a protection or an indirection that is not there.
    ("service", "PGSERVICE"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslpassword", ""),
    ("requirepeer", "PGREQUIREPEER"),
    ("require_auth", "PGREQUIREAUTH"),
];

/// Options that are refused rather than passed over.
const REFUSED: &[&str] = &["service", "sslcrl", "sslcrldir", "sslpassword", "requirepeer", "require_auth"];

/// Options that change nothing here: ripcord names its sessions itself, speaks UTF-8, keeps its own
/// keepalives and never uses GSSAPI.
const PASSED_OVER: &[&str] = &[
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "sslsni",
    "sslcertmode",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "min_protocol_version",
    "max_protocol_version",
    "krbsrvname",
    "gsslib",
    "gssencmode",
    "gssdelegation",
    "load_balance_hosts",
];

impl Target {
    /// From the URL or `key=value` string in `settings`, libpq's variables (`PGHOST`, `PGPORT`, `PGUSER`,
    /// `PGPASSWORD`, `PGPASSFILE`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSERVICE` is refused with
    /// a hint) as given in `environment`, and `~/.pgpass`.
    pub fn resolve(settings: &Settings, environment: &dyn Fn(&str) -> Option<String>) -> Result<Target> {
        let mut given = match &settings.database_url {
            Some(url) => parse::parse(url.expose_secret())?,
            None => parse::Options::new(),
        };
        for key in given.keys() {
            check_key(key)?;
        }
        let mut password_origin = "the database URL".to_owned();
        for (key, variable) in VARIABLES {
            if given.get(*key).is_some_and(|value| !value.is_empty()) || variable.is_empty() {
                continue;
            }
            if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
                if *key == "password" {
                    password_origin = format!("`{variable}`");
                }
                given.insert((*key).to_owned(), value);
            }
        }
        given.retain(|_, value| !value.is_empty());
        if let Some(key) = REFUSED.iter().find(|key| given.contains_key(**key)) {
            let variable = VARIABLES.iter().find(|(name, _)| name == key).map_or("", |(_, variable)| variable);
            return Err(Error::usage(format!("the connection option `{key}` (`{variable}`) is not supported")).hint(
                if *key == "service" {
                    "write the service's host, port, user and database into the database URL"
                } else {
                    "take the option away, or protect the connection with `sslmode=verify-full`"
                },
            ));
        }
        Target::from_options(&mut given, password_origin, settings.timeouts.connect, environment)
    }

    fn from_options(
        given: &mut parse::Options,
        password_origin: String,
        connect_timeout: Duration,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Target> {
        let home = environment("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or_else(|| account().1);
        let mut warnings = Vec::new();
        let user = match given.remove("user").or_else(|| account().0).or_else(|| environment("USER")) {
            Some(user) => user,
            None => {
                return Err(
                    Error::usage("no database user is given").hint("write it into the database URL, or set `PGUSER`")
                );
            }
        };
        let database = given.remove("dbname").unwrap_or_else(|| user.clone());
        let hosts = hosts(given)?;

        let in_home = |name: &str| home.as_ref().map(|home| home.join(".postgresql").join(name));
        let file = |given: Option<String>, name: &str| {
            given.map(PathBuf::from).or_else(|| in_home(name).filter(|path| path.exists()))
        };
        let ssl_files = tls::Files {
            root: file(given.remove("sslrootcert"), "root.crt"),
            certificate: file(given.remove("sslcert"), "postgresql.crt"),
            key: file(given.remove("sslkey"), "postgresql.key"),
        };
        let system_roots = ssl_files.root.as_deref() == Some(Path::new("system"));
        let ssl_mode = match given.remove("sslmode") {
            Some(mode) => SslMode::parse(&mode)?,
            None if system_roots => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        if system_roots && ssl_mode != SslMode::VerifyFull {
            // libpq's rule: anyone can get a certificate that the system trusts.
            return Err(Error::usage(format!("sslmode `{}` is too weak with `sslrootcert=system`", ssl_mode.as_str()))
                .hint("use `sslmode=verify-full`"));
        }
        let direct_tls = word(given, "sslnegotiation", &[("postgres", false), ("direct", true)])?.unwrap_or(false);
        if direct_tls && matches!(ssl_mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) {
            return Err(Error::usage("`sslnegotiation=direct` needs `sslmode=require` or stricter"));
        }
        let channel_binding = word(
            given,
            "channel_binding",
            &[
                ("prefer", ChannelBinding::Prefer),
                ("disable", ChannelBinding::Disable),
                ("require", ChannelBinding::Require),
            ],
        )?;
        let session_attrs = word(
            given,
            "target_session_attrs",
            &[
                ("any", TargetSessionAttrs::Any),
                ("read-write", TargetSessionAttrs::ReadWrite),
                // A server that is no standby; whether it takes writes is asked of it in any case.
                ("primary", TargetSessionAttrs::ReadWrite),
            ],
        )?;
        let connect_timeout = match given.remove("connect_timeout") {
            Some(text) => match text.trim().parse::<i64>() {
                Ok(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs().max(2)),
                Ok(_) => connect_timeout,
                Err(_) => return Err(Error::usage("`connect_timeout` must be a whole number of seconds")),
            },
            None => connect_timeout,
        };

        let password = given.remove("password").map(|password| (SecretString::from(password), password_origin));
        let asked_for = given.remove("passfile").map(PathBuf::from);
        let pass_path = asked_for.clone().or_else(|| home.as_ref().map(|home| home.join(".pgpass")));
        let pass_file = match (&password, &pass_path) {
            (None, Some(path)) => {
                let (file, warning) = PassFile::read(path, asked_for.is_some());
                warnings.extend(warning);
                file
            }
            _ => PassFile::default(),
        };
        if given.remove("load_balance_hosts").is_some_and(|value| value != "disable") {
            warnings.push("`load_balance_hosts` is passed over: the hosts are tried in order".to_owned());
        }

        let server = Server {
            hosts,
            user,
            password,
            pass_path,
            pass_file,
            options: given.remove("options"),
            ssl_mode,
            ssl_files,
            direct_tls,
            channel_binding: channel_binding.unwrap_or(ChannelBinding::Prefer),
            session_attrs: session_attrs.unwrap_or(TargetSessionAttrs::Any),
            connect_timeout,
            home,
            warnings,
        };
        Ok(Target { server: Arc::new(server), database })
    }

    /// The same server, another database.
    pub fn with_database(&self, name: &str) -> Target {
        Target { server: Arc::clone(&self.server), database: name.to_owned() }
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role's name.
    pub fn user(&self) -> &str {
        &self.server.user
    }

    /// The server is on this machine (a socket or a loopback address).
    pub fn is_local(&self) -> bool {
        self.server.hosts.iter().all(Host::is_local)
    }

    /// `postgresql://user@host:port/database`, without the password.
    pub fn redacted(&self) -> String {
        let mut hosts = Vec::new();
        for host in &self.server.hosts {
            let name = host.tls_name();
            let name = if name.contains(':') { format!("[{name}]") } else { encoded(&name) };
            hosts.push(format!("{name}:{}", host.port));
        }
        format!("postgresql://{}@{}/{}", encoded(&self.server.user), hosts.join(","), encoded(&self.database))
    }

    /// What a person should know of how this was resolved, such as a password file that is ignored.
    pub fn warnings(&self) -> &[String] {
        &self.server.warnings
    }

    /// Where the password comes from, in words; `None` when there is none.
    pub(super) fn password_origin(&self) -> Option<String> {
        match &self.server.password {
            Some((_, origin)) => Some(origin.clone()),
            None => {
                self.hosts().iter().find_map(|host| self.password(host))?;
                self.server.pass_path.as_ref().map(|path| format!("`{}`", path.display()))
            }
        }
    }

    /// The hosts, in the order in which they are tried.
    pub(super) fn hosts(&self) -> &[Host] {
        &self.server.hosts
    }

    /// `sslmode`.
    pub(super) fn ssl_mode(&self) -> SslMode {
        self.server.ssl_mode
    }

    /// How long connecting to one host may take, as the connection string or the settings say.
    pub fn connect_timeout(&self) -> Duration {
        self.server.connect_timeout
    }

    /// The connector for TLS, as the mode and the files ask.
    pub(super) fn tls(&self) -> Result<MakeRustlsConnect> {
        tls::connector(self.server.ssl_mode, &self.server.ssl_files)
    }

    /// The driver's configuration for one host. `options` are more settings for the session's start; TLS is
    /// used, or not, as told.
    pub(super) fn config(&self, host: &Host, options: &str, with_tls: bool) -> Config {
        let mut config = Config::new();
        config.user(&self.server.user).dbname(&self.database);
        if let Some(password) = self.password(host) {
            config.password(password.expose_secret());
        }
        let options = match &self.server.options {
            Some(own) => format!("{own} {options}"),
            None => options.to_owned(),
        };
        config.options(options);
        config.ssl_mode(match (with_tls, self.server.ssl_mode) {
            (false, _) => tokio_postgres::config::SslMode::Disable,
            (true, SslMode::Prefer) => tokio_postgres::config::SslMode::Prefer,
            (true, _) => tokio_postgres::config::SslMode::Require,
        });
        if self.server.direct_tls {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        // Without TLS there is nothing to bind to; `require` must then fail, which the driver does.
        config.channel_binding(self.server.channel_binding);
        config
    }

    /// Whether only a server that takes writes will do (`target_session_attrs`).
    pub(super) fn wants_writable(&self) -> bool {
        self.server.session_attrs == TargetSessionAttrs::ReadWrite
    }

    fn password(&self, host: &Host) -> Option<&SecretString> {
        if let Some((password, _)) = &self.server.password {
            return Some(password);
        }
        let name = if SOCKET_FOLDERS.contains(&host.name()) { "localhost".to_owned() } else { host.tls_name() };
        self.server.pass_file.find(&name, host.port, &self.database, &self.server.user)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.redacted()).finish()
    }
}

/// Folders that PostgreSQL's builds keep their socket in: Debian's and Red Hat's, upstream's.
const SOCKET_FOLDERS: &[&str] = &["/var/run/postgresql", "/run/postgresql", "/tmp"];

fn check_key(key: &str) -> Result<()> {
    if PASSED_OVER.contains(&key) || VARIABLES.iter().any(|(name, _)| *name == key) {
        return Ok(());
    }
    let error = Error::usage(format!("`{}` is not a connection option of PostgreSQL", key.escape_default()));
    Err(match key {
        "pgbouncer" => {
            error.hint("give a URL that leads to PostgreSQL itself: a transaction pooler loses locks and snapshots")
        }
        "schema" => error.hint("take `schema` out of the URL; the role's or the database's own search_path counts"),
        _ => error.hint(format!("take `{}` out of the database URL", key.escape_default())),
    })
}

fn word<T: Copy>(given: &mut parse::Options, key: &str, words: &[(&str, T)]) -> Result<Option<T>> {
    let Some(value) = given.remove(key) else { return Ok(None) };
    match words.iter().find(|(word, _)| *word == value) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => {
            let names: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            Err(Error::usage(format!("`{key}` cannot be `{}`", value.escape_default()))
                .hint(format!("use {}", names.join(", "))))
        }
    }
}

/// `host`, `hostaddr` and `port` are lists of one length, or the port is one for all.
fn hosts(given: &mut parse::Options) -> Result<Vec<Host>> {
    let list = |value: Option<String>| -> Vec<String> {
        value.map(|value| value.split(',').map(|item| item.trim().to_owned()).collect()).unwrap_or_default()
    };
    let names = list(given.remove("host"));
    let addresses = list(given.remove("hostaddr"));
    let ports = list(given.remove("port"));
    let count = names.len().max(addresses.len()).max(1);
    let fits = |len: usize| len == 0 || len == count;
    if !fits(names.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return Err(Error::usage("the connection has not as many ports or addresses as hosts"));
    }
    (0..count)
        .map(|at| {
            let port = match ports.get(at).or(ports.first()).map_or("", String::as_str) {
                "" => 5432,
                // The text is not shown: where a URL is badly encoded, it is a piece of the password.
                text => match text.parse() {
                    Ok(port) if port != 0 => port,
                    _ => {
                        return Err(Error::usage("the connection's port is not a number from 1 to 65535")
                            .hint("when the password has a `:`, `/` or `@`, write them as `%3A`, `%2F`, `%40`"));
                    }
                },
            };
            let address = match addresses.get(at).map_or("", String::as_str) {
                "" => None,
                text => Some(text.parse().map_err(|_| Error::usage("`hostaddr` is not an IP address"))?),
            };
            let mut name = names.get(at).cloned().unwrap_or_default();
            if name.starts_with('@') {
                return Err(Error::usage("abstract Unix sockets are not supported"));
            }
            if name.is_empty() && address.is_none() {
                name = default_host(port);
            }
            Ok(Host { name, address, port })
        })
        .collect()
}

/// The folder that holds a socket for this port, else `localhost`.
fn default_host(port: u16) -> String {
    SOCKET_FOLDERS
        .iter()
        .find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists())
        .map_or_else(|| "localhost".to_owned(), |folder| (*folder).to_owned())
}

/// The name and the home of the user that this process runs as.
fn account() -> (Option<String>, Option<PathBuf>) {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let Ok(passwd) = std::fs::read_to_string("/etc/passwd") else { return (None, None) };
    let line =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|line| line.get(2) == Some(&uid.as_str()));
    match line {
        Some(line) => (line.first().map(|name| (*name).to_owned()), line.get(5).map(PathBuf::from)),
        None => (None, None),
    }
}

/// Percent-encodes what would make a URL read as another one; letters of any script stay legible.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-.~".contains(c) {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
