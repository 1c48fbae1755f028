//! The properties of a message: `name 0x01 value 0x02`, repeated, in one string.
//!
//! Reading follows Java: a pair without a name or without a value is none, the first 0x01 of a pair splits it, and the last 0x02
//! may be missing. Where a name stands twice the last pair counts. Nothing is allocated, also where the text is still escaped as a
//! JSON header has it.

mod look;

pub use look::{Looked, look};

use crate::scan::bytes_equal;
use crate::text::Text;

/// Between a name and its value.
pub const NAME_END: u8 = 0x01;
/// Behind a value.
pub const PAIR_END: u8 = 0x02;

/// The names that brokers and clients give a meaning to.
pub mod name {
    macro_rules! names {
        ($($const:ident = $name:literal: $doc:literal,)+) => {
            $(#[doc = $doc] pub const $const: &str = $name;)+
        };
    }

    names! {
        KEYS = "KEYS": "The user's keys, separated by blanks.",
        TAGS = "TAGS": "The user's tag.",
        UNIQ_KEY = "UNIQ_KEY": "The message id that the client gave.",
        WAIT = "WAIT": "Whether the sender waits until the message is stored.",
        DELAY = "DELAY": "Delay level, from 1.",
        TIMER_DELAY_SEC = "TIMER_DELAY_SEC": "Delay in seconds.",
        TIMER_DELAY_MS = "TIMER_DELAY_MS": "Delay in milliseconds.",
        TIMER_DELIVER_MS = "TIMER_DELIVER_MS": "Time of delivery.",
        TIMER_OUT_MS = "TIMER_OUT_MS": "Time of delivery as the broker rounded it.",
        TIMER_DEL_UNIQKEY = "TIMER_DEL_UNIQKEY": "The message whose timer is recalled.",
        TIMER_ROLL_TIMES = "TIMER_ROLL_TIMES": "How often a timer was put off.",
        TIMER_ENQUEUE_MS = "TIMER_ENQUEUE_MS": "When the timer took the message.",
        TIMER_DEQUEUE_MS = "TIMER_DEQUEUE_MS": "When the timer gave it back.",
        RETRY_TOPIC = "RETRY_TOPIC": "The topic from which a retried message came.",
        REAL_TOPIC = "REAL_TOPIC": "The topic of a message that is kept in another.",
        REAL_QID = "REAL_QID": "The queue of a message that is kept in another.",
        RECONSUME_TIME = "RECONSUME_TIME": "How often a message was consumed in vain.",
        MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES": "How often it may be.",
        ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID": "The id of the message that is retried.",
        DLQ_ORIGIN_TOPIC = "DLQ_ORIGIN_TOPIC": "The topic of a dead letter.",
        DLQ_ORIGIN_MESSAGE_ID = "DLQ_ORIGIN_MESSAGE_ID": "The id of a dead letter, before it died.",
        TRAN_MSG = "TRAN_MSG": "Whether this is a half message.",
        PGROUP = "PGROUP": "The producer group of a half message.",
        CHECK_IMMUNITY_TIME_IN_SECONDS = "CHECK_IMMUNITY_TIME_IN_SECONDS": "How long a half message is not checked.",
        TRANSACTION_CHECK_TIMES = "TRANSACTION_CHECK_TIMES": "How often a half message was checked.",
        TRAN_PREPARED_QUEUE_OFFSET = "TRAN_PREPARED_QUEUE_OFFSET": "Queue offset of the half message.",
        TRANSACTION_ID = "__transactionId__": "The transaction's id.",
        MSG_REGION = "MSG_REGION": "The broker's region.",
        TRACE_ON = "TRACE_ON": "Whether the broker wants traces.",
        CLUSTER = "CLUSTER": "The broker's cluster.",
        MIN_OFFSET = "MIN_OFFSET": "Set by clients on pulled messages.",
        MAX_OFFSET = "MAX_OFFSET": "Set by clients on pulled messages.",
        CONSUME_START_TIME = "CONSUME_START_TIME": "Set by clients on pulled messages.",
        CORRELATION_ID = "CORRELATION_ID": "Which request a reply answers.",
        REPLY_TO_CLIENT = "REPLY_TO_CLIENT": "The client that waits for a reply.",
        TTL = "TTL": "How long it waits, ms.",
        ARRIVE_TIME = "ARRIVE_TIME": "When a request reached the broker.",
        PUSH_REPLY_TIME = "PUSH_REPLY_TIME": "When the broker pushed a reply.",
        MSG_TYPE = "MSG_TYPE": "`reply` on a reply.",
        POP_CK = "POP_CK": "The handle of a popped message.",
        POP_CK_OFFSET = "POP_CK_OFFSET": "The checkpoint's offset of a popped message.",
        FIRST_POP_TIME = "1ST_POP_TIME": "When a message was popped first.",
        SHARDING_KEY = "__SHARDINGKEY": "What orderly messages are spread by.",
        INNER_NUM = "INNER_NUM": "The number of messages in an inner batch.",
        INNER_BASE = "INNER_BASE": "The first offset of an inner batch.",
        INNER_MULTI_DISPATCH = "INNER_MULTI_DISPATCH": "The queues that a message goes to besides its own.",
        INNER_MULTI_QUEUE_OFFSET = "INNER_MULTI_QUEUE_OFFSET": "Its offsets there.",
        INSTANCE_ID = "INSTANCE_ID": "The client's instance.",
        BUYER_ID = "BUYER_ID": "Kept for old clients.",
        TRANSFER_FLAG = "TRANSFER_FLAG": "Kept for old clients.",
        CORRECTION_FLAG = "CORRECTION_FLAG": "Kept for old clients.",
        MQ2_FLAG = "MQ2_FLAG": "Kept for old clients.",
        EXTEND_UNIQ_INFO = "EXTEND_UNIQ_INFO": "Further ids of a message.",
        DUP_INFO = "DUP_INFO": "How a duplicate came to be.",
        REDIRECT = "REDIRECT": "Whether a message was redirected.",
        BORN_HOST = "__BORNHOST": "The producer, where a proxy sends for it.",
        BORN_TIMESTAMP = "BORN_TIMESTAMP": "The producer's time, where a proxy sends for it.",
        TRACE_CONTEXT = "TRACE_CONTEXT": "What a trace hands on.",
        CRC32 = "__CRC32#": "The checksum of the record.",
    }
}

/// The properties of a message, as received or as stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Properties<'a> {
    text: Text<'a>,
}

impl<'a> Properties<'a> {
    /// Properties as a header carries them, escaped or not.
    pub fn from_text(text: Text<'a>) -> Self {
        Self { text }
    }

    /// Properties as a record or a batch carries them.
    pub fn from_plain(text: &'a str) -> Self {
        Self {
            text: Text::plain(text),
        }
    }

    /// Properties up to the first byte that is not UTF-8.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|valid| std::str::from_utf8(valid).ok())
                .unwrap_or_default(),
        };
        Self::from_plain(text)
    }

    /// The length of the text, as it was received.
    pub fn raw_len(&self) -> usize {
        self.text.raw().len()
    }

    /// Name and value of every pair, in order.
    pub fn iter(&self) -> Iter<'a> {
        Iter {
            text: self.text,
            at: 0,
        }
    }

    /// The value under `name`.
    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        let [value] = self.find([name]);
        value
    }

    /// The values under several names, looked for in one pass.
    pub fn find<const N: usize>(&self, names: [&str; N]) -> [Option<Text<'a>>; N] {
        let mut found = [None; N];
        for (name, value) in self.iter() {
            for (wanted, slot) in names.iter().zip(&mut found) {
                if name == **wanted {
                    *slot = Some(value);
                }
            }
        }
        found
    }
}

/// What a message can be found by besides its queue. An empty text is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageKeys<'a> {
    /// The id that its client gave it.
    pub unique: &'a str,
    /// The user's keys, with blanks between them.
    pub user: &'a str,
}

impl<'a> MessageKeys<'a> {
    /// Those of stored properties.
    pub fn of(properties: Properties<'a>) -> Self {
        let [unique, user] = properties.find([name::UNIQ_KEY, name::KEYS]);
        Self::from_found(unique, user)
    }

    /// Those that were found under their names in stored properties.
    pub fn from_found(unique: Option<Text<'a>>, user: Option<Text<'a>>) -> Self {
        let plain = |text: Option<Text<'a>>| text.and_then(|text| text.as_plain());
        Self {
            unique: plain(unique).unwrap_or_default(),
            user: plain(user).unwrap_or_default(),
        }
    }

    /// A pair that counts from here on.
    #[inline]
    fn note(&mut self, name: &str, value: &'a str) {
        match name {
            name::UNIQ_KEY => self.unique = value,
            name::KEYS => self.user = value,
            _ => {}
        }
    }

    /// One by one.
    pub fn each(self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::once(self.unique)
            .chain(self.user.split(' '))
            .filter(|key| !key.is_empty())
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = (Text<'a>, Text<'a>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over the pairs of [`Properties`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    text: Text<'a>,
    at: usize,
}

/// What ends: a name, a pair, or the text.
enum Mark {
    Name,
    Pair,
    Text,
}

impl Iter<'_> {
    /// The next separator at or behind `at`: what it is, where it begins, where it ends.
    fn mark(&self, mut at: usize) -> (Mark, usize, usize) {
        let raw = self.text.raw().as_bytes();
        let escaped = self.text.is_escaped();
        while let Some(offset) = raw.get(at..).and_then(|rest| find_mark(rest, escaped)) {
            at += offset;
            match raw.get(at..) {
                Some([NAME_END, ..]) => return (Mark::Name, at, at + 1),
                Some([PAIR_END, ..]) => return (Mark::Pair, at, at + 1),
                Some([b'\\', b'u', b'0', b'0', b'0', b'1', ..]) => {
                    return (Mark::Name, at, at + 6);
                }
                Some([b'\\', b'u', b'0', b'0', b'0', b'2', ..]) => {
                    return (Mark::Pair, at, at + 6);
                }
                Some([b'\\', b'u', ..]) => at += 6,
                _ => at += 2,
            }
        }
        (Mark::Text, raw.len(), raw.len())
    }
}

#[inline]
fn find_mark(bytes: &[u8], escaped: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let mut hits = bytes_equal(word, NAME_END) | bytes_equal(word, PAIR_END);
        if escaped {
            hits |= bytes_equal(word, b'\\');
        }
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let is_mark = |&byte: &u8| byte == NAME_END || byte == PAIR_END || (escaped && byte == b'\\');
    let rest = bytes.get(at..)?;
    rest.iter().position(is_mark).map(|offset| at + offset)
}

/// Where a pair stands in the text.
struct Span {
    start: usize,
    name_end: usize,
    value_at: usize,
    /// Where the value ends.
    end: usize,
}

impl Iter<'_> {
    fn next_span(&mut self) -> Option<Span> {
        while self.at < self.text.raw().len() {
            let start = self.at;
            let mut name = None;
            let (end, next) = loop {
                let (mark, start, end) = self.mark(self.at);
                self.at = end;
                match mark {
                    Mark::Name if name.is_none() => name = Some((start, end)),
                    Mark::Name => {}
                    Mark::Pair | Mark::Text => break (start, end),
                }
            };
            self.at = next;
            if let Some((name_end, value_at)) = name
                && name_end > start
                && end > value_at
            {
                return Some(Span {
                    start,
                    name_end,
                    value_at,
                    end,
                });
            }
        }
        None
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Text<'a>, Text<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let span = self.next_span()?;
        Some((
            self.text.slice(span.start, span.name_end),
            self.text.slice(span.value_at, span.end),
        ))
    }
}

/// The properties that a broker stores: those that were received without some, and others behind them. Pairs that are none are
/// dropped, and a name that is appended replaces one that was received.
#[derive(Debug, Clone, Copy)]
pub struct Edit<'e, 'a> {
    /// What was received.
    pub received: Properties<'a>,
    /// The names to leave out.
    pub without: &'e [&'e str],
    /// Whole pairs to append as they are, before the others. Their names belong to `without` where they may be received.
    pub ready: &'e str,
    /// What to append. Pairs with an empty name or an empty value are not written.
    pub append: &'e [(&'e str, &'e str)],
}

impl<'a> Edit<'_, 'a> {
    /// Looks once at what is to be written.
    pub fn measure(&self) -> Measured<'_, 'a> {
        let text = self.received.text;
        let mut pairs = self.received.iter();
        let (mut len, mut whole, mut closed) = (0, true, true);
        let mut keys = MessageKeys::default();
        loop {
            let from = pairs.at;
            let Some(span) = pairs.next_span() else {
                whole &= from == text.raw().len();
                break;
            };
            whole &= span.start == from;
            closed = span.end < text.raw().len();
            let name = text.slice(span.start, span.name_end);
            if self.keeps(name) {
                let value = text.slice(span.value_at, span.end);
                len += name.len() + value.len() + 2;
                if let Some((name, value)) = name.as_plain().zip(value.as_plain()) {
                    keys.note(name, value);
                }
            } else {
                whole = false;
            }
        }
        len += self.ready.len();
        len += self
            .appended()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum::<usize>();
        Measured {
            edit: self,
            len,
            whole,
            closed,
            keys: self.keys_with(keys),
        }
    }

    /// `received`, and what is appended.
    fn keys_with<'k>(&'k self, received: MessageKeys<'k>) -> MessageKeys<'k> {
        let mut keys = received;
        for (name, value) in self.appended() {
            keys.note(name, value);
        }
        keys
    }

    #[inline]
    fn keeps(&self, name: Text<'_>) -> bool {
        !self.without.iter().any(|left_out| name == **left_out)
            && !self.appended().any(|(appended, _)| name == *appended)
    }

    fn appended(&self) -> impl Iterator<Item = (&str, &str)> {
        self.append
            .iter()
            .copied()
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
    }
}

/// An [`Edit`] that was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'e, 'a> {
    edit: &'e Edit<'e, 'a>,
    len: usize,
    /// All that was received is kept, and no byte of it is outside a pair: it is copied as it is.
    whole: bool,
    /// The last pair has its end.
    closed: bool,
    keys: MessageKeys<'e>,
}

impl<'e> Measured<'e, '_> {
    /// What the message can be found by that has the properties to be written. Unknown where those that were received are
    /// escaped, and what is `ready` is not looked at.
    pub fn keys(&self) -> MessageKeys<'e> {
        self.keys
    }

    /// How many bytes [`Measured::write_to`] writes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the properties to the start of `dst`, which holds at least [`Measured::len`] bytes, and returns how many those
    /// were.
    pub fn write_to(&self, dst: &mut [u8]) -> usize {
        let mut at = 0;
        if self.whole {
            at = self.edit.received.text.write_to(dst);
            if !self.closed {
                dst[at] = PAIR_END;
                at += 1;
            }
        } else {
            for (name, value) in self.edit.received.iter() {
                if self.edit.keeps(name) {
                    at = put_pair(dst, at, name, value);
                }
            }
        }
        let ready = self.edit.ready.as_bytes();
        dst[at..at + ready.len()].copy_from_slice(ready);
        at += ready.len();
        for (name, value) in self.edit.appended() {
            at = put_pair(dst, at, Text::plain(name), Text::plain(value));
        }
        debug_assert_eq!(at, self.len);
        at
    }
}

fn put_pair(dst: &mut [u8], mut at: usize, name: Text<'_>, value: Text<'_>) -> usize {
    for (text, end) in [(name, NAME_END), (value, PAIR_END)] {
        at += text.write_to(&mut dst[at..]);
        dst[at] = end;
        at += 1;
    }
    at
}

/// Appends one pair to properties that are being built. One with an empty name or value is left out.
pub fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    if name.is_empty() || value.is_empty() {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.push(NAME_END);
    out.extend_from_slice(value.as_bytes());
    out.push(PAIR_END);
}

/// What a consume queue keeps of a tag: Java's hash of the string, sign-extended. 0 where there is no tag.
pub fn tags_code(tag: &str) -> i64 {
    i64::from(java_hash(tag))
}

/// Java's `String.hashCode`: over UTF-16 units.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests;
