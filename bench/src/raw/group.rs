//! The requests of one turn, gathered where they are written from.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::ring::{BLOCK_BYTES, HUGE_BYTES, ask_for_huge_pages};

/// How much is written at once when the file is made.
const MAKE_BYTES: usize = 1 << 20;

/// An aligned buffer and the file that it goes to. The buffer lies in huge pages where the kernel gives them, as pinning
/// small ones costs the server and the device more.
pub struct Group {
    file: File,
    path: PathBuf,
    file_bytes: u64,
    offset: u64,
    buffer: Vec<u8>,
    /// Where the aligned part of the buffer begins.
    start: usize,
    len: usize,
}

impl Group {
    /// Makes the file: every block is written, so that a later write changes data only.
    pub fn create(dir: &Path, file_bytes: u64) -> io::Result<Self> {
        let path = dir.join(format!("corelane-raw-{}.log", std::process::id()));
        make_file(&path, file_bytes)?;
        let file = open_durable(&path)?;
        Ok(Self {
            file,
            path,
            file_bytes,
            offset: 0,
            buffer: Vec::new(),
            start: 0,
            len: 0,
        })
    }

    /// At least so many bytes behind what was gathered.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let needed = self.len + bytes + 2 * BLOCK_BYTES;
        if self.buffer.len() < self.start + needed {
            let mut larger = vec![0; needed.next_multiple_of(HUGE_BYTES) + HUGE_BYTES];
            let start = larger.as_ptr().align_offset(HUGE_BYTES);
            ask_for_huge_pages(&mut larger[start..]);
            larger[start..start + self.len]
                .copy_from_slice(&self.buffer[self.start..self.start + self.len]);
            self.buffer = larger;
            self.start = start;
        }
        let at = self.start + self.len;
        &mut self.buffer[at..at + bytes]
    }

    /// Adds the first `bytes` of the room to the group.
    pub fn take(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// Writes the group, to the next whole block, in one write that ends when it is on the disk.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        let padded = self.len.next_multiple_of(BLOCK_BYTES);
        let mut group = &self.buffer[self.start..self.start + padded];
        while !group.is_empty() {
            if self.offset == self.file_bytes {
                self.offset = 0;
            }
            let fits = (self.file_bytes - self.offset).min(group.len() as u64) as usize;
            self.file.write_all_at(&group[..fits], self.offset)?;
            self.offset += fits as u64;
            group = &group[fits..];
        }
        self.len = 0;
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It holds nothing that anybody wants.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a file of this size with every block written.
pub fn make_file(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)?;
    let zeros = vec![0; MAKE_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let piece = (bytes - offset).min(MAKE_BYTES as u64) as usize;
        file.write_all_at(&zeros[..piece], offset)?;
        offset += piece as u64;
    }
    file.sync_all()
}

/// Opens a file for writes past the page cache that end on the disk.
pub fn open_durable(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path)
}
