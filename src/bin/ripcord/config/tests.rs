use std::path::Path;
use std::time::Duration;

use clap::Parser;
use ripcord::settings::{HealthProbe, KeySource, OnChanged, RetentionRules, Writes};

use super::*;
use crate::args::Cli;

/// A folder with files, variables, and words typed: what comes of them.
struct World {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl World {
    fn new() -> Self {
        World { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn try_run(&self, typed: &str) -> Result<Resolved> {
        let cli = Cli::try_parse_from(std::iter::once("ripcord").chain(typed.split_whitespace())).unwrap();
        let command = cli.command.clone().unwrap_or_default();
        resolve(&Overrides::of(&cli, &command), Variables::of(self.variables.clone()), self.folder.path())
    }

    fn run(&self, typed: &str) -> Resolved {
        self.try_run(typed).unwrap()
    }
}

fn source(resolved: &Resolved, key: &str) -> String {
    let entry = resolved.entries.iter().find(|entry| entry.key == key);
    entry.unwrap_or_else(|| panic!("no {key}")).source.clone()
}

#[test]
fn each_layer_gives_way_to_the_one_above() {
    let file = "[timeouts]\nmigration = \"1m\"\n[environments.development.timeouts]\nmigration = \"2m\"\n";
    let seconds = |resolved: &Resolved| resolved.settings.timeouts.migration.as_secs();

    let world = World::new();
    let resolved = world.run("apply");
    assert_eq!((seconds(&resolved), source(&resolved, "timeouts.migration").as_str()), (600, "default"));

    let world = world.file(DEFAULT_FILE, file);
    let resolved = world.run("apply");
    assert_eq!((seconds(&resolved), source(&resolved, "timeouts.migration").as_str()), (60, "ripcord.toml"));

    let resolved = world.run("apply -e dev");
    assert_eq!(seconds(&resolved), 120);
    assert_eq!(source(&resolved, "timeouts.migration"), "ripcord.toml [environments.development]");

    let world = world.file(".env", "TIMEOUT=180\n");
    let resolved = world.run("apply -e dev");
    assert_eq!((seconds(&resolved), source(&resolved, "timeouts.migration").as_str()), (180, "TIMEOUT from .env"));

    let world = world.file(".env.development", "TIMEOUT=240\n");
    let resolved = world.run("apply -e dev");
    assert_eq!(seconds(&resolved), 240);

    let world = world.set("TIMEOUT", "300");
    let resolved = world.run("apply -e dev");
    assert_eq!(seconds(&resolved), 300);
    assert!(
        resolved.notes.contains(&"using `TIMEOUT=300` (seconds, for one migration) from the environment".to_owned()),
        "{:?}",
        resolved.notes
    );

    let world = world.set("RIPCORD_TIMEOUTS_MIGRATION", "6m");
    let resolved = world.run("apply -e dev");
    assert_eq!(seconds(&resolved), 360);
    assert!(resolved.notes.iter().all(|note| !note.contains("TIMEOUT")), "{:?}", resolved.notes);

    let resolved = world.run("apply -e dev --timeout 7m");
    assert_eq!((seconds(&resolved), source(&resolved, "timeouts.migration").as_str()), (420, "option"));
}

#[test]
fn the_guides_variables_have_their_guides_units() {
    let resolved = World::new()
        .set("MIGRATION_TIMEOUT", "300000")
        .set("MIGRATION_LOCK_TIMEOUT", "120000")
        .set("MIGRATION_RETRY_ATTEMPTS", "5")
        .set("MIGRATION_VALIDATE_CHECKSUMS", "false")
        .set("MIGRATION_BATCH_SIZE", "50")
        .set("PARALLEL_JOBS", "4")
        .set("LOG_LEVEL", "Debug")
        .set("DATABASE_URL", "postgresql://user:hidden@localhost:5432/db")
        .set("BACKUP_ENCRYPTION_KEY", "aabb")
        .run("apply");
    let settings = &resolved.settings;
    assert_eq!(settings.timeouts.migration, Duration::from_secs(300));
    assert_eq!(settings.timeouts.wait_for_lock, Duration::from_secs(120));
    assert_eq!(settings.retry.attempts, 5);
    assert_eq!(settings.on_changed, OnChanged::Warn);
    assert!(!resolved.on_changed_is_default);
    assert_eq!((settings.parallel, settings.backup.jobs), (4, 1));
    assert_eq!(resolved.limit, Some(50));
    assert_eq!(resolved.verbosity, Verbosity::Verbose);
    assert!(matches!(&settings.key, Some(KeySource::Hex { variable, .. }) if variable == "BACKUP_ENCRYPTION_KEY"));
    for said in [
        "using `DATABASE_URL` from the environment",
        "using `BACKUP_ENCRYPTION_KEY` from the environment",
        "using `MIGRATION_TIMEOUT=300000` (milliseconds, for one migration) from the environment",
        "using `LOG_LEVEL=Debug` from the environment",
    ] {
        assert!(resolved.notes.iter().any(|note| note == said), "{said}: {:?}", resolved.notes);
    }
    let printed = format!("{:?} {:?} {:?}", resolved.notes, resolved.entries, resolved.warnings);
    assert!(!printed.contains("hidden") && !printed.contains("aabb"), "{printed}");
    assert_eq!(secrets(&resolved), ["hidden", "aabb"]);
}

#[test]
fn a_bad_value_names_its_variable() {
    for (name, value) in [
        ("TIMEOUT", "soon"),
        ("PARALLEL_JOBS", "many"),
        ("PARALLEL_JOBS", "0"),
        ("MIGRATION_BATCH_SIZE", "0"),
        ("DRY_RUN", "perhaps"),
        ("FORCE_RUN", "perhaps"),
        ("RIPCORD_TIMEOUTS_LOCK", "5"),
        ("RIPCORD_RECOVERY_WRITES", "capture"),
        ("RIPCORD_BACKUP_COMPRESSION_LEVEL", "22"),
    ] {
        let error = World::new().set(name, value).try_run("apply").unwrap_err();
        assert_eq!(error.kind().exit_code(), 2, "{name}");
    }
    let error = World::new().set("RIPCORD_TIMEOUTS_LOCK", "5").try_run("apply").unwrap_err();
    assert!(error.message().contains("RIPCORD_TIMEOUTS_LOCK") && error.message().contains("`5s` or `5ms`"), "{error}");
}

#[test]
fn a_dry_run_is_said_loudly_and_switches_mean_what_they_say() {
    let world = World::new()
        .set("DRY_RUN", "true")
        .set("FORCE_RUN", "TRUE")
        .set("SKIP_BACKUP", "1")
        .set("REQUIRE_APPROVAL", "true");
    let resolved = world.run("apply");
    assert!(resolved.dry_run && resolved.assume_yes && resolved.skip_backup);
    assert!(resolved.settings.environment.approval);
    assert!(resolved.warnings.iter().any(|warning| warning.contains("NOTHING WILL BE CHANGED")));
    let resolved = World::new().set("DRY_RUN", "false").set("FORCE_RUN", "").run("apply");
    assert!(!resolved.dry_run && !resolved.assume_yes && !resolved.skip_backup);
}

#[test]
fn an_approval_is_not_lifted_by_a_variable() {
    let resolved = World::new().set("REQUIRE_APPROVAL", "false").run("apply -e production");
    assert!(resolved.settings.environment.approval);
    assert!(resolved.warnings.iter().any(|warning| warning.contains("REQUIRE_APPROVAL")));
}

#[test]
fn a_dotenv_file_decides_nothing_about_safety() {
    let text = "FORCE_RUN=true\nSKIP_BACKUP=true\nREQUIRE_APPROVAL=false\nENVIRONMENT=development\nPGHOST=evil\nPATH=/evil\nDATABASE_URL=postgresql://h/d\n";
    let resolved = World::new().file(".env", text).run("apply");
    assert!(!resolved.assume_yes && !resolved.skip_backup);
    assert_eq!(resolved.settings.environment.name, None);
    assert!(resolved.variables.get("PGHOST").is_none() && resolved.variables.get("PATH").is_none());
    assert!(resolved.settings.database_url.is_some());
    assert_eq!(resolved.warnings.iter().filter(|warning| warning.contains("is ignored")).count(), 6);
}

#[test]
fn a_dotenv_file_is_not_read_for_a_protected_environment() {
    let world = World::new().file(".env", "DATABASE_URL=postgresql://h/d\n").file(".env.production", "TIMEOUT=5\n");
    let resolved = world.run("apply -e production");
    assert!(resolved.settings.database_url.is_none());
    assert_eq!(resolved.settings.timeouts.migration, Duration::from_secs(600));
    assert!(resolved.notes.iter().any(|note| note.contains("`.env` is not read")));
    assert!(world.run("apply -e dev").settings.database_url.is_some());
    assert!(world.run("apply").settings.database_url.is_some());
}

#[test]
fn environments_are_named_by_option_and_variables() {
    let name = |world: World, typed: &str| world.run(typed).settings.environment.name;
    assert_eq!(name(World::new().set("ENVIRONMENT", "prod"), "apply").as_deref(), Some("production"));
    assert_eq!(name(World::new().set("ENVIRONMENT", "prod"), "apply -e dev").as_deref(), Some("development"));
    let both = World::new().set("ENVIRONMENT", "prod").set("RIPCORD_ENVIRONMENT", "staging");
    assert_eq!(name(both, "apply").as_deref(), Some("staging"));
    let error = World::new().try_run("apply -e qa").unwrap_err();
    assert_eq!(error.kind().exit_code(), 2);
    assert!(error.one_line().contains("`development`, `staging`, `production`"), "{error}");
}

#[test]
fn supabase_needs_its_databases_password() {
    let world =
        World::new().set("SUPABASE_URL", "https://abcdef.supabase.co").set("SUPABASE_SERVICE_KEY", "service-secret");
    let resolved = world.run("status");
    let why = resolved.why_no_database.as_ref().unwrap();
    assert!(why.hint_text().unwrap().contains("db.abcdef.supabase.co:5432"), "{why}");
    assert!(!why.one_line().contains("service-secret"));
    assert!(secrets(&resolved).contains(&"service-secret".to_owned()));

    let resolved = world.set("SUPABASE_DB_PASSWORD", "a b/c").run("status");
    assert!(resolved.why_no_database.is_none());
    let url = resolved.settings.database_url.as_ref().unwrap().expose_secret().to_owned();
    assert_eq!(url, "postgresql://postgres:a%20b%2Fc@db.abcdef.supabase.co:5432/postgres?sslmode=require");

    let world = World::new().set("SUPABASE_URL", "https://x.supabase.co").set("DATABASE_URL", "postgresql://h/d");
    assert!(world.run("status").why_no_database.is_none());
}

const POOLED: &str = "postgresql://postgres.ref:p-w@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true";
const DIRECT: &str = "postgresql://postgres:direct-pw@db.ref.supabase.co:5432/postgres";

#[test]
fn a_pooler_is_gone_around_by_direct_url() {
    let url = |resolved: &Resolved| resolved.settings.database_url.as_ref().unwrap().expose_secret().to_owned();
    let resolved = World::new().set("DATABASE_URL", POOLED).set("DIRECT_URL", DIRECT).run("config");
    assert_eq!(url(&resolved), DIRECT);
    let from = source(&resolved, "database_url");
    assert_eq!(from, "DIRECT_URL from the environment, since DATABASE_URL leads to a pooler");
    assert_eq!(
        resolved.notes,
        ["using `DIRECT_URL` from the environment, since `DATABASE_URL` leads to a connection pooler"]
    );
    assert!(secrets(&resolved).contains(&"direct-pw".to_owned()) && secrets(&resolved).contains(&"p-w".to_owned()));
    assert!(!format!("{:?} {:?}", resolved.entries, resolved.notes).contains("-pw"));

    for pooled in
        ["postgres://u:p@ep-x-pooler.eu.aws.neon.tech/d", "postgres://h/d?pgbouncer=true", "host=h port=6543 dbname=d"]
    {
        let world = World::new().set("DATABASE_URL", pooled).set("DIRECT_URL", DIRECT);
        assert_eq!(url(&world.run("status")), DIRECT, "{pooled}");
    }
    let world = World::new().file(".env", &format!("DATABASE_URL={POOLED}\nDIRECT_URL={DIRECT}\n"));
    assert_eq!(url(&world.run("status -e dev")), DIRECT);
}

#[test]
fn direct_url_counts_only_where_it_must() {
    let url = |resolved: &Resolved| resolved.settings.database_url.as_ref().unwrap().expose_secret().to_owned();
    let stays = |world: World, typed: &str, expected: &str| {
        let resolved = world.run(typed);
        assert_eq!(url(&resolved), expected);
        resolved.warnings
    };
    // Session mode holds locks; a password may look like a port.
    for plain in [
        "postgresql://h:5432/d",
        "postgresql://postgres.ref@aws-0-eu.pooler.supabase.com:5432/postgres",
        "postgresql://u:6543@h/d",
    ] {
        let world = World::new().set("DATABASE_URL", plain).set("DIRECT_URL", DIRECT);
        assert!(stays(world, "status", plain).is_empty(), "{plain}");
    }
    let typed = World::new().set("DATABASE_URL", "postgresql://h/d").set("DIRECT_URL", DIRECT);
    stays(typed, &format!("status --database-url {POOLED}"), POOLED);
    let ours = World::new().set("RIPCORD_DATABASE_URL", POOLED).set("DATABASE_URL", POOLED).set("DIRECT_URL", DIRECT);
    stays(ours, "status", POOLED);

    let alone = stays(World::new().set("DATABASE_URL", POOLED), "status", POOLED);
    assert!(alone[0].contains("set `DIRECT_URL`"), "{alone:?}");
    let both = World::new().set("DATABASE_URL", POOLED).set("DIRECT_URL", POOLED);
    assert!(stays(both, "status", POOLED)[0].contains("and so does `DIRECT_URL`"));
    let elsewhere = World::new().set("DATABASE_URL", POOLED).file(".env", &format!("DIRECT_URL={DIRECT}\n"));
    let warned = stays(elsewhere, "status -e dev", POOLED);
    assert!(warned[0].contains("`DIRECT_URL` from .env is not used"), "{warned:?}");
}

#[test]
fn health_checks_come_from_file_and_options() {
    let text = "[[health]]\nurl = \"https://app/health\"\nexpect_status = [200]\nexpect_json = { \"/status\" = \"ok\", \"/ready\" = true }\nheaders = { Authorization = { env = \"HEALTH_TOKEN\" }, Accept = \"text/plain\" }\nsuccesses = 5\ninterval = \"1s\"\n\n[[health]]\ncommand = \"./check\"\n";
    let world = World::new().file(DEFAULT_FILE, text);
    let resolved = world.run("apply --health-url http://localhost/up");
    assert!(resolved.incomplete.as_ref().unwrap().message().contains("HEALTH_TOKEN"));
    let resolved = world.set("HEALTH_TOKEN", "tok").run("apply --health-url http://localhost/up");
    assert!(resolved.incomplete.is_none());
    let health = &resolved.settings.health;
    assert_eq!(health.len(), 3);
    assert_eq!((health[0].successes, health[0].interval), (5, Duration::from_secs(1)));
    let HealthProbe::Url { expect_json, headers, .. } = &health[0].probe else { panic!() };
    assert_eq!(expect_json["/ready"], "true");
    assert_eq!(headers.len(), 2);
    assert!(secrets(&resolved).contains(&"tok".to_owned()));
    assert!(matches!(health[1].probe, HealthProbe::Command(_)));

    for wrong in [
        "[[health]]\n",
        "[[health]]\nurl = \"ftp://x\"\n",
        "[[health]]\nurl = \"http://x\"\nsql = \"x\"\n",
        "[[health]]\ncommand = \"x\"\nexpect_status = [200]\n",
        "[[health]]\nurl = \"http://x\"\nexpect_json = { status = \"ok\" }\n",
    ] {
        let error = World::new().file(DEFAULT_FILE, wrong).try_run("apply").unwrap_err();
        assert!(error.message().contains("`ripcord.toml` line "), "{wrong}: {error}");
    }
    assert!(World::new().try_run("apply --health-url localhost").is_err());
}

#[test]
fn an_environments_table_overrides_lists_and_keys() {
    let text = "store = \"a\"\n[key]\nfile = \"k\"\n[[health]]\nurl = \"http://one\"\n[environments.qa]\nstore = \"s3://b/p\"\nmigrations_dir = \"m\"\n[environments.qa.key]\ncommand = \"pass show x\"\n[[environments.qa.health]]\nurl = \"http://two\"\n[environments.qa.recovery]\nwrites = \"fence\"\n[environments.qa.hooks]\nbefore_run = \"./on\"\nafter_run = [\"./off\", \"./off2\"]\n";
    let world = World::new().file(DEFAULT_FILE, text);
    let resolved = world.run("apply -e qa");
    assert_eq!(resolved.settings.store, "s3://b/p");
    assert!(matches!(&resolved.settings.key, Some(KeySource::Command(_))));
    assert_eq!(resolved.settings.health.len(), 1);
    assert!(matches!(&resolved.settings.health[0].probe, HealthProbe::Url { url, .. } if url == "http://two"));
    assert_eq!(resolved.settings.writes, Writes::Fence);
    let commands: Vec<_> = resolved.settings.hooks.steps["after_run"].iter().map(|hook| hook.what.clone()).collect();
    let command = |text: &str| ripcord::settings::HookWhat::Command(text.to_owned());
    assert_eq!(commands, [command("./off"), command("./off2")]);
    assert!(matches!(&world.run("apply").settings.key, Some(KeySource::File(path)) if path == Path::new("k")));
}

#[test]
fn paths_start_from_the_files_folder() {
    let world = World::new();
    std::fs::create_dir(world.folder.path().join("conf")).unwrap();
    let world = world.file(
        "conf/r.toml",
        "store = \"b\"\nmigrations_dir = \"m\"\n[key]\nfile = \"/etc/k\"\n[logs]\ndir = \"logs\"\n",
    );
    let resolved = world.run("-c conf/r.toml apply");
    assert_eq!(resolved.settings.store, "conf/b");
    assert_eq!(resolved.settings.migrations_dir.as_deref(), Some(Path::new("conf/m")));
    assert_eq!(resolved.settings.logs_dir.as_deref(), Some(Path::new("conf/logs")));
    assert!(matches!(&resolved.settings.key, Some(KeySource::File(path)) if path == Path::new("/etc/k")));
    assert_eq!(world.run("-c conf/r.toml --store b apply").settings.store, "b");
    assert!(world.try_run("-c missing.toml apply").is_err());
}

#[test]
fn a_key_has_one_source() {
    let error = World::new()
        .file(DEFAULT_FILE, "store = \"x\"\n[key]\nfile = \"a\"\nenv = \"B\"\n")
        .try_run("key id")
        .unwrap_err();
    assert!(error.message().contains("line 2"), "{error}");
    let resolved = World::new().file(DEFAULT_FILE, "[key]\nenv = \"MY_KEY\"\n").run("key id");
    assert!(resolved.settings.key.is_none());
    assert!(resolved.why_no_key.unwrap().message().contains("MY_KEY"));
}

#[test]
fn a_slip_in_a_variables_name_is_told() {
    let resolved = World::new().set("RIPCORD_TIMEOUT_STATEMENT", "5m").set("RIPCORD_STORE", "x").run("status");
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].contains("did you mean `RIPCORD_TIMEOUTS_STATEMENT`"), "{:?}", resolved.warnings);
}

#[test]
fn prune_options_override_rule_by_rule() {
    let world = World::new().file(DEFAULT_FILE, "[retention]\nkeep_last = 3\nkeep_daily = 7\nmax_size = \"2GiB\"\n");
    let rules = world.run("prune --keep-last 5 --keep-within 0s --keep-tag release").settings.retention;
    assert_eq!((rules.keep_last, rules.keep_daily, rules.keep_within), (5, 7, None));
    assert_eq!(rules.keep_tags, ["release"]);
    assert_eq!(rules.max_size_bytes, Some(2 << 30));
    assert_eq!(World::new().run("prune").settings.retention, RetentionRules::standard());
}

#[test]
fn recovery_keys_stand_beside_the_main_one() {
    let text = "[key]\nfile = \"k\"\nrecovery = [{ env = \"SAFE\" }, { command = \"pass show r\" }]\noffline = [\"325E2CFC04b5ac74\"]\n";
    let resolved = World::new().file(DEFAULT_FILE, text).set("SAFE", "x").run("key id");
    assert!(matches!(
        resolved.settings.recovery_keys.as_slice(),
        [KeySource::Hex { variable, .. }, KeySource::Command(_)] if variable == "SAFE"
    ));
    assert_eq!(resolved.settings.offline_keys, ["325e2cfc04b5ac74"]);
    assert!(resolved.why_no_recovery_key.is_none());
    assert!(crate::config::secrets(&resolved).contains(&"x".to_owned()));
    // Beside a main key from a variable they hold as well; one whose variable is not set is told.
    let only = "[key]\nrecovery = [{ env = \"SAFE\" }]\n";
    let resolved = World::new().file(DEFAULT_FILE, only).set("BACKUP_ENCRYPTION_KEY", "y").run("key id");
    assert!(resolved.why_no_recovery_key.unwrap().message().contains("SAFE"));
    for (wrong, says) in [
        ("[key]\nfile = \"k\"\nrecovery = [{ file = \"a\", env = \"B\" }]\n", "exactly one of"),
        ("[key]\nfile = \"k\"\nrecovery = [{}]\n", "exactly one of"),
        ("[key]\nfile = \"k\"\noffline = [\"0011223344556677889900\"]\n", "16 hexadecimal digits"),
    ] {
        let error = World::new().file(DEFAULT_FILE, wrong).try_run("key id").unwrap_err();
        assert!(error.one_line().contains(says), "{error}");
    }
}

#[test]
fn the_reference_configuration_holds_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.toml");
    let text = std::fs::read_to_string(path).unwrap();
    // What is commented out for want of a default is read too: `#key = …` becomes `key = …`.
    let all: String = text
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)))
        .collect();
    let full = World::new().file(DEFAULT_FILE, &all).set("HEALTH_TOKEN", "t").run("config");
    let plain = World::new().file(DEFAULT_FILE, &text).run("config");
    let bare = World::new().run("config");

    for (written, default) in plain.entries.iter().zip(&bare.entries) {
        assert_eq!((written.key, &written.value), (default.key, &default.value));
    }
    let derived = [
        "environment",
        "environment.protected",
        "environment.approval",
        "environment.allow_skip_backup",
        "limit",
        "verbosity",
    ];
    for entry in &full.entries {
        assert!(
            derived.contains(&entry.key) || entry.source.starts_with(DEFAULT_FILE),
            "`{}` is missing in docs/reference.toml",
            entry.key
        );
    }
    assert_eq!(full.settings.hooks.steps.len(), 10);
    assert!(full.incomplete.is_none());
}
