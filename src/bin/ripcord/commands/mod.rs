//! One file a verb. A command turns its options into the library's and prints what comes back; the work
//! itself is done in [`ripcord::ops`].

pub mod adopt;
pub mod analyze;
pub mod apply;
pub mod aside;
pub mod audit;
pub mod backup;
pub mod baseline;
pub mod cancel;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod drill;
pub mod fresh;
pub mod graph;
pub mod health;
pub mod history;
pub mod init;
pub mod key;
pub mod lock;
pub mod man;
pub mod new;
pub mod plan;
pub mod prune;
pub mod recover;
pub mod rehearse;
pub mod releases;
pub mod renumber;
pub mod repair;
pub mod reset_failed;
pub mod restore;
pub mod rollback;
pub mod run;
pub mod salvage;
pub mod status;
pub mod validate;
pub mod verify_db;
pub mod wait;

/// Writes a document to stdout; a reader that has seen enough is no error.
fn print(document: &[u8]) -> std::io::Result<()> {
    use std::io::Write;

    match std::io::stdout().lock().write_all(document) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
