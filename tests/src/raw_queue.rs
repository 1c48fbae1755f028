//! One queue over raw requests, with a book of what was acknowledged in it.

use std::collections::BTreeMap;
use std::io;

use crate::raw::{self, Connection, Response, code};

/// PULL_NOT_FOUND: nothing from there on.
const PULL_NOT_FOUND: i64 = 19;

/// A queue of one broker.
#[derive(Debug)]
pub struct RawQueue {
    address: String,
    topic: String,
    connection: Connection,
    /// The bodies that were acknowledged, by offset.
    pub acknowledged: BTreeMap<i64, Vec<u8>>,
    serial: u64,
}

impl RawQueue {
    /// Makes a topic with one queue.
    pub fn create(address: &str, topic: &str) -> Self {
        let made = raw::create_topic(address, topic, 1).expect("an answer");
        assert_eq!(made.code, 0, "{}", made.remark);
        Self {
            address: address.to_owned(),
            topic: topic.to_owned(),
            connection: Connection::open(address).expect("a connection"),
            acknowledged: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Connects again, after the broker was started again.
    pub fn connect_again(&mut self) {
        self.connection = Connection::open(&self.address).expect("a connection");
    }

    /// Any request over the same connection.
    pub fn ask(&mut self, code: i64, fields: &[(&str, &str)]) -> Response {
        let answer = self.connection.request(code, fields, &[]);
        answer.unwrap_or_else(|e| panic!("request {code}: {e}"))
    }

    /// Any request with a body and without fields.
    pub fn ask_with(&mut self, code: i64, body: &[u8]) -> Response {
        let answer = self.connection.request(code, &[], body);
        answer.unwrap_or_else(|e| panic!("request {code}: {e}"))
    }

    /// Sends one message of about so many bytes, which no other is like. An error: the broker has ended the connection.
    pub fn send(&mut self, bytes: usize) -> io::Result<Response> {
        self.serial += 1;
        let mut body = format!("{} {} ", self.topic, self.serial).into_bytes();
        // No run of bytes that a file system could leave out.
        let fill = (0..bytes as u64).map(|at| (at.wrapping_mul(self.serial | 1) >> 3) as u8);
        body.extend(fill);
        let fields = raw::send_fields(&self.topic, "0");
        let answer = self.connection.request(code::SEND, &fields, &body)?;
        if answer.code == 0 {
            let offset = answer.ext["queueOffset"].parse().expect("an offset");
            let before = self.acknowledged.insert(offset, body);
            assert!(before.is_none(), "two messages at offset {offset}");
        }
        Ok(answer)
    }

    /// Sends messages until one is refused or the connection ends; panics when `most` were taken.
    pub fn send_until_refused(&mut self, bytes: usize, most: usize) -> io::Result<Response> {
        for _ in 0..most {
            let answer = self.send(bytes)?;
            if answer.code != 0 {
                return Ok(answer);
            }
        }
        panic!("{most} messages were taken, and none was refused");
    }

    /// The smallest offset.
    pub fn min_offset(&mut self) -> i64 {
        self.offset(code::MIN_OFFSET)
    }

    /// One past the largest offset.
    pub fn max_offset(&mut self) -> i64 {
        self.offset(code::MAX_OFFSET)
    }

    fn offset(&mut self, code: i64) -> i64 {
        let topic = self.topic.clone();
        let answer = self.ask(code, &[("topic", &topic), ("queueId", "0")]);
        answer.ext["offset"].parse().expect("an offset")
    }

    /// Pulls at an offset.
    pub fn pull(&mut self, offset: i64) -> Response {
        let (topic, offset) = (self.topic.clone(), offset.to_string());
        let fields = raw::pull_fields("DEFAULT_CONSUMER", &topic, &offset);
        self.ask(code::PULL, &fields)
    }

    /// Panics unless every acknowledged message from the smallest offset on can be read and is what was sent. Gives that
    /// offset.
    pub fn check(&mut self) -> i64 {
        let min = self.min_offset();
        let mut found = BTreeMap::new();
        let mut next = min;
        loop {
            let answer = self.pull(next);
            if answer.code == PULL_NOT_FOUND {
                break;
            }
            assert_eq!(answer.code, 0, "a pull at {next}: {}", answer.remark);
            for (offset, body) in records(&answer.body) {
                assert_eq!(offset, next, "offsets are dense");
                found.insert(offset, body);
                next += 1;
            }
        }
        for (offset, body) in self.acknowledged.range(min..) {
            assert!(
                found.get(offset) == Some(body),
                "the acknowledged message at {offset} of {min}..{next} is not what it was"
            );
        }
        min
    }
}

/// Queue offsets and bodies of records as a pull brings them.
fn records(mut bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let number = |bytes: &[u8], at: usize| {
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
    };
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = bytes.split_at(number(bytes, 0));
        let offset = i64::from_be_bytes(record[20..28].try_into().expect("eight bytes"));
        let body = &record[88..88 + number(record, 84)];
        records.push((offset, body.to_vec()));
        bytes = rest;
    }
    records
}
