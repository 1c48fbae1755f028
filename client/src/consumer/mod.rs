//! A consumer of all queues of a topic. It does not share them with others of its group.
//!
//! A thread for each broker holds one pull per queue, and hands messages over through a bounded channel, so a slow
//! application slows the pulls down. The offset behind the last message that the application has finished (by asking for
//! the next one) is committed with the pulls, and when the consumer is closed.

mod puller;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use corelane_wire::code::perm;

use crate::cluster::{Cluster, master, no_such_topic};
use crate::error::ClientError;
use crate::message::{Received, now_ms};
use puller::{Puller, Queue};

const CHANNEL_MESSAGES: usize = 256;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Where the group stands; at the first message where it stands nowhere.
    Group,
    /// At the first message.
    First,
    /// Behind the last message.
    Last,
    /// At the first message that was stored at this time or later, ms.
    Time(i64),
}

/// Which messages are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// Those with one of these tags, written `a || b`.
    Tags(String),
    /// Those of which this is true.
    Sql(String),
}

impl Filter {
    fn expression(&self) -> &str {
        match self {
            Self::All => "*",
            Self::Tags(text) | Self::Sql(text) => text,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::All | Self::Tags(_) => "TAG",
            Self::Sql(_) => "SQL92",
        }
    }

    fn tags(&self) -> Vec<String> {
        match self {
            Self::Tags(text) if text.trim() != "*" => text
                .split("||")
                .map(str::trim)
                .filter(|tag| !tag.is_empty())
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// What to consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Which messages.
    pub filter: Filter,
    /// From where.
    pub start: Start,
    /// Whether the group's offsets are written.
    pub commit: bool,
}

#[derive(Debug)]
struct Handed {
    message: Received,
    finished: Arc<AtomicI64>,
}

type Item = Result<Handed, ClientError>;

/// Receives the messages of a topic.
#[derive(Debug)]
pub struct Consumer {
    items: Option<Receiver<Item>>,
    // The message that the application works on.
    current: Option<(Arc<AtomicI64>, i64)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Consumer {
    /// Starts to consume: an error when the topic does not exist.
    pub fn start(cluster: &mut Cluster, subscription: &Subscription) -> Result<Self, ClientError> {
        let topic = &subscription.topic;
        let route = cluster.route(topic)?.ok_or_else(|| no_such_topic(topic))?;
        let (sender, receiver) = sync_channel(CHANNEL_MESSAGES);
        let mut consumer = Self {
            items: Some(receiver),
            current: None,
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        let client_id = format!("corelane@{}#{}", std::process::id(), now_ms());
        for data in route
            .queue_datas
            .iter()
            .filter(|data| data.perm & perm::READ != 0)
        {
            let broker = route
                .broker_datas
                .iter()
                .find(|broker| broker.broker_name == data.broker_name);
            let Some(broker) = broker.and_then(master) else {
                continue;
            };
            let queues = (0..data.read_queue_nums)
                .map(|id| Queue {
                    id,
                    finished: Arc::new(AtomicI64::new(-1)),
                })
                .collect();
            let puller = Puller {
                broker,
                queues,
                offsets: Vec::new(),
                subscription: subscription.clone(),
                tags: subscription.filter.tags(),
                version: now_ms(),
                client_id: client_id.clone(),
                timeout: cluster.timeout(),
                sender: sender.clone(),
                stop: Arc::clone(&consumer.stop),
            };
            consumer.threads.push(thread::spawn(move || puller.run()));
        }
        if consumer.threads.is_empty() {
            return Err(ClientError::Cluster(format!(
                "no broker gives out the messages of topic {topic}"
            )));
        }
        Ok(consumer)
    }

    /// The next message; `None` when none came in time. Asking for it finishes the one before. An error does not end the
    /// consumer: it goes on trying.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Received>, ClientError> {
        self.finish_current();
        let Some(items) = &self.items else {
            return Ok(None);
        };
        match items.recv_timeout(timeout) {
            Ok(Ok(Handed { message, finished })) => {
                self.current = Some((finished, message.queue_offset + 1));
                Ok(Some(message))
            }
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(ClientError::Cluster("the consumer has stopped".to_owned()))
            }
        }
    }

    /// Finishes the last message, commits, and says goodbye to the brokers.
    pub fn close(mut self) {
        self.finish_current();
        self.end();
    }

    fn finish_current(&mut self) {
        if let Some((finished, offset)) = self.current.take() {
            finished.store(offset, Ordering::Release);
        }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.items = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc::Sender;

    use corelane_wire::body::{BrokerData, QueueData, TopicRouteData};
    use corelane_wire::fastjson::Keys;
    use corelane_wire::record::{Host, RecordFields, RecordHead};

    use corelane_wire::code::{request, response};

    use super::*;
    use crate::testing::{answer, serve};

    const SOON: Duration = Duration::from_secs(10);

    fn record(queue_id: i32, queue_offset: i64, tag: &str, body: &str) -> Vec<u8> {
        let host = Host {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 1,
        };
        let head = RecordHead {
            queue_id,
            flag: 0,
            queue_offset,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 2,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
        };
        let mut properties = Vec::new();
        corelane_wire::properties::push(&mut properties, "TAGS", tag);
        let fields = RecordFields {
            head,
            body: body.as_bytes(),
            topic: "T",
            properties: &properties,
        };
        let mut out = Vec::new();
        fields.push_to(&mut out).unwrap();
        out
    }

    /// A cluster of one broker with one queue, which holds these tags at offset 5 and on. What the broker is asked, and
    /// with which offset, goes to `asked`.
    fn cluster(tags: &'static [&'static str], asked: Sender<(i32, String)>) -> Cluster {
        let broker = serve(move |frame, out| {
            let field = |name| {
                frame
                    .ext
                    .get(name)
                    .map(|value| value.to_string())
                    .unwrap_or_default()
            };
            let offset = field(if frame.code == request::PULL_MESSAGE {
                "queueOffset"
            } else {
                "commitOffset"
            });
            let _ = asked.send((frame.code, offset.clone()));
            let pulled = |code: i32, next: i64, body: &[u8], out: &mut Vec<u8>| {
                let next = next.to_string();
                let fields = [
                    ("suggestWhichBrokerId", "0"),
                    ("nextBeginOffset", next.as_str()),
                    ("minOffset", "5"),
                    ("maxOffset", "9"),
                ];
                answer(frame, code, &fields, body, out);
            };
            match frame.code {
                request::QUERY_CONSUMER_OFFSET => {
                    answer(frame, response::QUERY_NOT_FOUND, &[], &[], out)
                }
                request::GET_MIN_OFFSET => answer(frame, 0, &[("offset", "5")], &[], out),
                request::GET_MAX_OFFSET => answer(frame, 0, &[("offset", "99")], &[], out),
                request::PULL_MESSAGE if offset == "5" => {
                    let records: Vec<u8> = tags
                        .iter()
                        .enumerate()
                        .flat_map(|(index, tag)| record(0, 5 + index as i64, tag, tag))
                        .collect();
                    pulled(0, 5 + tags.len() as i64, &records, out);
                }
                request::PULL_MESSAGE if offset == "99" => {
                    pulled(response::PULL_OFFSET_MOVED, 5, &[], out)
                }
                // Held for ever.
                request::PULL_MESSAGE => {}
                _ => answer(frame, 0, &[], &[], out),
            }
        });
        let route = TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_addrs: BTreeMap::from([(0, broker)]),
                broker_name: "a".to_owned(),
                ..BrokerData::default()
            }],
            queue_datas: vec![QueueData {
                broker_name: "a".to_owned(),
                perm: 6,
                read_queue_nums: 1,
                ..QueueData::default()
            }],
            ..TopicRouteData::default()
        };
        let route = route.to_json(Keys::Quoted);
        Cluster::new(
            &serve(move |frame, out| answer(frame, 0, &[], &route, out)),
            SOON,
        )
        .unwrap()
    }

    fn subscription(filter: Filter, start: Start) -> Subscription {
        Subscription {
            topic: "T".to_owned(),
            group: "g".to_owned(),
            filter,
            start,
            commit: true,
        }
    }

    #[test]
    fn what_was_finished_is_committed_and_no_more() {
        let (asked, questions) = std::sync::mpsc::channel();
        let mut cluster = cluster(&["x", "y", "x"], asked);
        let mut consumer =
            Consumer::start(&mut cluster, &subscription(Filter::All, Start::Group)).unwrap();
        for expected in [5, 6] {
            let message = consumer.next(SOON).unwrap().unwrap();
            assert_eq!(
                (message.queue_offset, message.broker.as_str()),
                (expected, "a")
            );
        }
        consumer.close();
        let questions: Vec<_> = questions.try_iter().collect();
        assert_eq!(questions[0].0, request::HEART_BEAT);
        let committed: Vec<_> = questions
            .iter()
            .filter(|(code, _)| *code == request::UPDATE_CONSUMER_OFFSET)
            .map(|(_, at)| at.as_str())
            .collect();
        assert_eq!(committed, ["7"]);
        assert_eq!(questions.last().unwrap().0, request::UNREGISTER_CLIENT);
    }

    #[test]
    fn tags_are_compared_and_a_moved_offset_is_followed() {
        let (asked, questions) = std::sync::mpsc::channel();
        let mut cluster = cluster(&["x", "y", "x"], asked);
        let filter = Filter::Tags("x || z".to_owned());
        let mut consumer =
            Consumer::start(&mut cluster, &subscription(filter, Start::Last)).unwrap();
        let mut offsets = Vec::new();
        while offsets.len() < 2 {
            let message = consumer.next(SOON).unwrap().unwrap();
            assert_eq!(message.tag(), Some("x"));
            offsets.push(message.queue_offset);
        }
        assert_eq!(offsets, [5, 7]);
        assert!(consumer.next(Duration::from_millis(50)).unwrap().is_none());
        drop(consumer);
        let pulls: Vec<_> = questions
            .try_iter()
            .filter(|(code, _)| *code == request::PULL_MESSAGE)
            .map(|(_, offset)| offset)
            .collect();
        assert_eq!(pulls, ["99", "5", "8"]);
    }
}
