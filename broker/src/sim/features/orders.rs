//! Orderly pops: a queue gives nothing while something of it is out; then it goes on at its first message that is not
//! acknowledged, and says how often each came before.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::{request, response};
use corelane_wire::record::Record;

use super::handle::{Handle, listed};
use super::pops::JOURNALLED_MS;
use super::{AskedPop, Feature, QUEUES, Received, World};

pub const TOPIC: &str = "ordered";
pub const GROUP: &str = "orderlies";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ack {
    No,
    /// The broker may know of it.
    Maybe,
    /// Since then.
    Yes(i64),
}

/// A message of the last pop of a queue.
struct Out {
    handle: Handle,
    count: i64,
    ack: Ack,
    /// No crash can undo the acknowledgement.
    kept: bool,
    /// The queue is blocked until then, and at least until `sure_ms` after a crash.
    due_ms: i64,
    sure_ms: i64,
    changed_ms: i64,
}

#[derive(Default)]
struct Queue {
    pop_ms: i64,
    attempt: String,
    out: Vec<Out>,
    /// Handles of the pop before.
    stale: Vec<Handle>,
    /// The broker remembers this pop; a crash cannot undo it.
    known: bool,
    durable: bool,
    /// Between which offsets the next pop begins, and where not before, whatever happens.
    low: i64,
    high: i64,
    floor: i64,
}

impl Queue {
    /// The first message that is not acknowledged.
    fn next(&self, is_done: impl Fn(&Out) -> bool) -> i64 {
        let last = self
            .out
            .last()
            .map_or(self.low, |out| out.handle.place.2 + 1);
        let open = self.out.iter().find(|out| !is_done(out));
        open.map_or(last, |out| out.handle.place.2)
    }
}

enum Asked {
    Pop { attempt: String },
    Change(Handle),
    Other,
}

#[derive(Default)]
pub struct Orders {
    queues: BTreeMap<i32, Queue>,
    asked: HashMap<i32, Asked>,
}

impl Orders {
    fn pop(&mut self, world: &mut World, most: usize) {
        let invisible_ms = [1_000, 5_000, 15_000][world.random.below(3)];
        let poll_ms = [0, 0, 2_000][world.random.below(3)];
        let attempt = ["", "one", "two"][world.random.below(3)];
        let queue_id = world.random.below(QUEUES as usize + 1) as i32 - 1;
        let asked = AskedPop {
            group: GROUP,
            topic: TOPIC,
            queue_id,
            most,
            invisible_ms,
            poll_ms,
        };
        let opaque = world.pop(&asked, &[("order", "true"), ("attemptId", attempt)]);
        let attempt = attempt.to_owned();
        self.asked.insert(opaque, Asked::Pop { attempt });
    }

    /// The handles that are not acknowledged.
    fn open(&self) -> Vec<Handle> {
        let out = self.queues.values().flat_map(|queue| &queue.out);
        out.filter(|out| out.ack == Ack::No)
            .map(|out| out.handle.clone())
            .collect()
    }

    /// It takes effect at once: a pop that waits may be answered before the acknowledgement is.
    fn ack(&mut self, world: &mut World, handles: &[Handle]) {
        let opaque = match handles {
            [] => return,
            [handle] => ask_about(world, request::ACK_MESSAGE, handle, &[]),
            several => {
                let body = Handle::batch(several, GROUP, TOPIC);
                world.ask(request::BATCH_ACK_MESSAGE, &[], &body)
            }
        };
        self.asked.insert(opaque, Asked::Other);
        self.acked(world.now_ms(), handles);
    }

    /// Acknowledges by handles that another pop has made worthless.
    fn ack_stale(&mut self, world: &mut World) {
        let known = self.queues.values().filter(|queue| queue.known);
        let stale = known.flat_map(|queue| {
            let old = queue.stale.iter();
            old.filter(|handle| handle.pop_ms != queue.pop_ms)
        });
        let stale: Vec<Handle> = stale.cloned().collect();
        if !stale.is_empty() {
            let handle = &stale[world.random.below(stale.len())];
            let opaque = ask_about(world, request::ACK_MESSAGE, handle, &[]);
            self.asked.insert(opaque, Asked::Other);
        }
    }

    fn change(&mut self, world: &mut World) {
        let mut open = self.open();
        if open.is_empty() {
            return;
        }
        let handle = open.swap_remove(world.random.below(open.len()));
        let invisible_ms = [0, 700, 3_000, 10_000][world.random.below(4)].to_string();
        let more = [("invisibleTime", &*invisible_ms)];
        let code = request::CHANGE_MESSAGE_INVISIBLETIME;
        let opaque = ask_about(world, code, &handle, &more);
        self.asked.insert(opaque, Asked::Change(handle));
    }

    fn take_pop(&mut self, world: &World, answer: &Received, attempt: &str) {
        let seed = world.seed;
        let mut popped: BTreeMap<i32, Vec<Handle>> = BTreeMap::new();
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let (record, next) = Record::parse(rest).unwrap();
            rest = next;
            assert_eq!((record.topic(), record.check_body_crc()), (TOPIC, true));
            let handle = Handle::of(answer, &record);
            popped.entry(record.queue_id()).or_default().push(handle);
        }
        for (queue_id, handles) in popped {
            let queue = self.queues.entry(queue_id).or_default();
            let (first, pop_ms) = (handles[0].place.2, handles[0].pop_ms);
            let is = format!("seed {seed}: queue {queue_id} at {first}");
            assert!(
                (queue.low..=queue.high).contains(&first),
                "{is}: the first one that is not acknowledged is {}..={}",
                queue.low,
                queue.high
            );
            let same = !attempt.is_empty() && queue.attempt == attempt;
            let blocked = queue.out.iter().any(|out| out.due_ms > pop_ms);
            assert!(
                same || !blocked,
                "{is} was popped while messages of it were out"
            );
            let mut out = Vec::new();
            for (handle, offset) in handles.into_iter().zip(first..) {
                assert_eq!(handle.place.2, offset, "{is}: one is left out");
                let before = queue.out.iter().find(|out| out.handle.place.2 == offset);
                let count = before.map_or(0, |before| before.count + i64::from(!same));
                let key = format!("0 qo{queue_id}%{offset}");
                let told = listed(answer, "orderCountInfo", &key).unwrap();
                assert!(
                    !queue.known || told == count,
                    "{is}: {offset} came {count} times before, not {told}"
                );
                let due_ms = handle.due_ms();
                out.push(Out {
                    handle,
                    count: told,
                    ack: Ack::No,
                    kept: false,
                    due_ms,
                    sure_ms: 0,
                    changed_ms: 0,
                });
            }
            queue.stale = queue.out.drain(..).map(|out| out.handle).collect();
            (queue.pop_ms, queue.attempt, queue.out) = (pop_ms, attempt.to_owned(), out);
            (queue.known, queue.durable) = (true, false);
            (queue.low, queue.high) = (first, first);
        }
    }

    fn acked(&mut self, now_ms: i64, handles: &[Handle]) {
        for handle in handles {
            let queue = self.queues.get_mut(&handle.place.1).unwrap();
            if queue.pop_ms != handle.pop_ms {
                continue;
            }
            for out in &mut queue.out {
                if out.handle.place == handle.place && out.ack == Ack::No {
                    out.ack = match queue.known {
                        true => Ack::Yes(now_ms),
                        false => Ack::Maybe,
                    };
                    out.due_ms = 0;
                }
            }
            if queue.known {
                let next = queue.next(|out| matches!(out.ack, Ack::Yes(_)));
                queue.low = queue.low.max(next);
            }
            queue.high = queue.high.max(queue.next(|out| out.ack != Ack::No));
        }
    }

    fn take_change(&mut self, now_ms: i64, answer: &Received, handle: &Handle) {
        let queue = self.queues.get_mut(&handle.place.1).unwrap();
        let due_ms = handle.changed(answer).due_ms();
        if queue.pop_ms != handle.pop_ms || !queue.known {
            return;
        }
        for out in &mut queue.out {
            if out.handle.place == handle.place && out.ack == Ack::No {
                (out.due_ms, out.changed_ms) = (due_ms, now_ms);
                out.sure_ms = out.sure_ms.min(due_ms);
            }
        }
    }
}

/// Asks something about one popped message.
fn ask_about(world: &mut World, code: i32, handle: &Handle, more: &[(&str, &str)]) -> i32 {
    let (text, queue_id) = (handle.to_string(), handle.place.1.to_string());
    let offset = handle.place.2.to_string();
    let mut fields = vec![
        ("consumerGroup", GROUP),
        ("topic", TOPIC),
        ("queueId", &*queue_id),
        ("extraInfo", &text),
        ("offset", &offset),
    ];
    fields.extend(more);
    world.ask(code, &fields, &[])
}

impl Feature for Orders {
    fn act(&mut self, world: &mut World) {
        match world.random.below(9) {
            0 | 1 => {
                let body = world.body("ordered");
                let opaque = world.send(TOPIC, &body, &[]);
                self.asked.insert(opaque, Asked::Other);
            }
            2..5 => {
                let most = 1 + world.random.below(6);
                self.pop(world, most);
            }
            5 => self.ack_stale(world),
            6 => self.change(world),
            _ => {
                let mut open = self.open();
                let one_in = 1 + world.random.below(3);
                open.retain(|_| world.random.one_in(one_in));
                self.ack(world, &open);
            }
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        let Some(asked) = self.asked.remove(&frame.opaque) else {
            return false;
        };
        let nothing = [
            response::PULL_NOT_FOUND,
            response::POLLING_FULL,
            response::POLLING_TIMEOUT,
        ];
        // The handle of a pop that a crash has undone may name another one of the same moment.
        let undone = world.crashes > 0 && frame.code == response::MESSAGE_ILLEGAL;
        if undone || nothing.contains(&frame.code) || !world.done(frame) {
            return true;
        }
        match asked {
            Asked::Pop { attempt } => self.take_pop(world, frame, &attempt),
            Asked::Change(handle) => self.take_change(world.now_ms(), frame, &handle),
            Asked::Other => {}
        }
        true
    }

    fn flushed(&mut self, world: &World) {
        let journalled_ms = world.now_ms() - JOURNALLED_MS;
        for queue in self.queues.values_mut().filter(|queue| queue.known) {
            queue.durable = true;
            for out in &mut queue.out {
                out.kept = matches!(out.ack, Ack::Yes(since_ms) if since_ms <= journalled_ms);
                if out.changed_ms <= journalled_ms {
                    out.sure_ms = out.due_ms;
                }
            }
            queue.floor = queue.floor.max(queue.next(|out| out.kept));
        }
    }

    fn crashed(&mut self, world: &World) {
        self.asked.clear();
        for queue in self.queues.values_mut() {
            queue.known &= queue.durable;
            queue.low = queue.floor;
            if !queue.known && !world.sync {
                // The messages themselves may be gone.
                queue.out.clear();
            }
            for out in &mut queue.out {
                if matches!(out.ack, Ack::Yes(_)) && !out.kept {
                    out.ack = Ack::Maybe;
                }
                out.due_ms = match (queue.known, out.ack) {
                    (true, Ack::No) => out.sure_ms,
                    _ => 0,
                };
            }
        }
    }

    fn finish(&mut self, world: &mut World) {
        let open = self.open();
        self.ack(world, &open);
        self.pop(world, 32);
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        for queue_id in 0..QUEUES {
            let stored = world.shard.stored(TOPIC, queue_id).len() as i64;
            // What was acknowledged just before a crash comes again, or does not.
            let next = self.queues.get(&queue_id).map_or(0, |queue| queue.high);
            // A crash may have taken messages that were not on the disk, too.
            assert!(
                next == stored || !world.sync && next > stored,
                "seed {seed}: queue {queue_id} has a rest: {next} of {stored}"
            );
        }
    }
}
