//! Pops: nobody gets what is invisible or was acknowledged, what was not acknowledged comes again with one failure more, and
//! goes to the dead letters after the last one.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::{request, response};
use corelane_wire::record::Record;

use super::handle::{Handle, Place};
use super::kept::Kept;
use super::{AskedPop, Feature, Received, World};

pub const TOPIC: &str = "popped";
pub const GROUP: &str = "poppers";
pub const MAX_RETRIES: i32 = 2;
const DEAD: &str = "%DLQ%poppers";
/// Acknowledgements are gathered for so long before they are journalled.
pub const JOURNALLED_MS: i64 = 300;

/// A copy that was popped.
struct Copy {
    body: String,
    handle: Handle,
    /// Nobody gets it before, unless a crash makes the pop forgotten.
    due_ms: i64,
    /// It is on the disk.
    stored: bool,
    /// The pop is on the disk.
    durable: bool,
    pops: usize,
    /// A request about it is under way.
    busy: bool,
    /// When it was acknowledged in time.
    acked_ms: Option<i64>,
    /// No crash can undo that.
    done: bool,
}

#[derive(Default)]
struct Message {
    stored: Kept<bool>,
    /// Copies that were popped, by the number of failures.
    copies: BTreeMap<i32, usize>,
    /// Some copy was acknowledged, in time or not.
    acked: bool,
}

enum Asked {
    Send(String),
    Pop {
        invisible_ms: i64,
    },
    /// Whether each is acknowledged in time.
    Acks(Vec<(Place, bool)>),
    Change(Place),
}

#[derive(Default)]
pub struct Pops {
    messages: BTreeMap<String, Message>,
    copies: BTreeMap<Place, Copy>,
    asked: HashMap<i32, Asked>,
}

impl Pops {
    fn pop(&mut self, world: &mut World) {
        let invisible_ms = [1_000, 5_000, 15_000][world.random.below(3)];
        let poll_ms = [0, 0, 2_000][world.random.below(3)];
        let most = 1 + world.random.below(8);
        let queue_id = world.random.below(4) as i32 - 1;
        let asked = AskedPop {
            group: GROUP,
            topic: TOPIC,
            queue_id,
            most,
            invisible_ms,
            poll_ms,
        };
        let opaque = world.pop(&asked, &[]);
        self.asked.insert(opaque, Asked::Pop { invisible_ms });
    }

    /// Copies about which something can be asked.
    fn open(&self) -> impl Iterator<Item = Place> {
        let open = self
            .copies
            .iter()
            .filter(|(_, copy)| !copy.busy && copy.acked_ms.is_none());
        open.map(|(place, _)| *place)
    }

    /// Acknowledges one copy, or several with one request; with `late` also such as come again already.
    fn acknowledge(&mut self, world: &mut World, late: bool) {
        let now_ms = world.now_ms();
        let open = self.open();
        let mut open: Vec<Place> = open
            .filter(|place| late || now_ms < self.copies[place].due_ms)
            .collect();
        if open.is_empty() {
            return;
        }
        let at = world.random.below(open.len());
        match world.random.below(3) {
            0 => {
                let one_in = 1 + world.random.below(4);
                open.retain(|_| world.random.one_in(one_in));
            }
            _ => open = vec![open[at]],
        }
        let (mut handles, mut acks) = (Vec::new(), Vec::new());
        for place in open {
            let copy = self.copies.get_mut(&place).unwrap();
            copy.busy = true;
            if let Some(message) = self.messages.get_mut(&copy.body) {
                message.acked = true;
            }
            handles.push(copy.handle.clone());
            acks.push((place, now_ms < copy.due_ms));
        }
        let opaque = match &*handles {
            [] => return,
            [handle] => ask_about(world, request::ACK_MESSAGE, handle, &[]),
            several => {
                let body = Handle::batch(several, GROUP, TOPIC);
                world.ask(request::BATCH_ACK_MESSAGE, &[], &body)
            }
        };
        self.asked.insert(opaque, Asked::Acks(acks));
    }

    /// Changes how long a copy is invisible.
    fn change(&mut self, world: &mut World) {
        let now_ms = world.now_ms();
        let open = self.open();
        let open: Vec<Place> = open
            .filter(|place| now_ms < self.copies[place].due_ms)
            .collect();
        if open.is_empty() {
            return;
        }
        let place = open[world.random.below(open.len())];
        let copy = self.copies.get_mut(&place).unwrap();
        copy.busy = true;
        let invisible_ms = (500 + world.random.below(10_000)).to_string();
        let more = [("invisibleTime", &*invisible_ms)];
        let code = request::CHANGE_MESSAGE_INVISIBLETIME;
        let opaque = ask_about(world, code, &copy.handle, &more);
        self.asked.insert(opaque, Asked::Change(place));
    }

    fn take_pop(&mut self, world: &World, answer: &Received, invisible_ms: i64) {
        let seed = world.seed;
        let pop_ms: i64 = answer.fields["popTime"].parse().unwrap();
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let (record, next) = Record::parse(rest).unwrap();
            rest = next;
            assert_eq!((record.topic(), record.check_body_crc()), (TOPIC, true));
            let handle = Handle::of(answer, &record);
            let place = handle.place;
            let body = String::from_utf8_lossy(record.body()).into_owned();
            let failures = record.reconsume_times();
            let is = format!("seed {seed}: {place:?} of {body}");
            let message = self.messages.get_mut(&body).unwrap();
            assert_eq!(place.0, failures > 0, "{is}");
            assert!(
                failures <= MAX_RETRIES,
                "{is} came after {failures} failures"
            );
            let copy = self.copies.entry(place).or_insert_with(|| {
                *message.copies.entry(failures).or_default() += 1;
                Copy {
                    body: body.clone(),
                    handle: handle.clone(),
                    due_ms: 0,
                    stored: false,
                    durable: false,
                    pops: 0,
                    busy: false,
                    acked_ms: None,
                    done: false,
                }
            });
            assert_eq!(copy.body, body, "{is}");
            assert!(!copy.done, "{is} came after it was acknowledged");
            assert!(pop_ms >= copy.due_ms, "{is} came while it was invisible");
            copy.pops += 1;
            assert!(
                copy.pops <= 1 + world.crashes as usize,
                "{is} was popped {} times",
                copy.pops
            );
            assert!(
                message.copies[&failures] <= world.copies(),
                "{is}: a copy too many"
            );
            (copy.handle, copy.due_ms) = (handle, pop_ms + invisible_ms);
            (copy.durable, copy.acked_ms) = (false, None);
        }
    }

    fn take_change(&mut self, answer: &Received, place: Place) {
        let copy = self.copies.get_mut(&place).unwrap();
        copy.handle = copy.handle.changed(answer);
        (copy.due_ms, copy.durable) = (copy.handle.due_ms(), false);
    }
}

/// Asks something about one copy.
fn ask_about(world: &mut World, code: i32, handle: &Handle, more: &[(&str, &str)]) -> i32 {
    let (text, queue_id) = (handle.to_string(), handle.place.1.to_string());
    let (topic, offset) = (handle.topic(GROUP, TOPIC), handle.place.2.to_string());
    let mut fields = vec![
        ("consumerGroup", GROUP),
        ("topic", &*topic),
        ("queueId", &queue_id),
        ("extraInfo", &text),
        ("offset", &offset),
    ];
    fields.extend(more);
    world.ask(code, &fields, &[])
}

impl Feature for Pops {
    fn act(&mut self, world: &mut World) {
        match world.random.below(8) {
            0 | 1 => {
                let body = world.body("popped");
                let opaque = world.send(TOPIC, &body, &[]);
                self.messages.insert(body.clone(), Message::default());
                self.asked.insert(opaque, Asked::Send(body));
            }
            2..5 => self.pop(world),
            5 | 6 => self.acknowledge(world, true),
            _ => self.change(world),
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        match self.asked.remove(&frame.opaque) {
            None => return false,
            Some(Asked::Send(body)) => {
                let message = self.messages.get_mut(&body).unwrap();
                message.stored.set(world, world.done(frame));
            }
            Some(Asked::Pop { invisible_ms }) => {
                let nothing = [
                    response::PULL_NOT_FOUND,
                    response::POLLING_FULL,
                    response::POLLING_TIMEOUT,
                ];
                if !nothing.contains(&frame.code) && world.done(frame) {
                    self.take_pop(world, frame, invisible_ms);
                }
            }
            Some(Asked::Acks(acks)) => {
                let done = world.done(frame);
                let now_ms = world.now_ms();
                for (place, in_time) in acks {
                    let copy = self.copies.get_mut(&place).unwrap();
                    copy.busy = false;
                    if done && in_time {
                        copy.acked_ms = Some(now_ms);
                    }
                }
            }
            Some(Asked::Change(place)) => {
                self.copies.get_mut(&place).unwrap().busy = false;
                if world.done(frame) {
                    self.take_change(frame, place);
                }
            }
        }
        true
    }

    fn flushed(&mut self, world: &World) {
        let now_ms = world.now_ms();
        for message in self.messages.values_mut() {
            message.stored.flushed();
        }
        for copy in self.copies.values_mut() {
            (copy.stored, copy.durable) = (true, true);
            copy.done |= copy
                .acked_ms
                .is_some_and(|acked_ms| now_ms >= acked_ms + JOURNALLED_MS);
        }
    }

    fn crashed(&mut self, world: &World) {
        self.asked.clear();
        for message in self.messages.values_mut() {
            message.stored.crashed();
        }
        // What is not on the disk is gone, and others may come to its place.
        self.copies.retain(|_, copy| world.sync || copy.stored);
        for copy in self.copies.values_mut() {
            copy.busy = false;
            if !copy.durable {
                copy.due_ms = 0;
            }
            if !copy.done {
                copy.acked_ms = None;
            }
        }
    }

    fn finish(&mut self, world: &mut World) {
        self.pop(world);
        self.pop(world);
        if world.random.one_in(3) {
            self.acknowledge(world, false);
        }
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut dead: HashMap<String, usize> = HashMap::new();
        for message in world.shard.stored(DEAD, 0) {
            *dead.entry(message.body).or_default() += 1;
        }
        for (body, message) in &self.messages {
            let dead = dead.remove(body).unwrap_or(0);
            let is = format!(
                "seed {seed}: {body}, acknowledged: {}, dead {dead}",
                message.acked
            );
            assert!(dead <= world.copies(), "{is}");
            assert!(
                !message.stored.get() || message.acked || dead > 0,
                "{is}: lost"
            );
            // A crash may take the answer to a pop with it: that was a failure that nobody saw.
            let seen = message.copies.len() + world.crashes as usize;
            assert!(
                dead == 0 || seen > MAX_RETRIES as usize,
                "{is}: dead after {:?}",
                message.copies
            );
        }
        assert!(dead.is_empty(), "seed {seed}: {dead:?}");
    }
}
