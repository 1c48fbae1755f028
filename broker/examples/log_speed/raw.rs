//! Reads and writes without a log: a file that was written before, O_DIRECT, O_DSYNC, and a ring.

use corelane_broker::log::{AlignedBuffer, ReadBuffers};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

/// Memory that the device may read and write, made as the log's own is: in huge pages where it is long.
pub struct Buffer {
    memory: AlignedBuffer,
    len: usize,
}

impl Buffer {
    pub fn new(len: usize) -> Self {
        Self::cut(&mut ReadBuffers::new(len), len)
    }

    /// Together with others.
    fn cut(from: &mut ReadBuffers, len: usize) -> Self {
        let mut memory = from.take(len);
        memory.fill(1);
        Self { memory, len }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// Makes a file and writes all of it.
pub fn write_file(path: &Path, len: u64) {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut buffer = Buffer::new(1 << 20);
    for at in (0..len).step_by(1 << 20) {
        file.write_all_at(buffer.bytes(), at).unwrap();
    }
    file.sync_all().unwrap();
}

/// A file with a buffer for each of its slots, each of which is written or read at most once at a time.
pub struct Raw {
    file: File,
    uring: IoUring,
    pub buffers: Vec<Buffer>,
    busy: Vec<bool>,
    len: u64,
    at: u64,
}

impl Raw {
    pub fn open(path: &Path, durable: bool, slots: usize, slot_bytes: usize) -> Self {
        let file = open(path, if durable { libc::O_DSYNC } else { 0 });
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(64)
            .unwrap();
        let len = file.metadata().unwrap().len();
        let mut memory = ReadBuffers::new(slots * slot_bytes);
        let buffers = (0..slots).map(|_| Buffer::cut(&mut memory, slot_bytes));
        Self {
            file,
            uring,
            buffers: buffers.collect(),
            busy: vec![false; slots],
            len,
            at: 0,
        }
    }

    /// Goes on with another file.
    fn turn_to(&mut self, path: &Path) {
        self.settle();
        self.file = open(path, 0);
        (self.len, self.at) = (self.file.metadata().unwrap().len(), 0);
    }

    /// Where the next `bytes` bytes go; from the beginning again at the end of the file.
    fn next(&mut self, bytes: usize) -> u64 {
        if self.at + bytes as u64 > self.len {
            self.at = 0;
        }
        self.at += bytes as u64;
        self.at - bytes as u64
    }

    pub fn free(&self) -> Option<usize> {
        self.busy.iter().position(|busy| !busy)
    }

    pub fn in_flight(&self) -> usize {
        self.busy.iter().filter(|busy| **busy).count()
    }

    /// Writes the beginning of a slot's buffer behind what was written last.
    pub fn write(&mut self, slot: usize, bytes: usize) {
        let offset = self.next(bytes);
        let buffer = &self.buffers[slot].bytes()[..bytes];
        let entry = opcode::Write::new(Fd(self.file.as_raw_fd()), buffer.as_ptr(), bytes as u32);
        self.push(slot, entry.offset(offset).build());
    }

    /// Reads behind what was read last.
    pub fn read(&mut self, slot: usize) {
        let bytes = self.buffers[slot].len;
        let offset = self.next(bytes);
        let buffer = self.buffers[slot].bytes();
        let entry = opcode::Read::new(Fd(self.file.as_raw_fd()), buffer.as_mut_ptr(), bytes as u32);
        self.push(slot, entry.offset(offset).build());
    }

    fn push(&mut self, slot: usize, entry: io_uring::squeue::Entry) {
        assert!(!self.busy[slot]);
        self.busy[slot] = true;
        // SAFETY: the buffer is of a slot that is busy until its completion, and is not moved; `settle` waits before the end.
        unsafe {
            self.uring
                .submission()
                .push(&entry.user_data(slot as u64))
                .unwrap();
        }
    }

    /// Waits for one operation at least; `done(slot)` for each that has ended.
    pub fn wait(&mut self, mut done: impl FnMut(usize)) {
        self.uring.submit_and_wait(1).unwrap();
        for entry in self.uring.completion() {
            let slot = entry.user_data() as usize;
            assert!(entry.result() > 0, "{}", entry.result());
            self.busy[slot] = false;
            done(slot);
        }
    }

    pub fn settle(&mut self) {
        while self.in_flight() > 0 {
            self.wait(|_| {});
        }
    }

    /// Writes on this thread.
    pub fn write_now(&mut self, slot: usize, bytes: usize) {
        let offset = self.next(bytes);
        self.write_now_at(slot, bytes, offset);
    }

    pub fn write_now_at(&mut self, slot: usize, bytes: usize, offset: u64) {
        let buffer = &self.buffers[slot].bytes()[..bytes];
        self.file.write_all_at(buffer, offset).unwrap();
    }

    pub fn len(&self) -> u64 {
        self.len
    }
}

fn open(path: &Path, flags: i32) -> File {
    let mut options = File::options();
    options.read(true).write(true);
    options
        .custom_flags(libc::O_DIRECT | flags)
        .open(path)
        .unwrap()
}

/// Bytes a second of reading files from their beginning to their end, `bytes_at_once`, so many times `in_flight`, into
/// `memory_bytes` of buffers, one after the other.
pub fn read_speed(
    paths: &[std::path::PathBuf],
    (in_flight, bytes_at_once): (usize, usize),
    memory_bytes: usize,
) -> f64 {
    let slots = in_flight.max(memory_bytes / bytes_at_once);
    let mut raw = Raw::open(&paths[0], false, slots, bytes_at_once);
    let began = Instant::now();
    let (mut bytes, mut slot) = (0, 0);
    for path in paths {
        raw.turn_to(path);
        let mut left = raw.len() / bytes_at_once as u64;
        bytes += left * bytes_at_once as u64;
        while left > 0 {
            while left > 0 && raw.in_flight() < in_flight && !raw.busy[slot] {
                raw.read(slot);
                (left, slot) = (left - 1, (slot + 1) % slots);
            }
            raw.wait(|_| {});
        }
    }
    raw.settle();
    bytes as f64 / began.elapsed().as_secs_f64()
}
