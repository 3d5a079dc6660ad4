//! Every way in which an archive, or the dump inside it, can be wrong.

use std::io;

use crate::error::Error;

/// A damaged, forged, misplaced or unreadable archive. Frames are counted from 0 within their
/// section: data, then index.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The first bytes are not those of an archive.
    #[error("the file is not a ripcord archive")]
    NotAnArchive,
    /// It ends within its header.
    #[error("the archive ends within its header, after {bytes} bytes")]
    HeaderTruncated {
        /// Bytes that are there.
        bytes: usize,
    },
    /// A format that this version does not know.
    #[error("the archive has format {found}; this ripcord reads format 1")]
    UnknownFormat {
        /// The format's number.
        found: u32,
    },
    /// It belongs to another database.
    #[error("the archive belongs to lineage `{found}`, not to `{expected}`")]
    WrongLineage {
        /// What its header says.
        found: uuid::Uuid,
        /// What was expected.
        expected: uuid::Uuid,
    },
    /// It belongs to another backup.
    #[error("the archive belongs to backup `{found}`, not to `{expected}`")]
    WrongBackup {
        /// What its header says.
        found: uuid::Uuid,
        /// What was expected.
        expected: uuid::Uuid,
    },
    /// It is another stream of the backup.
    #[error("the archive is stream {found}, not stream {expected}")]
    WrongStream {
        /// What its header says.
        found: u32,
        /// What was expected.
        expected: u32,
    },
    /// It was cut into frames of another size.
    #[error("the archive has frames of {found} bytes; format 1 has frames of 1048576")]
    WrongFrameSize {
        /// What its header says.
        found: u32,
    },

    /// It ends where a frame should begin.
    #[error("the archive is cut off: it ends before {section} frame {frame}")]
    EndsBetweenFrames {
        /// Section of the archive.
        section: &'static str,
        /// The frame that is missing.
        frame: u32,
    },
    /// It ends within a frame.
    #[error("the archive is cut off: it ends within {section} frame {frame}")]
    EndsInsideFrame {
        /// Section of the archive.
        section: &'static str,
        /// The frame that is cut.
        frame: u32,
    },
    /// The section goes over into another without a frame that is marked as its last.
    #[error("the last {section} frame is missing: frame {frame} should stand where another section begins")]
    LastFrameMissing {
        /// Section of the archive.
        section: &'static str,
        /// The frame that is missing.
        frame: u32,
    },
    /// The frame's kind is none that may stand here.
    #[error("{section} frame {frame} has the unknown kind {found}")]
    FrameKind {
        /// Section of the archive.
        section: &'static str,
        /// The frame.
        frame: u32,
        /// The kind byte.
        found: u8,
    },
    /// The frame's length is impossible.
    #[error("{section} frame {frame} claims {length} sealed bytes")]
    FrameLength {
        /// Section of the archive.
        section: &'static str,
        /// The frame.
        frame: u32,
        /// The claimed length.
        length: u32,
    },
    /// The frame belongs to another stream: of another backup, of this one, or of an earlier attempt.
    #[error("{section} frame {frame} belongs to another stream")]
    ForeignFrame {
        /// Section of the archive.
        section: &'static str,
        /// The frame.
        frame: u32,
    },
    /// Frames were reordered, repeated or left out.
    #[error("frame {found} stands at the place of {section} frame {frame}")]
    FrameOrder {
        /// Section of the archive.
        section: &'static str,
        /// The frame that belongs here.
        frame: u32,
        /// The one that stands here.
        found: u32,
    },
    /// The frame was changed, or the key is another one.
    #[error("{section} frame {frame} is not authentic: it was changed after it was sealed")]
    NotAuthentic {
        /// Section of the archive.
        section: &'static str,
        /// The frame.
        frame: u32,
    },
    /// The frame is authentic, but does not decompress to what a frame may hold.
    #[error("{section} frame {frame} does not decompress to at most 1048576 bytes")]
    FrameCompression {
        /// Section of the archive.
        section: &'static str,
        /// The frame.
        frame: u32,
    },
    /// The frame is authentic, but holds more or less than a frame at its place does.
    #[error("{section} frame {frame} holds {bytes} bytes")]
    FrameSize {
        /// Section of the archive.
        section: &'static str,
        /// The frame.
        frame: u32,
        /// Plaintext bytes in it.
        bytes: usize,
    },
    /// Something follows the end.
    #[error("something follows the end of the archive")]
    TrailingBytes,
    /// More than the format can hold.
    #[error("the {section} section is larger than the format allows")]
    TooLarge {
        /// Section of the archive.
        section: &'static str,
    },
    /// The index is authentic, but is no index.
    #[error("the archive's index is not readable: {0}")]
    IndexUnreadable(String),
    /// The index does not describe this stream.
    #[error("the archive's index disagrees with its stream: {0}")]
    IndexDisagrees(String),
    /// The manifest's copy of the index is not the stream's.
    #[error("the archive and its manifest disagree: {0}")]
    ManifestDisagrees(String),
    /// The streams of a backup are no parts of one dump.
    #[error("the streams of the backup do not fit together: {0}")]
    PartsDisagree(String),
    /// A reader was finished before it was read to the end.
    #[error("the archive was not read to its end")]
    NotReadToEnd,
    /// A writer or reader was used after it failed.
    #[error("the archive cannot be used any more after an earlier error")]
    AlreadyFailed,
    /// A range beyond the plaintext was asked for.
    #[error("bytes {start} to {end} were asked of a dump of {raw_bytes} bytes")]
    OutOfRange {
        /// First byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// What there is.
        raw_bytes: u64,
    },
    /// Compression or sealing failed, which neither can for data of this size.
    #[error("a frame could not be sealed: {0}")]
    Sealing(String),

    /// The dump does not begin as `pg_dump -Fc` does.
    #[error("the dump is not in PostgreSQL's custom format")]
    NotADump,
    /// An archive version that is not known.
    #[error("the dump has archive version {major}.{minor}; versions 1.14 to 1.16 (PostgreSQL 14 to 18) are known")]
    DumpVersion {
        /// Major.
        major: u8,
        /// Minor.
        minor: u8,
    },
    /// `-Z0` was forgotten.
    #[error("the dump is compressed by pg_dump itself; it must be made with `-Z0`")]
    DumpCompressed,
    /// The dump ends too early.
    #[error("the dump is cut off: it ends within {part}, after {at} bytes")]
    DumpTruncated {
        /// Which part.
        part: &'static str,
        /// Bytes of the dump that are there.
        at: u64,
    },
    /// The table of contents is larger than what is read.
    #[error("the dump's table of contents is larger than 256 MiB")]
    TocTooLarge,
    /// The table of contents is damaged.
    #[error("the dump's table of contents is damaged at byte {at}: {what}")]
    Toc {
        /// Where in the dump.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A data block is damaged.
    #[error("the dump is damaged at byte {at}: {what}")]
    Block {
        /// Where in the dump.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A data block's number is wrong.
    #[error("the dump is damaged: data block {dump_id} {what}")]
    BlockId {
        /// The number.
        dump_id: i32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An entry has data, but no block came.
    #[error("the dump is incomplete: the data of {name} is missing")]
    BlockMissing {
        /// The entry, for people.
        name: String,
    },
    /// A table's rows are not those that the index counted.
    #[error("the rows of {table} are not those of the backup: {what}")]
    Rows {
        /// The table, for people.
        table: String,
        /// What differs.
        what: String,
    },

    /// The bytes could not be read or written at all.
    #[error("{0}")]
    Io(io::Error),
}

impl ArchiveError {
    /// The archive error that travels inside an I/O error, or the I/O error itself.
    pub fn from_io(error: io::Error) -> ArchiveError {
        match error.downcast::<ArchiveError>() {
            Ok(inner) => inner,
            Err(error) => ArchiveError::Io(error),
        }
    }

    /// As an I/O error (`InvalidData`) that [`from_io`](Self::from_io) opens again.
    pub fn into_io(self) -> io::Error {
        match self {
            ArchiveError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        ArchiveError::from_io(error)
    }
}

impl From<ArchiveError> for io::Error {
    fn from(error: ArchiveError) -> Self {
        error.into_io()
    }
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        match error {
            // That something could not be read says nothing against what stands there.
            ArchiveError::Io(_) | ArchiveError::Sealing(_) => Error::failed(error.to_string()),
            ArchiveError::UnknownFormat { .. } => {
                Error::verification(error.to_string()).hint("use the ripcord that wrote it, or a newer one")
            }
            ArchiveError::DumpVersion { .. } => Error::failed(error.to_string())
                .hint("use a pg_dump of PostgreSQL 14 to 18, of the server's own version"),
            _ => Error::verification(error.to_string()),
        }
    }
}
