//! A safety wrapper around PostgreSQL migrations, built on backup and restore.
//!
//! Every change to a database goes through one flow: take a backup that has been read back, run the
//! migrations, check the result, and, when anything fails, bring the database back by the gentlest
//! means that can be proved. The modules below are listed in reading order: the operations first,
//! then the subsystems that they bring together, then the small things that everything uses.

pub mod ops;

pub mod archive;
pub mod control;
pub mod health;
pub mod journal;
pub mod keys;
pub mod manifest;
pub mod migration;
pub mod postgres;
pub mod retention;
pub mod store;

pub mod clock;
pub mod error;
pub mod ids;
pub mod io;
pub mod progress;
pub mod settings;

pub use error::{Error, Result};
