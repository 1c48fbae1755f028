//! What can go wrong in the log, by who has to act on it.

use super::Position;
use super::cold::ReadId;

/// A failed operation of an [`Io`](super::Io).
#[derive(Clone, Debug, thiserror::Error)]
pub enum IoError {
    /// No room left on the device or in the quota.
    #[error("{op}: no space left on the device")]
    NoSpace {
        /// Operation and file, for people.
        op: String,
    },
    /// The file is not there.
    #[error("{op}: no such file")]
    NotFound {
        /// Operation and file, for people.
        op: String,
    },
    /// Anything else that the system said.
    #[error("{op}: {cause}")]
    Failed {
        /// Operation and file, for people.
        op: String,
        /// The system's words.
        cause: String,
    },
}

/// Why a record was not appended. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much is waiting for the disk, or the next segment is still being prepared.
    #[error("the log is busy")]
    Busy,
    /// The record is longer than `max_record_bytes`.
    #[error("the record is too large")]
    TooLarge,
    /// A write failed: this log takes nothing any more.
    #[error("the log has stopped")]
    Stopped,
    /// There is no room for another segment.
    #[error("the disk is full")]
    DiskFull,
}

/// Why the log has stopped. The shard must stop with it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogFailure {
    /// A group write failed; what it carried may or may not be on disk.
    #[error("the write of the group at {position} failed: {cause}")]
    Write {
        /// Where the group begins.
        position: Position,
        /// What the device said.
        cause: IoError,
    },
    /// A full segment was read back, and what was acknowledged is not there.
    #[error("the log is damaged at {position}: it was written there, and cannot be read back")]
    Damaged {
        /// The first bad position.
        position: Position,
    },
    /// Background work failed in a way that time does not heal.
    #[error("{what} failed: {cause}")]
    Job {
        /// The work.
        what: &'static str,
        /// What the device said.
        cause: IoError,
    },
}

/// Why bytes are not there to be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadMiss {
    /// They must be read from disk first: run the reads of `next_read`, then ask again.
    #[error("waits for a read")]
    Wanted(ReadId),
    /// Below the oldest or above the newest: retention took it, or it never was.
    #[error("not in the log")]
    Gone,
    /// The bytes on disk fail their checks, or cannot be read.
    #[error("damaged at {position}")]
    Damaged {
        /// Where the damaged group or page begins.
        position: Position,
    },
}

/// A read that brought no good bytes.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{file} at {offset}: {what}")]
pub struct ReadFailure {
    /// Name of the file.
    pub file: String,
    /// Where in the file the bad bytes begin.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// Why a log cannot be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// An option is out of its bounds.
    #[error("log option {0}")]
    Option(&'static str),
    /// The device or the file system refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Bytes that were acknowledged fail their checks.
    #[error("the log is damaged at {position} ({file} at {offset}): {what}")]
    Damaged {
        /// The first bad position.
        position: Position,
        /// The segment file that holds it.
        file: String,
        /// Offset in that file.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// A file that must be there is not.
    #[error("{file} is missing: the log needs every byte from {from} to {to}")]
    Missing {
        /// The file's name.
        file: String,
        /// First position that must be there.
        from: Position,
        /// Position up to which the log is known to reach.
        to: Position,
    },
    /// What was to be passed over is not damaged.
    #[error(
        "nothing is damaged at {position} that could be passed over; {}",
        first.map_or("the log is sound".to_string(), |first| format!("the first damage is at {first}"))
    )]
    NotDamaged {
        /// The position that was given.
        position: Position,
        /// Where the first damage is.
        first: Option<Position>,
    },
    /// The checkpoint fails its checks.
    #[error("the checkpoint is damaged: {0}")]
    Checkpoint(String),
    /// The engine refused a state record.
    #[error("state record of kind {kind} at {position}: {what}")]
    State {
        /// Kind of the record.
        kind: u16,
        /// Where it is; the checkpoint's position for records of the snapshot.
        position: Position,
        /// What the engine said.
        what: String,
    },
}

/// The engine cannot make sense of a state record.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub String);
