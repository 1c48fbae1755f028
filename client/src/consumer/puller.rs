//! The thread that pulls from one broker: a pull for each queue is always on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use corelane_wire::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use corelane_wire::code::{pull_flag, request, response};
use corelane_wire::header::client::UnregisterClientRequest;
use corelane_wire::header::offset::{
    GetMaxOffsetRequest, GetMaxOffsetResponse, GetMinOffsetRequest, GetMinOffsetResponse,
    QueryConsumerOffsetRequest, QueryConsumerOffsetResponse, SearchOffsetByTimestampRequest,
    SearchOffsetByTimestampResponse, UpdateConsumerOffsetRequest,
};
use corelane_wire::header::pull::{PullMessageRequest, PullMessageResponse};
use corelane_wire::properties::java_hash;
use corelane_wire::record::Record;
use corelane_wire::{ExtHeader, Frame};

use super::{Handed, Item, Start, Subscription};
use crate::cluster::Broker;
use crate::connection::{Connection, accept, no_fields};
use crate::error::ClientError;
use crate::message::Received;

/// How long a broker may hold a pull.
const HOLD: Duration = Duration::from_secs(15);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// How often a thread looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a thread waits after something failed.
const PAUSE: Duration = Duration::from_secs(1);
const PULL_MESSAGES: i32 = 32;

/// A queue: where it begins, and behind which message the application is.
#[derive(Debug)]
pub(super) struct Queue {
    pub id: i32,
    // -1 until something is finished.
    pub finished: Arc<AtomicI64>,
}

/// What an answer belongs to: the queue's place in the list.
type Token = usize;

/// The work of one thread.
pub(super) struct Puller {
    pub broker: Broker,
    pub queues: Vec<Queue>,
    // The next offset to pull, for each queue; empty until it is known.
    pub offsets: Vec<i64>,
    pub subscription: Subscription,
    pub tags: Vec<String>,
    pub version: i64,
    pub client_id: String,
    pub timeout: Duration,
    pub sender: SyncSender<Item>,
    pub stop: Arc<AtomicBool>,
}

impl Puller {
    pub(super) fn run(mut self) {
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
