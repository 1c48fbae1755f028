//! Free ports. A block of a hundred belongs to whoever listens on its last one, which needs no file and ends with the
//! process.

use std::net::TcpListener;

const FIRST: u16 = 12_000;
const BLOCK: u16 = 100;
/// Below the ports that the system gives to outgoing connections.
const BLOCKS: u16 = 200;
/// How far the ports of a broker's shards are from each other.
const STRIDE: u16 = 10;
/// The most shards that a block has room for.
const SHARDS: u16 = 8;

/// A block of ports on 127.0.0.1, free when it was taken.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _owned: TcpListener,
}

impl Ports {
    /// Takes the next free block.
    pub fn take() -> Self {
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        (0..BLOCKS)
            .map(|i| FIRST + (start + i) % BLOCKS * BLOCK)
            .find_map(|base| {
                let owned = TcpListener::bind(("127.0.0.1", base + BLOCK - 1)).ok()?;
                let ports = Self {
                    base,
                    _owned: owned,
                };
                let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
                let shards = (0..SHARDS)
                    .flat_map(|i| [-2i16, 0, 1].map(|d| ports.broker(i).wrapping_add_signed(d)));
                shards
                    .chain([ports.nameserver(), ports.second_nameserver()])
                    .all(free)
                    .then_some(ports)
            })
            .expect("a block of free ports")
    }

    /// The port of shard `i` of a broker; the ports two below and one above it are free too.
    pub fn broker(&self, i: u16) -> u16 {
        assert!(i < SHARDS, "a block of ports has room for {SHARDS} shards");
        self.base + 2 + i * STRIDE
    }

    /// The port of the NameServer.
    pub fn nameserver(&self) -> u16 {
        self.base + 90
    }

    /// The port of another NameServer.
    pub fn second_nameserver(&self) -> u16 {
        self.base + 91
    }
}
