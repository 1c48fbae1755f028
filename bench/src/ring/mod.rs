//! The generator's own io_uring: sockets with their buffers, and a file with its blocks.
//!
//! This is the only module with unsafe code. What it promises: a buffer that the kernel may still read or write is
//! neither moved, resized nor freed, and is not handed out for writing. Each half owns its buffers for that reason.

mod file;
mod sockets;

pub use file::{BLOCK_BYTES, BlockFile, HUGE_BYTES, ask_for_huge_pages};
pub use sockets::{Event, Sockets};

use std::io;

use io_uring::IoUring;

/// A ring for one thread, with what the kernel has to make that cheap; kernels before 6.1 have a plain ring.
fn build(submissions: u32, completions: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_clamp()
        .setup_cqsize(completions)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(submissions)
        .or_else(|_| {
            IoUring::builder()
                .setup_clamp()
                .setup_cqsize(completions)
                .build(submissions)
        })
}
