//! A connection that sends: its requests in flight, and what their answers mean.

use std::ops::Range;

use corelane_wire::ExtHeader;
use corelane_wire::Frame;
use corelane_wire::code::response;
use corelane_wire::header::send::SendMessageResponse;

use crate::check::Checker;
use crate::measure::{Recorder, Track};
use crate::plan::{Deliver, Plan, ProducerPlan};
use crate::random::Random;
use crate::reply::Reply;
use crate::schedule::Intended;
use crate::sizes::Sizes;
use crate::template::{
    Batch, Born, FIRST_OPAQUE, OPAQUE_BITS, SendBody, SendHeader, Shape, Target, Values, push_send,
};

/// How many of an opaque's bits say which slot waits for it.
pub const SLOT_BITS: u32 = 16;

/// The most requests in flight on a connection.
pub const MAX_IN_FLIGHT: usize = 1 << SLOT_BITS;

/// How many bodies are made where they differ, and how much memory they may take.
const BODIES: usize = 512;
const BODIES_BYTES: usize = 16 << 20;

/// The encoded requests of a thread.
pub struct Templates {
    /// By queue, then by tag; empty for queues that the thread does not send to.
    headers: Vec<Vec<SendHeader>>,
    bodies: Vec<SendBody>,
    /// Which bodies belong to each segment of the schedule.
    segments: Vec<Range<usize>>,
}

impl Templates {
    /// Encodes what these producers need.
    pub fn new(plan: &Plan, producers: &[ProducerPlan]) -> Self {
        let sending = &plan.sending;
        let tags: Vec<Option<&String>> = match sending.tags[..] {
            [] => vec![None],
            _ => sending.tags.iter().map(Some).collect(),
        };
        let shapes: Vec<Shape> = tags
            .iter()
            .map(|tag| Shape {
                tag: tag.cloned(),
                keyed: sending.keys.is_some(),
                unique: sending.unique,
                timer: sending.deliver.is_some(),
            })
            .collect();
        let mut headers = vec![Vec::new(); plan.queues.len()];
        for queue in producers.iter().flat_map(|producer| &producer.queues) {
            if !headers[*queue].is_empty() {
                continue;
            }
            let of = &plan.queues[*queue];
            let target = Target {
                group: &sending.group,
                topic: &of.topic,
                queue_id: of.id,
                broker_name: plan.brokers[of.broker].name.as_deref(),
            };
            let make =
                |shape| SendHeader::new(plan.serialization, target, shape, sending.batch.is_some());
            headers[*queue] = shapes.iter().map(make).collect();
        }
        let mut templates = Self {
            headers,
            bodies: Vec::new(),
            segments: Vec::new(),
        };
        let budget = BODIES_BYTES / sending.sizes.len().max(1);
        let mut random = Random::new(plan.run.into());
        for sizes in &sending.sizes {
            let start = templates.bodies.len();
            templates.add_bodies(plan, sizes, &shapes, budget, &mut random);
            templates.segments.push(start..templates.bodies.len());
        }
        templates
    }

    fn add_bodies(
        &mut self,
        plan: &Plan,
        sizes: &Sizes,
        shapes: &[Shape],
        budget: usize,
        random: &mut Random,
    ) {
        let sending = &plan.sending;
        let messages = sending.batch.unwrap_or(1);
        let each = sizes.max().max(1) * messages;
        let wanted = match (sizes.single(), sending.stamped) {
            (Some(_), false) => shapes.len(),
            (Some(_), true) => shapes.len().max(8),
            (None, _) => BODIES,
        };
        let batch = Batch {
            is_batch: sending.batch.is_some(),
            stamped: sending.stamped,
        };
        for number in 0..wanted.min((budget / each).max(1)) {
            let picked: Vec<usize> = (0..messages).map(|_| sizes.pick(random)).collect();
            let seed = (self.bodies.len() * messages) as u32;
            let shape = &shapes[number % shapes.len()];
            self.bodies
                .push(SendBody::new(plan.run, seed, &picked, shape, batch));
        }
    }

    /// The number of the body for the `turn`th request of a segment.
    #[inline]
    fn body(&self, segment: usize, turn: usize) -> usize {
        let range = &self.segments[segment.min(self.segments.len() - 1)];
        range.start + turn % range.len()
    }
}

/// The state of one connection.
pub struct Producer {
    stream: u32,
    /// Queues in turn, and the highest offset that was acknowledged in each.
    queues: Vec<(usize, Option<u64>)>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    turn: usize,
    seq: u64,
    keys: u64,
    deliver: Option<Deliver>,
    /// For the times of delivery.
    random: Random,
    checked: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    opaque: i32,
    busy: bool,
    intended_ns: u64,
    body: u32,
    queue_turn: u32,
    seq: u64,
    floor: Option<u64>,
}

impl Producer {
    /// A connection on which nothing was sent yet.
    pub fn new(plan: &Plan, producer: &ProducerPlan, checked: bool) -> Self {
        let in_flight = plan.sending.in_flight.min(MAX_IN_FLIGHT);
        Self {
            stream: producer.stream,
            queues: producer.queues.iter().map(|queue| (*queue, None)).collect(),
            slots: vec![Slot::default(); in_flight],
            // The lowest slot goes first: few in flight stay in few cache lines.
            free: (0..in_flight as u32).rev().collect(),
            // Connections do not all begin with the same queue.
            turn: producer.stream as usize,
            seq: 0,
            keys: plan.sending.keys.unwrap_or(0),
            deliver: plan.sending.deliver,
            random: Random::new(u64::from(plan.run) + u64::from(producer.stream)),
            checked,
        }
    }

    /// How many more requests may be sent now.
    #[inline]
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// How many requests wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Appends a request to `out`. There must be room.
    #[inline]
    pub fn send(
        &mut self,
        templates: &Templates,
        born: &Born,
        out: &mut Vec<u8>,
        intended: Intended,
    ) {
        let intended_ns = intended.at_ns;
        let Some(slot_number) = self.free.pop() else {
            return;
        };
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let queue_turn = turn % self.queues.len();
        let (queue, floor) = self.queues[queue_turn];
        let headers = &templates.headers[queue];
        let body_number = templates.body(intended.segment, turn);
        let body = &templates.bodies[body_number];
        let slot = &mut self.slots[slot_number as usize];
        let generation = (slot.opaque - FIRST_OPAQUE).max(0) >> SLOT_BITS;
        let generation = (generation + 1) & ((1 << (OPAQUE_BITS - SLOT_BITS)) - 1);
        *slot = Slot {
            opaque: FIRST_OPAQUE + (generation << SLOT_BITS | slot_number as i32),
            busy: true,
            intended_ns,
            body: body_number as u32,
            queue_turn: queue_turn as u32,
            seq: self.seq,
            floor,
        };
        let values = Values {
            opaque: slot.opaque,
            stream: self.stream.into(),
            unique: self.seq,
            key: if self.keys == 0 {
                0
            } else {
                self.seq % self.keys
            },
            seq: self.seq,
            sent_ns: intended_ns,
            deliver_ms: self.deliver.map_or(0, |deliver| {
                deliver.from_ms + self.random.below(deliver.within_ms.max(1))
            }),
        };
        self.seq += body.messages() as u64;
        push_send(out, &headers[turn % headers.len()], body, born, &values);
    }

    /// Takes an answer; `false` where nothing waited for it.
    #[inline]
    pub fn reply(
        &mut self,
        reply: &Reply,
        frame: &[u8],
        now_ns: u64,
        templates: &Templates,
        recorder: &mut Recorder,
        checker: &mut Checker,
    ) -> bool {
        let slot_number = (reply.opaque.wrapping_sub(FIRST_OPAQUE) as u32) & ((1 << SLOT_BITS) - 1);
        let Some(slot) = self.slots.get_mut(slot_number as usize) else {
            return false;
        };
        if !slot.busy || slot.opaque != reply.opaque {
            return false;
        }
        slot.busy = false;
        let slot = *slot;
        self.free.push(slot_number);
        let body = &templates.bodies[slot.body as usize];
        let (messages, bytes) = (body.messages() as u64, body.payload_bytes() as u64);
        if reply.code != response::SUCCESS {
            recorder.failed(Track::Send, now_ns, reply.code);
            if self.checked {
                checker.uncertain(messages);
            }
            return true;
        }
        recorder.done(Track::Send, slot.intended_ns, now_ns, messages, bytes);
        if self.checked {
            let offset = Frame::parse(frame)
                .ok()
                .and_then(|frame| SendMessageResponse::decode(&frame.ext).ok())
                .and_then(|answer| u64::try_from(answer.queue_offset).ok());
            let Some(offset) = offset else {
                checker.uncertain(messages);
                return true;
            };
            let (queue, highest) = &mut self.queues[slot.queue_turn as usize];
            let last = offset + messages - 1;
            *highest = Some(highest.map_or(last, |highest| highest.max(last)));
            let first = (self.stream, slot.seq);
            checker.acknowledged(*queue, offset, first, messages, slot.floor);
        }
        true
    }

    /// When the requests that wait for an answer were to be sent.
    pub fn still_waiting(&self) -> impl Iterator<Item = u64> {
        let busy = self.slots.iter().filter(|slot| slot.busy);
        busy.map(|slot| slot.intended_ns)
    }

    /// The end: how many messages are without an answer.
    pub fn unanswered(&self, templates: &Templates) -> u64 {
        let busy = self.slots.iter().filter(|slot| slot.busy);
        busy.map(|slot| templates.bodies[slot.body as usize].messages() as u64)
            .sum()
    }
}
