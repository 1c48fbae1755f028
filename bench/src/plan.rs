//! What a run does, laid out before it starts: which thread has which connections, and what goes over them.

use std::time::Duration;

use corelane_wire::frame::Serialization;

use crate::clock::Clock;
use crate::schedule::{Arrivals, Segment};
use crate::sizes::Sizes;
use crate::template::PullLimits;

/// A queue of a topic on a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its broker, by number.
    pub broker: usize,
    /// Its topic.
    pub topic: String,
    /// Its number in the topic on that broker.
    pub id: i32,
}

/// A broker that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its name, where it is known.
    pub name: Option<String>,
    /// `host:port`.
    pub address: String,
}

/// What the threads share.
#[derive(Debug)]
pub struct Plan {
    /// The time.
    pub clock: Clock,
    /// The run's number in stamps.
    pub run: u32,
    /// How headers are written.
    pub serialization: Serialization,
    /// The brokers.
    pub brokers: Vec<Broker>,
    /// Their queues.
    pub queues: Vec<Queue>,
    /// How messages are sent, where some are.
    pub sending: Sending,
    /// How they are pulled, where some are.
    pub pulling: Pulling,
    /// From the start to where measuring starts.
    pub warm_up: Duration,
    /// How long is measured.
    pub duration: Duration,
    /// How long to wait for answers and messages when all was sent.
    pub drain: Duration,
    /// How often a connection that is only kept alive sends a heartbeat.
    pub heartbeat: Duration,
    /// How often it commits the offsets of the queues that it consumes.
    pub commit: Duration,
    /// Never wait in the kernel.
    pub spin: bool,
}

/// How messages are sent.
#[derive(Debug)]
pub struct Sending {
    /// The producer group.
    pub group: String,
    /// Sizes of bodies: in each segment of the schedule its own, or one for all.
    pub sizes: Vec<Sizes>,
    /// Messages a request, if they go as batches.
    pub batch: Option<usize>,
    /// Most requests that wait for an answer on a connection.
    pub in_flight: usize,
    /// Tags, in turn.
    pub tags: Vec<String>,
    /// How many different keys there are.
    pub keys: Option<u64>,
    /// Whether messages have a unique key.
    pub unique: bool,
    /// Whether bodies have a stamp.
    pub stamped: bool,
    /// Spacing in an open loop.
    pub arrivals: Arrivals,
    /// When messages are to be delivered, if not at once.
    pub deliver: Option<Deliver>,
}

/// A span of time in which timers are due, at random.
#[derive(Debug, Clone, Copy)]
pub struct Deliver {
    /// Its beginning, in milliseconds since 1970.
    pub from_ms: u64,
    /// Its length.
    pub within_ms: u64,
}

/// What happens to messages that were pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// They are counted.
    Count,
    /// The time since they were sent is taken.
    Receipt,
    /// And it is checked that all arrive.
    Arrival,
    /// And that they are whole.
    Content,
}

impl Reading {
    /// Whether what arrives is held against what was acknowledged.
    pub fn checks(self) -> bool {
        matches!(self, Self::Arrival | Self::Content)
    }
}

/// How messages are pulled.
#[derive(Debug)]
pub struct Pulling {
    /// The consumer group.
    pub group: String,
    /// Which tags.
    pub subscription: String,
    /// How much at once.
    pub limits: PullLimits,
    /// What for.
    pub reading: Reading,
}

/// What one thread does.
#[derive(Debug, Default)]
pub struct ThreadPlan {
    /// The core that it stays on.
    pub core: Option<usize>,
    /// Connections that send.
    pub producers: Vec<ProducerPlan>,
    /// Connections that pull.
    pub pullers: Vec<PullerPlan>,
    /// Connections that are only kept alive.
    pub idlers: Vec<IdlerPlan>,
    /// The rates of an open loop.
    pub schedule: Option<Vec<Segment>>,
    /// How many requests are sent in all, if not only time ends it.
    pub requests: Option<u64>,
}

/// A connection that sends.
#[derive(Debug, Clone)]
pub struct ProducerPlan {
    /// Its number in the run.
    pub stream: u32,
    /// Its broker.
    pub broker: usize,
    /// The queues that it sends to in turn, as numbers in [`Plan::queues`].
    pub queues: Vec<usize>,
}

/// A connection that only sends heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdlerPlan {
    /// Its number in the run.
    pub number: usize,
    /// Its broker.
    pub broker: usize,
    /// How long after the start its first heartbeat is due.
    pub first_ns: u64,
    /// What it consumes, where it is a consumer.
    pub subscriber: Option<Subscriber>,
}

/// A consumer that waits for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Number of its group.
    pub group: usize,
    /// What the group subscribes to.
    pub topics: Vec<String>,
    /// The queues that are this member's, as numbers in [`Plan::queues`].
    pub queues: Vec<usize>,
}

/// A connection that pulls.
#[derive(Debug, Clone)]
pub struct PullerPlan {
    /// Its broker.
    pub broker: usize,
    /// The queues that it pulls.
    pub queues: Vec<PullRange>,
}

/// What of a queue is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullRange {
    /// The queue's number in [`Plan::queues`].
    pub queue: usize,
    /// The first offset.
    pub from: u64,
    /// Where to stop, if anywhere.
    pub to: Option<u64>,
}

/// Gives each of `takers` its part of `items`: every item once where there are enough; where there are more takers than
/// items, items are taken again.
pub fn share<T: Clone>(items: &[T], takers: usize) -> Vec<Vec<T>> {
    let mut shares = vec![Vec::new(); takers];
    if items.is_empty() || takers == 0 {
        return shares;
    }
    for number in 0..items.len().max(takers) {
        shares[number % takers].push(items[number % items.len()].clone());
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_a_share_and_everything_is_taken() {
        assert_eq!(share(&[1, 2, 3], 2), [vec![1, 3], vec![2]]);
        assert_eq!(
            share(&[1, 2], 5),
            [vec![1], vec![2], vec![1], vec![2], vec![1]]
        );
        assert_eq!(share::<i32>(&[], 2), [Vec::<i32>::new(), Vec::new()]);
    }
}
