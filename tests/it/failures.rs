//! Runs that fail, for every reason that could be thought of: how they end, what they say, what they leave.

mod backups;
mod choosing;
mod health;
mod hooks;
mod jobs;
mod migrations;
mod server;
mod stopping;
mod store;
mod writers;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::cli::{Ran, ran};
use crate::support::{Cluster, Db, Project};

/// How long anything that is waited for may take before the test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// A project whose first migration, a table of orders, is applied already.
fn shop(db: &Db<'_>) -> Project {
    with_shop(Project::new(db))
}

fn with_shop(project: Project) -> Project {
    project.migration(
        "001_orders.sql",
        "CREATE TABLE orders (id int PRIMARY KEY, note text);\n\
         INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 100) AS g;",
        "DROP TABLE orders;",
    );
    project.run(&["apply"]).expect_code(0);
    project
}

/// A configuration in which the application is well as long as this query returns true or nothing.
fn well_while(query: &str) -> String {
    format!("[[health]]\nsql = \"{query}\"\nsuccesses = 1\ninterval = \"50ms\"\ndeadline = \"1s\"\n")
}

/// The applied migrations and the failed attempts, in order.
fn history(db: &Db<'_>) -> String {
    db.sql("select string_agg(version || ' ' || state, ', ' order by id) from ripcord.schema_migrations")
}

/// Every run with its outcome and exit code, in order.
fn runs(db: &Db<'_>) -> String {
    db.sql(
        "select string_agg(concat_ws(' ', command, coalesce(outcome, 'unfinished'), exit_code), ', ' order by started_at) \
         from ripcord.runs",
    )
}

/// What the last run left in the audit log.
fn audit(db: &Db<'_>) -> String {
    db.sql(
        "select string_agg(action, ', ' order by id) from ripcord.audit_log \
         where run_id = (select id from ripcord.runs order by started_at desc limit 1)",
    )
}

/// Every backup's status, in order.
fn backups(db: &Db<'_>) -> String {
    db.sql("select string_agg(status, ', ' order by started_at) from ripcord.backup_history")
}

/// The names of the backups that the store holds something of, sorted.
fn stored_backups(project: &Project) -> Vec<String> {
    let mut found = Vec::new();
    for lineage in std::fs::read_dir(project.store()).into_iter().flatten().flatten() {
        for backup in std::fs::read_dir(lineage.path().join("backups")).into_iter().flatten().flatten() {
            found.push(backup.file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

/// Other databases of the server that were made for `db`: scratch ones and those kept by a swap.
fn asides(db: &Db<'_>) -> Vec<String> {
    let sql = format!(
        "select datname from pg_database where datname like '{0}%' and datname <> '{0}' or datname like 'rc\\_%' \
         and shobj_description(oid, 'pg_database') like '%{0}%' order by 1",
        db.name
    );
    db.cluster.sql("postgres", &sql).lines().map(str::to_owned).collect()
}

/// Asserts the last lines for people: the state of the database, a blank line, and what to run.
#[track_caller]
fn tells(ran: &Ran, database: &str, hint: &str) {
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let at = lines.iter().rposition(|line| line.starts_with("database: "));
    let at = at.unwrap_or_else(|| panic!("no state of the database is told: {ran:#?}"));
    assert!(lines[at].starts_with(&format!("database: {database}")), "{ran:#?}");
    let mut rest = lines[at + 1..].iter();
    let mut next = rest.next();
    if next.is_some_and(|line| line.starts_with("backup: ")) {
        next = rest.next();
    }
    assert_eq!(next, Some(&""), "a blank line is missing: {ran:#?}");
    let told = rest.copied().collect::<Vec<_>>().join("\n");
    assert!(told.starts_with("hint: ") && told.contains(hint), "{ran:#?}");
}

/// Waits until the condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A run of the binary that goes on while the test does something.
struct Running {
    child: Option<Child>,
    output: PathBuf,
}

impl Running {
    fn start(project: &Project, arguments: &[&str]) -> Running {
        Running::spawn(project, project.command(arguments))
    }

    /// With fault points, such as `apply_backed_up=wait:/path`.
    fn with_faults(project: &Project, arguments: &[&str], faults: &str) -> Running {
        let mut command = project.command(arguments);
        command.env("RIPCORD_FAULTS", faults);
        Running::spawn(project, command)
    }

    fn spawn(project: &Project, mut command: Command) -> Running {
        let output = project.path().join(format!("output-{}", uuid::Uuid::new_v4().simple()));
        let file = |end: &str| std::fs::File::create(output.with_extension(end)).unwrap();
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        Running { child: Some(command.spawn().unwrap()), output }
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.output.with_extension("err")).unwrap()
    }

    /// Waits until the condition holds, and panics when the process ends before.
    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        wait_until(what, || {
            if condition() {
                return true;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended before {what}: {ended:?}\n{}", self.stderr());
            false
        });
    }

    #[track_caller]
    fn until_it_says(&mut self, text: &str) {
        let files = ["out", "err"].map(|end| self.output.with_extension(end));
        let said = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|said| said.contains(text));
        self.until(text, || files.iter().any(said));
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    #[track_caller]
    fn finish(mut self) -> Ran {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("it does not end: {}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |end: &str| std::fs::read(self.output.with_extension(end)).unwrap();
        ran(std::process::Output { status, stdout: read("out"), stderr: read("err") })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A session that stays, as another application's would.
struct Holding {
    child: Child,
}

impl Holding {
    /// Runs SQL in a transaction, and stays in it.
    fn open(db: &Db<'_>, sql: &str) -> Holding {
        use std::io::{BufRead, BufReader, Write};
        let mut child = db
            .cluster
            .psql(&db.name)
            .args(["-At", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "begin; {sql};\n\\echo ready").unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(answers.any(|line| line.is_ok_and(|line| line == "ready")), "{sql}");
        Holding { child }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An application that inserts all the while, each row in a transaction of its own, and reconnects.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<i64>>>,
    refused: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Inserts 1, 2, 3, … into `events (n)`.
    fn start(db: &Db<'_>) -> Writer {
        let (stop, acknowledged, refused) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let url = db.url();
        let thread = std::thread::spawn({
            let (stop, acknowledged, refused) = (stop.clone(), acknowledged.clone(), refused.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(write(&url, &stop, &acknowledged, &refused));
            }
        });
        Writer { stop, acknowledged, refused, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more rows are acknowledged.
    #[track_caller]
    fn writes(&self, more: usize) {
        let wanted = self.count() + more;
        wait_until("the application writes", || self.count() >= wanted);
    }

    /// SQLSTATEs of the inserts that failed.
    fn refusals(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    /// Ends it, and gives what was acknowledged.
    fn finish(mut self) -> Vec<i64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn write(url: &str, stop: &AtomicBool, acknowledged: &Mutex<Vec<i64>>, refused: &Mutex<Vec<String>>) {
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Ok((client, connection)) = tokio_postgres::connect(url, tokio_postgres::NoTls).await else { continue };
        let connection = tokio::spawn(connection);
        while !stop.load(Ordering::SeqCst) {
            n += 1;
            match client.execute("insert into public.events (n) values ($1)", &[&n]).await {
                Ok(_) => acknowledged.lock().unwrap().push(n),
                Err(error) => {
                    let state = error.code().map_or("gone", |code| code.code()).to_owned();
                    refused.lock().unwrap().push(state);
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        let _ = connection.await;
    }
}

/// Rows of `events` that were acknowledged and are not there.
fn lost(db: &Db<'_>, acknowledged: &[i64]) -> Vec<i64> {
    let there: std::collections::HashSet<i64> =
        db.sql("select n from events").lines().map(|line| line.parse().unwrap()).collect();
    acknowledged.iter().copied().filter(|n| !there.contains(n)).collect()
}

/// A program in a folder, as a shell script.
fn script(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Our sessions in the database.
fn our_backends(db: &Db<'_>) -> String {
    let sql = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and application_name like '%ripcord%'",
        db.name
    );
    db.cluster.sql("postgres", &sql)
}

/// The server's programs of a cluster, as the tests' own.
fn program(cluster: &Cluster, name: &str) -> String {
    cluster.bin().join(name).display().to_string()
}
