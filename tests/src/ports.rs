//! Free ports. A block of a hundred belongs to whoever listens on its last one, which needs no file and ends with the
//! process.

use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};

const FIRST: u16 = 12_000;
const BLOCK: u16 = 100;
/// Below the ports that the system gives to outgoing connections.
const BLOCKS: u16 = 200;
/// How far the ports of a broker's shards are from each other.
const STRIDE: u16 = 10;
/// The most shards that a block has room for.
const SHARDS: u16 = 8;

/// Held while ports are looked at, and while a child process is made: until it runs its own program a child holds every
/// socket of its parent, also one that the parent only tried a port with.
static SOCKETS: Mutex<()> = Mutex::new(());

/// Keeps ports from being looked at; for whoever makes a child process.
pub(crate) fn keep_sockets() -> MutexGuard<'static, ()> {
    // The state behind the lock is the kernel's: a test that panicked has not spoiled it.
    SOCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block of ports on 127.0.0.1, free when it was taken.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _owned: TcpListener,
}

impl Ports {
    /// Takes the next free block.
    pub fn take() -> Self {
        let _alone = keep_sockets();
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
