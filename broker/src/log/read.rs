//! Reading: what is in memory at once, what is on disk through reads that the host runs.

use super::segment::FileId;

/// Names one read that the host is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadId(pub u64);

/// A read for the host to run.
#[derive(Clone, Copy, Debug)]
pub struct ReadOp {
    /// To be given back with the bytes.
    pub id: ReadId,
    /// The file.
    pub file: FileId,
    /// Where to read; a multiple of 4096.
    pub offset: u64,
    /// How many bytes; a multiple of 4096.
    pub len: usize,
}
