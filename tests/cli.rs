//! The binary, as far as it needs no server: what is typed, what is configured, what is printed.

// Helpers of tests, outside of the test functions that clippy.toml speaks of.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder to run in, and a child with no variables but those given.
struct Place {
    folder: tempfile::TempDir,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in {self}");
        self
    }

    #[track_caller]
    fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no `{text}` in {self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Place {
    fn new() -> Self {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, words: &str) -> Ran {
        self.run_with(words, &[])
    }

    fn run_with(&self, words: &str, variables: &[(&str, &str)]) -> Ran {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_ripcord"))
            .args(words.split_whitespace())
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

fn run(words: &str) -> Ran {
    Place::new().run(words)
}

/// The item of `config --json` with this key.
fn setting(ran: &Ran, key: &str) -> (String, String) {
    let result = ran.json();
    let items = result["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["key"] == key).unwrap_or_else(|| panic!("no {key}"));
    let text = |field: &str| item[field].as_str().unwrap().to_owned();
    (text("value"), text("source"))
}

#[test]
fn help_opens_with_what_people_want_to_do() {
    let help = run("--help").exits(0);
    let (table, rest) = help.stdout.split_once("Usage:").unwrap();
    for (want, command) in [
        ("change the database", "ripcord apply"),
        ("see where the database stands", "ripcord status"),
        ("take back the last migration", "ripcord rollback"),
        ("replace the database by a backup", "ripcord restore latest"),
    ] {
        let line = table.lines().find(|line| line.contains(want)).unwrap();
        assert!(line.ends_with(command), "{line}");
    }
    for heading in ["deploying", "looking", "undoing", "bringing back"] {
        assert!(table.lines().any(|line| line.trim() == heading), "{heading}");
    }
    assert!(rest.contains("Exit codes: 0 done"));
}

#[test]
fn every_command_has_help_and_takes_the_global_options() {
    for command in [
        "init",
        "doctor",
        "wait",
        "new",
        "create",
        "analyze",
        "validate",
        "status",
        "info",
        "run list",
        "run show",
        "history",
        "audit",
        "plan",
        "apply",
        "up",
        "migrate",
        "rollback",
        "down",
        "recover",
        "backup create",
        "backup list",
        "backup show",
        "backup verify",
        "backup pin",
        "backup unpin",
        "backup delete",
        "backup export",
        "backup import",
        "restore",
        "prune",
        "aside list",
        "aside drop",
        "drill",
        "key generate",
        "key id",
        "key add",
        "key rotate",
        "key remove",
        "lock status",
        "lock release",
        "repair",
        "baseline",
        "reset-failed",
        "fresh",
        "health",
        "verify-db",
        "config",
        "completions",
        "man",
    ] {
        let help = run(&format!("{command} --help")).exits(0);
        for option in [
            "--config",
            "--env",
            "--database-url",
            "--maintenance-db",
            "--migrations-dir",
            "--store",
            "--json",
            "--quiet",
            "--verbose",
            "--yes",
            "--no-color",
        ] {
            assert!(help.stdout.contains(option), "{command} {option}");
        }
    }
}

#[test]
fn what_this_version_does_not_do_is_a_usage_error() {
    for command in ["wrap", "report", "metrics", "key list"] {
        run(command).exits(2).says("error: unrecognized subcommand").says("hint: ripcord");
    }
}

#[test]
fn a_wrong_command_line_reads_like_every_other_error() {
    let ran = run("apply --timeout 300").exits(2);
    assert_eq!(
        ran.stderr,
        "error: invalid value `300` for `--timeout <DURATION>`: a duration needs a unit: write `300s` or `300ms`\n\
         \n\
         hint: ripcord apply --help\n"
    );
    assert_eq!(ran.stdout, "");
    run("prune --max-size 500").exits(2).says("`500MB` or `500MiB`");
    run("apply --writes capture").exits(2).says("  because possible values are refuse, fence, accept-loss");
    run("rollback --force").exits(2).says("--reason").says("hint: ripcord rollback --help");
    run("apply --qiet").exits(2).says("--quiet");
    run("backup").exits(2).says("error: a subcommand is missing").says("hint: ripcord backup --help");
    run("-q -v config").exits(2);

    let result = run("--json backup create --nope").exits(2).json();
    assert_eq!(
        (&result["event"], &result["outcome"], &result["exit_code"]),
        (&"result".into(), &"usage".into(), &2.into())
    );
    assert_eq!(result["command"], "backup create");
    assert_eq!(result["hint"], "ripcord backup create --help");
}

#[test]
fn a_password_on_the_command_line_is_not_repeated() {
    let url = "--database-url postgresql://u:hidden-word@h/d";
    for words in
        [format!("{url} config"), format!("{url} frobnicate"), format!("apply {url} postgres://x:hidden-word@y")]
    {
        let ran = run(&words);
        assert!(!ran.stdout.contains("hidden-word") && !ran.stderr.contains("hidden-word"), "{ran}");
    }
}

#[test]
fn each_layer_gives_way_to_the_one_above() {
    let place = Place::new();
    let store = |place: &Place, words: &str, variables: &[(&str, &str)]| {
        setting(&place.run_with(&format!("--json config {words}"), variables).exits(0), "store")
    };
    let is = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(store(&place, "", &[]), is("backups", "default"));
    let place = place.file("ripcord.toml", "store = \"top\"\n[environments.development]\nstore = \"table\"\n");
    assert_eq!(store(&place, "", &[]), is("top", "ripcord.toml"));
    assert_eq!(store(&place, "-e dev", &[]), is("table", "ripcord.toml [environments.development]"));
    let place = place.file(".env", "RIPCORD_STORE=dotenv\n");
    assert_eq!(store(&place, "-e dev", &[]), is("dotenv", "RIPCORD_STORE from .env"));
    let place = place.file(".env.development", "RIPCORD_STORE=named\n");
    assert_eq!(store(&place, "-e dev", &[]), is("named", "RIPCORD_STORE from .env.development"));
    let variable = [("RIPCORD_STORE", "variable")];
    assert_eq!(store(&place, "-e dev", &variable), is("variable", "RIPCORD_STORE from the environment"));
    assert_eq!(store(&place, "-e dev --store option", &variable), is("option", "option"));
}

#[test]
fn config_shows_values_and_sources_and_no_secret() {
    let variables = [
        ("DATABASE_URL", "postgresql://deploy:hidden-word@db:5432/shop"),
        ("BACKUP_ENCRYPTION_KEY", "hidden-digits"),
        ("TIMEOUT", "300"),
        ("DRY_RUN", "true"),
    ];
    let place = Place::new();
    let ran = place
        .run_with("config", &variables)
        .exits(0)
        .prints("postgresql://deploy:***@db:5432/shop")
        .prints("TIMEOUT from the environment")
        .says("note: using `DATABASE_URL` from the environment")
        .says("note: using `TIMEOUT=300` (seconds, for one migration) from the environment")
        .says("warning: `DRY_RUN=true` is set: NOTHING WILL BE CHANGED");
    assert!(!ran.to_string().contains("hidden"), "{ran}");

    let ran = place.run_with("config --json", &variables).exits(0);
    let result = ran.json();
    assert_eq!(result["event"], "result");
    assert_eq!(result["command"], "config");
    assert_eq!(result["outcome"], "done");
    assert_eq!(result["exit_code"], 0);
    assert_eq!(setting(&ran, "key").0, "***");
    assert_eq!(setting(&ran, "timeouts.migration").0, "5m");
    let events: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["event"] == "note"), "{ran}");
    assert!(events.iter().any(|event| event["event"] == "warning"), "{ran}");
    assert!(ran.stdout.lines().all(|line| line.starts_with("{\"event\":\"")), "{ran}");
    let ran = place.run_with("-q --json config", &[("TIMEOUT", "300")]).exits(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran}");

    let ran = place.run_with("config --quiet", &variables).says("DRY_RUN");
    assert!(!ran.stderr.contains("note:"), "{ran}");
}

#[test]
fn the_file_is_told_by_line_and_nearest_key() {
    let place = Place::new().file("ripcord.toml", "store = \"b\"\n\n[timeouts]\nstatment = \"5m\"\n");
    let ran = place.run("config").exits(2);
    assert_eq!(ran.stderr, "error: `ripcord.toml` line 4: unknown key `statment`\n\nhint: did you mean `statement`?\n");
    let place = Place::new().file("ripcord.toml", "[timeouts]\nlock = 5\n");
    place.run("config").exits(2).says("line 2, key `timeouts.lock`").says("`5s` or `5ms`");
    Place::new().run("-c missing.toml config").exits(2).says("`missing.toml` cannot be read");
}

#[test]
fn dotenv_files_keep_to_their_place() {
    let place = Place::new()
        .file(".env", "DATABASE_URL=postgresql://h/d\nSKIP_BACKUP=true\nPGHOST=evil\nENVIRONMENT=development\n");
    let ran = place
        .run("--json config")
        .exits(0)
        .says("warning: `.env` sets `SKIP_BACKUP`, which only the environment may; it is ignored")
        .says("warning: `.env` sets `PGHOST`")
        .says("warning: `.env` sets `ENVIRONMENT`");
    assert_eq!(setting(&ran, "environment").0, "");
    assert_eq!(setting(&ran, "database_url").1, "DATABASE_URL from .env");
    let ran = place.run("-e production config").says("note: `.env` is not read: environment `production` is protected");
    assert!(!ran.stdout.contains("postgresql://"), "{ran}");
}

#[test]
fn an_environment_must_be_defined() {
    run("-e qa config").exits(2).says("environment `qa` is not defined").says("`development`, `staging`, `production`");
    Place::new().file("ripcord.toml", "[environments.qa]\n").run("-e qa config").exits(0);
    Place::new().run_with("config", &[("ENVIRONMENT", "test")]).exits(2);
}

#[test]
fn a_backup_is_skipped_only_where_that_is_allowed() {
    for words in ["apply --skip-backup", "-e production apply --skip-backup", "apply --skip-backup -e staging --yes"] {
        let ran = run(words).exits(7).says("without a backup").says("\ndatabase: unchanged\n");
        assert!(ran.stderr.contains("\n\nhint: "), "{ran}");
    }
    let ran = Place::new().run_with("--json apply", &[("SKIP_BACKUP", "true")]).exits(7);
    assert_eq!(ran.json()["outcome"], "refused");
    assert_eq!(ran.json()["database"], "unchanged");
}

#[test]
fn protected_environments_refuse_to_be_emptied() {
    run("fresh").exits(7).says("strict rules");
    run("fresh -e prod --yes").exits(7).says("`production` is protected");
}

#[test]
fn a_dry_run_that_cannot_be_kept_does_not_begin() {
    let place = Place::new();
    for words in ["fresh -e dev", "baseline 1", "backup create", "lock release", "aside drop x", "drill"] {
        place.run_with(words, &[("DRY_RUN", "true")]).exits(2).says("has no dry run").says("hint: unset DRY_RUN");
    }
}

#[test]
fn a_service_key_is_answered_with_what_to_set() {
    let variables = [("SUPABASE_URL", "https://abc.supabase.co"), ("SUPABASE_SERVICE_KEY", "service-hidden")];
    let ran = Place::new()
        .run_with("lock status", &variables)
        .exits(2)
        .says("hint: export DATABASE_URL=")
        .says("db.abc.supabase.co");
    assert!(!ran.to_string().contains("service-hidden"), "{ran}");
}

#[test]
fn nothing_is_coloured_without_a_terminal() {
    for variables in [&[][..], &[("NO_COLOR", "1")], &[("CLICOLOR_FORCE", "1")]] {
        let ran = Place::new().run_with("-e qa config", variables);
        assert!(!ran.stderr.contains('\x1b'), "{ran}");
        let ran = Place::new().run_with("apply --nope", variables);
        assert!(!ran.stderr.contains('\x1b'), "{ran}");
    }
}

#[test]
fn completions_and_pages_are_there() {
    for (shell, mark) in [("bash", "_ripcord()"), ("zsh", "#compdef ripcord"), ("fish", "complete -c ripcord")] {
        run(&format!("completions {shell}")).exits(0).prints(mark).prints("rollback");
    }
    run("completions csh").exits(2);
    run("man").exits(0).prints(".TH ripcord 1");
    let place = Place::new();
    place.run("man -o pages").exits(0);
    for page in ["ripcord.1", "ripcord-apply.1", "ripcord-backup-create.1"] {
        assert!(place.read(&format!("pages/{page}")).contains(".TH"), "{page}");
    }
}

#[test]
fn a_broken_file_does_not_stop_what_needs_none() {
    let place = Place::new().file("ripcord.toml", "broken");
    place.run("completions bash").exits(0);
    place.run("man").exits(0);
    place.run("key generate").exits(0);
    place.run("config").exits(2);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_key(text: &str) -> bool {
    text.trim().len() == 64 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn a_key_is_made_once_and_kept_private() {
    let place = Place::new();
    let ran = place.run("key generate -o k").exits(0).says("copy `k` now");
    assert_eq!(mode(&place.path("k")), 0o600);
    let digits = place.read("k");
    assert!(is_key(&digits));
    assert!(!ran.to_string().contains(digits.trim()), "{ran}");
    place.run("key generate -o k").exits(2).says("`k` exists and is not overwritten");
    assert_eq!(place.read("k"), digits);

    let piped = place.run("key generate").exits(0);
    assert!(is_key(&piped.stdout) && piped.stdout != digits, "{piped}");
    assert!(is_key(&place.run("key generate -o -").exits(0).stdout));
    place.run("--json key generate").exits(2);

    let result = place.run("--json key generate -o k2").exits(0).json();
    let id = place.run_with("key id", &[("RIPCORD_KEY_FILE", "k2")]).exits(0);
    assert_eq!(result["items"][0]["key_id"], id.stdout.trim());
    let digits = place.read("k2");
    let by_variable = place.run_with("key id", &[("BACKUP_ENCRYPTION_KEY", digits.trim())]).exits(0);
    assert_eq!(by_variable.stdout, id.stdout);
    let by_command = place.run_with("key id", &[("RIPCORD_KEY_COMMAND", "cat k2")]).exits(0);
    assert_eq!(by_command.stdout, id.stdout);
}

#[test]
fn a_missing_key_names_the_three_ways() {
    run("key id")
        .exits(2)
        .says("`BACKUP_ENCRYPTION_KEY`")
        .says("`file = ")
        .says("`command = ")
        .says("hint: give the key that the backups were made with; when there are none yet: ripcord key generate");
    Place::new().file("ripcord.toml", "[key]\nenv = \"MY_KEY\"\n").run("key id").exits(2).says("`MY_KEY`");
    Place::new().file("ripcord.toml", "[key]\nfile = \"none\"\n").run("key id").exits(2).says("the key file `none`");
}

#[test]
fn a_key_command_that_fails_says_its_last_line() {
    let place = Place::new()
        .file("ripcord.toml", "[key]\ncommand = \"echo hidden-word; echo first >&2; echo locked >&2; exit 3\"\n");
    let ran = place.run("key id").exits(2).says("error: the key command failed\n  because locked\n");
    assert!(!ran.to_string().contains("hidden-word"), "{ran}");
    Place::new().file("ripcord.toml", "[key]\ncommand = \"true\"\n").run("key id").exits(2).says("it printed nothing");
    let variables = [("PGPASSWORD", "hidden-word"), ("DATABASE_URL", "postgresql://h/d")];
    let place = Place::new().file("ripcord.toml", "[key]\ncommand = \"echo $PGPASSWORD$DATABASE_URL >&2; exit 1\"\n");
    place.run_with("key id", &variables).exits(2).says("because exit status: 1");
}

#[test]
fn a_bad_key_is_not_repeated() {
    let ran = Place::new().run_with("key id", &[("BACKUP_ENCRYPTION_KEY", "your-32-byte-hex-key")]).exits(2);
    assert!(!ran.to_string().contains("your-32-byte-hex-key"), "{ran}");
    ran.says("`BACKUP_ENCRYPTION_KEY` cannot be used");
}

#[test]
fn a_key_that_lies_badly_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new().file("k", "");
    std::fs::remove_file(place.path("k")).unwrap();
    place.run("key generate -o k").exits(0);
    std::fs::set_permissions(place.path("k"), std::fs::Permissions::from_mode(0o644)).unwrap();
    place
        .run_with("key id", &[("RIPCORD_KEY_FILE", "k")])
        .exits(0)
        .says("warning: the key file `k` can be read by others");

    let place = Place::new().file("backups/x", "");
    place.run("key generate -o backups/k").exits(0);
    let inside = [("RIPCORD_KEY_FILE", "backups/k")];
    place.run_with("-e dev key id", &inside).exits(0).says("warning: the key file `backups/k` lies in the store");
    place.run_with("-e production key id", &inside).exits(7).says("lies in the store");
    place.run_with("key id", &inside).exits(7);
}

#[test]
fn init_makes_what_is_missing_and_keeps_the_rest() {
    let place = Place::new().file(".gitignore", "target\n");
    let ran = place
        .run("init")
        .exits(0)
        .prints("created ripcord.toml")
        .says("copy `.ripcord/key` now")
        .says("hint: ripcord doctor");
    let key = place.read(".ripcord/key");
    assert!(is_key(&key) && !ran.to_string().contains(key.trim()));
    assert_eq!((mode(&place.path(".ripcord/key")), mode(&place.path(".ripcord"))), (0o600, 0o700));
    assert!(place.path("migrations").is_dir());
    assert_eq!(place.read(".gitignore"), "target\n/.ripcord/\n/backups/\n/logs/\n.env\n");
    place.run("key id").exits(0);
    place.run("config").exits(0).prints(".ripcord/key");

    let before = (place.read("ripcord.toml"), place.read(".gitignore"));
    place.run("init").exits(0).prints("kept ripcord.toml").prints("kept .ripcord/key");
    assert_eq!((place.read("ripcord.toml"), place.read(".gitignore")), before);
    assert_eq!(place.read(".ripcord/key"), key);

    let place = Place::new();
    place.run("-c conf/r.toml init").exits(2).says("is not in the current folder");
    place.run_with("init", &[("BACKUP_ENCRYPTION_KEY", "x")]).exits(0);
    assert!(!place.path(".ripcord").exists());
}

#[test]
fn new_migrations_can_be_validated() {
    let place = Place::new();
    place.run("init").exits(0);
    let made = place.run("new add_orders an_orders_table --type ddl").exits(0);
    let path = made.stdout.lines().next().unwrap().to_owned();
    assert!(path.contains("add_orders") && place.path(&path).is_file(), "{made}");
    std::fs::write(place.path("migrations/0009_broken.sql"), "create tabel x (id int);\n").unwrap();
    let ran = place.run("validate").exits(1).prints("0009_broken.sql:1");
    assert!(ran.stdout.contains(": error: "), "{ran}");
    let result = place.run("--json validate").exits(1).json();
    assert_eq!(result["outcome"], "invalid");
    assert!(result["items"].as_array().unwrap().iter().any(|item| item["severity"] == "error"));
    place.run("validate --format github").exits(1).prints("::error file=");
    place.run("validate --format json -o findings.json").exits(1);
    assert!(serde_json::from_str::<Value>(&place.read("findings.json")).unwrap().is_array());
    place.run("validate -o no/such/folder").exits(2);
}

#[test]
fn a_log_file_holds_what_was_said() {
    let place = Place::new().file("ripcord.toml", "[logs]\ndir = \"logs\"\n");
    let variables = [("DATABASE_URL", "postgresql://u:hidden-word@h/d")];
    place.run_with("config", &variables).exits(0);
    assert!(!place.path("logs").exists(), "a command that touches nothing needs no log");
    place.run_with("-q apply --skip-backup", &variables).exits(7);
    place.run_with("apply --skip-backup --health-url http://u:hidden-word@h", &variables).exits(7);
    let files: Vec<_> = std::fs::read_dir(place.path("logs")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 1);
    let name = files[0].file_name().into_string().unwrap();
    assert!(name.starts_with("migration_20") && name.ends_with(".log") && name.len() == 22, "{name}");
    let text = std::fs::read_to_string(files[0].path()).unwrap();
    assert_eq!(text.matches(" error: no environment is named").count(), 2, "{text}");
    assert!(text.contains("Z note: using `DATABASE_URL`") && !text.contains("hidden-word"), "{text}");
}

#[test]
fn the_second_signal_stops_at_once_and_says_what_is_left() {
    let place = Place::new().file("ripcord.toml", "[key]\ncommand = \"touch asked; exec sleep 5\"\n");
    let child = Command::new(env!("CARGO_BIN_EXE_ripcord"))
        .args(["restore", "latest"])
        .current_dir(place.folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let wait_for = |what: &dyn Fn() -> bool| {
        for _ in 0..400 {
            if what() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("it did not come");
    };
    wait_for(&|| place.path("asked").exists());
    let signal = |name: &str| {
        let id = child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    signal("-INT");
    // Two signals that come together are one to the process that takes them.
    std::thread::sleep(std::time::Duration::from_millis(300));
    signal("-TERM");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("stopping in order"), "{stderr}");
    assert!(stderr.contains("database: UNKNOWN, do not retry") && stderr.contains("ripcord recover"), "{stderr}");
}

#[test]
fn the_graph_is_drawn_without_a_database() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("001_a.sql"), "SELECT 1;").unwrap();
    std::fs::write(folder.path().join("002_b.sql"), "-- @depends-on: 001_a.sql\nSELECT 1;").unwrap();
    let of = |format: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ripcord"))
            .args(["graph", "--format", format, "--migrations-dir"])
            .arg(folder.path())
            .env_clear()
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(of("text"), "001_a.sql\n002_b.sql  after 001_a.sql\n");
    assert!(of("dot").contains("\"001_a.sql\" -> \"002_b.sql\";"));
    assert!(of("mermaid").starts_with("flowchart LR\n"));
}
