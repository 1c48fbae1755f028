//! Names and ranges of the files.

use super::Position;

/// A segment, named by the position of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub Position);

impl SegmentId {
    /// The name of the segment's file.
    pub fn file_name(self) -> String {
        format!("{:020}.log", self.0)
    }
}

/// A file that the log reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    /// A segment.
    Segment(SegmentId),
    /// The index beside a segment.
    Index(SegmentId),
}

impl FileId {
    /// The file's name.
    pub fn file_name(self) -> String {
        match self {
            FileId::Segment(id) => id.file_name(),
            FileId::Index(id) => format!("{:020}.index", id.0),
        }
    }
}
