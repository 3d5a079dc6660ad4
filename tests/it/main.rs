//! Everything that is tried on a real server: one file per verb or subsystem.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod analyze;
mod apply;
mod backups;
mod content;
mod control;
mod crash;
mod doctor;
mod drill;
mod exports;
mod failures;
mod from_sql;
mod guides;
mod hostile;
mod imports;
mod in_place;
mod keys;
mod layouts;
mod lies;
mod locks;
mod malicious;
mod parallel;
mod patterns;
mod planning;
mod postgres_a;
mod postgres_b;
mod prune;
mod readme;
mod rehearse;
mod restore;
mod rollback;
mod rules;
mod runbook;
mod salvage;
mod secrets;
mod statements;
mod status;
mod supabase;
mod support;
mod swap;
mod tables;
mod torture;
mod upkeep;
mod validate;

#[test]
fn a_cluster_starts_and_answers() {
    let db = support::Cluster::shared().database();
    assert_eq!(db.sql("select 1 + 1"), "2");
}
