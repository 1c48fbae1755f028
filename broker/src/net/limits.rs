//! The bounds of the network plane, all in one place.

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
    /// Frames handled for one connection in one turn.
    pub max_frames_per_turn: usize,
    /// Bytes handled for one connection in one turn (the frame that passes the bound is still handled).
    pub max_bytes_per_turn: usize,
    /// Nothing received and nothing sent for so long: closed. 0: never.
    pub idle_ms: u64,
    /// A send without progress for so long: cut off. 0: never.
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
