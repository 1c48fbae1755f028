//! Memory that the device reads from and writes to, and shared views of it.

use std::ops::{Deref, DerefMut, Range};
use std::rc::Rc;

/// A buffer of its own, aligned for the device, to be filled and frozen.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
}

impl AlignedBuffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self {
            bytes: vec![0; len],
        }
    }
    /// No further writes: shared from now on.
    pub fn freeze(self) -> Slice {
        let len = self.bytes.len();
        Slice {
            owner: Rc::new(self.bytes),
            start: 0,
            len,
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Shared read-only bytes: part of a tail buffer or of a read buffer. A clone shares them; the address is stable.
#[derive(Clone)]
pub struct Slice {
    owner: Rc<dyn AsRef<[u8]>>,
    start: usize,
    len: usize,
}

impl Slice {
    /// All bytes of `owner`, which are kept where they are.
    pub fn from_owner(owner: Rc<dyn AsRef<[u8]>>) -> Self {
        let len = (*owner).as_ref().len();
        Self {
            owner,
            start: 0,
            len,
        }
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

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.start..self.start + self.len]
    }
}
