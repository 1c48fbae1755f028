//! What this kernel's io_uring can do. Everything has a fallback that Linux 5.15 knows.

use super::{RingError, RingOptions};
use io_uring::{IoUring, Probe, opcode};
use std::{fmt, io};

/// Features that are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// How the kernel runs what it has to do for completions: when asked to (6.1), at the next system call (5.19), at once.
    pub completions: Delivery,
    /// Receive buffers are given back through shared memory (5.19), not with an operation each.
    pub buffer_ring: bool,
    /// One accept operation for many connections (5.19).
    pub multishot_accept: bool,
    /// One receive operation for all that a connection sends (6.0).
    pub multishot_recv: bool,
    /// Sends can leave their bytes where they are until the peer has them (6.1), and say whether that was so (6.2; a socket
    /// that cannot refuses, and is sent to as ever).
    pub send_zero_copy: bool,
}

/// See [`Kernel::completions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// SINGLE_ISSUER and DEFER_TASKRUN.
    Deferred,
    /// COOP_TASKRUN.
    Cooperative,
    /// No flag.
    Interrupting,
}

const DELIVERIES: [Delivery; 3] = [
    Delivery::Deferred,
    Delivery::Cooperative,
    Delivery::Interrupting,
];

/// Tries the best setup first. Kernels answer flags that they do not know with EINVAL.
pub(super) fn build(options: &RingOptions) -> io::Result<IoUring> {
    let mut refused = None;
    for delivery in DELIVERIES {
        if options.plain && delivery != Delivery::Interrupting {
            continue;
        }
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_clamp()
            .setup_cqsize(options.completions);
        match delivery {
            Delivery::Deferred => {
                builder
                    .setup_single_issuer()
                    .setup_defer_taskrun()
                    .setup_taskrun_flag()
                    .setup_submit_all();
            }
            Delivery::Cooperative => {
                builder
                    .setup_coop_taskrun()
                    .setup_taskrun_flag()
                    .setup_submit_all();
            }
            Delivery::Interrupting => {}
        }
        match builder.build(options.submissions) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            result => return result,
        }
    }
    Err(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL)))
}

impl Kernel {
    pub(super) fn probe(uring: &IoUring, plain: bool) -> Result<Self, RingError> {
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        for (code, what) in [
            (opcode::Accept::CODE, "no accept"),
            (opcode::Recv::CODE, "no receive"),
            (opcode::SendMsg::CODE, "no send"),
            (opcode::Write::CODE, "no write"),
            (opcode::AsyncCancel::CODE, "no cancellation"),
            (opcode::ProvideBuffers::CODE, "no provided buffers"),
        ] {
            if !probe.is_supported(code) {
                return Err(RingError::TooOld(what));
            }
        }
        // Flags of operations cannot be probed: operations that came with the same release stand for them.
        let linux_5_19 = !plain && probe.is_supported(opcode::Socket::CODE);
        let linux_6_0 = !plain && probe.is_supported(opcode::SendZc::CODE);
        let linux_6_1 = !plain && probe.is_supported(opcode::SendMsgZc::CODE);
        let params = uring.params();
        Ok(Self {
            completions: if params.is_setup_single_issuer() {
                Delivery::Deferred
            } else if linux_5_19 {
                Delivery::Cooperative
            } else {
                Delivery::Interrupting
            },
            buffer_ring: linux_5_19,
            multishot_accept: linux_5_19,
            multishot_recv: linux_6_0,
            send_zero_copy: linux_6_1,
        })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |on: bool| {
            if on {
                "yes"
            } else {
                "no (older kernel: slower)"
            }
        };
        let completions = match self.completions {
            Delivery::Deferred => "deferred",
            Delivery::Cooperative => "cooperative (older kernel)",
            Delivery::Interrupting => "interrupting (older kernel: slower)",
        };
        write!(
            f,
            "io_uring: completions {completions}, buffer ring {}, multishot accept {}, multishot receive {}, zero-copy send {}",
            yes_no(self.buffer_ring),
            yes_no(self.multishot_accept),
            yes_no(self.multishot_recv),
            yes_no(self.send_zero_copy),
        )
    }
}
