//! The simulated disk: one directory.
//!
//! What it does that real disks may do: finishes operations in any order; at a crash, of what was not yet durable, keeps
//! any set of sectors of any writes, leaves anything at all in sectors that were being written, and keeps any prefix of the
//! directory's changes and either length of a file that grew. On request it fails operations, writes less than it was told,
//! runs full, turns read-only, is slow, flips bits, and loses files. What it never does: lose what was synced, or change a
//! byte that no write under way was to change.

use super::random::Random;
use crate::log::{AlignedBuffer, DiskSpace, Io, IoError, ReadBuffer, Slice};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// What a crash keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;

/// Errors to come.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Fail all operations that finish after so many others have, for each named kind ("write", "sync" ...).
    pub fail_after: BTreeMap<&'static str, u64>,
    /// What they fail with.
    pub cause: Cause,
    /// Bytes that all files together may reserve.
    pub capacity_bytes: Option<u64>,
    /// Each operation takes a time between these two, in milliseconds of [`SimDisk::set_now`].
    pub delay_ms: Option<(i64, i64)>,
}

/// Why an operation fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// EIO: of a write any part may be there.
    #[default]
    InputOutput,
    /// ENOSPC: nothing was done.
    NoSpace,
    /// EROFS: nothing was done.
    ReadOnly,
    /// A write ended before its end, at a sector.
    Short,
}

impl Faults {
    /// The file system is read-only from now on.
    pub fn read_only() -> Self {
        let kinds = ["write", "create", "rename", "remove", "sync"];
        Self {
            fail_after: kinds.into_iter().map(|kind| (kind, 0)).collect(),
            cause: Cause::ReadOnly,
            ..Self::default()
        }
    }

    fn error(&self, kind: &str) -> IoError {
        let op = kind.to_owned();
        let cause = match self.cause {
            Cause::NoSpace => return IoError::NoSpace { op },
            Cause::InputOutput => "input/output error",
            Cause::ReadOnly => "read-only file system",
            Cause::Short => "only a part was written",
        };
        let cause = cause.to_owned();
        IoError::Failed { op, cause }
    }
}

#[derive(Debug)]
struct Unsynced {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct SimFile {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Writes that reached the disk's cache, and writes that are still on their way.
    unsynced: BTreeMap<u64, Unsynced>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

fn apply(names: &mut BTreeMap<String, u64>, change: Change) {
    match change {
        Change::Link(name, file) => {
            names.insert(name, file);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(&from) {
                names.insert(to, file);
            }
        }
        Change::Unlink(name) => {
            names.remove(&name);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Plain,
    Write { file: u64, durable: bool },
    Sync { file: u64 },
    SyncDir { changes: usize },
    Pause,
}

#[derive(Clone, Debug)]
struct Running {
    kind: &'static str,
    op: Op,
    /// It finishes no sooner.
    ready_ms: i64,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    changes: Vec<Change>,
    /// Operations that have not finished.
    running: BTreeMap<u64, Running>,
    now_ms: i64,
    /// Results that nobody has taken yet.
    finished: BTreeMap<u64, Result<(), IoError>>,
    next_id: u64,
    /// Counts crashes: futures of an earlier life never finish.
    life: u64,
    steps: u64,
    crash_after: Option<u64>,
    crashed: bool,
    faults: Faults,
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
    random: Rc<RefCell<Random>>,
}

/// A view of the disk for one life of its user, between two crashes.
#[derive(Clone)]
pub struct SimIo {
    disk: SimDisk,
    life: u64,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct SimHandle(u64, Rc<str>);

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Rc::default(),
            random: Rc::new(RefCell::new(Random::new(seed))),
        }
    }

    /// Access until the next crash.
    pub fn io(&self) -> SimIo {
        SimIo {
            disk: self.clone(),
            life: self.state.borrow().life,
        }
    }

    /// Lets one operation finish. False when none is running, or after a crash.
    pub fn step(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if state.crashed || state.running.is_empty() {
            return false;
        }
        if state.crash_after.is_some_and(|after| state.steps >= after) {
            state.crashed = true;
            return false;
        }
        let now_ms = state.now_ms;
        let ready = |running: &&Running| running.ready_ms <= now_ms;
        let count = state.running.values().filter(ready).count();
        if count == 0 {
            return false;
        }
        let at = self.random.borrow_mut().below(count);
        let mut ready = state.running.iter().filter(|(_, running)| ready(running));
        let Some(id) = ready.nth(at).map(|(id, _)| *id) else {
            return false;
        };
        state.steps += 1;
        state.finish(id, &mut self.random.borrow_mut());
        true
    }

    /// The time that slow operations go by; it never goes back.
    pub fn set_now(&self, now_ms: i64) {
        let mut state = self.state.borrow_mut();
        state.now_ms = state.now_ms.max(now_ms);
    }

    /// When the next operation may finish, if one is under way.
    pub fn next_ready_ms(&self) -> Option<i64> {
        let state = self.state.borrow();
        state.running.values().map(|running| running.ready_ms).min()
    }

    /// Operations that have finished since the disk was made.
    pub fn steps(&self) -> u64 {
        self.state.borrow().steps
    }

    /// Crashes by itself when so many operations have finished since the disk was made.
    pub fn crash_after(&self, steps: Option<u64>) {
        self.state.borrow_mut().crash_after = steps;
    }

    /// Whether it has crashed by itself.
    pub fn has_crashed(&self) -> bool {
        self.state.borrow().crashed
    }

    /// Loses what need not survive, and starts again without faults.
    pub fn crash(&self) {
        let mut random = self.random.borrow_mut();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        for file in state.files.values_mut() {
            file.crash(&mut random);
        }
        let kept = random.below(state.changes.len() + 1);
        for change in state.changes.drain(..).take(kept) {
            apply(&mut state.durable_names, change);
        }
        state.names = state.durable_names.clone();
        let names = &state.names;
        state
            .files
            .retain(|id, _| names.values().any(|named| named == id));
        state.running.clear();
        state.finished.clear();
        state.faults = Faults::default();
        state.life += 1;
        state.crashed = false;
        state.crash_after = None;
    }

    /// Errors to come, in place of those set before.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    /// Flips one bit of what is on disk.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        self.edit(name, |bytes| bytes[(bit / 8) as usize] ^= 1 << (bit % 8));
    }

    /// Changes what is on disk.
    pub fn edit(&self, name: &str, edit: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state.borrow_mut();
        let id = state.names[name];
        if let Some(file) = state.files.get_mut(&id) {
            edit(&mut file.content);
            edit(&mut file.durable);
        }
    }

    /// Takes a file away, as if it had never been.
    pub fn vanish(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Takes over what is durable on another disk.
    pub fn copy_from(&self, other: &SimDisk) {
        let other = other.state.borrow();
        let mut state = self.state.borrow_mut();
        state.next_id = other.next_id;
        state.names = other.durable_names.clone();
        state.durable_names = other.durable_names.clone();
        let copy = |file: &SimFile| SimFile {
            content: file.durable.clone(),
            durable: file.durable.clone(),
            unsynced: BTreeMap::new(),
        };
        state.files = other
            .files
            .iter()
            .map(|(id, file)| (*id, copy(file)))
            .collect();
    }

    /// Length of a file.
    pub fn len(&self, name: &str) -> usize {
        let state = self.state.borrow();
        state
            .names
            .get(name)
            .and_then(|id| state.files.get(id))
            .map_or(0, |file| file.content.len())
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        self.state.borrow().names.keys().cloned().collect()
    }
}

impl SimFile {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.content, offset, bytes);
    }

    fn sync(&mut self, running: &BTreeMap<u64, Running>) {
        // Writes that are still on their way are not covered.
        let done: Vec<u64> = self
            .unsynced
            .keys()
            .copied()
            .filter(|id| !running.contains_key(id))
            .collect();
        self.durable.resize(self.content.len(), 0);
        for id in done {
            if let Some(write) = self.unsynced.remove(&id) {
                put(&mut self.durable, write.offset, &write.bytes);
            }
        }
    }

    fn crash(&mut self, random: &mut Random) {
        let len = if random.one_in(2) {
            self.content.len()
        } else {
            self.durable.len()
        };
        for (_, write) in std::mem::take(&mut self.unsynced) {
            let luck = random.below(5);
            for (at, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                let kept = match luck {
                    0 => false,
                    1 => true,
                    _ => random.one_in(2),
                };
                let offset = write.offset + at * SECTOR_BYTES;
                if luck == 4 && random.one_in(4) {
                    let torn: Vec<u8> = (0..SECTOR_BYTES / 8)
                        .flat_map(|_| random.next_u64().to_le_bytes())
                        .collect();
                    put(&mut self.durable, offset, &torn);
                } else if kept {
                    put(&mut self.durable, offset, sector);
                }
            }
        }
        self.durable.resize(len, 0);
        self.content = self.durable.clone();
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl State {
    fn finish(&mut self, id: u64, random: &mut Random) {
        let Some(Running { kind, op, .. }) = self.running.remove(&id) else {
            return;
        };
        let mut result = Ok(());
        if let Some(left) = self.faults.fail_after.get_mut(kind) {
            let fails = *left == 0;
            *left = left.saturating_sub(1);
            if fails {
                result = Err(self.faults.error(kind));
                self.fail_write(id, &op, random);
            }
        }
        if result.is_ok() {
            match op {
                Op::Write { file, durable } => {
                    if let Some(target) = self.files.get_mut(&file)
                        && let Some(write) = target.unsynced.get(&id)
                    {
                        let (offset, bytes) = (write.offset, write.bytes.clone());
                        target.write(offset, &bytes);
                        if durable {
                            put(&mut target.durable, offset, &bytes);
                            target.unsynced.remove(&id);
                        }
                    }
                }
                Op::Sync { file } => {
                    if let Some(target) = self.files.get_mut(&file) {
                        target.sync(&self.running);
                    }
                }
                Op::SyncDir { changes } => {
                    let changes = changes.min(self.changes.len());
                    for change in self.changes.drain(..changes) {
                        apply(&mut self.durable_names, change);
                    }
                }
                Op::Plain | Op::Pause => {}
            }
        }
        self.finished.insert(id, result);
    }

    /// What a write leaves behind that fails.
    fn fail_write(&mut self, id: u64, op: &Op, random: &mut Random) {
        let Op::Write { file, durable } = *op else {
            return;
        };
        let Some(target) = self.files.get_mut(&file) else {
            return;
        };
        match self.faults.cause {
            Cause::InputOutput => {}
            Cause::NoSpace | Cause::ReadOnly => drop(target.unsynced.remove(&id)),
            Cause::Short => {
                let Some(write) = target.unsynced.get_mut(&id) else {
                    return;
                };
                let sectors = random.below(write.bytes.len() / SECTOR_BYTES);
                write.bytes.truncate(sectors * SECTOR_BYTES);
                let (offset, bytes) = (write.offset, write.bytes.clone());
                target.write(offset, &bytes);
                if durable {
                    put(&mut target.durable, offset, &bytes);
                    target.unsynced.remove(&id);
                }
            }
        }
    }

    fn reserved_bytes(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.files.get(id))
            .map(|file| file.content.len() as u64)
            .sum()
    }
}

impl SimIo {
    /// Begins an operation and waits until the disk lets it finish; for ever, after a crash.
    async fn run(&self, kind: &'static str, op: Op) -> Result<(), IoError> {
        let id = self.start(kind, op);
        self.wait(id).await
    }

    fn start(&self, kind: &'static str, op: Op) -> u64 {
        let mut state = self.disk.state.borrow_mut();
        let id = state.next_id;
        state.next_id += 1;
        if state.life == self.life {
            let delay_ms = state.faults.delay_ms.map_or(0, |(least, most)| {
                let spread = (most - least) as usize + 1;
                least + self.disk.random.borrow_mut().below(spread) as i64
            });
            let ready_ms = state.now_ms + delay_ms;
            state.running.insert(id, Running { kind, op, ready_ms });
        }
        id
    }

    async fn wait(&self, id: u64) -> Result<(), IoError> {
        poll_fn(|_| {
            let mut state = self.disk.state.borrow_mut();
            if state.life != self.life {
                return Poll::Pending;
            }
            state
                .finished
                .remove(&id)
                .map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    async fn write(
        &self,
        file: &SimHandle,
        offset: u64,
        bytes: &Slice,
        durable: bool,
    ) -> Result<(), IoError> {
        assert!(
            offset.is_multiple_of(SECTOR_BYTES as u64) && bytes.len().is_multiple_of(SECTOR_BYTES),
            "unaligned write"
        );
        let id = self.start(
            "write",
            Op::Write {
                file: file.0,
                durable,
            },
        );
        {
            let mut state = self.disk.state.borrow_mut();
            if state.life == self.life
                && let Some(target) = state.files.get_mut(&file.0)
            {
                target.unsynced.insert(
                    id,
                    Unsynced {
                        offset: offset as usize,
                        bytes: bytes.to_vec(),
                    },
                );
            }
        }
        self.wait(id).await
    }

    /// A write that is durable when it has finished.
    pub async fn write_durable(
        &self,
        file: &SimHandle,
        offset: u64,
        bytes: &Slice,
    ) -> Result<(), IoError> {
        self.write(file, offset, bytes, true).await
    }

    fn change(&self, change: Change) {
        let mut state = self.disk.state.borrow_mut();
        if state.life == self.life {
            apply(&mut state.names, change.clone());
            state.changes.push(change);
        }
    }
}

impl Io for SimIo {
    type File = SimHandle;

    async fn list(&self) -> Result<Vec<(String, u64)>, IoError> {
        self.run("list", Op::Plain).await?;
        let state = self.disk.state.borrow();
        let len = |id: &u64| {
            state
                .files
                .get(id)
                .map_or(0, |file| file.content.len() as u64)
        };
        Ok(state
            .names
            .iter()
            .map(|(name, id)| (name.clone(), len(id)))
            .collect())
    }

    async fn open(&self, name: &str) -> Result<SimHandle, IoError> {
        self.run("open", Op::Plain).await?;
        let state = self.disk.state.borrow();
        let id = state.names.get(name).ok_or_else(|| IoError::NotFound {
            op: format!("open {name}"),
        })?;
        Ok(SimHandle(*id, Rc::from(name)))
    }

    async fn create(&self, name: &str, len: u64) -> Result<SimHandle, IoError> {
        self.run("create", Op::Plain).await?;
        let id = {
            let mut state = self.disk.state.borrow_mut();
            if state
                .faults
                .capacity_bytes
                .is_some_and(|capacity| state.reserved_bytes() + len > capacity)
            {
                return Err(IoError::NoSpace {
                    op: format!("create {name}"),
                });
            }
            let id = state.next_id;
            state.next_id += 1;
            let file = SimFile {
                content: vec![0; len as usize],
                ..SimFile::default()
            };
            state.files.insert(id, file);
            id
        };
        self.change(Change::Link(name.to_string(), id));
        Ok(SimHandle(id, Rc::from(name)))
    }

    async fn read_at(
        &self,
        file: &SimHandle,
        offset: u64,
        len: usize,
    ) -> Result<ReadBuffer, IoError> {
        self.run("read", Op::Plain).await?;
        let state = self.disk.state.borrow();
        let Some(file) = state.files.get(&file.0) else {
            return Err(IoError::NotFound {
                op: format!("read {}", file.1),
            });
        };
        let from = (offset as usize).min(file.content.len());
        let to = (from + len).min(file.content.len());
        let mut buffer = AlignedBuffer::zeroed(to - from);
        buffer.copy_from_slice(&file.content[from..to]);
        Ok(buffer.freeze())
    }

    async fn write_at(&self, file: &SimHandle, offset: u64, bytes: &Slice) -> Result<(), IoError> {
        self.write(file, offset, bytes, false).await
    }

    async fn sync(&self, file: &SimHandle) -> Result<(), IoError> {
        self.run("sync", Op::Sync { file: file.0 }).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), IoError> {
        self.run("rename", Op::Plain).await?;
        if !self.disk.state.borrow().names.contains_key(from) {
            return Err(IoError::NotFound {
                op: format!("rename {from}"),
            });
        }
        self.change(Change::Rename(from.to_string(), to.to_string()));
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), IoError> {
        self.run("remove", Op::Plain).await?;
        self.change(Change::Unlink(name.to_string()));
        Ok(())
    }

    async fn sync_dir(&self) -> Result<(), IoError> {
        let changes = self.disk.state.borrow().changes.len();
        self.run("sync_dir", Op::SyncDir { changes }).await
    }

    async fn space(&self) -> Result<DiskSpace, IoError> {
        self.run("space", Op::Plain).await?;
        let state = self.disk.state.borrow();
        let total_bytes = state.faults.capacity_bytes.unwrap_or(1 << 50);
        Ok(DiskSpace {
            free_bytes: total_bytes.saturating_sub(state.reserved_bytes()),
            total_bytes,
        })
    }

    async fn pause(&self, _wait_ms: u64) {
        let _ = self.run("pause", Op::Pause).await;
    }

    fn random(&self) -> u64 {
        self.disk.random.borrow_mut().next_u64()
    }
}
