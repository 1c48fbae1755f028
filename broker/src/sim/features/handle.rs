//! The handles of popped messages, as clients make them out of an answer and send them back.

use std::collections::BTreeMap;
use std::fmt;

use corelane_wire::body::{BatchAck, BatchAckMessageRequestBody};
use corelane_wire::record::Record;

use super::Received;

/// A stored copy of a message: whether it lies in the retry topic, its queue and its offset.
pub type Place = (bool, i32, i64);

#[derive(Clone, Debug)]
pub struct Handle {
    start: i64,
    pub pop_ms: i64,
    invisible_ms: i64,
    revive: i32,
    pub place: Place,
}

impl Handle {
    /// Of a message of an answer to a pop.
    pub fn of(answer: &Received, record: &Record<'_>) -> Self {
        let number = |name: &str| answer.fields[name].parse::<i64>().unwrap();
        let (queue_id, offset) = (record.queue_id(), record.queue_offset());
        if let Some(own) = record.properties().get("POP_CK") {
            let own = own.to_str().into_owned();
            let mut parts = own.split(' ').map(|part| part.parse().unwrap_or(-1));
            let mut number = || parts.next().unwrap();
            return Self {
                start: number(),
                pop_ms: number(),
                invisible_ms: number(),
                revive: number() as i32,
                place: (true, queue_id, offset),
            };
        }
        let start = listed(answer, "startOffsetInfo", &format!("0 {queue_id}"));
        Self {
            start: start.unwrap(),
            pop_ms: number("popTime"),
            invisible_ms: number("invisibleTime"),
            revive: number("reviveQid") as i32,
            place: (false, queue_id, offset),
        }
    }

    /// After its invisible time was changed.
    pub fn changed(&self, answer: &Received) -> Self {
        let number = |name: &str| answer.fields[name].parse::<i64>().unwrap();
        Self {
            start: self.place.2,
            pop_ms: number("popTime"),
            invisible_ms: number("invisibleTime"),
            revive: number("reviveQid") as i32,
            place: self.place,
        }
    }

    /// When its message is visible again.
    pub fn due_ms(&self) -> i64 {
        self.pop_ms + self.invisible_ms
    }

    /// The topic that holds it.
    pub fn topic(&self, group: &str, topic: &str) -> String {
        match self.place.0 {
            true => format!("%RETRY%{group}_{topic}"),
            false => topic.to_owned(),
        }
    }

    /// The body of a request that acknowledges several.
    pub fn batch(handles: &[Self], group: &str, topic: &str) -> Vec<u8> {
        let mut pops: BTreeMap<_, Vec<&Self>> = BTreeMap::new();
        for handle in handles {
            let pop = (handle.place.0, handle.place.1, handle.start, handle.pop_ms);
            pops.entry(pop).or_default().push(handle);
        }
        let ack = |((retry, queue_id, start, pop_ms), handles): (_, Vec<&Self>)| BatchAck {
            consumer_group: group.to_owned(),
            topic: topic.to_owned(),
            retry: i32::from(retry).to_string(),
            start_offset: start,
            queue_id,
            revive_queue_id: handles[0].revive,
            pop_time: pop_ms,
            invisible_time: handles[0].invisible_ms,
            bit_set: handles
                .iter()
                .map(|handle| (handle.place.2 - start) as usize)
                .collect(),
        };
        let body = BatchAckMessageRequestBody {
            broker_name: "broker-a".to_owned(),
            acks: pops.into_iter().map(ack).collect(),
        };
        body.to_json()
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (retry, queue_id, offset) = self.place;
        write!(
            out,
            "{} {} {} {} {} broker-a {queue_id} {offset}",
            self.start,
            self.pop_ms,
            self.invisible_ms,
            self.revive,
            i32::from(retry)
        )
    }
}

/// The number that a list of an answer has under a key: `key number;...`.
pub fn listed(answer: &Received, name: &str, key: &str) -> Option<i64> {
    let text = answer.fields.get(name)?;
    let found = text
        .split(';')
        .filter_map(|entry| entry.rsplit_once(' '))
        .find(|(of, _)| *of == key);
    found?.1.parse().ok()
}
