//! The operations: the only place where the subsystems meet. One file a verb.
//!
//! Read [`apply`] first: its `execute` and `attempt` are the specification. [`recover`] is the ladder that a
//! failing run climbs down, and that [`resume`] (`ripcord recover`) climbs down later for a run that died.

pub mod adopt;
pub mod analyze;
pub mod apply;
pub mod backup;
pub mod beside;
pub mod cancel;
pub mod catalog;
mod changed;
pub mod check;
pub mod context;
pub mod doctor;
pub mod drill;
pub mod export;
pub mod fault;
pub mod heartbeat;
pub mod hooks;
pub mod import;
pub mod in_place;
pub mod judge;
pub mod keys;
pub mod losses;
pub mod masters;
pub mod migrate;
pub mod plan_file;
pub mod proof;
pub mod prune;
pub mod recover;
pub mod rehearse;
pub mod releases;
pub mod report;
pub mod restore;
pub mod resume;
pub mod rollback;
pub mod run;
pub mod rungs;
pub mod salvage;
pub mod status;
pub mod table;
pub mod upkeep;
pub mod verify;
pub mod verify_db;

mod columns;
mod dumping;
mod journals;
mod large;
mod leftovers;
mod source;

pub use context::{Context, Identity};
pub use report::{MigrationReport, Outcome, RunReport};
