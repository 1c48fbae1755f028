//! A group's offsets, copied to another group: all of them or none, each for its own queue.

use std::collections::BTreeSet;

use corelane_wire::code::{request, response};

use super::{Feature, QUEUES, Received, World};

pub const TOPIC: &str = "copied";
pub const SOURCE: &str = "originals";
pub const TARGET: &str = "copies";
/// Offsets of two queues are never the same.
const APART: i64 = 1_000;

/// What the offset of a queue may be; 0 where there is none.
struct Offset {
    now: BTreeSet<i64>,
    /// What it was when all was on the disk, and since.
    since: BTreeSet<i64>,
}

impl Offset {
    fn may_be(&mut self, offsets: &BTreeSet<i64>) {
        self.now.extend(offsets);
        self.since.extend(offsets);
    }

    fn is(&mut self, world: &World, offsets: &BTreeSet<i64>) {
        self.now.clone_from(offsets);
        self.since.extend(offsets);
        if world.sync {
            self.since.clone_from(offsets);
        }
    }
}

enum Asked {
    Commit(usize, i64),
    Clone,
    Query(bool, usize),
}

/// One request is under way at a time: a source that changes meanwhile would be another test.
pub struct Clones {
    source: Vec<Offset>,
    target: Vec<Offset>,
    asked: Option<(i32, Asked)>,
}

impl Default for Clones {
    fn default() -> Self {
        let none = || {
            let offset = |_| Offset {
                now: BTreeSet::from([0]),
                since: BTreeSet::from([0]),
            };
            (0..QUEUES).map(offset).collect()
        };
        Self {
            source: none(),
            target: none(),
            asked: None,
        }
    }
}

impl Clones {
    fn commit(&mut self, world: &mut World) {
        let queue_id = world.queue_id();
        let offset = i64::from(queue_id + 1) * APART + world.random.below(500) as i64;
        let fields = [
            ("consumerGroup", SOURCE),
            ("topic", TOPIC),
            ("queueId", &*queue_id.to_string()),
            ("commitOffset", &offset.to_string()),
        ];
        let opaque = world.ask(request::UPDATE_CONSUMER_OFFSET, &fields, &[]);
        self.asked = Some((opaque, Asked::Commit(queue_id as usize, offset)));
    }

    fn clone_offsets(&mut self, world: &mut World) {
        let fields = [
            ("srcGroup", SOURCE),
            ("destGroup", TARGET),
            ("topic", TOPIC),
            ("offline", "true"),
        ];
        let opaque = world.ask(request::CLONE_GROUP_OFFSET, &fields, &[]);
        self.asked = Some((opaque, Asked::Clone));
    }

    fn query(&mut self, world: &mut World) {
        let queue_id = world.queue_id();
        let of_target = world.random.one_in(2);
        let fields = [
            ("consumerGroup", if of_target { TARGET } else { SOURCE }),
            ("topic", TOPIC),
            ("queueId", &*queue_id.to_string()),
        ];
        let opaque = world.ask(request::QUERY_CONSUMER_OFFSET, &fields, &[]);
        self.asked = Some((opaque, Asked::Query(of_target, queue_id as usize)));
    }

    fn take_query(&mut self, world: &World, answer: &Received, of_target: bool, queue_id: usize) {
        let found = answer.fields.get("offset");
        let offset = found.map_or(0, |offset| offset.parse().unwrap());
        let offsets = if of_target {
            &mut self.target
        } else {
            &mut self.source
        };
        let may_be = &mut offsets[queue_id].now;
        assert!(
            may_be.contains(&offset),
            "seed {}: queue {queue_id} is at {offset}, not one of {may_be:?}, cloned: {of_target}",
            world.seed
        );
        *may_be = BTreeSet::from([offset]);
    }
}

impl Feature for Clones {
    fn act(&mut self, world: &mut World) {
        if self.asked.is_some() {
            return;
        }
        match world.random.below(6) {
            0..2 => self.commit(world),
            2 => self.clone_offsets(world),
            _ => self.query(world),
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        let Some((_, asked)) = self.asked.take_if(|(opaque, _)| *opaque == frame.opaque) else {
            return false;
        };
        if frame.code != response::QUERY_NOT_FOUND && !world.done(frame) {
            return true;
        }
        match asked {
            Asked::Commit(queue_id, offset) => {
                self.source[queue_id].is(world, &BTreeSet::from([offset]));
            }
            Asked::Clone => {
                for (target, source) in self.target.iter_mut().zip(&self.source) {
                    // What the source has none of, the target keeps.
                    let mut cloned = source.now.clone();
                    if cloned.remove(&0) {
                        cloned.extend(&target.now);
                    }
                    target.is(world, &cloned);
                }
            }
            Asked::Query(of_target, queue_id) => {
                self.take_query(world, frame, of_target, queue_id);
            }
        }
        true
    }

    fn flushed(&mut self, _: &World) {
        for offset in self.source.iter_mut().chain(&mut self.target) {
            offset.since.clone_from(&offset.now);
        }
    }

    fn crashed(&mut self, _: &World) {
        for offset in self.source.iter_mut().chain(&mut self.target) {
            offset.now.clone_from(&offset.since);
        }
        match self.asked.take() {
            Some((_, Asked::Commit(queue_id, offset))) => {
                self.source[queue_id].may_be(&BTreeSet::from([offset]));
            }
            Some((_, Asked::Clone)) => {
                for (target, source) in self.target.iter_mut().zip(&self.source) {
                    target.may_be(&source.now);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, world: &mut World) {
        if self.asked.is_none() {
            self.query(world);
        }
    }

    /// It has looked all the time.
    fn check(&mut self, _: &mut World) {}
}
