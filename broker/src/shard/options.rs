//! From the configuration to what each part of a shard is told.

use std::net::SocketAddr;
use std::time::Duration;

use super::ShardOptions;
use super::directory::DataDirectory;
use super::place::place;
use crate::config::{Config, ConfigError, Flush, KEYS};
use crate::engine::settings::Settings;
use crate::log::{FlushMode, LogOptions};
use crate::nameserver::Limits;
use crate::nameserver::service::NameServerOptions;
use crate::net::NetLimits;

/// What a record needs beside its body, at most, in bytes.
const RECORD_OVERHEAD: usize = 128 << 10;
/// Timers that are due later than this are stored anew on their way, in milliseconds.
const TIMER_HORIZON_MS: i64 = 36 * 3_600_000;
/// How long an idle turn waits in the ring before the executor sleeps.
const LINGER: Duration = Duration::from_millis(1);

/// What the embedded NameServer, or one alone, runs with.
pub(super) fn nameserver_options(config: &Config, directory: &DataDirectory) -> NameServerOptions {
    NameServerOptions {
        listen_address: config.listen_address,
        port: config.nameserver_port,
        limits: Limits {
            brokers: config.max_registered_brokers,
            topic_entries: config.max_registered_topics,
            kv_entries: config.max_kv_entries,
        },
        net: net_limits(config),
        kv_path: Some(directory.kv_config()),
    }
}

/// The options of every shard, in the order of their cores.
pub(super) fn shard_options(config: &Config) -> Result<Vec<ShardOptions>, ConfigError> {
    let ip = config.advertised_ip();
    let cpus = place(config.shards.into(), &config.cores.0);
    let mut shards = Vec::new();
    for (index, cpu) in (0u16..).zip(cpus) {
        let ports = config.ports(index)?;
        let name = config.shard_name(index);
        shards.push(ShardOptions {
            cpu,
            listen: [ports.main, ports.vip]
                .map(|port| SocketAddr::new(config.listen_address, port))
                .to_vec(),
            ha_address: SocketAddr::new(ip, ports.replication),
            nameservers: config.nameservers(),
            register_interval: Duration::from_millis(config.register_interval_ms),
            linger: LINGER,
            spin: Duration::from_micros(config.spin_us),
            engine: engine_settings(config, &name, SocketAddr::new(ip, ports.main)),
            log: log_options(config),
            net: net_limits(config),
            config: config.clone(),
            name,
        });
    }
    Ok(shards)
}

/// What the configuration means to the engine of a shard: its broker's name, and the address that its clients use.
pub fn engine_settings(config: &Config, name: &str, store_host: SocketAddr) -> Settings {
    Settings {
        cluster_name: config.cluster_name.clone(),
        broker_name: name.to_owned(),
        store_host,
        max_message_bytes: config.max_message_bytes,
        auto_create_topic: config.auto_create_topic,
        default_topic_queues: config.default_topic_queues as i32,
        auto_create_group: config.auto_create_group,
        trace_topic: config.trace_topic,
        broker_permission: config.broker_permission.into(),
        lite_pull: config.lite_pull_message_enable,
        reject_transactions: config.reject_transaction_message,
        property_filter: config.property_filter,
        long_polling: config.long_polling,
        long_polling_max_ms: config.long_polling_max_ms as i64,
        sync_flush: config.flush == Flush::Sync,
        delay_levels_ms: config
            .message_delay_levels
            .0
            .iter()
            .map(|delay_ms| *delay_ms as i64)
            .collect(),
        timer_max_delay_ms: config.timer_max_delay_secs as i64 * 1_000,
        timer_horizon_ms: (config.retention_hours as i64 * 3_600_000 / 2).min(TIMER_HORIZON_MS),
        recall: config.recall,
        offset_flush_ms: config.offset_commit_interval_ms as i64,
        client_timeout_ms: config.client_timeout_ms as i64,
        pull_max_messages: config.max_pull_messages as usize,
        pull_max_bytes: config.max_pull_bytes,
        max_topics: config.max_topics,
        max_topic_queues: config.max_queues.min(i32::MAX as usize) as i32,
        max_groups: config.max_groups,
        max_queues: config.max_queues,
        max_clients: config.max_clients,
        max_offsets: config.max_offsets,
        max_held_pulls: config.max_held_pulls,
        transaction_timeout_ms: config.transaction_timeout_ms as i64,
        transaction_check_interval_ms: config.transaction_check_interval_ms as i64,
        transaction_check_max: config.transaction_check_max,
        max_pending_transactions: config.max_pending_transactions,
        max_pop_checkpoints: config.max_pop_checkpoints,
        max_queue_pop_checkpoints: config.max_queue_pop_checkpoints,
        described: described(config),
    }
}

/// Every key with its value, as Java properties.
fn described(config: &Config) -> String {
    let value = |name: &str| config.text(name).unwrap_or_default();
    KEYS.iter()
        .map(|key| format!("{}={}\n", key.name, value(key.name)))
        .collect()
}

/// One that is written next, and one more: making a file durable can take as long as filling a whole one.
const SEGMENTS_AHEAD: usize = 2;

pub(super) fn log_options(config: &Config) -> LogOptions {
    let flush = match config.flush {
        Flush::Sync => FlushMode::Sync,
        Flush::Async => FlushMode::Async {
            interval_ms: config.flush_interval_ms,
        },
    };
    let defaults = LogOptions::default();
    LogOptions {
        segment_bytes: config.segment_bytes,
        first_segment_bytes: defaults.first_segment_bytes.min(config.segment_bytes),
        segments_ahead: SEGMENTS_AHEAD,
        buffer_bytes: config.log_buffer_bytes,
        tail_cache_bytes: config.tail_cache_bytes,
        index_memory_bytes: config.index_memory_bytes,
        max_group_bytes: config.max_group_bytes,
        max_record_bytes: config.max_message_bytes + RECORD_OVERHEAD,
        max_writes_in_flight: config.max_writes_in_flight,
        max_unflushed_bytes: config.max_unflushed_bytes as u64,
        retention_ms: config.retention_hours as i64 * 3_600_000,
        retention_bytes: match config.retention_bytes {
            0 => u64::MAX,
            bytes => bytes,
        },
        delete_above_percent: config.delete_above_percent,
        refuse_above_percent: config.refuse_above_percent,
        flush,
        ..defaults
    }
}

fn net_limits(config: &Config) -> NetLimits {
    NetLimits {
        max_connections: config.max_connections,
        max_frame_bytes: config.max_frame_bytes,
        max_assembly_bytes: config.max_inflight_bytes,
        max_inflight_bytes: config.max_connection_inflight_bytes,
        max_inflight_bytes_total: config.max_inflight_bytes,
        max_queued_bytes: config.max_connection_unsent_bytes,
        zero_copy_bytes: config.zero_copy_bytes,
        idle_ms: config.client_timeout_ms,
        ..NetLimits::default()
    }
}
