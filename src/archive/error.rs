//! Every way in which an archive can be wrong.

use crate::error::Error;

/// A damaged, forged, misplaced or unreadable archive. Frames are counted from 0.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Placeholder until the reader is written.
    #[error("the archive is not readable")]
    Unreadable,
    /// The bytes could not be read or written at all.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        Error::verification(error.to_string())
    }
}
