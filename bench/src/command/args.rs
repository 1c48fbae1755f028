//! The arguments, as clap reads and explains them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use corelane_wire::frame::Serialization;

use crate::cpu::parse_cores;
use crate::expect::{Expectation, duration_ns};
use crate::raw::Mode;
use crate::schedule::Arrivals;
use crate::sizes::{self, Sizes};

/// What is measured.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The NameServer that knows the brokers
    #[arg(
        short,
        long,
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876",
        value_name = "HOST:PORT"
    )]
    pub nameserver: String,

    /// A broker, without asking a NameServer; may be given often
    #[arg(short, long, value_name = "HOST:PORT")]
    pub broker: Vec<String>,

    /// The topic; it is made if it does not exist
    #[arg(short, long, default_value = "CorelaneBench")]
    pub topic: String,

    /// How many topics: with more than one, a number is appended to the name
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub topics: u32,

    /// Queues of a topic on each broker, where it is made
    #[arg(short, long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub queues: u32,

    /// Do not make topics
    #[arg(long)]
    pub no_create: bool,

    /// How headers are written
    #[arg(long, default_value = "rocketmq")]
    pub header: Header,
}

/// The form of headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Header {
    /// As Java's clients do by default.
    Json,
    /// The compact binary form.
    Rocketmq,
}

impl From<Header> for Serialization {
    fn from(header: Header) -> Self {
        match header {
            Header::Json => Self::Json,
            Header::Rocketmq => Self::Rocketmq,
        }
    }
}

/// How the generator runs.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Threads of the generator
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Cores that the threads stay on: 1 or 0,2 or 1-3. Without --threads, a thread each
    #[arg(long, value_name = "LIST", value_parser = CoresParser::parse)]
    pub cores: Option<Cores>,

    /// How long to measure: 10s, 500ms, 5m, 1h
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    pub duration: Duration,

    /// How long to run before measuring: 1s, or 0s with --count
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub warm_up: Option<Duration>,

    /// How long to wait at the end for what has not come
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    pub drain: Duration,

    /// Never sleep: for cores that are the generator's alone
    #[arg(long)]
    pub spin: bool,
}

impl RunArgs {
    /// The warm-up, where nothing is counted. What has a number of messages is measured from the first of them.
    pub fn warm_up(&self, load: Option<&LoadArgs>) -> Duration {
        let counted = load.is_some_and(|load| load.count.is_some());
        let default = if counted {
            Duration::ZERO
        } else {
            Duration::from_secs(1)
        };
        self.warm_up.unwrap_or(default)
    }
}

/// A list of cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

struct CoresParser;

impl CoresParser {
    fn parse(text: &str) -> Result<Cores, String> {
        parse_cores(text).map(Cores)
    }
}

/// What is sent.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Connections that send
    #[arg(short, long, default_value_t = 16, value_name = "N", value_parser = at_least_one)]
    pub connections: usize,

    /// Most requests that wait for an answer on a connection
    #[arg(short = 'f', long, default_value_t = 4, value_name = "N", value_parser = in_flight)]
    pub in_flight: usize,

    /// Size of bodies: 1024, 4KiB, 100-2000, or 128:9,4KiB:1 with weights
    #[arg(short, long, default_value = "1024")]
    pub size: Sizes,

    /// Send batches of so many messages
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub batch: Option<usize>,

    /// Requests a second; without it, as many as are answered
    #[arg(short, long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,

    /// How the requests of a rate are spaced
    #[arg(long, default_value = "even")]
    pub arrivals: Arrivals,

    /// Let the rate grow from 0 over this time; it is no longer than the warm-up and the run
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration)]
    pub ramp: Duration,

    /// Stop after so many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Give messages keys, of which there are so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,

    /// Tags, which messages get in turn: red,green
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub tags: Vec<String>,

    /// Send timers, which are due so long after the start
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "batch")]
    pub deliver_after: Option<Duration>,

    /// Spread the times at which timers are due over this time, at random
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration, requires = "deliver_after")]
    pub deliver_within: Duration,

    /// Leave out the unique key that Java's clients give each message, and the stamp in the body that says when it was sent
    #[arg(long)]
    pub bare: bool,

    /// Connections beside those that send, which are only kept alive by heartbeats
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub idle: usize,

    /// The producer group
    #[arg(long, default_value = "CorelaneBenchProducer", value_name = "NAME")]
    pub producer_group: String,
}

/// How messages are pulled.
#[derive(Debug, Clone, Args)]
pub struct PullArgs {
    /// Connections that pull, on each broker
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = at_least_one)]
    pub consumers: usize,

    /// Most messages of an answer
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub pull_messages: i32,

    /// Most bytes of an answer; the broker's bound without it
    #[arg(long, value_name = "BYTES", value_parser = sizes::bytes)]
    pub pull_bytes: Option<usize>,

    /// The consumer group
    #[arg(long, default_value = "CorelaneBenchConsumer", value_name = "NAME")]
    pub consumer_group: String,

    /// Which tags: red || green
    #[arg(long, default_value = "*", value_name = "EXPRESSION")]
    pub subscription: String,
}

/// What becomes of the results.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the latencies in the form of HdrHistogram's plotter
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,

    /// Write a report with charts, by its ending: .html or .svg
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Fail unless a bound is kept: p99<2ms, rate>100000, errors<1; may be given often
    #[arg(long, value_name = "BOUND")]
    pub expect: Vec<Expectation>,

    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

/// `bench send`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the groups say it")]
pub struct SendArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,

    /// Find the highest rate that keeps this bound: p99<2ms
    #[arg(long, value_name = "BOUND")]
    pub find_max: Option<Expectation>,
}

/// `bench consume`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the groups say it")]
pub struct ConsumeArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub pull: PullArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,

    /// Begin at the end, and take what comes
    #[arg(long)]
    pub tail: bool,
}

/// `bench connections`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the help and the groups say it")]
pub struct ConnectionsArgs {
    /// How many connections
    #[arg(short, long, default_value_t = 10_000, value_name = "N", value_parser = at_least_one)]
    pub connections: usize,

    /// How often each sends a heartbeat
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub heartbeat: Duration,

    /// Let them be consumers in so many groups: they wait for messages of all queues and commit their offsets
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub groups: Option<usize>,

    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `bench replay`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the help and the groups say it")]
pub struct ReplayArgs {
    /// Lines of `LENGTH RATE SIZES`, as 30s 2000-20000 1KiB, or the JSON of an earlier run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Multiply all rates
    #[arg(long, default_value = "1", value_name = "FACTOR", value_parser = rate)]
    pub scale: f64,

    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `bench e2e` and `bench mixed`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the groups say it")]
pub struct E2eArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub pull: PullArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `bench soak`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the groups say it")]
pub struct SoakArgs {
    #[command(flatten)]
    pub load: E2eArgs,
}

/// `bench diff`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the help says it")]
pub struct DiffArgs {
    /// The older result
    #[arg(value_name = "A.json")]
    pub before: PathBuf,
    /// The newer result
    #[arg(value_name = "B.json")]
    pub after: PathBuf,
}

/// `bench raw`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the help says it")]
pub struct RawArgs {
    /// When a request is answered
    #[arg(long)]
    pub mode: Mode,

    /// The port
    #[arg(short, long, default_value_t = 10999)]
    pub port: u16,

    /// The directory of the file that is written
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,

    /// The size of that file
    #[arg(long, default_value = "1GiB", value_name = "BYTES", value_parser = sizes::bytes)]
    pub file_size: usize,

    /// The core to stay on
    #[arg(long)]
    pub core: Option<usize>,
}

/// `bench disk`.
#[derive(Debug, Args)]
#[allow(missing_docs, reason = "the help says it")]
pub struct DiskArgs {
    /// The directory of the file that is used
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,

    /// Sizes of a write
    #[arg(long, default_value = "4KiB,64KiB,256KiB", value_delimiter = ',', value_name = "LIST", value_parser = sizes::bytes)]
    pub block: Vec<usize>,

    /// How many at once
    #[arg(long, default_value = "1,4,16", value_delimiter = ',', value_name = "LIST", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: Vec<u16>,

    /// The size of the file
    #[arg(long, default_value = "512MiB", value_name = "BYTES", value_parser = sizes::bytes)]
    pub file_size: usize,

    /// How long each measurement takes
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub duration: Duration,

    /// The core to stay on
    #[arg(long)]
    pub core: Option<usize>,
}

fn duration(text: &str) -> Result<Duration, String> {
    duration_ns(text).map(Duration::from_nanos)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err(format!("`{text}` is no rate: a number above 0 is")),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err(format!("`{text}` is not a number from 1 to 1000000")),
    }
}

fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=crate::producer::MAX_IN_FLIGHT).contains(&number) => Ok(number),
        _ => Err(format!(
            "`{text}` is not a number from 1 to {}",
            crate::producer::MAX_IN_FLIGHT
        )),
    }
}
