//! The files of an Apache RocketMQ broker's store: its commit log and its configuration.
//!
//! The commit log is files named by the position of their first byte, full of records one after another; the rest of a
//! file is filler, zeros behind the newest record. Nothing here is written, and nothing is believed that fails its checks: a
//! record must say where it lies, and its body must have its checksum.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use corelane_wire::body::{
    ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper, SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
};
use corelane_wire::record::{MAGIC_V1, MAGIC_V2, Record, RecordError};

use crate::output::Failure;

/// Bytes that are read at once; longer records are read whole.
const WINDOW_BYTES: usize = 8 << 20;
/// No record is longer, whatever it says.
const MOST_RECORD_BYTES: usize = 64 << 20;
/// Length of an entry of a consume queue file.
const ENTRY_BYTES: u64 = 20;

/// A store directory.
pub struct Store {
    root: PathBuf,
    /// Files of the commit log: position of the first byte, length, path.
    files: Vec<(u64, u64, PathBuf)>,
    /// What was to be said of the files so far.
    pub remarks: Vec<String>,
}

/// What a walk comes across.
pub enum Piece<'a> {
    /// A sound record, and where it lies.
    Record(u64, Record<'a>),
    /// Bytes that should be records and are none.
    Damage(Range<u64>, String),
}

impl Store {
    /// Looks at a directory.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        let directory = root.join("commitlog");
        let list = fs::read_dir(&directory).map_err(|error| {
            Failure::Said(format!(
                "{} is not the store of an Apache broker: cannot read {}: {error}",
                root.display(),
                directory.display()
            ))
        })?;
        let mut files = Vec::new();
        for entry in list {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() == 20
                && let Ok(start) = name.parse()
            {
                files.push((start, entry.metadata()?.len(), entry.path()));
            }
        }
        files.sort();
        let mut remarks = Vec::new();
        if root.join("abort").exists() {
            remarks.push(
                "the Apache broker runs, or did not end properly: stop it first, or what it has not written down is missing"
                    .to_owned(),
            );
        }
        Ok(Self {
            root: root.to_path_buf(),
            files,
            remarks,
        })
    }

    /// Bytes of the commit log's files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, len, _)| len).sum()
    }

    /// The topics.
    pub fn topics(&mut self) -> TopicConfigSerializeWrapper {
        self.config("topics.json", |json| {
            TopicConfigSerializeWrapper::from_json(json).map_err(|error| error.to_string())
        })
    }

    /// The groups.
    pub fn groups(&mut self) -> SubscriptionGroupWrapper {
        self.config("subscriptionGroup.json", |json| {
            SubscriptionGroupWrapper::from_json(json).map_err(|error| error.to_string())
        })
    }

    /// How far groups have consumed.
    pub fn consumer_offsets(&mut self) -> ConsumerOffsetSerializeWrapper {
        self.config("consumerOffset.json", |json| {
            ConsumerOffsetSerializeWrapper::from_json(json).map_err(|error| error.to_string())
        })
    }

    /// How far delay levels have been delivered.
    pub fn delay_offsets(&mut self) -> DelayOffsetSerializeWrapper {
        self.config("delayOffset.json", |json| {
            DelayOffsetSerializeWrapper::from_json(json).map_err(|error| error.to_string())
        })
    }

    /// A file of the configuration, or the copy that the broker keeps of the one before.
    fn config<T: Default>(&mut self, name: &str, parse: impl Fn(&[u8]) -> Result<T, String>) -> T {
        let path = self.root.join("config").join(name);
        let mut why = String::new();
        for path in [path.clone(), path.with_extension("json.bak")] {
            let parsed = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|json| parse(&json));
            match parsed {
                Ok(found) if why.is_empty() => return found,
                Ok(found) => {
                    self.remarks.push(format!(
                        "config/{name} cannot be read ({why}): its .bak is used, which may be older"
                    ));
                    return found;
                }
                Err(error) if why.is_empty() => why = error,
                Err(_) => {}
            }
        }
        self.remarks
            .push(format!("config/{name} cannot be read: {why}"));
        T::default()
    }

    /// One past the last offset of each queue, as the consume queue files have it.
    pub fn queue_ends(&self) -> BTreeMap<(String, i32), i64> {
        let mut ends = BTreeMap::new();
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        for topic in entries(&self.root.join("consumequeue")) {
            for queue in entries(&topic.path()) {
                let name = queue.file_name().to_string_lossy().into_owned();
                let Ok(queue_id) = name.parse() else { continue };
                if let Some(end) = queue_end(&queue.path()) {
                    let topic = topic.file_name().to_string_lossy().into_owned();
                    ends.insert((topic, queue_id), end);
                }
            }
        }
        ends
    }

    /// Goes through the commit log.
    pub fn walk(
        &self,
        mut visit: impl FnMut(Piece<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut expected = self.files.first().map_or(0, |(start, ..)| *start);
        let last = self.files.len().saturating_sub(1);
        for (number, (start, len, path)) in self.files.iter().enumerate() {
            if *start != expected {
                let what = "a file of the commit log is missing".to_owned();
                visit(Piece::Damage(expected..*start, what))?;
            }
            expected = start + len;
            let file = Reader {
                file: File::open(path)?,
                start: *start,
                len: *len,
            };
            file.walk(number == last, &mut visit)?;
        }
        Ok(())
    }
}

/// One past the offset of the last entry of the files of a queue.
fn queue_end(path: &Path) -> Option<i64> {
    let files = fs::read_dir(path).ok()?.flatten();
    let mut files: Vec<(u64, PathBuf)> = files
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            Some((name.parse().ok()?, file.path()))
        })
        .collect();
    files.sort();
    for (start, path) in files.into_iter().rev() {
        let bytes = fs::read(path).ok()?;
        let entries = bytes.chunks_exact(ENTRY_BYTES as usize);
        let is_used = |entry: &[u8]| entry[8..12] != [0; 4];
        if let Some(last) = entries.enumerate().rfind(|(_, entry)| is_used(entry)) {
            return Some((start / ENTRY_BYTES) as i64 + last.0 as i64 + 1);
        }
    }
    None
}

/// One file of the commit log.
struct Reader {
    file: File,
    start: u64,
    len: u64,
}

impl Reader {
    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = (len as u64).min(self.len - at) as usize;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Goes through the records. Zeros are the end of the newest file; in others there must be filler.
    fn walk(
        &self,
        newest: bool,
        visit: &mut impl FnMut(Piece<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut at, mut window, mut base) = (0, Vec::new(), 0);
        while at + 8 <= self.len {
            let bytes: &[u8] = &window[((at - base) as usize).min(window.len())..];
            let size = bytes.first_chunk();
            let size = size.map_or(0, |size| u32::from_be_bytes(*size) as usize);
            let need = size.clamp(8, MOST_RECORD_BYTES);
            if bytes.len() < need && base + (window.len() as u64) < self.len {
                (window, base) = (self.read(at, need.max(WINDOW_BYTES))?, at);
                continue;
            }
            let position = self.start + at;
            let problem = match Record::parse(bytes) {
                Ok((record, _)) if record.physical_offset() as u64 != position => {
                    "a record says that it lies elsewhere".to_owned()
                }
                Ok((record, _)) if !record.check_body_crc() => {
                    "the body of a record has not its checksum".to_owned()
                }
                Ok((record, _)) => {
                    at += record.total_size() as u64;
                    visit(Piece::Record(position, record))?;
                    continue;
                }
                Err(RecordError::Blank(_)) => return Ok(()),
                Err(_) if bytes[..8] == [0; 8] && newest => {
                    // Nothing was appended any more, unless something comes after all.
                    match self.resync(at)? {
                        None => return Ok(()),
                        Some(_) => "zeros".to_owned(),
                    }
                }
                Err(error) => error.to_string(),
            };
            let next = self.resync(at + 1)?;
            // A record that was being written when the broker died was not acknowledged.
            let end = next.unwrap_or(self.len);
            visit(Piece::Damage(position..self.start + end, problem))?;
            at = end;
        }
        Ok(())
    }

    /// Where the next record begins that says that it lies there.
    fn resync(&self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + 36 < self.len {
            let window = self.read(at, WINDOW_BYTES)?;
            let candidates = window.windows(36).enumerate();
            for (offset, bytes) in candidates {
                let [m0, m1, m2, m3] = [bytes[4], bytes[5], bytes[6], bytes[7]];
                if m0 != MAGIC_V1.to_be_bytes()[0] {
                    continue;
                }
                let magic = u32::from_be_bytes([m0, m1, m2, m3]);
                let place = bytes[28..36].try_into().map_or(0, u64::from_be_bytes);
                let position = at + offset as u64;
                if (magic == MAGIC_V1 || magic == MAGIC_V2) && place == self.start + position {
                    return Ok(Some(position));
                }
            }
            // What may begin at the window's end is looked at with the next one.
            at += (window.len() as u64).saturating_sub(35).max(1);
        }
        Ok(None)
    }
}
