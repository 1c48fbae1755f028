//! Sending: one operation for a connection at a time, with all that was queued to it until then.

use super::connection::Phase;
use super::outgoing::Outgoing;
use super::{CloseReason, ConnId, Net, Operation, StableBytes, token};
use crate::ring::{Completion, Ring};
use io_uring::types;
use std::os::fd::AsRawFd;

/// Room kept for queues to come, in all and in one.
const SPARE_BYTES: usize = 8 << 20;
const SPARE_BYTES_EACH: usize = 256 << 10;

impl<P: StableBytes> Net<P> {
    /// The end of the connection's send queue, to append whole frames or the bytes before a shared part. `None` when the
    /// connection is gone. What it holds already is not to be touched.
    pub fn write(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        self.queue(conn).map(Outgoing::bytes)
    }

    /// Appends bytes to the send queue without copying them (small ones are copied: that is cheaper). Dropped when sent, or
    /// when the connection is gone.
    pub fn write_shared(&mut self, conn: ConnId, part: P) {
        let copy_below_bytes = self.limits.copy_below_bytes;
        if let Some(queue) = self.queue(conn) {
            if part.bytes().len() < copy_below_bytes {
                queue.bytes().extend_from_slice(part.bytes());
            } else {
                queue.push(part);
            }
        }
    }

    fn queue(&mut self, id: ConnId) -> Option<&mut Outgoing<P>> {
        let conn = self.connections.open(id)?;
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(id.slot());
        }
        let (spare, spare_bytes) = (&mut self.spare, &mut self.spare_bytes);
        let queue = conn.queued.get_or_insert_with(|| match spare.pop() {
            Some(outgoing) => {
                *spare_bytes -= outgoing.room();
                outgoing
            }
            None => Box::new(Outgoing::new()),
        });
        Some(queue)
    }

    /// Bytes queued to a connection and not yet taken by the kernel, as far as it is open.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        self.connections
            .open_ref(conn)
            .map_or(0, |conn| conn.queued_bytes())
    }

    pub(super) fn flush_queues(&mut self, ring: &mut Ring) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            if let Some(conn) = self.connections.at(slot) {
                conn.dirty = false;
                self.start_send(ring, slot);
                self.count_queued(ring, slot);
                self.settle(slot);
            }
        }
        // Closing above may have marked others.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        while self.queued_bytes > self.limits.max_queued_bytes_total && self.cut_largest_queue(ring)
        {
        }
    }

    /// Gives the kernel what is queued, if it has nothing of this connection.
    fn start_send(&mut self, ring: &mut Ring, slot: u32) {
        let Some(conn) = self.connections.at(slot) else {
            return;
        };
        if conn.sending.is_some() || conn.shut {
            return;
        }
        let Some(mut outgoing) = conn.queued.take() else {
            return;
        };
        if outgoing.left() == 0 {
            self.keep(outgoing);
            return;
        }
        let entry = outgoing.entry(
            types::Fd(conn.stream.as_raw_fd()),
            token(Operation::Send, slot),
        );
        self.counters.sends += 1;
        self.counters.sends_shared += u64::from(outgoing.has_parts());
        if conn.counted_bytes == 0 {
            // Time that nothing was queued does not count as stalled.
            conn.active_ms = self.now_ms;
        }
        // SAFETY: the box is kept untouched until the completion, or left to the kernel (`Net`'s drop), and it owns what its
        // vectors point to; the connection keeps its descriptor.
        unsafe { ring.push(entry) };
        conn.sending = Some(outgoing);
    }

    pub(super) fn sent(&mut self, ring: &mut Ring, slot: u32, completion: Completion) {
        let Some((id, conn)) = self.connections.id(slot).zip(self.connections.at(slot)) else {
            debug_assert!(false, "a send outlived its connection");
            return;
        };
        let Some(mut outgoing) = conn.sending.take() else {
            debug_assert!(false, "a send completed twice");
            return;
        };
        match completion.result() {
            sent @ 0.. => {
                outgoing.advance(sent as usize);
                conn.active_ms = self.now_ms;
                self.counters.sent_bytes += sent as u64;
            }
            error if matches!(-error, libc::EAGAIN | libc::EINTR) => {}
            error => {
                self.keep(outgoing);
                // A peer that is gone shows here or at the receive, whichever comes first.
                let reason = match -error {
                    libc::EPIPE | libc::ECONNRESET => CloseReason::Peer,
                    errno => CloseReason::Io(errno),
                };
                self.begin_close(id, reason, false);
                self.settle(slot);
                return;
            }
        }
        if outgoing.left() > 0 && !conn.shut {
            let entry = outgoing.entry(
                types::Fd(conn.stream.as_raw_fd()),
                token(Operation::Send, slot),
            );
            self.counters.sends += 1;
            // SAFETY: as in `start_send`.
            unsafe { ring.push(entry) };
            conn.sending = Some(outgoing);
        } else {
            if conn.queued.is_some() && !conn.dirty {
                conn.dirty = true;
                self.dirty.push(slot);
            }
            self.keep(outgoing);
        }
        self.count_queued(ring, slot);
        self.settle(slot);
    }

    /// Brings the total up to date, pauses receiving from a connection that reads slowly, cuts it off beyond the bound.
    fn count_queued(&mut self, ring: &mut Ring, slot: u32) {
        let Some((id, conn)) = self.connections.id(slot).zip(self.connections.at(slot)) else {
            return;
        };
        // What is cut off is as good as gone: the kernel lets go of it in a moment.
        let queued = if conn.phase == Phase::Cut {
            0
        } else {
            conn.queued_bytes()
        };
        self.queued_bytes = self.queued_bytes - conn.counted_bytes + queued;
        conn.counted_bytes = queued;
        if queued > self.limits.max_queued_bytes {
            self.begin_close(id, CloseReason::SlowReader, false);
        } else if !conn.paused && queued >= self.limits.pause_queued_bytes {
            conn.paused = true;
            self.counters.paused += 1;
            self.steer_receive(ring, slot);
        } else if conn.paused && queued <= self.limits.pause_queued_bytes / 2 {
            conn.paused = false;
            self.steer_receive(ring, slot);
        }
    }

    fn cut_largest_queue(&mut self, ring: &mut Ring) -> bool {
        let mut largest = None;
        for slot in self.connections.slots() {
            if let Some((id, conn)) = self.connections.id(slot).zip(self.connections.at(slot))
                && conn.phase != Phase::Cut
                && largest.is_none_or(|(bytes, _)| conn.counted_bytes > bytes)
            {
                largest = Some((conn.counted_bytes, id));
            }
        }
        let Some((_, id)) = largest.filter(|&(bytes, _)| bytes > 0) else {
            return false;
        };
        self.begin_close(id, CloseReason::SlowReader, false);
        self.count_queued(ring, id.slot());
        self.settle(id.slot());
        true
    }

    /// Keeps the room of a queue for the next one.
    pub(super) fn keep(&mut self, mut outgoing: Box<Outgoing<P>>) {
        outgoing.clear();
        let room = outgoing.room();
        if room <= SPARE_BYTES_EACH && self.spare_bytes + room <= SPARE_BYTES {
            self.spare_bytes += room;
            self.spare.push(outgoing);
        }
    }
}
