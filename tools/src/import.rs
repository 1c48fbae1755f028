//! `corelane import`: the store of an Apache RocketMQ broker becomes the log of a shard.
//!
//! The commit log is read twice. First to learn where queues begin and end, and which of the messages that wait (for a
//! delay, a timer, the end of a transaction) still wait; this is all that a dry run does. Then to append: each message to
//! its queue at its own offset, with everything that the record says but its position.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use corelane_broker::config::Config;
use corelane_broker::engine::Engine;
use corelane_broker::engine::name::{SCHEDULE_TOPIC, TIMER_TOPIC, TRACE_TOPIC, is_system_topic};
use corelane_broker::engine::records::{self, HALF_TOPIC};
use corelane_broker::log::{OfflineLog, Replay};
use corelane_broker::shard::{DataDirectory, open_offline};
use corelane_wire::body::{SubscriptionGroupConfig, TopicConfig};
use corelane_wire::code::sys_flag;
use corelane_wire::properties::{MessageKeys, java_hash, name as property};
use corelane_wire::record::{Record, RecordFields, set_physical_offset, set_queue_offset};
use serde_json::json;

use crate::apache_store::{Piece, Store};
use crate::cli::ImportArgs;
use crate::config;
use crate::output::{Failure, Output, complain};

/// Marks the ends of half messages.
const OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Where brokers keep what was popped and not acknowledged.
const REVIVE_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
/// Timers that are due later than this wait there, and are stored anew then.
const HORIZON_SECS: i64 = 3_600;

type Queue = (String, i32);

/// What a message of one of the broker's own topics waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Level,
    Timer,
    Half,
}

/// One queue, as the store has it.
#[derive(Default)]
struct Found {
    /// Records before it are of an earlier topic of this name.
    born: u64,
    first: i64,
    next: i64,
    messages: u64,
    /// Offsets in between that have no record.
    missing: i64,
}

/// What the first pass learns.
#[derive(Default)]
struct Plan {
    topics: BTreeMap<String, TopicConfig>,
    groups: Vec<SubscriptionGroupConfig>,
    /// By group and topic.
    offsets: BTreeMap<(String, String), BTreeMap<i32, i64>>,
    queues: BTreeMap<Queue, Found>,
    /// Messages that still wait, by real topic and unique key.
    waiting: HashMap<(String, String), (u64, Waits)>,
    /// Half messages by offset, until their end is seen.
    halves: HashMap<i64, (String, String)>,
    /// Messages that are left out: why, and how many.
    left_out: BTreeMap<&'static str, u64>,
    damage: Vec<(u64, u64, String)>,
    remarks: Vec<String>,
    oldest_ms: i64,
    bytes: u64,
}

/// Imports a store, or says what that would do.
pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    let loaded = config::load(args.config.as_deref(), &args.sets, &[])?;
    let mut store = Store::open(&args.store)?;
    let mut plan = Plan::read(&mut store)?;
    let horizon_ms = loaded.config.retention_hours as i64 * 3_600_000;
    if plan.oldest_ms < now_ms() - horizon_ms {
        plan.remarks.push(format!(
            "some messages are older than retention_hours = {} allows: the broker removes them soon after it starts, \
             unless that is raised first",
            loaded.config.retention_hours
        ));
    }
    let mut out = Output::new(args.json);
    if !args.dry_run {
        let directory = DataDirectory::hold(&args.into).map_err(Failure::from)?;
        let (mut log, mut engine) =
            open_offline(&loaded.config, &directory, args.shard).map_err(Failure::from)?;
        plan.check_room(&log, &loaded.config)?;
        let mut import = Import {
            plan: &plan,
            log: &mut log,
            engine: &mut engine,
            ends: HashMap::new(),
        };
        import.run(&store)?;
    }
    plan.print(args, &mut out)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// What a message of the broker's own topics waits for; nothing for other topics.
fn waits(topic: &str) -> Option<Waits> {
    match topic {
        SCHEDULE_TOPIC => Some(Waits::Level),
        HALF_TOPIC => Some(Waits::Half),
        _ if topic.starts_with(TIMER_TOPIC) => Some(Waits::Timer),
        _ => None,
    }
}

impl Plan {
    fn read(store: &mut Store) -> Result<Self, Failure> {
        let mut plan = Self {
            oldest_ms: i64::MAX,
            bytes: store.bytes(),
            ..Self::default()
        };
        let (mut half_from, mut delays) = (0, BTreeMap::new());
        let topics = store.topics().topic_config_table;
        plan.topics = topics
            .into_iter()
            .filter(|(topic, _)| !is_system_topic(topic))
            .collect();
        plan.groups = store
            .groups()
            .subscription_group_table
            .into_values()
            .collect();
        for (key, queues) in store.consumer_offsets().offset_table {
            let Some((topic, group)) = key.split_once('@') else {
                continue;
            };
            if topic == HALF_TOPIC {
                half_from = queues.get(&0).copied().unwrap_or(0);
            }
            if !is_system_topic(topic) || topic == TRACE_TOPIC {
                plan.offsets
                    .insert((group.to_owned(), topic.to_owned()), queues);
            }
        }
        for (level, offset) in store.delay_offsets().offset_table {
            delays.insert(level, offset);
        }
        let mut damage = Vec::new();
        store.walk(|piece| {
            match piece {
                Piece::Record(position, record) => {
                    plan.learn(position, &record, half_from, &delays)
                }
                Piece::Damage(range, what) => damage.push((range.start, range.end, what)),
            }
            Ok(())
        })?;
        plan.damage = damage;
        plan.learn_ends(store.queue_ends());
        plan.remarks = std::mem::take(&mut store.remarks);
        Ok(plan)
    }

    fn learn(
        &mut self,
        position: u64,
        record: &Record<'_>,
        half_from: i64,
        delays: &BTreeMap<i32, i64>,
    ) {
        let topic = record.topic();
        let key = waiting_key(record);
        if let Some(waits) = waits(topic) {
            let done = match waits {
                Waits::Level => delays
                    .get(&(record.queue_id() + 1))
                    .is_some_and(|done| record.queue_offset() < *done),
                Waits::Half => record.queue_offset() < half_from,
                Waits::Timer => false,
            };
            let recalled = record.properties().get(property::TIMER_DEL_UNIQKEY);
            if let Some(recalled) = recalled {
                let recalled = recalled.to_str();
                let unique = recalled.rsplit('+').next().unwrap_or_default();
                self.waiting.retain(|(_, key), _| key != unique);
            } else if !done {
                if waits == Waits::Half {
                    self.halves.insert(record.queue_offset(), key.clone());
                }
                self.waiting.insert(key, (position, waits));
            }
        } else if topic == OP_TOPIC {
            let ended = String::from_utf8_lossy(record.body());
            for offset in ended
                .split(',')
                .filter_map(|offset| offset.trim().parse().ok())
            {
                if let Some(key) = self.halves.remove(&offset) {
                    self.waiting.remove(&key);
                }
            }
        } else if let Some(why) = self.why_left_out(record) {
            *self.left_out.entry(why).or_default() += 1;
        } else {
            if !self.waiting.is_empty() {
                // It has come out of where it waited.
                let unique = record.properties().get(property::UNIQ_KEY);
                let unique = unique.map(|unique| unique.to_str().into_owned());
                if let Some(unique) = unique {
                    self.waiting.remove(&(topic.to_owned(), unique));
                }
            }
            self.oldest_ms = self.oldest_ms.min(record.store_timestamp());
            let offset = record.queue_offset();
            let key = (topic.to_owned(), record.queue_id());
            let found = self.queues.entry(key).or_default();
            if found.messages == 0 || offset < found.next {
                *found = Found {
                    born: position,
                    first: offset,
                    next: offset,
                    ..Found::default()
                };
            }
            found.missing += offset - found.next;
            found.next = offset + 1;
            found.messages += 1;
        }
    }

    /// Why a message is not imported.
    fn why_left_out(&self, record: &Record<'_>) -> Option<&'static str> {
        let topic = record.topic();
        if record.sys_flag() & sys_flag::INNER_BATCH != 0 {
            return Some("batches in one record (queues of type BatchCQ)");
        }
        if topic.starts_with(REVIVE_PREFIX) {
            return Some(
                "the broker's notes of what was popped: messages that were popped and not acknowledged are not given again",
            );
        }
        if is_system_topic(topic) && topic != TRACE_TOPIC {
            return Some("other topics of the broker itself");
        }
        if !self.topics.contains_key(topic) && topic != TRACE_TOPIC && !self.topics.is_empty() {
            return Some("topics that are deleted");
        }
        None
    }

    /// Queues end where the store's index says so, or where a group stands, even where no message is left.
    fn learn_ends(&mut self, ends: BTreeMap<Queue, i64>) {
        let stands = self.offsets.iter().flat_map(|((_, topic), queues)| {
            let of_queue =
                move |(queue_id, offset): (&i32, &i64)| ((topic.clone(), *queue_id), *offset);
            queues.iter().map(of_queue)
        });
        let stands: Vec<_> = stands.chain(ends).collect();
        for (queue, end) in stands {
            let known = self.topics.contains_key(&queue.0) || queue.0 == TRACE_TOPIC;
            if !known || end <= 0 {
                continue;
            }
            let found = self.queues.entry(queue).or_default();
            if found.messages == 0 {
                found.first = found.first.max(end);
            }
            found.next = found.next.max(end);
        }
    }

    /// Refuses to mix with messages that are there already, before anything is written.
    fn check_room(&self, log: &OfflineLog, config: &Config) -> Result<(), Failure> {
        for (topic, queue_id) in self.queues.keys() {
            let queue = log.log.find_queue(topic, *queue_id);
            if queue.is_some_and(|queue| log.log.next_offset(queue) > 0) {
                return Err(Failure::Said(format!(
                    "queue {queue_id} of topic {topic} has messages in this shard already: import into another \
                     directory or another shard"
                )));
            }
        }
        if self.topics.len() > config.max_topics {
            return Err(Failure::Said(format!(
                "the store has {} topics, and max_topics allows {}",
                self.topics.len(),
                config.max_topics
            )));
        }
        Ok(())
    }

    fn print(&self, args: &ImportArgs, out: &mut Output) -> Result<(), Failure> {
        let mut rows = Vec::new();
        let mut messages = 0;
        for ((topic, queue_id), found) in &self.queues {
            messages += found.messages;
            rows.push([
                json!(topic),
                json!(queue_id),
                json!(found.messages),
                json!(found.first),
                json!(found.next),
                json!(found.missing),
            ]);
        }
        out.table(
            ["topic", "queueId", "messages", "from", "to", "missing"],
            &rows,
        )?;
        let count = |kind| {
            self.waiting
                .values()
                .filter(|(_, waits)| *waits == kind)
                .count()
        };
        let [levels, timers, halves] = [Waits::Level, Waits::Timer, Waits::Half].map(count);
        let positions: usize = self.offsets.values().map(BTreeMap::len).sum();
        let verb = if args.dry_run {
            "would import"
        } else {
            "imported"
        };
        let shard = args.shard;
        let damage: Vec<_> = self
            .damage
            .iter()
            .map(|(from, to, what)| json!({ "from": from, "to": to, "reason": what }))
            .collect();
        let left_out: Vec<_> = self
            .left_out
            .iter()
            .map(|(why, count)| json!({ "what": why, "messages": count }))
            .collect();
        out.record(
            &json!({
                "dryRun": args.dry_run, "into": args.into, "shard": shard, "topics": self.topics.len(),
                "groups": self.groups.len(), "offsets": positions, "messages": messages, "bytes": self.bytes,
                "delayed": levels, "timers": timers, "halfMessages": halves, "leftOut": left_out, "damage": damage,
                "remarks": self.remarks,
            }),
            &format!(
                "{verb} {messages} messages of {} topics, {} groups and {positions} consumer offsets into shard {shard} of {}; \
                 still waiting: {levels} for their delay, {timers} timers, {halves} half messages of transactions",
                self.topics.len(),
                self.groups.len(),
                args.into.display()
            ),
        )?;
        for (why, count) in &self.left_out {
            complain(&format!("{count} messages are left out: {why}"));
        }
        for remark in &self.remarks {
            complain(remark);
        }
        match self.damage.first() {
            None => Ok(()),
            Some((from, to, what)) => Err(Failure::Said(format!(
                "{verb} without what is damaged: {} ranges of the commit log, the first from {from} to {to}: {what}",
                self.damage.len()
            ))),
        }
    }
}

/// What a message that waits is known by: the topic that it is for, and its unique key or, without one, its place.
fn waiting_key(record: &Record<'_>) -> (String, String) {
    let [topic, unique] = record
        .properties()
        .find([property::REAL_TOPIC, property::UNIQ_KEY]);
    let text = |text: Option<corelane_wire::Text<'_>>| text.map(|text| text.to_str().into_owned());
    (
        text(topic).unwrap_or_default(),
        text(unique).unwrap_or_else(|| record.physical_offset().to_string()),
    )
}

/// The second pass.
struct Import<'a> {
    plan: &'a Plan,
    log: &'a mut OfflineLog,
    engine: &'a mut Engine,
    /// Offset that comes next of each queue that got something.
    ends: HashMap<Queue, i64>,
}

impl Import<'_> {
    fn run(&mut self, store: &Store) -> Result<(), Failure> {
        for config in self.plan.topics.values() {
            let mut config = config.clone();
            if let Some(there) = self.engine.topics().get(&config.topic_name) {
                let there = &there.config;
                config.read_queue_nums = config.read_queue_nums.max(there.read_queue_nums);
                config.write_queue_nums = config.write_queue_nums.max(there.write_queue_nums);
            }
            self.state(records::topic(&config))?;
        }
        for config in &self.plan.groups {
            self.state(records::group(config))?;
        }
        let waiting: BTreeSet<u64> = self.plan.waiting.values().map(|(at, _)| *at).collect();
        let mut hours = HashSet::new();
        store.walk(|piece| {
            let Piece::Record(position, record) = piece else {
                return Ok(());
            };
            match waits(record.topic()) {
                Some(Waits::Timer) if waiting.contains(&position) => {
                    self.timer(&record, &mut hours)
                }
                Some(_) if waiting.contains(&position) => {
                    self.append(record.topic(), record.queue_id(), record.bytes())
                }
                Some(_) => Ok(()),
                None => self.message(position, &record),
            }
        })?;
        // Queues whose newest messages are gone go on behind them all the same.
        for ((topic, queue_id), found) in &self.plan.queues {
            self.go_on_at(topic, *queue_id, found.next)?;
        }
        for ((group, topic), queues) in &self.plan.offsets {
            let queues = queues.iter().map(|(queue_id, offset)| (*queue_id, *offset));
            self.state(records::offsets(group, topic, queues))?;
        }
        let state = self.engine.snapshot();
        self.log.log.snapshot(state);
        self.log.settle().map_err(Failure::from)
    }

    fn state(&mut self, (kind, payload): (u16, Vec<u8>)) -> Result<(), Failure> {
        self.log
            .append(|log| log.append_state(kind, &payload))
            .map_err(Failure::from)?;
        self.engine
            .state(&mut self.log.log, kind, &payload)
            .map_err(Failure::from)
    }

    /// An ordinary message, to its own queue and offset.
    fn message(&mut self, position: u64, record: &Record<'_>) -> Result<(), Failure> {
        let (topic, queue_id) = (record.topic(), record.queue_id());
        if topic == OP_TOPIC || self.plan.why_left_out(record).is_some() {
            return Ok(());
        }
        let found = self.plan.queues.get(&(topic.to_owned(), queue_id));
        if found.is_none_or(|found| position < found.born) {
            return Ok(());
        }
        self.go_on_at(topic, queue_id, record.queue_offset())?;
        self.append(topic, queue_id, record.bytes())
    }

    /// A message that waits for its time.
    fn timer(&mut self, record: &Record<'_>, hours: &mut HashSet<String>) -> Result<(), Failure> {
        let out_ms = record.properties().get(property::TIMER_OUT_MS);
        let out_ms = out_ms.and_then(|out_ms| out_ms.to_str().parse::<i64>().ok());
        let latest = now_ms() / 1_000 + HORIZON_SECS;
        let second = (out_ms.unwrap_or(0).div_euclid(1_000)).clamp(now_ms() / 1_000, latest);
        let place = records::timer_place(second);
        if hours.insert(place.topic.clone()) {
            self.state(place.opened_by)?;
        }
        let fields = RecordFields {
            head: record.head(),
            body: record.body(),
            topic: &place.topic,
            properties: record.properties_bytes(),
        };
        let mut bytes = Vec::new();
        fields.push_to(&mut bytes).map_err(Failure::from)?;
        // The queue of the record is the one that it waits in.
        bytes[12..16].copy_from_slice(&place.queue_id.to_be_bytes());
        self.append(&place.topic, place.queue_id, &bytes)
    }

    /// What a queue gets next has this offset.
    fn go_on_at(&mut self, topic: &str, queue_id: i32, offset: i64) -> Result<(), Failure> {
        let key = (topic.to_owned(), queue_id);
        if self.ends.get(&key).copied().unwrap_or(0) < offset {
            self.log
                .append(|log| log.queue_at(topic, queue_id, offset))
                .map_err(Failure::from)?;
            self.ends.insert(key, offset);
        }
        Ok(())
    }

    fn append(&mut self, topic: &str, queue_id: i32, bytes: &[u8]) -> Result<(), Failure> {
        let Ok((record, _)) = Record::parse(bytes) else {
            return Err(Failure::Said("a record cannot be read again".to_owned()));
        };
        let tag = record.properties().get(property::TAGS);
        let tags_code = tag.map_or(0, |tag| java_hash(&tag.to_str()));
        let queue = self.log.log.queue(topic, queue_id);
        let appended = self.log.append(|log| {
            let store_ms = record.store_timestamp();
            log.append_message(
                queue,
                bytes.len(),
                tags_code,
                store_ms,
                MessageKeys::of(record.properties()),
                |position, offset, out| {
                    out.copy_from_slice(bytes);
                    set_physical_offset(out, position as i64);
                    set_queue_offset(out, offset);
                },
            )
        });
        let appended = appended.map_err(Failure::from)?;
        self.ends
            .insert((topic.to_owned(), queue_id), appended.queue_offset + 1);
        Ok(())
    }
}
