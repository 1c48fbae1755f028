//! Which cores the shards run on.

#![allow(
    clippy::disallowed_methods,
    reason = "reads the topology of the CPUs before any shard runs"
)]

use std::collections::BTreeMap;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// Shards that are made without being asked for, at most.
const MAX_DEFAULT_SHARDS: usize = 4;

/// The CPU of each shard, in order. `shards` 0 means one for each of `cores`, or one per physical core (at most
/// [`MAX_DEFAULT_SHARDS`]) where `cores` is empty. More shards than CPUs share them in turn.
pub fn place(shards: usize, cores: &[usize]) -> Vec<usize> {
    let physical = physical_cores();
    let count = match (shards, cores.len()) {
        (0, 0) => physical.len().clamp(1, MAX_DEFAULT_SHARDS),
        (0, named) => named,
        (shards, _) => shards,
    };
    let choice = if cores.is_empty() { &physical } else { cores };
    choice.iter().copied().cycle().take(count).collect()
}

/// One CPU of every physical core that this process may run on, in order.
fn physical_cores() -> Vec<usize> {
    let allowed = allowed_cpus();
    let mut cores = BTreeMap::new();
    for cpu in &allowed {
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let read = |file: &str| {
            std::fs::read_to_string(Path::new(&topology).join(file)).unwrap_or_default()
        };
        let core = (read("physical_package_id"), read("core_id"));
        // Where the system does not say, every CPU counts as a core.
        let key = if core.1.is_empty() {
            (String::new(), cpu.to_string())
        } else {
            core
        };
        cores.entry(key).or_insert(*cpu);
    }
    let mut cpus: Vec<usize> = cores.into_values().collect();
    cpus.sort_unstable();
    cpus
}

fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return vec![0];
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_go_to_the_cores_that_were_named() {
        assert_eq!(place(0, &[3, 5]), [3, 5]);
        assert_eq!(place(3, &[3, 5]), [3, 5, 3]);
        assert_eq!(place(1, &[3, 5]), [3]);
    }

    #[test]
    fn without_a_word_there_is_a_shard_per_physical_core_up_to_four() {
        let placed = place(0, &[]);
        assert!((1..=MAX_DEFAULT_SHARDS).contains(&placed.len()));
        let allowed = allowed_cpus();
        assert!(placed.iter().all(|cpu| allowed.contains(cpu)));
    }
}
