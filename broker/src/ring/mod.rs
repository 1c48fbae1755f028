//! The raw io_uring of a shard: one ring, driven by one task of the shard's executor.
//!
//! A turn of the host is: [`Ring::turn`] (one system call submits everything and runs what the kernel deferred),
//! [`Ring::reap`] and hand each completion to its [`Owner`], let the engine and the network plane queue more, and when
//! nothing is left to do [`Parker::park`]. No system call is made per operation.
//!
//! The thread that made the ring is the only one that may use it. Whoever pushes an operation keeps what it points to
//! alive and in place until its last completion (the one without [`Completion::more`]).

#![allow(clippy::disallowed_methods, reason = "measures how long it may spin")]

mod error;
mod kernel;
mod park;
mod stable;
mod token;

pub use error::RingError;
pub use kernel::Kernel;
pub use park::{Parker, RemoteWaker, Waker, executor};
pub use stable::{NoParts, StableBytes};
pub use token::{Owner, Token};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// IORING_NOTIF_USAGE_ZC_COPIED.
const ZERO_COPY_COPIED: u32 = 1 << 31;

/// Sizes of a ring.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Submissions that fit before a system call is needed.
    pub submissions: u32,
    /// Completions that fit before the kernel has to set some aside.
    pub completions: u32,
    /// Uses nothing that Linux 5.15 does not have, for tests and for doubts about a newer feature.
    pub plain: bool,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            submissions: 1024,
            completions: 8192,
            plain: false,
        }
    }
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    token: Token,
    result: i32,
    flags: u32,
}

impl Completion {
    /// What was submitted with the operation.
    pub fn token(&self) -> Token {
        self.token
    }

    /// As the system call would give it: a count, or a negative errno.
    pub fn result(&self) -> i32 {
        self.result
    }

    /// More completions of the same operation will come.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Says that bytes of a zero-copy send are no longer needed, not how the send ended.
    pub fn is_notification(&self) -> bool {
        cqueue::notif(self.flags)
    }

    /// Of a notification: the kernel has copied the bytes after all.
    pub fn was_copied(&self) -> bool {
        self.result as u32 & ZERO_COPY_COPIED != 0
    }

    /// The provided buffer that the kernel chose.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// One io_uring.
pub struct Ring {
    uring: IoUring,
    kernel: Kernel,
    /// Signalled by the kernel for completions while a [`Parker`] sleeps.
    event: Arc<OwnedFd>,
    /// Submissions that found the queue full and the kernel unwilling.
    backlog: VecDeque<squeue::Entry>,
    next_buffer_group: u16,
    /// The kernel binds a ring to the thread that made it.
    _this_thread: PhantomData<*const ()>,
}

impl Ring {
    /// Makes a ring with the best setup that this kernel knows.
    pub fn new(options: &RingOptions) -> Result<Self, RingError> {
        let uring = kernel::build(options).map_err(RingError::from_setup)?;
        if !uring.params().is_feature_nodrop() || !uring.params().is_feature_ext_arg() {
            return Err(RingError::TooOld("completions may be dropped"));
        }
        let kernel = Kernel::probe(&uring, options.plain)?;
        // SAFETY: a plain system call; the descriptor is checked before it is owned.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error().into());
            }
            OwnedFd::from_raw_fd(fd)
        };
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        let mut ring = Self {
            uring,
            kernel,
            event: Arc::new(event),
            backlog: VecDeque::new(),
            next_buffer_group: 0,
            _this_thread: PhantomData,
        };
        ring.uring.completion().disable_eventfd();
        Ok(ring)
    }

    /// Whether a ring can be made here at all, for a clear message before anything else is started.
    pub fn check() -> Result<(), RingError> {
        Self::new(&RingOptions {
            submissions: 8,
            completions: 16,
            plain: false,
        })
        .map(drop)
    }

    /// Queues one operation. Never fails: what does not fit waits for the next turn.
    ///
    /// # Safety
    /// What the entry points to stays valid and in place until the operation's last completion. The entry's `user_data` is
    /// a [`Token`].
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: the caller promises what `SubmissionQueue::push` asks for.
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        // An error of this call comes again with the next turn, which reports it.
        let _ = self.uring.submit();
        // SAFETY: as above.
        if unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// One system call at most: submits what is queued and lets the kernel post completions. Does not wait.
    pub fn turn(&mut self) -> io::Result<()> {
        let submission = self.uring.submission();
        let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        // Where the kernel says when it has work to run, silence needs no system call.
        if idle && self.backlog.is_empty() {
            return Ok(());
        }
        self.enter()
    }

    fn enter(&mut self) -> io::Result<()> {
        loop {
            let submission = self.uring.submission();
            let queued = submission.len() as u32;
            drop(submission);
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: no argument is passed; every queued entry was promised to be valid by whoever pushed it.
            let entered = unsafe {
                self.uring
                    .submitter()
                    .enter::<libc::sigset_t>(queued, 0, flags, None)
            };
            if !tolerate(entered)? || self.backlog.is_empty() {
                return Ok(());
            }
            self.refill();
        }
    }

    fn refill(&mut self) {
        let mut submission = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: promised by whoever pushed it.
            if unsafe { submission.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits what is queued and looks for completions again and again, until there are some or `limit` is over. The
    /// kernel need not wake anybody then, and the core does nothing else meanwhile.
    pub fn spin(&mut self, limit: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            self.turn()?;
            if self.has_completions() || start.elapsed() >= limit {
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }

    /// Submits what is queued and sleeps in the kernel until a completion comes or `limit` is over. Nothing else of the
    /// executor runs meanwhile.
    pub fn wait(&mut self, limit: Duration) -> io::Result<()> {
        if self.has_completions() {
            return self.turn();
        }
        self.refill();
        let limit = Timespec::from(limit);
        let args = SubmitArgs::new().timespec(&limit);
        tolerate(self.uring.submitter().submit_with_args(1, &args)).map(drop)
    }

    /// Whether [`Ring::reap`] would give anything.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Moves all completions that are there to the end of `out`.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        out.extend(self.uring.completion().map(|entry| Completion {
            token: Token::from_raw(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// What of the kernel's features is used.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// One line for the log: what of the kernel's features is used.
    pub fn features(&self) -> String {
        self.kernel.to_string()
    }

    pub(crate) fn new_buffer_group(&mut self) -> u16 {
        self.next_buffer_group += 1;
        self.next_buffer_group
    }

    /// # Safety
    /// `address` is the page-aligned start of `entries` entries that stay mapped for as long as the ring may take buffers.
    pub(crate) unsafe fn register_buffers(
        &mut self,
        address: u64,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: promised by the caller.
        unsafe {
            self.uring
                .submitter()
                .register_buf_ring_with_flags(address, entries, group, 0)
        }
    }

    /// From now on completions signal the event descriptor; those of before are in the queue after the call.
    fn listen(&mut self) -> io::Result<()> {
        self.uring.completion().enable_eventfd();
        // The kernel adds work, then looks at the flag; we set the flag, then look for work.
        fence(Ordering::SeqCst);
        self.enter()
    }

    fn stop_listening(&mut self) {
        self.uring.completion().disable_eventfd();
    }
}

/// `true` when the kernel took everything; `false` when it wants completions reaped or tried again first.
fn tolerate(entered: io::Result<usize>) -> io::Result<bool> {
    match entered {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ETIME) => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
