//! A consumer of all queues of a topic. It does not share them with others of its group.
//!
//! A thread for each broker holds one pull per queue, and hands messages over through a bounded channel, so a slow
//! application slows the pulls down. The offset behind the last message that the application has finished (by asking for
//! the next one) is committed with the pulls, and when the consumer is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use corelane_wire::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use corelane_wire::code::{perm, pull_flag, request, response};
use corelane_wire::header::client::UnregisterClientRequest;
use corelane_wire::header::offset::{
    GetMaxOffsetRequest, GetMaxOffsetResponse, GetMinOffsetRequest, GetMinOffsetResponse,
    QueryConsumerOffsetRequest, QueryConsumerOffsetResponse, SearchOffsetByTimestampRequest,
    SearchOffsetByTimestampResponse, UpdateConsumerOffsetRequest,
};
use corelane_wire::header::pull::{PullMessageRequest, PullMessageResponse};
use corelane_wire::properties::java_hash;
use corelane_wire::record::Record;
use corelane_wire::{ExtHeader, Frame, FrameWriter};

use crate::cluster::{Broker, Cluster, master, no_such_topic};
use crate::connection::{Connection, accept};
use crate::error::ClientError;
use crate::message::{Received, now_ms};

/// How long a broker may hold a pull.
const HOLD: Duration = Duration::from_secs(15);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// How often a thread looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a thread waits after something failed.
const PAUSE: Duration = Duration::from_secs(1);
const PULL_MESSAGES: i32 = 32;
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

/// A queue: where it begins, and behind which message the application is.
#[derive(Debug)]
struct Queue {
    id: i32,
    // -1 until something is finished.
    finished: Arc<AtomicI64>,
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

/// What an answer belongs to: the queue's place in the list.
type Token = usize;

/// The work of one thread.
struct Puller {
    broker: Broker,
    queues: Vec<Queue>,
    // The next offset to pull, for each queue; empty until it is known.
    offsets: Vec<i64>,
    subscription: Subscription,
    tags: Vec<String>,
    version: i64,
    client_id: String,
    timeout: Duration,
    sender: SyncSender<Item>,
    stop: Arc<AtomicBool>,
}

impl Puller {
    fn run(mut self) {
        while !self.stopped() {
            if let Err(error) = self.serve_one_connection() {
                if !self.hand_over(Err(error)) {
                    break;
                }
                self.pause();
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn pause(&self) {
        let until = Instant::now() + PAUSE;
        while Instant::now() < until && !self.stopped() {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Pulls until it is to stop, or until something breaks.
    fn serve_one_connection(&mut self) -> Result<(), ClientError> {
        let mut connection = Connection::open(&self.broker.address, self.timeout)?;
        self.heartbeat(&mut connection)?;
        let mut heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
        if self.offsets.is_empty() {
            let mut offsets = Vec::with_capacity(self.queues.len());
            for queue in &self.queues {
                offsets.push(self.first_offset(&mut connection, queue.id)?);
            }
            self.offsets = offsets;
        }
        for index in 0..self.queues.len() {
            self.pull(&mut connection, index)?;
        }
        while !self.stopped() {
            if Instant::now() >= heartbeat_at {
                self.heartbeat(&mut connection)?;
                heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
            }
            let Some(reply) = connection.next_reply(LOOK_EVERY)? else {
                continue;
            };
            let index = reply.token;
            let pulled = self.read(index, &reply.frame)?;
            for message in pulled {
                let finished = Arc::clone(&self.queues[index].finished);
                if !self.hand_over(Ok(Handed { message, finished })) {
                    return self.say_goodbye(&mut connection);
                }
            }
            self.pull(&mut connection, index)?;
        }
        self.say_goodbye(&mut connection)
    }

    /// Waits for room in the channel; `false` when the consumer is gone.
    fn hand_over(&self, item: Item) -> bool {
        let mut item = item;
        loop {
            match self.sender.try_send(item) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if self.stopped() => return false,
                Err(TrySendError::Full(back)) => {
                    item = back;
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    fn read(&mut self, index: usize, frame: &Frame<'_>) -> Result<Vec<Received>, ClientError> {
        let address = &self.broker.address;
        match frame.code {
            response::SUCCESS
            | response::PULL_NOT_FOUND
            | response::PULL_RETRY_IMMEDIATELY
            | response::PULL_OFFSET_MOVED => {}
            _ => accept(address, frame)?,
        }
        let header = PullMessageResponse::decode(&frame.ext)
            .map_err(|error| ClientError::field(address, &error))?;
        self.offsets[index] = header.next_begin_offset;
        let mut messages = Vec::new();
        if frame.code == response::SUCCESS {
            let mut rest = frame.body;
            while !rest.is_empty() {
                let (record, behind) = Record::parse(rest)
                    .map_err(|error| ClientError::answer(address, error.to_string()))?;
                rest = behind;
                let message = Received::from_record(&self.broker.name, &record);
                // Brokers compare the hashes of tags only.
                let wanted = self.tags.is_empty()
                    || message
                        .tag()
                        .is_some_and(|tag| self.tags.iter().any(|wanted| wanted == tag));
                if wanted {
                    messages.push(message);
                }
            }
        }
        Ok(messages)
    }

    fn pull(&self, connection: &mut Connection<Token>, index: usize) -> Result<(), ClientError> {
        let queue = &self.queues[index];
        let finished = queue.finished.load(Ordering::Acquire);
        let commit = self.subscription.commit && finished >= 0;
        let filter = &self.subscription.filter;
        let header = PullMessageRequest {
            consumer_group: self.subscription.group.as_str().into(),
            topic: self.subscription.topic.as_str().into(),
            queue_id: queue.id,
            queue_offset: self.offsets[index],
            max_msg_nums: PULL_MESSAGES,
            sys_flag: pull_flag::SUSPEND
                | pull_flag::SUBSCRIPTION
                | if commit { pull_flag::COMMIT_OFFSET } else { 0 },
            commit_offset: finished.max(0),
            suspend_timeout_millis: HOLD.as_millis() as i64,
            subscription: Some(filter.expression().into()),
            sub_version: self.version,
            expression_type: Some(filter.kind().into()),
            ..PullMessageRequest::default()
        };
        connection.start(
            request::PULL_MESSAGE,
            |writer| header.encode(writer),
            &[],
            index,
        )
    }

    fn first_offset(
        &self,
        connection: &mut Connection<Token>,
        queue_id: i32,
    ) -> Result<i64, ClientError> {
        let topic = self.subscription.topic.as_str();
        let minimum = GetMinOffsetRequest {
            topic: topic.into(),
            queue_id,
        };
        match self.subscription.start {
            Start::Group => {
                let header = QueryConsumerOffsetRequest {
                    consumer_group: self.subscription.group.as_str().into(),
                    topic: topic.into(),
                    queue_id,
                    set_zero_if_not_found: None,
                };
                let code = request::QUERY_CONSUMER_OFFSET;
                match connection.ask::<_, QueryConsumerOffsetResponse>(code, &header, self.timeout)
                {
                    Ok(answer) => Ok(answer.offset),
                    Err(error) if error.code() == Some(response::QUERY_NOT_FOUND) => {
                        let answer: GetMinOffsetResponse =
                            connection.ask(request::GET_MIN_OFFSET, &minimum, self.timeout)?;
                        Ok(answer.offset)
                    }
                    Err(error) => Err(error),
                }
            }
            Start::First => {
                let answer: GetMinOffsetResponse =
                    connection.ask(request::GET_MIN_OFFSET, &minimum, self.timeout)?;
                Ok(answer.offset)
            }
            Start::Last => {
                let header = GetMaxOffsetRequest {
                    topic: topic.into(),
                    queue_id,
                    committed: true,
                };
                let answer: GetMaxOffsetResponse =
                    connection.ask(request::GET_MAX_OFFSET, &header, self.timeout)?;
                Ok(answer.offset)
            }
            Start::Time(timestamp) => {
                let header = SearchOffsetByTimestampRequest {
                    topic: topic.into(),
                    queue_id,
                    timestamp,
                    boundary_type: None,
                };
                let answer: SearchOffsetByTimestampResponse =
                    connection.ask(request::SEARCH_OFFSET_BY_TIMESTAMP, &header, self.timeout)?;
                Ok(answer.offset)
            }
        }
    }

    fn heartbeat(&self, connection: &mut Connection<Token>) -> Result<(), ClientError> {
        let filter = &self.subscription.filter;
        let tags = &self.tags;
        let body = HeartbeatData {
            client_id: self.client_id.clone(),
            consumer_data_set: vec![ConsumerData {
                group_name: self.subscription.group.clone(),
                consume_type: ConsumeType::Actively,
                message_model: MessageModel::Clustering,
                consume_from_where: ConsumeFromWhere::FirstOffset,
                subscription_data_set: vec![SubscriptionData {
                    topic: self.subscription.topic.clone(),
                    sub_string: filter.expression().to_owned(),
                    tags_set: tags.clone(),
                    code_set: tags.iter().map(|tag| java_hash(tag)).collect(),
                    sub_version: self.version,
                    expression_type: filter.kind().to_owned(),
                    ..SubscriptionData::default()
                }],
                unit_mode: false,
            }],
            ..HeartbeatData::default()
        };
        let no_fields = |_: &mut FrameWriter<'_>| {};
        connection
            .request(
                request::HEART_BEAT,
                no_fields,
                &body.to_json(),
                self.timeout,
            )
            .map(|_| ())
    }

    fn say_goodbye(&self, connection: &mut Connection<Token>) -> Result<(), ClientError> {
        if self.subscription.commit {
            for queue in &self.queues {
                let commit_offset = queue.finished.load(Ordering::Acquire);
                if commit_offset < 0 {
                    continue;
                }
                let header = UpdateConsumerOffsetRequest {
                    consumer_group: self.subscription.group.as_str().into(),
                    topic: self.subscription.topic.as_str().into(),
                    queue_id: queue.id,
                    commit_offset,
                };
                connection.request(
                    request::UPDATE_CONSUMER_OFFSET,
                    |writer| header.encode(writer),
                    &[],
                    self.timeout,
                )?;
            }
        }
        let header = UnregisterClientRequest {
            client_id: self.client_id.as_str().into(),
            producer_group: None,
            consumer_group: Some(self.subscription.group.as_str().into()),
        };
        connection
            .request(
                request::UNREGISTER_CLIENT,
                |writer| header.encode(writer),
                &[],
                self.timeout,
            )
            .map(|_| ())
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
