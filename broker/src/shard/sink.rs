//! The engine's output, on the network plane.

use crate::engine::{Connection, Effect, Output};
use crate::log::Slice;
use crate::net::{ConnId, Net, StableBytes};

/// Bytes of the log, as the network plane sends them.
pub struct LogBytes(Slice);

// SAFETY: a slice is a reference-counted view of memory that is neither moved nor written while a view of it lives.
unsafe impl StableBytes for LogBytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes to connections, and collects effects.
pub struct Sink<'a> {
    net: &'a mut Net<LogBytes>,
    effects: &'a mut Vec<Effect>,
    /// What is written to connections that are gone.
    nowhere: Vec<u8>,
}

impl<'a> Sink<'a> {
    /// A sink for one call of the engine.
    pub fn new(net: &'a mut Net<LogBytes>, effects: &'a mut Vec<Effect>) -> Self {
        Self {
            net,
            effects,
            nowhere: Vec::new(),
        }
    }
}

impl Output for Sink<'_> {
    fn buffer(&mut self, connection: Connection) -> &mut Vec<u8> {
        self.nowhere.clear();
        self.net
            .write(ConnId::from_u64(connection.0))
            .unwrap_or(&mut self.nowhere)
    }

    fn shared(&mut self, connection: Connection, part: Slice) {
        self.net
            .write_shared(ConnId::from_u64(connection.0), LogBytes(part));
    }

    fn hold_up(&mut self, connection: Connection, bytes: usize) {
        self.net.hold_up(ConnId::from_u64(connection.0), bytes);
    }

    fn let_go(&mut self, connection: Connection, bytes: usize) {
        self.net.let_go(ConnId::from_u64(connection.0), bytes);
    }

    fn close(&mut self, connection: Connection) {
        self.net
            .close(ConnId::from_u64(connection.0), "closed by the broker");
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
}
