//! The commands and their arguments, as clap reads and explains them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use corelane_client::consumer::Start;
use corelane_client::{ClientError, Cluster};

use crate::keys;

/// A message broker that unmodified Apache RocketMQ clients connect to.
#[derive(Parser)]
#[command(
    name = "corelane",
    version,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  corelane start                        a broker and a NameServer in this process, data in ./corelane-data
  echo hello | corelane produce Demo    send a message
  corelane consume Demo --count 1       receive it",
    long_about = "\
A message broker that unmodified Apache RocketMQ clients connect to.

`corelane start` runs everything in one process: a NameServer on port 9876, where clients ask for brokers, and one broker
per core from port 10911 on. The other commands are clients: they ask the NameServer that --nameserver (or the
environment variable NAMESRV_ADDR) names."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the broker, and a NameServer beside it
    #[command(
        long_about = "\
Runs the broker, and a NameServer beside it unless others are named, until SIGINT or SIGTERM.

Every key of the configuration is a flag, an environment variable (CORELANE_PORT=10911) and an argument of --set. \
--help-all shows them all, `corelane config example` explains them.",
        after_help = "\
Examples:
  corelane start
  corelane start --config corelane.toml --set segment_bytes=256MiB
  corelane start --config /opt/rocketmq/conf/broker.conf      what Apache's file and we have in common is taken
  corelane start --nameserver-addresses ns1:9876\\;ns2:9876    register with these, and run none here"
    )]
    Start(StartArgs),

    /// Run a NameServer alone
    #[command(
        long_about = "\
Runs a NameServer alone until SIGINT or SIGTERM. Several of them know nothing of each other: brokers register with each, \
and clients ask any.",
        after_help = "\
Examples:
  corelane nameserver
  corelane nameserver --nameserver-port 9877 --data-dir /var/lib/corelane-ns"
    )]
    Nameserver(ServeArgs),

    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),

    /// Create, change, list, describe and delete consumer groups
    #[command(subcommand)]
    Group(GroupCommand),

    /// Send messages
    #[command(
        long_about = "\
Sends messages and prints where each was stored. Without --body each line of standard input is a message.

A message that is printed was acknowledged by the broker: with flush = sync it is on stable storage.",
        after_help = "\
Examples:
  echo hello | corelane produce Demo
  corelane produce Demo --body hello --tag greeting --key 42 --property lang=en
  corelane produce Demo --count 1000 --size 1024 --batch 50      a thousand messages of 1 KiB, fifty in a frame"
    )]
    Produce(ProduceArgs),

    /// Receive messages
    #[command(
        long_about = "\
Receives the messages of all queues of a topic and prints their bodies, each on a line, until --count messages came, none \
came for --timeout-ms, or SIGINT.

What was printed is committed for the group. It begins where the group stands, or with --from elsewhere. It does not \
share queues with other consumers of its group: give it a group of its own.",
        after_help = "\
Examples:
  corelane consume Demo
  corelane consume Demo --from first --count 10 --json
  corelane consume Demo --group audit --tag 'paid || refunded'
  corelane consume Demo --sql \"amount > 100 AND lang = 'en'\""
    )]
    Consume(ConsumeArgs),

    /// Check every byte of a data directory
    #[command(
        long_about = "\
Reads the logs of all shards of a data directory, several at once, and checks every group, index and checkpoint. It only \
reads. It does not run beside a broker, and keeps one from starting meanwhile: what is being written cannot be judged.

Ends with 0 when everything is sound, and with 1 when something is damaged: for each shard it says the first bad offset \
and whether that is in the bytes of the log, in an index (it is built anew at the next start) or in the state (the \
checkpoint). What was never acknowledged at the end of a log is no damage, nor is what --skip-damage of `corelane start` \
has passed over; both are said.",
        after_help = "\
Examples:
  corelane verify ./corelane-data
  corelane verify ./corelane-data/shard-0 --json"
    )]
    Verify(VerifyArgs),

    /// Print what lies in a data directory
    #[command(
        long_about = "\
Prints what lies in the logs of a data directory, record by record, in the order in which it was written. It only reads, \
and so can run beside a broker, or when a broker does not start. Each group is checked; gaps are said where they are, and \
it is a failure when one is damage.

Without a choice all messages are printed; --groups, --index and --states add the rest of what is there.",
        after_help = "\
Examples:
  corelane dump ./corelane-data
  corelane dump ./corelane-data/shard-0 --topic Demo --queue 3 --from-offset 100 --count 10
  corelane dump ./corelane-data --key order-17 --json
  corelane dump ./corelane-data --from 4096 --to 65536 --groups --states"
    )]
    Dump(DumpArgs),

    /// Take over the store of an Apache RocketMQ broker
    #[command(
        long_about = "\
Reads the store directory of a stopped Apache RocketMQ broker (commitlog, config, consumequeue) and writes it into one shard \
of a data directory, which no broker may run in: topics, groups, messages and consumer offsets. Every message keeps its queue, \
its offset, its times, keys and properties, so that consumers go on where they were. Messages that still wait for a delay \
level, a timer or the end of their transaction go on waiting.

One Apache broker becomes one shard. A shard is a broker of its own name to clients: groups that keep their offsets \
themselves (broadcasting) know them by that name and begin anew.

It ends with 1 where the store is damaged; what is sound was imported. When it fails on its way, remove what it has made \
and do it again.",
        after_help = "\
Examples:
  corelane import /opt/rocketmq/store --into ./corelane-data --dry-run
  corelane import /opt/rocketmq/store --into ./corelane-data --shard 0 --set segment_bytes=256MiB"
    )]
    Import(ImportArgs),

    /// Measure brokers: ours and others that speak the protocol
    #[command(subcommand)]
    Bench(corelane_bench::command::BenchCommand),

    /// Show and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Print the version
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub serve: ServeArgs,

    /// Go on without the damage at this offset of a shard's log, which a start or `corelane verify` has reported. What is
    /// lost is said. Once done it holds for later starts, and this flag is refused then
    #[arg(long, value_name = "SHARD:OFFSET", value_parser = shard_offset)]
    pub skip_damage: Vec<(usize, u64)>,
}

#[derive(Args)]
pub struct ServeArgs {
    /// Read this file: TOML, or Apache's broker.conf by its ending. Without it the file that CORELANE_CONFIG names
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set any key, also by its name in broker.conf; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Show every flag
    #[arg(long)]
    pub help_all: bool,
}

/// How a cluster is reached.
#[derive(Args)]
pub struct ClusterArgs {
    /// The NameServers, host:port, several separated by ';'
    #[arg(
        short,
        long,
        value_name = "ADDRESS",
        env = "NAMESRV_ADDR",
        default_value = "127.0.0.1:9876"
    )]
    pub nameserver: String,

    /// How long a request may take
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub request_timeout_ms: u64,
}

impl ClusterArgs {
    /// The cluster.
    pub fn open(&self) -> Result<Cluster, ClientError> {
        Cluster::new(
            &self.nameserver,
            Duration::from_millis(self.request_timeout_ms),
        )
    }
}

#[derive(Subcommand)]
pub enum TopicCommand {
    /// Create a topic, or change its queues
    #[command(after_help = "\
Examples:
  corelane topic create Orders
  corelane topic create Orders --queues 16 --cluster DefaultCluster")]
    Create {
        /// Its name
        topic: String,

        /// Queues on each broker
        #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=65_536))]
        queues: i32,

        /// Who may use it: rw, r (consumers only) or w (producers only)
        #[arg(long, value_name = "WHO", default_value = "rw", value_parser = ["rw", "r", "w"])]
        perm: String,

        /// An attribute, such as message.type=FIFO; may be given often
        #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = key_value)]
        attributes: Vec<(String, String)>,

        /// On the brokers of this cluster only
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// List the topics
    List {
        /// Also those that brokers and consumer groups have for themselves
        #[arg(short, long)]
        all: bool,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// Show the queues of a topic and their offsets
    Describe {
        /// Its name
        topic: String,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// Delete a topic with its messages
    Delete {
        /// Its name
        topic: String,

        /// From the brokers of this cluster only
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a group may have; what is not said stays as it is, or has its default.
#[derive(Args, Default)]
pub struct GroupArgs {
    /// How often a message may be consumed in vain before it is a dead letter
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=100_000))]
    pub retries: Option<i32>,

    /// How long messages wait before they come again: levels, 5s..2h*2 (growing), or 1s,5s,1m
    #[arg(long, value_name = "DELAYS", value_parser = crate::group::retry_delays)]
    pub retry_delays: Option<crate::group::RetryDelays>,

    /// Queues of the topic from which they come again; with 0 they do not
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=1_024))]
    pub retry_queues: Option<i32>,

    /// Whether the group may consume
    #[arg(long, value_name = "true|false")]
    pub enabled: Option<bool>,

    /// Whether each of its consumers may get all messages
    #[arg(long, value_name = "true|false")]
    pub broadcast: Option<bool>,

    /// Whether a queue is popped by one consumer at a time
    #[arg(long, value_name = "true|false")]
    pub orderly: Option<bool>,

    /// Whether consumers are told when others come and go
    #[arg(long, value_name = "true|false")]
    pub notify: Option<bool>,

    /// How long consuming a message may take, as old clients are told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub timeout_minutes: Option<i32>,

    /// An attribute; may be given often
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = key_value)]
    pub attributes: Vec<(String, String)>,

    /// On the brokers of this cluster only
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
}

#[derive(Subcommand)]
pub enum GroupCommand {
    /// Create a consumer group; one that exists gets the defaults of what is not said
    #[command(after_help = "\
Examples:
  corelane group create billing
  corelane group create billing --retries 5 --retry-delays 1s,10s,1m")]
    Create {
        /// Its name
        group: String,

        #[command(flatten)]
        has: Box<GroupArgs>,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// Change a consumer group
    #[command(after_help = "\
Example:
  corelane group update billing --enabled false")]
    Update {
        /// Its name
        group: String,

        #[command(flatten)]
        has: Box<GroupArgs>,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// Show what a consumer group may do
    Describe {
        /// Its name
        group: String,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// Delete a consumer group, its offsets, and what it would consume again; not its dead letters
    Delete {
        /// Its name
        group: String,

        /// Keep its offsets
        #[arg(long)]
        keep_offsets: bool,

        /// From the brokers of this cluster only
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,

        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// List the consumer groups
    List {
        #[command(flatten)]
        at: ClusterArgs,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct ProduceArgs {
    /// The topic; created by the first message if the broker does so
    pub topic: String,

    /// The body; without it, each line of standard input is one
    #[arg(short, long, value_name = "TEXT", conflicts_with = "size")]
    pub body: Option<String>,

    /// A body of so many bytes, made up
    #[arg(long, value_name = "BYTES")]
    pub size: Option<usize>,

    /// Send so many messages: with --body or --size the same again and again, else so many lines
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,

    /// A tag, for filters
    #[arg(short, long)]
    pub tag: Option<String>,

    /// A key, for queries; may be given often
    #[arg(short, long = "key", value_name = "KEY")]
    pub keys: Vec<String>,

    /// A property; may be given often
    #[arg(short, long = "property", value_name = "KEY=VALUE", value_parser = key_value)]
    pub properties: Vec<(String, String)>,

    /// Deliver later: the delay level, from 1
    #[arg(long, value_name = "LEVEL", default_value_t = 0)]
    pub delay_level: u32,

    /// Send to queues with this number only
    #[arg(long, value_name = "N")]
    pub queue: Option<i32>,

    /// Send so many messages in one frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,

    /// The producer group
    #[arg(long, value_name = "NAME", default_value = "corelane_produce")]
    pub group: String,

    #[command(flatten)]
    pub at: ClusterArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ConsumeArgs {
    /// The topic
    pub topic: String,

    /// The consumer group
    #[arg(short, long, value_name = "NAME", default_value = "corelane_consume")]
    pub group: String,

    /// Begin at the `first` message, behind the `last`, or at a time in ms since 1970
    #[arg(long, value_name = "first|last|MS", value_parser = start)]
    pub from: Option<Start>,

    /// End after so many messages
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,

    /// End when no message came for so long
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,

    /// Messages with one of these tags only, written 'a || b'
    #[arg(short, long, value_name = "TAGS", conflicts_with = "sql")]
    pub tag: Option<String>,

    /// Messages of which this SQL92 expression over properties is true
    #[arg(long, value_name = "EXPRESSION")]
    pub sql: Option<String>,

    /// Leave the group's offsets as they are
    #[arg(long)]
    pub no_commit: bool,

    #[command(flatten)]
    pub at: ClusterArgs,

    /// Print JSON: everything that is known of a message
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct VerifyArgs {
    /// A data directory, or the directory of one shard in it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Read with so many threads; without it, one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Print JSON: an object for each shard and one for all
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct DumpArgs {
    /// A data directory, or the directory of one shard in it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// What lies at or behind this offset of the log only
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub from: u64,

    /// What lies before this offset of the log only
    #[arg(long, value_name = "OFFSET", default_value_t = u64::MAX, hide_default_value = true)]
    pub to: u64,

    /// Messages of this topic only
    #[arg(short, long)]
    pub topic: Option<String>,

    /// Messages of queues with this number only
    #[arg(long, value_name = "N", requires = "topic")]
    pub queue: Option<i32>,

    /// Messages from this offset of their queue on only
    #[arg(long, value_name = "OFFSET", requires = "queue")]
    pub from_offset: Option<i64>,

    /// Messages with this key only
    #[arg(short, long)]
    pub key: Option<String>,

    /// Messages with this unique key (the message id of clients) only
    #[arg(long, value_name = "KEY")]
    pub unique_key: Option<String>,

    /// End after so many messages of each shard
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,

    /// Also the groups in which records were written, each one write
    #[arg(long)]
    pub groups: bool,

    /// Also what the indexes of each segment say of queues
    #[arg(long)]
    pub index: bool,

    /// Also what the broker keeps beside messages: the checkpoint, and changes since
    #[arg(long)]
    pub states: bool,

    /// Print JSON: everything that is known of a record
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ImportArgs {
    /// The store directory of the Apache broker (its storePathRootDir)
    #[arg(value_name = "STORE")]
    pub store: PathBuf,

    /// The data directory; made where it is missing
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,

    /// The shard of it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub shard: u16,

    /// Say what would be imported, and write nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Read this file of the broker's configuration, as `corelane start` does
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set any key of it, such as segment_bytes; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Print JSON: an object for each queue and one for all
    #[arg(long)]
    pub json: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn shard_offset(text: &str) -> Result<(usize, u64), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(shard, offset)| Some((shard.parse().ok()?, offset.parse().ok()?)));
    parsed.ok_or_else(|| "expected SHARD:OFFSET, as the start that failed has said".to_owned())
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "first" => Ok(Start::First),
        "last" => Ok(Start::Last),
        time => time
            .parse()
            .map(Start::Time)
            .map_err(|_| "expected first, last, or a time in ms since 1970".to_owned()),
    }
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print an annotated example file with every key and its default
    #[command(after_help = "\
Example:
  corelane config example > corelane.toml")]
    Example,

    /// Check a file and the environment, and print what differs from the defaults
    Check {
        /// The file: TOML, or Apache's broker.conf by its ending. Without it the file that CORELANE_CONFIG names
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,

        /// Set any key on top; may be given often
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// List all keys
    Keys {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The whole command line; with `all_flags` its help shows every key of the configuration.
pub fn command(all_flags: bool) -> clap::Command {
    Cli::command()
        .mut_subcommand("start", |start| {
            keys::add_flags(start, keys::OF_START, all_flags)
        })
        .mut_subcommand("nameserver", |nameserver| {
            keys::add_flags(nameserver, keys::OF_NAMESERVER, all_flags)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        command(true).debug_assert();
    }

    #[test]
    fn every_key_is_a_flag() {
        let mut args = vec!["corelane".to_owned(), "start".to_owned()];
        for key in corelane_broker::config::KEYS {
            args.push(format!("--{}=x", key.flag()));
        }
        let matches = command(false).try_get_matches_from(args).unwrap();
        assert_eq!(
            keys::flags(&matches).len(),
            corelane_broker::config::KEYS.len()
        );
        assert!(matches!(
            Cli::from_arg_matches(&matches).unwrap().command,
            Command::Start(_)
        ));
    }

    #[test]
    fn a_switch_needs_no_value() {
        let matches = command(false)
            .try_get_matches_from(["corelane", "start", "--recall", "--port", "5"])
            .unwrap();
        let flags = keys::flags(&matches);
        assert!(
            flags.contains(&("recall".to_owned(), "true".to_owned())),
            "{flags:?}"
        );
        assert!(
            flags.contains(&("port".to_owned(), "5".to_owned())),
            "{flags:?}"
        );
    }
}
