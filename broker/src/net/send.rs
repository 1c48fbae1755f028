//! Sending: one operation for a connection at a time, with all that was queued to it until then.

use super::connection::Phase;
use super::outgoing::Outgoing;
use super::{CloseReason, ConnId, Net, Operation, StableBytes, token};
use crate::ring::{Completion, Owner, Ring, Token};
use io_uring::types;
use std::os::fd::AsRawFd;

/// Room kept for queues to come, in all and in one.
const SPARE_BYTES: usize = 8 << 20;
const SPARE_BYTES_EACH: usize = 256 << 10;

/// So many notifications in a row that bytes were copied end a connection's zero-copy sends.
const MAX_COPIED: u32 = 4;

const NUMBER_SHIFT: u32 = 32;

/// The token of a send: beside the slot, the number of what is sent.
fn send_token(slot: u32, number: u16) -> Token {
    let plain = token(Operation::Send, slot);
    Token::new(
        Owner::Net,
        plain.payload() | u64::from(number) << NUMBER_SHIFT,
    )
}

fn send_number(completion: Completion) -> u16 {
    (completion.token().payload() >> NUMBER_SHIFT) as u16
}

fn is_refusal_in_place(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOMEM | libc::ENOBUFS | libc::EOPNOTSUPP | libc::EINVAL
    )
}

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
        outgoing.set_number(conn.numbers);
        conn.numbers = conn.numbers.wrapping_add(1);
        self.counters.sends_shared += u64::from(outgoing.has_parts());
        if conn.counted_bytes == 0 {
            // Time that nothing was queued does not count as stalled.
            conn.active_ms = self.now_ms;
        }
        conn.sending = Some(outgoing);
        self.send_what_is_left(ring, slot);
    }

    fn send_what_is_left(&mut self, ring: &mut Ring, slot: u32) {
        let Some(conn) = self.connections.at(slot) else {
            return;
        };
        let Some(outgoing) = &mut conn.sending else {
            return;
        };
        let fd = types::Fd(conn.stream.as_raw_fd());
        let entry = if conn.zero_copy && outgoing.left() >= self.limits.zero_copy_bytes {
            self.counters.sends_zero_copy += 1;
            outgoing.entry_in_place(fd, send_token(slot, outgoing.number()))
        } else {
            outgoing.entry(fd, send_token(slot, outgoing.number()))
        };
        self.counters.sends += 1;
        // SAFETY: the box is kept untouched until the completion and, where that says so, its notification, or left to the
        // kernel (`Net`'s drop), and it owns what its vectors point to; the connection keeps its descriptor.
        unsafe { ring.push(entry) };
    }

    /// The kernel needs the bytes of a send no longer.
    pub(super) fn notified(&mut self, slot: u32, completion: Completion) {
        let Some(conn) = self.connections.at(slot) else {
            debug_assert!(false, "a send outlived its connection");
            return;
        };
        if completion.was_copied() {
            self.counters.zero_copy_copied += 1;
            conn.copied += 1;
            // Asking for it costs more than copying at once.
            conn.zero_copy &= conn.copied < MAX_COPIED;
        } else {
            conn.copied = 0;
        }
        let number = send_number(completion);
        if let Some(outgoing) = &mut conn.sending
            && outgoing.number() == number
        {
            outgoing.notified();
        } else if let Some(at) = conn
            .lingering
            .iter()
            .position(|outgoing| outgoing.number() == number)
        {
            conn.lingering[at].notified();
            if conn.lingering[at].is_done() {
                let outgoing = conn.lingering.swap_remove(at);
                self.keep(outgoing);
            }
        }
        self.settle(slot);
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
        if completion.more() {
            outgoing.notification_due();
        }
        match completion.result() {
            sent @ 0.. => {
                outgoing.advance(sent as usize);
                conn.active_ms = self.now_ms;
                self.counters.sent_bytes += sent as u64;
            }
            error if matches!(-error, libc::EAGAIN | libc::EINTR) => {}
            // No memory may be pinned, or the socket cannot do it.
            error if conn.zero_copy && is_refusal_in_place(-error) => conn.zero_copy = false,
            error => {
                self.sent_out(slot, outgoing);
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
            conn.sending = Some(outgoing);
            self.send_what_is_left(ring, slot);
        } else {
            if conn.queued.is_some() && !conn.dirty {
                conn.dirty = true;
                self.dirty.push(slot);
            }
            self.sent_out(slot, outgoing);
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

    /// Nothing of it is to be sent any more.
    fn sent_out(&mut self, slot: u32, outgoing: Box<Outgoing<P>>) {
        match self.connections.at(slot) {
            Some(conn) if !outgoing.is_done() => conn.lingering.push(outgoing),
            _ => self.keep(outgoing),
        }
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
