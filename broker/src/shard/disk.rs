//! The disk of a shard: the log's files through the shard's own ring, everything else about files through the executor.
//!
//! Group writes, reads and the background's writes are operations of the raw ring, so one system call a turn submits them
//! together with the sockets'. Opening, renaming, syncing and the like are rare and go through glommio.
//!
//! Files are opened with O_DIRECT; a group write carries RWF_DSYNC, which is what makes it durable. Where a file system
//! has no O_DIRECT glommio opens without it, and the same calls work through the page cache.
//!
//! An operation owns what the kernel reads or writes (the file and the buffer) until its completion.

#![allow(
    clippy::disallowed_methods,
    reason = "lists a directory on the executor's thread for blocking calls, and tells whether there were commits lately"
)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker as TaskWaker};
use std::time::{Duration, Instant};

use glommio::GlommioError;
use glommio::io::{Directory, DmaFile, OpenOptions};
use glommio::timer::Timer;
use io_uring::{opcode, types};

use crate::log::{
    AlignedBuffer, DiskSpace, FileId, Io, IoError, ReadBuffer, ReadBuffers, ReadId, ReadOp,
    SegmentId, Slice, WriteId, WriteOp,
};
use crate::ring::{Completion, Owner, Ring, Token, Waker};

/// Background operations in flight at once: enough to keep the device busy, few enough to leave it to commits.
const BACKGROUND_IN_FLIGHT: usize = 8;
/// Reads of the log in flight at once while nothing is committed.
const READS_IN_FLIGHT: usize = 12;
/// A commit has to wait for the reads that are in the device before it: while there are commits, one read at a time.
const READS_BESIDE_COMMITS: usize = 1;
/// For so long after a group was handed over, more are expected.
const COMMITS_EXPECTED: Duration = Duration::from_millis(5);
/// Reads that are at most so long
const SHORT_READ_BYTES: usize = 32 << 10;
/// have a limit of their own: they are of records that lie far apart, and only many at once make the device fast.
const SHORT_IN_FLIGHT: usize = 128;
/// Files that are kept open for reads.
const READ_FILES: usize = 16;
/// Read buffers that are kept to be used again: the log's read cache is made of them.
const READ_BUFFER_BYTES: usize = 32 << 20;
/// Best effort, the last of its levels, where the device's scheduler has levels.
const READ_PRIORITY: u16 = 2 << 13 | 7;

enum Bytes {
    Read { buffer: AlignedBuffer, done: usize },
    Write { bytes: Slice, done: usize },
    Group { id: WriteId, bytes: Slice },
}

/// Whom an operation's result is for.
enum For {
    Task(Rc<Waiting>),
    /// A read of the log, whose result the host takes.
    Log(ReadId),
    /// A group.
    Nobody,
}

struct Operation {
    file: Rc<DmaFile>,
    offset: u64,
    bytes: Bytes,
    result_for: For,
}

impl Operation {
    /// Whether it is a short read of the log.
    fn is_short_read(&self) -> bool {
        let is_short = |buffer: &AlignedBuffer| buffer.len() <= SHORT_READ_BYTES;
        matches!((&self.bytes, &self.result_for), (Bytes::Read { buffer, .. }, For::Log(_)) if is_short(buffer))
    }
}

/// Where a background operation leaves its result for the task that awaits it.
#[derive(Default)]
struct Waiting {
    result: RefCell<Option<Result<Option<ReadBuffer>, IoError>>>,
    task: RefCell<Option<TaskWaker>>,
}

struct Queue {
    /// Operations that the ring has, or will have, by the payload of their token.
    slots: Vec<Option<Operation>>,
    free: Vec<usize>,
    groups: VecDeque<usize>,
    groups_in_flight: usize,
    background: VecDeque<usize>,
    background_in_flight: usize,
    reads: VecDeque<usize>,
    reads_in_flight: usize,
    /// When a group was handed over last.
    committed: Option<Instant>,
    short: VecDeque<usize>,
    short_in_flight: usize,
    /// Segments that group writes go to, once they are open.
    segments: HashMap<SegmentId, Rc<DmaFile>>,
    /// Group writes for segments that are not open yet.
    early: Vec<WriteOp>,
    finished: Vec<(WriteId, Result<(), IoError>)>,
    /// Files that reads go to, the one that was used last at the end.
    read_files: VecDeque<(FileId, Rc<DmaFile>)>,
    /// Reads of files that are being opened.
    early_reads: Vec<ReadOp>,
    finished_reads: Vec<(ReadId, Result<ReadBuffer, IoError>)>,
    read_buffers: ReadBuffers,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            groups: VecDeque::new(),
            groups_in_flight: 0,
            background: VecDeque::new(),
            background_in_flight: 0,
            reads: VecDeque::new(),
            reads_in_flight: 0,
            committed: None,
            short: VecDeque::new(),
            short_in_flight: 0,
            segments: HashMap::new(),
            early: Vec::new(),
            finished: Vec::new(),
            read_files: VecDeque::new(),
            early_reads: Vec::new(),
            finished_reads: Vec::new(),
            read_buffers: ReadBuffers::new(READ_BUFFER_BYTES),
        }
    }
}

impl Drop for Queue {
    /// What the kernel may still read or write is left to it.
    fn drop(&mut self) {
        for operation in self.slots.drain(..).flatten() {
            std::mem::forget(operation);
        }
    }
}

struct Inner {
    directory: PathBuf,
    queue: RefCell<Queue>,
    waker: Waker,
    woke_task: Cell<bool>,
}

/// One shard's directory. Clones share it.
#[derive(Clone)]
pub struct Disk {
    inner: Rc<Inner>,
}

impl Disk {
    /// The disk of a directory that exists; `waker` wakes the host that drives the ring.
    pub fn new(directory: PathBuf, waker: Waker) -> Self {
        let inner = Inner {
            directory,
            queue: RefCell::default(),
            waker,
            woke_task: Cell::new(false),
        };
        Self {
            inner: Rc::new(inner),
        }
    }

    /// Opens the segments that group writes will soon go to, and lets go of the others. Says which are still to be opened:
    /// the host opens them with [`Disk::open_segment`] beside everything else.
    pub fn keep_segments(&self, wanted: &[SegmentId]) -> Vec<SegmentId> {
        let mut queue = self.inner.queue.borrow_mut();
        queue.segments.retain(|segment, _| wanted.contains(segment));
        wanted
            .iter()
            .filter(|segment| !queue.segments.contains_key(segment))
            .copied()
            .collect()
    }

    /// Opens a segment for group writes.
    pub async fn open_segment(&self, segment: SegmentId) -> Result<(), IoError> {
        let file = self.open(&segment.file_name()).await?;
        let mut queue = self.inner.queue.borrow_mut();
        queue.segments.insert(segment, file);
        for write in std::mem::take(&mut queue.early) {
            queue.add_group(write);
        }
        self.inner.waker.wake();
        Ok(())
    }

    /// Takes a group write; its result comes with [`Disk::finished`].
    pub fn write_group(&self, write: WriteOp) {
        let mut queue = self.inner.queue.borrow_mut();
        queue.committed = Some(Instant::now());
        queue.groups_in_flight += 1;
        queue.add_group(write);
    }

    /// The file of a segment for a group that is written now, if it is open for group writes.
    pub fn segment(&self, segment: SegmentId) -> Option<Rc<DmaFile>> {
        let mut queue = self.inner.queue.borrow_mut();
        queue.committed = Some(Instant::now());
        queue.segments.get(&segment).cloned()
    }

    /// Group writes that were taken and have not ended.
    pub fn groups_in_flight(&self) -> usize {
        self.inner.queue.borrow().groups_in_flight
    }

    /// Takes a read of the log; its result comes with [`Disk::finished_reads`]. `Some`: the file is to be opened first, and
    /// the host does so with [`Disk::open_for_reads`] beside everything else.
    pub fn read(&self, read: ReadOp) -> Option<FileId> {
        let mut queue = self.inner.queue.borrow_mut();
        if let Some(file) = queue.file_for_reads(read.file) {
            queue.add_read(file, read);
            return None;
        }
        let opening = queue
            .early_reads
            .iter()
            .any(|early| early.file == read.file);
        queue.early_reads.push(read);
        (!opening).then_some(read.file)
    }

    /// Opens a file for the reads that wait for it and those to come.
    pub async fn open_for_reads(&self, id: FileId) {
        let opened = self.open(&id.file_name()).await;
        let mut queue = self.inner.queue.borrow_mut();
        let queue = &mut *queue;
        if let Ok(file) = &opened {
            queue.read_files.push_back((id, file.clone()));
            if queue.read_files.len() > READ_FILES {
                queue.read_files.pop_front();
            }
        }
        let early = std::mem::take(&mut queue.early_reads);
        let (waiting, others) = early.into_iter().partition(|read| read.file == id);
        queue.early_reads = others;
        let waiting: Vec<ReadOp> = waiting;
        for read in waiting {
            match &opened {
                Ok(file) => queue.add_read(file.clone(), read),
                Err(error) => queue.finished_reads.push((read.id, Err(error.clone()))),
            }
        }
        self.inner.waker.wake();
    }

    /// The reads of the log that have ended since the last call.
    pub fn finished_reads(&self, out: &mut Vec<(ReadId, Result<ReadBuffer, IoError>)>) {
        out.append(&mut self.inner.queue.borrow_mut().finished_reads);
    }

    /// A name stands for another file from now on, or for none.
    fn forget_file(&self, name: &str) {
        let mut queue = self.inner.queue.borrow_mut();
        queue.read_files.retain(|(id, _)| id.file_name() != name);
    }

    /// Hands everything that waits to the ring. To be called before the ring's turn.
    pub fn submit(&self, ring: &mut Ring) {
        let mut queue = self.inner.queue.borrow_mut();
        while let Some(slot) = queue.groups.pop_front() {
            queue.push(slot, ring);
        }
        while queue.background_in_flight < BACKGROUND_IN_FLIGHT
            && let Some(slot) = queue.background.pop_front()
        {
            queue.background_in_flight += 1;
            queue.push(slot, ring);
        }
        while queue.short_in_flight < SHORT_IN_FLIGHT
            && let Some(slot) = queue.short.pop_front()
        {
            queue.short_in_flight += 1;
            queue.push(slot, ring);
        }
        drop(queue);
        self.submit_reads(ring);
    }

    /// Hands the reads of the log to the ring that may be under way now; whether there are any.
    pub fn submit_reads(&self, ring: &mut Ring) -> bool {
        let mut queue = self.inner.queue.borrow_mut();
        if queue.reads.is_empty() {
            return false;
        }
        let commits = queue
            .committed
            .is_some_and(|at| at.elapsed() < COMMITS_EXPECTED);
        let most = if commits {
            READS_BESIDE_COMMITS
        } else {
            READS_IN_FLIGHT
        };
        let before = queue.reads_in_flight;
        while queue.reads_in_flight < most
            && let Some(slot) = queue.reads.pop_front()
        {
            queue.reads_in_flight += 1;
            queue.push(slot, ring);
        }
        queue.reads_in_flight > before
    }

    /// Takes one completion of [`Owner::Disk`].
    pub fn completion(&self, completion: Completion) {
        let mut queue = self.inner.queue.borrow_mut();
        let slot = completion.token().payload() as usize;
        let Some(mut operation) = queue.slots[slot].take() else {
            return;
        };
        queue.free.push(slot);
        let result = completion.result();
        let is_short = operation.is_short_read();
        match &mut operation.bytes {
            Bytes::Group { id, bytes } => {
                let outcome = outcome(i64::from(result), bytes.len());
                queue.groups_in_flight -= 1;
                queue.finished.push((*id, outcome));
                return;
            }
            Bytes::Read { done, .. } | Bytes::Write { done, .. } => {
                match operation.result_for {
                    _ if is_short => queue.short_in_flight -= 1,
                    For::Log(_) => queue.reads_in_flight -= 1,
                    For::Task(_) | For::Nobody => queue.background_in_flight -= 1,
                }
                *done += usize::try_from(result).unwrap_or(0);
            }
        }
        let outcome = match (&operation.bytes, result) {
            (_, error) if error < 0 => Err(from_errno("read or write", -error)),
            (Bytes::Write { bytes, done }, 0) if *done < bytes.len() => Err(failed(
                "write",
                format!("only {done} of {} bytes were written", bytes.len()),
            )),
            (Bytes::Write { bytes, done }, _) if *done < bytes.len() => {
                queue.add(operation);
                return;
            }
            (Bytes::Read { buffer, done }, read)
                if read > 0 && *done < buffer.len() && (read as usize).is_multiple_of(4096) =>
            {
                queue.add(operation);
                return;
            }
            _ => Ok(match operation.bytes {
                Bytes::Read { buffer, done } => Some(buffer.freeze().slice(0..done)),
                _ => None,
            }),
        };
        let waiting = match operation.result_for {
            For::Task(waiting) => waiting,
            For::Log(id) => {
                let read = outcome.and_then(|bytes| bytes.ok_or_else(no_bytes));
                queue.finished_reads.push((id, read));
                return;
            }
            For::Nobody => return,
        };
        *waiting.result.borrow_mut() = Some(outcome);
        if let Some(task) = waiting.task.borrow_mut().take() {
            self.inner.woke_task.set(true);
            task.wake();
        }
    }

    /// The group writes that have ended since the last call.
    pub fn finished(&self, out: &mut Vec<(WriteId, Result<(), IoError>)>) {
        out.append(&mut self.inner.queue.borrow_mut().finished);
    }

    /// Whether a task was woken since the last call: the host should let the executor run it.
    pub fn take_woke_task(&self) -> bool {
        self.inner.woke_task.take()
    }

    /// Whether tasks wait for operations of theirs, so that the host should not keep the executor to itself.
    pub fn has_background(&self) -> bool {
        let queue = self.inner.queue.borrow();
        let in_flight = queue.background_in_flight + queue.reads_in_flight + queue.short_in_flight;
        let waiting = [&queue.background, &queue.reads, &queue.short];
        in_flight > 0 || waiting.iter().any(|queue| !queue.is_empty())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.directory.join(name)
    }

    async fn run(
        &self,
        file: &Rc<DmaFile>,
        offset: u64,
        bytes: Bytes,
    ) -> Result<Option<ReadBuffer>, IoError> {
        let waiting = Rc::new(Waiting::default());
        let operation = Operation {
            file: file.clone(),
            offset,
            bytes,
            result_for: For::Task(waiting.clone()),
        };
        self.inner.queue.borrow_mut().add(operation);
        self.inner.waker.wake();
        poll_fn(|context| match waiting.result.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => {
                *waiting.task.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Queue {
    fn slot(&mut self, operation: Operation) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(operation);
                slot
            }
            None => {
                self.slots.push(Some(operation));
                self.slots.len() - 1
            }
        }
    }

    fn add(&mut self, operation: Operation) {
        let is_read = matches!(operation.result_for, For::Log(_));
        let is_short = operation.is_short_read();
        let slot = self.slot(operation);
        if is_short {
            self.short.push_back(slot);
        } else if is_read {
            self.reads.push_back(slot);
        } else {
            self.background.push_back(slot);
        }
    }

    fn file_for_reads(&mut self, id: FileId) -> Option<Rc<DmaFile>> {
        if let FileId::Segment(segment) = id
            && let Some(file) = self.segments.get(&segment)
        {
            return Some(file.clone());
        }
        let at = self.read_files.iter().position(|(known, _)| *known == id)?;
        let found = self.read_files.remove(at)?;
        let file = found.1.clone();
        self.read_files.push_back(found);
        Some(file)
    }

    fn add_read(&mut self, file: Rc<DmaFile>, read: ReadOp) {
        let buffer = self.buffer(read.len);
        self.add(Operation {
            file,
            offset: read.offset,
            bytes: Bytes::Read { buffer, done: 0 },
            result_for: For::Log(read.id),
        });
    }

    fn buffer(&mut self, len: usize) -> AlignedBuffer {
        if len <= SHORT_READ_BYTES {
            AlignedBuffer::zeroed(len)
        } else {
            self.read_buffers.take(len)
        }
    }

    fn add_group(&mut self, write: WriteOp) {
        let Some(file) = self.segments.get(&write.segment).cloned() else {
            self.early.push(write);
            return;
        };
        let bytes = Bytes::Group {
            id: write.id,
            bytes: write.bytes,
        };
        let operation = Operation {
            file,
            offset: write.file_offset,
            bytes,
            result_for: For::Nobody,
        };
        let slot = self.slot(operation);
        self.groups.push_back(slot);
    }

    fn push(&mut self, slot: usize, ring: &mut Ring) {
        let Some(operation) = &mut self.slots[slot] else {
            return;
        };
        let fd = types::Fd(operation.file.as_raw_fd());
        let offset = operation.offset;
        let entry = match &mut operation.bytes {
            Bytes::Read { buffer, done } => {
                let rest = &mut buffer[*done..];
                opcode::Read::new(fd, rest.as_mut_ptr(), rest.len() as u32)
                    .offset(offset + *done as u64)
                    .ioprio(READ_PRIORITY)
                    .build()
            }
            Bytes::Write { bytes, done } => {
                let rest = &bytes[*done..];
                opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32)
                    .offset(offset + *done as u64)
                    .build()
            }
            Bytes::Group { bytes, .. } => {
                let write = opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32);
                write.offset(offset).rw_flags(libc::RWF_DSYNC).build()
            }
        };
        let entry = entry.user_data(Token::new(Owner::Disk, slot as u64).raw());
        // SAFETY: the file and the buffer stay in their slot until the completion takes them out; buffers do not move.
        unsafe { ring.push(entry) };
    }
}

impl Io for Disk {
    type File = Rc<DmaFile>;

    async fn list(&self) -> Result<Vec<(String, u64)>, IoError> {
        let directory = self.inner.directory.clone();
        let listed = glommio::executor()
            .spawn_blocking(move || list(&directory))
            .await;
        listed.map_err(|error| io_error("list the log's directory", error))
    }

    async fn open(&self, name: &str) -> Result<Self::File, IoError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .dma_open(self.path(name))
            .await;
        opened
            .map(Rc::new)
            .map_err(|error| glommio_error("open", name, error))
    }

    async fn create(&self, name: &str, len: u64) -> Result<Self::File, IoError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options
            .dma_open(self.path(name))
            .await
            .map_err(|error| glommio_error("create", name, error))?;
        if len > 0 {
            file.pre_allocate(len, false)
                .await
                .map_err(|error| glommio_error("reserve room for", name, error))?;
        }
        Ok(Rc::new(file))
    }

    async fn read_at(
        &self,
        file: &Self::File,
        offset: u64,
        len: usize,
    ) -> Result<ReadBuffer, IoError> {
        let buffer = self.inner.queue.borrow_mut().buffer(len);
        let read = self
            .run(file, offset, Bytes::Read { buffer, done: 0 })
            .await?;
        read.ok_or_else(no_bytes)
    }

    async fn write_at(&self, file: &Self::File, offset: u64, bytes: &Slice) -> Result<(), IoError> {
        self.run(
            file,
            offset,
            Bytes::Write {
                bytes: bytes.clone(),
                done: 0,
            },
        )
        .await
        .map(drop)
    }

    async fn sync(&self, file: &Self::File) -> Result<(), IoError> {
        file.fdatasync()
            .await
            .map_err(|error| glommio_error("sync", "a file of the log", error))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        let renamed = glommio::io::rename(self.path(from), self.path(to)).await;
        self.forget_file(from);
        self.forget_file(to);
        renamed.map_err(|error| glommio_error("rename", from, error))
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        self.forget_file(name);
        match glommio::io::remove(self.path(name))
            .await
            .map_err(|error| glommio_error("remove", name, error))
        {
            Err(IoError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        let what = "the log's directory";
        let directory = Directory::open(&self.inner.directory)
            .await
            .map_err(|error| glommio_error("open", what, error))?;
        directory
            .sync()
            .await
            .map_err(|error| glommio_error("sync", what, error))?;
        directory
            .close()
            .await
            .map_err(|error| glommio_error("close", what, error))
    }

    async fn space(&self) -> Result<DiskSpace, IoError> {
        let directory = self.inner.directory.clone();
        let space = glommio::executor()
            .spawn_blocking(move || nix::sys::statvfs::statvfs(&directory))
            .await;
        let space = space.map_err(|errno| from_errno("ask for the free space", errno as i32))?;
        let unit = space.fragment_size();
        Ok(DiskSpace {
            free_bytes: space.blocks_available() * unit,
            total_bytes: space.blocks() * unit,
        })
    }

    async fn pause(&self, wait_ms: u64) {
        Timer::new(Duration::from_millis(wait_ms)).await;
    }

    fn random(&self) -> u64 {
        RandomState::new().hash_one(&self.inner.directory)
    }
}

fn list(directory: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        if let (true, Ok(name)) = (facts.is_file(), entry.file_name().into_string()) {
            files.push((name, facts.len()));
        }
    }
    Ok(files)
}

/// What came of a group write of `len` bytes that gave `result`. A group that was not written whole has failed: what is on
/// the disk of it is not known.
pub(super) fn outcome(result: i64, len: usize) -> Result<(), IoError> {
    match usize::try_from(result) {
        Ok(written) if written == len => Ok(()),
        Ok(written) => {
            let cause = format!("only {written} of {len} bytes were written");
            Err(failed("write a group", cause))
        }
        Err(_) => Err(from_errno("write a group", result.unsigned_abs() as i32)),
    }
}

fn no_bytes() -> IoError {
    failed("read", "the operation gave no bytes".to_owned())
}

fn failed(op: &str, cause: String) -> IoError {
    IoError::Failed {
        op: op.to_owned(),
        cause,
    }
}

fn from_errno(op: &str, errno: i32) -> IoError {
    io_error(op, std::io::Error::from_raw_os_error(errno))
}

fn io_error(op: &str, error: std::io::Error) -> IoError {
    let op = op.to_owned();
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => IoError::NoSpace { op },
        Some(libc::ENOENT) => IoError::NotFound { op },
        _ => IoError::Failed {
            op,
            cause: error.to_string(),
        },
    }
}

fn glommio_error(op: &str, name: &str, error: GlommioError<()>) -> IoError {
    let op = format!("{op} {name}");
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => {
            io_error(&op, source)
        }
        other => failed(&op, other.to_string()),
    }
}
