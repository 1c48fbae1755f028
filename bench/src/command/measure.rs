//! From arguments to a plan, and from its outcome to what the user gets.

use std::time::Duration;

use super::args::{ConsumeArgs, E2eArgs, LoadArgs, OutputArgs, PullArgs, RunArgs, SendArgs, SoakArgs, TargetArgs};
use super::print;
use crate::clock::Clock;
use crate::cluster::{Cluster, Wanted};
use crate::error::BenchError;
use crate::find_max::find_max;
use crate::layout::{Connections, lay_out};
use crate::outcome::Outcome;
use crate::plan::{Plan, PullRange, Pulling, Reading, Sending, ThreadPlan};
use crate::report;
use crate::run::run;
use crate::sizes::Sizes;
use crate::stamp::STAMP_BYTES;
use crate::template::PullLimits;

/// How long a broker may hold a pull, as Java's clients ask for.
const SUSPEND_MS: i64 = 15_000;

pub fn send(args: &SendArgs) -> Result<bool, BenchError> {
    let cluster = wanted(&args.target).find()?;
    let one = |load: &LoadArgs, quiet: bool| {
        let plan = plan(&args.target, &cluster, &args.run, Some(load), None, Reading::Count);
        let threads = threads(&cluster, &args.run, Some(load), None)?;
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
        settings.warm_up = Duration::ZERO;
        settings.duration = settings.duration.max(Duration::from_secs(3600));
    }
    let pull = Some(&args.pull);
    let plan = plan(&args.target, &cluster, &settings, None, pull, reading);
    let threads = threads(&cluster, &settings, None, Some((&args.pull, &ranges)))?;
    finish(run("consume", &plan, &threads, args.output.quiet)?, &args.output)
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

/// Sends, and receives what was sent.
fn both(
    workload: &str,
    args: &E2eArgs,
    load: &LoadArgs,
    reading: Reading,
) -> Result<bool, BenchError> {
    let cluster = wanted(&args.target).find()?;
    let ranges = tails(cluster.ranges()?);
    let plan = plan(&args.target, &cluster, &args.run, Some(load), Some(&args.pull), reading);
    let threads = threads(&cluster, &args.run, Some(load), Some((&args.pull, &ranges)))?;
    finish(run(workload, &plan, &threads, args.output.quiet)?, &args.output)
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
        count => (0..count).map(|number| format!("{}{number}", target.topic)).collect(),
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
                Reading::Count => load.size.clone(),
                _ => load.size.at_least(STAMP_BYTES),
            },
            batch: load.batch,
            in_flight: load.in_flight,
            tags: load.tags.clone(),
            keys: load.keys,
            unique: !load.bare,
            stamped: reading != Reading::Count
                || !load.bare && load.size.min() >= STAMP_BYTES,
            arrivals: load.arrivals,
            ramp: load.ramp.min(settings.warm_up + settings.duration),
        },
        None => Sending {
            group: String::new(),
            sizes: Sizes::fixed(0),
            batch: None,
            in_flight: 1,
            tags: Vec::new(),
            keys: None,
            unique: false,
            stamped: false,
            arrivals: Default::default(),
            ramp: Duration::ZERO,
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
            group: pull.map(|pull| pull.consumer_group.clone()).unwrap_or_default(),
            subscription: pull.map(|pull| pull.subscription.clone()).unwrap_or_default(),
            limits,
            reading,
        },
        warm_up: settings.warm_up,
        duration: settings.duration,
        drain: settings.drain,
        spin: settings.spin,
    }
}

fn threads(
    cluster: &Cluster,
    settings: &RunArgs,
    load: Option<&LoadArgs>,
    pull: Option<(&PullArgs, &Vec<PullRange>)>,
) -> Result<Vec<ThreadPlan>, BenchError> {
    let cores = settings.cores.as_ref().map_or(&[][..], |cores| &cores.0);
    let threads = match settings.threads {
        Some(threads) => usize::from(threads),
        None => cores.len().max(1),
    };
    let connections = Connections {
        producers: load.map_or(0, |load| load.connections),
        consumers_per_broker: pull.map_or(0, |(pull, _)| pull.consumers),
    };
    let ranges = pull.map_or(&[][..], |(_, ranges)| ranges);
    let mut threads = lay_out(&cluster.queues, ranges, connections, threads)?;
    let count = threads.len();
    for (number, thread) in threads.iter_mut().enumerate() {
        thread.core = cores.get(number % cores.len().max(1)).copied();
        thread.rate = load.and_then(|load| load.rate).map(|rate| rate / count as f64);
        thread.requests = load
            .and_then(|load| load.count)
            .map(|requests| requests / count as u64 + u64::from((number as u64) < requests % count as u64));
    }
    Ok(threads)
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
