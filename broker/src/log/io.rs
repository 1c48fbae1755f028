//! The one way from the log to a disk: a single directory of flat files.
//!
//! Promises that an implementation makes: `write_at` writes all bytes or fails; after `sync` returned, everything written
//! to that file before is durable; after `sync_dir` returned, every create, rename and remove before it is durable.
//! Nothing else is assumed: writes that were not synced may be on disk in any order, whole, torn or not at all.
//! The log gives `write_at` and `read_at` offsets and lengths that are multiples of 4096, except that a read may be cut by
//! the end of the file.

use super::buffer::Slice;
use super::error::IoError;

/// Bytes that a read returned.
pub type ReadBuffer = Slice;

/// Space of the file system that holds the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// The log's directory. Clones share it.
#[allow(
    async_fn_in_trait,
    reason = "a shard is one thread: futures need not be Send"
)]
pub trait Io: Clone + 'static {
    /// An open file; clones share it.
    type File: Clone + 'static;

    /// Names and lengths of all files.
    async fn list(&self) -> Result<Vec<(String, u64)>, IoError>;
    /// Opens an existing file for reading and writing.
    async fn open(&self, name: &str) -> Result<Self::File, IoError>;
    /// Makes an empty file (an existing one is emptied) and reserves `len` bytes; its length is then `len`, all zeros.
    async fn create(&self, name: &str, len: u64) -> Result<Self::File, IoError>;
    /// Reads up to `len` bytes; fewer only at the end of the file.
    async fn read_at(
        &self,
        file: &Self::File,
        offset: u64,
        len: usize,
    ) -> Result<ReadBuffer, IoError>;
    /// Writes all of `bytes`.
    async fn write_at(&self, file: &Self::File, offset: u64, bytes: &Slice) -> Result<(), IoError>;
    /// Makes the file's bytes and length durable.
    async fn sync(&self, file: &Self::File) -> Result<(), IoError>;
    /// Gives a file another name; an existing file of that name goes.
    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError>;
    /// Removes a file. It is no error if there is none.
    async fn remove(&self, name: &str) -> Result<(), IoError>;
    /// Makes creates, renames and removes durable.
    async fn sync_dir(&self) -> Result<(), IoError>;
    /// Space of the file system.
    async fn space(&self) -> Result<DiskSpace, IoError>;
    /// Lets others have the device for a while: how background work keeps out of the way of commits.
    async fn pause(&self, wait_ms: u64);
    /// A number that no other log has.
    fn random(&self) -> u64;
}
