//! A process with a real client, driven by lines of JSON.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::consumer::{Consumer, From, Model};
use crate::message::{Message, Mode, Outcome, Place, Queue, Received, Sent};
use crate::process::Process;
use crate::{Cluster, eventually, go, java};

/// How long a verb may take that does not wait for anything but the broker's answers.
const VERB: Duration = Duration::from_secs(60);

/// Which of the real clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `org.apache.rocketmq:rocketmq-client`.
    Java,
    /// `github.com/apache/rocketmq-client-go/v2`.
    Go,
}

/// For [`Client::stream`]: until [`Client::stop`].
pub const UNTIL_STOPPED: usize = i32::MAX as usize;

/// Messages that flow until so many are acknowledged, or [`Client::stop`].
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    id: u64,
}

#[derive(Debug, Default)]
struct State {
    ended: HashMap<u64, Result<Value, String>>,
    outcomes: HashMap<u64, Outcome>,
    received: HashMap<String, Vec<Received>>,
    places: HashMap<String, HashSet<Place>>,
    deliveries: usize,
    closed: bool,
}

/// A process with the real client. Producers and consumers in it have names. Killed when it is dropped.
#[derive(Debug)]
pub struct Client {
    process: Process,
    stdin: ChildStdin,
    state: Arc<(Mutex<State>, Condvar)>,
    next_id: u64,
}

impl Client {
    /// A client of this cluster.
    pub fn start(language: Language, cluster: &Cluster) -> Self {
        Self::start_with(language, cluster.nameserver(), cluster.dir(), &[])
    }

    /// A client of these NameServers (`host:port;host:port`) that writes below `dir`, with system properties for the JVM.
    pub fn start_with(
        language: Language,
        nameservers: &str,
        dir: &Path,
        properties: &[&str],
    ) -> Self {
        let (mut command, log) = match language {
            Language::Java => {
                let mut command = Command::new("java");
                command.args(java::jvm_args(
                    256,
                    dir,
                    properties,
                    "corelane.driver.Driver",
                ));
                (command, dir.join("java.log"))
            }
            Language::Go => (Command::new(go::driver()), dir.join("go.log")),
        };
        command.arg(nameservers).current_dir(dir).env("HOME", dir);
        let mut process = Process::start(command, &log, true);
        let (stdin, stdout) = process.pipes();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        thread::spawn(move || read_events(stdout, &shared));
        Self {
            process,
            stdin,
            state,
            next_id: 1,
        }
    }

    /// Starts a producer that does not retry.
    pub fn producer(&mut self, name: &str) {
        self.producer_with(name, json!({}));
    }

    /// Starts a producer with other members of the driver's verb, whose group is `<name>-group` unless they say otherwise.
    pub fn producer_with(&mut self, name: &str, mut options: Value) {
        options["name"] = name.into();
        if options["group"].is_null() {
            options["group"] = format!("{name}-group").into();
        }
        self.call("producer", options);
    }

    /// Sends, and waits for all outcomes; panics when one has failed. Nothing is known of one-way messages.
    pub fn send(&mut self, producer: &str, mode: Mode, messages: &[Message]) -> Vec<Sent> {
        let outcome = self.try_send(producer, mode, None, messages);
        assert!(
            outcome.failed.is_empty(),
            "not sent: {:?}\n{}",
            outcome.failed,
            self.process.log_end()
        );
        outcome.sent
    }

    /// Sends into a queue and waits for all outcomes; panics when one has failed.
    pub fn send_to(
        &mut self,
        queue: &Queue,
        producer: &str,
        mode: Mode,
        messages: &[Message],
    ) -> Vec<Sent> {
        let outcome = self.try_send(producer, mode, Some(queue), messages);
        assert!(
            outcome.failed.is_empty(),
            "not sent: {:?}\n{}",
            outcome.failed,
            self.process.log_end()
        );
        outcome.sent
    }

    /// Sends, and waits for all outcomes.
    pub fn try_send(
        &mut self,
        producer: &str,
        mode: Mode,
        queue: Option<&Queue>,
        messages: &[Message],
    ) -> Outcome {
        let mode = match mode {
            Mode::Sync => "sync",
            Mode::Async => "async",
            Mode::Oneway => "oneway",
            Mode::Batch => "batch",
            Mode::Selector => "selector",
            Mode::Transaction => "transaction",
        };
        let mut verb = json!({"producer": producer, "mode": mode, "messages": messages});
        if let Some(queue) = queue {
            verb["queue"] = json!(queue);
        }
        let id = self.post("send", verb);
        self.end_of(id, VERB)
            .unwrap_or_else(|e| panic!("send: {e}\n{}", self.process.log_end()));
        self.state().outcomes.remove(&id).unwrap_or_default()
    }

    /// Lets messages flow: one lane for each of the queues sends one message after the other, with the keys `lane-number`,
    /// until `acknowledged` are in all. A lane that fails goes on with the next message.
    pub fn stream(
        &mut self,
        producer: &str,
        topic: &str,
        queues: &[Queue],
        acknowledged: usize,
        body_bytes: usize,
    ) -> Stream {
        let id = self.post(
            "stream",
            json!({"producer": producer, "topic": topic, "queues": queues,
            "acknowledged": acknowledged, "body_bytes": body_bytes}),
        );
        Stream { id }
    }

    /// How many messages of a stream are acknowledged so far.
    pub fn acknowledged(&self, stream: Stream) -> usize {
        self.state()
            .outcomes
            .get(&stream.id)
            .map_or(0, |outcome| outcome.sent.len())
    }

    /// Ends a stream before its time.
    pub fn stop(&mut self, stream: Stream) {
        self.call("stop_stream", json!({"stream": stream.id}));
    }

    /// Waits for the end of a stream.
    pub fn end(&mut self, stream: Stream, within: Duration) -> Outcome {
        self.end_of(stream.id, within)
            .unwrap_or_else(|e| panic!("stream: {e}\n{}", self.process.log_end()));
        self.state().outcomes.remove(&stream.id).unwrap_or_default()
    }

    /// Starts a push consumer.
    pub fn consumer(&mut self, consumer: &Consumer<'_>) {
        self.try_consumer(consumer)
            .unwrap_or_else(|e| panic!("{consumer:?}: {e}\n{}", self.process.log_end()));
    }

    /// Starts a push consumer, or tells why the client could not.
    pub fn try_consumer(&mut self, consumer: &Consumer<'_>) -> Result<(), String> {
        let model = match consumer.model {
            Model::Clustering => "clustering",
            Model::Broadcasting => "broadcasting",
        };
        let mut verb = json!({"name": consumer.name, "group": consumer.group, "topic": consumer.topic,
            "expression": consumer.expression, "model": model});
        set_from(&mut verb, &consumer.from);
        for (name, value) in &consumer.more {
            verb[name] = value.clone();
        }
        self.try_call("consumer", verb).map(|_| ())
    }

    /// Starts a pull consumer of all queues of a topic; Java only.
    pub fn lite_pull(&mut self, name: &str, group: &str, topic: &str, from: &From) {
        let mut verb = json!({"name": name, "group": group, "topic": topic});
        set_from(&mut verb, from);
        self.call("lite_pull", verb);
    }

    /// What a consumer has received so far, in the order in which it came.
    pub fn received(&self, consumer: &str) -> Vec<Received> {
        self.state()
            .received
            .get(consumer)
            .cloned()
            .unwrap_or_default()
    }

    /// How many different messages a consumer has received so far.
    pub fn received_count(&self, consumer: &str) -> usize {
        self.state().places.get(consumer).map_or(0, HashSet::len)
    }

    /// Waits until a consumer has received so many different messages; returns all that came, duplicates too.
    pub fn receive(&self, consumer: &str, count: usize, within: Duration) -> Vec<Received> {
        let end = Instant::now() + within;
        while self.received_count(consumer) < count {
            let got = self.received_count(consumer);
            assert!(
                Instant::now() < end,
                "{consumer} has {got} of {count} messages after {within:?}\n{}",
                self.process.log_end()
            );
            thread::sleep(Duration::from_millis(20));
        }
        self.received(consumer)
    }

    /// Waits until so many deliveries to a consumer fulfil `which`; returns these, in the order in which they came.
    pub fn deliveries(
        &self,
        consumer: &str,
        count: usize,
        within: Duration,
        which: impl Fn(&Received) -> bool,
    ) -> Vec<Received> {
        let end = Instant::now() + within;
        loop {
            let received = self.received(consumer);
            let (found, others): (Vec<_>, Vec<_>) = received.into_iter().partition(&which);
            if found.len() >= count {
                return found;
            }
            assert!(
                Instant::now() < end,
                "{consumer} has {} of {count} deliveries after {within:?}: {found:#?}, and {} others\n{}",
                found.len(),
                others.len(),
                self.process.log_end()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Closes a producer or a consumer in the ordinary way.
    pub fn shutdown(&mut self, name: &str) {
        self.call("shutdown", json!({"name": name}));
    }

    /// Any verb; panics when it fails.
    pub fn call(&mut self, verb: &str, members: Value) -> Value {
        let shown = members.to_string();
        self.try_call(verb, members)
            .unwrap_or_else(|e| panic!("{verb} {shown}: {e}\n{}", self.process.log_end()))
    }

    /// Any verb, and what it answers or says of its failure.
    pub fn try_call(&mut self, verb: &str, members: Value) -> Result<Value, String> {
        let id = self.post(verb, members);
        self.end_of(id, VERB)
    }

    /// SIGKILL. Returns what each of its consumers had received, as far as it could tell.
    pub fn kill9(mut self) -> HashMap<String, Vec<Received>> {
        self.process.kill9();
        let (lock, changed) = &*self.state;
        let state = lock.lock().expect("no panic under the lock");
        let mut state = changed
            .wait_while(state, |state| !state.closed)
            .expect("no panic under the lock");
        std::mem::take(&mut state.received)
    }

    /// The ids of the clients in a consumer group, as the admin client tells them; Java only.
    pub fn connections(&mut self, group: &str) -> Vec<String> {
        let answer = self
            .try_call("connections", json!({"group": group}))
            .unwrap_or_default();
        answer["clients"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c.as_str().map(str::to_owned))
            .collect()
    }

    /// Waits until a group has committed all that there is of a topic, as the admin client tells it; Java only.
    pub fn wait_committed(&mut self, group: &str, topic: &str, within: Duration) {
        eventually(
            &format!("{group} has committed all of {topic}"),
            within,
            || {
                let progress = self
                    .try_call("progress", json!({"group": group, "topic": topic}))
                    .ok()?;
                let queues = progress["queues"].as_array()?;
                (!queues.is_empty() && queues.iter().all(|q| q["committed"] == q["end"]))
                    .then_some(())
            },
        );
    }

    fn post(&mut self, verb: &str, mut members: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        members["id"] = id.into();
        members["do"] = verb.into();
        let written = writeln!(self.stdin, "{members}");
        assert!(
            written.is_ok(),
            "the client has ended; {}",
            self.process.log_end()
        );
        id
    }

    fn end_of(&self, id: u64, within: Duration) -> Result<Value, String> {
        let (lock, changed) = &*self.state;
        let state = lock.lock().expect("no panic under the lock");
        let waiting = |state: &mut State| !state.closed && !state.ended.contains_key(&id);
        let (mut state, _) = changed
            .wait_timeout_while(state, within, waiting)
            .expect("no panic under the lock");
        match state.ended.remove(&id) {
            Some(result) => result,
            None if state.closed => Err("the client has ended".to_owned()),
            None => Err(format!("no end after {within:?}")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().expect("no panic under the lock")
    }
}

fn set_from(verb: &mut Value, from: &From) {
    match from {
        From::First => verb["from"] = "first".into(),
        From::Last => verb["from"] = "last".into(),
        From::TimestampMs(ms) => {
            verb["from"] = "timestamp".into();
            verb["timestamp_ms"] = (*ms).into();
        }
    }
}

fn read_events(stdout: ChildStdout, state: &(Mutex<State>, Condvar)) {
    let (lock, changed) = state;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("{e} in the driver's line {line}"));
        let id = event["id"].as_u64().unwrap_or_default();
        let mut state = lock.lock().expect("no panic under the lock");
        match event["event"].as_str() {
            Some("sent") => state
                .outcomes
                .entry(id)
                .or_default()
                .sent
                .push(typed(event)),
            Some("failed") => state
                .outcomes
                .entry(id)
                .or_default()
                .failed
                .push(typed(event)),
            Some("message") => {
                let mut message: Received = typed(event);
                state.deliveries += 1;
                message.number = state.deliveries;
                state
                    .places
                    .entry(message.consumer.clone())
                    .or_default()
                    .insert(message.place.clone());
                state
                    .received
                    .entry(message.consumer.clone())
                    .or_default()
                    .push(message);
            }
            Some("error") => {
                let error = event["error"].as_str().unwrap_or_default().to_owned();
                state.ended.insert(id, Err(error));
            }
            _ => {
                state.ended.insert(id, Ok(event));
            }
        }
        drop(state);
        changed.notify_all();
    }
    lock.lock().expect("no panic under the lock").closed = true;
    changed.notify_all();
}

fn typed<T: for<'de> Deserialize<'de>>(event: Value) -> T {
    let shown = event.to_string();
    serde_json::from_value(event).unwrap_or_else(|e| panic!("{e} in the driver's event {shown}"))
}
