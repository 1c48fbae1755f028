//! Who is in which cluster, under which addresses, and who has been heard from.
//!
//! A broker name stands for a master (id 0) and its slaves. Each address is alive as long as its connection is open and its
//! last word is younger than the time-out it registered with.

use std::collections::{BTreeMap, BTreeSet};

use corelane_wire::body::{BrokerData, DataVersion};

/// How long a broker may be silent when it did not say.
const DEFAULT_TIMEOUT_MS: u64 = 120_000;

const MASTER: i64 = 0;

/// What a broker says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration<'a> {
    pub cluster: &'a str,
    pub name: &'a str,
    pub address: &'a str,
    pub id: i64,
    pub ha_address: &'a str,
    pub timeout_ms: Option<i64>,
    pub acting_master: Option<bool>,
    pub version: DataVersion,
}

/// What became of a registration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Taken.
    Taken {
        /// Whether the broker's topics are those of its name: it is the master, or stands in for it.
        owns_topics: bool,
        /// Whether it stands in for a master that is not there, and so takes no writes.
        stands_in: bool,
        /// Whether its topics may differ from what is known.
        changed: bool,
        /// A slave's master: HA address and address.
        master: Option<(String, String)>,
    },
    /// Another address holds the id with a newer state.
    Outdated,
    /// There is no room.
    Full,
}

type Address = (String, String);

#[derive(Debug)]
struct Live {
    name: String,
    connection: u64,
    heard_ms: u64,
    timeout_ms: u64,
    version: DataVersion,
    ha_address: String,
}

/// All brokers. Bounded by the number of addresses.
#[derive(Debug, Default)]
pub(super) struct Brokers {
    clusters: BTreeMap<String, BTreeSet<String>>,
    by_name: BTreeMap<String, BrokerData>,
    // By cluster and address.
    live: BTreeMap<Address, Live>,
    max: usize,
}

impl Brokers {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// Takes a broker, or hears from it again.
    pub(super) fn register(
        &mut self,
        now_ms: u64,
        connection: u64,
        broker: &Registration<'_>,
    ) -> Outcome {
        let key = (broker.cluster.to_owned(), broker.address.to_owned());
        if !self.live.contains_key(&key) && self.live.len() >= self.max {
            return Outcome::Full;
        }
        if self.is_outdated(broker) {
            self.live.remove(&key);
            return Outcome::Outdated;
        }
        self.clusters
            .entry(broker.cluster.to_owned())
            .or_default()
            .insert(broker.name.to_owned());
        let data = self
            .by_name
            .entry(broker.name.to_owned())
            .or_insert_with(|| BrokerData {
                broker_name: broker.name.to_owned(),
                cluster: broker.cluster.to_owned(),
                ..BrokerData::default()
            });
        data.enable_acting_master = broker.acting_master.unwrap_or(false);
        // A slave that became the master has the same address under another id.
        data.broker_addrs
            .retain(|id, address| *id == broker.id || address != broker.address);
        let first = data
            .broker_addrs
            .insert(broker.id, broker.address.to_owned())
            .is_none();
        let lowest = data.broker_addrs.keys().next().copied();
        let master = data
            .broker_addrs
            .get(&MASTER)
            .filter(|_| broker.id != MASTER)
            .cloned();

        let stands_in =
            broker.id != MASTER && broker.acting_master.is_some() && lowest == Some(broker.id);
        let timeout_ms = broker
            .timeout_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .filter(|ms| *ms > 0);
        let live = Live {
            name: broker.name.to_owned(),
            connection,
            heard_ms: now_ms,
            timeout_ms: timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS),
            version: broker.version,
            ha_address: broker.ha_address.to_owned(),
        };
        let before = self.live.insert(key, live);
        let changed = first || before.is_none_or(|before| before.version != broker.version);
        let master = master.and_then(|address| {
            let live = self
                .live
                .get(&(broker.cluster.to_owned(), address.clone()))?;
            Some((live.ha_address.clone(), address))
        });
        Outcome::Taken {
            owns_topics: broker.id == MASTER || stands_in,
            stands_in,
            changed,
            master,
        }
    }

    fn is_outdated(&self, broker: &Registration<'_>) -> bool {
        let holder = self
            .by_name
            .get(broker.name)
            .and_then(|data| data.broker_addrs.get(&broker.id));
        let Some(holder) = holder.filter(|holder| *holder != broker.address) else {
            return false;
        };
        let live = self.live.get(&(broker.cluster.to_owned(), holder.clone()));
        live.is_some_and(|live| broker.version.state_version < live.version.state_version)
    }

    /// A broker says that it goes. Gives the name when nobody is left under it.
    pub(super) fn unregister(
        &mut self,
        cluster: &str,
        address: &str,
        name: &str,
    ) -> Option<String> {
        self.live.remove(&(cluster.to_owned(), address.to_owned()));
        self.forget_address(name, address)
    }

    /// A sign of life. What is not registered stays so.
    pub(super) fn heard(&mut self, now_ms: u64, cluster: &str, address: &str) {
        if let Some(live) = self.live.get_mut(&(cluster.to_owned(), address.to_owned())) {
            live.heard_ms = now_ms;
        }
    }

    /// The version of the topics that an address registered last.
    pub(super) fn version(&self, cluster: &str, address: &str) -> Option<DataVersion> {
        self.live
            .get(&(cluster.to_owned(), address.to_owned()))
            .map(|live| live.version)
    }

    /// Drops those that were silent for too long. Gives the names under which nobody is left, and the connections to close.
    pub(super) fn expire(&mut self, now_ms: u64) -> (Vec<String>, Vec<u64>) {
        let silent = |live: &Live| now_ms.saturating_sub(live.heard_ms) > live.timeout_ms;
        let expired = self
            .live
            .extract_if(.., |_, live| silent(live))
            .collect::<Vec<_>>();
        let mut connections: Vec<u64> = expired.iter().map(|(_, live)| live.connection).collect();
        connections.sort_unstable();
        connections.dedup();
        (self.forget(expired), connections)
    }

    /// Drops those that registered on a connection. Gives the names under which nobody is left.
    pub(super) fn closed(&mut self, connection: u64) -> Vec<String> {
        let gone = self
            .live
            .extract_if(.., |_, live| live.connection == connection)
            .collect();
        self.forget(gone)
    }

    fn forget(&mut self, gone: Vec<(Address, Live)>) -> Vec<String> {
        gone.into_iter()
            .filter_map(|((_, address), live)| self.forget_address(&live.name, &address))
            .collect()
    }

    fn forget_address(&mut self, name: &str, address: &str) -> Option<String> {
        let data = self.by_name.get_mut(name)?;
        data.broker_addrs.retain(|_, known| known != address);
        if !data.broker_addrs.is_empty() {
            return None;
        }
        self.by_name.remove(name);
        self.clusters.retain(|_, names| {
            names.remove(name);
            !names.is_empty()
        });
        Some(name.to_owned())
    }

    pub(super) fn get(&self, name: &str) -> Option<&BrokerData> {
        self.by_name.get(name)
    }

    /// The clusters with the names of their brokers.
    pub(super) fn clusters(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.clusters
    }

    /// All brokers by name.
    pub(super) fn by_name(&self) -> &BTreeMap<String, BrokerData> {
        &self.by_name
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn broker(name: &'static str, address: &'static str, id: i64) -> Registration<'static> {
        Registration {
            cluster: "c",
            name,
            address,
            id,
            ha_address: "ha:1",
            timeout_ms: None,
            acting_master: None,
            version: DataVersion::default(),
        }
    }

    fn taken(outcome: &Outcome) -> (bool, bool, bool) {
        match outcome {
            Outcome::Taken {
                owns_topics,
                stands_in,
                changed,
                ..
            } => (*owns_topics, *stands_in, *changed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_slave_learns_its_master_and_may_become_it() {
        let mut brokers = Brokers::new(9);
        assert_eq!(
            taken(&brokers.register(0, 1, &broker("a", "m:1", 0))),
            (true, false, true)
        );
        assert_eq!(
            taken(&brokers.register(0, 1, &broker("a", "m:1", 0))),
            (true, false, false)
        );
        let Outcome::Taken {
            owns_topics,
            master,
            ..
        } = brokers.register(0, 2, &broker("a", "s:1", 1))
        else {
            panic!("not taken");
        };
        assert!(!owns_topics);
        assert_eq!(master, Some(("ha:1".to_owned(), "m:1".to_owned())));
        assert!(brokers.closed(1).is_empty(), "the slave is left");
        brokers.register(0, 2, &broker("a", "s:1", 0));
        assert_eq!(
            brokers.get("a").unwrap().broker_addrs,
            BTreeMap::from([(0, "s:1".to_owned())])
        );
    }

    #[test]
    fn the_lowest_slave_stands_in() {
        let mut brokers = Brokers::new(9);
        let slave = |address, id| Registration {
            acting_master: Some(true),
            ..broker("a", address, id)
        };
        assert_eq!(
            taken(&brokers.register(0, 1, &slave("s:1", 1))),
            (true, true, true)
        );
        assert_eq!(
            taken(&brokers.register(0, 2, &slave("s:2", 2))),
            (false, false, true)
        );
        assert!(brokers.get("a").unwrap().enable_acting_master);
    }

    #[test]
    fn an_older_state_does_not_take_an_id() {
        let mut brokers = Brokers::new(9);
        let version = DataVersion {
            state_version: 2,
            ..DataVersion::default()
        };
        brokers.register(
            0,
            1,
            &Registration {
                version,
                ..broker("a", "m:1", 0)
            },
        );
        assert_eq!(
            brokers.register(0, 2, &broker("a", "m:2", 0)),
            Outcome::Outdated
        );
        assert_eq!(brokers.get("a").unwrap().broker_addrs[&0], "m:1");
        brokers.register(
            0,
            2,
            &Registration {
                version,
                ..broker("a", "m:2", 0)
            },
        );
        assert_eq!(brokers.get("a").unwrap().broker_addrs[&0], "m:2");
    }

    #[test]
    fn silence_and_hanging_up_end_a_broker() {
        let mut brokers = Brokers::new(9);
        brokers.register(
            0,
            1,
            &Registration {
                timeout_ms: Some(500),
                ..broker("a", "m:1", 0)
            },
        );
        brokers.register(0, 2, &broker("b", "m:2", 0));
        brokers.heard(400, "c", "m:1");
        assert_eq!(brokers.expire(900), (vec![], vec![]));
        assert_eq!(brokers.expire(901), (vec!["a".to_owned()], vec![1]));
        assert_eq!(brokers.expire(120_001), (vec!["b".to_owned()], vec![2]));
        assert!(brokers.clusters().is_empty() && brokers.by_name().is_empty());
        brokers.register(0, 2, &broker("b", "m:2", 0));
        assert_eq!(brokers.closed(2), ["b"]);
        assert_eq!(brokers.unregister("c", "m:2", "b"), None);
    }

    #[test]
    fn there_is_a_bound() {
        let mut brokers = Brokers::new(1);
        brokers.register(0, 1, &broker("a", "m:1", 0));
        assert_eq!(
            brokers.register(0, 1, &broker("b", "m:2", 0)),
            Outcome::Full
        );
        assert_eq!(
            taken(&brokers.register(0, 1, &broker("a", "m:1", 0))),
            (true, false, false)
        );
    }
}
