//! Memory that the device reads from and writes to, and shared views of it.
//!
//! A [`TailBuffer`] is appended to while parts of it are already being written to disk and sent to consumers, without a
//! copy and without a lock. What makes that sound: bytes below `written` are never touched again, save the header of a
//! group that is not sealed yet; views are only made of bytes below `written` and never of an unsealed header.
//! All `unsafe` of the log is in this file and in `memory`.

use super::memory::{Memory, Pages};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

/// Tells the processor that what `at` points to is needed soon. It need not be there.
#[inline]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint to the processor, which reads nothing that the program sees, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A buffer of its own, aligned for the device, to be filled and frozen.
pub struct AlignedBuffer {
    /// Nobody else holds it but a [`ReadBuffers`], which does not look at it before it is frozen and let go of.
    memory: Rc<Memory>,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self {
            memory: Rc::new(Memory::zeroed(len)),
            len,
        }
    }

    /// No further writes: shared from now on.
    pub fn freeze(self) -> Slice {
        Slice {
            owner: Owner::Memory(self.memory),
            start: 0,
            len: self.len,
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is not shared; writing needs `&mut self`.
        unsafe { self.memory.bytes(0..self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is not shared, and `self` is borrowed exclusively.
        unsafe { self.memory.bytes_mut(0..self.len) }
    }
}

/// Lengths of buffers that are kept are multiples of it.
const KEPT_ALIGN: usize = 64 << 10;

/// Read buffers that are used again once nobody looks at them any more: memory that is mapped already is faster by far.
pub struct ReadBuffers {
    pages: Pages,
    kept: VecDeque<Rc<Memory>>,
    kept_bytes: usize,
    max_bytes: usize,
}

impl ReadBuffers {
    /// Keeps at most so many bytes, those included that are still looked at.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            pages: Pages::default(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            max_bytes,
        }
    }

    /// A buffer of `len` bytes. Their content is undetermined.
    pub fn take(&mut self, len: usize) -> AlignedBuffer {
        let room = len.next_multiple_of(KEPT_ALIGN);
        // What is somewhat longer serves too: lengths differ, and memory for each would be mapped again and again.
        let fits = |memory: &Rc<Memory>| memory.len() >= room && memory.len() <= 2 * room;
        let free = self.kept.iter().enumerate();
        let free = free.filter(|(_, memory)| fits(memory) && Rc::strong_count(memory) == 1);
        let best = free.min_by_key(|(_, memory)| memory.len());
        let best = best.map(|(at, _)| at);
        let memory = match best.and_then(|at| self.kept.remove(at)) {
            Some(memory) => {
                self.kept_bytes -= memory.len();
                memory
            }
            None => Rc::new(self.pages.zeroed(room)),
        };
        self.kept_bytes += memory.len();
        self.kept.push_back(memory.clone());
        while self.kept_bytes > self.max_bytes
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.len();
        }
        AlignedBuffer { memory, len }
    }
}

#[derive(Clone)]
enum Owner {
    Memory(Rc<Memory>),
    Other(Rc<dyn AsRef<[u8]>>),
}

/// Shared read-only bytes: part of a tail buffer or of a read buffer. A clone shares them; the address is stable.
#[derive(Clone)]
pub struct Slice {
    owner: Owner,
    start: usize,
    len: usize,
}

impl Slice {
    /// All bytes of `owner`, which are kept where they are.
    pub fn from_owner(owner: Rc<dyn AsRef<[u8]>>) -> Self {
        let len = (*owner).as_ref().len();
        Self {
            owner: Owner::Other(owner),
            start: 0,
            len,
        }
    }

    /// A copy of `bytes`, followed by zeros up to a multiple of `multiple`.
    pub fn copied(bytes: &[u8], multiple: usize) -> Self {
        let mut buffer = AlignedBuffer::zeroed(bytes.len().next_multiple_of(multiple));
        buffer[..bytes.len()].copy_from_slice(bytes);
        buffer.freeze()
    }

    /// A part of it. Panics when the range is not inside.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len);
        Slice {
            owner: self.owner.clone(),
            start: self.start + range.start,
            len: range.end - range.start,
        }
    }
}

impl Slice {
    /// Takes `next` in where it lies directly behind in the same memory; says whether it did.
    pub fn join(&mut self, next: &Slice) -> bool {
        let together = match (&self.owner, &next.owner) {
            (Owner::Memory(a), Owner::Memory(b)) => {
                Rc::ptr_eq(a, b) && self.start + self.len == next.start
            }
            _ => false,
        };
        if together {
            self.len += next.len;
        }
        together
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let range = self.start..self.start + self.len;
        match &self.owner {
            // SAFETY: a slice is only made of memory that is written no more (see the module's contract).
            Owner::Memory(memory) => unsafe { memory.bytes(range) },
            Owner::Other(owner) => &(**owner).as_ref()[range],
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

/// Memory that groups are appended to, block after block. Only its holder writes; views of what is written are shared.
pub(super) struct TailBuffer {
    memory: Rc<Memory>,
    written: usize,
    /// Offsets of the headers that are still to be filled, in order.
    unsealed: VecDeque<usize>,
}

impl TailBuffer {
    pub fn new(memory: Memory) -> Self {
        Self {
            memory: Rc::new(memory),
            written: 0,
            unsealed: VecDeque::new(),
        }
    }

    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    pub fn written(&self) -> usize {
        self.written
    }

    /// Leaves room for a header at the end of what is written.
    pub fn begin(&mut self, header_len: usize) {
        assert!(self.written + header_len <= self.memory.len());
        self.unsealed.push_back(self.written);
        self.written += header_len;
    }

    /// The next `len` bytes, to be filled. Their old content is undetermined.
    #[inline]
    pub fn extend(&mut self, len: usize) -> &mut [u8] {
        let range = self.written..self.written + len;
        assert!(range.end <= self.memory.len());
        self.written = range.end;
        // SAFETY: views are only made of bytes below `written` by methods of `self`, which the result borrows exclusively;
        // until now the range was above it.
        unsafe { self.memory.bytes_mut(range) }
    }

    /// Appends zeros until `written` is a multiple of `multiple`.
    pub fn pad(&mut self, multiple: usize) {
        let len = self.written.next_multiple_of(multiple) - self.written;
        self.extend(len).fill(0);
    }

    /// Fills the oldest unsealed header, and gives it with what follows it up to `end`.
    pub fn seal(&mut self, header_len: usize, end: usize, fill: impl FnOnce(&mut [u8])) -> Slice {
        let Some(start) = self.unsealed.pop_front() else {
            panic!("no group to seal")
        };
        let next = self.unsealed.front().copied().unwrap_or(self.written);
        assert!(start + header_len <= end && end <= next);
        // SAFETY: no view covers an unsealed header, and this one was unsealed until now.
        let header = unsafe { self.memory.bytes_mut(start..start + header_len) };
        fill(header);
        self.slice(start..end)
    }

    /// A view of bytes that are written. Panics when an unsealed header is among them.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.written);
        for &header in &self.unsealed {
            if header >= range.end {
                break;
            }
            assert!(
                header + super::group::HEADER_BYTES <= range.start,
                "a view of an unsealed header"
            );
        }
        Slice {
            owner: Owner::Memory(self.memory.clone()),
            start: range.start,
            len: range.end - range.start,
        }
    }

    /// Whether no view of it is left.
    pub fn is_free(&self) -> bool {
        Rc::strong_count(&self.memory) == 1
    }

    /// The same memory from its beginning, if no view of it is left.
    pub fn reuse(self) -> Option<Self> {
        let memory = Rc::try_unwrap(self.memory).ok()?;
        Some(Self {
            memory: Rc::new(memory),
            written: 0,
            unsealed: VecDeque::new(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn views_stay_while_the_buffer_grows() {
        let mut buffer = TailBuffer::new(Memory::zeroed(8192));
        buffer.begin(64);
        buffer.extend(3).copy_from_slice(b"abc");
        let first = buffer.slice(64..67);
        buffer.extend(2).copy_from_slice(b"de");
        buffer.pad(512);
        buffer.begin(64);
        buffer.extend(1).copy_from_slice(b"x");
        assert_eq!(&*first, b"abc");
        let sealed = buffer.seal(64, 512, |header| header.fill(7));
        assert_eq!(sealed.len(), 512);
        assert_eq!(sealed[63], 7);
        assert_eq!(&sealed[64..70], b"abcde\0");
        assert_eq!(sealed.as_ptr() as usize % 4096, 0);
        assert_eq!(first.as_ptr(), sealed[64..].as_ptr());
    }

    #[test]
    #[should_panic(expected = "unsealed header")]
    fn an_unsealed_header_is_not_shown() {
        let mut buffer = TailBuffer::new(Memory::zeroed(4096));
        buffer.begin(64);
        buffer.extend(3);
        let _ = buffer.slice(10..65);
    }

    #[test]
    fn memory_is_reused_only_when_nobody_looks() {
        let mut buffer = TailBuffer::new(Memory::zeroed(4096));
        buffer.extend(10);
        let view = buffer.slice(0..10);
        assert!(buffer.reuse().is_none());
        drop(view);
        let mut buffer = TailBuffer::new(Memory::zeroed(4096));
        buffer.extend(10);
        assert_eq!(buffer.reuse().unwrap().written(), 0);
    }

    #[test]
    fn read_buffers_are_used_again_only_when_nobody_looks() {
        let mut buffers = ReadBuffers::new(300_000);
        let mut buffer = buffers.take(70_000);
        buffer.fill(1);
        let address = buffer.as_ptr();
        assert_eq!(buffer.len(), 70_000);
        let view = buffer.freeze().slice(10..20);
        let mut other = buffers.take(70_000);
        assert_ne!(other.as_ptr(), address);
        other.fill(2);
        assert_eq!(&*view, &[1; 10]);
        drop(view);
        let mut again = buffers.take(66_000);
        assert_eq!((again.as_ptr(), again.len()), (address, 66_000));
        again.fill(3);
        assert!(other.iter().all(|byte| *byte == 2));
        // What is over the bound is forgotten, not taken away.
        let others: Vec<_> = (0..3).map(|_| buffers.take(70_000)).collect();
        assert!(buffers.kept_bytes <= 300_000);
        assert!(again.iter().all(|byte| *byte == 3) && others.len() == 3);
    }

    #[test]
    fn a_read_buffer_that_is_somewhat_longer_serves_too() {
        let mut buffers = ReadBuffers::new(1 << 20);
        let long = buffers.take(256 << 10);
        let longer = buffers.take(320 << 10);
        let (at_long, at_longer) = (long.as_ptr(), longer.as_ptr());
        drop((longer, long));
        let again = buffers.take(200 << 10);
        assert_eq!((again.as_ptr(), again.len()), (at_long, 200 << 10));
        let again_longer = buffers.take(200 << 10);
        assert_eq!(again_longer.as_ptr(), at_longer);
        drop((again, again_longer));
        let short = buffers.take(64 << 10);
        assert!(short.as_ptr() != at_long && short.as_ptr() != at_longer);
    }

    #[test]
    fn foreign_bytes_and_parts_of_parts() {
        let slice = Slice::from_owner(Rc::new(vec![1u8, 2, 3, 4, 5]));
        let part = slice.slice(1..5).slice(1..3);
        assert_eq!(&*part, &[3, 4]);
        assert_eq!(Slice::copied(&[1, 2], 8).len(), 8);
    }
}
