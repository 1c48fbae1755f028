//! A directory through the standard library, blocking: for offline tools and tests. The broker's shards have their own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one place of the log with std::fs"
)]

use super::{AlignedBuffer, DiskSpace, Io, IoError, ReadBuffer, Slice};
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A directory; every operation is done when its future is first polled.
#[derive(Clone)]
pub struct StdIo {
    directory: Rc<Path>,
    read_only: bool,
}

impl StdIo {
    /// To read and write.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory: directory.into(),
            read_only: false,
        }
    }

    /// To read only: everything else fails.
    pub fn read_only(directory: PathBuf) -> Self {
        Self {
            directory: directory.into(),
            read_only: true,
        }
    }

    fn done<T>(&self, op: &str, name: &str, result: std::io::Result<T>) -> Result<T, IoError> {
        let op = format!("{op} {}", self.directory.join(name).display());
        result.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => IoError::NotFound { op },
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                IoError::NoSpace { op }
            }
            _ => IoError::Failed {
                op,
                cause: error.to_string(),
            },
        })
    }

    fn writable(&self) -> std::io::Result<()> {
        if self.read_only {
            Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
        } else {
            Ok(())
        }
    }
}

/// The result of a future that waits for nothing but operations of a [`StdIo`].
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

impl Io for StdIo {
    type File = Rc<(File, String)>;

    async fn list(&self) -> Result<Vec<(String, u64)>, IoError> {
        let list = || {
            let mut files = Vec::new();
            for entry in fs::read_dir(&self.directory)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_file() {
                    files.push((
                        entry.file_name().to_string_lossy().into_owned(),
                        metadata.len(),
                    ));
                }
            }
            Ok(files)
        };
        self.done("list", "", list())
    }

    async fn open(&self, name: &str) -> Result<Self::File, IoError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(!self.read_only)
            .open(self.directory.join(name));
        Ok(Rc::new((
            self.done("open", name, opened)?,
            name.to_string(),
        )))
    }

    async fn create(&self, name: &str, len: u64) -> Result<Self::File, IoError> {
        let create = || {
            self.writable()?;
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(self.directory.join(name))?;
            file.set_len(len)?;
            Ok(file)
        };
        Ok(Rc::new((
            self.done("create", name, create())?,
            name.to_string(),
        )))
    }

    async fn read_at(
        &self,
        file: &Self::File,
        offset: u64,
        len: usize,
    ) -> Result<ReadBuffer, IoError> {
        let mut buffer = AlignedBuffer::zeroed(len);
        let mut filled = 0;
        while filled < len {
            match self.done(
                "read",
                &file.1,
                file.0
                    .read_at(&mut buffer[filled..], offset + filled as u64),
            )? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(buffer.freeze().slice(0..filled))
    }

    async fn write_at(&self, file: &Self::File, offset: u64, bytes: &Slice) -> Result<(), IoError> {
        self.done(
            "write",
            &file.1,
            self.writable()
                .and_then(|()| file.0.write_all_at(bytes, offset)),
        )
    }

    async fn sync(&self, file: &Self::File) -> Result<(), IoError> {
        self.done("sync", &file.1, file.0.sync_all())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        let rename = || {
            self.writable()?;
            fs::rename(self.directory.join(from), self.directory.join(to))
        };
        self.done("rename", from, rename())
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        match self
            .writable()
            .and_then(|()| fs::remove_file(self.directory.join(name)))
        {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => self.done("remove", name, result),
        }
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        self.done(
            "sync",
            "",
            File::open(&*self.directory).and_then(|directory| directory.sync_all()),
        )
    }

    async fn space(&self) -> Result<DiskSpace, IoError> {
        Ok(DiskSpace {
            free_bytes: u64::MAX,
            total_bytes: u64::MAX,
        })
    }

    async fn pause(&self, wait_ms: u64) {
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
    }

    fn random(&self) -> u64 {
        std::hash::RandomState::new().build_hasher().finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::log::{Log, LogOptions, OpenReport, Replay, ReplayError, open, sample, verify};
    use corelane_wire::properties::MessageKeys;

    #[derive(Default)]
    struct Kinds(Vec<u16>);

    impl Replay for Kinds {
        fn state(&mut self, _: &mut Log, kind: u16, _: &[u8]) -> Result<(), ReplayError> {
            self.0.push(kind);
            Ok(())
        }
    }

    fn opened(io: &StdIo) -> (Log, OpenReport, Kinds) {
        let options = LogOptions {
            first_segment_bytes: 8 << 20,
            ..LogOptions::default()
        };
        let mut kinds = Kinds::default();
        let (log, report) = at_once(open(io, options, &mut kinds)).unwrap();
        (log, report, kinds)
    }

    #[test]
    fn a_real_directory() {
        let directory = std::env::temp_dir().join(format!("corelane-log-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let io = StdIo::new(directory.clone());
        let (mut log, report, _) = opened(&io);
        assert!(report.created);
        let queue = log.queue("t", 0);
        let len = sample::message("t", 0, 0, 0, 5, b"body", b"").len();
        let appended = log.append_message(
            queue,
            len,
            0,
            5,
            MessageKeys::default(),
            |position, offset, out| {
                out.copy_from_slice(&sample::message("t", 0, offset, position, 5, b"body", b""));
            },
        );
        let position = appended.unwrap().position;
        log.append_state(7, b"state").unwrap();
        while let Some(write) = log.next_write(0) {
            let file = at_once(io.open(&write.segment.file_name())).unwrap();
            at_once(io.write_at(&file, write.file_offset, &write.bytes)).unwrap();
            at_once(io.sync(&file)).unwrap();
            log.write_done(write.id, Ok(())).unwrap();
        }
        drop(log);
        let (mut log, report, kinds) = opened(&io);
        assert_eq!(
            (report.created, report.messages, kinds.0),
            (false, 1, vec![7])
        );
        let read = log.record_at(position);
        assert!(read.is_err(), "the tail of an opened log is cold");
        let read = log.next_read().unwrap();
        let file = at_once(io.open(&read.file.file_name())).unwrap();
        log.read_done(read.id, at_once(io.read_at(&file, read.offset, read.len)));
        assert_eq!(
            log.record_at(position).unwrap()[8..12],
            corelane_wire::record::body_crc(b"body").to_be_bytes()
        );
        let report = at_once(verify(&StdIo::read_only(directory.clone()))).unwrap();
        assert_eq!((report.damage, report.records), (vec![], 2));
        fs::remove_dir_all(directory).unwrap();
    }
}
