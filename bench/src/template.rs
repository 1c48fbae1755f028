//! Requests that are encoded once: a header for each queue, a body for each size, and where the few bytes are that differ
//! from one use to the next. Those have a fixed width, so that nothing moves.

use corelane_wire::batch::{self, BatchMessage};
use corelane_wire::code::{VERSION, language, request};
use corelane_wire::frame::{Head, Serialization};
use corelane_wire::header::pull::PullMessageRequest;
use corelane_wire::header::send::SendMessageRequest;
use corelane_wire::properties::{self, name};
use corelane_wire::{ExtHeader, FrameWriter, Text};

use crate::stamp;

/// The smallest opaque: all have ten digits, so that JSON has room for each.
pub const FIRST_OPAQUE: i32 = 1_000_000_000;

/// How many bits of an opaque the generator may choose.
pub const OPAQUE_BITS: u32 = 30;

const UNIQUE_BYTES: usize = 32;
const KEY_DIGITS: usize = 10;
const TIME_DIGITS: usize = 13;
const OFFSET_DIGITS: usize = 19;

/// What a message has beside its body.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// The tag.
    pub tag: Option<String>,
    /// Whether it has a key; which one is said when it is sent.
    pub keyed: bool,
    /// Whether it has the unique key that Java's clients give.
    pub unique: bool,
    /// Whether it is delivered later; when is said when it is sent.
    pub timer: bool,
}

impl Shape {
    fn properties(&self) -> String {
        let mut out = Vec::new();
        if self.keyed {
            properties::push(&mut out, name::KEYS, &"7".repeat(KEY_DIGITS));
        }
        if self.unique {
            properties::push(&mut out, name::UNIQ_KEY, &"F".repeat(UNIQUE_BYTES));
            properties::push(&mut out, name::WAIT, "true");
        }
        if let Some(tag) = &self.tag {
            properties::push(&mut out, name::TAGS, tag);
        }
        if self.timer {
            properties::push(&mut out, name::TIMER_DELIVER_MS, &"9".repeat(TIME_DIGITS));
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Where the keys of one message stand, and the time of its delivery.
#[derive(Debug, Clone, Copy, Default)]
struct Keys {
    unique: Option<usize>,
    key: Option<usize>,
    deliver: Option<usize>,
}

impl Keys {
    fn find(bytes: &[u8], shape: &Shape) -> Self {
        Self {
            unique: shape
                .unique
                .then(|| position(bytes, &[b'F'; UNIQUE_BYTES]))
                .flatten(),
            key: shape
                .keyed
                .then(|| position(bytes, &[b'7'; KEY_DIGITS]))
                .flatten(),
            deliver: shape
                .timer
                .then(|| position(bytes, &[b'9'; TIME_DIGITS]))
                .flatten(),
        }
    }

    #[inline]
    fn write(&self, bytes: &mut [u8], values: &Values) {
        if let Some(at) = self.unique {
            put_hex(&mut bytes[at..at + 16], values.stream);
            put_hex(&mut bytes[at + 16..at + 32], values.unique);
        }
        if let Some(at) = self.key {
            put_digits(&mut bytes[at..at + KEY_DIGITS], values.key);
        }
        if let Some(at) = self.deliver {
            put_digits(&mut bytes[at..at + TIME_DIGITS], values.deliver_ms);
        }
    }
}

/// What differs from one request to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Values {
    /// From [`FIRST_OPAQUE`] on.
    pub opaque: i32,
    /// The first half of a unique key.
    pub stream: u64,
    /// Its second half, counted up within a batch.
    pub unique: u64,
    /// The key.
    pub key: u64,
    /// The number of the (first) message for the stamp.
    pub seq: u64,
    /// The time for the stamp.
    pub sent_ns: u64,
    /// When a timer is due, in milliseconds since 1970.
    pub deliver_ms: u64,
}

/// The time of birth as text, made once a turn.
#[derive(Debug, Clone, Copy)]
pub struct Born([u8; TIME_DIGITS]);

impl Born {
    /// Of this moment.
    pub fn at(now_ns: u64) -> Self {
        let mut digits = [0; TIME_DIGITS];
        put_digits(&mut digits, now_ns / 1_000_000);
        Self(digits)
    }
}

/// The header of sends to one queue.
#[derive(Debug, Clone)]
pub struct SendHeader {
    bytes: Vec<u8>,
    opaque: Opaque,
    born_at: usize,
    keys: Keys,
}

/// Whose queue a header is for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Producer or consumer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The queue in it.
    pub queue_id: i32,
    /// The broker's name, where it is known.
    pub broker_name: Option<&'a str>,
}

impl SendHeader {
    /// A header for single messages, or for batches, whose messages have their properties in the body.
    pub fn new(
        serialization: Serialization,
        target: Target<'_>,
        shape: &Shape,
        is_batch: bool,
    ) -> Self {
        let code = if is_batch {
            request::SEND_BATCH_MESSAGE
        } else {
            request::SEND_MESSAGE_V2
        };
        let shape = Shape {
            tag: shape.tag.clone().filter(|_| !is_batch),
            keyed: shape.keyed && !is_batch,
            unique: shape.unique,
            timer: shape.timer && !is_batch,
        };
        let properties = shape.properties();
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, &head(serialization, code));
        SendMessageRequest {
            producer_group: Text::plain(target.group),
            topic: Text::plain(target.topic),
            default_topic: Text::plain("TBW102"),
            default_topic_queue_nums: 4,
            queue_id: target.queue_id,
            born_timestamp: 7_777_777_777_777,
            properties: Some(Text::plain(&properties)),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            batch: Some(is_batch),
            bname: target.broker_name.map(Text::plain),
            ..SendMessageRequest::default()
        }
        .encode_short(&mut writer);
        writer.finish(0);
        // The key's sevens are fewer than those of the time.
        let born_at = position(&bytes, &[b'7'; TIME_DIGITS]).unwrap_or_default();
        let properties_at = born_at + TIME_DIGITS;
        let found = Keys::find(&bytes[properties_at..], &shape);
        let keys = Keys {
            unique: found.unique.map(|at| properties_at + at),
            key: found.key.map(|at| properties_at + at),
            deliver: found.deliver.map(|at| properties_at + at),
        };
        Self {
            opaque: Opaque::find(&bytes, serialization),
            bytes,
            born_at,
            keys,
        }
    }
}

/// The body of a send: one message or a batch.
#[derive(Debug, Clone)]
pub struct SendBody {
    bytes: Vec<u8>,
    messages: Vec<MessageAt>,
    payload_bytes: usize,
    stamped: bool,
}

#[derive(Debug, Clone, Copy)]
struct MessageAt {
    body: usize,
    keys: Keys,
}

impl SendBody {
    /// A body for each of `sizes`; as a batch where that is said. Their filler comes from `seed` on.
    pub fn new(run: u32, seed: u32, sizes: &[usize], shape: &Shape, batch: Batch) -> Self {
        let mut bytes = Vec::new();
        let mut messages = Vec::new();
        let mut payload_bytes = 0;
        for (number, size) in sizes.iter().enumerate() {
            let mut body = stamp::body(run, seed.wrapping_add(number as u32), *size);
            if !batch.stamped {
                body.truncate(*size);
            }
            payload_bytes += body.len();
            let mut message = MessageAt {
                body: bytes.len(),
                keys: Keys::default(),
            };
            if batch.is_batch {
                let properties = shape.properties();
                message.body += 20;
                // Only a body above 2 GiB does not fit.
                let _ = batch::push(
                    &mut bytes,
                    &BatchMessage {
                        flag: 0,
                        body: &body,
                        properties: &properties,
                    },
                );
                let properties_at = bytes.len() - properties.len();
                let found = Keys::find(&bytes[properties_at..], shape);
                message.keys.unique = found.unique.map(|at| properties_at + at);
                message.keys.key = found.key.map(|at| properties_at + at);
            } else {
                bytes.extend_from_slice(&body);
            }
            messages.push(message);
        }
        Self {
            bytes,
            messages,
            payload_bytes,
            stamped: batch.stamped,
        }
    }

    /// How many messages it has.
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    /// What the users of a broker would count: the bodies alone.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Messages in the form of a batch.
    pub is_batch: bool,
    /// Whether each message has a [`stamp`].
    pub stamped: bool,
}

/// Appends one send to `out`.
#[inline]
pub fn push_send(
    out: &mut Vec<u8>,
    header: &SendHeader,
    body: &SendBody,
    born: &Born,
    values: &Values,
) {
    let start = out.len();
    out.extend_from_slice(&header.bytes);
    out.extend_from_slice(&body.bytes);
    let (head, tail) = out[start..].split_at_mut(header.bytes.len());
    let total_len = (header.bytes.len() + body.bytes.len() - 4) as u32;
    head[..4].copy_from_slice(&total_len.to_be_bytes());
    header.opaque.write(head, values.opaque);
    head[header.born_at..header.born_at + TIME_DIGITS].copy_from_slice(&born.0);
    header.keys.write(head, values);
    if !body.stamped && body.messages.len() == 1 {
        return;
    }
    for (number, message) in body.messages.iter().enumerate() {
        let number = number as u64;
        if body.stamped {
            let seq = values.seq + number;
            let stream = (values.stream & u64::from(u32::MAX)) as u32;
            stamp::complete(&mut tail[message.body..], stream, seq, values.sent_ns);
        }
        let values = Values {
            unique: values.unique + number,
            key: values.key,
            ..*values
        };
        message.keys.write(tail, &values);
    }
}

/// A pull of one queue.
#[derive(Debug, Clone)]
pub struct PullRequest {
    bytes: Vec<u8>,
    opaque: Opaque,
    offset_at: usize,
}

/// What a pull asks for.
#[derive(Debug, Clone, Copy)]
pub struct PullLimits {
    /// Most messages of an answer.
    pub messages: i32,
    /// Most bytes of an answer; the broker's own bound without it.
    pub bytes: Option<i32>,
    /// How long the broker may hold the pull.
    pub suspend_ms: i64,
}

impl PullRequest {
    /// A pull with a subscription of its own, so that no heartbeat is needed.
    pub fn new(
        serialization: Serialization,
        target: Target<'_>,
        subscription: &str,
        limits: PullLimits,
    ) -> Self {
        use corelane_wire::code::pull_flag::{SUBSCRIPTION, SUSPEND};
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, &head(serialization, request::PULL_MESSAGE));
        PullMessageRequest {
            consumer_group: Text::plain(target.group),
            topic: Text::plain(target.topic),
            queue_id: target.queue_id,
            queue_offset: 7_777_777_777_777_777_777,
            max_msg_nums: limits.messages,
            sys_flag: SUBSCRIPTION | if limits.suspend_ms > 0 { SUSPEND } else { 0 },
            suspend_timeout_millis: limits.suspend_ms,
            subscription: Some(Text::plain(subscription)),
            expression_type: Some(Text::plain("TAG")),
            max_msg_bytes: limits.bytes,
            ..PullMessageRequest::default()
        }
        .encode(&mut writer);
        if let Some(broker_name) = target.broker_name {
            writer.field("bname", broker_name);
        }
        writer.finish(0);
        Self {
            opaque: Opaque::find(&bytes, serialization),
            offset_at: position(&bytes, &[b'7'; OFFSET_DIGITS]).unwrap_or_default(),
            bytes,
        }
    }

    /// Appends the pull from this offset to `out`.
    pub fn push_to(&self, out: &mut Vec<u8>, opaque: i32, offset: u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        self.opaque.write(frame, opaque);
        put_digits(
            &mut frame[self.offset_at..self.offset_at + OFFSET_DIGITS],
            offset,
        );
    }
}

/// Where a header has its opaque.
#[derive(Debug, Clone, Copy)]
enum Opaque {
    Json(usize),
    Rocketmq,
}

impl Opaque {
    fn find(bytes: &[u8], serialization: Serialization) -> Self {
        match serialization {
            Serialization::Json => {
                let name = b"\"opaque\":";
                Self::Json(position(bytes, name).unwrap_or_default() + name.len())
            }
            Serialization::Rocketmq => Self::Rocketmq,
        }
    }

    #[inline]
    fn write(self, bytes: &mut [u8], opaque: i32) {
        match self {
            Self::Json(at) => put_digits(&mut bytes[at..at + 10], opaque as u64),
            Self::Rocketmq => bytes[13..17].copy_from_slice(&opaque.to_be_bytes()),
        }
    }
}

/// The head of a request, with [`FIRST_OPAQUE`].
pub(crate) fn head(serialization: Serialization, code: i32) -> Head<'static> {
    Head {
        serialization,
        code,
        language: language::JAVA,
        version: VERSION,
        opaque: FIRST_OPAQUE,
        flag: 0,
        remark: None,
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Writes `value` with leading zeros into all of `dst`.
#[inline]
fn put_digits(dst: &mut [u8], mut value: u64) {
    for digit in dst.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Writes `value` in 16 hexadecimal digits.
#[inline]
fn put_hex(dst: &mut [u8], value: u64) {
    let (high, low) = ((value >> 32) as u32, value as u32);
    dst[..8].copy_from_slice(&hex_digits(high));
    dst[8..16].copy_from_slice(&hex_digits(low));
}

/// Eight digits at once: the nibbles are spread to a byte each, then all bytes become characters.
#[inline]
fn hex_digits(value: u32) -> [u8; 8] {
    let mut spread = u64::from(value);
    spread = (spread << 16 | spread) & 0x0000_FFFF_0000_FFFF;
    spread = (spread << 8 | spread) & 0x00FF_00FF_00FF_00FF;
    spread = (spread << 4 | spread) & 0x0F0F_0F0F_0F0F_0F0F;
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * 7).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use corelane_wire::Frame;
    use corelane_wire::properties::Properties;

    use super::*;

    const TARGET: Target<'static> = Target {
        group: "group",
        topic: "Topic",
        queue_id: 12,
        broker_name: Some("broker-a"),
    };

    fn shape() -> Shape {
        Shape {
            tag: Some("red".to_owned()),
            keyed: true,
            unique: true,
            timer: true,
        }
    }

    fn values() -> Values {
        Values {
            opaque: 1_234_567_890,
            stream: 0xAB,
            unique: 0xCDEF,
            key: 42,
            seq: 9,
            sent_ns: 77,
            deliver_ms: 1_795_251_999_000,
        }
    }

    fn check_message(properties: Properties<'_>, unique: &str) {
        assert_eq!(properties.get("TAGS").unwrap(), *"red");
        assert_eq!(properties.get("KEYS").unwrap(), *"0000000042");
        assert_eq!(properties.get("UNIQ_KEY").unwrap(), *unique);
    }

    #[test]
    fn digits_are_those_that_are_printed() {
        for value in [0, 9, 10, 0x0123_4567_89AB_CDEF, u64::MAX, 1 << 32] {
            let mut digits = [0; 16];
            put_hex(&mut digits, value);
            assert_eq!(digits, format!("{value:016X}").as_bytes());
        }
        let mut digits = [0; 6];
        put_digits(&mut digits, 1234);
        assert_eq!(&digits, b"001234");
    }

    #[test]
    fn a_send_is_what_a_parser_reads() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let header = SendHeader::new(serialization, TARGET, &shape(), false);
            for stamped in [false, true] {
                let batch = Batch {
                    is_batch: false,
                    stamped,
                };
                let body = SendBody::new(5, 6, &[100], &shape(), batch);
                assert_eq!((body.messages(), body.payload_bytes()), (1, 100));
                let mut out = b"before".to_vec();
                let born = Born::at(1_795_251_370_884_000_000);
                push_send(&mut out, &header, &body, &born, &values());
                let frame = Frame::parse(&out[6..]).unwrap();
                assert_eq!((frame.code, frame.opaque), (310, 1_234_567_890));
                let send = SendMessageRequest::decode_short(&frame.ext).unwrap();
                assert_eq!(send.topic, *"Topic");
                assert_eq!(send.queue_id, 12);
                assert_eq!(send.born_timestamp, 1_795_251_370_884);
                assert_eq!(send.batch, Some(false));
                let unique = "00000000000000AB000000000000CDEF";
                let properties = Properties::from_text(send.properties.unwrap());
                check_message(properties, unique);
                assert_eq!(
                    properties.get(name::TIMER_DELIVER_MS).unwrap(),
                    *"1795251999000"
                );
                assert_eq!(frame.body.len(), 100);
                let stamp = stamp::read(frame.body).unwrap();
                assert!(stamp::is_whole(frame.body, &stamp));
                let sent = (stamp.stream, stamp.seq, stamp.sent_ns);
                assert_eq!(sent, if stamped { (0xAB, 9, 77) } else { (0, 0, 0) });
            }
        }
    }

    #[test]
    fn a_batch_is_what_a_parser_reads() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let header = SendHeader::new(serialization, TARGET, &shape(), true);
            let batch = Batch {
                is_batch: true,
                stamped: true,
            };
            let body = SendBody::new(5, 6, &[32, 50, 64], &shape(), batch);
            assert_eq!((body.messages(), body.payload_bytes()), (3, 146));
            let mut out = Vec::new();
            push_send(&mut out, &header, &body, &Born::at(0), &values());
            let frame = Frame::parse(&out).unwrap();
            assert_eq!((frame.code, frame.opaque), (320, 1_234_567_890));
            let send = SendMessageRequest::decode_short(&frame.ext).unwrap();
            assert_eq!(send.batch, Some(true));
            let messages: Vec<_> = batch::messages(frame.body).map(Result::unwrap).collect();
            assert_eq!(messages.len(), 3);
            for (number, message) in messages.iter().enumerate() {
                let unique = format!("00000000000000AB{:016X}", 0xCDEF + number);
                check_message(Properties::from_plain(message.properties), &unique);
                let stamp = stamp::read(message.body).unwrap();
                assert_eq!(stamp.seq, 9 + number as u64);
                assert!(stamp::is_whole(message.body, &stamp));
            }
        }
    }

    #[test]
    fn a_bare_message_has_only_its_body() {
        let header = SendHeader::new(Serialization::Rocketmq, TARGET, &Shape::default(), false);
        let batch = Batch {
            is_batch: false,
            stamped: false,
        };
        let body = SendBody::new(1, 1, &[7], &Shape::default(), batch);
        let mut out = Vec::new();
        push_send(&mut out, &header, &body, &Born::at(0), &values());
        let frame = Frame::parse(&out).unwrap();
        let send = SendMessageRequest::decode_short(&frame.ext).unwrap();
        assert_eq!(send.properties, Some(Text::plain("")));
        assert_eq!(frame.body.len(), 7);
    }

    #[test]
    fn a_pull_is_what_a_parser_reads() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            let limits = PullLimits {
                messages: 32,
                bytes: None,
                suspend_ms: 15_000,
            };
            let pull = PullRequest::new(serialization, TARGET, "*", limits);
            let mut out = Vec::new();
            pull.push_to(&mut out, 1_000_000_001, 123_456);
            let frame = Frame::parse(&out).unwrap();
            assert_eq!((frame.code, frame.opaque), (11, 1_000_000_001));
            let pull = PullMessageRequest::decode(&frame.ext).unwrap();
            assert_eq!((pull.queue_offset, pull.queue_id), (123_456, 12));
            assert_eq!((pull.max_msg_nums, pull.sys_flag), (32, 6));
            assert_eq!(pull.subscription, Some(Text::plain("*")));
        }
    }
}
