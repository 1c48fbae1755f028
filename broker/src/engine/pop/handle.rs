//! The texts by which clients name what they popped: the handle of one message, and the offset lists of an answer.
//!
//! A handle is `start popTime invisibleTime reviveQid retryFlag brokerName queueId offset`, parted by blanks. It names a
//! checkpoint by group, topic, queue, start and pop time, and a message of it by its offset.

use std::fmt::Write;

use corelane_wire::code::response;

use crate::engine::name::RETRY_PREFIX;
use crate::engine::turn::Refusal;

/// The revive queue that stands in the handles of orderly pops.
pub const ORDER_REVIVE_QID: i32 = 999;
/// Revive queues that clients see; here they are only a number in handles.
pub const REVIVE_QUEUES: i32 = 8;

/// What a handle says, as far as the broker needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// Where the scan of the pop began.
    pub start: i64,
    /// When, in milliseconds.
    pub pop_ms: i64,
    /// How long its messages are invisible, in milliseconds.
    pub invisible_ms: i64,
    /// [`ORDER_REVIVE_QID`] for an orderly pop.
    pub revive_qid: i32,
}

impl Handle {
    /// Reads a handle that a client sent back.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut parts = text.split(' ');
        let mut number = || parts.next().and_then(|part| part.parse::<i64>().ok());
        let handle = (|| {
            let (start, pop_ms, invisible_ms) = (number()?, number()?, number()?);
            let revive_qid = i32::try_from(number()?).ok()?;
            Some(Self {
                start,
                pop_ms,
                invisible_ms,
                revive_qid,
            })
        })();
        match (handle, parts.count()) {
            (Some(handle), 3..=4) => Ok(handle),
            _ => Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!(
                    "extraInfo {:?} is no handle of a popped message",
                    text.chars().take(80).collect::<String>()
                ),
            )),
        }
    }

    /// Whether the message was popped in order.
    pub fn is_orderly(&self) -> bool {
        self.revive_qid == ORDER_REVIVE_QID
    }
}

/// The property POP_CK of a message out of a retry topic.
#[derive(Debug, Clone, Copy)]
pub struct RetryHandle<'a> {
    /// What any handle has.
    pub handle: Handle,
    /// This broker.
    pub broker_name: &'a str,
    /// Queue of the retry topic.
    pub queue_id: i32,
    /// Offset there.
    pub offset: i64,
}

impl std::fmt::Display for RetryHandle<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Handle {
            start,
            pop_ms,
            invisible_ms,
            revive_qid,
        } = self.handle;
        let Self {
            broker_name,
            queue_id,
            offset,
            ..
        } = self;
        write!(
            out,
            "{start} {pop_ms} {invisible_ms} {revive_qid} 1 {broker_name} {queue_id} {offset}"
        )
    }
}

/// The topic that holds what a group will pop again of a topic; of a retry topic that is itself.
pub fn retry_topic(group: &str, topic: &str) -> String {
    match topic.starts_with(RETRY_PREFIX) {
        true => topic.to_owned(),
        false => format!("{RETRY_PREFIX}{group}_{topic}"),
    }
}

/// The lists `startOffsetInfo`, `msgOffsetInfo` and `orderCountInfo` of an answer.
#[derive(Debug, Default)]
pub struct OffsetInfo {
    /// `retryFlag queueId start;...`
    pub starts: String,
    /// `retryFlag queueId offset,offset;...`
    pub messages: String,
    /// `retryFlag qo<queueId>%<offset> count;...` and `retryFlag queueId count`.
    pub counts: String,
}

impl OffsetInfo {
    /// Adds what was popped of one queue.
    pub fn add(
        &mut self,
        retry: bool,
        queue_id: i32,
        start: i64,
        offsets: impl Iterator<Item = i64>,
    ) {
        let flag = i32::from(retry);
        separate(&mut self.starts);
        // Writing into a String cannot fail.
        let _ = write!(self.starts, "{flag} {queue_id} {start}");
        separate(&mut self.messages);
        let _ = write!(self.messages, "{flag} {queue_id} ");
        for (index, offset) in offsets.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(self.messages, "{comma}{offset}");
        }
    }

    /// Adds how often the messages of one queue were popped before.
    pub fn add_counts(&mut self, queue_id: i32, counts: impl Iterator<Item = (i64, i32)>) {
        let mut least: Option<i32> = None;
        for (offset, count) in counts {
            separate(&mut self.counts);
            let _ = write!(self.counts, "0 qo{queue_id}%{offset} {count}");
            least = Some(least.map_or(count, |least| least.min(count)));
        }
        separate(&mut self.counts);
        let _ = write!(self.counts, "0 {queue_id} {}", least.unwrap_or(0));
    }
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push(';');
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn handles_are_read_as_clients_send_them() {
        let handle = Handle::parse("0 1795252017370 60000 6 1 broker-a 0 0").unwrap();
        assert_eq!(
            handle,
            Handle {
                start: 0,
                pop_ms: 1795252017370,
                invisible_ms: 60000,
                revive_qid: 6
            }
        );
        let retry = RetryHandle {
            handle,
            broker_name: "broker-a",
            queue_id: 2,
            offset: 7,
        };
        assert_eq!(retry.to_string(), "0 1795252017370 60000 6 1 broker-a 2 7");
        assert!(
            Handle::parse("5 1 2 999 0 broker-a 0")
                .unwrap()
                .is_orderly()
        );
        for bad in [
            "",
            "1",
            "1 2 3",
            "a 2 3 4 0 b 0 0",
            "1 2 3 4 0 b 0 0 9",
            "1 2 3 99999999999 0 b 0 0",
        ] {
            assert_eq!(
                Handle::parse(bad).unwrap_err().code,
                response::MESSAGE_ILLEGAL,
                "{bad}"
            );
        }
    }

    #[test]
    fn lists_have_the_form_that_clients_split() {
        let mut info = OffsetInfo::default();
        info.add(false, 0, 0, [0].into_iter());
        info.add(true, 1, 4, [5, 7].into_iter());
        assert_eq!(info.starts, "0 0 0;1 1 4");
        assert_eq!(info.messages, "0 0 0;1 1 5,7");
        info.add_counts(3, [(8, 2), (9, 1)].into_iter());
        assert_eq!(info.counts, "0 qo3%8 2;0 qo3%9 1;0 3 1");
    }

    #[test]
    fn retry_topics_are_their_own() {
        assert_eq!(retry_topic("g", "t"), "%RETRY%g_t");
        assert_eq!(retry_topic("g", "%RETRY%g_t"), "%RETRY%g_t");
    }

    proptest! {
        #[test]
        fn any_handle_is_read_or_refused(text in ".*") {
            let _ = Handle::parse(&text);
        }
    }
}
