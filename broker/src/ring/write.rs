//! Writes to files on the ring that carries the sockets: one system call a turn submits both.
//!
//! What is written, and the file, are kept until the kernel is done with them; if this is dropped before, what is written
//! is left to the kernel. Short writes are carried on with. Whether a write is durable when it is done is up to the file
//! (O_DSYNC); whether addresses, lengths and offsets must be aligned, too (O_DIRECT).

use super::{Completion, Owner, Ring, StableBytes, Token};
use io_uring::{opcode, types};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

struct Write<F, B> {
    tag: u64,
    file: F,
    bytes: B,
    offset: u64,
    written: usize,
}

/// Writes in flight. `F` keeps the descriptor open, `B` keeps the bytes.
pub struct FileWrites<F, B: StableBytes> {
    slots: Vec<Option<Write<F, B>>>,
    free: Vec<u32>,
}

/// A write that ended.
#[derive(Debug)]
pub struct Written {
    /// As it was given to [`FileWrites::write_at`].
    pub tag: u64,
    /// All bytes, or why not. Nothing is known then about what is in the file where they should be.
    pub result: io::Result<()>,
}

impl<F: AsRawFd + 'static, B: StableBytes> FileWrites<F, B> {
    /// None in flight.
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Queues a write of all of `bytes` at `offset`; it starts with the ring's next turn. Writes in flight are not ordered.
    pub fn write_at(&mut self, ring: &mut Ring, file: F, offset: u64, bytes: B, tag: u64) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let write = Write {
            tag,
            file,
            bytes,
            offset,
            written: 0,
        };
        push(ring, slot, &write);
        self.slots[slot as usize] = Some(write);
    }

    /// Takes one completion of [`Owner::Disk`]. `None` when the write goes on.
    pub fn completion(&mut self, ring: &mut Ring, completion: Completion) -> Option<Written> {
        let slot = completion.token().payload() as u32;
        let entry = self.slots.get_mut(slot as usize)?;
        let write = entry.as_mut()?;
        let result = match completion.result() {
            0 if write.written < write.bytes.bytes().len() => Err(io::ErrorKind::WriteZero.into()),
            written @ 0.. => {
                write.written += written as usize;
                Ok(())
            }
            error if matches!(-error, libc::EINTR | libc::EAGAIN) => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        if result.is_ok() && write.written < write.bytes.bytes().len() {
            push(ring, slot, write);
            return None;
        }
        let tag = write.tag;
        *entry = None;
        self.free.push(slot);
        Some(Written { tag, result })
    }

    /// Writes that have not ended.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn push<F: AsRawFd, B: StableBytes>(ring: &mut Ring, slot: u32, write: &Write<F, B>) {
    let left = &write.bytes.bytes()[write.written..];
    let len = u32::try_from(left.len())
        .unwrap_or(MOST_AT_ONCE)
        .min(MOST_AT_ONCE);
    let entry = opcode::Write::new(types::Fd(write.file.as_raw_fd()), left.as_ptr(), len)
        .offset(write.offset + write.written as u64)
        .build()
        .user_data(Token::new(Owner::Disk, u64::from(slot)).raw());
    // SAFETY: the bytes do not move while their owner lives; owner and file are kept until the completion, or the owner is
    // left to the kernel when `FileWrites` is dropped.
    unsafe { ring.push(entry) };
}

/// The kernel writes less than 2 GiB at once; a power of two keeps what is left aligned.
const MOST_AT_ONCE: u32 = 1 << 30;

impl<F: AsRawFd + 'static, B: StableBytes> Default for FileWrites<F, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F, B: StableBytes> Drop for FileWrites<F, B> {
    fn drop(&mut self) {
        for write in self.slots.drain(..).flatten() {
            // A descriptor that is closed before the kernel has seen the write may by then be another file's.
            mem::forget(write);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ring::RingOptions;
    use std::fs::{self, File, OpenOptions};
    use std::path::PathBuf;
    use std::rc::Rc;
    use std::time::Duration;

    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("corelane-write-{name}-{}", std::process::id())))
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn finish(ring: &mut Ring, writes: &mut FileWrites<Rc<File>, Rc<[u8]>>) -> Vec<Written> {
        let (mut done, mut completions) = (Vec::new(), Vec::new());
        while writes.in_flight() > 0 {
            ring.wait(Duration::from_secs(5)).unwrap();
            ring.reap(&mut completions);
            assert!(!completions.is_empty(), "a write does not end");
            for completion in completions.drain(..) {
                assert_eq!(completion.token().owner(), Owner::Disk);
                done.extend(writes.completion(ring, completion));
            }
        }
        done
    }

    #[test]
    fn writes_land_where_they_belong_and_end_with_their_tags() {
        for plain in [false, true] {
            let path = TestFile::new("many");
            let mut ring = Ring::new(&RingOptions {
                plain,
                ..RingOptions::default()
            })
            .unwrap();
            let mut writes = FileWrites::new();
            let file = Rc::new(File::create(&path.0).unwrap());
            for round in 0..3u64 {
                for index in 0..50u64 {
                    let bytes: Rc<[u8]> = vec![(index + round) as u8; 4096].into();
                    writes.write_at(&mut ring, file.clone(), index * 4096, bytes, index);
                }
                assert_eq!(writes.in_flight(), 50);
                let mut done = finish(&mut ring, &mut writes);
                done.sort_by_key(|written| written.tag);
                assert!(done.iter().map(|written| written.tag).eq(0..50));
                assert!(done.iter().all(|written| written.result.is_ok()));
                for (index, block) in fs::read(&path.0).unwrap().chunks(4096).enumerate() {
                    assert!(
                        block
                            .iter()
                            .all(|&byte| byte == (index as u64 + round) as u8)
                    );
                }
            }
            assert_eq!(Rc::strong_count(&file), 1);
        }
    }

    #[test]
    fn an_error_is_the_writes_own() {
        let path = TestFile::new("error");
        fs::write(&path.0, b"read only").unwrap();
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut writes = FileWrites::new();
        let read_only = Rc::new(OpenOptions::new().read(true).open(&path.0).unwrap());
        let bytes: Rc<[u8]> = vec![1; 10].into();
        writes.write_at(&mut ring, read_only, 0, bytes.clone(), 9);
        let done = finish(&mut ring, &mut writes);
        assert_eq!(done[0].tag, 9);
        assert_eq!(
            done[0].result.as_ref().unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
        assert_eq!(Rc::strong_count(&bytes), 1);
    }

    #[test]
    fn a_full_device_is_an_error_and_not_a_loop() {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut writes = FileWrites::new();
        let full = Rc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        writes.write_at(&mut ring, full, 0, vec![1; 10].into(), 1);
        let done = finish(&mut ring, &mut writes);
        assert_eq!(
            done[0].result.as_ref().unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
    }

    #[test]
    fn dropped_in_flight_the_bytes_are_left_to_the_kernel() {
        let path = TestFile::new("dropped");
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut writes = FileWrites::new();
        let bytes: Rc<[u8]> = vec![7; 8192].into();
        let file = Rc::new(File::create(&path.0).unwrap());
        writes.write_at(&mut ring, file, 0, bytes.clone(), 1);
        drop(writes);
        assert_eq!(Rc::strong_count(&bytes), 2);
        ring.wait(Duration::from_secs(5)).unwrap();
        assert_eq!(fs::read(&path.0).unwrap(), &bytes[..]);
    }
}
