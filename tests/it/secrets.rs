//! What must never be on a disk, in an argument or in a message: rows, definitions, settings, password and key.
//! And how much memory a large database takes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::cli::{KEY, peak_memory, ran};
use crate::support::cluster::PASSWORD;
use crate::support::{Cluster, Db, Project};

const ROW: &str = "row-value-7f3a9c1e";
const BODY: &str = "function-body-52bd80aa";
const SETTING: &str = "setting-value-c0ffee42";
const SERVER_PASSWORD: &str = "foreign-password-91d1e6";
const LARGE: &str = "large-object-5ad0be11";

/// A project whose password is in `.pgpass` and whose key is in a file: nothing secret in ripcord's environment.
struct Vault {
    project: Project,
    secret: tempfile::TempDir,
    temporary: tempfile::TempDir,
}

impl Vault {
    fn new(db: &Db<'_>) -> Vault {
        let secret = tempfile::tempdir().unwrap();
        let private = |name: &str, text: &str| -> PathBuf {
            let path = secret.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
        let pass = private("pgpass", &format!("*:*:*:postgres:{escaped}\n"));
        let key = private("key", KEY);
        let temporary = tempfile::tempdir().unwrap();
        let url = format!("postgresql://postgres@127.0.0.1:{}/{}", db.cluster.port(), db.name);
        let project = Project::with_url(&url)
            .env("PGPASSFILE", pass.to_str().unwrap())
            .env("TMPDIR", temporary.path().to_str().unwrap());
        project.configure(&format!("[key]\nfile = \"{}\"\n[logs]\ndir = \"logs\"\n", key.display()));
        Vault { project, secret, temporary }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        command.env_remove("BACKUP_ENCRYPTION_KEY");
        command
    }

    /// Everything that the run writes or could write: project (store, journals, logs, home), TMPDIR, and the
    /// machine's own places for such things.
    fn search(&self, when: &str) {
        let needles = needles();
        for folder in [self.project.path(), self.temporary.path()] {
            search_folder(folder, &needles, when, &|path| {
                // The migrations are the operator's own.
                path.starts_with(self.project.path().join("migrations"))
            });
        }
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("PostgreSQL.") {
                continue;
            }
            search_file(&entry.path(), &needles, when);
        }
        assert!(self.secret.path().exists());
    }
}

/// Each secret in every form that it could be written in.
fn needles() -> Vec<(String, Vec<u8>)> {
    let mut needles = Vec::new();
    for (name, text) in [
        ("row", ROW),
        ("body", BODY),
        ("setting", SETTING),
        ("server", SERVER_PASSWORD),
        ("large object", LARGE),
        ("password", PASSWORD),
        ("key", KEY),
    ] {
        needles.push((name.to_owned(), text.as_bytes().to_vec()));
    }
    needles.push(("key's bytes".to_owned(), hex::decode(KEY).unwrap()));
    needles.push(("password in a URL".to_owned(), b"s3cr3t%3A".to_vec()));
    needles
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

/// How large the databases of these tests are. They are small by default; before a release the search is made over
/// 1024 and the memory is measured up to 4096 (CONTRIBUTING.md).
fn megabytes(default: u64) -> u64 {
    std::env::var("RIPCORD_TEST_MEGABYTES").map_or(default, |text| text.parse().unwrap())
}

fn search_folder(folder: &Path, needles: &[(String, Vec<u8>)], when: &str, skip: &dyn Fn(&Path) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if skip(&path) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search_folder(&path, needles, when, skip);
        } else {
            search_file(&path, needles, when);
        }
    }
}

fn search_file(path: &Path, needles: &[(String, Vec<u8>)], when: &str) {
    let bytes = std::fs::read(path).unwrap_or_default();
    for (name, needle) in needles {
        assert!(!contains(&bytes, needle), "{when}: the {name} stands in {}", path.display());
    }
}

/// The process and all its descendants, with their names.
fn family(pid: u32) -> BTreeMap<u32, String> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(") ") else { continue };
        let name = head.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let parent: u32 = rest.split(' ').nth(1).unwrap().parse().unwrap();
        parents.insert(number, (parent, name));
    }
    let mut found = BTreeMap::new();
    found.extend(parents.get(&pid).map(|(_, name)| (pid, name.clone())));
    loop {
        let more: Vec<_> = parents
            .iter()
            .filter(|(number, (parent, _))| found.contains_key(parent) && !found.contains_key(number))
            .map(|(number, (_, name))| (*number, name.clone()))
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Arguments and environment of ripcord and its children; what programs of PostgreSQL were seen.
fn search_processes(pid: u32, when: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for number in family(pid).into_keys() {
        let read = |what: &str| std::fs::read(format!("/proc/{number}/{what}")).unwrap_or_default();
        let (arguments, environment) = (read("cmdline"), read("environ"));
        // After them, since a child that has just begun becomes another program.
        let name = String::from_utf8_lossy(&read("comm")).trim_end().to_owned();
        for (what, needle) in needles() {
            assert!(!contains(&arguments, &needle), "{when}: the {what} is an argument of {name}");
            for variable in environment.split(|byte| *byte == 0) {
                let allowed = variable.starts_with(b"PGPASSWORD=") && matches!(name.as_str(), "pg_dump" | "pg_restore");
                assert!(allowed || !contains(variable, &needle), "{when}: the {what} is in the environment of {name}");
            }
        }
        seen.push(name);
    }
    seen
}

/// Starts it with the fault point, waits until it is there, looks, lets it go on.
struct Stops {
    child: Child,
    signs: PathBuf,
}

fn start(vault: &Vault, arguments: &[&str], points: &[&str], signs: &Path) -> Stops {
    let faults: Vec<String> = points.iter().map(|point| format!("{point}=wait:{}/{point}", signs.display())).collect();
    let mut command = vault.command(arguments);
    command.env("RIPCORD_FAULTS", faults.join(",")).stdout(Stdio::piped()).stderr(Stdio::piped());
    Stops { child: command.spawn().unwrap(), signs: signs.to_owned() }
}

impl Stops {
    /// Waits for the point; `false` when the process ended before it.
    fn reached(&mut self, point: &str) -> bool {
        while !self.signs.join(point).exists() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        true
    }

    fn go_on(&self, point: &str) {
        std::fs::remove_file(self.signs.join(point)).unwrap();
    }
}

fn fill(db: &Db<'_>) {
    db.sql(&format!(
        "create table people (id int primary key, name text); insert into people select g, '{ROW}' from generate_series(1, 50) g;\n\
         create table big (id int, s text);\n\
         insert into big select g, '{ROW} ' || md5(g::text) || repeat(md5((g / 7)::text), 7) from generate_series(1, {rows}) g;\n\
         create function hidden() returns text language sql as $$ select '{BODY}'::text $$;\n\
         create extension postgres_fdw; create server s foreign data wrapper postgres_fdw;\n\
         create user mapping for postgres server s options (user 'u', password '{SERVER_PASSWORD}');\n\
         select lo_from_bytea(0, '{LARGE}'::bytea); alter database {} set app.token = '{SETTING}';",
        db.name,
        rows = megabytes(5) * 3500,
    ));
}

#[test]
fn nothing_secret_is_found_anywhere_while_a_run_fails_and_is_restored() {
    let db = Cluster::shared().database();
    fill(&db);
    let vault = Vault::new(&db);
    vault.project.migration("001_wreck.sql", "DROP TABLE people;\nDROP FUNCTION hidden();", "").migration(
        "002_bad.sql",
        "SELECT * FROM nowhere;",
        "SELECT 1;",
    );
    let signs = tempfile::tempdir().unwrap();
    let points = [
        "backup_snapshot",
        "backup_stored",
        "backup_read_back",
        "backup_committed",
        "apply_backed_up",
        "load_began",
        "load_done",
        "scratch_ready",
        "swap_closed",
        "swap_renamed",
    ];

    let mut run = start(&vault, &["--json", "apply"], &points, signs.path());
    let pid = run.child.id();
    for point in points {
        if !run.reached(point) {
            let ran = ran(run.child.wait_with_output().unwrap());
            panic!("it ended before {point}: {ran:#?}");
        }
        search_processes(pid, point);
        vault.search(point);
        run.go_on(point);
    }
    let ran = ran(run.child.wait_with_output().unwrap());
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert_eq!(ran.result()["outcome"], "restored");
    for (what, needle) in needles() {
        assert!(!contains(ran.stdout.as_bytes(), &needle), "the {what} is on stdout");
        assert!(!contains(ran.stderr.as_bytes(), &needle), "the {what} is on stderr");
    }
    vault.search("afterwards");
    assert_eq!(db.sql(&format!("select count(*) from people where name = '{ROW}'")), "50");
    assert_eq!(db.sql("select hidden()"), BODY);
    assert_eq!(db.sql("show app.token"), SETTING);
}

/// While pg_dump and pg_restore really run: a lock holds the first, a slow function in an index the second.
#[test]
fn nothing_secret_is_seen_of_the_children() {
    let db = Cluster::shared().database();
    fill(&db);
    db.sql(
        "create function slow(int) returns int language plpgsql immutable as $$ begin if $1 = 7 then perform pg_catalog.pg_sleep(0.7); end if; return $1; end $$;\n\
         create index on people (slow(id));",
    );
    let vault = Vault::new(&db);
    let mut holder = db.cluster.psql(&db.name);
    holder.args(["-c", "begin; lock table big in access exclusive mode; select pg_sleep(600)"]);
    let mut holder = holder.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while db.sql(
        "select count(*) from pg_locks where relation = 'big'::regclass and mode = 'AccessExclusiveLock' and granted",
    ) == "0"
    {}
    let run =
        vault.command(&["--json", "backup", "create"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = run.id();
    // Waiting for the lock, it is the dump itself: asked for its version, pg_dump runs too.
    let waiting = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and wait_event_type = 'Lock' and query like 'LOCK TABLE%'",
        db.name
    );
    while db.sql(&waiting) == "0" {}
    assert!(search_processes(pid, "pg_dump runs").contains(&"pg_dump".to_owned()));
    vault.search("pg_dump runs");
    db.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity \
            where datname = current_database() and query like '%pg_sleep(600)%' and pid <> pg_backend_pid()",
    );
    let _ = holder.wait();
    let done = ran(run.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{done:#?}");

    let run = vault
        .command(&["--json", "restore", "latest", "--into", "secrets_copy"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = run.id();
    let mut seen = 0;
    while family(pid).values().any(|name| name == "ripcord") {
        if search_processes(pid, "pg_restore runs").contains(&"pg_restore".to_owned()) {
            seen += 1;
            if seen % 20 == 1 {
                vault.search("pg_restore runs");
            }
        }
        if std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")) {
            break;
        }
    }
    let done = ran(run.wait_with_output().unwrap());
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(seen > 0, "pg_restore was never seen");
    db.cluster.sql("postgres", "drop database secrets_copy");
}

#[test]
fn messages_of_failing_runs_show_no_secret() {
    let db = Cluster::shared().database();
    let project = Project::new(&db);
    let quiet = |what: &str, ran: &crate::support::cli::Ran| {
        assert_ne!(ran.code, 0, "{what}: {ran:#?}");
        for text in [&ran.stdout, &ran.stderr] {
            for needle in [PASSWORD, "s3cr3t%3A", KEY, "wr0ng-p4ss"] {
                assert!(!text.contains(needle), "{what}: {ran:#?}");
            }
        }
        let journals: Vec<(String, Vec<u8>)> = needles()
            .into_iter()
            .filter(|(name, _)| matches!(name.as_str(), "password" | "key" | "password in a URL"))
            .collect();
        search_folder(project.path(), &journals, what, &|path| path.starts_with(project.path().join("migrations")));
    };
    for json in [&["--json"][..], &[], &["-v"]] {
        let run = |arguments: &[&str]| {
            let mut all = json.to_vec();
            all.extend(arguments);
            project.run(&all)
        };
        let wrong = db.cluster.url_as("postgres", "wr0ng-p4ss", &db.name);
        for command in [&["apply"][..], &["backup", "create"], &["status"], &["restore", "latest"]] {
            let mut all = vec!["--database-url", &wrong];
            all.extend(command);
            project.migration("001_x.sql", "SELECT 1;", "SELECT 1;");
            quiet("a wrong password", &run(&all));
        }
        for url in [
            format!("postgresql://postgres:wr0ng-p4ss@127.0.0.1:1/{}", db.name),
            format!("postgresql://postgres:wr0ng-p4ss@nowhere.invalid/{}?sslmode=bogus", db.name),
            "postgresql://postgres:wr0ng-p4ss@[::1/x".to_owned(),
            "host=127.0.0.1 port=1 user=postgres password=wr0ng-p4ss dbname=x".to_owned(),
        ] {
            quiet("an address that does not work", &run(&["--database-url", &url, "status"]));
        }
        let literal = PASSWORD.replace('\'', "''");
        for sql in [
            format!("SELECT '{literal}' FROM nowhere;"),
            format!("DO $$ BEGIN RAISE EXCEPTION '%', '{literal}'; END $$;"),
            format!("SELECT '{KEY}'::int;"),
            format!("CREATE ROLE secrets_role PASSWORD '{literal}' nonsense;"),
        ] {
            project.migration("001_x.sql", &sql, "SELECT 1;");
            let ran = run(&["apply"]);
            assert_eq!(ran.code, 1, "{ran:#?}");
            quiet(&sql, &ran);
        }
    }
    // Nor in what the database remembers of it.
    let told = db.sql("select string_agg(t::text, ' ') from (select row_to_json(m)::text from ripcord.runs m union all select row_to_json(a)::text from ripcord.audit_log a) t(t)");
    assert!(!told.contains(PASSWORD) && !told.contains(KEY), "{told}");
}

/// Rows of about 300 bytes that compress as real text does.
fn table_of(db: &Db<'_>, megabytes: u64) {
    db.sql(&format!(
        "create unlogged table big as select g as id, md5(g::text) || repeat(md5((g / 7)::text), 7) || g as t from generate_series(1, {}) g",
        megabytes * 3700
    ));
}

#[test]
fn memory_does_not_grow_with_the_database() {
    let cluster = Cluster::shared();
    let mut peaks = Vec::new();
    let largest = megabytes(300);
    for megabytes in [largest / 4, largest] {
        let db = cluster.database();
        table_of(&db, megabytes);
        let project = Project::new(&db);
        let (ran, backup) = peak_memory(&project.command(&["--json", "backup", "create"]));
        let raw = ran.expect_code(0).result()["proof"]["raw_bytes"].as_u64().unwrap();
        assert!(raw > megabytes * 950_000, "{raw}");
        let copy = format!("{}_copy", db.name);
        let (ran, restore) = peak_memory(&project.command(&["--json", "restore", "latest", "--into", &copy]));
        ran.expect_code(0);
        cluster.sql("postgres", &format!("drop database {copy}"));
        let name = db.name.clone();
        cluster.sql("postgres", &format!("drop database {name}"));
        peaks.push((backup, restore));
    }
    println!("peaks of backup and restore, bytes: {peaks:?}");
    let [small, large] = peaks[..] else { unreachable!() };
    for (what, small, large) in [("backup", small.0, large.0), ("restore", small.1, large.1)] {
        assert!(large < 100 << 20, "{what}: {} MiB", large >> 20);
        // Queues are bounded by frames: how full the smaller one's were is chance.
        assert!(
            large <= small + small / 10 + (6 << 20),
            "{what}: {} KiB for {} MB, {} KiB for {largest} MB",
            small >> 10,
            largest / 4,
            large >> 10
        );
    }
}
