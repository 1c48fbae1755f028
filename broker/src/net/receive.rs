//! Receiving, and finding frames.
//!
//! A connection may use a bounded number of frames and bytes of a turn. What it sent beyond is held in its buffers until
//! the next turn. From a few held buffers on nothing is received from it until it has none, so that others find buffers
//! free, and who found none is served first.

use super::assembly::Taken;
use super::connection::Held;
use super::{CloseReason, ConnId, Handler, Net, Operation, StableBytes, token};
use crate::ring::{Completion, Owner, Ring, Token};
use corelane_wire::frame::split;
use io_uring::{opcode, squeue, types};
use std::ops::{ControlFlow, Range};
use std::os::fd::AsRawFd;
use std::ptr;
use std::rc::Rc;

/// Held buffers from which on a receive is ended.
const MAX_HELD: usize = 4;

/// Room of frames that were put together is kept for others: so many, none larger than this.
const SPARE_ASSEMBLIES: usize = 16;
const SPARE_ASSEMBLY_BYTES: usize = 128 << 10;

impl<P: StableBytes> Net<P> {
    /// Brings the receive operation of a connection in line with whether it is to be received from: has it armed at the end
    /// of the turn, or ends it.
    pub(super) fn steer_receive(&mut self, ring: &mut Ring, slot: u32) {
        let Some(conn) = self.connections.at(slot).filter(|conn| conn.is_open()) else {
            return;
        };
        if conn.receiving {
            let unwanted = conn.paused || conn.overdrawn || conn.held.len() >= MAX_HELD;
            if unwanted && !conn.cancelling {
                conn.cancelling = true;
                let entry = opcode::AsyncCancel::new(token(Operation::Receive, slot).raw())
                    .build()
                    .user_data(Token::new(Owner::Nobody, 0).raw());
                // SAFETY: points to nothing.
                unsafe { ring.push(entry) };
            }
        } else if conn.is_to_receive() && !conn.arming {
            conn.arming = true;
            self.to_arm.push_back(slot);
        }
    }

    /// Arms receives first come, first served, and not more than there are buffers: one that found no buffer is before those
    /// that have just used some.
    pub(super) fn arm_receives(&mut self, ring: &mut Ring) {
        for _ in 0..self.to_arm.len().min(self.buffers.free()) {
            let Some(slot) = self.to_arm.pop_front() else {
                return;
            };
            let Some(conn) = self.connections.at(slot).filter(|conn| conn.arming) else {
                continue;
            };
            conn.arming = false;
            if !conn.is_to_receive() {
                continue;
            }
            let fd = types::Fd(conn.stream.as_raw_fd());
            let group = self.buffers.group();
            let entry = if ring.kernel().multishot_recv {
                opcode::RecvMulti::new(fd, group).build()
            } else {
                opcode::Recv::new(fd, ptr::null_mut(), self.buffers.buffer_bytes() as u32)
                    .buf_group(group)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            };
            let entry = entry.user_data(token(Operation::Receive, slot).raw());
            // SAFETY: the kernel takes buffers of the group only; they stay mapped (see `Net`'s drop), and the connection
            // keeps its descriptor until the last completion.
            unsafe { ring.push(entry) };
            conn.receiving = true;
        }
    }

    pub(super) fn received(
        &mut self,
        ring: &mut Ring,
        slot: u32,
        completion: Completion,
        handler: &mut impl Handler<P>,
    ) {
        let buffer = completion.buffer();
        if buffer.is_some() {
            self.buffers.taken();
        }
        let id = self.connections.id(slot);
        let Some((id, conn)) = id.zip(self.connections.at(slot)) else {
            debug_assert!(false, "a receive outlived its connection");
            return;
        };
        if !completion.more() {
            conn.receiving = false;
            conn.cancelling = false;
        }
        match (completion.result(), buffer) {
            (len @ 1.., Some(buffer)) => {
                self.counters.receives += 1;
                self.counters.received_bytes += len as u64;
                conn.active_ms = self.now_ms;
                let end = len as usize;
                if !conn.is_open() {
                    self.buffers.give_back(ring, buffer);
                } else if conn.held.is_empty() {
                    let _ = self.handle(ring, id, buffer, 0..end, handler);
                } else {
                    conn.held.push_back(Held {
                        buffer,
                        start: 0,
                        end,
                    });
                }
            }
            (result, buffer) => {
                if let Some(buffer) = buffer {
                    self.buffers.give_back(ring, buffer);
                }
                self.receive_ended(id, result);
            }
        }
        self.steer_receive(ring, slot);
        self.settle(slot);
    }

    fn receive_ended(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.connections.open(id) else {
            return;
        };
        match -result {
            0 => {
                conn.ended = true;
                if conn.held.is_empty() {
                    self.begin_close(id, CloseReason::Peer, true);
                }
            }
            libc::ENOBUFS => self.counters.starved += 1,
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
            errno => self.begin_close(id, CloseReason::Io(errno), false),
        }
    }

    pub(super) fn handle_leftover(&mut self, ring: &mut Ring, handler: &mut impl Handler<P>) {
        for _ in 0..self.leftover.len() {
            let Some(slot) = self.leftover.pop_front() else {
                return;
            };
            while let Some((id, conn)) = self.connections.id(slot).zip(self.connections.at(slot)) {
                let Some(held) = conn.held.pop_front() else {
                    if conn.ended && conn.is_open() {
                        self.begin_close(id, CloseReason::Peer, true);
                    }
                    break;
                };
                if self
                    .handle(ring, id, held.buffer, held.start..held.end, handler)
                    .is_break()
                {
                    break;
                }
            }
            self.steer_receive(ring, slot);
            self.settle(slot);
        }
    }

    /// Hands up the frames of a buffer that is ours. `Break`: not all of them, the rest is held.
    fn handle(
        &mut self,
        ring: &mut Ring,
        id: ConnId,
        buffer: u16,
        range: Range<usize>,
        handler: &mut impl Handler<P>,
    ) -> ControlFlow<()> {
        let region = self.buffers.region().clone();
        // SAFETY: the buffer is ours until it is given back below; a handler cannot give it back.
        let bytes = unsafe { region.bytes(buffer, range.clone()) };
        let fed = self.feed(id, bytes, handler);
        assert!(
            Rc::ptr_eq(&region, self.buffers.region()),
            "a handler put another plane in place"
        );
        let used = match fed {
            Ok(used) => used,
            Err(reason) => {
                let graceful = reason != CloseReason::AssemblyMemory;
                self.begin_close(id, reason, graceful);
                bytes.len()
            }
        };
        if used < bytes.len()
            && let Some(conn) = self.connections.open(id)
        {
            conn.held.push_front(Held {
                buffer,
                start: range.start + used,
                end: range.end,
            });
            // One that is overdrawn comes back once it is not.
            if !conn.overdrawn {
                self.counters.left_over += 1;
                self.leftover.push_back(id.slot());
            }
            return ControlFlow::Break(());
        }
        self.buffers.give_back(ring, buffer);
        ControlFlow::Continue(())
    }

    /// Hands up the frames of `bytes` and says how many bytes were used: all, unless the turn's share is used up.
    fn feed(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        handler: &mut impl Handler<P>,
    ) -> Result<usize, CloseReason> {
        let max_frame_bytes = self.limits.max_frame_bytes;
        let mut used = 0;
        while used < bytes.len() {
            // A handler may close any connection.
            let Some(conn) = self.connections.open(id) else {
                return Ok(bytes.len());
            };
            if conn.turn != self.turn {
                conn.turn = self.turn;
                conn.turn_frames = 0;
                conn.turn_bytes = 0;
            }
            if conn.overdrawn
                || conn.turn_frames >= self.limits.max_frames_per_turn
                || conn.turn_bytes >= self.limits.max_bytes_per_turn
            {
                return Ok(used);
            }
            let rest = &bytes[used..];
            let next = if conn.assembly.is_empty() {
                match split(rest, max_frame_bytes)? {
                    Some(len) => {
                        conn.turn_frames += 1;
                        conn.turn_bytes += len;
                        used += len;
                        self.counters.frames += 1;
                        handler.frame(self, id, &rest[..len])
                    }
                    None => {
                        used = bytes.len();
                        self.assemble(id, rest, handler)?.1
                    }
                }
            } else {
                let (taken, next) = self.assemble(id, rest, handler)?;
                used += taken;
                next
            };
            if let ControlFlow::Break(reason) = next {
                return Err(reason);
            }
        }
        Ok(used)
    }

    /// Adds to the frame that is being put together, and hands it up when it is whole.
    fn assemble(
        &mut self,
        id: ConnId,
        piece: &[u8],
        handler: &mut impl Handler<P>,
    ) -> Result<(usize, ControlFlow<CloseReason>), CloseReason> {
        let Some(conn) = self.connections.open(id) else {
            return Ok((piece.len(), ControlFlow::Continue(())));
        };
        if conn.assembly.room() == 0 {
            conn.assembly = self.spare_assemblies.pop().unwrap_or_default();
            self.assembly_bytes += conn.assembly.room();
        }
        let before = conn.assembly.room();
        let taken = conn.assembly.take(piece, self.limits.max_frame_bytes);
        self.assembly_bytes = self.assembly_bytes - before + conn.assembly.room();
        let taken = taken?;
        if self.assembly_bytes > self.limits.max_assembly_bytes {
            return Err(CloseReason::AssemblyMemory);
        }
        let Taken::Whole(used) = taken else {
            conn.turn_bytes += piece.len();
            return Ok((piece.len(), ControlFlow::Continue(())));
        };
        conn.turn_frames += 1;
        conn.turn_bytes += used;
        self.counters.frames += 1;
        self.counters.frames_assembled += 1;
        // Out of the connection, which the handler may close.
        let mut assembly = std::mem::take(&mut conn.assembly);
        self.assembly_bytes -= assembly.room();
        let next = handler.frame(self, id, assembly.frame());
        if assembly.room() <= SPARE_ASSEMBLY_BYTES && self.spare_assemblies.len() < SPARE_ASSEMBLIES
        {
            assembly.clear();
            self.spare_assemblies.push(assembly);
        }
        Ok((used, next))
    }
}
