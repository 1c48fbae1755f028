//! Why there is no ring, in words that say what to do.

use std::io;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// seccomp or sysctl.
    #[error(
        "io_uring is not permitted here: allow it in the container's seccomp profile (Docker: --security-opt \
         seccomp=unconfined, or a profile with io_uring_setup, io_uring_enter and io_uring_register), and see that \
         `sysctl kernel.io_uring_disabled` is 0"
    )]
    NotPermitted,
    /// No io_uring, or one without what is needed.
    #[error(
        "this kernel has no usable io_uring ({0}): Linux 5.15 or newer is needed, and gVisor does not do"
    )]
    TooOld(&'static str),
    /// memlock.
    #[error(
        "not enough lockable memory for an io_uring: raise `ulimit -l` (LimitMEMLOCK= in systemd, --ulimit memlock= in \
         Docker), or start fewer shards"
    )]
    Memlock,
    /// Too many open files.
    #[error("no file descriptor left for an io_uring: raise `ulimit -n` (LimitNOFILE= in systemd)")]
    Files,
    /// Anything else.
    #[error("io_uring failed: {0}")]
    Other(#[from] io::Error),
}

impl RingError {
    pub(super) fn from_setup(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted,
            Some(libc::ENOSYS) => Self::TooOld("no io_uring at all"),
            Some(libc::EINVAL) => Self::TooOld("its setup is refused"),
            Some(libc::ENOMEM) => Self::Memlock,
            Some(libc::EMFILE | libc::ENFILE) => Self::Files,
            _ => Self::Other(error),
        }
    }
}
