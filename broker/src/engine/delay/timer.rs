//! Timers: messages that are due at a time of their own.
//!
//! A message that is due in second s waits in the log's queue of that second: topic `rmq_sys_wheel_timer-<hour>`, queue id
//! the second within the hour. So the log's index is the timer's, on disk, and in memory there is a set of seconds and an
//! hour's table of queues, nothing per message. When the second is over, its queue is delivered from its beginning to its
//! end; when an hour is, its queues are dropped. Recalls of messages of a second wait beside them, in the queue of the second
//! and 3,600, and are read first.
//!
//! A message that is due later than the horizon waits in the horizon's second and is stored anew then: the number of queues
//! has a bound, and retention does not reach what waits.
//!
//! Invariants: all that waits lies in seconds from the cursor on; an hour has queues only while it is among the open hours;
//! hours before the cursor's are never opened again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use corelane_wire::code::response;
use corelane_wire::properties::{Edit, name as property};
use corelane_wire::record::{MAX_PROPERTIES_BYTES, Record};

use super::{
    LOOK_AGAIN_MS, RETRY_MS, TIMER_HOUR, TIMER_HOUR_DONE, TIMER_PROGRESS, Taken, Wake, pair,
    retry_ms,
};
use crate::engine::Engine;
use crate::engine::store::NewMessage;
use crate::engine::store::properties_too_long;
use crate::engine::turn::{Now, Refusal, Turn};
use crate::log::{AppendError, Appended, Log, QueueRef, StateWriter};

/// Seconds of an hour; queue ids from here on are of recalls.
const HOUR_SECS: i64 = 3_600;
/// Room for the properties that delivery, or storing anew, adds.
const ADDED_PROPERTIES_BYTES: usize = 96;

/// The queues of one hour.
struct Hour {
    topic: Rc<str>,
    queues: Box<[Option<QueueRef>]>,
}

impl Hour {
    fn new(hour: i64) -> Self {
        let queues = vec![None; 2 * HOUR_SECS as usize];
        Self {
            topic: topic(hour),
            queues: queues.into(),
        }
    }
}

fn topic(hour: i64) -> Rc<str> {
    format!("{}-{hour}", crate::engine::name::TIMER_TOPIC).into()
}

/// The queue of a second.
pub(super) struct Slot {
    second: i64,
    pub topic: Rc<str>,
    pub queue_id: i32,
    pub queue: QueueRef,
}

/// Messages of one second that are not to be delivered.
struct Recalled {
    second: i64,
    /// So many records of recalls have been read.
    read: i64,
    /// `topic+unique key`.
    keys: HashSet<Box<str>>,
}

/// The timers of a shard.
pub(super) struct Timers {
    hours: BTreeMap<i64, Hour>,
    /// Seconds in which something waits.
    pending: BTreeSet<i64>,
    /// All seconds before it are delivered.
    cursor: i64,
    /// The cursor's second is delivered up to this offset.
    offset: i64,
    recalled: Option<Recalled>,
    /// Whether `pending` and the hours' queues are what the log has.
    loaded: bool,
    /// Records of messages in the seconds from the cursor on, delivered ones of the cursor's included.
    stored: i64,
    pub wake: Wake,
}

/// The second in which a message waits that is due at a time: the one that ends at or after it.
fn second_of(deliver_ms: i64) -> i64 {
    (deliver_ms - 1).div_euclid(1_000)
}

/// The key under which a message can be recalled.
pub(super) fn recall_key(topic: &str, unique_key: &str) -> Box<str> {
    format!("{topic}+{unique_key}").into()
}

impl Timers {
    pub fn new() -> Self {
        Self {
            hours: BTreeMap::new(),
            pending: BTreeSet::new(),
            cursor: 0,
            offset: 0,
            recalled: None,
            loaded: false,
            stored: 0,
            wake: Wake::NOW,
        }
    }

    /// All seconds before `second` are delivered, and it is up to `offset`.
    pub fn reached(&mut self, second: i64, offset: i64) {
        (self.cursor, self.offset) = (second, offset);
    }

    /// An hour gets queues.
    pub fn open_hour(&mut self, hour: i64) {
        self.hours.entry(hour).or_insert_with(|| Hour::new(hour));
    }

    /// An hour and all before it are delivered.
    pub fn end_hours_until(&mut self, log: &mut Log, hour: i64) {
        while let Some(first) = self
            .hours
            .first_entry()
            .filter(|first| *first.key() <= hour)
        {
            log.drop_topic(&first.remove().topic);
        }
        if self.cursor < (hour + 1) * HOUR_SECS {
            self.reached((hour + 1) * HOUR_SECS, 0);
        }
    }

    pub fn snapshot(&self, writer: &mut StateWriter) {
        for hour in self.hours.keys() {
            writer.push(TIMER_HOUR, &pair(*hour, 0));
        }
        if self.cursor > 0 {
            writer.push(TIMER_PROGRESS, &pair(self.cursor, self.offset));
        }
    }

    /// Finds what waits, after replay.
    fn load(&mut self, log: &Log) {
        for (number, hour) in &mut self.hours {
            for (queue_id, slot) in hour.queues.iter_mut().enumerate() {
                *slot = log.find_queue(&hour.topic, queue_id as i32);
                let Some(queue) = *slot else { continue };
                let second = number * HOUR_SECS + queue_id as i64 % HOUR_SECS;
                let delivered = second == self.cursor && log.next_offset(queue) <= self.offset;
                if second >= self.cursor && !delivered {
                    self.pending.insert(second);
                    if (queue_id as i64) < HOUR_SECS {
                        self.stored += log.next_offset(queue);
                    }
                }
            }
        }
        if self.offset > 0 && !self.pending.contains(&self.cursor) {
            self.reached(self.cursor + 1, 0);
        }
        self.loaded = true;
    }

    /// The queue of a second, of its messages or of its recalls, where there is one.
    fn find(&self, second: i64, recalls: bool) -> Option<QueueRef> {
        let hour = self.hours.get(&second.div_euclid(HOUR_SECS))?;
        hour.queues[index_of(second, recalls)]
    }

    /// How many messages wait.
    pub fn waiting(&self) -> i64 {
        (self.stored - self.offset).max(0)
    }

    /// For how many seconds the first second with anything in it has been over.
    pub fn behind_secs(&self, wall_ms: i64) -> i64 {
        self.pending
            .first()
            .map_or(0, |second| (wall_ms.div_euclid(1_000) - second - 1).max(0))
    }

    /// Something waits in a second from now on.
    fn expect(&mut self, now: Now, second: i64) {
        self.pending.insert(second);
        let wake = Wake::at_wall(now, (second + 1) * 1_000);
        if wake.mono_ms < self.wake.mono_ms && !self.wake.reading {
            self.wake = wake;
        }
    }
}

fn index_of(second: i64, recalls: bool) -> usize {
    (second.rem_euclid(HOUR_SECS) + if recalls { HOUR_SECS } else { 0 }) as usize
}

impl Engine {
    /// Stores a message until `deliver_ms`.
    pub(super) fn store_timer(
        &mut self,
        turn: &mut Turn<'_>,
        message: &NewMessage<'_>,
        deliver_ms: i64,
    ) -> Result<Taken, Refusal> {
        let out_ms = second_of(deliver_ms) * 1_000;
        let (queue_id, out) = (message.queue_id.to_string(), out_ms.to_string());
        let append = [
            message.properties.append,
            &[
                (property::REAL_TOPIC, message.topic),
                (property::REAL_QID, &queue_id),
                (property::TIMER_OUT_MS, &out),
            ],
        ]
        .concat();
        let properties = Edit {
            append: &append,
            ..message.properties
        };
        if properties.measure().len() + ADDED_PROPERTIES_BYTES > MAX_PROPERTIES_BYTES {
            return Err(properties_too_long());
        }
        let slot = self.slot(turn, second_of(deliver_ms), false)?;
        let waiting = NewMessage {
            topic: &slot.topic,
            queue_id: slot.queue_id,
            queue: slot.queue,
            tags: message.tags.clone(),
            properties,
            ..*message
        };
        let appended = self.store_in(turn, &slot, &waiting)?;
        self.stats.timer_in(turn.now.wall_ms);
        Ok(Taken {
            appended,
            timer_out_ms: Some(out_ms),
        })
    }

    /// The queue in which what is due in `second` waits, or the nearest one that may be.
    fn slot(&mut self, turn: &mut Turn<'_>, second: i64, recalls: bool) -> Result<Slot, Refusal> {
        let timers = &mut self.delays.timers;
        if !timers.loaded {
            timers.load(turn.log);
        }
        let horizon = turn
            .now
            .wall_ms
            .saturating_add(self.settings.timer_horizon_ms)
            .div_euclid(1_000);
        let second = second.min(horizon).max(timers.cursor);
        let number = second.div_euclid(HOUR_SECS);
        if !timers.hours.contains_key(&number) {
            turn.log.append_state(TIMER_HOUR, &pair(number, 0))?;
        }
        let hour = timers
            .hours
            .entry(number)
            .or_insert_with(|| Hour::new(number));
        let index = index_of(second, recalls);
        let queue =
            *hour.queues[index].get_or_insert_with(|| turn.log.queue(&hour.topic, index as i32));
        Ok(Slot {
            second,
            topic: hour.topic.clone(),
            queue_id: index as i32,
            queue,
        })
    }

    /// The queue in which recalls of messages that are due at `deliver_ms` wait.
    pub(super) fn recall_slot(
        &mut self,
        turn: &mut Turn<'_>,
        deliver_ms: i64,
    ) -> Result<Slot, Refusal> {
        self.slot(turn, second_of(deliver_ms), true)
    }

    /// Stores a record in the queue that `slot` gave for it.
    pub(super) fn store_in(
        &mut self,
        turn: &mut Turn<'_>,
        slot: &Slot,
        record: &NewMessage<'_>,
    ) -> Result<Appended, Refusal> {
        let appended = self.store(turn, record)?;
        self.delays.timers.expect(turn.now, slot.second);
        self.delays.timers.stored += i64::from(slot.queue_id < HOUR_SECS as i32);
        self.delays.deadline_mono_ms = self
            .delays
            .deadline_mono_ms
            .min(self.delays.timers.wake.mono_ms);
        Ok(appended)
    }

    /// Delivers a batch of what is due, and says how many records that were.
    pub(super) fn deliver_timers(&mut self, turn: &mut Turn<'_>) -> usize {
        let timers = &mut self.delays.timers;
        if !timers.loaded {
            timers.load(turn.log);
        }
        let Some(second) = timers.pending.first().copied() else {
            self.end_hours(turn);
            return 0;
        };
        if turn.now.wall_ms < (second + 1) * 1_000 {
            timers.wake = Wake::at_wall(turn.now, (second + 1) * 1_000);
            self.end_hours(turn);
            return 0;
        }
        if timers.cursor != second {
            timers.reached(second, 0);
        }
        if timers
            .recalled
            .as_ref()
            .is_none_or(|recalled| recalled.second != second)
        {
            timers.recalled = Some(Recalled {
                second,
                read: 0,
                keys: HashSet::new(),
            });
        }
        if let Some(queue) = timers.find(second, true)
            && let Some(records) = self.read_recalls(turn, queue, second)
        {
            return records;
        }
        let from = self.delays.timers.offset;
        let Some(queue) = self.delays.timers.find(second, false) else {
            self.end_second(second);
            return 1;
        };
        let batch = self.collect(turn, queue, from, i64::MAX);
        if batch.next == from {
            if batch.reading {
                self.delays.timers.wake = Wake::reading(turn.now);
            } else if turn.log.next_offset(queue) > from {
                self.delays.timers.wake = Wake::after_ms(turn.now, RETRY_MS);
            } else {
                self.end_second(second);
                return 1;
            }
            return 0;
        }
        let keys = self.delays.timers.recalled.take();
        let recalled = keys
            .as_ref()
            .map(|recalled| &recalled.keys)
            .filter(|keys| !keys.is_empty());
        let result = self.deliver_batch(
            turn,
            &batch,
            TIMER_PROGRESS,
            second,
            |engine, turn, record| engine.deliver_timer(turn, record, second, recalled),
        );
        self.delays.timers.recalled = keys;
        let timers = &mut self.delays.timers;
        match result {
            Ok(reached) => {
                timers.offset = reached;
                timers.wake = if reached == batch.next {
                    Wake::NOW
                } else {
                    Wake::after_ms(turn.now, RETRY_MS)
                };
                let messages = (reached - from).unsigned_abs();
                self.stats.timers_out(messages, turn.now.wall_ms);
                messages as usize
            }
            Err(AppendError::TooLarge) => {
                tracing::error!(
                    second,
                    offset = from,
                    "a timer message is longer than this broker stores now"
                );
                timers.offset = from + 1;
                1
            }
            Err(error) => {
                timers.wake = Wake::after_ms(turn.now, retry_ms(error));
                0
            }
        }
    }

    /// Delivers one message, unless it is recalled; one that is not due yet is put off.
    fn deliver_timer(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
        second: i64,
        recalled: Option<&HashSet<Box<str>>>,
    ) -> Result<(), Refusal> {
        let [out_ms, topic, unique_key] = record.properties().find([
            property::TIMER_OUT_MS,
            property::REAL_TOPIC,
            property::UNIQ_KEY,
        ]);
        let out_ms = out_ms
            .and_then(|out| out.to_str().parse::<i64>().ok())
            .unwrap_or(0);
        // Also where it is due by now: its recall waits in its own second.
        if out_ms / 1_000 > second {
            return self.put_off(turn, record, out_ms / 1_000, false);
        }
        if let (Some(recalled), Some(topic), Some(unique_key)) = (recalled, topic, unique_key)
            && recalled.contains(&recall_key(&topic.to_str(), &unique_key.to_str()))
        {
            return Ok(());
        }
        let (enqueued, dequeued) = (
            record.store_timestamp().to_string(),
            turn.now.wall_ms.to_string(),
        );
        let append = [
            (property::TIMER_ENQUEUE_MS, &*enqueued),
            (property::TIMER_DEQUEUE_MS, &*dequeued),
        ];
        self.deliver_record(turn, record, &append).map(drop)
    }

    /// Stores a record of a second anew, for a later one.
    fn put_off(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
        second: i64,
        recalls: bool,
    ) -> Result<(), Refusal> {
        let properties = record.properties();
        let [tags, times] = properties.find([property::TAGS, property::TIMER_ROLL_TIMES]);
        let times = times
            .and_then(|times| times.to_str().parse::<u32>().ok())
            .unwrap_or(0)
            .saturating_add(1)
            .to_string();
        let slot = self.slot(turn, second, recalls)?;
        let again = NewMessage {
            topic: &slot.topic,
            queue_id: slot.queue_id,
            queue: slot.queue,
            tags: tags.map(|tags| tags.to_str()),
            flag: record.flag(),
            sys_flag: record.sys_flag(),
            born_timestamp: record.born_timestamp(),
            born_host: record.born_host(),
            reconsume_times: record.reconsume_times(),
            prepared_transaction_offset: record.prepared_transaction_offset(),
            body: record.body(),
            properties: Edit {
                ready: "",
                received: properties,
                without: &[],
                append: &[(property::TIMER_ROLL_TIMES, &times)],
            },
        };
        self.store_in(turn, &slot, &again).map(drop)
    }

    /// Reads recalls of a second; `None` when all of them have been read, and else how many were now.
    fn read_recalls(&mut self, turn: &mut Turn<'_>, queue: QueueRef, second: i64) -> Option<usize> {
        let read = self
            .delays
            .timers
            .recalled
            .as_ref()
            .map_or(0, |recalled| recalled.read);
        let batch = self.collect(turn, queue, read, i64::MAX);
        if batch.next == read {
            self.delays.timers.wake = match (batch.reading, turn.log.next_offset(queue) > read) {
                (true, _) => Wake::reading(turn.now),
                (false, true) => Wake::after_ms(turn.now, RETRY_MS),
                (false, false) => return None,
            };
            return Some(0);
        }
        for (offset, record) in &batch.records {
            let Ok((record, _)) = Record::parse(record) else {
                continue;
            };
            let [out_ms, key] = record
                .properties()
                .find([property::TIMER_OUT_MS, property::TIMER_DEL_UNIQKEY]);
            let due = out_ms
                .and_then(|out| out.to_str().parse::<i64>().ok())
                .unwrap_or(0)
                / 1_000;
            if due > second {
                // Read again after a crash, it is stored twice, and means the same.
                match self.put_off(turn, &record, due, true) {
                    Ok(()) => {}
                    Err(refusal) if refusal.code == response::MESSAGE_ILLEGAL => {}
                    Err(_) => {
                        self.delays.timers.wake = Wake::after_ms(turn.now, RETRY_MS);
                        self.set_recalls_read(*offset, None);
                        return Some(0);
                    }
                }
            }
            let key = key.filter(|_| due <= second).map(|key| key.to_str().into());
            self.set_recalls_read(offset + 1, key);
        }
        self.set_recalls_read(batch.next, None);
        Some((batch.next - read).unsigned_abs() as usize)
    }

    fn set_recalls_read(&mut self, read: i64, key: Option<Box<str>>) {
        if let Some(recalled) = &mut self.delays.timers.recalled {
            recalled.read = read;
            recalled.keys.extend(key);
        }
    }

    fn end_second(&mut self, second: i64) {
        let timers = &mut self.delays.timers;
        timers.pending.remove(&second);
        timers.recalled = None;
        timers.stored -= timers.offset;
        timers.reached(second + 1, 0);
    }

    /// Drops the queues of hours that are over and delivered, and waits for what is next.
    fn end_hours(&mut self, turn: &mut Turn<'_>) {
        let timers = &mut self.delays.timers;
        let now_hour = turn.now.wall_ms.div_euclid(1_000 * HOUR_SECS);
        let waiting_hour = timers
            .pending
            .first()
            .map_or(i64::MAX, |second| second.div_euclid(HOUR_SECS));
        while let Some(hour) = timers
            .hours
            .keys()
            .next()
            .copied()
            .filter(|hour| *hour < now_hour.min(waiting_hour))
        {
            if turn
                .log
                .append_state(TIMER_HOUR_DONE, &pair(hour, 0))
                .is_err()
            {
                timers.wake = Wake::after_ms(turn.now, LOOK_AGAIN_MS);
                return;
            }
            timers.end_hours_until(turn.log, hour);
        }
        if timers.pending.is_empty() {
            timers.wake = if timers.hours.is_empty() {
                Wake::NEVER
            } else {
                Wake::after_ms(turn.now, 60_000)
            };
        }
    }
}
