//! Options of simulated logs, from a seed.

use super::Random;
use crate::log::{FlushMode, LogOptions};

/// Sizes that make everything happen within a few hundred records.
pub fn small_options(random: &mut Random) -> LogOptions {
    let interval_ms = 5;
    let options = LogOptions {
        segment_bytes: 4 * 65536,
        first_segment_bytes: 65536,
        block_bytes: [512, 4096][random.below(2)],
        buffer_bytes: [16384, 32768][random.below(2)],
        tail_cache_bytes: [0, 65536][random.below(2)],
        read_cache_bytes: [0, 1 << 20][random.below(2)],
        max_group_bytes: [4096, 16384][random.below(2)],
        max_record_bytes: 20000,
        max_writes_in_flight: 1 + random.below(5),
        max_unflushed_bytes: 65536,
        snapshot_bytes: [50_000, 300_000][random.below(2)],
        retention_bytes: [u64::MAX, 500_000][random.below(2)],
        retention_ms: [i64::MAX, 200][random.below(2)],
        flush: if random.one_in(4) {
            FlushMode::Async { interval_ms }
        } else {
            FlushMode::Sync
        },
        ..LogOptions::default()
    };
    LogOptions {
        // Not drawn, so that seeds go on to mean what they meant.
        index_memory_bytes: [1 << 20, 3000, 10_000][options.max_writes_in_flight % 3],
        index_run_bytes: [1 << 30, 100_000, 20_000][options.max_writes_in_flight / 2],
        index_rows: [5, 1000][options.max_writes_in_flight % 2],
        ..options
    }
}
