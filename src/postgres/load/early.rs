//! Indexes of tables whose rows are in, built while other tables are still being loaded.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::child::{Input, Memory, STDIN_PATH};
use super::{Restore, Target, Tools};
use crate::error::Result;

/// Restores single entries of the table of contents.
pub(super) struct Builder {
    tools: Tools,
    target: Target,
    role: Option<String>,
    sort_memory: Option<String>,
    contents: Memory,
    warnings: Mutex<Vec<String>>,
}

/// Entries whose tables are loaded, in that order. It ends when nobody loads rows any more.
pub(super) struct Ready(tokio::sync::Mutex<mpsc::UnboundedReceiver<i32>>);

impl Ready {
    pub(super) fn new() -> (mpsc::UnboundedSender<i32>, Ready) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Ready(tokio::sync::Mutex::new(receiver)))
    }

    /// Waits for the next one; `None` at the end.
    pub(super) async fn next(&self) -> Option<i32> {
        self.0.lock().await.recv().await
    }
}

impl Builder {
    /// With the settings of `restore`.
    pub(super) fn new(restore: &Restore<'_>, contents: Memory) -> Builder {
        Builder {
            tools: restore.tools.clone(),
            target: restore.target.clone(),
            role: restore.role.map(str::to_owned),
            sort_memory: restore.sort_memory.clone(),
            contents,
            warnings: Mutex::default(),
        }
    }

    /// Builds what the entry of this number describes.
    pub(super) async fn build(&self, entry: i32) -> Result<()> {
        let list = Memory::new(format!("{entry};\n").as_bytes())?;
        let restore = Restore {
            tools: &self.tools,
            target: &self.target,
            role: self.role.as_deref(),
            fresh: true,
            sort_memory: self.sort_memory.clone(),
        };
        let arguments = ["--exit-on-error", "--section=post-data", STDIN_PATH];
        let contents = Input::Memory(self.contents.clone());
        let said = restore.run(&arguments, contents, Some(&list), "an index could not be built").await?;
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).extend(said);
        Ok(())
    }

    /// What pg_restore said so far without failing.
    pub(super) fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
