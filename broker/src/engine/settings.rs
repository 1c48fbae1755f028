//! What the engine is told once, when its shard starts.

use std::net::SocketAddr;

/// The settings of one shard's engine. Bounds are inclusive.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the cluster, which is also a topic.
    pub cluster_name: String,
    /// Name of this shard's broker, which is also a topic.
    pub broker_name: String,
    /// The address that clients reach this shard at; part of every message and of every offset message id.
    pub store_host: SocketAddr,
    /// Longest body of a message, in bytes.
    pub max_message_bytes: usize,
    /// Whether a send makes the topic that it names.
    pub auto_create_topic: bool,
    /// How many queues such a topic gets at most.
    pub default_topic_queues: i32,
    /// Whether a consumer group is made when it is first named.
    pub auto_create_group: bool,
    /// Whether `RMQ_SYS_TRACE_TOPIC` exists from the start.
    pub trace_topic: bool,
    /// What the broker permits as a whole (`code::perm`).
    pub broker_permission: i32,
    /// Whether lite pulls are served.
    pub lite_pull: bool,
    /// Whether half messages are refused.
    pub reject_transactions: bool,
    /// Whether messages are filtered by SQL92 expressions.
    pub property_filter: bool,
    /// Whether a pull that finds nothing waits.
    pub long_polling: bool,
    /// Longest time that a pull waits, in milliseconds.
    pub long_polling_max_ms: i64,
    /// Whether an acknowledgement waits for stable storage.
    pub sync_flush: bool,
    /// The delays of the delay levels, from level 1 on, in milliseconds.
    pub delay_levels_ms: Vec<i64>,
    /// Longest delay of a timer message, in milliseconds.
    pub timer_max_delay_ms: i64,
    /// Longest time that a timer message lies in the log before it is stored anew, in milliseconds; below what retention
    /// keeps, and the bound of the queues in which timers wait.
    pub timer_horizon_ms: i64,
    /// Whether a timer message can be recalled.
    pub recall: bool,
    /// How long a commit of a consumer offset may wait to be journalled when nobody waits for it, in milliseconds.
    pub offset_flush_ms: i64,
    /// After so long without a heartbeat a client is taken for gone, in milliseconds.
    pub client_timeout_ms: i64,
    /// Messages in one answer to a pull.
    pub pull_max_messages: usize,
    /// Bytes of messages in one answer to a pull; the first message may be larger.
    pub pull_max_bytes: usize,
    /// Topics of this shard.
    pub max_topics: usize,
    /// Queues of one topic.
    pub max_topic_queues: i32,
    /// Subscription groups of this shard.
    pub max_groups: usize,
    /// Queues of all topics together.
    pub max_queues: usize,
    /// Members of producer and consumer groups, all groups together.
    pub max_clients: usize,
    /// Consumer offsets (a group, a topic, a queue).
    pub max_offsets: usize,
    /// Pulls that wait for a message.
    pub max_held_pulls: usize,
    /// How old a half message is before its producer is asked, in milliseconds.
    pub transaction_timeout_ms: i64,
    /// After how long it is asked again, in milliseconds.
    pub transaction_check_interval_ms: i64,
    /// How often it is asked.
    pub transaction_check_max: u32,
    /// Half messages that wait for the end of their transaction.
    pub max_pending_transactions: usize,
    /// Pops whose messages are not all acknowledged; beyond it pops find nothing.
    pub max_pop_checkpoints: usize,
    /// The same of one group and queue.
    pub max_queue_pop_checkpoints: usize,
    /// Everything that the configuration says, as `key=value`; what GET_BROKER_CONFIG answers.
    pub described: String,
}
