//! What was received and is held up: bytes that somebody keeps, or answers for, until something else is done.
//!
//! A handler says so with [`Net::hold_up`] and [`Net::let_go`]. A connection that is over its bound, or that takes part in
//! everybody's being over theirs, is not taken from until half of the bound is free again: neither from its socket nor from
//! what was received of it already.

use super::{ConnId, Net, StableBytes};

impl<P: StableBytes> Net<P> {
    /// So many bytes of a connection are held up from now on.
    pub fn hold_up(&mut self, id: ConnId, bytes: usize) {
        let Some(conn) = self.connections.open(id) else {
            return;
        };
        conn.inflight_bytes += bytes;
        self.inflight_bytes += bytes;
        let over = conn.inflight_bytes > self.limits.max_inflight_bytes
            || self.inflight_bytes > self.limits.max_inflight_bytes_total;
        if over && !conn.overdrawn {
            conn.overdrawn = true;
            self.counters.overdrawn += 1;
            self.overdrawn.push(id);
        }
    }

    /// So many bytes of those held up are done with. Those of a connection that is gone were so already.
    pub fn let_go(&mut self, id: ConnId, bytes: usize) {
        if let Some(conn) = self.connections.open(id) {
            debug_assert!(bytes <= conn.inflight_bytes, "more let go of than held up");
            let bytes = bytes.min(conn.inflight_bytes);
            conn.inflight_bytes -= bytes;
            self.inflight_bytes -= bytes;
        }
        if !self.overdrawn.is_empty() {
            self.take_again();
        }
    }

    /// Bytes held up, of all connections.
    pub fn inflight_bytes(&self) -> usize {
        self.inflight_bytes
    }

    fn take_again(&mut self) {
        if self.inflight_bytes > self.limits.max_inflight_bytes_total / 2 {
            return;
        }
        let most = self.limits.max_inflight_bytes / 2;
        let (connections, leftover) = (&mut self.connections, &mut self.leftover);
        self.overdrawn.retain(|&id| {
            let Some(conn) = connections.open(id) else {
                return false;
            };
            if conn.inflight_bytes > most {
                return true;
            }
            conn.overdrawn = false;
            // The next turn takes what it holds, and receives again.
            leftover.push_back(id.slot());
            false
        });
    }
}
