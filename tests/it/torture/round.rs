//! One round: a command under a writer, its fault, `recover`, and what must hold then.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::plan::{Ending, Fault, Plan, Verb, When, Writes};
use super::proxy::Proxy;
use super::running::{Running, partials, processes_in, wait};
use super::scene::{Stage, State, state};
use super::writer::{Noted, Writer};
use crate::support::cli::{KEY, Ran};
use crate::support::cluster::unprivileged_user;
use crate::support::{Db, Project};

/// The key that `key rotate` makes the only one.
const NEW_KEY: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// What became of a round that held.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Whether the fault came before the command had ended by itself.
    pub struck: bool,
    /// Whether `recover` was killed as well.
    pub struck_again: bool,
    pub line: String,
    /// Exit 4 for others' writes.
    pub refused: bool,
    pub lost: usize,
    pub acknowledged: usize,
    pub writing: Duration,
}

/// Plays the round; panics when something does not hold.
pub fn play(stage: &mut Stage, plan: &Plan) -> Told {
    let (base, ten) = (stage.before(), stage.after(plan));
    let proxy = (plan.fault == Fault::Cut).then(|| Proxy::start(stage.cluster.port()));
    let (db, project) = stage.set(plan, proxy.as_ref().map_or(stage.cluster.port(), Proxy::port));
    let url = stage.writer_url(&db);
    let mut round = Round { plan, db, project, proxy, base, ten, told: Told::default(), accepted: false };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round.run(&url)));
    match outcome {
        Ok(()) => round.told,
        Err(panic) => {
            eprintln!("the folder of seed {}: {}", plan.seed, round.project.path().display());
            std::mem::forget(round.project);
            std::panic::resume_unwind(panic);
        }
    }
}

struct Round<'a> {
    plan: &'a Plan,
    db: Db<'a>,
    project: Project,
    proxy: Option<Proxy>,
    base: State,
    ten: State,
    told: Told,
    /// Whether somebody has agreed to the loss of others' writes.
    accepted: bool,
}

impl Round<'_> {
    fn run(&mut self, url: &str) {
        let arguments = self.prepare();
        let writer = Writer::start(url, self.plan.passing);
        wait("the application writes", || writer.count() >= 20);
        self.accepted = match self.plan.verb {
            // By hand: see `prepare`.
            Verb::Restore => self.plan.writes != Writes::Refuse,
            _ => self.plan.writes == Writes::AcceptLoss,
        };

        let first = self.strike(&arguments);
        self.say(&first, &arguments);
        let settled = self.settle(&first, &arguments);
        let noted = writer.finish();
        self.told.acknowledged = noted.count();
        self.told.writing = noted.writing;
        self.written(&noted, &first, &settled);
        self.leaves_nothing();
        self.backups_verify();
        if self.plan.again && self.plan.ending == Ending::Good && self.plan.verb == Verb::Apply {
            let ran = self.command(&["apply"]);
            assert_eq!(ran.code, 0, "apply after all: {ran:#?}");
            assert!(state(&self.db) == self.ten || self.told.refused, "apply after all: {ran:#?}");
            self.told.line += "; applied after all";
        }
    }

    /// What the command needs, and the command.
    fn prepare(&mut self) -> Vec<String> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        self.project.configure(&format!("[recovery]\nwrites = \"{}\"\n", self.plan.writes.word()));
        match self.plan.verb {
            Verb::Apply => return words(if self.plan.atomic { "--json apply --atomic" } else { "--json apply" }),
            Verb::Create => return words("--json backup create"),
            Verb::Adopt => {
                self.db.sql(
                    "set role deploy; create table schema_migrations (version text primary key, applied_at timestamptz \
                     default now(), checksum text, success boolean default true); \
                     insert into schema_migrations (version) values ('001_step.sql')",
                );
                self.base = state(&self.db);
                return words("--json adopt");
            }
            _ => {}
        }
        let good = |arguments: &[&str]| {
            let ran = self.command(arguments);
            assert_eq!(ran.code, 0, "before the round: {ran:#?}");
            ran.stdout
        };
        good(&["apply"]);
        match self.plan.verb {
            Verb::Rollback => words("--json rollback --steps 10"),
            Verb::Restore => {
                let writes = if self.plan.writes == Writes::Refuse { "refuse" } else { "accept-loss" };
                words(&format!("--json restore latest --writes {writes} --confirm {}", self.db.name))
            }
            Verb::Prune => {
                good(&["backup", "create"]);
                good(&["backup", "create"]);
                words("--json --yes prune --keep-last 1 --keep-within 0s")
            }
            Verb::Delete => {
                let first = good(&["backup", "create"]).trim().to_owned();
                good(&["backup", "create"]);
                words(&format!("--json --yes backup delete {first}"))
            }
            _ => {
                good(&["backup", "create"]);
                let file = self.project.path().join("new.key");
                std::fs::write(&file, format!("{NEW_KEY}\n")).unwrap();
                std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                let again = if self.plan.reencrypt { "--reencrypt" } else { "" };
                words(&format!("--json --yes key rotate {again} --new-key-file {}", file.display()))
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Ran {
        let running = Running::spawn(self.project.path(), self.project.command(arguments));
        running.finish()
    }

    /// Runs the command, and the fault into it.
    fn strike(&mut self, arguments: &[String]) -> Ran {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = self.project.command(&arguments);
        let flag = self.project.path().join("point");
        match &self.plan.when {
            When::Kib(kib) => {
                let ran = self.with_little_space(&command, *kib);
                self.told.struck = ["disk is full", "writing to the store failed", "could not write", "large"]
                    .iter()
                    .any(|word| ran.stderr.contains(word) || ran.stdout.contains(word));
                return ran;
            }
            When::Point(point, _) => {
                command.env("RIPCORD_FAULTS", format!("{point}=wait:{}", flag.display()));
            }
            When::After(_) => {}
        }
        let mut running = Running::spawn(self.project.path(), command);
        let came = match &self.plan.when {
            When::Point(_, nth) => running.comes_to(&flag, *nth),
            When::After(after) => {
                std::thread::sleep(Duration::from_millis(*after));
                running.lives()
            }
            When::Kib(_) => false,
        };
        self.told.struck = came;
        if came {
            self.fault(&mut running, &flag);
        }
        // It may come there again, and is not to be held any more.
        running.finish_past(&flag)
    }

    fn fault(&self, running: &mut Running, flag: &Path) {
        let away = Duration::from_millis(self.plan.away);
        let go_on = || drop(std::fs::remove_file(flag));
        match self.plan.fault {
            Fault::Kill => running.signal("-KILL"),
            Fault::Term | Fault::Int | Fault::TermTwice => {
                running.signal(if self.plan.fault == Fault::Int { "-INT" } else { "-TERM" });
                go_on();
                if self.plan.fault == Fault::TermTwice {
                    std::thread::sleep(away / 4);
                    running.signal("-TERM");
                }
            }
            Fault::ServerStop => {
                self.db.cluster.stop_immediately();
                go_on();
                std::thread::sleep(away);
                self.db.cluster.restart();
            }
            Fault::Cut => {
                let proxy = self.proxy.as_ref().unwrap();
                proxy.cut();
                go_on();
                std::thread::sleep(away);
                proxy.open();
            }
            Fault::DiskFull | Fault::FileLimit => {}
        }
    }

    /// The command with a store that fills up: a small file system of its own, which root mounts in a mount namespace
    /// and an ordinary user in a user namespace; or a limit on the size of a file. Afterwards there is space again.
    fn with_little_space(&self, plain: &Command, kib: u64) -> Ran {
        let mut command;
        if self.plan.fault == Fault::FileLimit {
            command = Command::new("sh");
            // In blocks of 512 bytes.
            command.args(["-c", &format!("ulimit -f {}; exec \"$@\"", kib * 2), "sh"]);
        } else {
            let namespace: &[&str] = if unprivileged_user().is_some() { &["-m"] } else { &["--map-root-user", "-m"] };
            let may = Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success());
            assert!(may, "a full disk needs `unshare {}` (util-linux; user namespaces)", namespace.join(" "));
            command = Command::new("unshare");
            let script = format!(
                "mkdir -p small kept backups && mount -t tmpfs -o size={kib}k none small && cp -a backups/. small/ \
                 && mount --bind small backups && \"$@\"; code=$?; cp -a backups/. kept/; exit $code"
            );
            command.args(namespace).args(["sh", "-c", &script, "sh"]);
        }
        command.arg(plain.get_program()).args(plain.get_args()).current_dir(self.project.path()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ran = Running::spawn(self.project.path(), command).finish();
        if self.plan.fault == Fault::DiskFull {
            std::fs::remove_dir_all(self.project.store()).unwrap();
            std::fs::rename(self.project.path().join("kept"), self.project.store()).unwrap();
        }
        ran
    }

    fn say(&mut self, first: &Ran, arguments: &[String]) {
        let plan = self.plan;
        let kind =
            if plan.dml { ", rows changed" } else { "" }.to_owned() + if plan.destroys { ", destroying" } else { "" };
        self.told.line = format!(
            "seed {}: {} as {:?} ({:?}{kind}), writes {}{}{}; {:?} {:?}{} -> exit {}",
            plan.seed,
            arguments[1..].iter().take(3).cloned().collect::<Vec<_>>().join(" "),
            plan.role,
            plan.ending,
            plan.writes.word(),
            if plan.atomic { ", atomic" } else { "" },
            if plan.passing { ", passing" } else { "" },
            plan.fault,
            plan.when,
            if self.told.struck { "" } else { " (not reached)" },
            first.code,
        );
    }

    /// All of before or all of after, as the command has it: an apply goes from the base to the ten, others back.
    fn ends(&self) -> (&State, &State) {
        match self.plan.verb {
            Verb::Rollback | Verb::Restore => (&self.ten, &self.base),
            Verb::Apply | Verb::Create | Verb::Adopt => (&self.base, &self.ten),
            _ => (&self.ten, &self.ten),
        }
    }

    /// `recover`, as often as it takes to decide what it asks; and the state that must be reached.
    fn settle(&mut self, first: &Ran, arguments: &[String]) -> Vec<Ran> {
        self.is_honest(first, "the command itself");
        let mut all = Vec::new();
        if let Some(after) = self.plan.second {
            let mut running = Running::spawn(self.project.path(), self.project.command(&["--json", "recover"]));
            std::thread::sleep(Duration::from_millis(after));
            self.told.struck_again = running.lives();
            running.signal("-KILL");
            all.push(running.finish());
        }
        if self.plan.two {
            let [one, other] =
                [0, 1].map(|_| Running::spawn(self.project.path(), self.project.command(&["--json", "recover"])));
            let both = [one.finish(), other.finish()];
            for ran in &both {
                assert!([0, 3, 4, 5].contains(&ran.code), "two at once: {both:#?}");
            }
            all.extend(both);
        }
        let ran = self.recover(&[]);
        self.told.line += &format!("; recover {} {}", ran.result()["outcome"].as_str().unwrap(), ran.code);
        self.is_honest(&ran, "recover");
        all.push(ran.clone());
        if ran.code == 4 {
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(said.contains("would lose what was written after backup"), "{ran:#?}");
            assert_ne!(self.plan.writes, Writes::AcceptLoss, "refused though accepted: {ran:#?}");
            self.told.refused = true;
            let answer: &[&str] =
                if self.plan.gives_up { &["--writes", "accept-loss"] } else { &["--on-failure", "stop"] };
            assert!(said.contains(&answer.join(" ")), "{ran:#?}");
            let answered = self.recover(answer);
            self.told.line += &format!(" {} {}", answer.join(" "), answered.code);
            let expected: &[i32] = if self.plan.gives_up { &[3] } else { &[4] };
            assert!(expected.contains(&answered.code), "{answered:#?}");
            self.accepted |= self.plan.gives_up;
            self.is_honest(&answered, "the answer");
            all.push(answered);
        } else {
            assert!([0, 3].contains(&ran.code), "{ran:#?}");
        }
        let again = self.recover(&[]);
        assert_eq!(
            (again.code, &again.result()["outcome"]),
            (0, &"nothing_to_do".into()),
            "a second recover: {again:#?}"
        );

        if !matches!(self.plan.verb, Verb::Apply | Verb::Rollback | Verb::Restore) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ran = self.command(&arguments);
            // A backup that is gone cannot be deleted once more.
            let gone = self.plan.verb == Verb::Delete && ran.stdout.contains("no backup of this database begins with");
            assert!(ran.code == 0 || gone, "once more: {ran:#?}");
        }
        self.is_in_one_of_two();
        all
    }

    /// Tries again while the lock of the dead one is held.
    fn recover(&self, more: &[&str]) -> Ran {
        let arguments: Vec<&str> = ["--json", "recover"].iter().chain(more).copied().collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let ran = self.command(&arguments);
            if ran.code != 5 || Instant::now() > deadline {
                return ran;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What a command says of the database is what the database is.
    fn is_honest(&self, ran: &Ran, who: &str) {
        let Some(line) = ran.stdout.lines().last().filter(|line| line.contains("\"event\":\"result\"")) else {
            return;
        };
        let result: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(outcome) = result["outcome"].as_str() else { return };
        if !matches!(self.plan.verb, Verb::Apply | Verb::Rollback | Verb::Restore) {
            return;
        }
        let said = result["database"].as_str().unwrap_or("");
        if said.starts_with("UNKNOWN") {
            // It may even be closed.
            assert_eq!(outcome, "not_recovered", "{who}: {ran:#?}");
            return;
        }
        let (before, after) = self.ends();
        let now = state(&self.db);
        let matches = match outcome {
            "unchanged" | "rolled_back" | "invalid" | "refused" | "locked" => now == *before,
            "restored" => now == *before,
            "done" if who == "the command itself" => now == *after,
            "done" if said.starts_with("unchanged") => now == *before,
            "done" => now == *before || now == *after,
            _ => true,
        };
        assert!(matches, "{who} says `{outcome}`, and the database is another: {}\n{ran:#?}", self.difference());
        if outcome == "not_recovered" {
            for row in self.control(APPLIED).lines() {
                assert!(self.plan.verb != Verb::Apply || said.contains(row), "{who} does not tell of {row}: {ran:#?}");
            }
        }
    }

    /// Asks ripcord's tables, where there are any yet.
    fn control(&self, sql: &str) -> String {
        match self.db.sql("select to_regclass('ripcord.schema_migrations') is not null").as_str() {
            "t" => self.db.sql(sql),
            _ => String::new(),
        }
    }

    fn difference(&self) -> String {
        let now = state(&self.db);
        let (before, after) = self.ends();
        let lines = |one: &State, other: &State| {
            let there: HashSet<&str> = other.schema.lines().chain(other.rows.lines()).collect();
            one.schema.lines().chain(one.rows.lines()).filter(|l| !there.contains(l)).collect::<Vec<_>>().join("\n    ")
        };
        format!(
            "\n  not of before:\n    {}\n  missing of before:\n    {}\n  not of after:\n    {}\n  missing of after:\n    {}",
            lines(&now, before),
            lines(before, &now),
            lines(&now, after),
            lines(after, &now)
        )
    }

    fn is_in_one_of_two(&mut self) {
        if self.told.refused && !self.plan.gives_up {
            self.told.line += " -> kept";
            return;
        }
        let (before, after) = self.ends();
        let now = state(&self.db);
        let applied = self.control(APPLIED).lines().count();
        let (unapplied, all) = match self.plan.verb {
            Verb::Apply | Verb::Create => (0, 10),
            Verb::Adopt => (1, 1),
            Verb::Rollback | Verb::Restore => (10, 0),
            _ => (10, 10),
        };
        // What was not well is not kept.
        let may_stay = self.plan.ending == Ending::Good;
        if now == *before && applied == unapplied {
            self.told.line += " -> before";
        } else if may_stay && now == *after && applied == all {
            self.told.line += " -> after";
        } else {
            panic!("a third state, {applied} applied: {}", self.difference());
        }
    }

    /// No acknowledged write is gone, unless somebody agreed to it and was told how many.
    fn written(&mut self, noted: &Noted, first: &Ran, settled: &[Ran]) {
        let there: HashSet<i64> = numbers(&self.db.sql("select n from events"));
        let queued: HashSet<i64> = numbers(&self.db.sql("select id from queue"));
        let rows = noted.inserted.iter().filter(|n| !there.contains(n)).count();
        let lost = rows + noted.deleted.iter().filter(|n| queued.contains(n)).count();
        self.told.lost = lost;
        self.told.line += &format!("; {} acknowledged, {lost} lost", noted.count());
        let whole = self.db.sql("select (select sum(balance) from accounts) = (select count(*) from events)");
        assert_eq!(whole, "t", "half of a transaction is there");
        if lost == 0 {
            return;
        }
        assert!(
            self.accepted,
            "{lost} acknowledged writes are lost, and nobody agreed to that: {first:#?} {settled:#?}"
        );
        let told = settled.iter().chain([first]).filter(|ran| ran.stdout.contains("writes_since_backup"));
        let told: Vec<u64> = told.filter_map(|ran| ran.result()["writes_since_backup"].as_u64()).collect();
        // A command that was killed after its swap has told nobody any more; and rows that others deleted cannot be
        // told where the run itself may have deleted some.
        if let Some(most) = told.iter().max() {
            assert!(*most >= rows as u64, "{rows} are lost, and {most} were told: {first:#?} {settled:#?}");
        }
    }

    fn leaves_nothing(&self) {
        let server = |sql: &str| self.db.cluster.sql("postgres", sql);
        assert_eq!(
            server("select string_agg(datname, ',') from pg_database where datname like 'rc\\_%'"),
            "",
            "scratch"
        );
        let fences = "select string_agg(d.datname, ',') from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase \
                      where array_to_string(s.setconfig, ',') like '%read_only%'";
        assert_eq!(server(fences), "", "a fence is left");
        let name = &self.db.name;
        assert_eq!(server(&format!("select datallowconn from pg_database where datname = '{name}'")), "t", "closed");
        assert_eq!(self.control("select run_id from ripcord.lock"), "", "the row of the lock is left");
        let running = "select id from ripcord.backup_history where status = 'running'";
        assert_eq!(self.control(running), "", "a backup seems to be running");
        wait("sessions and locks of ripcord's end", || {
            server(
                "select (select count(*) from pg_stat_activity where application_name like 'ripcord%' \
                 or application_name in ('pg_dump', 'pg_restore')) + (select count(*) from pg_locks where locktype = 'advisory')",
            ) == "0"
        });
        wait("processes end", || processes_in(self.project.path()).is_empty());
        let mut found = Vec::new();
        partials(&self.project.store(), &mut found);
        assert_eq!(found, Vec::<PathBuf>::new(), "unfinished objects in the store");
        for aside in server("select datname from pg_database where datname like 't%\\_aside\\_%'").lines() {
            server(&format!("drop database \"{aside}\" with (force)"));
        }
    }

    /// Whatever is listed as good reads back.
    fn backups_verify(&self) {
        let with_key = |arguments: &[&str]| {
            let mut command = self.project.command(arguments);
            if self.plan.verb == Verb::KeyRotate {
                command.env("BACKUP_ENCRYPTION_KEY", NEW_KEY);
            }
            Running::spawn(self.project.path(), command).finish()
        };
        let listed = with_key(&["--json", "backup", "list"]);
        if listed.code != 0 || listed.items().is_empty() {
            assert!(listed.code == 0 || listed.stderr.contains("no backup"), "{listed:#?}");
            return;
        }
        let good = listed
            .items()
            .iter()
            .filter(|item| ["complete", "verified"].contains(&item["status"].as_str().unwrap()))
            .count();
        let ran = with_key(&["--json", "backup", "verify", "--all"]);
        assert_eq!(ran.code, 0, "{good} good backups: {ran:#?}\n{listed:#?}");
        if self.plan.verb == Verb::KeyRotate {
            let mut command = self.project.command(&["--json", "backup", "verify", "--all"]);
            command.env("BACKUP_ENCRYPTION_KEY", KEY);
            let ran = Running::spawn(self.project.path(), command).finish();
            assert_ne!(ran.code, 0, "the old key still opens them: {ran:#?}");
        }
    }
}

const APPLIED: &str = "select version from ripcord.schema_migrations where state in ('applied', 'baseline') order by 1";

fn numbers(text: &str) -> HashSet<i64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}
