//! Runs a plan: starts its threads together, shows what they measure, and adds it all up.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::check::Findings;
use crate::error::BenchError;
use crate::live::Live;
use crate::measure::{SLICE_NS, Slice, Track, Window, latencies};
use crate::outcome::{Gathered, Generator, Outcome, ThreadShare};
use crate::plan::{Plan, ThreadPlan};
use crate::worker::{self, ThreadReport};

/// How long after the end of a second all threads have said what they measured in it.
const GRACE_NS: u64 = 150_000_000;

/// Connections are made before the start; so long after the last of them it begins.
const LEAD_NS: u64 = 20_000_000;

/// Runs the plan to its end.
pub fn run(
    workload: &str,
    plan: &Plan,
    threads: &[ThreadPlan],
    quiet: bool,
) -> Result<Outcome, BenchError> {
    allow_connections();
    let (slice_sender, slices) = mpsc::channel();
    let (ready_sender, ready) = mpsc::channel();
    let mut gathering = Gathering::default();
    // What ends when all is read or sent has no length that is known.
    let ends_early = |thread: &ThreadPlan| {
        let mut ranges = thread.pullers.iter().flat_map(|puller| &puller.queues);
        thread.requests.is_some() || ranges.any(|range| range.to.is_some())
    };
    let seconds = match threads.iter().any(ends_early) {
        true => 0,
        false => plan.duration.as_secs(),
    };
    let mut live = Live::new(seconds, quiet);
    let (window, reports) = thread::scope(|scope| {
        let mut starters = Vec::new();
        let mut handles = Vec::new();
        for thread in threads {
            let (starter, start) = mpsc::channel();
            starters.push(starter);
            let (slice_sender, ready_sender) = (slice_sender.clone(), ready_sender.clone());
            handles.push(scope.spawn(move || {
                worker::run(plan, thread, slice_sender, |connected| {
                    ready_sender.send(connected).ok()?;
                    start.recv().ok()
                })
            }));
        }
        drop((slice_sender, ready_sender));
        for connected in ready.iter().take(threads.len()) {
            // The starters go, and with them the other threads.
            connected?;
        }
        let window = window(plan);
        for starter in starters {
            let _ = starter.send(window);
        }
        gathering.gather(plan, window, &slices, &mut live);
        let mut reports = Vec::new();
        for handle in handles {
            let ended = handle
                .join()
                .map_err(|_| BenchError::Settings("a thread of the generator died".to_owned()))?;
            reports.extend(ended.transpose()?);
        }
        Ok::<_, BenchError>((window, reports))
    })?;
    live.end();
    Ok(outcome(
        workload, plan, threads, window, gathering, &reports,
    ))
}

/// Raises the soft bound on open files to the hard one: most shells set one that a thousand connections exceed.
fn allow_connections() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it fails, connecting says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn window(plan: &Plan) -> Window {
    let start_ns = plan.clock.now_ns() + LEAD_NS;
    let from_ns = start_ns + plan.warm_up.as_nanos() as u64;
    Window {
        start_ns,
        from_ns,
        to_ns: from_ns.saturating_add(plan.duration.as_nanos() as u64),
    }
}

#[derive(Default)]
struct Gathering {
    tracks: BTreeMap<Track, Gathered>,
}

impl Gathering {
    /// Takes slices until the threads are at their end, and shows each second when it is complete.
    fn gather(&mut self, plan: &Plan, window: Window, slices: &Receiver<Slice>, live: &mut Live) {
        let mut second = 0;
        loop {
            let complete_ns = window.from_ns + (second + 1) * SLICE_NS + GRACE_NS;
            let wait_ns = complete_ns.saturating_sub(plan.clock.now_ns());
            match slices.recv_timeout(Duration::from_nanos(wait_ns)) {
                Ok(slice) => self.tracks.entry(slice.track).or_default().add(slice),
                Err(RecvTimeoutError::Timeout) => {
                    self.show(second, window, live);
                    second += 1;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // The last seconds are complete without the grace.
                    while window.from_ns + (second + 1) * SLICE_NS <= plan.clock.now_ns() {
                        self.show(second, window, live);
                        second += 1;
                    }
                    return;
                }
            }
        }
    }

    fn show(&self, second: u64, window: Window, live: &mut Live) {
        if window.from_ns + second * SLICE_NS >= window.to_ns {
            return;
        }
        let points: Vec<_> = self
            .tracks
            .iter()
            .map(|(track, gathered)| (*track, gathered.point(second)))
            .collect();
        live.show(&points);
    }
}

fn outcome(
    workload: &str,
    plan: &Plan,
    threads: &[ThreadPlan],
    window: Window,
    gathering: Gathering,
    reports: &[ThreadReport],
) -> Outcome {
    let finished_ns = reports.iter().map(|report| report.finished_ns).max();
    let end_ns = finished_ns.unwrap_or(window.to_ns).min(window.to_ns);
    let seconds = end_ns.saturating_sub(window.from_ns) as f64 / 1e9;
    let mut lateness = latencies();
    let mut findings: Option<Findings> = None;
    for report in reports {
        // All histograms have the same bounds.
        let _ = lateness.add(&report.lateness);
        if let Some(found) = report.findings {
            *findings.get_or_insert_default() += found;
        }
    }
    let shares = threads.iter().zip(reports).map(|(thread, report)| {
        let share = &report.share;
        let part = |ns: u64| ns as f64 / share.wall_ns.max(1) as f64;
        ThreadShare {
            core: thread.core,
            busy: part(share.times.ran_ns.saturating_sub(share.idle_ns)),
            kept_waiting: part(share.times.kept_waiting_ns),
        }
    });
    Outcome {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        workload: workload.to_owned(),
        arguments: std::env::args().skip(1).collect(),
        brokers: plan
            .brokers
            .iter()
            .map(|broker| match &broker.name {
                Some(name) => format!("{name} {}", broker.address),
                None => broker.address.clone(),
            })
            .collect(),
        queues: plan.queues.len(),
        started_ms: window.from_ns / 1_000_000,
        seconds,
        tracks: gathering
            .tracks
            .into_iter()
            .map(|(track, gathered)| gathered.finish(track, seconds))
            .collect(),
        unanswered: reports.iter().map(|report| report.unanswered).sum(),
        unsent: reports.iter().map(|report| report.unsent).sum(),
        unexpected: reports.iter().map(|report| report.unexpected).sum(),
        closed: reports
            .iter()
            .flat_map(|report| report.closed.clone())
            .collect(),
        findings,
        generator: Generator::new(shares.collect(), &lateness),
        missed: Vec::new(),
    }
}
