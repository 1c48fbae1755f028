//! The log against a simple model: what was appended, in order, and what of it must be there after a crash.

use super::options::small_options;
use super::{Cause, Faults, LogHost, Random, SimDisk, block_on};
use crate::log::{
    AppendError, Boundary, Entry, FlushMode, Log, LogFailure, LogOptions, OpenError, OpenReport,
    Position, QueueRef, ReadMiss, Replay, ReplayError, Slice, StateWriter, verify,
};
use corelane_wire::properties::{MessageKeys, Properties};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const KIND_VALUE: u16 = 1;
const KIND_DROP: u16 = 2;

/// What was appended, with its end.
#[derive(Clone, Debug)]
enum Op {
    Message {
        topic: &'static str,
        queue_id: i32,
        position: Position,
        end: Position,
        bytes: Rc<[u8]>,
        count: u64,
    },
    Value {
        key: u8,
        value: u64,
        end: Position,
    },
    Drop {
        topic: &'static str,
        end: Position,
    },
}

impl Op {
    fn end(&self) -> Position {
        match *self {
            Op::Message { end, .. } | Op::Value { end, .. } | Op::Drop { end, .. } => end,
        }
    }
}

/// The state that the model's engine keeps through state records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values(BTreeMap<u8, u64>);

impl Replay for Values {
    fn state(&mut self, log: &mut Log, kind: u16, payload: &[u8]) -> Result<(), ReplayError> {
        match (kind, payload) {
            (KIND_VALUE, [key, value @ ..]) => {
                let value = value
                    .first_chunk()
                    .ok_or_else(|| ReplayError("short value".into()))?;
                self.0.insert(*key, u64::from_le_bytes(*value));
            }
            (KIND_DROP, topic) => log.drop_topic(&String::from_utf8_lossy(topic)),
            _ => return Err(ReplayError("unknown kind".into())),
        }
        Ok(())
    }
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub crashes: u64,
    /// Lives that an error of the disk has ended.
    pub failures: u64,
    /// Recoveries that an error of the disk has ended.
    pub failed_starts: u64,
    /// Messages that were refused because the disk was full.
    pub refused_full: u64,
}

type Queues = BTreeMap<(&'static str, i32), Vec<(Position, Rc<[u8]>)>>;

/// The model and the log that it is compared with, over one disk.
pub struct Model {
    disk: SimDisk,
    random: Random,
    host: LogHost,
    values: Values,
    ops: Vec<Op>,
    /// The log said that everything before it was durable.
    durable: Position,
    options: LogOptions,
    /// The same options in every life.
    fixed: bool,
    now_ms: i64,
    /// How far the clock that the log is told of is off.
    skew_ms: i64,
    /// Operations of the disk fail in this life.
    faulty: bool,
    counts: Counts,
    /// Minimum offsets that were seen.
    min: BTreeMap<(&'static str, i32), i64>,
    /// Steps of the disk before a script began.
    started: u64,
    /// An index was spoiled, and may still be so where nobody has looked.
    spoiled: bool,
    /// Numbers the messages.
    count: u64,
}

const TOPICS: [&str; 3] = ["orders", "payments", "%RETRY%group"];

fn unique_key(count: u64) -> String {
    format!("{count:032X}")
}

fn properties(count: u64) -> String {
    format!(
        "UNIQ_KEY\x01{}\x02KEYS\x01all k{}\x02TAGS\x01t{}\x02",
        unique_key(count),
        count % 7,
        count % 3
    )
}

fn time_of(record: &[u8]) -> i64 {
    i64::from_be_bytes(record[56..64].try_into().unwrap())
}

impl Model {
    /// An empty log.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.next_u64());
        let options = small_options(&mut random);
        let mut values = Values::default();
        let (host, _) = LogHost::open(&disk, options.clone(), &mut values)
            .unwrap()
            .unwrap();
        Self {
            disk,
            random,
            host,
            values,
            ops: Vec::new(),
            durable: 0,
            options,
            fixed: false,
            now_ms: 1000,
            skew_ms: 0,
            faulty: false,
            counts: Counts::default(),
            count: 0,
            min: BTreeMap::new(),
            spoiled: false,
            started: 0,
        }
    }

    /// The same work each time, with appends, drops, reads, snapshots, rolls, sealing, retirement and recycling; the disk
    /// crashes after so many steps, when it is told to.
    pub fn scripted(seed: u64, flush: FlushMode, crash_after: Option<u64>) -> Self {
        let mut model = Self::new(seed);
        model.fixed = true;
        model.options = LogOptions {
            snapshot_bytes: 60_000,
            retention_bytes: 400_000,
            retention_ms: i64::MAX,
            flush,
            ..model.options.clone()
        };
        model.crash_and_recover(0);
        let started = model.disk.steps();
        model.started = started;
        model
            .disk
            .crash_after(crash_after.map(|after| started + after));
        for _ in 0..250 {
            model.work(1).unwrap();
            if model.disk.has_crashed() {
                break;
            }
        }
        model
    }

    /// Panics unless every kind of background work was done, and something was retired.
    pub fn assert_touched_all(&self) {
        let (log, jobs) = (&self.host.log, &self.host.jobs);
        for kind in [
            "prepare",
            "recycle",
            "checkpoint",
            "index",
            "merge",
            "remove",
            "space",
        ] {
            assert!(jobs.contains_key(kind), "no {kind} among {jobs:?}");
        }
        assert!(log.min_position() > 0 && log.checkpoint_position() > 0);
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Steps of the disk since the script began.
    pub fn steps(&self) -> u64 {
        self.disk.steps() - self.started
    }

    /// Work during which, now and then, the disk fills up or begins to fail; a failure ends the life.
    pub fn work_or_fail(&mut self, turns: usize) {
        let mut faults = Faults::default();
        if self.random.one_in(5) {
            self.faulty = true;
            faults = self.random_faults(60);
        }
        if self.random.one_in(5) {
            faults.capacity_bytes = Some(200_000 + self.random.below(1_500_000) as u64);
        }
        self.disk.set_faults(faults);
        if let Err(failure) = self.work(turns) {
            assert!(self.faulty, "{failure}");
            self.counts.failures += 1;
        }
    }

    /// One kind of operation fails, after fewer than so many.
    fn random_faults(&mut self, within: usize) -> Faults {
        let kinds = [
            "write", "write", "sync", "sync_dir", "create", "rename", "remove", "open", "read",
        ];
        let causes = [
            Cause::InputOutput,
            Cause::NoSpace,
            Cause::ReadOnly,
            Cause::Short,
        ];
        let kind = kinds[self.random.below(kinds.len())];
        let after = self.random.below(within) as u64;
        Faults {
            fail_after: [(kind, after)].into(),
            cause: causes[self.random.below(causes.len())],
            ..Faults::default()
        }
    }

    /// Some turns of random work, each followed by some steps of the disk.
    pub fn work(&mut self, turns: usize) -> Result<(), LogFailure> {
        for _ in 0..turns {
            self.now_ms += self.random.below(3) as i64;
            if self.random.one_in(40) {
                self.skew_ms = self.random.below(2000) as i64 - 1000;
            }
            for _ in 0..self.random.below(6) {
                self.append();
            }
            if self.host.log.snapshot_due() {
                self.snapshot();
            }
            if self.random.one_in(4) {
                self.read_something();
            }
            self.host.submit(self.now_ms + self.skew_ms);
            for _ in 0..self.random.below(12) {
                self.host.step()?;
            }
            let durable = self.host.log.durable();
            assert!(durable >= self.durable);
            self.durable = durable;
        }
        Ok(())
    }

    /// Takes a snapshot of the engine's state.
    pub fn snapshot(&mut self) {
        let mut state = StateWriter::default();
        for (key, value) in &self.values.0 {
            state.push(KIND_VALUE, &[&[*key][..], &value.to_le_bytes()].concat());
        }
        self.host.log.snapshot(state.finish());
    }

    fn append(&mut self) {
        self.count += 1;
        let topic = TOPICS[self.random.below(TOPICS.len())];
        match self.random.below(20) {
            0 => self.drop_topic(topic),
            1..4 => {
                let (key, value) = (self.random.below(5) as u8, self.count);
                let payload = [&[key][..], &value.to_le_bytes()].concat();
                if let Ok(end) = self.host.log.append_state(KIND_VALUE, &payload) {
                    self.values.0.insert(key, value);
                    self.ops.push(Op::Value { key, value, end });
                }
            }
            _ => self.append_message(topic),
        }
    }

    fn drop_topic(&mut self, topic: &'static str) {
        if self.random.one_in(3)
            && let Ok(end) = self.host.log.append_state(KIND_DROP, topic.as_bytes())
        {
            self.host.log.drop_topic(topic);
            self.min.retain(|(dropped, _), _| *dropped != topic);
            self.ops.push(Op::Drop { topic, end });
        }
    }

    fn append_message(&mut self, topic: &'static str) {
        let queue_id = self.random.below(3) as i32;
        let longest = if self.random.one_in(10) { 18000 } else { 900 };
        let body: Vec<u8> = (0..self.random.below(longest))
            .map(|at| (at as u64 ^ self.count) as u8)
            .collect();
        let properties = properties(self.count);
        let make = |position, offset, now_ms| {
            crate::log::sample::message(
                topic,
                queue_id,
                offset,
                position,
                now_ms,
                &body,
                properties.as_bytes(),
            )
        };
        let len = make(0, 0, 0).len();
        let now_ms = self.now_ms;
        let tags_code = i32::from(b't') * 31 + i32::from(b'0') + (self.count % 3) as i32;
        let queue = self.host.log.queue(topic, queue_id);
        let before = self.host.log.next_offset(queue);
        let mut bytes = Vec::new();
        let keys = MessageKeys::of(Properties::from_plain(&properties));
        let fill = |position, offset, out: &mut [u8]| {
            bytes = make(position, offset, now_ms);
            out.copy_from_slice(&bytes);
        };
        let log = &mut self.host.log;
        let appended = log.append_message(queue, len, tags_code, now_ms, keys, fill);
        match appended {
            Ok(appended) => {
                assert_eq!(appended.queue_offset, before);
                let (position, end) = (appended.position, appended.end);
                self.ops.push(Op::Message {
                    topic,
                    queue_id,
                    position,
                    end,
                    bytes: Rc::from(bytes),
                    count: self.count,
                });
            }
            Err(error) => {
                assert!(
                    matches!(error, AppendError::Busy | AppendError::DiskFull),
                    "{error}"
                );
                self.counts.refused_full += u64::from(error == AppendError::DiskFull);
                assert_eq!(self.host.log.next_offset(queue), before);
            }
        }
    }

    /// Asks for any visible record; what comes must be right.
    fn read_something(&mut self) {
        let queues = self.expected(Position::MAX);
        self.search_something();
        let Some((&(topic, queue_id), records)) =
            queues.iter().nth(self.random.below(queues.len().max(1)))
        else {
            return;
        };
        let Some(queue) = self.host.log.find_queue(topic, queue_id) else {
            panic!("queue {topic} {queue_id} is not there")
        };
        let visible = self.host.log.max_offset(queue);
        assert!(visible <= records.len() as i64);
        if visible == 0 {
            return;
        }
        let min = self.host.log.min_offset(queue);
        if min == visible {
            return;
        }
        let from = min + self.random.below((visible - min) as usize) as i64;
        let mut entries = Vec::new();
        match self.host.log.entries(queue, from, 3, &mut entries) {
            Ok(()) => {}
            Err(ReadMiss::Wanted(_) | ReadMiss::Damaged { .. }) => return,
            Err(miss) => panic!("entries of offset {from}: {miss}"),
        }
        assert!(!entries.is_empty());
        for (at, entry) in entries.iter().enumerate() {
            match self.host.log.record(entry.position, entry.size) {
                Ok(bytes) => assert_eq!(
                    (entry.position, &bytes[..]),
                    (
                        records[from as usize + at].0,
                        &records[from as usize + at].1[..]
                    )
                ),
                Err(ReadMiss::Wanted(_)) => {}
                Err(ReadMiss::Damaged { .. }) if self.faulty => {}
                Err(miss) => panic!("record at {}: {miss}", entry.position),
            }
        }
    }

    /// Asks for a key; what is found has it.
    fn search_something(&mut self) {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let residue = self.random.below(7) as u64;
        let key = format!("k{residue}");
        let Ok(found) = self.host.log.find_by_key(topic, &key, 0, i64::MAX, 3) else {
            return;
        };
        for found in found {
            let right = self.ops.iter().any(|op| {
                matches!(op, Op::Message { topic: of, position, count, .. }
                    if *of == topic && *position == found && count % 7 == residue)
            });
            assert!(right, "{found} was found by {key}");
        }
    }

    /// What must be there if everything that ends up to `tail` is.
    fn expected(&self, tail: Position) -> Queues {
        let mut queues = Queues::new();
        for op in self.ops.iter().filter(|op| op.end() <= tail) {
            match op {
                Op::Message {
                    topic,
                    queue_id,
                    position,
                    bytes,
                    ..
                } => {
                    queues
                        .entry((topic, *queue_id))
                        .or_default()
                        .push((*position, bytes.clone()));
                }
                Op::Drop { topic, .. } => queues.retain(|(dropped, _), _| dropped != topic),
                Op::Value { .. } => {}
            }
        }
        queues
    }

    /// Crashes, recovers (crashing meanwhile up to `crashes` times more) and compares everything.
    pub fn crash_and_recover(&mut self, crashes: usize) -> OpenReport {
        self.disk.crash();
        self.counts.crashes += 1;
        self.faulty = false;
        if !self.fixed && self.random.one_in(2) {
            self.options = small_options(&mut self.random);
        }
        self.spoil_index();
        for _ in 0..crashes {
            let after = self.disk.steps() + self.random.below(30) as u64;
            self.disk.crash_after(Some(after));
            let faulty = self.random.one_in(3);
            if faulty {
                let faults = self.random_faults(6);
                self.disk.set_faults(faults);
            }
            match LogHost::open(&self.disk, self.options.clone(), &mut Values::default()) {
                Some(Ok((_, report))) => self.cut(&report),
                Some(Err(OpenError::Io(_))) if faulty => self.counts.failed_starts += 1,
                Some(Err(error)) => panic!("recovery that is going to crash: {error}"),
                None => {}
            }
            self.disk.crash();
            self.counts.crashes += 1;
        }
        let verified = block_on(&self.disk, verify(&self.disk.io()))
            .unwrap()
            .unwrap();
        assert_eq!(verified.damage, []);
        let mut values = Values::default();
        let opened = LogHost::open(&self.disk, self.options.clone(), &mut values).unwrap();
        let (host, report) = opened.unwrap_or_else(|error| panic!("recovery: {error}"));
        self.host = host;
        assert_eq!(verified.tail, report.tail);
        self.cut(&report);
        self.durable = self.host.log.durable();
        assert!(self.durable > report.tail);
        self.values = Values::default();
        for op in &self.ops {
            if let Op::Value { key, value, .. } = op {
                self.values.0.insert(*key, *value);
            }
        }
        assert_eq!(values, self.values);
        self.compare();
        report
    }

    /// Loses or spoils an index, or loses all of them, now and then: they must be built again, and say the same.
    fn spoil_index(&mut self) {
        let names: Vec<String> = self
            .disk
            .names()
            .into_iter()
            .filter(|name| name.ends_with(".index") || name.ends_with(".run"))
            .collect();
        if names.is_empty() || self.random.one_in(2) {
            return;
        }
        if self.random.one_in(4) {
            return names.iter().for_each(|name| self.disk.vanish(name));
        }
        let name = &names[self.random.below(names.len())];
        if self.random.one_in(2) {
            self.disk.vanish(name);
        } else {
            self.spoiled = true;
            let bits = self.disk.len(name) * 8;
            self.disk.flip_bit(name, self.random.below(bits) as u64);
        }
    }

    /// Forgets what a recovery cut off, of which nothing may have been acknowledged.
    fn cut(&mut self, report: &OpenReport) {
        assert!(
            report.tail >= self.durable,
            "acknowledged up to {}, recovered {}",
            self.durable,
            report.tail
        );
        self.ops.retain(|op| op.end() <= report.records_end);
    }

    /// Every record is where it must be, and no other.
    pub fn compare(&mut self) {
        let expected = self.expected(Position::MAX);
        for topic in TOPICS {
            for queue_id in 0..3 {
                let known = self
                    .host
                    .log
                    .find_queue(topic, queue_id)
                    .map_or(0, |queue| self.host.log.max_offset(queue));
                assert_eq!(
                    known as usize,
                    expected.get(&(topic, queue_id)).map_or(0, Vec::len),
                    "{topic} {queue_id}"
                );
            }
        }
        for ((topic, queue_id), records) in &expected {
            let queue = self.host.log.find_queue(topic, *queue_id).unwrap();
            let min = self.host.log.min_offset(queue);
            let mut offset = min;
            let first_kept =
                records.partition_point(|(position, _)| *position < self.host.log.min_position());
            assert_eq!(min as usize, first_kept, "{topic} {queue_id}");
            let known = self.min.entry((topic, *queue_id)).or_default();
            assert!(*known <= min, "a minimum offset fell");
            *known = min;
            while offset < records.len() as i64 {
                for entry in self.entries(queue, offset) {
                    let (position, bytes) = &records[offset as usize];
                    assert_eq!(entry.position, *position, "{topic} {queue_id} {offset}");
                    if let Some(record) = self.record(entry) {
                        assert_eq!(&record[..], &bytes[..], "{topic} {queue_id} {offset}");
                    }
                    offset += 1;
                }
                // What is asked for may be retired meanwhile.
                offset = offset.max(self.host.log.min_offset(queue));
            }
        }
        self.check_strays(&expected);
        self.check_keys();
        self.check_times(&expected);
    }

    /// Messages are found by their keys, those of dropped topics too.
    fn check_keys(&mut self) {
        let topic = TOPICS[self.random.below(TOPICS.len())];
        let residue = self.random.below(7) as u64;
        let (mut positions, mut one) = (Vec::new(), None);
        for op in &self.ops {
            if let Op::Message {
                topic: of,
                position,
                count,
                ..
            } = op
                && *of == topic
                && count % 7 == residue
            {
                positions.push(*position);
                one = Some((*count, *position));
            }
        }
        positions.reverse();
        let find = |model: &mut Self, key: &str, max| {
            model.wait(|log| log.find_by_key(topic, key, 0, i64::MAX, max))
        };
        if let Some((count, position)) = one {
            match find(self, &unique_key(count), 5) {
                Ok(found) => assert_eq!(
                    found,
                    if position < self.host.log.min_position() {
                        vec![]
                    } else {
                        vec![position]
                    }
                ),
                Err(miss) => self.expect_damage(miss),
            }
        }
        for (key, max) in [
            (format!("k{residue}"), 1000),
            (format!("k{residue}"), 3),
            ("none".into(), 3),
        ] {
            let mut expected = if key == "none" {
                Vec::new()
            } else {
                positions.clone()
            };
            match find(self, &key, max) {
                Ok(found) => {
                    let oldest = self.host.log.min_position();
                    expected.retain(|&position| position >= oldest);
                    expected.truncate(max);
                    let found: Vec<Position> = found
                        .into_iter()
                        .filter(|&position| position >= oldest)
                        .collect();
                    assert_eq!(found, expected, "{topic} {key}");
                }
                Err(miss) => self.expect_damage(miss),
            }
        }
    }

    /// Only an index that was spoiled may be found damaged.
    fn expect_damage(&self, miss: ReadMiss) {
        assert!(
            self.spoiled && matches!(miss, ReadMiss::Damaged { .. }),
            "{miss}"
        );
    }

    /// Store times lead to offsets as a search from end to end would find them.
    fn check_times(&mut self, expected: &Queues) {
        for ((topic, queue_id), records) in expected.iter().take(3) {
            let queue = self.host.log.find_queue(topic, *queue_id).unwrap();
            let time_ms = self.now_ms - self.random.below(300) as i64;
            let times: Vec<i64> = records.iter().map(|(_, bytes)| time_of(bytes)).collect();
            for boundary in [Boundary::Lower, Boundary::Upper] {
                let found = self.wait(|log| log.offset_by_time(queue, time_ms, boundary));
                let (min, max) = (self.host.log.min_offset(queue), records.len() as i64);
                let wanted = match boundary {
                    Boundary::Lower => (min..max)
                        .find(|&at| times[at as usize] >= time_ms)
                        .unwrap_or(max),
                    Boundary::Upper => (min..max)
                        .rev()
                        .find(|&at| times[at as usize] <= time_ms)
                        .unwrap_or(min),
                };
                match found {
                    Ok(found) => assert_eq!(
                        found.max(min),
                        wanted,
                        "{topic} {queue_id} {time_ms} {boundary:?}"
                    ),
                    Err(ReadMiss::Gone) => {}
                    Err(miss) => self.expect_damage(miss),
                }
            }
        }
    }

    /// A record is found by its position, and nothing between records is.
    fn check_strays(&mut self, expected: &Queues) {
        let oldest = self.host.log.min_position();
        let starts: BTreeSet<Position> = expected
            .values()
            .flatten()
            .map(|(position, _)| *position)
            .filter(|&position| position >= oldest)
            .collect();
        let all: BTreeSet<Position> = self
            .ops
            .iter()
            .filter_map(|op| {
                if let Op::Message { position, .. } = op {
                    Some(*position)
                } else {
                    None
                }
            })
            .collect();
        for &position in starts.iter().take(3) {
            let found = self.wait(|log| log.record_at(position));
            assert!(found.is_ok() || position < self.host.log.min_position());
            if !all.contains(&(position + 1)) {
                assert_eq!(
                    self.wait(|log| log.record_at(position + 1)).err(),
                    Some(ReadMiss::Gone)
                );
            }
        }
    }

    fn entries(&mut self, queue: QueueRef, from: i64) -> Vec<Entry> {
        let mut out = Vec::new();
        for _ in 0..500 {
            match self.wait(|log| log.entries(queue, from, 32, &mut out)) {
                Ok(()) => {
                    assert!(!out.is_empty(), "offset {from} is below the maximum");
                    return out;
                }
                // An unsound index is built again in the background.
                Err(ReadMiss::Damaged { .. }) => {
                    self.host.submit(self.now_ms + self.skew_ms);
                    self.host.step().unwrap();
                }
                Err(miss) => {
                    let min = self.host.log.min_offset(queue);
                    assert!(
                        miss == ReadMiss::Gone && from < min,
                        "offset {from}: {miss}; minimum {min}"
                    );
                    return out;
                }
            }
        }
        panic!("the index of offset {from} stays damaged");
    }

    fn record(&mut self, entry: Entry) -> Option<Slice> {
        match self.wait(|log| log.record(entry.position, entry.size)) {
            Ok(record) => Some(record),
            Err(miss) => {
                let min = self.host.log.min_position();
                assert!(
                    miss == ReadMiss::Gone && entry.position < min,
                    "record at {}: {miss}",
                    entry.position
                );
                None
            }
        }
    }

    /// Asks until nothing has to be read first.
    fn wait<T>(
        &mut self,
        mut ask: impl FnMut(&mut Log) -> Result<T, ReadMiss>,
    ) -> Result<T, ReadMiss> {
        for _ in 0..100_000 {
            match ask(&mut self.host.log) {
                Err(ReadMiss::Wanted(_)) => {}
                result => return result,
            }
            self.host.submit(self.now_ms + self.skew_ms);
            assert!(self.host.step().unwrap(), "a read never ends");
        }
        panic!("the same is wanted again and again");
    }
}
