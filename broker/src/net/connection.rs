//! One connection, and the table of all of them.
//!
//! A slot of the table is used again only when the kernel has no operation of its last connection any more, so a
//! completion always finds the connection that it belongs to. [`ConnId`] carries a generation beside the slot for those who
//! keep it longer than that.

use super::assembly::Assembly;
use super::outgoing::Outgoing;
use super::{ConnId, StableBytes};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};

/// Received bytes that wait for their turn.
pub(super) struct Held {
    pub(super) buffer: u16,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Open,
    /// What is queued is still sent, until the deadline.
    Finishing {
        deadline_ms: u64,
    },
    /// Waits for the kernel to let go.
    Cut,
}

pub(super) struct Conn<P> {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    /// The socket was shut down, which ends its operations.
    pub(super) shut: bool,

    /// ... and what the kernel still had of it was thrown away.
    pub(super) aborted: bool,

    /// A receive operation is with the kernel.
    pub(super) receiving: bool,
    /// ... and was asked to end.
    pub(super) cancelling: bool,
    /// Its slot is in the list of those to arm.
    pub(super) arming: bool,
    /// The peer sends no more.
    pub(super) ended: bool,
    /// Too much is queued to it: nothing is received meanwhile.
    pub(super) paused: bool,
    /// Bytes received and held up.
    pub(super) inflight_bytes: usize,
    /// Too much is held up: nothing more is taken from it meanwhile.
    pub(super) overdrawn: bool,
    pub(super) assembly: Assembly,
    pub(super) held: VecDeque<Held>,
    pub(super) turn: u64,
    pub(super) turn_frames: usize,
    pub(super) turn_bytes: usize,

    pub(super) queued: Option<Box<Outgoing<P>>>,
    /// With the kernel: not to be touched.
    pub(super) sending: Option<Box<Outgoing<P>>>,
    /// Sent, but the kernel still needs their bytes: not to be touched.
    // The box is what is kept: the kernel needs an address that stays.
    #[allow(clippy::vec_box)]
    pub(super) lingering: Vec<Box<Outgoing<P>>>,
    /// The number of what is sent next.
    pub(super) numbers: u16,
    /// Large sends leave their bytes where they are.
    pub(super) zero_copy: bool,
    /// Notifications in a row that said the bytes were copied.
    pub(super) copied: u32,
    /// Its slot is in the list of those to flush.
    pub(super) dirty: bool,
    /// What of its queue is in the total.
    pub(super) counted_bytes: usize,

    /// When bytes last came or went.
    pub(super) active_ms: u64,
}

impl<P: StableBytes> Conn<P> {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, zero_copy: bool, now_ms: u64) -> Self {
        Self {
            stream,
            peer,
            phase: Phase::Open,
            shut: false,
            aborted: false,
            receiving: false,
            cancelling: false,
            arming: false,
            ended: false,
            paused: false,
            inflight_bytes: 0,
            overdrawn: false,
            assembly: Assembly::default(),
            held: VecDeque::new(),
            turn: 0,
            turn_frames: 0,
            turn_bytes: 0,
            queued: None,
            sending: None,
            lingering: Vec::new(),
            numbers: 0,
            zero_copy,
            copied: 0,
            dirty: false,
            counted_bytes: 0,
            active_ms: now_ms,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a receive is wanted, given that it has none.
    pub(super) fn is_to_receive(&self) -> bool {
        let wanted = self.is_open() && !self.paused && !self.overdrawn && !self.ended;
        wanted && !self.receiving && self.held.is_empty()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        let left =
            |outgoing: &Option<Box<Outgoing<P>>>| outgoing.as_ref().map_or(0, |some| some.left());
        left(&self.queued) + left(&self.sending)
    }
}

struct Slot<P> {
    generation: u32,
    conn: Option<Conn<P>>,
}

pub(super) struct Connections<P> {
    slots: Vec<Slot<P>>,
    free: Vec<u32>,
}

impl<P: StableBytes> Connections<P> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Connections whose descriptor is not closed yet.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, conn: Conn<P>) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            // Generation 0 is left out, so that no `ConnId` is the number 0.
            self.slots.push(Slot {
                generation: 1,
                conn: None,
            });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.conn = Some(conn);
        ConnId::new(slot, entry.generation)
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Conn<P>> {
        let entry = self.slots.get_mut(slot as usize)?;
        let conn = entry.conn.take()?;
        entry.generation = entry.generation.checked_add(1).unwrap_or(1);
        self.free.push(slot);
        Some(conn)
    }

    pub(super) fn id(&self, slot: u32) -> Option<ConnId> {
        let entry = self.slots.get(slot as usize)?;
        entry
            .conn
            .as_ref()
            .map(|_| ConnId::new(slot, entry.generation))
    }

    /// Whatever is in a slot, also while it is being closed.
    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Conn<P>> {
        self.slots.get_mut(slot as usize)?.conn.as_mut()
    }

    /// The connection of an id for as long as it is open.
    pub(super) fn open(&mut self, id: ConnId) -> Option<&mut Conn<P>> {
        let entry = self.slots.get_mut(id.slot() as usize)?;
        if entry.generation != id.generation() {
            return None;
        }
        entry.conn.as_mut().filter(|conn| conn.is_open())
    }

    pub(super) fn open_ref(&self, id: ConnId) -> Option<&Conn<P>> {
        let entry = self.slots.get(id.slot() as usize)?;
        if entry.generation != id.generation() {
            return None;
        }
        entry.conn.as_ref().filter(|conn| conn.is_open())
    }

    /// Bounds the slots that there ever were.
    pub(super) fn slots(&self) -> std::ops::Range<u32> {
        0..self.slots.len() as u32
    }
}
