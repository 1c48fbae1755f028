//! Bytes that the kernel may use from where they are.

use std::rc::Rc;

/// Bytes that the kernel may use from where they are, for as long as it takes.
///
/// # Safety
/// `bytes` gives the same address and length for as long as the value lives, wherever the value itself is moved to, and
/// nobody writes to them.
pub unsafe trait StableBytes: 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

// SAFETY: the bytes are on the heap, and shared ones are not written.
unsafe impl StableBytes for Rc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// For a host that copies everything it sends.
#[derive(Clone, Copy, Debug)]
pub enum NoParts {}

// SAFETY: there is no value.
unsafe impl StableBytes for NoParts {
    fn bytes(&self) -> &[u8] {
        match *self {}
    }
}
