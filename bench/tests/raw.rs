//! The generator against the raw server, in one process.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test, with threads of its own"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use corelane_bench::clock::Clock;
use corelane_bench::layout::{Connections, lay_out};
use corelane_bench::measure::Track;
use corelane_bench::outcome::Outcome;
use corelane_bench::plan::{Broker, Plan, Pulling, Queue, Reading, Sending};
use corelane_bench::raw::{Mode, RawServer, RawSettings};
use corelane_bench::run::run;
use corelane_bench::schedule::{Arrivals, Segment};
use corelane_bench::template::PullLimits;
use corelane_wire::frame::Serialization;

/// What differs between the runs of this file.
struct Load {
    mode: Mode,
    serialization: Serialization,
    size: &'static str,
    batch: Option<usize>,
    rate: Option<f64>,
    requests: Option<u64>,
    threads: usize,
}

const LOAD: Load = Load {
    mode: Mode::Answer,
    serialization: Serialization::Rocketmq,
    size: "1024",
    batch: None,
    rate: None,
    requests: None,
    threads: 1,
};

fn measure(load: Load) -> Outcome {
    let settings = RawSettings {
        mode: load.mode,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        dir: std::env::temp_dir(),
        file_bytes: 1 << 20,
    };
    let mut server = RawServer::bind(&settings).unwrap();
    let address = server.address().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let serving = thread::spawn(move || server.serve(&stopped).unwrap());
    let queues: Vec<Queue> = (0..4)
        .map(|id| Queue {
            broker: 0,
            topic: "T".to_owned(),
            id,
        })
        .collect();
    let connections = Connections {
        producers: 8,
        consumers_per_broker: 0,
        idlers: 100,
        heartbeat: Duration::from_millis(200),
    };
    let mut threads = lay_out(&queues, &[], connections, load.threads).unwrap();
    for thread in &mut threads {
        let steady = |rate| vec![Segment::steady(rate / load.threads as f64, f64::INFINITY)];
        thread.schedule = load.rate.map(steady);
        thread.requests = load.requests;
    }
    let plan = Plan {
        clock: Clock::start(),
        run: 7,
        serialization: load.serialization,
        brokers: vec![Broker {
            name: None,
            address: address.to_string(),
        }],
        queues,
        sending: Sending {
            group: "group".to_owned(),
            sizes: vec![load.size.parse().unwrap()],
            batch: load.batch,
            in_flight: 16,
            tags: vec!["red".to_owned(), "green".to_owned()],
            keys: Some(100),
            unique: true,
            stamped: true,
            arrivals: Arrivals::Poisson,
            deliver: None,
        },
        pulling: Pulling {
            group: String::new(),
            subscription: String::new(),
            limits: PullLimits {
                messages: 32,
                bytes: None,
                suspend_ms: 0,
            },
            reading: Reading::Count,
        },
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(500),
        heartbeat: Duration::from_millis(200),
        commit: Duration::from_secs(5),
        drain: Duration::from_secs(10),
        spin: false,
    };
    let outcome = run("send", &plan, &threads, true).unwrap();
    stop.store(true, Ordering::Relaxed);
    serving.join().unwrap();
    assert!(outcome.is_good(), "{outcome}");
    assert_eq!(outcome.unexpected, 0);
    if load.requests.is_none() {
        let heartbeats = outcome.track(Track::Heartbeat).unwrap().counts;
        assert!((150..=350).contains(&heartbeats.requests), "{outcome}");
    }
    outcome
}

#[test]
fn a_closed_loop_is_answered_in_full() {
    for serialization in [Serialization::Json, Serialization::Rocketmq] {
        for mode in [Mode::Answer, Mode::Write] {
            let outcome = measure(Load {
                mode,
                serialization,
                ..LOAD
            });
            let track = outcome.track(Track::Send).unwrap();
            assert!(track.counts.messages > 1000, "{outcome}");
            assert_eq!(track.counts.bytes, track.counts.messages * 1024);
            assert!(track.latency.p50_ns > 0 && track.latency.p50_ns <= track.latency.p99_ns);
        }
    }
}

#[test]
fn a_number_of_requests_ends_a_run() {
    let outcome = measure(Load {
        requests: Some(100),
        rate: Some(2000.0),
        threads: 2,
        ..LOAD
    });
    // What was sent while warming up is not counted.
    let counted = outcome.track(Track::Send).unwrap().counts.requests;
    assert!((20..=200).contains(&counted), "{outcome}");
    assert!(outcome.seconds < 0.4, "{outcome}");
}

#[test]
fn batches_of_any_size_are_counted_by_message() {
    let outcome = measure(Load {
        size: "32-4000",
        batch: Some(5),
        ..LOAD
    });
    let counts = outcome.track(Track::Send).unwrap().counts;
    assert_eq!(counts.messages, counts.requests * 5);
    let mean = counts.bytes / counts.messages;
    assert!((1500..2500).contains(&mean), "{mean}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let outcome = measure(Load {
        rate: Some(4000.0),
        threads: 2,
        ..LOAD
    });
    let track = outcome.track(Track::Send).unwrap();
    assert!(
        (3200.0..4800.0).contains(&track.requests_per_second),
        "{outcome}"
    );
}

#[test]
fn a_schedule_that_cannot_be_kept_counts_to_the_end() {
    let outcome = measure(Load {
        rate: Some(20_000_000.0),
        ..LOAD
    });
    let latency = outcome.track(Track::Send).unwrap().latency;
    assert!(outcome.unsent > 1_000_000, "{outcome}");
    // Nearly all requests of the half second waited for their turn until its end: half of that in the median.
    let median_ms = latency.p50_ns / 1_000_000;
    assert!((150..400).contains(&median_ms), "{outcome}");
}
