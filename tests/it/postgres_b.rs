//! Databases as objects, loading, swapping, fencing and counting, on a real server.

// In helpers of tests, too, a panic is the failure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod databases;
mod dumped;
mod load;
mod swap;
mod writes;

use std::process::{Child, Command};
use std::time::Duration;

use ripcord::postgres::{Session, Target, Tools};
use ripcord::settings::Settings;
use secrecy::SecretString;

use crate::support::Cluster;

/// The time that connecting, closing and ending sessions may take.
const LIMIT: Duration = Duration::from_secs(20);

fn target_of(url: &str) -> Target {
    let settings = Settings { database_url: Some(SecretString::from(url)), ..Settings::default() };
    Target::resolve(&settings, &|_| None).unwrap()
}

fn target(cluster: &Cluster, database: &str) -> Target {
    target_of(&cluster.url(database))
}

async fn session(cluster: &Cluster, database: &str) -> Session {
    Session::connect(&target(cluster, database), "run", LIMIT).await.unwrap()
}

async fn maintenance(cluster: &Cluster) -> Session {
    session(cluster, "postgres").await
}

fn tools(cluster: &Cluster) -> Tools {
    Tools {
        pg_dump: cluster.bin().join("pg_dump"),
        pg_restore: cluster.bin().join("pg_restore"),
        version: "test".to_owned(),
    }
}

/// A name that no other test has.
fn unique(prefix: &str) -> String {
    format!("{prefix}{}", &uuid::Uuid::new_v4().simple().to_string()[..10])
}

/// A role that may log in with the password `pw`.
fn role(cluster: &Cluster, options: &str) -> String {
    let name = unique("rb");
    cluster.sql("postgres", &format!("create role {name} login password 'pw' {options}"));
    name
}

/// A psql that runs SQL in the background; ended when dropped.
struct Background(Child);

impl Background {
    fn psql(cluster: &Cluster, database: &str, sql: &str) -> Background {
        let mut command = cluster.psql(database);
        command.args(["-At", "-c", sql]);
        Background::start(command)
    }

    /// A loop that connects again as soon as it was thrown out.
    fn reconnecting(cluster: &Cluster, database: &str, sql: &str) -> Background {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "while :; do \"$0\" -X -q -h \"$1\" -p \"$2\" -U postgres -d \"$3\" -Atc \"$4\"; done"])
            .arg(cluster.bin().join("psql"))
            .arg(cluster.socket())
            .args([&cluster.port().to_string(), database, sql]);
        Background::start(command)
    }

    fn start(mut command: Command) -> Background {
        use std::os::unix::process::CommandExt;
        let child = command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Background(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

/// Polls until the query says `t`.
fn wait_until(cluster: &Cluster, sql: &str) {
    let deadline = std::time::Instant::now() + LIMIT;
    while cluster.sql("postgres", sql) != "t" {
        assert!(std::time::Instant::now() < deadline, "never true: {sql}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
