//! The check of `soak` against a broker that keeps its word, and against one that does not.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test, with threads of its own"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use corelane_bench::clock::Clock;
use corelane_bench::layout::{Connections, lay_out};
use corelane_bench::outcome::Outcome;
use corelane_bench::plan::{Broker, Plan, PullRange, Pulling, Queue, Reading, Sending};
use corelane_bench::run::run;
use corelane_bench::schedule::{Arrivals, Segment};
use corelane_bench::template::PullLimits;
use corelane_wire::code::{VERSION, language, request, response};
use corelane_wire::frame::{FrameWriter, Head, split};
use corelane_wire::header::pull::{PullMessageRequest, PullMessageResponse};
use corelane_wire::header::send::{SendMessageRequest, SendMessageResponse};
use corelane_wire::record::{Host, RecordFields, RecordHead};
use corelane_wire::{ExtHeader, Frame, Text};

/// What the broker does to every hundredth message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Acknowledges and forgets it.
    Lose,
    /// Stores it twice.
    Duplicate,
    /// Stores another byte in its middle, under a checksum that fits.
    Damage,
    /// Stores it, and says that it lies one place further on.
    Misplace,
    /// Stores it, and answers with an error.
    Refuse,
    /// Stores it, and never answers.
    Silence,
}

/// The records of each queue; `None` where one was lost.
type Store = Arc<Mutex<BTreeMap<i32, Vec<Option<Vec<u8>>>>>>;

struct Served {
    fault: Fault,
    store: Store,
    /// On all connections.
    sends: Arc<AtomicU64>,
}

impl Served {
    fn serve(self, mut stream: TcpStream) {
        let (mut input, mut chunk) = (Vec::new(), [0; 65536]);
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            input.extend_from_slice(&chunk[..count]);
            let mut out = Vec::new();
            while let Some(len) = split(&input, 1 << 24).unwrap() {
                self.answer(&Frame::parse(&input[..len]).unwrap(), &mut out);
                input.drain(..len);
            }
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn answer(&self, frame: &Frame, out: &mut Vec<u8>) {
        let head = |code| Head {
            serialization: frame.serialization,
            code,
            language: language::JAVA,
            version: VERSION,
            opaque: frame.opaque,
            flag: 1,
            remark: None,
        };
        if frame.code == request::PULL_MESSAGE {
            let asked = PullMessageRequest::decode(&frame.ext).unwrap();
            let store = self.store.lock().unwrap();
            let records = store.get(&asked.queue_id).map_or(&[][..], |queue| {
                queue.get(asked.queue_offset as usize..).unwrap_or(&[])
            });
            let records = &records[..records.len().min(32)];
            let body: Vec<u8> = records.iter().flatten().flatten().copied().collect();
            let code = if body.is_empty() {
                response::PULL_NOT_FOUND
            } else {
                response::SUCCESS
            };
            let answer = PullMessageResponse {
                next_begin_offset: asked.queue_offset + records.len() as i64,
                ..PullMessageResponse::default()
            };
            drop(store);
            if body.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            let mut writer = FrameWriter::new(out, &head(code));
            answer.encode(&mut writer);
            writer.finish(body.len());
            out.extend_from_slice(&body);
            return;
        }
        let asked = SendMessageRequest::decode_short(&frame.ext).unwrap();
        let number = 1 + self.sends.fetch_add(1, Ordering::Relaxed);
        let hit = number.is_multiple_of(100);
        let fault = if hit { self.fault } else { Fault::None };
        let offset = self.store(&asked, frame.body, fault);
        if fault == Fault::Silence {
            return;
        }
        let code = match fault {
            Fault::Refuse => response::SYSTEM_ERROR,
            _ => response::SUCCESS,
        };
        let mut writer = FrameWriter::new(out, &head(code));
        SendMessageResponse {
            msg_id: Text::plain("7F00000100002A9F0000000000000000"),
            queue_id: asked.queue_id,
            queue_offset: offset + i64::from(fault == Fault::Misplace),
            ..SendMessageResponse::default()
        }
        .encode(&mut writer);
        writer.finish(0);
    }

    /// Stores a message with this fault; its offset.
    fn store(&self, asked: &SendMessageRequest, body: &[u8], fault: Fault) -> i64 {
        let mut store = self.store.lock().unwrap();
        let queue = store.entry(asked.queue_id).or_default();
        let offset = queue.len() as i64;
        let mut body = body.to_vec();
        if fault == Fault::Damage {
            let middle = body.len() - 10;
            body[middle] ^= 1;
        }
        for copy in 0..1 + i64::from(fault == Fault::Duplicate) {
            let record = record(asked.queue_id, offset + copy, &body);
            queue.push((fault != Fault::Lose).then_some(record));
        }
        offset
    }
}

fn record(queue_id: i32, queue_offset: i64, body: &[u8]) -> Vec<u8> {
    let host = Host {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 1,
    };
    let head = RecordHead {
        queue_id,
        flag: 0,
        queue_offset,
        physical_offset: 0,
        sys_flag: 0,
        born_timestamp: 0,
        born_host: host,
        store_timestamp: 0,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
    };
    let fields = RecordFields {
        head,
        body,
        topic: "T",
        properties: b"",
    };
    let mut out = Vec::new();
    fields.push_to(&mut out).unwrap();
    out
}

fn soak(fault: Fault) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (store, sends) = (Store::default(), Arc::default());
    // Connections end with the generator's, and the listener with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let served = Served {
                fault,
                store: Arc::clone(&store),
                sends: Arc::clone(&sends),
            };
            thread::spawn(move || served.serve(stream.unwrap()));
        }
    });
    let queues: Vec<Queue> = (0..4)
        .map(|id| Queue {
            broker: 0,
            topic: "T".to_owned(),
            id,
        })
        .collect();
    let range = |queue| PullRange {
        queue,
        from: 0,
        to: None,
    };
    let ranges: Vec<PullRange> = (0..4).map(range).collect();
    let connections = Connections {
        producers: 2,
        consumers_per_broker: 2,
        idlers: 0,
        heartbeat: Duration::from_secs(30),
    };
    let mut threads = lay_out(&queues, &ranges, connections, 1).unwrap();
    for thread in &mut threads {
        thread.schedule = Some(vec![Segment::steady(5000.0, f64::INFINITY)]);
        thread.requests = Some(1000);
    }
    let plan = Plan {
        clock: Clock::start(),
        run: 7,
        serialization: corelane_wire::frame::Serialization::Rocketmq,
        brokers: vec![Broker {
            name: None,
            address,
        }],
        queues,
        sending: Sending {
            group: "group".to_owned(),
            sizes: vec!["64-500".parse().unwrap()],
            batch: None,
            in_flight: 4,
            tags: Vec::new(),
            keys: None,
            unique: true,
            stamped: true,
            arrivals: Arrivals::Even,
            deliver: None,
        },
        pulling: Pulling {
            group: "group".to_owned(),
            subscription: "*".to_owned(),
            limits: PullLimits {
                messages: 32,
                bytes: None,
                suspend_ms: 0,
            },
            reading: Reading::Content,
        },
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(2),
        heartbeat: Duration::from_secs(30),
        commit: Duration::from_secs(5),
        drain: Duration::from_millis(500),
        spin: false,
    };
    run("soak", &plan, &threads, true).unwrap()
}

#[test]
fn a_broker_that_keeps_its_word_is_clean() {
    let outcome = soak(Fault::None);
    let findings = outcome.findings.unwrap();
    assert!(outcome.is_good(), "{outcome}");
    assert_eq!((findings.acknowledged, findings.arrived), (1000, 1000));
}

#[test]
fn what_was_acknowledged_and_forgotten_is_lost() {
    let outcome = soak(Fault::Lose);
    let findings = outcome.findings.unwrap();
    assert_eq!(findings.lost, 10, "{findings:?}");
    assert_eq!(findings.duplicates, 0, "{findings:?}");
    assert!(!outcome.is_good());
}

#[test]
fn what_was_stored_twice_is_a_duplicate() {
    let outcome = soak(Fault::Duplicate);
    let findings = outcome.findings.unwrap();
    assert_eq!(
        (findings.duplicates, findings.lost),
        (10, 0),
        "{findings:?}"
    );
    assert!(!outcome.is_good());
}

#[test]
fn a_byte_that_changed_is_damage() {
    let outcome = soak(Fault::Damage);
    let findings = outcome.findings.unwrap();
    assert_eq!((findings.damaged, findings.lost), (10, 0), "{findings:?}");
    assert!(!outcome.is_good());
}

#[test]
fn a_message_elsewhere_is_misplaced() {
    let outcome = soak(Fault::Misplace);
    assert!(outcome.findings.unwrap().misplaced > 0, "{outcome}");
    assert!(!outcome.is_good());
}

#[test]
fn what_was_refused_may_arrive() {
    let outcome = soak(Fault::Refuse);
    let findings = outcome.findings.unwrap();
    assert_eq!(findings.uncertain, 10, "{findings:?}");
    assert_eq!(findings.unacknowledged, 10, "{findings:?}");
    assert!(findings.is_clean(), "{findings:?}");
}

#[test]
fn a_send_without_an_answer_fails_the_run() {
    let outcome = soak(Fault::Silence);
    // Slots of requests that are never answered are not free again: all eight are taken after 800 of the sends.
    assert_eq!(outcome.unanswered, 8, "{outcome}");
    assert!(!outcome.is_good());
}
