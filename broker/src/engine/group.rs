//! The subscription groups of a shard: what consumers of a group may do, and how their failures are retried.

use std::collections::HashMap;

use corelane_wire::body::{DataVersion, SubscriptionGroupConfig};

/// Groups that exist without being made, as clients and tools expect.
pub const SYSTEM_GROUPS: [&str; 14] = [
    "DEFAULT_PRODUCER",
    "DEFAULT_CONSUMER",
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "CLIENT_INNER_PRODUCER",
    "SELF_TEST_P_GROUP",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "CID_RMQ_SYS_TRANS",
];

/// Groups with this prefix are made even where others are not.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// All groups of a shard.
pub struct Groups {
    by_name: HashMap<String, SubscriptionGroupConfig>,
    version: i64,
    changed_wall_ms: i64,
}

impl Default for Groups {
    /// The groups of the system.
    fn default() -> Self {
        let by_name = SYSTEM_GROUPS
            .iter()
            .map(|group| ((*group).to_owned(), config(group)))
            .collect();
        Self {
            by_name,
            version: 1,
            changed_wall_ms: 0,
        }
    }
}

impl Groups {
    /// The group of that name.
    pub fn get(&self, group: &str) -> Option<&SubscriptionGroupConfig> {
        self.by_name.get(group)
    }

    /// Every group, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &SubscriptionGroupConfig> {
        self.by_name.values()
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Makes or changes a group. Says whether anything is different now.
    pub fn put(&mut self, config: SubscriptionGroupConfig, wall_ms: i64) -> bool {
        if self.by_name.get(&config.group_name) == Some(&config) {
            return false;
        }
        self.by_name.insert(config.group_name.clone(), config);
        self.version += 1;
        self.changed_wall_ms = wall_ms;
        true
    }

    /// Removes a group. Says whether it was there.
    pub fn remove(&mut self, group: &str, wall_ms: i64) -> bool {
        let removed = self.by_name.remove(group).is_some();
        if removed {
            self.version += 1;
            self.changed_wall_ms = wall_ms;
        }
        removed
    }

    /// The version as the protocol writes it.
    pub fn data_version(&self) -> DataVersion {
        DataVersion {
            counter: self.version,
            state_version: 0,
            timestamp: self.changed_wall_ms,
        }
    }
}

/// The settings that a group has when nobody says otherwise.
pub fn config(group: &str) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig {
        group_name: group.to_owned(),
        ..SubscriptionGroupConfig::default()
    }
}

/// Whether a group exists without being made.
pub fn is_system_group(group: &str) -> bool {
    SYSTEM_GROUPS.contains(&group) || group.starts_with(SYSTEM_GROUP_PREFIX)
}
