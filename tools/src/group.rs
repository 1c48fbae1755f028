//! `corelane group`: what consumers of a group may do, and how their failures are retried.

use corelane_client::cluster::Broker;
use corelane_wire::body::{
    CustomizedRetryPolicy, ExponentialRetryPolicy, GroupRetryPolicy, GroupRetryPolicyType,
    SubscriptionGroupConfig,
};
use serde_json::{Value, json};

use crate::cli::{ClusterArgs, GroupArgs, GroupCommand};
use crate::output::{Failure, Output};

/// Waits of a customized policy that the first retry passes over, as the protocol has it.
const WAITS_BEFORE_FIRST: usize = 2;
const RETRY_PREFIX: &str = "%RETRY%";

/// How long messages wait before they come again, as `--retry-delays` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryDelays {
    /// The broker's delay levels.
    Levels,
    /// From the first to the longest, each so many times the one before; in milliseconds.
    Growing {
        /// The first.
        initial_ms: i64,
        /// The longest.
        max_ms: i64,
        /// The factor.
        factor: i64,
    },
    /// One after the other, in milliseconds; the last one stays.
    Each(Vec<i64>),
}

/// Runs one of the commands about groups.
pub fn run(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Create {
            group,
            has,
            at,
            json,
        } => {
            let new = SubscriptionGroupConfig {
                group_name: group,
                ..SubscriptionGroupConfig::default()
            };
            put(new, &has, "has been made on", &at, json)
        }
        GroupCommand::Update {
            group,
            has,
            at,
            json,
        } => {
            let (config, _) = find(&group, &at)?;
            put(config, &has, "has been changed on", &at, json)
        }
        GroupCommand::Describe { group, at, json } => {
            let (config, brokers) = find(&group, &at)?;
            let mut rows: Vec<[Value; 2]> = about(&config).into();
            rows.push([json!("brokers"), json!(brokers.join(" "))]);
            Output::new(json).table(["key", "value"], &rows)
        }
        GroupCommand::Delete {
            group,
            keep_offsets,
            cluster,
            at,
            json,
        } => {
            find(&group, &at)?;
            let mut open = at.open()?;
            let brokers = open.delete_group(&group, !keep_offsets, cluster.as_deref())?;
            open.delete_topic(&format!("{RETRY_PREFIX}{group}"), cluster.as_deref())?;
            let line = format!("group {group} is deleted from: {}", names(&brokers));
            Output::new(json).record(&json!({ "group": group, "brokers": list(&brokers) }), &line)
        }
        GroupCommand::List { at, json } => {
            let groups = at.open()?.groups()?;
            let rows: Vec<_> = groups
                .iter()
                .map(|(name, (config, brokers))| {
                    [
                        json!(name),
                        json!(config.retry_max_times),
                        json!(config.consume_enable),
                        json!(brokers.join(" ")),
                    ]
                })
                .collect();
            Output::new(json).table(["group", "retries", "enabled", "brokers"], &rows)
        }
    }
}

fn find(group: &str, at: &ClusterArgs) -> Result<(SubscriptionGroupConfig, Vec<String>), Failure> {
    at.open()?
        .groups()?
        .remove(group)
        .ok_or_else(|| Failure::Said(format!("group {group} does not exist")))
}

fn put(
    mut config: SubscriptionGroupConfig,
    has: &GroupArgs,
    done: &str,
    at: &ClusterArgs,
    json: bool,
) -> Result<(), Failure> {
    apply(&mut config, has);
    let brokers = at.open()?.put_group(&config, has.cluster.as_deref())?;
    let line = format!("group {} {done}: {}", config.group_name, names(&brokers));
    let object = json!({ "group": config.group_name, "brokers": list(&brokers) });
    Output::new(json).record(&object, &line)
}

fn apply(config: &mut SubscriptionGroupConfig, has: &GroupArgs) {
    fn set<T: Copy>(field: &mut T, value: Option<T>) {
        *field = value.unwrap_or(*field);
    }
    set(&mut config.consume_enable, has.enabled);
    set(&mut config.consume_broadcast_enable, has.broadcast);
    set(&mut config.consume_message_orderly, has.orderly);
    set(&mut config.notify_consumer_ids_changed_enable, has.notify);
    set(&mut config.retry_max_times, has.retries);
    set(&mut config.retry_queue_nums, has.retry_queues);
    set(&mut config.consume_timeout_minute, has.timeout_minutes);
    if let Some(delays) = &has.retry_delays {
        config.group_retry_policy = policy(delays);
    }
    config.attributes.extend(has.attributes.iter().cloned());
}

fn policy(delays: &RetryDelays) -> GroupRetryPolicy {
    match delays {
        RetryDelays::Levels => GroupRetryPolicy::default(),
        RetryDelays::Growing {
            initial_ms,
            max_ms,
            factor,
        } => GroupRetryPolicy {
            kind: GroupRetryPolicyType::Exponential,
            exponential_retry_policy: Some(ExponentialRetryPolicy {
                initial: *initial_ms,
                max: *max_ms,
                multiplier: *factor,
            }),
            customized_retry_policy: None,
        },
        RetryDelays::Each(delays_ms) => GroupRetryPolicy {
            kind: GroupRetryPolicyType::Customized,
            exponential_retry_policy: None,
            customized_retry_policy: Some(CustomizedRetryPolicy {
                next: std::iter::repeat_n(delays_ms.first(), WAITS_BEFORE_FIRST)
                    .flatten()
                    .chain(delays_ms)
                    .copied()
                    .collect(),
            }),
        },
    }
}

/// What is worth knowing of a group, as keys and values.
fn about(config: &SubscriptionGroupConfig) -> [[Value; 2]; 9] {
    let policy = &config.group_retry_policy;
    let delays = match (
        &policy.exponential_retry_policy,
        &policy.customized_retry_policy,
    ) {
        (Some(growing), _) if policy.kind == GroupRetryPolicyType::Exponential => json!(format!(
            "{}ms..{}ms*{}",
            growing.initial, growing.max, growing.multiplier
        )),
        (_, Some(each)) => {
            let first = WAITS_BEFORE_FIRST.min(each.next.len().saturating_sub(1));
            let each = each.next[first..].iter();
            let each: Vec<String> = each.map(|ms| format!("{ms}ms")).collect();
            json!(each.join(","))
        }
        _ => json!("levels"),
    };
    [
        [json!("group"), json!(config.group_name)],
        [json!("enabled"), json!(config.consume_enable)],
        [json!("broadcast"), json!(config.consume_broadcast_enable)],
        [json!("orderly"), json!(config.consume_message_orderly)],
        [
            json!("notify"),
            json!(config.notify_consumer_ids_changed_enable),
        ],
        [json!("retries"), json!(config.retry_max_times)],
        [json!("retry-queues"), json!(config.retry_queue_nums)],
        [json!("retry-delays"), delays],
        [json!("attributes"), json!(config.attributes)],
    ]
}

/// Reads `levels`, `5s..2h*2` or `1s,5s,1m`.
pub fn retry_delays(text: &str) -> Result<RetryDelays, String> {
    if text == "levels" {
        return Ok(RetryDelays::Levels);
    }
    if let Some((initial, rest)) = text.split_once("..") {
        let (max, factor) = rest.split_once('*').unwrap_or((rest, "2"));
        return Ok(RetryDelays::Growing {
            initial_ms: delay_ms(initial)?,
            max_ms: delay_ms(max)?,
            factor: factor
                .parse()
                .ok()
                .filter(|factor| (1..=100).contains(factor))
                .ok_or_else(|| format!("`{factor}` is not a factor from 1 to 100"))?,
        });
    }
    text.split(',')
        .map(delay_ms)
        .collect::<Result<_, _>>()
        .map(RetryDelays::Each)
}

fn delay_ms(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i64); 5] = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    let unit = UNITS.iter().find_map(|(unit, ms)| {
        let number = text.strip_suffix(unit)?.parse::<i64>().ok()?;
        number.checked_mul(*ms).filter(|ms| *ms > 0)
    });
    unit.ok_or_else(|| format!("`{text}` is no delay: 500ms, 5s, 10m, 2h or 1d is one"))
}

fn names(brokers: &[Broker]) -> String {
    list(brokers).join(", ")
}

fn list(brokers: &[Broker]) -> Vec<&str> {
    brokers.iter().map(|broker| broker.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_in_three_ways() {
        assert_eq!(retry_delays("levels"), Ok(RetryDelays::Levels));
        assert_eq!(
            retry_delays("5s..2h*3"),
            Ok(RetryDelays::Growing {
                initial_ms: 5_000,
                max_ms: 7_200_000,
                factor: 3
            })
        );
        assert_eq!(
            retry_delays("500ms,1m"),
            Ok(RetryDelays::Each(vec![500, 60_000]))
        );
        for wrong in [
            "",
            "soon",
            "5",
            "5s..",
            "5s..1h*0",
            "0s",
            "99999999999999999d",
            "-1s",
        ] {
            assert!(retry_delays(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_said_changes() {
        let mut config = SubscriptionGroupConfig {
            retry_max_times: 3,
            consume_enable: false,
            ..SubscriptionGroupConfig::default()
        };
        let has = GroupArgs {
            enabled: Some(true),
            retry_delays: Some(RetryDelays::Each(vec![1])),
            ..GroupArgs::default()
        };
        apply(&mut config, &has);
        assert_eq!((config.consume_enable, config.retry_max_times), (true, 3));
        let policy = config.group_retry_policy.customized_retry_policy;
        assert_eq!(policy.map(|policy| policy.next), Some(vec![1, 1, 1]));
    }
}
