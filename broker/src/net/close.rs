//! How connections end.
//!
//! A connection that is closed at once is shut down, which ends the kernel's operations; it keeps its slot, its descriptor
//! and the memory that the kernel works with until those have completed. One that is closed with grace stays until what
//! was queued is sent, or its time is over. Either way `closed` is told with the next turn.

use super::connection::Phase;
use super::{ConnId, Net, StableBytes};
use crate::ring::Ring;
use corelane_wire::FrameError;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

/// Why a connection was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it.
    #[error("closed by the peer")]
    Peer,
    /// The system gave an error (errno).
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Io(i32),
    /// What came is not a frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Nothing came and nothing went for the idle time.
    #[error("idle")]
    Idle,
    /// It does not read what is sent to it.
    #[error("does not read what is sent to it")]
    SlowReader,
    /// Too many bytes of unfinished frames are held for all connections.
    #[error("too many bytes of unfinished frames")]
    AssemblyMemory,
    /// The handler or the host closed it.
    #[error("{0}")]
    Requested(&'static str),
}

impl CloseReason {
    /// One line for what somebody may have to look into.
    pub(super) fn log(&self, peer: SocketAddr) {
        match self {
            Self::Peer | Self::Idle | Self::Requested(_) => {
                tracing::debug!(%peer, reason = %self, "connection closed")
            }
            _ => tracing::warn!(%peer, reason = %self, "connection closed"),
        }
    }
}

/// Throws away what the peer has not taken yet, as the kernel would otherwise keep trying for many minutes.
fn abort(stream: &TcpStream) {
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: a call on a descriptor that is ours, with a pointer to a live address of the stated size. Where it fails the
    // kernel keeps trying.
    unsafe {
        libc::connect(
            stream.as_raw_fd(),
            &nowhere,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    };
}

impl<P: StableBytes> Net<P> {
    /// Closes a connection once what is queued to it is sent. `closed` comes with the next [`Net::turn`].
    pub fn close(&mut self, conn: ConnId, reason: &'static str) {
        self.begin_close(conn, CloseReason::Requested(reason), true);
        self.settle(conn.slot());
    }

    /// Stops listening and closes every connection once what is queued to it is sent. Done when [`Net::drained`].
    pub fn drain(&mut self, ring: &mut Ring, reason: &'static str) {
        self.stop_listening(ring);
        for slot in self.connections.slots() {
            if let Some(id) = self.connections.id(slot) {
                self.close(id, reason);
            }
        }
    }

    /// No listener and no connection is left, and the kernel holds none of our memory.
    pub fn drained(&self) -> bool {
        !self.listening() && self.connections.len() == 0 && self.gone.is_empty()
    }

    /// Closes an open connection; of one that is finishing, `graceful: false` cuts the rest off.
    pub(super) fn begin_close(&mut self, id: ConnId, reason: CloseReason, graceful: bool) {
        let Some(conn) = self.connections.open(id) else {
            let finishing = self.connections.id(id.slot()) == Some(id);
            if finishing
                && !graceful
                && let Some(conn) = self.connections.at(id.slot())
            {
                conn.phase = Phase::Cut;
            }
            return;
        };
        conn.phase = if graceful {
            Phase::Finishing {
                deadline_ms: self.now_ms.saturating_add(self.limits.linger_ms),
            }
        } else {
            Phase::Cut
        };
        self.returned
            .extend(conn.held.drain(..).map(|held| held.buffer));
        self.assembly_bytes -= conn.assembly.room();
        conn.assembly = Default::default();
        self.inflight_bytes -= std::mem::take(&mut conn.inflight_bytes);
        let peer = conn.peer;
        self.open -= 1;
        self.counters.closed += 1;
        match reason {
            CloseReason::Frame(_) => self.counters.closed_frame += 1,
            CloseReason::Idle => self.counters.closed_idle += 1,
            CloseReason::SlowReader => self.counters.closed_slow += 1,
            CloseReason::AssemblyMemory => self.counters.closed_memory += 1,
            CloseReason::Peer | CloseReason::Io(_) | CloseReason::Requested(_) => {}
        }
        self.gone.push((id, peer, reason));
    }

    /// Takes a closing connection as far as it can go. To be called after everything that may have ended something.
    pub(super) fn settle(&mut self, slot: u32) {
        let Some(conn) = self.connections.at(slot) else {
            return;
        };
        match conn.phase {
            Phase::Open => return,
            Phase::Finishing { .. } if conn.queued.is_some() || conn.sending.is_some() => return,
            Phase::Finishing { .. } | Phase::Cut => {}
        }
        if let Some(outgoing) = conn.queued.take() {
            self.keep(outgoing);
        }
        let Some(conn) = self.connections.at(slot) else {
            return;
        };
        if conn.receiving || conn.sending.is_some() || !conn.lingering.is_empty() {
            if !conn.shut {
                conn.shut = true;
                // It fails when the peer has ended the connection already, which ends the operations as well.
                let _ = conn.stream.shutdown(Shutdown::Both);
            }
            if conn.phase == Phase::Cut && !conn.lingering.is_empty() && !conn.aborted {
                conn.aborted = true;
                abort(&conn.stream);
            }
            return;
        }
        self.queued_bytes -= conn.counted_bytes;
        self.connections.remove(slot);
    }

    /// Idle, stalled and lingering connections.
    pub(super) fn sweep(&mut self) {
        let now_ms = self.now_ms;
        let over = |since_ms: u64, limit_ms: u64| {
            limit_ms > 0 && now_ms.saturating_sub(since_ms) >= limit_ms
        };
        for slot in self.connections.slots() {
            let Some((id, conn)) = self.connections.id(slot).zip(self.connections.at(slot)) else {
                continue;
            };
            let active_ms = conn.active_ms;
            match conn.phase {
                Phase::Open
                    if conn.counted_bytes > 0 && over(active_ms, self.limits.stalled_ms) =>
                {
                    self.begin_close(id, CloseReason::SlowReader, false);
                }
                Phase::Open if over(active_ms, self.limits.idle_ms) => {
                    self.begin_close(id, CloseReason::Idle, true);
                }
                Phase::Finishing { deadline_ms } if now_ms >= deadline_ms => {
                    conn.phase = Phase::Cut;
                }
                _ => continue,
            }
            self.settle(slot);
        }
    }
}
