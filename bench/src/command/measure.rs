//! From arguments to a plan, and from its outcome to what the user gets.

use std::time::Duration;

use super::args::{
    ConnectionsArgs, ConsumeArgs, E2eArgs, LoadArgs, OutputArgs, PullArgs, ReplayArgs, RunArgs,
    SendArgs, SoakArgs, TargetArgs,
};
use super::print;
use crate::clock::Clock;
use crate::cluster::{Cluster, Wanted};
use crate::error::BenchError;
use crate::find_max::find_max;
use crate::layout::{Connections, lay_out};
use crate::outcome::Outcome;
use crate::plan::{Deliver, Plan, PullRange, Pulling, Reading, Sending, ThreadPlan};
use crate::replay;
use crate::report;
use crate::run::run;
use crate::schedule::Segment;
use crate::sizes::Sizes;
use crate::stamp::STAMP_BYTES;
use crate::subscribers::subscribe;
use crate::template::PullLimits;

/// How long a broker may hold a pull, as Java's clients ask for.
const SUSPEND_MS: i64 = 15_000;

/// How often Java's clients send a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How often Java's clients commit offsets.
const COMMIT: Duration = Duration::from_secs(5);

pub fn send(args: &SendArgs) -> Result<bool, BenchError> {
    let cluster = wanted(&args.target).find()?;
    let one = |load: &LoadArgs, quiet: bool| {
        let plan = plan(
            &args.target,
            &cluster,
            &args.run,
            Some(load),
            None,
            Reading::Count,
        );
        let threads = threads(&cluster, &args.run, Some(load), &[], sending(load))?;
        run("send", &plan, &threads, quiet)
    };
    let Some(bound) = &args.find_max else {
        return finish(one(&args.load, args.output.quiet)?, &args.output);
    };
    let found = find_max(bound, args.load.rate, |rate| {
        let load = LoadArgs {
            rate: Some(rate),
            ..args.load.clone()
        };
        one(&load, true)
    })?;
    finish(found, &args.output)
}

pub fn consume(args: &ConsumeArgs) -> Result<bool, BenchError> {
    let mut wanted = wanted(&args.target);
    wanted.create = wanted.create && args.tail;
    let cluster = wanted.find()?;
    let mut ranges = cluster.ranges()?;
    let reading = if args.tail {
        ranges = tails(ranges);
        Reading::Receipt
    } else {
        Reading::Count
    };
    let mut settings = args.run.clone();
    if !args.tail {
        // There is only so much to read: nothing of it may go by unmeasured.
        settings.warm_up = Some(Duration::ZERO);
        settings.duration = settings.duration.max(Duration::from_secs(3600));
    }
    let pull = Some(&args.pull);
    let plan = plan(&args.target, &cluster, &settings, None, pull, reading);
    let connections = Connections {
        producers: 0,
        consumers_per_broker: args.pull.consumers,
        idlers: 0,
        heartbeat: HEARTBEAT,
    };
    let threads = threads(&cluster, &settings, None, &ranges, connections)?;
    finish(
        run("consume", &plan, &threads, args.output.quiet)?,
        &args.output,
    )
}

pub fn e2e(args: &E2eArgs) -> Result<bool, BenchError> {
    let mut load = args.load.clone();
    // Without a rate the queue in front of the broker would be what is measured.
    load.rate = load.rate.or(Some(1000.0));
    both("e2e", args, &load, Reading::Arrival)
}

pub fn mixed(args: &E2eArgs) -> Result<bool, BenchError> {
    both("mixed", args, &args.load, Reading::Receipt)
}

pub fn soak(args: &SoakArgs) -> Result<bool, BenchError> {
    both("soak", &args.load, &args.load.load, Reading::Content)
}

pub fn connections(args: &ConnectionsArgs) -> Result<bool, BenchError> {
    let mut wanted = wanted(&args.target);
    if args.groups.is_none() {
        // Queues matter only for finding the brokers.
        wanted.queues = 1;
    }
    let cluster = wanted.find()?;
    let mut plan = plan(
        &args.target,
        &cluster,
        &args.run,
        None,
        None,
        Reading::Count,
    );
    plan.heartbeat = args.heartbeat;
    plan.sending.group = "CorelaneBenchProducer".to_owned();
    let connections = Connections {
        producers: 0,
        consumers_per_broker: 0,
        idlers: args.connections,
        heartbeat: args.heartbeat,
    };
    let mut threads = threads(&cluster, &args.run, None, &[], connections)?;
    if let Some(groups) = args.groups {
        subscribe(&mut threads, &cluster.queues, groups);
    }
    finish(
        run("connections", &plan, &threads, args.output.quiet)?,
        &args.output,
    )
}

pub fn replay(args: &ReplayArgs) -> Result<bool, BenchError> {
    let path = args.file.display();
    let text = std::fs::read_to_string(&args.file)
        .map_err(BenchError::io(format!("cannot read {path}")))?;
    let mut stretches =
        replay::read(&text).map_err(|error| BenchError::Settings(format!("{path}: {error}")))?;
    for stretch in &mut stretches {
        stretch.segment.from_rate *= args.scale;
        stretch.segment.to_rate *= args.scale;
    }
    let cluster = wanted(&args.target).find()?;
    let seconds: f64 = stretches
        .iter()
        .map(|stretch| stretch.segment.seconds)
        .sum();
    let mut settings = args.run.clone();
    // What was recorded is measured from its first request on.
    settings.warm_up = Some(Duration::ZERO);
    settings.duration = Duration::from_secs_f64(seconds);
    let load = Some(&args.load);
    let mut plan = plan(
        &args.target,
        &cluster,
        &settings,
        load,
        None,
        Reading::Count,
    );
    plan.sending.sizes = stretches
        .iter()
        .map(|stretch| stretch.sizes.clone())
        .collect();
    plan.sending.stamped = false;
    let mut threads = threads(&cluster, &settings, load, &[], sending(&args.load))?;
    let part = 1.0 / threads.len() as f64;
    for thread in &mut threads {
        let of_thread = stretches.iter().map(|stretch| Segment {
            from_rate: stretch.segment.from_rate * part,
            to_rate: stretch.segment.to_rate * part,
            ..stretch.segment
        });
        thread.schedule = Some(of_thread.collect());
    }
    finish(
        run("replay", &plan, &threads, args.output.quiet)?,
        &args.output,
    )
}

/// Connections that send.
fn sending(load: &LoadArgs) -> Connections {
    Connections {
        producers: load.connections,
        consumers_per_broker: 0,
        idlers: load.idle,
        heartbeat: HEARTBEAT,
    }
}

/// Sends, and receives what was sent.
fn both(
    workload: &str,
    args: &E2eArgs,
    load: &LoadArgs,
    reading: Reading,
) -> Result<bool, BenchError> {
    let cluster = wanted(&args.target).find()?;
    let ranges = tails(cluster.ranges()?);
    let plan = plan(
        &args.target,
        &cluster,
        &args.run,
        Some(load),
        Some(&args.pull),
        reading,
    );
    let connections = Connections {
        consumers_per_broker: args.pull.consumers,
        ..sending(load)
    };
    let threads = threads(&cluster, &args.run, Some(load), &ranges, connections)?;
    finish(
        run(workload, &plan, &threads, args.output.quiet)?,
        &args.output,
    )
}

/// From the end on, without an end.
fn tails(ranges: Vec<PullRange>) -> Vec<PullRange> {
    let tail = |range: PullRange| PullRange {
        from: range.to.unwrap_or(range.from),
        to: None,
        ..range
    };
    ranges.into_iter().map(tail).collect()
}

fn wanted(target: &TargetArgs) -> Wanted {
    let topics = match target.topics {
        1 => vec![target.topic.clone()],
        count => (0..count)
            .map(|number| format!("{}{number}", target.topic))
            .collect(),
    };
    Wanted {
        brokers: target.broker.clone(),
        nameserver: target.nameserver.clone(),
        topics,
        queues: target.queues,
        create: !target.no_create,
    }
}

fn plan(
    target: &TargetArgs,
    cluster: &Cluster,
    settings: &RunArgs,
    load: Option<&LoadArgs>,
    pull: Option<&PullArgs>,
    reading: Reading,
) -> Plan {
    let clock = Clock::start();
    let sending = match load {
        Some(load) => Sending {
            group: load.producer_group.clone(),
            // A stamp needs its room.
            sizes: match reading {
                Reading::Count => vec![load.size.clone()],
                _ => vec![load.size.at_least(STAMP_BYTES)],
            },
            batch: load.batch,
            in_flight: load.in_flight,
            tags: load.tags.clone(),
            keys: load.keys,
            unique: !load.bare,
            stamped: reading != Reading::Count || !load.bare && load.size.min() >= STAMP_BYTES,
            arrivals: load.arrivals,
            deliver: load.deliver_after.map(|after| Deliver {
                from_ms: clock.now_ns() / 1_000_000 + after.as_millis() as u64,
                within_ms: load.deliver_within.as_millis() as u64,
            }),
        },
        None => Sending {
            group: String::new(),
            sizes: vec![Sizes::fixed(0)],
            batch: None,
            in_flight: 1,
            tags: Vec::new(),
            keys: None,
            unique: false,
            stamped: false,
            arrivals: Default::default(),
            deliver: None,
        },
    };
    let limits = PullLimits {
        messages: pull.map_or(32, |pull| pull.pull_messages),
        bytes: pull
            .and_then(|pull| pull.pull_bytes)
            .map(|bytes| i32::try_from(bytes).unwrap_or(i32::MAX)),
        suspend_ms: SUSPEND_MS,
    };
    Plan {
        clock,
        run: (clock.now_ns() >> 10) as u32,
        serialization: target.header.into(),
        brokers: cluster.brokers.clone(),
        queues: cluster.queues.clone(),
        sending,
        pulling: Pulling {
            group: pull
                .map(|pull| pull.consumer_group.clone())
                .unwrap_or_default(),
            subscription: pull
                .map(|pull| pull.subscription.clone())
                .unwrap_or_default(),
            limits,
            reading,
        },
        warm_up: settings.warm_up(load),
        duration: settings.duration,
        heartbeat: HEARTBEAT,
        commit: COMMIT,
        drain: settings.drain,
        spin: settings.spin,
    }
}

fn threads(
    cluster: &Cluster,
    settings: &RunArgs,
    load: Option<&LoadArgs>,
    ranges: &[PullRange],
    connections: Connections,
) -> Result<Vec<ThreadPlan>, BenchError> {
    let cores = settings.cores.as_ref().map_or(&[][..], |cores| &cores.0);
    let threads = match settings.threads {
        Some(threads) => usize::from(threads),
        None => cores.len().max(1),
    };
    let mut threads = lay_out(&cluster.queues, ranges, connections, threads)?;
    let count = threads.len();
    for (number, thread) in threads.iter_mut().enumerate() {
        thread.core = cores.get(number % cores.len().max(1)).copied();
        let Some(load) = load else {
            continue;
        };
        if let Some(rate) = load.rate {
            let ramp = load
                .ramp
                .min(settings.warm_up(Some(load)) + settings.duration);
            thread.schedule = Some(rising_to(rate / count as f64, ramp));
        }
        thread.requests = load.count.map(|requests| {
            let (each, rest) = (requests / count as u64, requests % count as u64);
            each + u64::from((number as u64) < rest)
        });
    }
    Ok(threads)
}

/// From 0 to the rate, and then on.
fn rising_to(rate: f64, ramp: Duration) -> Vec<Segment> {
    let mut segments = vec![Segment::steady(rate, f64::INFINITY)];
    if !ramp.is_zero() {
        let rising = Segment {
            seconds: ramp.as_secs_f64(),
            from_rate: 0.0,
            to_rate: rate,
        };
        segments.insert(0, rising);
    }
    segments
}

/// Writes and prints the results; whether they are good.
fn finish(mut outcome: Outcome, output: &OutputArgs) -> Result<bool, BenchError> {
    outcome.missed = output
        .expect
        .iter()
        .filter_map(|expectation| expectation.missed(&outcome))
        .collect();
    if let Some(path) = &output.json {
        report::write_json(path, &outcome)?;
    }
    if let Some(path) = &output.hgrm {
        report::write_hgrm(path, &outcome)?;
    }
    if let Some(path) = &output.report {
        report::write_chart(path, &outcome)?;
    }
    print(outcome.to_string())?;
    Ok(outcome.is_good())
}
