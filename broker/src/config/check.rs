//! What several keys say together: the ports of the shards, and the sizes that must fit one another.

use std::net::{IpAddr, Ipv4Addr};

use super::host;
use super::load::ConfigError;
use super::schema::Config;

/// How many shards there are at most when their number is left to us.
const MOST_AUTOMATIC_SHARDS: u16 = 4;

/// From one shard's port to the next.
const PORT_STRIDE: u32 = 10;

/// What a record and its group need beside the body: fixed fields, topic, properties, checksums, padding to a block.
const RECORD_OVERHEAD_BYTES: usize = 64 * 1024;
/// What a file of the log needs beside its longest group: a few of the largest blocks, rounded up.
const GROUP_ROOM_BYTES: u64 = 512 << 10;

/// The ports of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// What the shard is registered with.
    pub main: u16,
    /// Where old clients send (`main - 2`).
    pub vip: u16,
    /// Kept for replication (`main + 1`).
    pub replication: u16,
}

impl Config {
    /// The ports of a shard; an error where they leave the range of ports.
    pub fn ports(&self, shard: u16) -> Result<Ports, ConfigError> {
        let main = u32::from(self.port) + PORT_STRIDE * u32::from(shard);
        let port = |number: u32| {
            u16::try_from(number).map_err(|_| {
                ConfigError::Conflict(format!(
                    "shard {shard} would need port {number}, and ports end at 65535: choose a lower port than {}",
                    self.port
                ))
            })
        };
        Ok(Ports {
            main: port(main)?,
            vip: port(main.saturating_sub(2))?,
            replication: port(main + 1)?,
        })
    }

    /// The address that clients are told: `broker_ip`, or what it stands for. Asks the host.
    pub fn advertised_ip(&self) -> IpAddr {
        match self.broker_ip {
            Some(ip) => ip,
            None if !self.listen_address.is_unspecified() => self.listen_address,
            None => host::outward_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    /// The name that a shard registers under.
    pub fn shard_name(&self, shard: u16) -> String {
        format!("{}-{shard}", self.broker_name)
    }

    /// The NameServers to register with, the embedded one where none is named.
    pub fn nameservers(&self) -> Vec<String> {
        if !self.nameserver_addresses.0.is_empty() || !self.nameserver_embedded {
            return self.nameserver_addresses.0.clone();
        }
        let ip = match self.listen_address {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        };
        vec![std::net::SocketAddr::new(ip, self.nameserver_port).to_string()]
    }

    /// Checks what keys say together.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_ports()?;
        self.check_names()?;
        self.check_sizes()?;
        self.check_cores()
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let shards = match self.shards {
            0 if self.cores.0.is_empty() => MOST_AUTOMATIC_SHARDS,
            0 => u16::try_from(self.cores.0.len()).unwrap_or(u16::MAX),
            shards => shards,
        };
        for shard in 0..shards {
            let Ports {
                main,
                vip,
                replication,
            } = self.ports(shard)?;
            if self.nameserver_embedded && [main, vip, replication].contains(&self.nameserver_port)
            {
                return conflict(format!(
                    "the NameServer's port {} is also one of shard {shard} ({vip}, {main}, {replication}): change port or \
                     nameserver_port",
                    self.nameserver_port
                ));
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        // Shards are topics too, by their names, and a name has 127 characters.
        if self.broker_name.len() > 124 {
            return conflict(
                "broker_name is longer than 124 characters, and shards add their number to it"
                    .to_owned(),
            );
        }
        if (0..64).any(|shard| self.shard_name(shard) == self.cluster_name) {
            return conflict(format!(
                "cluster_name {} is also the name of a shard, and both stand for topics: change one of them",
                self.cluster_name
            ));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let message = self.max_message_bytes + RECORD_OVERHEAD_BYTES;
        if message > self.max_frame_bytes {
            return conflict(format!(
                "max_frame_bytes ({}) has no room for a message of max_message_bytes ({}) and 64 KiB beside it: raise it to \
                 {message} or more",
                self.max_frame_bytes, self.max_message_bytes
            ));
        }
        if 2 * message as u64 > self.segment_bytes {
            return conflict(format!(
                "segment_bytes ({}) must hold two messages of max_message_bytes ({}): raise it to {} or more, or lower \
                 max_message_bytes",
                self.segment_bytes,
                self.max_message_bytes,
                (2 * message).next_multiple_of(4096)
            ));
        }
        if self.max_group_bytes as u64 + GROUP_ROOM_BYTES > self.segment_bytes {
            return conflict(format!(
                "segment_bytes ({}) must hold a group of max_group_bytes ({}) and 512 KiB beside it: raise it, or lower \
                 max_group_bytes",
                self.segment_bytes, self.max_group_bytes
            ));
        }
        if self.delete_above_percent > self.refuse_above_percent {
            return conflict(format!(
                "delete_above_percent ({}) is above refuse_above_percent ({}): sends would be refused before anything is \
                 deleted",
                self.delete_above_percent, self.refuse_above_percent
            ));
        }
        for (name, bytes) in [
            ("max_unflushed_bytes", self.max_unflushed_bytes),
            ("tail_cache_bytes", self.tail_cache_bytes),
            ("max_inflight_bytes", self.max_inflight_bytes),
            (
                "max_connection_unsent_bytes",
                self.max_connection_unsent_bytes,
            ),
        ] {
            if bytes < message {
                return conflict(format!(
                    "{name} ({bytes}) must hold a message of max_message_bytes ({}) and 64 KiB beside it: raise it to \
                     {} or more",
                    self.max_message_bytes,
                    message.next_multiple_of(4096)
                ));
            }
        }
        Ok(())
    }

    fn check_cores(&self) -> Result<(), ConfigError> {
        let (cores, shards) = (self.cores.0.len(), usize::from(self.shards));
        if cores > 0 && shards > cores {
            return conflict(format!(
                "shards = {shards} needs as many cores, and `cores` lists {cores}"
            ));
        }
        if cores > 64 {
            return conflict(format!(
                "`cores` lists {cores} CPUs, and there are at most 64 shards"
            ));
        }
        Ok(())
    }
}

fn conflict(what: String) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict(what))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::value::{Addresses, Cores};
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn defaults_fit() {
        Config::default().check().unwrap();
    }

    #[test]
    fn ports_have_a_stride_and_an_end() {
        let config = Config::default();
        assert_eq!(
            config.ports(2).unwrap(),
            Ports {
                main: 10931,
                vip: 10929,
                replication: 10932
            }
        );
        assert!(refused(|c| c.port = 65_520).contains("shard 2 would need port 65540"));
        assert!(refused(|c| (c.port, c.shards) = (65_534, 2)).contains("65544"));
        for port in [9876, 9878, 9875, 9866, 9846] {
            assert!(
                refused(|c| c.port = port).contains("nameserver_port"),
                "{port}"
            );
        }
        let alone = Config {
            port: 9876,
            nameserver_embedded: false,
            ..Config::default()
        };
        alone.check().unwrap();
    }

    #[test]
    fn sizes_fit_one_another() {
        assert!(refused(|c| c.max_message_bytes = 16 << 20).contains("max_frame_bytes"));
        assert!(refused(|c| c.segment_bytes = 1 << 20).contains("segment_bytes"));
        assert!(refused(|c| c.max_unflushed_bytes = 1 << 20).contains("max_unflushed_bytes"));
        let group = refused(|c| (c.segment_bytes, c.max_group_bytes) = (16 << 20, 16 << 20));
        assert!(group.contains("max_group_bytes"), "{group}");
        assert!(refused(|c| c.delete_above_percent = 91).contains("refuse_above_percent"));
        assert!(refused(|c| (c.shards, c.cores) = (3, Cores(vec![0, 1]))).contains("lists 2"));
        assert!(refused(|c| c.cluster_name = "broker-a-3".to_owned()).contains("cluster_name"));
    }

    #[test]
    fn the_advertised_address_follows_the_keys() {
        let mut config = Config {
            listen_address: "10.1.2.3".parse().unwrap(),
            ..Config::default()
        };
        assert_eq!(config.advertised_ip().to_string(), "10.1.2.3");
        config.broker_ip = Some("192.0.2.7".parse().unwrap());
        assert_eq!(config.advertised_ip().to_string(), "192.0.2.7");
        assert!(!Config::default().advertised_ip().is_unspecified());
    }

    #[test]
    fn the_embedded_nameserver_stands_in() {
        let mut config = Config::default();
        assert_eq!(config.nameservers(), ["127.0.0.1:9876"]);
        config.nameserver_addresses = Addresses(vec!["ns:1".to_owned()]);
        assert_eq!(config.nameservers(), ["ns:1"]);
    }
}
