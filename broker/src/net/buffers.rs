//! Receive buffers that the kernel chooses from, shared by all connections of a ring.
//!
//! A buffer is either the kernel's or ours: ours from the completion that names it until [`Buffers::give_back`], which is
//! called exactly once for each such completion.

use super::NetError;
use crate::ring::{Owner, Ring, Token};
use io_uring::opcode;
use io_uring::types::BufRingEntry;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Mapped memory: first the entries shared with the kernel, then the buffers.
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
    buffers_at: usize,
    buffer_bytes: usize,
    count: u16,
}

impl Region {
    fn map(count: u16, buffer_bytes: usize) -> io::Result<Self> {
        let entries = usize::from(count) * size_of::<BufRingEntry>();
        // A multiple of every page size in use.
        let buffers_at = entries.next_multiple_of(64 << 10);
        let len = buffers_at + usize::from(count) * buffer_bytes;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping that overlaps nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self {
                start,
                len,
                buffers_at,
                buffer_bytes,
                count,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn address(&self, id: u16) -> *mut u8 {
        assert!(id < self.count, "buffer {id} was never given to the kernel");
        // SAFETY: inside of the mapping, by the check above.
        unsafe {
            self.start
                .as_ptr()
                .add(self.buffers_at + usize::from(id) * self.buffer_bytes)
        }
    }

    /// Bytes of a buffer that is ours.
    ///
    /// # Safety
    /// The buffer is not given back while the slice is used.
    pub(super) unsafe fn bytes(&self, id: u16, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.buffer_bytes);
        // SAFETY: in bounds by the check; mapped for as long as `self` lives; the kernel writes only to buffers of its own.
        unsafe { std::slice::from_raw_parts(self.address(id).add(range.start), range.len()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no slice outlives its `Rc`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

enum GiveBack {
    /// Through memory shared with the kernel; the tail counts all that were ever given.
    Shared { tail: u16 },
    /// With an operation for each (before Linux 5.19).
    Operation,
}

pub(super) struct Buffers {
    region: Rc<Region>,
    group: u16,
    ours: u32,
    give_back: GiveBack,
}

impl Buffers {
    pub(super) fn new(ring: &mut Ring, count: u16, buffer_bytes: usize) -> Result<Self, NetError> {
        let region = Region::map(count, buffer_bytes).map_err(NetError::Buffers)?;
        let group = ring.new_buffer_group();
        let give_back = if ring.kernel().buffer_ring {
            // SAFETY: a mapping starts at a page, has room for `count` entries, and outlives the operations that use it (see
            // `Net`'s drop); the kernel holds its pages on its own.
            unsafe { ring.register_buffers(region.start.as_ptr() as u64, count, group) }
                .map_err(NetError::Buffers)?;
            GiveBack::Shared { tail: 0 }
        } else {
            GiveBack::Operation
        };
        let mut buffers = Self {
            region: Rc::new(region),
            group,
            ours: u32::from(count),
            give_back,
        };
        for id in 0..count {
            buffers.give_back(ring, id);
        }
        Ok(buffers)
    }

    pub(super) fn group(&self) -> u16 {
        self.group
    }

    pub(super) fn region(&self) -> &Rc<Region> {
        &self.region
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.region.buffer_bytes
    }

    /// Buffers that the kernel has to fill.
    pub(super) fn free(&self) -> usize {
        (u32::from(self.region.count) - self.ours) as usize
    }

    /// The kernel filled a buffer: it is ours until given back.
    pub(super) fn taken(&mut self) {
        self.ours += 1;
    }

    pub(super) fn give_back(&mut self, ring: &mut Ring, id: u16) {
        assert!(self.ours > 0, "buffer {id} was given back twice");
        self.ours -= 1;
        let address = self.region.address(id);
        let len = self.region.buffer_bytes;
        match &mut self.give_back {
            GiveBack::Shared { tail } => {
                let mask = self.region.count - 1;
                let entries = self.region.start.as_ptr().cast::<BufRingEntry>();
                // SAFETY: `count` is a power of two, so the masked index is one of the `count` entries at the start of the
                // mapping, and the kernel does not read it before the tail passes it.
                unsafe {
                    let entry = &mut *entries.add(usize::from(*tail & mask));
                    entry.set_addr(address as u64);
                    entry.set_len(len as u32);
                    entry.set_bid(id);
                }
                *tail = tail.wrapping_add(1);
                // SAFETY: the tail lies in the first entry, aligned for a u16; both sides access it atomically.
                let shared = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
                shared.store(*tail, Ordering::Release);
            }
            GiveBack::Operation => {
                let entry = opcode::ProvideBuffers::new(address, len as i32, 1, self.group, id)
                    .build()
                    .user_data(Token::new(Owner::Nobody, 0).raw());
                // SAFETY: the buffer stays mapped while operations may use it, and is the kernel's from here on.
                unsafe { ring.push(entry) };
            }
        }
    }
}
