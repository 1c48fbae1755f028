//! A thread that writes groups while the shard's thread serves: it shares the shard's core and mostly sleeps in the kernel.
//!
//! A durable write may sleep more than once (for its bytes, then for the flush of the device's cache). Through a ring that
//! is the work of a kernel worker, which gets a busy core only when the shard's time slice is over. This thread is woken
//! ahead of the shard instead: it asks for a higher priority, and for a short slice where it may not have that.
//!
//! One write at a time. The shard looks for its end in every turn; while it sleeps, the end wakes it through its ring.

#![allow(
    clippy::disallowed_methods,
    reason = "measures how long a write takes, on which only the way of the next one depends"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::atomic::{Ordering, fence};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use glommio::io::DmaFile;
use io_uring::{opcode, types};

use super::disk::outcome;
use crate::log::{IoError, Slice, WriteId, WriteOp};
use crate::ring::{Completion, Owner, RemoteWaker, Ring, Token};

/// The thread has nothing to do.
const IDLE: u8 = 0;
/// There is a write for the thread.
const WRITE: u8 = 1;
/// The write has ended.
const ENDED: u8 = 2;

/// How long the thread may have the core at a time where it cannot have a priority. It needs a few microseconds.
const SLICE: Duration = Duration::from_micros(100);

/// What both threads see. The write belongs to whoever `state` names.
struct Shared {
    state: AtomicU8,
    stop: AtomicBool,
    /// Whether the shard sleeps, or is about to.
    asleep: AtomicBool,
    file: AtomicI32,
    bytes: AtomicUsize,
    len: AtomicUsize,
    offset: AtomicU64,
    /// Bytes that were written, or a negative errno.
    result: AtomicI64,
    /// Watched by the shard's ring: wakes a shard that waits in it.
    watched: OwnedFd,
    /// Wakes a shard that sleeps in its executor. The ring cannot do that from an event that it watches, or only late: the
    /// kernel does not let one event descriptor signal the next.
    parked: RemoteWaker,
}

/// What the thread writes: kept until it has ended.
struct Write {
    id: WriteId,
    bytes: Slice,
    _file: Rc<DmaFile>,
    began: Instant,
}

/// The thread, seen from its shard.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    write: Option<Write>,
}

impl Writer {
    /// Starts the thread on the core of the calling one. `ring` and `parked` are the shard's.
    pub fn start(ring: &mut Ring, parked: RemoteWaker) -> io::Result<Self> {
        // SAFETY: a plain system call; the descriptor is checked before it is owned.
        let watched = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let shared = Arc::new(Shared {
            state: AtomicU8::new(IDLE),
            stop: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            file: AtomicI32::new(-1),
            bytes: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            offset: AtomicU64::new(0),
            result: AtomicI64::new(0),
            watched,
            parked,
        });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("group-writer".to_owned())
            .spawn(move || {
                go_ahead_of_the_shard();
                serve(&theirs);
            })?;
        let writer = Self {
            shared,
            thread: Some(thread),
            write: None,
        };
        writer.listen(ring);
        Ok(writer)
    }

    /// Since when the write is under way.
    pub fn began(&self) -> Option<Instant> {
        self.write.as_ref().map(|write| write.began)
    }

    /// Writes `bytes` durably. The writer must not be busy.
    pub fn write(&mut self, id: WriteId, file: Rc<DmaFile>, offset: u64, bytes: Slice) {
        assert!(self.write.is_none(), "one write at a time");
        let shared = &self.shared;
        shared.file.store(file.as_raw_fd(), Ordering::Relaxed);
        shared
            .bytes
            .store(bytes.as_ptr().expose_provenance(), Ordering::Relaxed);
        shared.len.store(bytes.len(), Ordering::Relaxed);
        shared.offset.store(offset, Ordering::Relaxed);
        self.write = Some(Write {
            id,
            bytes,
            _file: file,
            began: Instant::now(),
        });
        shared.state.store(WRITE, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// The write that has ended, once.
    pub fn ended(&mut self) -> Option<(WriteId, Result<(), IoError>)> {
        if self.shared.state.load(Ordering::Acquire) != ENDED {
            return None;
        }
        let write = self.write.take()?;
        let result = self.shared.result.load(Ordering::Relaxed);
        self.shared.state.store(IDLE, Ordering::Relaxed);
        Some((write.id, outcome(result, write.bytes.len())))
    }

    /// To be called before the shard sleeps. `false`: a write has ended, it must not.
    pub fn may_sleep(&self) -> bool {
        if self.write.is_none() {
            return true;
        }
        self.shared.asleep.store(true, Ordering::Relaxed);
        // Either the thread sees that the shard sleeps, or the shard sees that the write has ended.
        fence(Ordering::SeqCst);
        self.shared.state.load(Ordering::Acquire) != ENDED
    }

    /// The shard is awake.
    pub fn awake(&self) {
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Takes a completion of [`Owner::Writer`]: it only wakes.
    pub fn completion(&self, completion: Completion, ring: &mut Ring) {
        if !completion.more() {
            self.listen(ring);
        }
    }

    fn listen(&self, ring: &mut Ring) {
        let fd = types::Fd(self.shared.watched.as_raw_fd());
        let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true);
        let entry = poll.build().user_data(Token::new(Owner::Writer, 0).raw());
        // SAFETY: it points to nothing, and the ring keeps the descriptor that it polls.
        unsafe { ring.push(entry) };
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // What it writes is kept until it has ended. A panic of the thread has nothing to say here.
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared) {
    while !shared.stop.load(Ordering::Acquire) {
        if shared.state.load(Ordering::Acquire) != WRITE {
            thread::park();
            continue;
        }
        let bytes = std::ptr::with_exposed_provenance(shared.bytes.load(Ordering::Relaxed));
        let len = shared.len.load(Ordering::Relaxed);
        let fd = shared.file.load(Ordering::Relaxed);
        // SAFETY: whoever stored them keeps the bytes and the file until it has seen `ENDED` or this thread is gone, and
        // does not change the bytes.
        let result =
            unsafe { write_durably(fd, bytes, len, shared.offset.load(Ordering::Relaxed)) };
        shared.result.store(result, Ordering::Relaxed);
        shared.state.store(ENDED, Ordering::Release);
        fence(Ordering::SeqCst);
        if shared.asleep.swap(false, Ordering::Relaxed) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight readable bytes. The only failure is a counter at its end, and then the shard is being woken.
            unsafe { libc::write(shared.watched.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            shared.parked.wake();
        }
    }
}

/// Writes a group on the calling thread.
pub fn write_here(file: &DmaFile, write: &WriteOp) -> Result<(), IoError> {
    let (bytes, len) = (write.bytes.as_ptr(), write.bytes.len());
    // SAFETY: `write` keeps the bytes until the call is over, and the file is open.
    let written = unsafe { write_durably(file.as_raw_fd(), bytes, len, write.file_offset) };
    outcome(written, len)
}

/// One write with RWF_DSYNC: how many bytes, or a negative errno.
///
/// # Safety
/// `fd` is open, and `len` bytes at `bytes` are readable, until this returns.
unsafe fn write_durably(fd: RawFd, bytes: *const u8, len: usize, offset: u64) -> i64 {
    let vector = libc::iovec {
        iov_base: bytes.cast_mut().cast(),
        iov_len: len,
    };
    // SAFETY: promised by the caller; the vector lives until the call is over.
    let written = unsafe { libc::pwritev2(fd, &vector, 1, offset as libc::off_t, libc::RWF_DSYNC) };
    if written >= 0 {
        return written as i64;
    }
    let errno = io::Error::last_os_error().raw_os_error();
    -i64::from(errno.unwrap_or(libc::EIO))
}

/// As the kernel's `sched_setattr` takes it.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The highest priority of ordinary threads, or at least a short slice (Linux 6.12): with either, a write that goes on does
/// so at once. Where neither may be had the shard's turns delay it.
fn go_ahead_of_the_shard() {
    for nice in [-20, 0] {
        let attr = SchedAttr {
            size: size_of::<SchedAttr>() as u32,
            policy: libc::SCHED_OTHER as u32,
            flags: 0,
            nice,
            priority: 0,
            runtime: SLICE.as_nanos() as u64,
            deadline: 0,
            period: 0,
        };
        // SAFETY: the structure is as long as it says, and the kernel only reads it.
        let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
        if set == 0 {
            return;
        }
    }
    tracing::warn!(
        "the thread that writes groups cannot go ahead of its shard: commits may be slower"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::AlignedBuffer;
    use crate::ring::{Parker, RingOptions, executor};
    use glommio::Placement;
    use glommio::io::OpenOptions;

    /// Writes with a writer, parks as the shard does with this linger, and gives what came of it and how long that took.
    fn write_and_sleep(linger: Duration, writable: bool) -> (Result<(), IoError>, Duration) {
        let path = std::env::temp_dir().join(format!(
            "corelane-writer-{}-{}-{writable}",
            std::process::id(),
            linger.as_millis()
        ));
        let found = path.clone();
        let ended = executor(Placement::Unbound)
            .make()
            .unwrap()
            .run(async move {
                let mut ring = Ring::new(&RingOptions::default()).unwrap();
                let mut parker = Parker::new(&ring).unwrap();
                parker.set_linger(linger);
                let mut writer = Writer::start(&mut ring, parker.remote_waker()).unwrap();
                std::fs::File::create(&path).unwrap();
                let mut options = OpenOptions::new();
                let file = options.read(true).write(writable).dma_open(&path).await;
                let bytes = AlignedBuffer::zeroed(1 << 20).freeze();
                let began = Instant::now();
                writer.write(WriteId(7), Rc::new(file.unwrap()), 4096, bytes);
                let mut completions = Vec::new();
                loop {
                    if writer.may_sleep() {
                        let far = Some(Duration::from_secs(20));
                        parker.park(&mut ring, far).await.unwrap();
                    }
                    writer.awake();
                    ring.turn().unwrap();
                    ring.reap(&mut completions);
                    for completion in completions.drain(..) {
                        assert_eq!(completion.token().owner(), Owner::Writer);
                        writer.completion(completion, &mut ring);
                    }
                    if let Some((id, outcome)) = writer.ended() {
                        assert_eq!(id, WriteId(7));
                        assert!(writer.ended().is_none(), "its end is told once");
                        return (outcome, began.elapsed());
                    }
                }
            });
        let len = std::fs::metadata(&found).unwrap().len();
        assert_eq!(len, if writable { 4096 + (1 << 20) } else { 0 });
        std::fs::remove_file(found).unwrap();
        ended
    }

    #[test]
    fn the_end_of_a_write_wakes_a_shard_that_waits_in_its_ring_or_sleeps() {
        for linger in [Duration::ZERO, Duration::from_secs(20)] {
            let (outcome, took) = write_and_sleep(linger, true);
            outcome.unwrap();
            assert!(took < Duration::from_secs(10), "nobody woke it: {took:?}");
        }
    }

    #[test]
    fn a_write_that_fails_says_why() {
        let (outcome, _) = write_and_sleep(Duration::ZERO, false);
        assert!(
            matches!(outcome, Err(IoError::Failed { .. })),
            "{outcome:?}"
        );
    }
}
