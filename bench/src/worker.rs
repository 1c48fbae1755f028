//! The loop of one thread: take what came, answer with more, hand it to the kernel, wait.
//!
//! In a closed loop every answer makes room for the next request. In an open loop requests leave at their intended times;
//! when all connections are full they leave later, and their latency still counts from then. The thread keeps account of
//! its own time, so that a run can say whether the generator was what limited it.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::mpsc::Sender;
use std::time::Duration;

use corelane_wire::code::response;
use corelane_wire::frame::{FrameError, split};
use hdrhistogram::Histogram;

use crate::check::{Checker, Findings};
use crate::cpu::{self, CpuTimes};
use crate::error::BenchError;
use crate::idler::Idler;
use crate::measure::{Recorder, Slice, Track, Window, latencies};
use crate::plan::{Plan, ThreadPlan};
use crate::producer::{Producer, Templates};
use crate::puller::Puller;
use crate::reply;
use crate::ring::{Event, Sockets};
use crate::schedule::{Intended, Schedule};
use crate::template::Born;

/// The largest frame that a broker may send.
const MAX_FRAME_BYTES: usize = 256 << 20;

/// So long after all that was waited for is there, what comes without having been waited for is still looked at: duplicates, and
/// messages whose send got no answer.
const QUIET_NS: u64 = 200_000_000;

/// The longest wait in the kernel.
const TICK: Duration = Duration::from_millis(50);

/// What is nearer than this is waited for without sleeping.
const SPIN_NS: u64 = 20_000;

const PRODUCER_INBOX_BYTES: usize = 64 << 10;
const IDLER_INBOX_BYTES: usize = 2 << 10;
const PULLER_INBOX_BYTES: usize = 2 << 20;

/// What became of a thread's time within the window.
#[derive(Debug, Clone, Copy, Default)]
pub struct Share {
    /// What the scheduler says.
    pub times: CpuTimes,
    /// Time spent looking in vain for something to do.
    pub idle_ns: u64,
    /// All of it.
    pub wall_ns: u64,
}

/// What a thread has to say at its end beside its slices.
#[derive(Debug)]
pub struct ThreadReport {
    /// What became of its time.
    pub share: Share,
    /// How late requests of an open loop left although there was room for them.
    pub lateness: Histogram<u64>,
    /// Messages that were sent and not answered by the end.
    pub unanswered: u64,
    /// Requests of an open loop that had no room by the end.
    pub unsent: u64,
    /// Answers that nobody waited for.
    pub unexpected: u64,
    /// What was found, where it was looked for.
    pub findings: Option<Findings>,
    /// Connections that ended, and why.
    pub closed: Vec<String>,
    /// When the last thing happened, on the run's clock.
    pub finished_ns: u64,
}

enum Role {
    Producer(usize),
    Puller(usize),
    Idler(usize),
}

struct Worker<'a> {
    plan: &'a Plan,
    window: Window,
    sockets: Sockets,
    roles: Vec<Role>,
    producers: Vec<(usize, Producer)>,
    pullers: Vec<(usize, Puller)>,
    idlers: Vec<(usize, Idler)>,
    /// Idlers in the order of their next heartbeat.
    heartbeats: VecDeque<(u64, usize)>,
    /// Those that consume, in the order of their next commit.
    commits: VecDeque<(u64, usize)>,
    templates: Templates,
    recorder: Recorder,
    checker: Checker,
    schedule: Option<Schedule>,
    /// Requests that may still be sent.
    requests_left: u64,
    /// The producer that has the next turn in an open loop.
    next_producer: usize,
    /// Whether the last request had to wait for room.
    blocked: bool,
    sending: bool,
    lateness: Histogram<u64>,
    unexpected: u64,
    closed: Vec<String>,
}

/// Connects, waits for `start`, and works until the end of the window and of what was in flight. `start` is `None` where
/// another thread could not connect.
pub fn run(
    plan: &Plan,
    thread: &ThreadPlan,
    slices: Sender<Slice>,
    start: impl FnOnce(Result<(), BenchError>) -> Option<Window>,
) -> Option<Result<ThreadReport, BenchError>> {
    let connected = pin(thread).and_then(|()| Connected::new(plan, thread));
    let connected = match connected {
        Ok(connected) => connected,
        Err(error) => {
            start(Err(error));
            return None;
        }
    };
    let window = start(Ok(()))?;
    let wait_ns = window.start_ns.saturating_sub(plan.clock.now_ns());
    std::thread::sleep(Duration::from_nanos(wait_ns));
    Some(Worker::new(plan, thread, connected, window, slices).work())
}

fn pin(thread: &ThreadPlan) -> Result<(), BenchError> {
    cpu::wake_in_time();
    match thread.core {
        Some(core) => cpu::pin(core).map_err(BenchError::io(format!(
            "cannot pin a thread to core {core}"
        ))),
        None => Ok(()),
    }
}

/// The connections of a thread.
struct Connected {
    sockets: Sockets,
    roles: Vec<Role>,
    producers: Vec<(usize, Producer)>,
    pullers: Vec<(usize, Puller)>,
    idlers: Vec<(usize, Idler)>,
}

impl Connected {
    fn new(plan: &Plan, thread: &ThreadPlan) -> Result<Self, BenchError> {
        let count = thread.producers.len() + thread.pullers.len() + thread.idlers.len();
        let ring = "cannot set up io_uring (is it allowed here? sysctl kernel.io_uring_disabled)";
        let mut sockets = Sockets::new(count).map_err(BenchError::io(ring))?;
        let mut roles = Vec::with_capacity(count);
        let checks = plan.pulling.reading.checks();
        let mut add = |broker: usize, inbox_bytes| {
            let address = &plan.brokers[broker].address;
            TcpStream::connect(address)
                .and_then(|stream| sockets.add(stream, inbox_bytes))
                .map_err(BenchError::io(format!("cannot connect to {address}")))
        };
        let mut producers = Vec::new();
        for producer in &thread.producers {
            let socket = add(producer.broker, PRODUCER_INBOX_BYTES)?;
            roles.push(Role::Producer(producers.len()));
            producers.push((socket, Producer::new(plan, producer, checks)));
        }
        let mut pullers = Vec::new();
        for puller in &thread.pullers {
            let socket = add(puller.broker, PULLER_INBOX_BYTES)?;
            roles.push(Role::Puller(pullers.len()));
            pullers.push((socket, Puller::new(plan, puller, &plan.pulling.group)));
        }
        let mut idlers = Vec::new();
        for idler in &thread.idlers {
            let socket = add(idler.broker, IDLER_INBOX_BYTES)?;
            roles.push(Role::Idler(idlers.len()));
            idlers.push((socket, Idler::new(plan, idler)));
        }
        Ok(Self {
            sockets,
            roles,
            producers,
            pullers,
            idlers,
        })
    }
}

impl<'a> Worker<'a> {
    fn new(
        plan: &'a Plan,
        thread: &ThreadPlan,
        connected: Connected,
        window: Window,
        slices: Sender<Slice>,
    ) -> Self {
        let schedule = thread.schedule.clone().map(|segments| {
            let seed = u64::from(plan.run) + thread.core.unwrap_or(0) as u64;
            Schedule::new(plan.sending.arrivals, segments, window.start_ns, seed)
        });
        let mut heartbeats: Vec<(u64, usize)> = thread
            .idlers
            .iter()
            .enumerate()
            .map(|(at, idler)| (window.start_ns + idler.first_ns, at))
            .collect();
        heartbeats.sort_unstable();
        let commit_ns = plan.commit.as_nanos() as u64;
        let mut commits: Vec<(u64, usize)> = heartbeats
            .iter()
            .filter(|(_, at)| connected.idlers[*at].1.consumes())
            .map(|(due_ns, at)| {
                let phase_ns = (due_ns - window.start_ns) % commit_ns.max(1);
                (window.start_ns + commit_ns + phase_ns, *at)
            })
            .collect();
        commits.sort_unstable();
        let mut checker = Checker::default();
        if plan.pulling.reading.checks() {
            for range in thread.pullers.iter().flat_map(|puller| &puller.queues) {
                checker.watch(range.queue, range.from);
            }
        }
        Self {
            plan,
            window,
            templates: Templates::new(plan, &thread.producers),
            sending: !connected.producers.is_empty(),
            sockets: connected.sockets,
            roles: connected.roles,
            producers: connected.producers,
            pullers: connected.pullers,
            idlers: connected.idlers,
            heartbeats: heartbeats.into(),
            commits: commits.into(),
            recorder: Recorder::new(window, slices),
            checker,
            schedule,
            requests_left: thread.requests.unwrap_or(u64::MAX),
            next_producer: 0,
            blocked: false,
            lateness: latencies(),
            unexpected: 0,
            closed: Vec::new(),
        }
    }

    fn work(mut self) -> Result<ThreadReport, BenchError> {
        let plan = self.plan;
        let mut events = Vec::with_capacity(2 * self.roles.len());
        let mut idle_ns = 0;
        let mut before = None;
        let mut within: Option<Share> = None;
        let mut ended_ns = None;
        let mut settled_ns = None;
        let mut next_tick_ns = 0;
        let mut now_ns = plan.clock.now_ns();
        loop {
            if before.is_none() && now_ns >= self.window.from_ns {
                before = Some((CpuTimes::of_this_thread(), now_ns));
                idle_ns = 0;
            }
            if ended_ns.is_none() && (now_ns >= self.window.to_ns || self.is_done()) {
                ended_ns = Some(now_ns);
                self.sending = false;
                within = before.map(|(times, since_ns)| Share {
                    times: CpuTimes::of_this_thread().since(&times),
                    idle_ns,
                    wall_ns: now_ns - since_ns,
                });
            }
            if let Some(ended_ns) = ended_ns {
                let quiet_ns = match plan.pulling.reading.checks() {
                    true => QUIET_NS,
                    false => 0,
                };
                settled_ns = self.is_settled().then(|| settled_ns.unwrap_or(now_ns));
                let is_quiet = settled_ns.is_some_and(|since_ns| now_ns >= since_ns + quiet_ns);
                if is_quiet || now_ns >= ended_ns + plan.drain.as_nanos() as u64 {
                    break;
                }
            }
            if now_ns >= next_tick_ns {
                next_tick_ns = now_ns + TICK.as_nanos() as u64;
                self.recorder.tick(now_ns);
                for (_, puller) in &mut self.pullers {
                    puller.try_again();
                }
            }
            let sent = self.send(now_ns);
            let wait = self.wait(plan.clock.now_ns());
            self.sockets
                .turn(wait, &mut events)
                .map_err(BenchError::io("io_uring failed"))?;
            let was_ns = now_ns;
            now_ns = plan.clock.now_ns();
            if !sent && events.is_empty() && wait == Some(Duration::ZERO) {
                idle_ns += now_ns - was_ns;
            }
            for event in events.drain(..) {
                self.take(event)?;
            }
        }
        let mut report = self.finish(within.unwrap_or_default(), now_ns);
        report.finished_ns = settled_ns.unwrap_or(now_ns);
        Ok(report)
    }

    /// Whether there is nothing left to send or pull, before the time is up.
    fn is_done(&self) -> bool {
        let closed = !self.roles.is_empty() && self.closed.len() == self.roles.len();
        let sent = self.requests_left == 0 || self.producers.is_empty();
        let pulled = self.pullers.iter().all(|(_, puller)| puller.is_finished());
        let works = !self.producers.is_empty() || !self.pullers.is_empty();
        closed || works && sent && (pulled || !self.producers.is_empty())
    }

    /// Whether all answers are there, and all messages that are waited for.
    fn is_settled(&self) -> bool {
        let answered = |(socket, producer): &(usize, Producer)| {
            producer.in_flight() == 0 || self.sockets.is_closed(*socket)
        };
        self.producers.iter().all(answered) && self.checker.is_settled()
    }

    /// Sends what is to be sent now; whether that was anything.
    fn send(&mut self, now_ns: u64) -> bool {
        let mut sent = self.send_heartbeats(now_ns);
        for (socket, puller) in &mut self.pullers {
            if puller.is_due() && !self.sockets.is_closed(*socket) {
                puller.pull(self.sockets.out(*socket), now_ns);
                sent = true;
            }
        }
        if !self.sending {
            return sent;
        }
        let born = Born::at(now_ns);
        let at_once = Intended {
            at_ns: now_ns,
            segment: 0,
        };
        let Some(schedule) = &mut self.schedule else {
            for (socket, producer) in &mut self.producers {
                let room = (producer.room() as u64).min(self.requests_left);
                if room == 0 || self.sockets.is_closed(*socket) {
                    continue;
                }
                let out = self.sockets.out(*socket);
                for _ in 0..room {
                    producer.send(&self.templates, &born, out, at_once);
                }
                self.requests_left -= room;
                sent = true;
            }
            return sent;
        };
        while schedule.next_ns() <= now_ns && self.requests_left > 0 {
            let count = self.producers.len();
            let chosen = (0..count)
                .map(|step| (self.next_producer + step) % count)
                .find(|at| {
                    let (socket, producer) = &self.producers[*at];
                    producer.room() > 0 && !self.sockets.is_closed(*socket)
                });
            let Some(chosen) = chosen else {
                self.blocked = true;
                break;
            };
            self.next_producer = (chosen + 1) % count;
            let intended = schedule.take();
            if !self.blocked {
                self.lateness.saturating_record(now_ns - intended.at_ns);
            }
            let (socket, producer) = &mut self.producers[chosen];
            producer.send(&self.templates, &born, self.sockets.out(*socket), intended);
            self.requests_left -= 1;
            sent = true;
        }
        if schedule.next_ns() > now_ns {
            self.blocked = false;
        }
        sent
    }

    fn send_heartbeats(&mut self, now_ns: u64) -> bool {
        let mut sent = false;
        while let Some((due_ns, at)) = self
            .heartbeats
            .pop_front_if(|(due_ns, _)| *due_ns <= now_ns)
        {
            let (socket, idler) = &mut self.idlers[at];
            if self.sockets.is_closed(*socket) {
                continue;
            }
            if idler.beat(self.sockets.out(*socket), due_ns) {
                sent = true;
            } else {
                self.recorder
                    .failed(Track::Heartbeat, now_ns, response::RPC_TIME_OUT);
            }
            let interval_ns = self.plan.heartbeat.as_nanos() as u64;
            self.heartbeats.push_back((due_ns + interval_ns, at));
        }
        sent | self.send_commits(now_ns)
    }

    fn send_commits(&mut self, now_ns: u64) -> bool {
        let mut sent = false;
        while let Some((due_ns, at)) = self.commits.pop_front_if(|(due_ns, _)| *due_ns <= now_ns) {
            let (socket, idler) = &self.idlers[at];
            if self.sockets.is_closed(*socket) {
                continue;
            }
            idler.commit(self.sockets.out(*socket));
            sent = true;
            let interval_ns = self.plan.commit.as_nanos() as u64;
            self.commits.push_back((due_ns + interval_ns, at));
        }
        sent
    }

    fn wait(&self, now_ns: u64) -> Option<Duration> {
        if self.plan.spin {
            return Some(Duration::ZERO);
        }
        let due_ns = match &self.schedule {
            Some(schedule) if self.sending && !self.blocked => {
                schedule.next_ns().saturating_sub(now_ns)
            }
            _ => u64::MAX,
        };
        match due_ns {
            0..SPIN_NS => Some(Duration::ZERO),
            _ => Some(Duration::from_nanos(due_ns - SPIN_NS / 2).min(TICK)),
        }
    }

    fn take(&mut self, event: Event) -> Result<(), BenchError> {
        let socket = match event {
            Event::Received(socket) => socket,
            Event::Closed(socket, error) => {
                self.closed.push(match error {
                    Some(error) => error.to_string(),
                    None => "the broker closed the connection".to_owned(),
                });
                let _ = socket;
                return Ok(());
            }
        };
        let now_ns = self.plan.clock.now_ns();
        let mut taken = 0;
        let mut next = Vec::new();
        loop {
            let unread = &self.sockets.inbox(socket)[taken..];
            let broken = |error: FrameError| {
                BenchError::Settings(format!("what came is no answer of a broker: {error}"))
            };
            let Some(len) = split(unread, MAX_FRAME_BYTES).map_err(broken)? else {
                break;
            };
            let frame = &unread[..len];
            taken += len;
            let reply = reply::read(frame).map_err(broken)?;
            if !reply.is_response {
                continue;
            }
            let expected = match self.roles[socket] {
                Role::Producer(at) => self.producers[at].1.reply(
                    &reply,
                    frame,
                    now_ns,
                    &self.templates,
                    &mut self.recorder,
                    &mut self.checker,
                ),
                Role::Idler(at) => self.idlers[at]
                    .1
                    .reply(
                        &reply,
                        frame,
                        now_ns,
                        &mut self.recorder,
                        &mut self.checker,
                        &mut next,
                    )
                    .map_err(broken_messages)?,
                Role::Puller(at) => self.pullers[at]
                    .1
                    .reply(&reply, frame, now_ns, &mut self.recorder, &mut self.checker)
                    .map_err(broken_messages)?,
            };
            self.unexpected += u64::from(!expected);
        }
        self.sockets.take(socket, taken);
        if !next.is_empty() {
            self.sockets.out(socket).append(&mut next);
        }
        Ok(())
    }

    /// Takes note of the requests of an open loop that were due and had no room: a broker that stalls must not look better for
    /// it, so they count as if they had been answered only now. How many they are.
    fn give_up_backlog(&mut self, now_ns: u64) -> u64 {
        let end_ns = self.window.to_ns.min(now_ns);
        let mut count = 0;
        let Some(schedule) = &mut self.schedule else {
            return 0;
        };
        while schedule.next_ns() < end_ns && count < self.requests_left {
            let intended_ns = schedule.take().at_ns;
            self.recorder.waited(Track::Send, intended_ns, now_ns);
            if !self.pullers.is_empty() {
                // Nobody has received it either.
                self.recorder.waited(Track::Receipt, intended_ns, now_ns);
            }
            count += 1;
        }
        count
    }

    fn finish(mut self, share: Share, now_ns: u64) -> ThreadReport {
        let unsent = self.give_up_backlog(now_ns);
        for (_, producer) in &self.producers {
            for intended_ns in producer.still_waiting() {
                self.recorder.waited(Track::Send, intended_ns, now_ns);
            }
        }
        let unanswered = self
            .producers
            .iter()
            .map(|(_, producer)| producer.unanswered(&self.templates))
            .sum();
        self.checker.uncertain(unanswered);
        self.recorder.finish();
        ThreadReport {
            share,
            lateness: self.lateness,
            unanswered,
            unsent,
            unexpected: self.unexpected,
            findings: self
                .plan
                .pulling
                .reading
                .checks()
                .then(|| self.checker.finish()),
            closed: self.closed,
            finished_ns: now_ns,
        }
    }
}

fn broken_messages(error: String) -> BenchError {
    BenchError::Settings(format!("broken messages in a pull's answer: {error}"))
}
