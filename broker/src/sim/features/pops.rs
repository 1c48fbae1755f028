//! Pops: nobody gets what is invisible or was acknowledged, what was not acknowledged comes again with one failure more, and
//! goes to the dead letters after the last one.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::{request, response};
use corelane_wire::record::Record;

use super::{Feature, Received, World};

pub const TOPIC: &str = "popped";
pub const GROUP: &str = "poppers";
pub const MAX_RETRIES: i32 = 2;
const RETRY: &str = "%RETRY%poppers_popped";
const DEAD: &str = "%DLQ%poppers";
/// Acknowledgements are gathered for so long before they are journalled.
const JOURNALLED_MS: i64 = 300;

/// A stored copy of a message: whether it lies in the retry topic, its queue and its offset.
type Place = (bool, i32, i64);

/// A copy that was popped.
struct Copy {
    body: String,
    handle: String,
    /// Nobody gets it before, unless a crash makes the pop forgotten.
    due_ms: i64,
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
    stored: bool,
    /// Copies that were popped, by the number of failures.
    copies: BTreeMap<i32, usize>,
    /// Some copy was acknowledged, in time or not.
    acked: bool,
}

enum Asked {
    Send(String),
    Pop { invisible_ms: i64 },
    Ack { place: Place, in_time: bool },
    Change(Place),
}

#[derive(Default)]
pub struct Pops {
    messages: BTreeMap<String, Message>,
    copies: BTreeMap<Place, Copy>,
    asked: HashMap<i32, Asked>,
}

/// `0 queue` is of the topic, `1 queue` of its retry topic; what belongs to it follows.
fn list(answer: &Received, name: &str, key: &str) -> String {
    let text = answer.fields.get(name).map_or("", String::as_str);
    let found = text
        .split(';')
        .filter_map(|list| list.rsplit_once(' '))
        .find(|(of, _)| *of == key);
    found.unwrap().1.to_owned()
}

impl Pops {
    fn pop(&mut self, world: &mut World) {
        let invisible_ms = [1_000, 5_000, 15_000][world.random.below(3)];
        let poll_ms = [0, 0, 2_000][world.random.below(3)];
        let most = 1 + world.random.below(8);
        let queue_id = world.random.below(4) as i32 - 1;
        let fields = [
            ("consumerGroup", GROUP),
            ("topic", TOPIC),
            ("queueId", &*queue_id.to_string()),
            ("maxMsgNums", &most.to_string()),
            ("invisibleTime", &invisible_ms.to_string()),
            ("pollTime", &poll_ms.to_string()),
            ("bornTime", &world.now_ms().to_string()),
            ("initMode", "0"),
        ];
        let opaque = world.ask(request::POP_MESSAGE, &fields, &[]);
        self.asked.insert(opaque, Asked::Pop { invisible_ms });
    }

    /// Acknowledges a copy, or changes how long it is invisible.
    fn answer_for(&mut self, world: &mut World, changes: bool) {
        let now_ms = world.now_ms();
        let open = |copy: &Copy| {
            let late = now_ms >= copy.due_ms;
            !copy.busy && copy.acked_ms.is_none() && (!changes || !late)
        };
        let mut open: Vec<_> = self
            .copies
            .iter_mut()
            .filter(|(_, copy)| open(copy))
            .collect();
        if open.is_empty() {
            return;
        }
        let (place, copy) = open.swap_remove(world.random.below(open.len()));
        let (queue_id, offset) = (place.1.to_string(), place.2.to_string());
        let invisible_ms = (500 + world.random.below(10_000)).to_string();
        let mut fields = vec![
            ("consumerGroup", GROUP),
            ("topic", if place.0 { RETRY } else { TOPIC }),
            ("queueId", &*queue_id),
            ("extraInfo", &copy.handle),
            ("offset", &offset),
        ];
        let (code, asked) = if changes {
            fields.push(("invisibleTime", &invisible_ms));
            (request::CHANGE_MESSAGE_INVISIBLETIME, Asked::Change(*place))
        } else {
            let in_time = now_ms < copy.due_ms;
            let place = *place;
            (request::ACK_MESSAGE, Asked::Ack { place, in_time })
        };
        copy.busy = true;
        if !changes && let Some(message) = self.messages.get_mut(&copy.body) {
            message.acked = true;
        }
        let opaque = world.ask(code, &fields, &[]);
        self.asked.insert(opaque, asked);
    }

    fn take_pop(&mut self, world: &World, answer: &Received, invisible_ms: i64) {
        let seed = world.seed;
        let field = |name: &str| answer.fields[name].as_str();
        let pop_ms: i64 = field("popTime").parse().unwrap();
        let mut rest = answer.body.as_slice();
        while !rest.is_empty() {
            let (record, next) = Record::parse(rest).unwrap();
            rest = next;
            assert_eq!((record.topic(), record.check_body_crc()), (TOPIC, true));
            let own = record.properties().get("POP_CK");
            let own = own.map(|handle| handle.to_str().into_owned());
            let place = (own.is_some(), record.queue_id(), record.queue_offset());
            let handle = own.unwrap_or_else(|| {
                let start = list(answer, "startOffsetInfo", &format!("0 {}", place.1));
                let (invisible, revive) = (field("invisibleTime"), field("reviveQid"));
                format!(
                    "{start} {pop_ms} {invisible} {revive} 0 broker-a {} {}",
                    place.1, place.2
                )
            });
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
                    handle: String::new(),
                    due_ms: 0,
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
        let field = |name: &str| answer.fields[name].as_str();
        let (pop, invisible) = (field("popTime"), field("invisibleTime"));
        let due_ms = pop.parse::<i64>().unwrap() + invisible.parse::<i64>().unwrap();
        let kind = i32::from(place.0);
        let (revive, queue_id, offset) = (field("reviveQid"), place.1, place.2);
        copy.handle =
            format!("{offset} {pop} {invisible} {revive} {kind} broker-a {queue_id} {offset}");
        (copy.due_ms, copy.durable) = (due_ms, false);
    }
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
            5 | 6 => self.answer_for(world, false),
            _ => self.answer_for(world, true),
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        match self.asked.remove(&frame.opaque) {
            None => return false,
            Some(Asked::Send(body)) => {
                let message = self.messages.get_mut(&body).unwrap();
                message.stored = world.done(frame);
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
            Some(Asked::Ack { place, in_time }) => {
                let done = world.done(frame);
                let now_ms = world.now_ms();
                let copy = self.copies.get_mut(&place).unwrap();
                copy.busy = false;
                if done && in_time {
                    copy.acked_ms = Some(now_ms);
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
        for copy in self.copies.values_mut() {
            copy.durable = true;
            copy.done |= copy
                .acked_ms
                .is_some_and(|acked_ms| now_ms >= acked_ms + JOURNALLED_MS);
        }
    }

    fn crashed(&mut self) {
        self.asked.clear();
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
            self.answer_for(world, false);
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
            assert!(!message.stored || message.acked || dead > 0, "{is}: lost");
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
