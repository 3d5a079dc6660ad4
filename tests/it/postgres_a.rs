//! Connecting, dumping, locking, running migrations' SQL and looking at catalogs, on a real server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod connecting;
mod dumping;
mod executing;
mod locking;
mod looking;

use std::time::Duration;

use ripcord::postgres::{Session, Target};
use ripcord::settings::Settings;
use secrecy::SecretString;

use crate::support::{Cluster, Db};

/// The time that connecting may take.
const LIMIT: Duration = Duration::from_secs(20);

fn settings(url: &str) -> Settings {
    Settings { database_url: Some(SecretString::from(url)), ..Settings::default() }
}

/// A target as a URL and nothing else gives it: no variable of the test's own environment counts.
pub(crate) fn target_of(url: &str) -> Target {
    Target::resolve(&settings(url), &|_| None).unwrap()
}

fn target(db: &Db<'_>) -> Target {
    target_of(&db.url())
}

async fn session(db: &Db<'_>) -> Session {
    Session::connect(&target(db), "run", LIMIT).await.unwrap()
}

/// The first value of a query's only row, through the session.
async fn value(session: &Session, sql: &str) -> String {
    session.rows(sql).await.unwrap()[0][0].clone().unwrap()
}

/// A role that may log in with a password.
fn role(cluster: &Cluster, options: &str) -> String {
    let name = format!("r{}", uuid::Uuid::new_v4().simple());
    cluster.sql("postgres", &format!("create role {name} login password 'pw' {options}"));
    name
}
