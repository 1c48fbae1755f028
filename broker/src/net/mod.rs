//! The network plane of a shard: accepts, receives, finds frames, sends. Knows frames, not topics.

mod limits;
pub mod service;

pub use limits::NetLimits;

use crate::ring::{Completion, Ring};
use corelane_wire::FrameError;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::ControlFlow;

/// A connection for as long as it is open; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// As a number, for those who know connections by number only.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The connection of [`ConnId::as_u64`]; a number that never was one names a connection that is gone.
    pub fn from_u64(id: u64) -> Self {
        Self(id)
    }
}

/// Bytes that are sent from where they are.
///
/// # Safety
/// `bytes` gives the same address and length for as long as the value lives, wherever the value itself is moved to, and
/// nobody writes to them.
pub unsafe trait StableBytes: 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

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
    #[error("does not read its answers")]
    SlowReader,
    /// Too many bytes of unfinished frames are held for all connections.
    #[error("too many bytes of unfinished frames")]
    AssemblyMemory,
    /// The handler or the host closed it.
    #[error("{0}")]
    Requested(&'static str),
}

/// Why an address cannot be listened on. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The port is taken.
    #[error("{0} is in use by another process: stop it or choose another port")]
    Taken(SocketAddr),
    /// A low port without the right to it.
    #[error(
        "no permission to listen on {0}: choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
    )]
    Permission(SocketAddr),
    /// The address is not one of this machine.
    #[error("{0} is not an address of this machine")]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Receive buffers could not be registered.
    #[error("cannot register receive buffers: {0}")]
    Buffers(io::Error),
}

/// What the plane tells. Every connection that was `opened` is `closed` exactly once.
pub trait Handler<P: StableBytes> {
    /// A connection was accepted.
    fn opened(&mut self, net: &mut Net<P>, conn: ConnId, peer: SocketAddr, local: SocketAddr);

    /// One whole frame came, length word included; in place in the receive buffer unless a buffer's end cut it. `Break`
    /// closes the connection once what was written to it is sent.
    fn frame(&mut self, net: &mut Net<P>, conn: ConnId, frame: &[u8]) -> ControlFlow<&'static str>;

    /// The connection is gone: nothing can be written to it any more.
    fn closed(&mut self, net: &mut Net<P>, conn: ConnId, reason: &CloseReason);
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct NetCounters {
    /// Connections accepted and kept.
    pub accepted: u64,
    /// Connections closed for being over the bound.
    pub rejected: u64,
}

/// The sockets of one shard.
///
/// A turn of its host: `ring.turn()`, `ring.reap(..)`, [`Net::completion`] for each that is [`Owner::Net`]
/// (crate::ring::Owner), [`Net::turn`], the engine's own work, [`Net::flush`], and `park` only when [`Net::busy`] is false.
pub struct Net<P: StableBytes> {
    _parts: PhantomData<P>,
}

impl<P: StableBytes> Net<P> {
    /// No sockets yet. Registers the receive buffers with `ring`.
    pub fn new(ring: &mut Ring, limits: NetLimits) -> Result<Self, NetError> {
        let _ = (ring, limits);
        todo!()
    }

    /// Listens on one more address and says which one it is (the port may have been 0).
    pub fn listen(&mut self, ring: &mut Ring, address: SocketAddr) -> Result<SocketAddr, NetError> {
        let _ = (ring, address);
        todo!()
    }

    /// Takes one completion of [`Owner::Net`](crate::ring::Owner).
    pub fn completion(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        handler: &mut impl Handler<P>,
    ) {
        let _ = (ring, completion, handler);
        todo!()
    }

    /// Once a turn, after the completions: frames that were left over for fairness, and `closed` calls that are due.
    pub fn turn(&mut self, ring: &mut Ring, handler: &mut impl Handler<P>) {
        let _ = (ring, handler);
        todo!()
    }

    /// Whether there is work for another turn without anything coming in.
    pub fn busy(&self) -> bool {
        todo!()
    }

    /// The end of the connection's send queue, to append whole frames or the bytes before a shared part. `None` when the
    /// connection is gone.
    pub fn write(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        let _ = conn;
        todo!()
    }

    /// Appends bytes to the send queue without copying them (small ones are copied: that is cheaper). Dropped when sent, or
    /// when the connection is gone.
    pub fn write_shared(&mut self, conn: ConnId, part: P) {
        let _ = (conn, part);
        todo!()
    }

    /// Bytes queued to a connection and not yet taken by the kernel.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        let _ = conn;
        todo!()
    }

    /// End of a turn: one send for every connection that has something queued and none in flight.
    pub fn flush(&mut self, ring: &mut Ring) {
        let _ = ring;
        todo!()
    }

    /// Closes a connection once what is queued to it is sent. `closed` comes with the next [`Net::turn`].
    pub fn close(&mut self, conn: ConnId, reason: &'static str) {
        let _ = (conn, reason);
        todo!()
    }

    /// Stops listening; open connections go on.
    pub fn stop_listening(&mut self, ring: &mut Ring) {
        let _ = ring;
        todo!()
    }

    /// Stops listening and closes every connection once what is queued to it is sent. Done when [`Net::drained`].
    pub fn drain(&mut self, ring: &mut Ring, reason: &'static str) {
        let _ = (ring, reason);
        todo!()
    }

    /// No listener and no connection is left, and the kernel holds none of our memory.
    pub fn drained(&self) -> bool {
        todo!()
    }

    /// Idle and stalled connections; to be called about every 100 ms to 1 s with a clock that does not go back.
    pub fn tick(&mut self, ring: &mut Ring, now_ms: u64) {
        let _ = (ring, now_ms);
        todo!()
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        todo!()
    }

    /// What happened so far.
    pub fn counters(&self) -> &NetCounters {
        todo!()
    }
}
