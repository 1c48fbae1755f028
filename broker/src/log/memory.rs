//! Stretches of zeroed memory, aligned for the device.
//!
//! Buffers that live long and are large are cut from blocks for which the kernel is asked for huge pages: to pin a buffer for a
//! read or a write costs it a step for each page, and the processor one entry of its address cache. Where it has no
//! huge pages, small ones do the same. A block is given back when nothing of it is left.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

/// Alignment of all buffers: what O_DIRECT may ask for.
pub(super) const BUFFER_ALIGN: usize = 4096;
/// The length of a huge page, and its alignment.
const HUGE_BYTES: usize = 2 << 20;
/// What is shorter is not cut from a block.
const SHORT_BYTES: usize = 64 << 10;

/// A fixed stretch of zeroed, aligned memory.
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
    /// What it is cut from, if not its own.
    block: Option<Rc<Block>>,
}

impl Memory {
    /// `len` zeros of their own.
    pub fn zeroed(len: usize) -> Self {
        let layout = layout(len);
        // SAFETY: the layout's size is at least BUFFER_ALIGN, so not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Self {
            start,
            len,
            block: None,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes of `range`, for reading.
    ///
    /// # Safety
    /// Nobody may write to the range while the result lives.
    pub unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range is inside the allocation, which is initialized (zeroed) and lives as long as `self`.
        unsafe {
            std::slice::from_raw_parts(
                self.start.as_ptr().add(range.start),
                range.end - range.start,
            )
        }
    }

    /// The bytes of `range`, for writing.
    ///
    /// # Safety
    /// Nobody else may read or write the range while the result lives.
    #[allow(
        clippy::mut_from_ref,
        reason = "who may write which range is the caller's promise"
    )]
    pub unsafe fn bytes_mut(&self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: as in `bytes`; exclusive by the caller's promise.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.start.as_ptr().add(range.start),
                range.end - range.start,
            )
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.block.is_none() {
            // SAFETY: allocated in `zeroed` with the same layout, freed once.
            unsafe { dealloc(self.start.as_ptr(), layout(self.len)) }
        }
    }
}

fn layout(len: usize) -> Layout {
    match Layout::from_size_align(padded(len), BUFFER_ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("a buffer of {len} bytes"),
    }
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(BUFFER_ALIGN).max(BUFFER_ALIGN)
}

/// Cuts stretches from blocks, one block after the other.
#[derive(Default)]
pub(super) struct Pages {
    /// The newest block, and how much of it is taken.
    block: Option<(Rc<Block>, usize)>,
}

impl Pages {
    /// `len` zeros; together with others where they are long.
    pub fn zeroed(&mut self, len: usize) -> Memory {
        if len < SHORT_BYTES {
            return Memory::zeroed(len);
        }
        let room = padded(len);
        let (block, taken) = match self.block.take() {
            Some((block, taken)) if taken + room <= block.len => (block, taken),
            _ => (Rc::new(Block::new(room.next_multiple_of(HUGE_BYTES))), 0),
        };
        // SAFETY: inside the block.
        let start = unsafe { block.start.add(taken) };
        if taken + room < block.len {
            self.block = Some((block.clone(), taken + room));
        }
        Memory {
            start,
            len,
            block: Some(block),
        }
    }
}

/// A mapping of some huge pages, aligned as they are.
struct Block {
    start: NonNull<u8>,
    len: usize,
}

impl Block {
    fn new(len: usize) -> Self {
        let room = len + HUGE_BYTES;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever the kernel likes.
        let mapped = unsafe { libc::mmap(null_mut(), room, protection, flags, -1, 0) };
        let mapped = if mapped == libc::MAP_FAILED {
            None
        } else {
            NonNull::new(mapped.cast::<u8>())
        };
        let Some(mapped) = mapped else {
            handle_alloc_error(layout(room))
        };
        let before = mapped.as_ptr().align_offset(HUGE_BYTES);
        assert!(before <= HUGE_BYTES, "an address can be aligned");
        // SAFETY: what is given back lies at both ends of the mapping that was just made, and nobody knows of it; the rest is
        // given advice that does not change what it holds.
        unsafe {
            let start = mapped.add(before);
            unmap(mapped, before);
            unmap(start.add(len), HUGE_BYTES - before);
            libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
            Self { start, len }
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing that was cut from it is left.
        unsafe { unmap(self.start, self.len) }
    }
}

/// # Safety
/// Whole pages of a mapping that nobody uses any more.
unsafe fn unmap(start: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise. It cannot fail for pages that are mapped.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn address(memory: &Memory) -> usize {
        memory.start.as_ptr() as usize
    }

    #[test]
    fn stretches_are_cut_from_blocks_and_blocks_live_as_long_as_they() {
        let mut pages = Pages::default();
        let first = pages.zeroed(256 << 10);
        assert_eq!(address(&first) % HUGE_BYTES, 0);
        let cut: Vec<_> = (1..8).map(|_| pages.zeroed((256 << 10) - 5)).collect();
        for (at, memory) in cut.iter().enumerate() {
            assert_eq!(address(memory), address(&first) + ((at + 1) << 18));
            // SAFETY: nobody else looks at it.
            let bytes = unsafe { memory.bytes_mut(0..memory.len()) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(at as u8);
        }
        let next = pages.zeroed(5 << 20);
        assert_eq!(address(&next) % HUGE_BYTES, 0);
        assert_eq!(next.block.as_ref().unwrap().len, 6 << 20);
        let behind = pages.zeroed(1 << 20);
        assert_eq!(address(&behind), address(&next) + (5 << 20));
        let block = Rc::downgrade(first.block.as_ref().unwrap());
        drop(first);
        assert!(block.upgrade().is_some());
        for (at, memory) in cut.iter().enumerate() {
            // SAFETY: nobody writes to it.
            let bytes = unsafe { memory.bytes(0..memory.len()) };
            assert!(bytes.iter().all(|byte| *byte == at as u8));
        }
        drop(cut);
        assert!(block.upgrade().is_none());
    }

    #[test]
    fn what_is_short_is_its_own() {
        let mut pages = Pages::default();
        let short = pages.zeroed(5000);
        assert!(short.block.is_none() && address(&short).is_multiple_of(BUFFER_ALIGN));
        assert!(pages.block.is_none());
    }
}
