//! A connection that pulls: one pull under way for each of its queues.

use corelane_wire::code::response;
use corelane_wire::header::pull::PullMessageResponse;
use corelane_wire::record::Record;
use corelane_wire::{ExtHeader, Frame};

use crate::check::Checker;
use crate::measure::{Recorder, Track};
use crate::plan::{Plan, PullerPlan, Reading};
use crate::reply::Reply;
use crate::stamp;
use crate::template::{FIRST_OPAQUE, PullRequest, Target};

/// How many of an opaque's bits say which queue it is about.
const QUEUE_BITS: u32 = 20;

/// The state of one connection.
pub struct Puller {
    queues: Vec<QueueState>,
    reading: Reading,
    run: u32,
    /// Queues whose pull is to be sent.
    due: Vec<usize>,
    /// Queues whose pull was refused; it is sent again later.
    refused: Vec<usize>,
    finished: usize,
}

struct QueueState {
    number: usize,
    request: PullRequest,
    offset: u64,
    end: Option<u64>,
    opaque: i32,
    sent_ns: u64,
    waits: bool,
}

impl Puller {
    /// A connection on which nothing was pulled yet.
    pub fn new(plan: &Plan, puller: &PullerPlan, group: &str) -> Self {
        let pulling = &plan.pulling;
        let queues: Vec<QueueState> = puller
            .queues
            .iter()
            .map(|range| {
                let queue = &plan.queues[range.queue];
                let target = Target {
                    group,
                    topic: &queue.topic,
                    queue_id: queue.id,
                    broker_name: plan.brokers[queue.broker].name.as_deref(),
                };
                QueueState {
                    number: range.queue,
                    request: PullRequest::new(
                        plan.serialization,
                        target,
                        &pulling.subscription,
                        pulling.limits,
                    ),
                    offset: range.from,
                    end: range.to,
                    opaque: 0,
                    sent_ns: 0,
                    waits: false,
                }
            })
            .collect();
        let is_done = |queue: &QueueState| queue.end.is_some_and(|end| queue.offset >= end);
        let due: Vec<usize> = (0..queues.len())
            .filter(|at| !is_done(&queues[*at]))
            .collect();
        Self {
            finished: queues.len() - due.len(),
            due,
            queues,
            reading: pulling.reading,
            run: plan.run,
            refused: Vec::new(),
        }
    }

    /// Whether every queue is at its end.
    pub fn is_finished(&self) -> bool {
        self.finished == self.queues.len()
    }

    /// Appends the pulls that are due to `out`.
    pub fn pull(&mut self, out: &mut Vec<u8>, now_ns: u64) {
        for at in self.due.drain(..) {
            let queue = &mut self.queues[at];
            let generation = ((queue.opaque - FIRST_OPAQUE).max(0) >> QUEUE_BITS) + 1;
            queue.opaque = FIRST_OPAQUE + ((generation & 0x3FF) << QUEUE_BITS | at as i32);
            queue.sent_ns = now_ns;
            queue.waits = true;
            queue.request.push_to(out, queue.opaque, queue.offset);
        }
    }

    /// Whether pulls are due.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Makes refused pulls due again.
    pub fn try_again(&mut self) {
        self.due.append(&mut self.refused);
    }

    /// Takes an answer; `false` where nothing waited for it. The error says what is wrong with the messages in it.
    pub fn reply(
        &mut self,
        reply: &Reply,
        frame: &[u8],
        now_ns: u64,
        recorder: &mut Recorder,
        checker: &mut Checker,
    ) -> Result<bool, String> {
        let at =
            (reply.opaque.wrapping_sub(FIRST_OPAQUE) as u32 & ((1 << QUEUE_BITS) - 1)) as usize;
        let Some(queue) = self.queues.get_mut(at) else {
            return Ok(false);
        };
        if !queue.waits || queue.opaque != reply.opaque {
            return Ok(false);
        }
        queue.waits = false;
        let frame = Frame::parse(frame).map_err(|error| error.to_string())?;
        let next = PullMessageResponse::decode(&frame.ext)
            .ok()
            .and_then(|answer| u64::try_from(answer.next_begin_offset).ok());
        match (reply.code, next) {
            (response::SUCCESS, Some(next)) => {
                let sent_ns = queue.sent_ns;
                let (messages, bytes) = read_messages(
                    frame.body,
                    queue.number,
                    self.reading,
                    self.run,
                    now_ns,
                    recorder,
                    checker,
                )?;
                recorder.done(Track::Pull, sent_ns, now_ns, messages, bytes);
                queue.offset = next;
            }
            (
                response::PULL_NOT_FOUND
                | response::PULL_RETRY_IMMEDIATELY
                | response::PULL_OFFSET_MOVED,
                Some(next),
            ) => queue.offset = next,
            (code, _) => {
                recorder.failed(Track::Pull, now_ns, code);
                self.refused.push(at);
                return Ok(true);
            }
        }
        if queue.end.is_some_and(|end| queue.offset >= end) {
            self.finished += 1;
        } else {
            self.due.push(at);
        }
        Ok(true)
    }
}

/// Goes through the messages of an answer: how many, and the bytes of their bodies.
fn read_messages(
    mut rest: &[u8],
    queue: usize,
    reading: Reading,
    run: u32,
    now_ns: u64,
    recorder: &mut Recorder,
    checker: &mut Checker,
) -> Result<(u64, u64), String> {
    let (mut messages, mut bytes) = (0, 0);
    while !rest.is_empty() {
        let (record, after) = Record::parse(rest).map_err(|error| error.to_string())?;
        rest = after;
        messages += 1;
        bytes += record.body().len() as u64;
        if reading == Reading::Count {
            continue;
        }
        let stamp = stamp::read(record.body()).filter(|stamp| {
            // Other runs may have left messages; a consumer of its own takes those of any run.
            stamp.run == run || reading == Reading::Receipt
        });
        if let Some(stamp) = stamp {
            let len = record.body().len() as u64;
            recorder.done(Track::Receipt, stamp.sent_ns, now_ns, 1, len);
        }
        if reading == Reading::Receipt {
            continue;
        }
        let is_whole = reading != Reading::Content
            || stamp.is_none_or(|stamp| {
                stamp::is_whole(record.body(), &stamp) && record.check_body_crc()
            });
        let id = stamp.map(|stamp| (stamp.stream, stamp.seq));
        let offset = u64::try_from(record.queue_offset()).unwrap_or(u64::MAX);
        checker.seen(queue, offset, id, is_whole);
    }
    Ok((messages, bytes))
}
