//! PostgreSQL clusters on free ports, with a socket folder of their own, run as an unprivileged user when
//! the tests are run by root, and stopped whatever happens to the test process.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The superuser's password, for connections over TCP; the socket trusts everyone.
pub const PASSWORD: &str = "s3cr3t:pass word/@";

/// A running server.
pub struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    /// Holds the server up: it stops when this process's end of the pipe closes, however that happens.
    keeper: Child,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Cluster {
    /// The cluster that all tests of this process share. Roles are cluster-wide: give them unique names.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::start(&[]))
    }

    /// A cluster of its own, with lines added to `postgresql.conf`.
    pub fn start(settings: &[&str]) -> Cluster {
        Cluster::start_with(&programs_folder(), settings)
    }

    /// Likewise, with the programs of another version.
    pub fn start_with(bin: &Path, settings: &[&str]) -> Cluster {
        for _ in 0..5 {
            if let Some(cluster) = Cluster::try_start(bin, settings) {
                return cluster;
            }
        }
        panic!("no cluster started with the programs in {} after five attempts", bin.display());
    }

    fn try_start(bin: &Path, settings: &[&str]) -> Option<Cluster> {
        // Short, since a socket's path may have 107 bytes.
        let folder = PathBuf::from(format!("/tmp/rct-{}", &uuid::Uuid::new_v4().simple().to_string()[..10]));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let data = folder.join("data");
        let initdb = run_as(user, &bin.join("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N", "-D"])
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        std::fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        let port = free_port();
        let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        writeln!(
            conf,
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             max_prepared_transactions = 10\nwal_level = logical\nmax_connections = 100\nshared_buffers = 64MB\n\
             password_encryption = 'scram-sha-256'\nlog_min_messages = warning\n{}",
            folder.display(),
            settings.join("\n")
        )
        .unwrap();
        drop(conf);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        // The keeper starts the server and then reads its standard input; end of file there means that the
        // test process is gone, and with it the need for a server.
        let keeper = run_as(user, Path::new("/bin/sh"))
            .arg("-c")
            .arg(
                "\"$1/postgres\" -D \"$2/data\" & server=$!; echo $server > \"$2/keeper.pid\"; cat > /dev/null; \
                 kill -QUIT $(head -1 \"$2/data/postmaster.pid\" 2>/dev/null || echo $server) 2>/dev/null; \
                 wait $server; rm -rf \"$2/data\" \"$2\"/.s* \"$2\"/* 2>/dev/null; rmdir \"$2\" 2>/dev/null; true",
            )
            .arg("keeper")
            .arg(bin)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // Ctrl-C reaches the test process; the keeper must outlive it to clean up.
            .process_group(0)
            .spawn()
            .expect("the keeper starts");
        let cluster = Cluster { folder, bin: bin.to_owned(), port, keeper };
        if !cluster.wait_until_ready(Duration::from_secs(60)) {
            return None;
        }
        let password = PASSWORD.replace('\'', "''");
        cluster.sql("postgres", &format!("alter role postgres password '{password}'"));
        Some(cluster)
    }

    fn wait_until_ready(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let ready =
                self.psql("postgres").args(["-Atc", "select 1"]).output().is_ok_and(|output| output.status.success());
            if ready {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// A psql on the socket, as the superuser.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(&self.folder)
            .args(["-p", &self.port.to_string(), "-U", "postgres", "-d", &conninfo_database(database)])
            .env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Runs SQL as the superuser and returns what `psql -At` prints; panics when it fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }

    /// Likewise; the error is psql's.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut child = self
            .psql(database)
            .args(["-At", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql starts");
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// A new database with a name of its own.
    pub fn database(&self) -> Db<'_> {
        let name = format!("db{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        self.database_named(&name, "")
    }

    /// A new database of that name, with what follows in CREATE DATABASE.
    pub fn database_named(&self, name: &str, options: &str) -> Db<'_> {
        self.sql("postgres", &format!("create database {} template template0 {options}", quote(name)));
        Db { cluster: self, name: name.to_owned() }
    }

    /// A copy of another database, which nobody is connected to.
    pub fn database_like(&self, name: &str, template: &str, owner: &str) -> Db<'_> {
        let sql = format!("create database {} template {} owner {}", quote(name), quote(template), quote(owner));
        let deadline = Instant::now() + Duration::from_secs(20);
        // A session that has just been closed may be there for another moment.
        while let Err(error) = self.try_sql("postgres", &sql) {
            assert!(error.contains("being accessed") && Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Db { cluster: self, name: name.to_owned() }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket's folder.
    pub fn socket(&self) -> &Path {
        &self.folder
    }

    /// The folder of the server's programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The server's process id.
    pub fn server_pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    /// Kills the server as a power cut would, and starts it again on the same data.
    pub fn crash_and_restart(&self) {
        self.crash();
        self.restart();
    }

    /// Kills every process of the server at once, and waits until they are gone: one that is left would keep the
    /// shared memory, and no other server starts on the data.
    pub fn crash(&self) {
        let server = self.server_pid().to_string();
        let signal = |signal: &str, pids: &[String]| {
            let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
        };
        // Stopped, it begins no new ones.
        signal("-STOP", std::slice::from_ref(&server));
        let children = Command::new("pgrep").args(["-P", &server]).output().expect("pgrep starts");
        let mut pids: Vec<String> = String::from_utf8_lossy(&children.stdout).lines().map(str::to_owned).collect();
        pids.push(server);
        signal("-KILL", &pids);
        let gone = |pid: &String| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |state| state.contains(") Z "))
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !pids.iter().all(gone) {
            assert!(Instant::now() < deadline, "the server's processes do not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `pg_ctl stop -m immediate`: the server ends without a checkpoint.
    pub fn stop_immediately(&self) {
        let stopped = run_as(unprivileged_user(), &self.bin.join("pg_ctl"))
            .args(["stop", "-s", "-m", "immediate", "-w", "-t", "60", "-D"])
            .arg(self.folder.join("data"))
            .output()
            .expect("pg_ctl starts");
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    }

    /// Starts the server again after [`crash`](Self::crash) or [`stop_immediately`](Self::stop_immediately).
    pub fn restart(&self) {
        let _ = std::fs::remove_file(self.folder.join("data/postmaster.pid"));
        let log = std::fs::OpenOptions::new().append(true).open(self.folder.join("log")).unwrap();
        let mut command = run_as(unprivileged_user(), &self.bin.join("postgres"));
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let server = command.process_group(0).spawn().expect("postgres starts");
        // Reaped in the background: the server outlives this call.
        std::thread::spawn(move || {
            let mut server = server;
            let _ = server.wait();
        });
        if !self.wait_until_ready(Duration::from_secs(60)) {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            panic!("the server did not come back; its log, the last line first:\n{}", last.join("\n"));
        }
    }

    /// A URL over TCP with the password.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", PASSWORD, database)
    }

    /// A URL over TCP as another role.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgresql://{}:{}@127.0.0.1:{}/{}", percent(user), percent(password), self.port, percent(database))
    }
}

/// A port below those that the system gives to outgoing connections: one of those could be taken by a client while
/// its server is down.
fn free_port() -> u16 {
    loop {
        let port = 10_000 + u16::try_from(uuid::Uuid::new_v4().as_u128() % 22_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A database of a cluster. It stays until the cluster goes.
pub struct Db<'a> {
    pub cluster: &'a Cluster,
    pub name: String,
}

impl Db<'_> {
    /// Runs SQL as the superuser; panics when it fails.
    pub fn sql(&self, sql: &str) -> String {
        self.cluster.sql(&self.name, sql)
    }

    /// A URL over TCP with the superuser's password.
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// The plain text of a schema dump, for comparing before with after. Ripcord's own schema is left out.
    pub fn schema(&self) -> String {
        // Another test's role may have a name that a `client_encoding` of the database's cannot write.
        let encoding = "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()";
        let output = Command::new(self.cluster.bin.join("pg_dump"))
            .args(["-s", "-N", "ripcord", "-E", &self.sql(encoding), "-h"])
            .arg(&self.cluster.folder)
            .args(["-p", &self.cluster.port.to_string(), "-U", "postgres", "-d", &conninfo_database(&self.name)])
            .output()
            .expect("pg_dump starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The folder with the newest PostgreSQL server programs of the machine.
pub fn programs_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("RIPCORD_TEST_PG_BIN") {
        return PathBuf::from(folder);
    }
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    found
        .pop()
        .expect("PostgreSQL's server programs are needed: run scripts/test, or install the package `postgresql`")
        .1
}

/// The major version of the programs in a folder.
pub fn major_of(bin: &Path) -> u32 {
    let output = Command::new(bin.join("postgres")).arg("--version").output().expect("postgres starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let digits = number.and_then(|number| number.split(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no version in `{text}`"))
}

/// The folder with the programs of a major version: the system's, where `RIPCORD_TEST_PG_<major>` says, or where
/// scripts/test puts them.
pub fn programs_of(major: u32) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let candidates = [
        set(&format!("RIPCORD_TEST_PG_{major}")),
        Some(programs_folder()),
        Some(PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))),
        target.join(format!("postgresql-{major}")).canonicalize().ok(),
        set("RIPCORD_TEST_OTHER_PG"),
        target.join("other-postgresql").canonicalize().ok(),
    ];
    candidates.into_iter().flatten().find(|bin| bin.join("initdb").exists() && major_of(bin) == major).unwrap_or_else(
        || panic!("the programs of PostgreSQL {major} are needed: run scripts/test, or set RIPCORD_TEST_PG_{major}"),
    )
}

/// initdb and postgres refuse root: the user to run them as, when the tests are run by root.
pub fn unprivileged_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let lookup = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut parts = line.split(':');
            (parts.next()? == name).then(|| {
                let uid = parts.nth(1)?.parse().ok()?;
                let gid = parts.next()?.parse().ok()?;
                Some((uid, gid))
            })?
        })
    };
    Some(lookup("postgres").or_else(|| lookup("nobody")).expect("a user `postgres` or `nobody`"))
}

fn run_as(user: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/tmp").env_remove("PGOPTIONS").env("LC_ALL", "C.UTF-8");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn conninfo_database(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
