//! The operations: the only place where the subsystems meet. One file a verb.

pub mod report;
