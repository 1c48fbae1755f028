//! An address inside a record: IPv4 or IPv6, and a port of 32 bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address of a producer or a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host {
    /// The IP address.
    pub ip: IpAddr,
    /// The port; the wire has 32 bits for it.
    pub port: u32,
}

impl Host {
    /// The bytes that an IPv4 host takes.
    pub const V4_BYTES: usize = 8;
    /// The bytes that an IPv6 host takes.
    pub const V6_BYTES: usize = 20;

    /// Whether the address is IPv6.
    pub fn is_v6(&self) -> bool {
        self.ip.is_ipv6()
    }

    /// The bytes that [`Host::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        if self.is_v6() {
            Self::V6_BYTES
        } else {
            Self::V4_BYTES
        }
    }

    /// Writes address and port to the start of `dst`, and returns how many bytes that were.
    pub fn encode(&self, dst: &mut [u8]) -> usize {
        let ip_len = match self.ip {
            IpAddr::V4(ip) => {
                dst[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                dst[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        dst[ip_len..ip_len + 4].copy_from_slice(&self.port.to_be_bytes());
        ip_len + 4
    }

    /// Reads what [`Host::encode`] wrote: 8 or 20 bytes. Any other number gives the unspecified address.
    pub fn decode(bytes: &[u8]) -> Self {
        let v6 = bytes
            .first_chunk::<16>()
            .filter(|_| bytes.len() == Self::V6_BYTES);
        let v4 = bytes
            .first_chunk::<4>()
            .filter(|_| bytes.len() == Self::V4_BYTES);
        let ip = match (v6, v4) {
            (Some(ip), _) => IpAddr::V6(Ipv6Addr::from(*ip)),
            (None, Some(ip)) => IpAddr::V4(Ipv4Addr::from(*ip)),
            (None, None) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let port = bytes
            .last_chunk::<4>()
            .copied()
            .map_or(0, u32::from_be_bytes);
        Self { ip, port }
    }

    /// The address as the system knows it; `None` where the port has more than 16 bits.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip, u16::try_from(self.port).ok()?))
    }
}

impl From<SocketAddr> for Host {
    /// An IPv4 address that came through an IPv6 socket is IPv4 again.
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip().to_canonical(),
            port: address.port().into(),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}
