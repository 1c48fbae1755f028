//! Which thread has which connections, and which connection has which queues.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::BenchError;
use crate::plan::{IdlerPlan, ProducerPlan, PullRange, PullerPlan, Queue, ThreadPlan, share};

/// How many connections there are.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Those that send, in all.
    pub producers: usize,
    /// Those that pull, for each broker.
    pub consumers_per_broker: usize,
    /// Those that are only kept alive, in all.
    pub idlers: usize,
    /// How often those send a heartbeat.
    pub heartbeat: Duration,
}

/// Lays out so many threads, or as many as have something to do.
///
/// Where messages are pulled, a queue belongs to one thread, which sends to it and pulls from it. Where they are only
/// sent, every connection sends to all queues of its broker.
pub fn lay_out(
    queues: &[Queue],
    ranges: &[PullRange],
    connections: Connections,
    threads: usize,
) -> Result<Vec<ThreadPlan>, BenchError> {
    let pulled = !ranges.is_empty();
    let busiest = connections
        .producers
        .max(if pulled { queues.len() } else { 0 })
        .max(connections.idlers);
    let threads = threads.min(busiest).max(1);
    if pulled && queues.len() < threads {
        return Err(BenchError::Settings(format!(
            "{threads} threads need as many queues, and there are {}",
            queues.len()
        )));
    }
    let all: Vec<usize> = (0..queues.len()).collect();
    let own = match pulled {
        true => share(&all, threads),
        false => vec![all; threads],
    };
    let mut plans = Vec::new();
    for (number, own) in own.iter().enumerate() {
        let brokers: BTreeSet<usize> = own.iter().map(|queue| queues[*queue].broker).collect();
        let brokers: Vec<usize> = brokers.into_iter().collect();
        let of_broker = |broker: usize| -> Vec<usize> {
            let is_there = |queue: &&usize| queues[**queue].broker == broker;
            own.iter().filter(is_there).copied().collect()
        };
        let mut plan = ThreadPlan::default();
        for (turn, stream) in (number..connections.producers).step_by(threads).enumerate() {
            // Threads do not all begin with the same broker.
            let broker = brokers[(turn + number) % brokers.len()];
            plan.producers.push(ProducerPlan {
                stream: stream as u32,
                broker,
                queues: of_broker(broker),
            });
        }
        for idler in (number..connections.idlers).step_by(threads) {
            let part = idler as f64 / connections.idlers as f64;
            plan.idlers.push(IdlerPlan {
                number: idler,
                broker: brokers[idler / threads % brokers.len()],
                // Heartbeats are spread over the time between two.
                first_ns: (connections.heartbeat.as_nanos() as f64 * part) as u64,
                subscriber: None,
            });
        }
        for broker in brokers.iter().filter(|_| pulled) {
            let of_broker: Vec<PullRange> = ranges
                .iter()
                .filter(|range| own.contains(&range.queue) && queues[range.queue].broker == *broker)
                .copied()
                .collect();
            let wanted = connections.consumers_per_broker.div_ceil(threads);
            let pullers = wanted.clamp(1, of_broker.len().max(1));
            for queues in share(&of_broker, pullers) {
                plan.pullers.push(PullerPlan {
                    broker: *broker,
                    queues,
                });
            }
        }
        plans.push(plan);
    }
    Ok(plans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(brokers: usize, each: usize) -> Vec<Queue> {
        (0..brokers * each)
            .map(|number| Queue {
                broker: number / each,
                topic: "T".to_owned(),
                id: (number % each) as i32,
            })
            .collect()
    }

    fn ranges(count: usize) -> Vec<PullRange> {
        (0..count)
            .map(|queue| PullRange {
                queue,
                from: 0,
                to: None,
            })
            .collect()
    }

    const CONNECTIONS: Connections = Connections {
        producers: 5,
        consumers_per_broker: 2,
        idlers: 0,
        heartbeat: Duration::from_secs(30),
    };

    #[test]
    fn senders_are_spread_over_threads_and_brokers() {
        let plans = lay_out(&queues(2, 4), &[], CONNECTIONS, 2).unwrap();
        let counts: Vec<usize> = plans.iter().map(|plan| plan.producers.len()).collect();
        assert_eq!(counts, [3, 2]);
        let mut streams = BTreeSet::new();
        let mut brokers = BTreeSet::new();
        for producer in plans.iter().flat_map(|plan| &plan.producers) {
            assert!(streams.insert(producer.stream));
            brokers.insert(producer.broker);
            assert_eq!(producer.queues.len(), 4);
        }
        assert_eq!((streams.len(), brokers.len()), (5, 2));
        assert!(plans.iter().all(|plan| plan.pullers.is_empty()));
    }

    #[test]
    fn a_pulled_queue_has_one_thread() {
        let plans = lay_out(&queues(2, 4), &ranges(8), CONNECTIONS, 2).unwrap();
        let mut pulled = BTreeSet::new();
        for plan in &plans {
            let mut own = BTreeSet::new();
            for range in plan.pullers.iter().flat_map(|puller| &puller.queues) {
                assert!(pulled.insert(range.queue));
                own.insert(range.queue);
            }
            for producer in &plan.producers {
                assert!(producer.queues.iter().all(|queue| own.contains(queue)));
            }
        }
        assert_eq!(pulled.len(), 8);
    }

    #[test]
    fn heartbeats_are_spread() {
        let idle = Connections {
            idlers: 30,
            producers: 0,
            ..CONNECTIONS
        };
        let plans = lay_out(&queues(2, 1), &[], idle, 3).unwrap();
        let mut first: Vec<u64> = plans
            .iter()
            .flat_map(|plan| {
                plan.idlers
                    .iter()
                    .map(|idler| idler.first_ns / 1_000_000_000)
            })
            .collect();
        first.sort_unstable();
        assert_eq!(first, (0..30).collect::<Vec<_>>());
        let of_first = |idler: &&IdlerPlan| idler.broker == 0;
        let idlers = plans.iter().flat_map(|plan| &plan.idlers);
        assert_eq!(idlers.filter(of_first).count(), 15);
    }

    #[test]
    fn more_threads_than_work_are_not_made() {
        assert_eq!(
            lay_out(&queues(1, 4), &[], CONNECTIONS, 9).unwrap().len(),
            5
        );
        let consuming = Connections {
            producers: 0,
            ..CONNECTIONS
        };
        let plans = lay_out(&queues(1, 4), &ranges(4), consuming, 9).unwrap();
        assert_eq!(plans.len(), 4);
        assert!(lay_out(&queues(1, 4), &ranges(4), CONNECTIONS, 9).is_err());
    }
}
