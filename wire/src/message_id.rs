//! Message ids: the broker's (where a record lies), the client's (unique), and the handle by which a timer is recalled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::record::Host;

/// The two digits of each byte.
const HEX_PAIRS: [[u8; 2]; 256] = {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The text of an id: 32 upper-case hexadecimal digits, or 56 where it holds an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdText {
    digits: [u8; 56],
    len: usize,
}

impl IdText {
    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The digits, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut digits = [0; 56];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
            *pair = HEX_PAIRS[usize::from(*byte)];
        }
        Self {
            digits,
            len: (bytes.len() * 2).min(56),
        }
    }
}

impl std::ops::Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::fmt::Display for IdText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for IdText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The bytes that `digits` write, in either case, to the start of a buffer; `None` where they are not pairs of digits.
fn from_hex(digits: &str) -> Option<([u8; 28], usize)> {
    let mut bytes = [0; 28];
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 56 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = (char::from(high).to_digit(16)? << 4 | char::from(low).to_digit(16)?) as u8;
    }
    Some((bytes, digits.len() / 2))
}

/// Where a record lies: the broker's address and the physical offset. The `msgId` of a send's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetId {
    /// The broker.
    pub store_host: Host,
    /// The physical offset.
    pub offset: i64,
}

impl OffsetId {
    /// The id as text.
    pub fn encode(&self) -> IdText {
        let mut bytes = [0; 28];
        let host_len = self.store_host.encode(&mut bytes);
        bytes[host_len..host_len + 8].copy_from_slice(&self.offset.to_be_bytes());
        IdText::from_bytes(&bytes[..host_len + 8])
    }

    /// Reads an id. Whether it was one is not certain: a [`UniqueId`] has as many digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, len) = from_hex(text)?;
        if len != 16 && len != 28 {
            return None;
        }
        let (host, offset) = bytes[..len].split_at(len - 8);
        Some(Self {
            store_host: Host::decode(host),
            offset: i64::from_be_bytes(*offset.first_chunk()?),
        })
    }
}

/// The id that a client gives its message (`UNIQ_KEY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId {
    /// The client's address.
    pub ip: IpAddr,
    /// The lower 16 bits of its process id.
    pub pid: u16,
    /// A number that differs between two copies of the client in one process.
    pub loader: u32,
    /// Milliseconds since the month began, on the client's clock.
    pub month_ms: u32,
    /// Counts messages.
    pub counter: u16,
}

impl UniqueId {
    /// The id as text.
    pub fn encode(&self) -> IdText {
        let mut bytes = [0; 28];
        let ip_len = match self.ip {
            IpAddr::V4(ip) => {
                bytes[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                bytes[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        let rest = &mut bytes[ip_len..ip_len + 12];
        rest[..2].copy_from_slice(&self.pid.to_be_bytes());
        rest[2..6].copy_from_slice(&self.loader.to_be_bytes());
        rest[6..10].copy_from_slice(&self.month_ms.to_be_bytes());
        rest[10..].copy_from_slice(&self.counter.to_be_bytes());
        IdText::from_bytes(&bytes[..ip_len + 12])
    }

    /// Reads an id of Java's or Go's client. Other clients may use any text as their id.
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, len) = from_hex(text)?;
        let (ip, rest) = match len {
            16 => (
                IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
                &bytes[4..16],
            ),
            28 => (
                IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
                &bytes[16..28],
            ),
            _ => return None,
        };
        let &[p0, p1, l0, l1, l2, l3, m0, m1, m2, m3, c0, c1] = rest.first_chunk::<12>()?;
        Some(Self {
            ip,
            pid: u16::from_be_bytes([p0, p1]),
            loader: u32::from_be_bytes([l0, l1, l2, l3]),
            month_ms: u32::from_be_bytes([m0, m1, m2, m3]),
            counter: u16::from_be_bytes([c0, c1]),
        })
    }
}

/// What a producer needs to recall a message from its timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecallHandle {
    /// The topic that the message will be delivered to.
    pub topic: String,
    /// The broker that holds it.
    pub broker_name: String,
    /// The time of delivery, ms.
    pub deliver_ms: i64,
    /// The message's `UNIQ_KEY`.
    pub unique_key: String,
}

impl RecallHandle {
    /// The handle as text.
    pub fn encode(&self) -> String {
        let Self {
            topic,
            broker_name,
            deliver_ms,
            unique_key,
        } = self;
        URL_SAFE.encode(format!(
            "v1 {topic} {broker_name} {deliver_ms} {unique_key}"
        ))
    }

    /// Reads a handle, with padding or without it, in either alphabet of Base64.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .or_else(|_| STANDARD.decode(text))
            .ok()?;
        let plain = String::from_utf8(bytes).ok()?;
        let mut parts = plain.split(' ');
        let (Some("v1"), Some(topic), Some(broker_name), Some(deliver_ms), Some(unique_key), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return None;
        };
        if topic.is_empty() || broker_name.is_empty() || unique_key.is_empty() {
            return None;
        }
        Some(Self {
            topic: topic.to_owned(),
            broker_name: broker_name.to_owned(),
            deliver_ms: deliver_ms.parse().ok()?,
            unique_key: unique_key.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
