//! A connection that is only kept alive, by a heartbeat now and then: a producer that sends nothing, or a consumer whose
//! queues are empty. Such a consumer does what Java's does: it has a pull under way for each queue, and commits the offsets
//! of all of them every few seconds.

use corelane_wire::body::{
    ConsumeType, ConsumerData, HeartbeatData, MessageModel, ProducerData, SubscriptionData,
};
use corelane_wire::code::{request, response};
use corelane_wire::header::offset::UpdateConsumerOffsetRequest;
use corelane_wire::{ExtHeader, FrameWriter, Text};

use crate::check::Checker;
use crate::measure::{Recorder, Track};
use crate::plan::{IdlerPlan, Plan, PullRange, PullerPlan, Subscriber};
use crate::puller::Puller;
use crate::reply::Reply;
use crate::template::{FIRST_OPAQUE, head};

/// Bit of a frame's flag: nobody waits for an answer.
const ONEWAY: i32 = 2;

/// The state of one connection.
pub struct Idler {
    frame: Vec<u8>,
    due_ns: u64,
    waits: bool,
    consumer: Option<Box<Consumer>>,
}

struct Consumer {
    puller: Puller,
    /// The commits of all queues, as frames.
    commits: Vec<u8>,
}

impl Idler {
    /// A connection on which nothing was sent yet.
    pub fn new(plan: &Plan, idler: &IdlerPlan) -> Self {
        let mut data = HeartbeatData {
            client_id: format!("bench-{:08x}@{}", plan.run, idler.number),
            ..HeartbeatData::default()
        };
        match &idler.subscriber {
            None => data.producer_data_set.push(ProducerData {
                group_name: plan.sending.group.clone(),
            }),
            Some(subscriber) => data.consumer_data_set.push(consumer_data(subscriber)),
        }
        let mut frame = Vec::new();
        let head = head(plan.serialization, request::HEART_BEAT);
        FrameWriter::new(&mut frame, &head).finish_with(&data.to_json());
        frame.shrink_to_fit();
        let consumer = idler.subscriber.as_ref().map(|subscriber| {
            let ranges = subscriber.queues.iter().map(|queue| PullRange {
                queue: *queue,
                from: 0,
                to: None,
            });
            let pulls = PullerPlan {
                broker: idler.broker,
                queues: ranges.collect(),
            };
            Box::new(Consumer {
                puller: Puller::new(plan, &pulls, &group(subscriber)),
                commits: commits(plan, subscriber),
            })
        });
        Self {
            frame,
            due_ns: 0,
            waits: false,
            consumer,
        }
    }

    /// Appends a heartbeat to `out`; `false` where the one before it has no answer yet.
    pub fn beat(&mut self, out: &mut Vec<u8>, due_ns: u64) -> bool {
        if self.waits {
            return false;
        }
        self.waits = true;
        self.due_ns = due_ns;
        out.extend_from_slice(&self.frame);
        if let Some(consumer) = &mut self.consumer {
            consumer.puller.try_again();
            consumer.puller.pull(out, due_ns);
        }
        true
    }

    /// Whether it has offsets to commit.
    pub fn consumes(&self) -> bool {
        self.consumer.is_some()
    }

    /// Appends the commits of its queues to `out`.
    pub fn commit(&self, out: &mut Vec<u8>) {
        if let Some(consumer) = &self.consumer {
            out.extend_from_slice(&consumer.commits);
        }
    }

    /// Takes an answer, and appends the next pull to `out`; `false` where nothing waited for the answer. The error says what
    /// is wrong with messages in it.
    pub fn reply(
        &mut self,
        reply: &Reply,
        frame: &[u8],
        now_ns: u64,
        recorder: &mut Recorder,
        checker: &mut Checker,
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        if reply.opaque != FIRST_OPAQUE {
            let Some(consumer) = &mut self.consumer else {
                return Ok(false);
            };
            let expected = consumer
                .puller
                .reply(reply, frame, now_ns, recorder, checker)?;
            consumer.puller.pull(out, now_ns);
            return Ok(expected);
        }
        if !self.waits {
            return Ok(false);
        }
        self.waits = false;
        match reply.code {
            response::SUCCESS => recorder.done(Track::Heartbeat, self.due_ns, now_ns, 0, 0),
            code => recorder.failed(Track::Heartbeat, now_ns, code),
        }
        Ok(true)
    }
}

fn group(subscriber: &Subscriber) -> String {
    format!("CorelaneBenchConsumer{}", subscriber.group)
}

fn consumer_data(subscriber: &Subscriber) -> ConsumerData {
    let group_name = group(subscriber);
    let retry = format!("%RETRY%{group_name}");
    let topics = subscriber.topics.iter().chain([&retry]);
    ConsumerData {
        subscription_data_set: topics
            .map(|topic| SubscriptionData {
                topic: topic.clone(),
                sub_string: "*".to_owned(),
                sub_version: 1,
                ..SubscriptionData::default()
            })
            .collect(),
        group_name,
        consume_type: ConsumeType::Passively,
        message_model: MessageModel::Clustering,
        ..ConsumerData::default()
    }
}

fn commits(plan: &Plan, subscriber: &Subscriber) -> Vec<u8> {
    let group = group(subscriber);
    let mut frames = Vec::new();
    for queue in &subscriber.queues {
        let queue = &plan.queues[*queue];
        let mut head = head(plan.serialization, request::UPDATE_CONSUMER_OFFSET);
        head.flag = ONEWAY;
        let mut frame = Vec::new();
        let mut writer = FrameWriter::new(&mut frame, &head);
        UpdateConsumerOffsetRequest {
            consumer_group: Text::plain(&group),
            topic: Text::plain(&queue.topic),
            queue_id: queue.id,
            commit_offset: 0,
        }
        .encode(&mut writer);
        writer.finish(0);
        frames.extend_from_slice(&frame);
    }
    frames.shrink_to_fit();
    frames
}
