//! The one table of all keys. The struct, the defaults, the flags, the environment variables and the annotated example
//! are made of it; a key that is not here does not exist.
//!
//! An entry reads: documentation, name and type, default, rule, when a change takes effect, and the names under which
//! Apache's `broker.conf` knows the same thing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::value::{
    Addresses, Cores, DelayLevels, Flush, LogLevel, Rule, Value, blocks, bytes, count, hours, ms,
    secs,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// When a new value of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At the next start.
    AtRestart,
    /// At once.
    AtOnce,
}

use Applies::{AtOnce, AtRestart};

/// One key of the schema.
#[derive(Debug)]
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// The heading that it stands under.
    pub section: &'static str,
    /// What it does, as sentences; lines begin with a blank.
    pub doc: &'static str,
    /// What its values may be.
    pub rule: Rule,
    /// When a change takes effect.
    pub applies: Applies,
    /// Apache's names for the same thing.
    pub aliases: &'static [&'static str],
}

impl Key {
    /// The name of the environment variable.
    pub fn env(&self) -> String {
        format!("{}{}", super::ENV_PREFIX, self.name.to_ascii_uppercase())
    }

    /// The name of the flag, without the dashes before it.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The documentation as one line.
    pub fn doc_line(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

macro_rules! schema {
    ($($section:literal { $(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:expr, $rule:expr, $applies:expr $(, $alias:literal)*;
    )+ })+) => {
        /// All settings of a broker and its NameServer, checked one by one.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $($( $(#[doc = $doc])+ pub $name: $type, )+)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($( $name: $default, )+)+ }
            }
        }

        /// Every key, in the order of the example file.
        pub static KEYS: &[Key] = &[$($( Key {
            name: stringify!($name),
            section: $section,
            doc: concat!($($doc, "\n"),+),
            rule: $rule,
            applies: $applies,
            aliases: &[$($alias),*],
        }, )+)+];

        impl Config {
            /// Sets one key from text; `false` when the text does not keep to the rule of the key.
            pub(super) fn set(&mut self, key: &Key, text: &str) -> bool {
                match key.name {
                    $($( stringify!($name) => match <$type as Value>::read(text, &key.rule) {
                        Some(value) => {
                            self.$name = value;
                            true
                        }
                        None => false,
                    }, )+)+
                    _ => false,
                }
            }

            /// The value of one key as text that can be read again; `None` for a name that is no key.
            pub fn text(&self, name: &str) -> Option<String> {
                let key = KEYS.iter().find(|key| key.name == name)?;
                match key.name {
                    $($( stringify!($name) => Some(Value::write(&self.$name, &key.rule)), )+)+
                    _ => None,
                }
            }
        }
    };
}

schema! {
    "Names" {
        /// The cluster that the broker registers under.
        cluster_name: String = "DefaultCluster".to_owned(), Rule::Name, AtRestart, "brokerClusterName";
        /// The broker's name. Each shard registers as a broker of its own: broker-a-0, broker-a-1 and so on.
        broker_name: String = "broker-a".to_owned(), Rule::Name, AtRestart, "brokerName";
    }
    "Places" {
        /// The directory that holds everything that is kept: one process at a time may use it.
        data_dir: PathBuf = PathBuf::from("./corelane-data"), Rule::Form("a directory"), AtRestart, "storePathRootDir";
        /// How much is said on standard error. RUST_LOG, where it is set, goes before this.
        log_level: LogLevel = LogLevel::Info, Rule::OneOf(&LogLevel::WORDS), AtRestart;
    }
    "Network" {
        /// The address to listen on; 0.0.0.0 is every IPv4 address of this host.
        listen_address: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED), Rule::Form("an IP address"), AtRestart,
            "bindAddress";
        /// The address that clients are told to connect to. Empty: listen_address, or where that is 0.0.0.0 the
        /// address of this host that leads to the outside, or 127.0.0.1.
        broker_ip: Option<IpAddr> = None, Rule::Form("an IP address that clients can reach, or nothing"), AtRestart,
            "brokerIP1";
        /// The port of the first shard. Shard i listens on port + 10 * i, and on that minus 2 for old clients; that plus
        /// 1 is kept for replication.
        port: u16 = 10911, count(3, 65_534), AtRestart, "listenPort";
        /// A connection on which nothing was received for so long is closed.
        client_timeout_ms: u64 = 120_000, ms(1_000, 86_400_000), AtRestart;
    }
    "Cores" {
        /// The number of shards. 0: one for each of `cores`, or where that is empty one per physical core, at most 4.
        shards: u16 = 0, count(0, 64), AtRestart;
        /// The CPUs that shards are pinned to, such as 0-3,6. Empty: chosen among the physical cores.
        cores: Cores = Cores::default(), Rule::Form("CPU numbers such as 0-3,6, each once, or nothing"), AtRestart;
        /// How long a shard without work looks for more before it sleeps, in microseconds. It is worth it only where the
        /// shard has its core to itself. An idle shard stays idle: it looks for so long once when it falls asleep.
        spin_us: u64 = 0, count(0, 1_000), AtRestart;
    }
    "NameServer" {
        /// Whether a NameServer runs inside `corelane start`. Where nameserver_addresses is set and this is not, none does.
        nameserver_embedded: bool = true, Rule::Bool, AtRestart;
        /// The port of the NameServer, embedded or alone.
        nameserver_port: u16 = 9876, count(1, 65_535), AtRestart;
        /// The NameServers to register with, separated by semicolons. Empty: the embedded one.
        nameserver_addresses: Addresses = Addresses::default(),
            Rule::Form("host:port, several of them separated by ';', or nothing"), AtRestart, "namesrvAddr";
        /// How often the broker registers anew. NameServers forget a broker after 120 s.
        register_interval_ms: u64 = 30_000, ms(1_000, 60_000), AtRestart, "registerNameServerPeriod";
        /// The most brokers (one for each shard) that the NameServer keeps.
        max_registered_brokers: usize = 10_000, count(1, 1_000_000), AtRestart;
        /// The most topics that the NameServer keeps.
        max_registered_topics: usize = 200_000, count(1, 10_000_000), AtRestart;
        /// The most entries of KV config that the NameServer keeps.
        max_kv_entries: usize = 10_000, count(0, 1_000_000), AtRestart;
    }
    "Log" {
        /// When a send is answered: sync after its message is on stable storage, async before.
        flush: Flush = Flush::Sync, Rule::OneOf(&["sync", "async"]), AtRestart, "flushDiskType";
        /// With flush = async: the longest time that an answered message stays unwritten.
        flush_interval_ms: u64 = 200, ms(1, 60_000), AtRestart, "flushIntervalCommitLog";
        /// The size of one file of the log. Two are written ahead of time, so up to three times as much is used soon.
        segment_bytes: u64 = GIB, blocks(MIB, 4 * GIB), AtRestart, "mappedFileSizeCommitLog",
            "mapedFileSizeCommitLog";
        /// The size of one buffer that gathers messages on their way to the disk.
        log_buffer_bytes: usize = MIB as usize, blocks(64 * KIB, 64 * MIB), AtRestart;
        /// How much of the newest messages each shard keeps in memory for its consumers.
        tail_cache_bytes: usize = 32 * MIB as usize, blocks(MIB, 64 * GIB), AtRestart;
        /// Memory of each shard in which the index of the newest messages is gathered. What was gathered is written, and the
        /// next part begun, when it needs this much.
        index_memory_bytes: usize = 16 * MIB as usize, bytes(MIB, 64 * GIB), AtRestart;
        /// The most that is written as one group. A message that is larger makes a group of its own.
        max_group_bytes: usize = MIB as usize, blocks(4 * KIB, 64 * MIB), AtRestart;
        /// How many groups may be on their way to the disk at once.
        max_writes_in_flight: usize = 8, count(1, 64), AtRestart;
        /// Files of the log whose newest message is older than this are deleted or used again. Messages that wait for
        /// their delivery are never that old; lower it only when none waits, for those may be lost then.
        retention_hours: u64 = 72, hours(1, 876_000), AtOnce, "fileReservedTime";
        /// While the log of a shard is longer than this, its oldest files are deleted or used again, with messages in
        /// them that wait for their delivery: it says so when that happens. 0: the length does not matter.
        retention_bytes: u64 = 0, bytes(0, 1 << 50), AtOnce;
        /// While more of the file system than this is used, the oldest files are deleted, whatever their age, as with
        /// retention_bytes. 100: never.
        delete_above_percent: u8 = 85, count(1, 100), AtOnce, "diskMaxUsedSpaceRatio";
        /// While more of the file system than this is used, sends are refused with SERVICE_NOT_AVAILABLE (14). 100: not
        /// before it is full.
        refuse_above_percent: u8 = 90, count(1, 100), AtOnce;
        /// How often consumer offsets are made durable. After a crash consumers may see so much again.
        offset_commit_interval_ms: u64 = 5_000, ms(10, 600_000), AtRestart, "flushConsumerOffsetInterval";
    }
    "Topics and groups" {
        /// Whether a send to an unknown topic creates it.
        auto_create_topic: bool = true, Rule::Bool, AtOnce, "autoCreateTopicEnable";
        /// The most queues of a topic that was created by a send.
        default_topic_queues: u32 = 8, count(1, 1024), AtOnce, "defaultTopicQueueNums";
        /// Whether an unknown consumer group is created when its first consumer comes.
        auto_create_group: bool = true, Rule::Bool, AtOnce, "autoCreateSubscriptionGroup";
        /// Whether the topic for message traces, RMQ_SYS_TRACE_TOPIC, exists from the start.
        trace_topic: bool = false, Rule::Bool, AtRestart, "traceTopicEnable";
        /// What the broker permits as a whole: 4 to read, 2 to write, 6 both. Clients find no queues of it for what is not
        /// permitted; whoever still asks for messages is refused, and whoever still sends where its topic is in order.
        broker_permission: u8 = 6, count(0, 7), AtOnce, "brokerPermission";
    }
    "Messages" {
        /// The largest body of a message.
        max_message_bytes: usize = 4 * MIB as usize, bytes(KIB, 64 * MIB), AtOnce, "maxMessageSize";
        /// The delays of the delay levels, from level 1 on.
        message_delay_levels: DelayLevels = DelayLevels(DELAY_LEVELS_MS.to_vec()),
            Rule::Form("1 to 64 delays of at most 365d such as 1s 5m 2h 1d"), AtRestart, "messageDelayLevel";
        /// The longest delay of a timer message.
        timer_max_delay_secs: u64 = 259_200, secs(1, 31_536_000), AtOnce, "timerMaxDelaySec";
        /// Whether a timer message can be recalled before it is due.
        recall: bool = false, Rule::Bool, AtOnce, "recallMessageEnable";
        /// Whether consumers may filter by SQL92 expressions over properties.
        property_filter: bool = true, Rule::Bool, AtOnce, "enablePropertyFilter";
    }
    "Transactions" {
        /// How often half messages are looked through.
        transaction_check_interval_ms: u64 = 30_000, ms(100, 3_600_000), AtOnce, "transactionCheckInterval";
        /// How old a half message must be before its producer is asked.
        transaction_timeout_ms: u64 = 6_000, ms(100, 3_600_000), AtOnce, "transactionTimeOut";
        /// How often a producer is asked before its half message is given up.
        transaction_check_max: u32 = 15, count(1, 10_000), AtOnce, "transactionCheckMax";
        /// Whether half messages are refused. Those that are there already end as ever.
        reject_transaction_message: bool = false, Rule::Bool, AtOnce, "rejectTransactionMessage";
    }
    "Consumers" {
        /// Whether a pull that finds nothing is held until a message comes.
        long_polling: bool = true, Rule::Bool, AtOnce, "longPollingEnable";
        /// The longest time that a pull is held, whatever its client asks for.
        long_polling_max_ms: u64 = 30_000, ms(1_000, 300_000), AtOnce;
        /// Whether lite pull consumers may pull (LITE_PULL_MESSAGE, 361).
        lite_pull_message_enable: bool = true, Rule::Bool, AtOnce, "litePullMessageEnable";
        /// The most bytes that one pull is answered with; at least one message is.
        max_pull_bytes: usize = 256 * KIB as usize, bytes(4 * KIB, 16 * MIB), AtOnce,
            "maxTransferBytesOnMessageInMemory";
        /// The most messages that one pull is answered with.
        max_pull_messages: u32 = 1024, count(1, 65_536), AtOnce;
    }
    "Limits, each per shard" {
        /// Connections; one more is closed at once.
        max_connections: usize = 20_000, count(1, 10_000_000), AtRestart;
        /// The largest frame; a connection that sends a larger one is closed.
        max_frame_bytes: usize = 16 * MIB as usize, bytes(64 * KIB, 256 * MIB), AtRestart;
        /// Received and not yet answered bytes of one connection, above which it is not read from. One frame may be larger.
        max_connection_inflight_bytes: usize = 4 * MIB as usize, bytes(64 * KIB, GIB), AtRestart;
        /// The same of all connections together.
        max_inflight_bytes: usize = 64 * MIB as usize, bytes(MIB, 64 * GIB), AtRestart;
        /// Bytes waiting to be sent on one connection, above which a client that does not read is disconnected.
        max_connection_unsent_bytes: usize = 32 * MIB as usize, bytes(MIB, GIB), AtRestart;
        /// Sends from this size on leave their bytes in place until the client has them, if it is on another machine and the
        /// kernel can (SEND_ZC). 0: never.
        zero_copy_bytes: usize = 64 * KIB as usize, bytes(0, GIB), AtRestart;
        /// Bytes that were accepted and are not durable yet; above it sends are answered SYSTEM_BUSY.
        max_unflushed_bytes: usize = 32 * MIB as usize, bytes(MIB, 64 * GIB), AtRestart;
        /// Topics.
        max_topics: usize = 50_000, count(64, 10_000_000), AtRestart;
        /// Queues of all topics together.
        max_queues: usize = 200_000, count(2_048, 100_000_000), AtRestart;
        /// Consumer groups.
        max_groups: usize = 20_000, count(16, 10_000_000), AtRestart;
        /// Clients, as producers and consumers name themselves, of all groups together.
        max_clients: usize = 20_000, count(1, 10_000_000), AtRestart;
        /// Consumer offsets (a group, a topic, a queue) that are kept.
        max_offsets: usize = 500_000, count(1_024, 100_000_000), AtRestart;
        /// Pulls that are held until a message comes; one more is answered at once with nothing.
        max_held_pulls: usize = 100_000, count(1, 10_000_000), AtRestart;
        /// Half messages whose transaction has not ended; one more is answered SYSTEM_BUSY.
        max_pending_transactions: usize = 1_000_000, count(1, 100_000_000), AtRestart;
        /// Pops whose messages are not all acknowledged, about 250 bytes each; beyond it pops find nothing.
        max_pop_checkpoints: usize = 200_000, count(1, 100_000_000), AtRestart;
        /// The same of one group and queue.
        max_queue_pop_checkpoints: usize = 10_000, count(1, 100_000_000), AtRestart;
    }
}

const DELAY_LEVELS_MS: [u64; 18] = [
    1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 180_000, 240_000, 300_000, 360_000, 420_000,
    480_000, 540_000, 600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000,
];

/// The key of a name: its own, or one of Apache's.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.name == name || key.aliases.contains(&name))
}

/// The key or alias that is most like an unknown name, if any is close.
pub(super) fn closest(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase().replace(['-', '.'], "_");
    let names = KEYS
        .iter()
        .flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()));
    let (distance, found) = names
        .map(|known| (distance(&wanted, &known.to_ascii_lowercase()), known))
        .min_by_key(|(far, _)| *far)?;
    (distance <= 2.max(wanted.len() / 4)).then_some(found)
}

/// How many characters must be added, removed or changed.
fn distance(from: &str, to: &str) -> usize {
    // The table would be as large as an attacker likes; no key is longer than this.
    if from.len() > 64 {
        return usize::MAX;
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_keep_to_their_rules() {
        let config = Config::default();
        let mut again = Config::default();
        for key in KEYS {
            let text = config.text(key.name).unwrap_or_default();
            assert!(again.set(key, &text), "{} = {text}", key.name);
        }
        assert_eq!(config, again);
    }

    #[test]
    fn names_are_unique_and_documented() {
        let mut seen = std::collections::BTreeSet::new();
        for key in KEYS {
            for name in std::iter::once(key.name).chain(key.aliases.iter().copied()) {
                assert!(seen.insert(name), "{name} stands twice");
            }
            assert!(
                key.doc_line().ends_with(['.', '?']),
                "{}: a sentence ends with a full stop",
                key.name
            );
            let suffix = key.rule.unit();
            if !suffix.is_empty() {
                assert!(key.name.ends_with(suffix), "{} is in {suffix}", key.name);
            }
        }
    }

    #[test]
    fn close_names_are_suggested() {
        assert_eq!(closest("flsh"), Some("flush"));
        assert_eq!(closest("brokername"), Some("brokerName"));
        assert_eq!(closest("broker-name"), Some("broker_name"));
        assert_eq!(closest("data_directory"), None);
        assert_eq!(closest(&"x".repeat(10_000)), None);
    }
}
