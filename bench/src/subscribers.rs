//! Which queues each idle connection consumes, where idle connections are consumers.
//!
//! Connections are members of so many groups in turn, and each group subscribes to its part of the topics. The members of a
//! group share the queues of their broker as a client's rebalance would: a queue belongs to one of them.

use std::collections::BTreeMap;

use crate::plan::{Queue, Subscriber, ThreadPlan};

/// Makes the idle connections of all threads consumers in so many groups.
pub fn subscribe(threads: &mut [ThreadPlan], queues: &[Queue], groups: usize) {
    let mut topics: BTreeMap<&str, usize> = BTreeMap::new();
    for queue in queues {
        let number = topics.len();
        topics.entry(&queue.topic).or_insert(number);
    }
    let mut of_group: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
    for (number, queue) in queues.iter().enumerate() {
        let group = topics[queue.topic.as_str()] % groups;
        of_group
            .entry((queue.broker, group))
            .or_default()
            .push(number);
    }
    let idlers = || threads.iter().flat_map(|thread| &thread.idlers);
    let mut members: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut on_broker: BTreeMap<usize, usize> = BTreeMap::new();
    let mut places = Vec::new();
    for idler in idlers() {
        let turn = on_broker.entry(idler.broker).or_default();
        let place = (idler.broker, *turn % groups);
        *turn += 1;
        let member = members.entry(place).or_default();
        places.push((place, *member));
        *member += 1;
    }
    let mut places = places.into_iter();
    for idler in threads.iter_mut().flat_map(|thread| &mut thread.idlers) {
        let Some((place, member)) = places.next() else {
            return;
        };
        let all = of_group.get(&place).map_or(&[][..], Vec::as_slice);
        let mut subscribed: Vec<&str> = all.iter().map(|at| queues[*at].topic.as_str()).collect();
        subscribed.dedup();
        idler.subscriber = Some(Subscriber {
            group: place.1,
            topics: subscribed.into_iter().map(str::to_owned).collect(),
            queues: all
                .iter()
                .skip(member)
                .step_by(members[&place])
                .copied()
                .collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::IdlerPlan;

    #[test]
    fn every_queue_has_one_consumer() {
        let queues: Vec<Queue> = (0..2)
            .flat_map(|broker| {
                (0..9).flat_map(move |topic| {
                    (0..4).map(move |id| Queue {
                        broker,
                        topic: format!("T{topic}"),
                        id,
                    })
                })
            })
            .collect();
        let idlers = |first: usize| {
            let idler = |number| IdlerPlan {
                number,
                broker: number % 2,
                first_ns: 0,
                subscriber: None,
            };
            (first..first + 10).map(idler).collect()
        };
        let mut threads = [0, 10].map(|first| ThreadPlan {
            idlers: idlers(first),
            ..ThreadPlan::default()
        });
        subscribe(&mut threads, &queues, 3);
        let mut seen = vec![0; queues.len()];
        for idler in threads.iter().flat_map(|thread| &thread.idlers) {
            let subscriber = idler.subscriber.as_ref().unwrap();
            assert_eq!(subscriber.topics.len(), 3);
            for queue in &subscriber.queues {
                assert_eq!(queues[*queue].broker, idler.broker);
                assert!(subscriber.topics.contains(&queues[*queue].topic));
                seen[*queue] += 1;
            }
        }
        assert_eq!(seen, vec![1; queues.len()]);
    }
}
