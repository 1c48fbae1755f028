//! Queues with gaps: made to go on at an offset, or after damage that the log was told to go on without. Nothing else is
//! lost, no offset is given twice, and later starts know of it. A failing seed is named by the panic.

use super::seeds::{run_many, run_named, run_one};
use super::{LogHost, Random, SimDisk, block_on};
use crate::log::{
    FlushMode, Log, LogOptions, OpenError, Position, ReadMiss, Replay, ReplayError, VerifyReport,
    sample, verify,
};
use corelane_wire::properties::MessageKeys;
use std::collections::{BTreeMap, BTreeSet};

/// State records that say nothing.
const NOTHING: u16 = 3;
/// State records that name a topic whose queues are dropped.
const DROPPED: u16 = 4;

struct Drops;

impl Replay for Drops {
    fn state(&mut self, log: &mut Log, kind: u16, payload: &[u8]) -> Result<(), ReplayError> {
        if kind == DROPPED {
            log.drop_topic(TOPICS[usize::from(payload[0])]);
        }
        Ok(())
    }
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

fn options(skip_damage: Option<Position>) -> LogOptions {
    LogOptions {
        segment_bytes: 2 * 65536,
        first_segment_bytes: 65536,
        block_bytes: 4096,
        buffer_bytes: 16384,
        tail_cache_bytes: 0,
        index_memory_bytes: 2000,
        read_cache_bytes: 1 << 20,
        max_group_bytes: 8192,
        max_record_bytes: 20000,
        max_writes_in_flight: 2,
        max_unflushed_bytes: 65536,
        snapshot_bytes: u64::MAX,
        retention_bytes: u64::MAX,
        retention_ms: i64::MAX,
        flush: FlushMode::Sync,
        skip_damage,
        ..LogOptions::default()
    }
}

type Place = (usize, i32, i64);

/// A log, and what must be in it.
struct World {
    disk: SimDisk,
    host: LogHost,
    random: Random,
    drops: bool,
    kept: BTreeMap<Place, (Position, Vec<u8>)>,
    /// One past the highest offset that each queue has ever given.
    ends: BTreeMap<(usize, i32), i64>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::of(seed, false)
    }

    /// With `drops`, work drops topics, and indexes are merged.
    fn of(seed: u64, drops: bool) -> Self {
        let disk = SimDisk::new(seed);
        let host = reopen(&disk, drops, None).unwrap();
        Self {
            disk,
            host,
            random: Random::new(seed + 1),
            drops,
            kept: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    fn append(&mut self) {
        let (topic, queue_id) = (self.random.below(TOPICS.len()), self.random.below(2) as i32);
        self.append_to(topic, queue_id);
    }

    /// Returns its position.
    fn append_to(&mut self, topic: usize, queue_id: i32) -> Position {
        let len = self.random.below(3000);
        let body = vec![self.random.below(256) as u8; len];
        let queue = self.host.log.queue(TOPICS[topic], queue_id);
        let make = |position, offset| {
            sample::message(TOPICS[topic], queue_id, offset, position, 7, &body, b"")
        };
        let len = make(0, 0).len();
        let appended = self.host.log.append_message(
            queue,
            len,
            0,
            7,
            MessageKeys::default(),
            |position, offset, out| {
                out.copy_from_slice(&make(position, offset));
            },
        );
        let appended = appended.unwrap();
        let bytes = make(appended.position, appended.queue_offset);
        let place = (topic, queue_id, appended.queue_offset);
        assert!(
            self.kept
                .insert(place, (appended.position, bytes))
                .is_none(),
            "{place:?} is given twice"
        );
        let end = self.ends.entry((topic, queue_id)).or_default();
        assert!(*end <= appended.queue_offset, "{place:?} was given before");
        *end = appended.queue_offset + 1;
        appended.position
    }

    fn jump(&mut self) {
        let (topic, queue_id) = (self.random.below(TOPICS.len()), self.random.below(2) as i32);
        self.settle();
        let queue = self.host.log.queue(TOPICS[topic], queue_id);
        let to = self.host.log.next_offset(queue) + self.random.below(50) as i64;
        self.jump_to(topic, queue_id, to);
    }

    fn jump_to(&mut self, topic: usize, queue_id: i32, to: i64) {
        self.host.log.queue_at(TOPICS[topic], queue_id, to).unwrap();
        *self.ends.entry((topic, queue_id)).or_default() = to;
    }

    fn drop_topic(&mut self) {
        self.settle();
        let topic = self.random.below(TOPICS.len());
        self.host.log.drop_topic(TOPICS[topic]);
        let payload = [topic as u8];
        self.host.log.append_state(DROPPED, &payload).unwrap();
        self.kept.retain(|place, _| place.0 != topic);
        let ends = self
            .ends
            .extract_if((topic, i32::MIN)..(topic + 1, i32::MIN), |_, _| true);
        for ((topic, queue_id), end) in ends.collect::<Vec<_>>() {
            // The offsets of another life may go on where those of the last one end.
            if self.random.one_in(2) {
                self.jump_to(topic, queue_id, end);
            }
        }
    }

    fn settle(&mut self) {
        self.host.settle(0).unwrap();
    }

    fn work(&mut self, count: usize) {
        for _ in 0..count {
            match self.random.below(40) {
                0 => self.jump(),
                1 => self.host.log.snapshot(Vec::new()),
                2 => {
                    self.host.log.append_state(NOTHING, b"state").unwrap();
                }
                3 if self.drops => self.drop_topic(),
                _ => self.append(),
            }
            // A group for each, so that many say what was durable.
            self.settle();
        }
    }

    fn crash(&mut self) {
        self.disk.crash();
    }

    fn open(&mut self, skip_damage: Option<Position>) -> Result<(), OpenError> {
        self.host = reopen(&self.disk, self.drops, skip_damage)?;
        Ok(())
    }

    fn verify(&self) -> VerifyReport {
        block_on(&self.disk, verify(&self.disk.io()))
            .unwrap()
            .unwrap()
    }

    /// Flips a bit of the group of some record that others were appended after.
    fn damage(&mut self) {
        let mut positions: Vec<Position> = self.kept.values().map(|(at, _)| *at).collect();
        positions.sort_unstable();
        let at = positions[self.random.below(positions.len().saturating_sub(10).max(1))];
        let segment = self.host.log.segment_of(at).unwrap();
        let byte = at - segment.0 + self.random.below(90) as u64;
        self.disk
            .flip_bit(&segment.file_name(), byte * 8 + self.random.below(8) as u64);
    }

    /// Goes on without all damage, and forgets what lay in it.
    fn skip_all(&mut self) {
        loop {
            let report = self.verify();
            let Some(damage) = report.damage.first().cloned() else {
                break;
            };
            if let Err(error) = self.open(None) {
                let OpenError::Damaged { position, .. } = error else {
                    panic!("{error}")
                };
                assert!(
                    report
                        .damage
                        .iter()
                        .any(|damage| damage.position == position),
                    "opening reports {position}, verify {:?}",
                    report.damage
                );
            }
            self.crash();
            let (from, to) = (damage.position, damage.to.unwrap());
            self.kept
                .retain(|_, (position, _)| !(from..to).contains(position));
            // Other damage may still keep it from opening; this one is passed over.
            match self.open(Some(from)) {
                Ok(()) | Err(OpenError::Damaged { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            self.crash();
        }
        self.open(None).unwrap();
    }

    fn check(&mut self) {
        let mut seen = BTreeSet::new();
        let mut unheard_of = Vec::new();
        for (&(topic, queue_id), &end) in &self.ends {
            let Some(queue) = self.host.log.find_queue(TOPICS[topic], queue_id) else {
                assert!(
                    !self
                        .kept
                        .keys()
                        .any(|key| (key.0, key.1) == (topic, queue_id))
                );
                unheard_of.push((topic, queue_id));
                continue;
            };
            let max = self.host.log.max_offset(queue);
            assert!(
                end <= max,
                "queue {queue_id} of {topic} ends at {max}, and {end} was given"
            );
            let mut offset = self.host.log.min_offset(queue);
            loop {
                offset = self.host.log.next_kept(queue, offset);
                let mut entries = Vec::new();
                let log = &mut self.host;
                wait(log, |log| log.entries(queue, offset, 7, &mut entries));
                if entries.is_empty() {
                    assert_eq!(offset, max);
                    break;
                }
                for entry in entries {
                    let bytes = wait(&mut self.host, |log| log.record(entry.position, entry.size));
                    let place = (topic, queue_id, offset);
                    let (position, expected) = &self.kept[&place];
                    assert!(
                        *position == entry.position && **expected == *bytes,
                        "{place:?} is another one"
                    );
                    seen.insert(place);
                    offset += 1;
                }
            }
        }
        // Nothing is left that tells of them: they begin at 0.
        for queue in unheard_of {
            self.ends.remove(&queue);
        }
        let missing: Vec<_> = self.kept.keys().filter(|key| !seen.contains(key)).collect();
        assert!(missing.is_empty(), "{missing:?} are lost");
    }
}

fn reopen(
    disk: &SimDisk,
    merges: bool,
    skip_damage: Option<Position>,
) -> Result<LogHost, OpenError> {
    let mut options = options(skip_damage);
    if merges {
        (options.index_memory_bytes, options.index_rows) = (400, 4);
    }
    let opened = LogHost::open(disk, options, &mut Drops).unwrap();
    opened.map(|(host, _)| host)
}

fn wait<T>(host: &mut LogHost, mut ask: impl FnMut(&mut Log) -> Result<T, ReadMiss>) -> T {
    loop {
        match ask(&mut host.log) {
            Ok(found) => return found,
            Err(ReadMiss::Wanted(_)) => {}
            Err(miss) => panic!("{miss}"),
        }
        host.submit(0);
        assert!(host.step().unwrap());
    }
}

#[test]
fn queues_go_on_where_they_are_told() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.host.log.queue_at("a", 0, 1_000).unwrap();
        world.ends.insert((0, 0), 1_000);
        for _ in 0..4 {
            world.work(60);
            world.check();
            world.crash();
            world.open(None).unwrap();
            world.check();
        }
        let queue = world.host.log.find_queue("a", 0).unwrap();
        assert!(world.host.log.min_offset(queue) >= 1_000, "seed {seed}");
        assert_eq!(world.verify().damage, [], "seed {seed}");
    }
}

/// Seeds from this on drop topics and merge indexes too.
const DROPS_FROM: u64 = 100_000_000;

/// Returns the number of crashes.
fn damage_and_go_on(seed: u64) -> u64 {
    const LIVES: u64 = 3;
    let mut world = World::of(seed, seed >= DROPS_FROM);
    world.work(80);
    for _ in 0..LIVES {
        world.work(40);
        while world.kept.is_empty() {
            world.work(20);
        }
        world.crash();
        for _ in 0..=world.random.below(3) {
            world.damage();
        }
        world.skip_all();
        world.check();
        // What is appended now is no less safe, with the snapshot that is due and without it.
        world.work(20);
        world.check();
        if world.random.one_in(2) {
            world.host.log.snapshot(Vec::new());
            world.settle();
        }
        world.crash();
        world.open(None).unwrap();
        world.check();
        let report = world.verify();
        assert_eq!(report.damage, []);
        assert!(!report.holes.is_empty());
    }
    2 * LIVES
}

#[test]
fn what_is_not_damaged_stays_when_damage_is_passed_over() {
    // The first damages the group behind what was passed over, the second takes the only record before a gap, the last two a bit of a
    // queue's number, the others the last group of a segment and some of them the first of the next.
    let known = [
        500_748, 5_001_012, 5_001_704, 5_002_926, 5_006_340, 6_002_502, 6_012_021, 8_000_457,
        8_013_116,
    ];
    let drops = DROPS_FROM..DROPS_FROM + 20;
    for seed in (100..140).chain(known).chain(drops) {
        run_named("one_gap_seed", seed, damage_and_go_on);
    }
}

/// See `seeds` for how it is told what to do.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_gap_seeds() {
    run_many("one_gap_seed", damage_and_go_on);
}

#[test]
fn one_gap_seed() {
    run_one(damage_and_go_on);
}

#[test]
fn only_what_is_reported_can_be_passed_over_and_only_once() {
    let mut world = World::new(5);
    world.work(60);
    world.crash();
    assert!(matches!(
        world.open(Some(4096)),
        Err(OpenError::NotDamaged { first: None, .. })
    ));
    world.damage();
    let Err(OpenError::Damaged { position, .. }) = world.open(None) else {
        panic!("damage is not seen")
    };
    for other in [0, position - 4096, position + 4096, u64::MAX] {
        let refused = world.open(Some(other));
        assert!(
            matches!(refused, Err(OpenError::NotDamaged { first: Some(first), .. }) if first == position),
            "{other}"
        );
    }
    world.open(Some(position)).unwrap();
    world.crash();
    assert!(matches!(
        world.open(Some(position)),
        Err(OpenError::NotDamaged { .. })
    ));
    world.open(None).unwrap();
}

#[test]
fn a_lost_record_that_names_another_queue_ends_its_own() {
    let mut world = World::new(8);
    for queue_id in [0, 1] {
        world.append_to(0, queue_id);
        world.settle();
    }
    let lost = world.append_to(0, 0);
    world.settle();
    for _ in 0..5 {
        world.append_to(1, 0);
        world.settle();
    }
    world.crash();
    let segment = world.host.log.segment_of(lost).unwrap();
    // The last byte of the record's queue id: it says 1 now, and that queue is just as long.
    let at = (lost - segment.0) as usize + 15;
    world
        .disk
        .edit(&segment.file_name(), |bytes| bytes[at] ^= 1);
    world.skip_all();
    world.check();
    for queue_id in [0, 1] {
        world.append_to(0, queue_id);
    }
    world.settle();
    world.check();
}

#[test]
fn the_end_of_a_log_is_not_given_again() {
    let mut world = World::new(6);
    world.work(30);
    world.host.log.snapshot(Vec::new());
    world.settle();
    world.crash();
    // The newest groups are gone; only the checkpoint knows of them.
    let mut newest: Vec<(Position, Place)> = world
        .kept
        .iter()
        .map(|(place, (at, _))| (*at, *place))
        .collect();
    newest.sort_unstable();
    for (at, _) in &newest[newest.len() - 3..] {
        let segment = world.host.log.segment_of(*at).unwrap();
        let from = (at - segment.0) as usize;
        world.disk.edit(&segment.file_name(), |bytes| {
            bytes[from - 64..from + 50].fill(0)
        });
    }
    world.skip_all();
    world.check();
    world.work(20);
    world.check();
    world.crash();
    world.open(None).unwrap();
    world.check();
}

#[test]
fn a_crash_while_damage_is_passed_over_changes_nothing() {
    let mut world = World::new(7);
    world.work(90);
    world.crash();
    world.damage();
    let report = world.verify();
    let damage = report.damage[0].clone();
    let (from, to) = (damage.position, damage.to.unwrap());
    world
        .kept
        .retain(|_, (position, _)| !(from..to).contains(position));
    let before = SimDisk::new(0);
    before.copy_from(&world.disk);
    for steps in 0.. {
        world.disk = SimDisk::new(steps);
        world.disk.copy_from(&before);
        world.disk.crash_after(Some(steps));
        let opened = LogHost::open(&world.disk, options(Some(from)), &mut Drops);
        let whole = opened.is_some();
        world.disk.crash();
        match world.open(None) {
            Ok(()) => {}
            Err(OpenError::Damaged { .. }) => {
                world.disk.crash();
                world.open(Some(from)).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
        world.check();
        if whole {
            break;
        }
    }
}
