//! The bounds of the network plane, all in one place, and what it counts.

/// What connections may take. Everything over a bound is refused or cut off, and counted.
#[derive(Clone, Debug)]
pub struct NetLimits {
    /// Connections at once; one more is accepted and closed.
    pub max_connections: usize,
    /// A frame with its length word.
    pub max_frame_bytes: usize,
    /// Frames that are being put together from several receive buffers, all connections together.
    pub max_assembly_bytes: usize,
    /// Queued to one connection: from here on nothing is received from it until half of it is sent.
    pub pause_queued_bytes: usize,
    /// Queued to one connection: from here on it is cut off.
    pub max_queued_bytes: usize,
    /// Queued to all connections: from here on the connection with the most is cut off.
    pub max_queued_bytes_total: usize,
    /// Received from one connection and held up ([`Net::hold_up`](super::Net::hold_up)): from here on nothing more is taken
    /// from it until half of it is done with. One frame may be larger.
    pub max_inflight_bytes: usize,
    /// The same of all connections together.
    pub max_inflight_bytes_total: usize,
    /// Shared parts below this are copied into the send queue: a vector of their own costs the kernel more.
    pub copy_below_bytes: usize,
    /// From so many bytes on a send leaves them where they are until the peer has them, where the kernel can and the peer is
    /// on another machine. 0: never.
    pub zero_copy_bytes: usize,
    /// Frames handled for one connection in one turn.
    pub max_frames_per_turn: usize,
    /// Bytes handled for one connection in one turn (the frame that passes the bound is still handled).
    pub max_bytes_per_turn: usize,
    /// Nothing received and nothing sent for so long: closed. 0: never.
    pub idle_ms: u64,
    /// Something queued and nothing of it sent for so long: cut off. 0: never.
    pub stalled_ms: u64,
    /// After a close that was asked for, what is still queued has so long to leave.
    pub linger_ms: u64,
    /// Receive buffers shared by all connections; a power of two, at most 32,768.
    pub receive_buffers: u16,
    /// Size of each.
    pub receive_buffer_bytes: usize,
    /// Connections that wait to be accepted.
    pub backlog: i32,
}

impl Default for NetLimits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_frame_bytes: 16 << 20,
            max_assembly_bytes: 64 << 20,
            pause_queued_bytes: 1 << 20,
            max_queued_bytes: 32 << 20,
            max_queued_bytes_total: 128 << 20,
            max_inflight_bytes: 4 << 20,
            max_inflight_bytes_total: 64 << 20,
            copy_below_bytes: 1024,
            zero_copy_bytes: 64 << 10,
            max_frames_per_turn: 256,
            max_bytes_per_turn: 512 << 10,
            idle_ms: 120_000,
            stalled_ms: 30_000,
            linger_ms: 2_000,
            receive_buffers: 128,
            receive_buffer_bytes: 64 << 10,
            backlog: 1024,
        }
    }
}

impl NetLimits {
    /// How often all connections are looked at: fine enough for the shortest time above.
    pub(super) fn sweep_ms(&self) -> u64 {
        [self.idle_ms, self.stalled_ms, self.linger_ms]
            .into_iter()
            .filter(|&ms| ms > 0)
            .fold(4_000, u64::min)
            / 4
    }
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct NetCounters {
    /// Connections accepted and kept.
    pub accepted: u64,
    /// Connections closed for being over the bound.
    pub rejected: u64,
    /// Accepts that failed (no file descriptor left, mostly).
    pub accept_errors: u64,
    /// Connections that ended, for whatever reason.
    pub closed: u64,
    /// ... of these: because of bytes that are no frame.
    pub closed_frame: u64,
    /// ... of these: idle for too long.
    pub closed_idle: u64,
    /// ... of these: did not read what was sent to them.
    pub closed_slow: u64,
    /// ... of these: no memory for unfinished frames.
    pub closed_memory: u64,
    /// Whole frames handed up.
    pub frames: u64,
    /// ... of these: put together from several buffers.
    pub frames_assembled: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Receive completions.
    pub receives: u64,
    /// Receives that found no buffer.
    pub starved: u64,
    /// Times that bytes of a connection had to wait for the next turn.
    pub left_over: u64,
    /// Times that receiving from a connection was paused because of what is queued to it.
    pub paused: u64,
    /// Times that nothing more was taken from a connection because of what was held up.
    pub overdrawn: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Send operations.
    pub sends: u64,
    /// ... of these: with parts that were not copied.
    pub sends_shared: u64,
    /// ... of these: whose bytes the kernel was asked not to copy.
    pub sends_zero_copy: u64,
    /// ... and copied nevertheless.
    pub zero_copy_copied: u64,
}
