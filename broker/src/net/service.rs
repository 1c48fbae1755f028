//! The host of a light shard: sockets, a handler and ticks, nothing else.

use super::{Handler, Net, NetLimits, StableBytes};
use crate::ring::RemoteWaker;
use std::time::Duration;

/// A handler with a clock.
pub trait Service<P: StableBytes>: Handler<P> {
    /// Called when the moment that the last call asked for is there (and at the start). Gives the time to the next one.
    fn tick(&mut self, net: &mut Net<P>, now_ms: u64) -> Duration;
}

/// Ends a service from any thread.
#[derive(Clone)]
pub struct Stop {
    _waker: RemoteWaker,
}

impl Stop {
    /// Asks the service to finish what is queued and end.
    pub fn stop(&self) {
        todo!()
    }
}

#[allow(unused)]
fn placeholder(_: NetLimits) {}
