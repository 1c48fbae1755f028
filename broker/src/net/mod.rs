//! The network plane of a shard: accepts, receives, finds frames, sends. Knows frames, not topics.
//!
//! A turn of its host is: `ring.turn()`, `ring.reap(..)`, [`Net::completion`] for each completion that is
//! [`Owner::Net`](crate::ring::Owner), [`Net::turn`], whatever else the host has to do, [`Net::flush`]; and parking only
//! when [`Net::busy`] is false. [`Net::tick`] comes about every 100 ms to 1 s.
//!
//! The kernel fills receive buffers that all connections share. Frames are handed up in place; only one that the end of a
//! buffer cuts is put together elsewhere. What is written to a connection is queued, and leaves with one send at the end of
//! the turn; while that send is with the kernel the next one gathers.
//!
//! Everything is bounded by [`NetLimits`]. A connection that sends much gets a bounded share of each turn, and what it sent
//! beyond waits; one that reads too slowly is not read from, and in the end cut off.
//!
//! Bytes pass from the receive buffer to the search for frames in one place (`receive.rs`, `feed`): a preamble of a proxy or
//! TLS would stand there.

#![allow(clippy::disallowed_types, reason = "the room of the sockets")]

mod assembly;
mod buffers;
mod close;
mod connection;
mod inflight;
mod limits;
mod listen;
mod outgoing;
mod receive;
mod send;
pub mod service;

pub use crate::ring::{NoParts, StableBytes};
pub use close::CloseReason;
pub use limits::{NetCounters, NetLimits};
pub use listen::NetError;

use crate::ring::{Completion, Owner, Ring, Token};
use assembly::Assembly;
use buffers::Buffers;
use connection::Connections;
use listen::Listener;
use outgoing::Outgoing;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;

/// A connection for as long as it is open; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// As a number, for those who know connections by number only. Never 0.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The connection of [`ConnId::as_u64`]; a number that never was one names a connection that is gone.
    pub fn from_u64(id: u64) -> Self {
        Self(id)
    }
}

/// What the plane tells. Every connection that was `opened` is `closed` exactly once.
pub trait Handler<P: StableBytes> {
    /// A connection was accepted.
    fn opened(&mut self, net: &mut Net<P>, conn: ConnId, peer: SocketAddr, local: SocketAddr);

    /// One whole frame came, length word included; in place in the receive buffer unless a buffer's end cut it. `Break`
    /// closes the connection once what was written to it is sent; [`CloseReason::Requested`] and [`CloseReason::Frame`] are
    /// meant for it.
    fn frame(&mut self, net: &mut Net<P>, conn: ConnId, frame: &[u8]) -> ControlFlow<CloseReason>;

    /// The connection is gone: nothing can be written to it any more.
    fn closed(&mut self, net: &mut Net<P>, conn: ConnId, reason: &CloseReason);
}

/// The sockets of one shard.
pub struct Net<P: StableBytes> {
    limits: NetLimits,
    counters: NetCounters,
    now_ms: u64,
    swept_ms: u64,
    turn: u64,
    listeners: Vec<Listener>,
    connections: Connections<P>,
    /// Not closing.
    open: usize,

    buffers: Buffers,
    /// Ours, to be given back when the ring is at hand.
    returned: Vec<u16>,
    /// Slots whose held bytes wait for the next turn.
    leftover: VecDeque<u32>,
    /// Slots that want a receive operation.
    to_arm: VecDeque<u32>,
    assembly_bytes: usize,
    spare_assemblies: Vec<Assembly>,
    inflight_bytes: usize,
    /// From which nothing is taken because of what is held up.
    overdrawn: Vec<ConnId>,

    /// Slots that have something queued.
    dirty: Vec<u32>,
    queued_bytes: usize,
    // The box is what is kept: the kernel needs an address that stays.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Outgoing<P>>>,
    spare_bytes: usize,

    /// Closed, and not yet told.
    gone: Vec<(ConnId, SocketAddr, CloseReason)>,
}

/// Operations of this plane, in the top bits of a token's payload.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    Accept = 1,
    Receive = 2,
    Send = 3,
}

const OPERATION_SHIFT: u32 = Token::PAYLOAD_BITS - 4;

fn token(operation: Operation, slot: u32) -> Token {
    Token::new(
        Owner::Net,
        (operation as u64) << OPERATION_SHIFT | u64::from(slot),
    )
}

impl<P: StableBytes> Net<P> {
    /// No sockets yet. Registers the receive buffers with `ring`, which must be the one that is passed to all other calls.
    pub fn new(ring: &mut Ring, limits: NetLimits) -> Result<Self, NetError> {
        assert!(limits.receive_buffers.is_power_of_two() && limits.receive_buffers <= 1 << 15);
        assert!(limits.receive_buffer_bytes > 0 && limits.receive_buffer_bytes <= 1 << 30);
        let buffers = Buffers::new(ring, limits.receive_buffers, limits.receive_buffer_bytes)?;
        Ok(Self {
            limits,
            counters: NetCounters::default(),
            now_ms: 0,
            swept_ms: 0,
            turn: 1,
            listeners: Vec::new(),
            connections: Connections::new(),
            open: 0,
            buffers,
            returned: Vec::new(),
            leftover: VecDeque::new(),
            to_arm: VecDeque::new(),
            assembly_bytes: 0,
            spare_assemblies: Vec::new(),
            inflight_bytes: 0,
            overdrawn: Vec::new(),
            dirty: Vec::new(),
            queued_bytes: 0,
            spare: Vec::new(),
            spare_bytes: 0,
            gone: Vec::new(),
        })
    }

    /// Takes one completion of [`Owner::Net`](crate::ring::Owner).
    pub fn completion(
        &mut self,
        ring: &mut Ring,
        completion: Completion,
        handler: &mut impl Handler<P>,
    ) {
        let payload = completion.token().payload();
        let slot = payload as u32;
        match payload >> OPERATION_SHIFT {
            1 => self.accepted(ring, slot, completion, handler),
            2 => self.received(ring, slot, completion, handler),
            3 if completion.is_notification() => self.notified(slot, completion),
            3 => self.sent(ring, slot, completion),
            other => debug_assert!(false, "no operation {other}"),
        }
    }

    /// Once a turn, after the completions: frames that were left over for fairness, and `closed` calls that are due.
    pub fn turn(&mut self, ring: &mut Ring, handler: &mut impl Handler<P>) {
        self.turn += 1;
        self.handle_leftover(ring, handler);
        while let Some((conn, peer, reason)) = self.gone.pop() {
            reason.log(peer);
            handler.closed(self, conn, &reason);
        }
    }

    /// Whether there is work for another turn without anything coming in.
    pub fn busy(&self) -> bool {
        let arms = !self.to_arm.is_empty() && self.buffers.free() > 0;
        arms || !self.leftover.is_empty()
            || !self.gone.is_empty()
            || !self.dirty.is_empty()
            || !self.returned.is_empty()
    }

    /// End of a turn: one send for every connection that has something queued and none in flight.
    pub fn flush(&mut self, ring: &mut Ring) {
        for buffer in self.returned.drain(..) {
            self.buffers.give_back(ring, buffer);
        }
        self.flush_queues(ring);
        self.arm_receives(ring);
    }

    /// Idle and stalled connections, accepts that failed; to be called about every 100 ms to 1 s with a clock that does not
    /// go back.
    pub fn tick(&mut self, ring: &mut Ring, now_ms: u64) {
        self.now_ms = now_ms;
        self.arm_listeners(ring);
        if now_ms.saturating_sub(self.swept_ms) >= self.limits.sweep_ms() {
            self.swept_ms = now_ms;
            self.sweep();
        }
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.open
    }

    /// What happened so far.
    pub fn counters(&self) -> &NetCounters {
        &self.counters
    }

    /// What connections may take.
    pub fn limits(&self) -> &NetLimits {
        &self.limits
    }
}

impl<P: StableBytes> Drop for Net<P> {
    /// The kernel may still read and write memory that operations in flight point to: that memory is left to it.
    fn drop(&mut self) {
        let mut receiving = false;
        for slot in self.connections.slots() {
            if let Some(conn) = self.connections.at(slot) {
                receiving |= conn.receiving;
                std::mem::forget(conn.sending.take());
                std::mem::forget(std::mem::take(&mut conn.lingering));
            }
        }
        if receiving {
            std::mem::forget(self.buffers.region().clone());
        }
    }
}

#[cfg(test)]
mod tests;
