//! Throwaway PostgreSQL clusters, databases in them, and the built binary run against them.
//!
//! No PostgreSQL on the machine fails a test; it never skips it.

pub mod cli;
pub mod cluster;
pub mod forge;

pub use cli::Project;
pub use cluster::{Cluster, Db};
