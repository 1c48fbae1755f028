//! A file that is read or written in blocks past the page cache, several at once.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

/// What O_DIRECT aligns to: buffers, lengths and offsets.
pub const BLOCK_BYTES: usize = 4096;

/// The length of a huge page, and its alignment.
pub const HUGE_BYTES: usize = 2 << 20;

/// Asks the kernel to back bytes, which nobody has touched yet, with huge pages.
pub fn ask_for_huge_pages(bytes: &mut [u8]) {
    // SAFETY: advice about memory that is borrowed exclusively, which does not change what it holds. It may be refused.
    unsafe { libc::madvise(bytes.as_mut_ptr().cast(), bytes.len(), libc::MADV_HUGEPAGE) };
}

/// A finished read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The slot that is free again.
    pub slot: usize,
    /// How many bytes were moved.
    pub bytes: usize,
}

/// A file and a buffer for each of its slots. It must stay on the thread that made it.
pub struct BlockFile {
    uring: IoUring,
    file: File,
    buffers: Vec<Buffer>,
    io_bytes: usize,
}

struct Buffer {
    bytes: Vec<u8>,
    /// Where in `bytes` the aligned part begins.
    start: usize,
    busy: bool,
}

impl BlockFile {
    /// `slots` operations of `io_bytes` (a multiple of [`BLOCK_BYTES`]) at once; the buffers hold `fill`.
    pub fn new(file: File, slots: usize, io_bytes: usize, fill: u8) -> io::Result<Self> {
        assert!(io_bytes > 0 && io_bytes.is_multiple_of(BLOCK_BYTES));
        let entries = slots.next_power_of_two().max(2) as u32;
        let buffers = (0..slots)
            .map(|_| {
                let bytes = vec![fill; io_bytes + BLOCK_BYTES];
                let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
                Buffer {
                    bytes,
                    start,
                    busy: false,
                }
            })
            .collect();
        Ok(Self {
            uring: super::build(entries, entries * 2)?,
            file,
            buffers,
            io_bytes,
        })
    }

    /// Starts writing the slot's buffer at `offset`.
    pub fn write(&mut self, slot: usize, offset: u64) -> io::Result<()> {
        self.start(slot, offset, true)
    }

    /// Starts reading into the slot's buffer from `offset`.
    pub fn read(&mut self, slot: usize, offset: u64) -> io::Result<()> {
        self.start(slot, offset, false)
    }

    fn start(&mut self, slot: usize, offset: u64, write: bool) -> io::Result<()> {
        let buffer = &mut self.buffers[slot];
        assert!(!buffer.busy, "slot {slot} is under way");
        let (fd, len) = (Fd(self.file.as_raw_fd()), self.io_bytes as u32);
        let bytes = &mut buffer.bytes[buffer.start..buffer.start + self.io_bytes];
        let entry = if write {
            opcode::Write::new(fd, bytes.as_ptr(), len)
                .offset(offset)
                .build()
        } else {
            opcode::Read::new(fd, bytes.as_mut_ptr(), len)
                .offset(offset)
                .build()
        }
        .user_data(slot as u64);
        // SAFETY: the buffer is not touched while `busy` is set, and `Drop` waits for what is under way.
        unsafe { self.uring.submission().push(&entry) }
            .map_err(|_| io::Error::other("the submission queue is full"))?;
        buffer.busy = true;
        Ok(())
    }

    /// Waits for at least one operation, and adds what is finished to `done`.
    pub fn wait(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for entry in self.uring.completion() {
            let slot = entry.user_data() as usize;
            self.buffers[slot].busy = false;
            if entry.result() < 0 {
                return Err(io::Error::from_raw_os_error(-entry.result()));
            }
            done.push(Done {
                slot,
                bytes: entry.result() as usize,
            });
        }
        Ok(())
    }
}

impl Drop for BlockFile {
    fn drop(&mut self) {
        let mut done = Vec::new();
        for _ in 0..2 * self.buffers.len() {
            if self.buffers.iter().all(|buffer| !buffer.busy) {
                return;
            }
            // A failed operation is a finished one.
            let _ = self.wait(&mut done);
        }
        if self.buffers.iter().any(|buffer| buffer.busy) {
            // The kernel still holds on to the buffers: they are given away rather than freed.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_written_and_read() {
        let path = std::env::temp_dir().join(format!("corelane-blocks-{}", std::process::id()));
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut blocks = BlockFile::new(file, 3, BLOCK_BYTES, 7).unwrap();
        for slot in 0..3 {
            blocks.write(slot, (slot * BLOCK_BYTES) as u64).unwrap();
        }
        let mut done = Vec::new();
        while done.len() < 3 {
            blocks.wait(&mut done).unwrap();
        }
        assert!(done.iter().all(|done| done.bytes == BLOCK_BYTES));
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 3 * BLOCK_BYTES]);

        blocks.read(1, 2 * BLOCK_BYTES as u64).unwrap();
        blocks.read(2, 3 * BLOCK_BYTES as u64).unwrap();
        let mut done = Vec::new();
        while done.len() < 2 {
            blocks.wait(&mut done).unwrap();
        }
        done.sort_by_key(|done| done.slot);
        // Behind the end of the file there is nothing to read.
        assert_eq!((done[0].bytes, done[1].bytes), (BLOCK_BYTES, 0));
        std::fs::remove_file(path).unwrap();
    }
}
