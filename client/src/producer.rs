//! A producer: finds a topic's queues, sends to them in turn, and tries another one where that may help.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use corelane_wire::batch::{self, BatchMessage};
use corelane_wire::body::TopicRouteData;
use corelane_wire::code::{perm, request, response};
use corelane_wire::frame::Frame;
use corelane_wire::header::send::{SendMessageRequest, SendMessageResponse};
use corelane_wire::{ExtHeader, FrameWriter};

use crate::cluster::{AUTO_CREATE_TOPIC, Cluster, master};
use crate::error::ClientError;
use crate::message::{Message, UniqueIds, now_ms};

/// How many queues a topic gets on each broker when a send creates it.
const AUTO_CREATE_QUEUES: i32 = 4;

/// How long a route is used before it is asked for again.
const ROUTE_AGE: Duration = Duration::from_secs(30);

/// What a broker said to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// 0 (SEND_OK), or 10, 11 or 12: stored, but not as safely as was wanted.
    pub code: i32,
    /// The id that the message was given; those of a batch are joined with commas.
    pub message_id: String,
    /// The places in the log, as the broker's ids.
    pub offset_message_id: String,
    /// The broker.
    pub broker: String,
    /// The queue.
    pub queue_id: i32,
    /// The place in the queue; the first one's for a batch.
    pub queue_offset: i64,
    /// What recalls a timer message.
    pub recall_handle: Option<String>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Queue {
    broker: String,
    address: String,
    id: i32,
}

#[derive(Debug)]
struct Route {
    queues: Vec<Queue>,
    next: usize,
    asked: Instant,
}

/// Sends messages, one after the other.
#[derive(Debug)]
pub struct Producer {
    cluster: Cluster,
    group: String,
    routes: HashMap<String, Route>,
    ids: UniqueIds,
    /// How often a send is tried again, on another broker if there is one.
    pub retries: u32,
}

impl Producer {
    /// A producer of a group.
    pub fn new(cluster: Cluster, group: &str) -> Self {
        Self {
            cluster,
            group: group.to_owned(),
            routes: HashMap::new(),
            ids: UniqueIds::new(),
            retries: 2,
        }
    }

    /// Sends a message to the topic's next queue, or to one with the given id.
    pub fn send(
        &mut self,
        topic: &str,
        message: &Message,
        queue_id: Option<i32>,
    ) -> Result<Sent, ClientError> {
        let id = self.ids.next();
        let properties = message.property_text(&id);
        let outgoing = Outgoing {
            topic,
            properties: &properties,
            flag: message.flag,
            body: &message.body,
            batch: false,
        };
        self.send_with_retries(&outgoing, &id, queue_id)
    }

    /// Sends messages as one batch, to one queue.
    pub fn send_batch(
        &mut self,
        topic: &str,
        messages: &[Message],
        queue_id: Option<i32>,
    ) -> Result<Sent, ClientError> {
        let mut body = Vec::new();
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            let id = self.ids.next();
            let properties = message.property_text(&id);
            let part = BatchMessage {
                flag: message.flag,
                body: &message.body,
                properties: &properties,
            };
            batch::push(&mut body, &part)
                .map_err(|error| ClientError::Cluster(error.to_string()))?;
            ids.push(id);
        }
        let outgoing = Outgoing {
            topic,
            properties: "",
            flag: 0,
            body: &body,
            batch: true,
        };
        self.send_with_retries(&outgoing, &ids.join(","), queue_id)
    }

    /// Sends a message without waiting for an answer: nothing says whether it was stored.
    pub fn send_oneway(
        &mut self,
        topic: &str,
        message: &Message,
        queue_id: Option<i32>,
    ) -> Result<(), ClientError> {
        let properties = message.property_text(&self.ids.next());
        let outgoing = Outgoing {
            topic,
            properties: &properties,
            flag: message.flag,
            body: &message.body,
            batch: false,
        };
        let queue = self.next_queue(topic, queue_id, None)?;
        let group = self.group.clone();
        self.cluster.at(&queue.address, |connection, timeout| {
            connection.oneway(
                request::SEND_MESSAGE_V2,
                |writer| outgoing.write(&group, queue.id, writer),
                outgoing.body,
                timeout,
            )
        })
    }

    fn send_with_retries(
        &mut self,
        outgoing: &Outgoing<'_>,
        message_id: &str,
        queue_id: Option<i32>,
    ) -> Result<Sent, ClientError> {
        let mut tried = 0;
        let mut last_broker = None;
        loop {
            let queue = self.next_queue(outgoing.topic, queue_id, last_broker.as_deref())?;
            match self.send_once(outgoing, message_id, &queue) {
                Err(error) if tried < self.retries && may_help_to_retry(&error) => {
                    tried += 1;
                    self.routes.remove(outgoing.topic);
                    last_broker = Some(queue.broker);
                }
                outcome => return outcome,
            }
        }
    }

    fn send_once(
        &mut self,
        outgoing: &Outgoing<'_>,
        message_id: &str,
        queue: &Queue,
    ) -> Result<Sent, ClientError> {
        let group = self.group.clone();
        let code = if outgoing.batch {
            request::SEND_BATCH_MESSAGE
        } else {
            request::SEND_MESSAGE_V2
        };
        self.cluster.at(&queue.address, |connection, timeout| {
            let fields = |writer: &mut FrameWriter<'_>| outgoing.write(&group, queue.id, writer);
            let frame = connection.call(code, fields, outgoing.body, timeout)?;
            sent(&frame, message_id, queue)
        })
    }

    /// The next queue of a topic, not on `avoided` if there is another broker.
    fn next_queue(
        &mut self,
        topic: &str,
        queue_id: Option<i32>,
        avoided: Option<&str>,
    ) -> Result<Queue, ClientError> {
        if self
            .routes
            .get(topic)
            .is_none_or(|route| route.asked.elapsed() > ROUTE_AGE)
        {
            let queues = self.find_queues(topic)?;
            let next = self.routes.get(topic).map_or(0, |route| route.next);
            self.routes.insert(
                topic.to_owned(),
                Route {
                    queues,
                    next,
                    asked: Instant::now(),
                },
            );
        }
        let none = || ClientError::Cluster(format!("no broker takes messages for topic {topic}"));
        let route = self.routes.get_mut(topic).ok_or_else(none)?;
        let wanted = |queue: &&Queue| queue_id.is_none_or(|id| queue.id == id);
        let elsewhere = |queue: &&Queue| avoided.is_none_or(|broker| queue.broker != broker);
        let count = route.queues.len();
        let in_turn = || {
            (0..count)
                .map(|step| &route.queues[(route.next + step) % count])
                .filter(wanted)
        };
        let queue = in_turn()
            .find(elsewhere)
            .or_else(|| in_turn().next())
            .cloned();
        let queue = match (queue, queue_id) {
            (Some(queue), _) => queue,
            (None, Some(id)) if count > 0 => {
                return Err(ClientError::Cluster(format!(
                    "topic {topic} has no queue {id} that takes messages"
                )));
            }
            (None, _) => return Err(none()),
        };
        route.next = route
            .queues
            .iter()
            .position(|known| *known == queue)
            .map_or(0, |index| index + 1);
        Ok(queue)
    }

    fn find_queues(&mut self, topic: &str) -> Result<Vec<Queue>, ClientError> {
        if let Some(route) = self.cluster.route(topic)? {
            return Ok(writable(&route, i32::MAX));
        }
        match self.cluster.route(AUTO_CREATE_TOPIC)? {
            Some(route) => Ok(writable(&route, AUTO_CREATE_QUEUES)),
            None => Err(ClientError::Cluster(format!(
                "topic {topic} does not exist and no broker creates topics for a send: `corelane topic create {topic}` \
                 makes it"
            ))),
        }
    }
}

/// A frame's worth of messages.
struct Outgoing<'a> {
    topic: &'a str,
    properties: &'a str,
    flag: i32,
    body: &'a [u8],
    batch: bool,
}

impl Outgoing<'_> {
    fn write(&self, group: &str, queue_id: i32, writer: &mut FrameWriter<'_>) {
        let header = SendMessageRequest {
            producer_group: group.into(),
            topic: self.topic.into(),
            default_topic: AUTO_CREATE_TOPIC.into(),
            default_topic_queue_nums: AUTO_CREATE_QUEUES,
            queue_id,
            sys_flag: 0,
            born_timestamp: now_ms(),
            flag: self.flag,
            properties: Some(self.properties.into()),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(self.batch),
            max_reconsume_times: None,
            bname: None,
        };
        header.encode_short(writer);
    }
}

fn writable(route: &TopicRouteData, most: i32) -> Vec<Queue> {
    let mut queues = Vec::new();
    for data in route
        .queue_datas
        .iter()
        .filter(|data| data.perm & perm::WRITE != 0)
    {
        let broker = route
            .broker_datas
            .iter()
            .find(|broker| broker.broker_name == data.broker_name);
        let Some(broker) = broker.and_then(master) else {
            continue;
        };
        queues.extend((0..data.write_queue_nums.min(most)).map(|id| Queue {
            broker: broker.name.clone(),
            address: broker.address.clone(),
            id,
        }));
    }
    // Brokers in turn, so that the first messages reach all of them.
    queues.sort_by(|a, b| (a.id, &a.broker).cmp(&(b.id, &b.broker)));
    queues
}

fn sent(frame: &Frame<'_>, message_id: &str, queue: &Queue) -> Result<Sent, ClientError> {
    const STORED: [i32; 4] = [
        response::SUCCESS,
        response::FLUSH_DISK_TIMEOUT,
        response::SLAVE_NOT_AVAILABLE,
        response::FLUSH_SLAVE_TIMEOUT,
    ];
    if !STORED.contains(&frame.code) {
        let remark = frame
            .remark
            .map(|remark| remark.to_string())
            .unwrap_or_default();
        return Err(ClientError::Refused {
            address: queue.address.clone(),
            code: frame.code,
            remark,
        });
    }
    let header = SendMessageResponse::decode(&frame.ext)
        .map_err(|error| ClientError::field(&queue.address, &error))?;
    Ok(Sent {
        code: frame.code,
        message_id: message_id.to_owned(),
        offset_message_id: header.msg_id.to_string(),
        broker: queue.broker.clone(),
        queue_id: header.queue_id,
        queue_offset: header.queue_offset,
        recall_handle: header.recall_handle.map(|handle| handle.to_string()),
    })
}

/// Whether another broker, or the same one a moment later, may take what this one did not.
fn may_help_to_retry(error: &ClientError) -> bool {
    const ELSEWHERE: [i32; 8] = [
        response::TOPIC_NOT_EXIST,
        response::SERVICE_NOT_AVAILABLE,
        response::SYSTEM_ERROR,
        response::SYSTEM_BUSY,
        response::NO_PERMISSION,
        response::NO_BUYER_ID,
        response::NOT_IN_CURRENT_UNIT,
        response::GO_AWAY,
    ];
    match error {
        ClientError::Refused { code, .. } => ELSEWHERE.contains(code),
        ClientError::Connect { .. }
        | ClientError::Broken { .. }
        | ClientError::Closed { .. }
        | ClientError::TimedOut { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use corelane_wire::body::{BrokerData, QueueData};
    use corelane_wire::fastjson::Keys;

    use super::*;
    use crate::testing::{answer, serve};

    const SOON: Duration = Duration::from_secs(10);

    fn broker(name: &str, address: &str) -> BrokerData {
        BrokerData {
            broker_addrs: BTreeMap::from([(0, address.to_owned())]),
            broker_name: name.to_owned(),
            ..BrokerData::default()
        }
    }

    fn queues(name: &str, perm: i32, count: i32) -> QueueData {
        QueueData {
            broker_name: name.to_owned(),
            perm,
            write_queue_nums: count,
            ..QueueData::default()
        }
    }

    /// A NameServer that knows one topic.
    fn nameserver(topic: &'static str, route: &TopicRouteData) -> String {
        let route = route.to_json(Keys::Quoted);
        serve(move |frame, out| match frame.ext.get("topic") {
            Some(asked) if asked == *topic => answer(frame, 0, &[], &route, out),
            _ => answer(frame, response::TOPIC_NOT_EXIST, &[], &[], out),
        })
    }

    /// A broker that answers sends with a code, and counts them.
    fn sink(code: i32) -> (String, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let address = serve(move |frame, out| {
            let queue = frame.ext.get("e").unwrap().to_string();
            let offset = counter.fetch_add(1, Ordering::Relaxed).to_string();
            answer(
                frame,
                code,
                &[
                    ("msgId", "M"),
                    ("queueId", &queue),
                    ("queueOffset", &offset),
                ],
                &[],
                out,
            );
        });
        (address, count)
    }

    #[test]
    fn brokers_take_turns() {
        let route = TopicRouteData {
            broker_datas: vec![broker("a", "a:1"), broker("b", "b:1"), broker("r", "r:1")],
            queue_datas: vec![
                queues("a", 6, 2),
                queues("b", 6, 9),
                queues("r", 4, 2),
                queues("gone", 6, 2),
            ],
            ..TopicRouteData::default()
        };
        let order: Vec<_> = writable(&route, 3)
            .into_iter()
            .map(|queue| format!("{}{}", queue.broker, queue.id))
            .collect();
        assert_eq!(order, ["a0", "b0", "a1", "b1", "b2"]);
    }

    #[test]
    fn a_busy_broker_is_avoided_and_a_refusal_is_final() {
        let (busy, asked_busy) = sink(response::SYSTEM_BUSY);
        let (good, asked_good) = sink(response::SUCCESS);
        let (picky, asked_picky) = sink(response::MESSAGE_ILLEGAL);
        let route = TopicRouteData {
            broker_datas: vec![broker("a", &busy), broker("b", &good)],
            queue_datas: vec![queues("a", 6, 2), queues("b", 6, 1)],
            ..TopicRouteData::default()
        };
        let mut producer =
            Producer::new(Cluster::new(&nameserver("T", &route), SOON).unwrap(), "g");
        let sent = producer.send("T", &Message::new("x"), None).unwrap();
        assert_eq!(
            (sent.broker.as_str(), sent.queue_id, sent.queue_offset),
            ("b", 0, 0)
        );
        assert_eq!(
            (
                asked_busy.load(Ordering::Relaxed),
                asked_good.load(Ordering::Relaxed)
            ),
            (1, 1)
        );
        // Queue 1 is on the busy broker only: it is tried three times in all.
        let error = producer.send("T", &Message::new("x"), Some(1)).unwrap_err();
        assert_eq!(error.code(), Some(response::SYSTEM_BUSY));
        assert_eq!(asked_busy.load(Ordering::Relaxed), 4);

        let route = TopicRouteData {
            broker_datas: vec![broker("p", &picky)],
            queue_datas: vec![queues("p", 6, 1)],
            ..TopicRouteData::default()
        };
        let mut producer =
            Producer::new(Cluster::new(&nameserver("T", &route), SOON).unwrap(), "g");
        let error = producer.send("T", &Message::new("x"), None).unwrap_err();
        assert_eq!(
            (error.code(), asked_picky.load(Ordering::Relaxed)),
            (Some(response::MESSAGE_ILLEGAL), 1)
        );
        let missing = producer
            .send("T", &Message::new("x"), Some(9))
            .unwrap_err()
            .to_string();
        assert_eq!(missing, "topic T has no queue 9 that takes messages");
    }

    #[test]
    fn a_new_topic_goes_where_topics_are_created() {
        let (good, _) = sink(response::SUCCESS);
        let route = TopicRouteData {
            broker_datas: vec![broker("a", &good)],
            queue_datas: vec![queues("a", 7, 8)],
            ..TopicRouteData::default()
        };
        let mut producer = Producer::new(
            Cluster::new(&nameserver(AUTO_CREATE_TOPIC, &route), SOON).unwrap(),
            "g",
        );
        let ids: Vec<_> = (0..5)
            .map(|_| {
                producer
                    .send("New", &Message::new("x"), None)
                    .unwrap()
                    .queue_id
            })
            .collect();
        assert_eq!(ids, [0, 1, 2, 3, 0]);
        let batch = producer
            .send_batch("New", &[Message::new("x"), Message::new("y")], None)
            .unwrap();
        assert_eq!(batch.message_id.split(',').count(), 2);

        let nobody = nameserver("Other", &TopicRouteData::default());
        let mut producer = Producer::new(Cluster::new(&nobody, SOON).unwrap(), "g");
        let error = producer
            .send("New", &Message::new("x"), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("corelane topic create New"), "{error}");
    }
}
