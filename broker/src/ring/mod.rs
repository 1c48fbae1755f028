//! The raw io_uring of a shard: one ring, driven by one task of the shard's executor.
//!
//! A turn of the host is: [`Ring::turn`] (one system call submits everything and runs what the kernel deferred),
//! [`Ring::reap`] and hand each completion to its [`Owner`], let the engine and the network plane queue more, and when
//! nothing is left to do [`Parker::park`]. No system call is made per operation.
//!
//! The thread that made the ring is the only one that may use it. Whoever pushes an operation keeps what it points to
//! alive and in place until its last completion (the one without [`Completion::more`]).

mod park;
mod token;

pub use park::{Parker, RemoteWaker, Waker};
pub use token::{Owner, Token};

use io_uring::squeue;
use std::io;

/// Sizes of a ring.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Submissions that fit before a system call is needed.
    pub submissions: u32,
    /// Completions that fit before the kernel has to set some aside.
    pub completions: u32,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { submissions: 1024, completions: 8192 }
    }
}

/// Why there is no ring. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// seccomp or sysctl.
    #[error("io_uring is not permitted here: {0}")]
    NotPermitted(&'static str),
    /// No io_uring, or one without what is needed.
    #[error("this kernel is too old: Linux 5.15 or newer is needed ({0})")]
    TooOld(&'static str),
    /// memlock.
    #[error("not enough lockable memory for an io_uring: raise `ulimit -l` (LimitMEMLOCK in systemd), or lower the number of shards")]
    Memlock,
    /// Anything else.
    #[error("io_uring: {0}")]
    Other(#[from] io::Error),
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
        io_uring::cqueue::more(self.flags)
    }

    /// The provided buffer that the kernel chose.
    pub fn buffer(&self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// One io_uring.
pub struct Ring {}

impl Ring {
    /// Makes a ring with the best setup that this kernel knows.
    pub fn new(options: &RingOptions) -> Result<Self, RingError> {
        let _ = options;
        todo!()
    }

    /// Queues one operation. Never fails: what does not fit waits for the next turn.
    ///
    /// # Safety
    /// What the entry points to stays valid and in place until the operation's last completion. The entry's `user_data` is
    /// a [`Token`].
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        let _ = entry;
        todo!()
    }

    /// One system call at most: submits what is queued and lets the kernel post completions. Does not wait.
    pub fn turn(&mut self) -> io::Result<()> {
        todo!()
    }

    /// Moves all completions that are there to the end of `out`.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        let _ = out;
        todo!()
    }

    /// One line for the log: what of the kernel's features is used.
    pub fn features(&self) -> String {
        todo!()
    }
}
