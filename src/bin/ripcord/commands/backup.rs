//! `backup …`: make backups and look after them.

use ripcord::manifest::Purpose;
use ripcord::{Error, Result};

use crate::app::{App, Exit};
use crate::args::BackupCommand;

/// Runs it.
pub async fn run(app: &App, command: BackupCommand) -> Result<Exit> {
    match command {
        BackupCommand::Create(args) => {
            let ring = app.key_ring().await?;
            let target = app.target()?;
            let purpose = Purpose::from(args.purpose);
            let _ = (ring, target, purpose, args.tags, args.prune);
            // wiring: `settings.backup.jobs` already holds `--jobs`; prune only after the manifest.
            Err(Error::failed("not wired"))
        }
        // wiring: the store's manifests joined with `backup_history`, newest first, with the columns
        // `id, created_at, purpose, database, run_id, status, key_ids, verified_at, drilled_at,
        // raw_bytes, stored_bytes, duration_ms, pinned, tags, keep_reason, location`.
        BackupCommand::List => Err(Error::failed("not wired")),
        BackupCommand::Show { id } => {
            let _ = id;
            Err(Error::failed("not wired"))
        }
        BackupCommand::Verify(args) => {
            let ring = app.key_ring().await?;
            let _ = (ring, args.id, args.all, args.level);
            // wiring: a damaged one is `Error::verification`, exit code 6.
            Err(Error::failed("not wired"))
        }
        BackupCommand::Pin { id } | BackupCommand::Unpin { id } | BackupCommand::Delete { id } => {
            let _ = id;
            Err(Error::failed("not wired"))
        }
    }
}
