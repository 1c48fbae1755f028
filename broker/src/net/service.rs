//! The host of a light shard: sockets, a handler and ticks, nothing else.

#![allow(clippy::disallowed_methods, reason = "the clock of a light shard")]

use super::{Handler, Net, StableBytes};
use crate::ring::{Completion, Owner, Parker, RemoteWaker, Ring};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A handler with a clock.
pub trait Service<P: StableBytes>: Handler<P> {
    /// Called at the start, and when the time is over that the last call gave. `now_ms` counts from some moment and never
    /// goes back.
    fn tick(&mut self, net: &mut Net<P>, now_ms: u64) -> Duration;
}

/// Ends a service from any thread.
#[derive(Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    waker: RemoteWaker,
}

impl Stop {
    /// For the service that parks with `parker`.
    pub fn new(parker: &Parker) -> Self {
        Self {
            asked: Arc::default(),
            waker: parker.remote_waker(),
        }
    }

    /// Asks the service to send what is queued and to end.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was asked for.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// How often the network plane is ticked.
const NET_TICK: Duration = Duration::from_millis(250);

/// Serves until stopped, then drains. An error is one of the ring: the shard cannot go on.
pub async fn serve<P: StableBytes, S: Service<P>>(
    ring: &mut Ring,
    parker: &mut Parker,
    net: &mut Net<P>,
    service: &mut S,
    stop: &Stop,
) -> io::Result<()> {
    let start = Instant::now();
    let mut completions: Vec<Completion> = Vec::new();
    let mut service_due = Duration::ZERO;
    let mut net_due = Duration::ZERO;
    let mut draining = false;
    loop {
        ring.turn()?;
        ring.reap(&mut completions);
        let worked = !completions.is_empty();
        for completion in completions.drain(..) {
            if completion.token().owner() == Owner::Net {
                net.completion(ring, completion, service);
            }
        }
        let now = start.elapsed();
        let now_ms = now.as_millis() as u64;
        if now >= net_due {
            net.tick(ring, now_ms);
            net_due = now + NET_TICK;
        }
        if now >= service_due {
            service_due = now + service.tick(net, now_ms).max(Duration::from_millis(1));
        }
        net.turn(ring, service);
        if stop.asked() && !draining {
            draining = true;
            net.drain(ring, "the server stops");
            net.turn(ring, service);
        }
        net.flush(ring);
        if draining && net.drained() {
            return Ok(());
        }
        if worked || net.busy() {
            parker.share().await;
        } else {
            let due = service_due.min(net_due);
            parker
                .park(ring, Some(due.saturating_sub(start.elapsed())))
                .await?;
        }
    }
}
