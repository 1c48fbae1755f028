//! Background work: the log hands out what is to be done, the host runs it beside everything else.
//!
//! One job of a kind runs at a time. What runs out of space is tried again later; what fails otherwise stops the log.

use super::births::Births;
use super::checkpoint::Checkpoint;
use super::hole::{Hole, kept};
use super::index::Meta;
use super::merge::merge;
use super::seal::{Building, Run, SealError, seal};
use super::segment::{Index, IndexId, SEGMENT_ALIGN, Segment, SegmentId};
use super::{AlignedBuffer, DiskSpace, Io, IoError, Log, LogFailure, LogOptions, Position};
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// Where a segment is prepared; an interrupted preparing leaves this name behind and is done again.
pub(super) const PREPARE_NAME: &str = "prepare.tmp";
/// Bytes that preparing writes at once: while there is time, little for a commit to wait for.
const PREPARE_BYTES: u64 = 256 << 10;
/// The same while preparing is late.
const PREPARE_LATE_BYTES: u64 = 1 << 20;
/// Between two writes of a preparing that is not late.
const PREPARE_WAIT_MS: u64 = 4;
/// Between two slices of building an index again, so that each commit does not wait for one.
const SEAL_WAIT_MS: u64 = 1;
/// After running out of space, the next try is not before this.
const RETRY_MS: i64 = 1000;
/// How often the space of the file system is looked at.
const SPACE_MS: i64 = 5000;
/// Rows of an index that queues take over in one turn.
const ROWS_PER_TURN: usize = 512;

/// How fast preparing has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As fast as it can be.
    Now,
    /// So much of the room that there was when it began is filled, in percent; it should be over well before all is.
    Filled(u8),
    /// The segment is needed now: leave the rest reserved but unwritten.
    Finish,
}

impl Pace {
    /// Whether a preparing that has written `at` of `len` bytes is late: it is to be over when five eighths of the room are
    /// filled.
    fn is_late(self, at: u64, len: u64) -> bool {
        match self {
            Pace::Now => true,
            Pace::Filled(percent) => at * 500 < len * u64::from(percent) * 8,
            Pace::Finish => false,
        }
    }
}

/// A piece of background work: `job.run(&io).await`, then [`Log::job_done`] with what came of it.
pub struct Job(Work);

enum Work {
    Prepare {
        start: Position,
        len: u64,
        pace: Rc<Cell<Pace>>,
    },
    Recycle {
        old: SegmentId,
        start: Position,
        len: u64,
    },
    Checkpoint(Box<Checkpoint>),
    /// From the segment.
    Seal {
        log_id: u64,
        run: Run,
        holes: Vec<Hole>,
        births: Births,
    },
    /// From what was gathered.
    Index {
        log_id: u64,
        run: Run,
        building: Box<Building>,
    },
    /// Of the indexes of a segment.
    Merge {
        log_id: u64,
        segment: Position,
        indexes: Vec<Index>,
        births: Births,
    },
    Remove(Vec<String>),
    Space,
}

/// What came of a job.
pub struct JobDone(Done);

enum Done {
    Prepare {
        start: Position,
        len: u64,
        result: Result<(), IoError>,
    },
    Checkpoint {
        position: Position,
        result: Result<(), IoError>,
    },
    Seal(Result<Box<Meta>, SealError>),
    Remove(Result<(), IoError>),
    Space(Result<DiskSpace, IoError>),
}

impl Job {
    /// What kind of work it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self.0 {
            Work::Prepare { .. } => "prepare",
            Work::Recycle { .. } => "recycle",
            Work::Checkpoint(_) => "checkpoint",
            Work::Seal { .. } => "seal",
            Work::Index { .. } => "index",
            Work::Merge { .. } => "merge",
            Work::Remove(_) => "remove",
            Work::Space => "space",
        }
    }

    /// Runs the work.
    pub async fn run<I: Io>(self, io: &I) -> JobDone {
        JobDone(match self.0 {
            Work::Prepare { start, len, pace } => Done::Prepare {
                start,
                len,
                result: prepare(io, SegmentId(start), len, &pace).await,
            },
            Work::Recycle { old, start, len } => Done::Prepare {
                start,
                len,
                result: rename(io, &old.file_name(), &SegmentId(start).file_name()).await,
            },
            Work::Checkpoint(checkpoint) => Done::Checkpoint {
                position: checkpoint.position,
                result: checkpoint.write(io).await,
            },
            Work::Seal {
                log_id,
                run,
                holes,
                births,
            } => {
                let sealed = seal(io, log_id, run, &holes, births, SEAL_WAIT_MS).await;
                Done::Seal(sealed.map(Box::new))
            }
            Work::Index {
                log_id,
                run,
                building,
            } => {
                let sealed = building.finish(io, log_id, run.id).await;
                Done::Seal(sealed.map(Box::new))
            }
            Work::Merge {
                log_id,
                segment,
                indexes,
                births,
            } => {
                let merged = merge(io, log_id, segment, &indexes, &births).await;
                Done::Seal(merged.map(Box::new))
            }
            Work::Remove(names) => Done::Remove(remove(io, &names).await),
            Work::Space => Done::Space(io.space().await),
        })
    }
}

/// Makes a segment file, written from end to end unless the pace turns to `Finish`. It has its name only when it is whole.
pub(super) async fn prepare<I: Io>(
    io: &I,
    segment: SegmentId,
    len: u64,
    pace: &Cell<Pace>,
) -> Result<(), IoError> {
    let file = io.create(PREPARE_NAME, len).await?;
    let zeros = AlignedBuffer::zeroed(PREPARE_LATE_BYTES.min(len) as usize).freeze();
    let mut at = 0;
    while at < len && pace.get() != Pace::Finish {
        let late = pace.get().is_late(at, len);
        let most = if late {
            PREPARE_LATE_BYTES
        } else {
            PREPARE_BYTES
        };
        let part = zeros.slice(0..most.min(len - at) as usize);
        io.write_at(&file, at, &part).await?;
        at += part.len() as u64;
        if !late {
            io.pause(PREPARE_WAIT_MS).await;
        }
    }
    io.sync(&file).await?;
    rename(io, PREPARE_NAME, &segment.file_name()).await
}

async fn rename<I: Io>(io: &I, from: &str, to: &str) -> Result<(), IoError> {
    io.rename(from, to).await?;
    io.sync_dir().await
}

async fn remove<I: Io>(io: &I, names: &[String]) -> Result<(), IoError> {
    for name in names {
        io.remove(name).await?;
    }
    io.sync_dir().await
}

/// Length of the segment after one of `last` bytes: twice as long, up to what is asked for.
pub(super) fn next_len(options: &LogOptions, last: u64) -> u64 {
    last.saturating_mul(2)
        .max(options.first_segment_bytes)
        .min(options.segment_bytes)
        .next_multiple_of(SEGMENT_ALIGN)
}

/// What is to be done, is being done, and must wait.
#[derive(Default)]
pub(super) struct Backlog {
    /// The pace of a running preparing, and the room that there was when it began.
    preparing: Option<(Rc<Cell<Pace>>, u64)>,
    /// A snapshot that waits until the log is durable up to it.
    snapshot: Option<Box<Checkpoint>>,
    checkpointing: bool,
    /// The checkpoint keeps a segment that is to go.
    pub checkpoint_wanted: bool,
    /// Position of the newest snapshot that was taken.
    taken: Position,
    /// Position of the checkpoint on disk.
    pub checkpoint: Position,
    /// The index that is being built.
    sealing: Option<Sealing>,
    /// Groups that were gathered, but there was no space for their index.
    unwritten: Option<Run>,
    /// An index that queues are taking over, and the row that is next.
    installing: Option<(Box<Meta>, usize)>,
    /// See [`Log::take_given_up`].
    given_up: usize,
    /// Indexes that are to be built again.
    unsound: BTreeSet<IndexId>,
    /// Retired files with their lengths: to be used again, or removed.
    pub spare: VecDeque<(SegmentId, u64)>,
    /// Files to be removed.
    pub unwanted: Vec<String>,
    removing: bool,
    measuring: bool,
    measured_ms: Option<i64>,
    /// What was seen of the file system last.
    pub space: Option<DiskSpace>,
    pub disk_full: bool,
    pub now_ms: i64,
    not_before_ms: Option<i64>,
}

/// An index that is being built.
#[derive(Clone, Copy, Debug)]
enum Sealing {
    /// Of groups that are in none.
    First(Run),
    /// Of groups that are in one of the same name.
    Again(Run),
    /// Of a segment that has several.
    Merge(Position),
}

impl Backlog {
    pub fn new(checkpoint: Position) -> Self {
        Self {
            taken: checkpoint,
            checkpoint,
            ..Self::default()
        }
    }

    pub fn set_now(&mut self, now_ms: i64) {
        if now_ms < self.now_ms {
            self.measured_ms = None;
            self.not_before_ms = None;
        }
        self.now_ms = now_ms;
    }

    /// Whether the newest snapshot is the checkpoint on disk.
    pub fn taken_is_written(&self) -> bool {
        self.taken == self.checkpoint
    }

    /// Has an index built again.
    pub fn rebuild(&mut self, index: IndexId) {
        self.unsound.insert(index);
    }

    /// What is retired need not be built again.
    pub fn forget_unsound_before(&mut self, position: Position) {
        self.unsound = self.unsound.split_off(&IndexId::whole(position));
        self.unwritten = self.unwritten.filter(|run| run.segment >= position);
    }

    /// Whether the index of a segment before `position` is being built.
    pub fn seals_before(&self, position: Position) -> bool {
        self.sealing.is_some_and(|sealing| match sealing {
            Sealing::First(run) | Sealing::Again(run) => run.segment < position,
            Sealing::Merge(segment) => segment < position,
        })
    }

    /// Percentage of the file system that is used.
    pub fn used_percent(&self) -> u8 {
        let Some(space) = self.space else { return 0 };
        let used = space.total_bytes.saturating_sub(space.free_bytes);
        (used as u128 * 100 / u128::from(space.total_bytes.max(1))) as u8
    }
}

impl Log {
    /// Says what time it is, for background work that waits for its time. To be called in every turn.
    pub fn set_now(&mut self, now_ms: i64) {
        self.work.set_now(now_ms);
    }

    /// The next piece of background work; to be run beside everything else. To be called until `None` at the end of a turn.
    pub fn next_job(&mut self) -> Option<Job> {
        if self.stopped {
            return None;
        }
        self.install_rows();
        self.retire();
        let work = self.next_removal().or_else(|| self.next_measuring());
        if work.is_none()
            && self
                .work
                .not_before_ms
                .is_some_and(|at_ms| self.work.now_ms < at_ms)
        {
            return None;
        }
        work.or_else(|| self.next_preparing())
            .or_else(|| self.next_checkpoint())
            .or_else(|| self.next_sealing())
            .map(Job)
    }

    fn next_preparing(&mut self) -> Option<Work> {
        if self.work.preparing.is_some() || self.segments.ready.len() >= self.options.segments_ahead
        {
            return None;
        }
        let pace = Rc::new(Cell::new(Pace::Filled(0)));
        self.work.preparing = Some((pace.clone(), self.room()));
        let (start, last) = self.segments.next_start();
        let len = next_len(&self.options, last);
        let fitting = self.work.spare.iter().position(|&(_, spare)| spare == len);
        Some(match fitting.and_then(|at| self.work.spare.remove(at)) {
            Some((old, len)) => Work::Recycle { old, start, len },
            None => Work::Prepare { start, len, pace },
        })
    }

    fn next_checkpoint(&mut self) -> Option<Work> {
        if self.work.checkpointing {
            return None;
        }
        let snapshot = self
            .work
            .snapshot
            .take_if(|snapshot| snapshot.position <= self.durable)?;
        self.work.checkpointing = true;
        Some(Work::Checkpoint(snapshot))
    }

    /// Indexes of runs in the order of the log, for queues take them over in their order.
    fn next_sealing(&mut self) -> Option<Work> {
        if self.work.sealing.is_some() || self.work.installing.is_some() {
            return None;
        }
        let log_id = self.log_id;
        while let Some(id) = self.work.unsound.pop_first() {
            if let Some(run) = self.run_of(id) {
                return Some(self.seal(run, Sealing::Again(run)));
            }
        }
        if let Some(run) = self.work.unwritten.take() {
            return Some(self.seal(run, Sealing::First(run)));
        }
        let oldest = self.segments.oldest_start();
        if let Some((run, building)) = self.gather.finished(oldest, self.durable) {
            self.work.sealing = Some(Sealing::First(run));
            return Some(Work::Index {
                log_id,
                run,
                building: Box::new(building),
            });
        }
        let most = self.options.index_rows;
        let full = self.segments.list.len() - 1;
        let mut sealed = self.segments.list.iter().take(full);
        let many = sealed.find(|segment| {
            let rows = segment.indexes.iter().map(|index| u64::from(index.rows));
            segment.indexes.len() > 1 && segment.is_sealed() && rows.sum::<u64>() > most
        })?;
        self.work.sealing = Some(Sealing::Merge(many.start));
        Some(Work::Merge {
            log_id,
            segment: many.start,
            indexes: many.indexes.clone(),
            births: self.queues.births(many.start..many.limit()),
        })
    }

    fn seal(&mut self, run: Run, sealing: Sealing) -> Work {
        self.work.sealing = Some(sealing);
        Work::Seal {
            log_id: self.log_id,
            run,
            holes: self.holes.clone(),
            births: self.queues.births(run.segment..run.segment + run.len),
        }
    }

    /// The groups that an index is of, unless it is gone.
    fn run_of(&self, id: IndexId) -> Option<Run> {
        let segment = self.segments.at(id.start())?;
        let index = segment.index(id)?;
        Some(Run {
            id,
            segment: segment.start,
            len: segment.len,
            end: index.end,
        })
    }

    fn next_removal(&mut self) -> Option<Work> {
        while self.work.spare.len() > self.options.segments_ahead
            || (self.work.disk_full && !self.work.spare.is_empty())
        {
            let (spare, _) = self.work.spare.pop_front()?;
            self.work.unwanted.push(spare.file_name());
        }
        if self.work.removing || self.work.unwanted.is_empty() {
            return None;
        }
        self.work.removing = true;
        Some(Work::Remove(std::mem::take(&mut self.work.unwanted)))
    }

    fn next_measuring(&mut self) -> Option<Work> {
        let due = self
            .work
            .measured_ms
            .is_none_or(|at_ms| self.work.now_ms >= at_ms + SPACE_MS);
        if self.work.measuring || !due {
            return None;
        }
        (self.work.measuring, self.work.measured_ms) = (true, Some(self.work.now_ms));
        Some(Work::Space)
    }

    /// A job has ended.
    pub fn job_done(&mut self, done: JobDone) -> Result<(), LogFailure> {
        match done.0 {
            Done::Prepare { start, len, result } => {
                self.work.preparing = None;
                if self.settle("preparing a segment", result)?.is_some() {
                    assert_eq!(
                        start,
                        self.segments.next_start().0,
                        "segments follow one another"
                    );
                    self.segments.ready.push_back(Segment::new(start, len));
                    self.work.disk_full = false;
                    // So much less is free now.
                    self.work.measured_ms = None;
                }
            }
            Done::Checkpoint { position, result } => {
                self.work.checkpointing = false;
                match self.settle("writing the checkpoint", result)? {
                    Some(()) => self.work.checkpoint = position,
                    None => self.work.taken = self.work.checkpoint,
                }
            }
            Done::Seal(result) => {
                let sealing = self.work.sealing.take();
                self.sealed(sealing, result)?;
            }
            Done::Remove(result) => {
                self.work.removing = false;
                self.settle("removing retired files", result)?;
            }
            Done::Space(result) => {
                self.work.measuring = false;
                self.work.space = self.settle("looking at the file system", result)?;
                self.refuses = self.is_above_refusal();
            }
        }
        Ok(())
    }

    fn sealed(
        &mut self,
        sealing: Option<Sealing>,
        result: Result<Box<Meta>, SealError>,
    ) -> Result<(), LogFailure> {
        match (result, sealing) {
            (Ok(meta), Some(Sealing::Again(_))) => self.cold.forget_index(meta.id),
            (Ok(meta), Some(sealing)) => {
                if let Some(segment) = self.segments.containing(meta.id.start()) {
                    match sealing {
                        Sealing::Merge(_) => segment.merged = Some(Index::of(&meta)),
                        _ => segment.add_index(Index::of(&meta)),
                    }
                    self.work.installing = Some((meta, 0));
                }
            }
            (Err(SealError::Io(cause)), sealing) => {
                self.settle::<()>("building an index", Err(cause))?;
                match sealing {
                    Some(Sealing::First(run)) => self.work.unwritten = Some(run),
                    Some(Sealing::Again(run)) => self.work.rebuild(run.id),
                    Some(Sealing::Merge(_)) | None => {}
                }
            }
            (Err(SealError::Unsound(id)), _) => self.work.rebuild(id),
            (Err(SealError::Damaged(position)), _) => {
                self.stop();
                return Err(LogFailure::Damaged { position });
            }
            (Ok(_), None) => {}
        }
        Ok(())
    }

    /// What the work brought; want of space is no failure, but makes most work wait.
    fn settle<T>(
        &mut self,
        what: &'static str,
        result: Result<T, IoError>,
    ) -> Result<Option<T>, LogFailure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(IoError::NoSpace { .. }) => {
                self.work.disk_full = true;
                self.work.not_before_ms = Some(self.work.now_ms + RETRY_MS);
                Ok(None)
            }
            Err(cause) => {
                self.stop();
                Err(LogFailure::Job { what, cause })
            }
        }
    }

    /// Moves entries from memory to their index, or parts to the one that takes the place of several, some queues at a time.
    fn install_rows(&mut self) {
        let Some((meta, next)) = &mut self.work.installing else {
            return;
        };
        let Some(segment) = self.segments.containing(meta.id.start()) else {
            unreachable!("a segment does not go while queues take its index over")
        };
        let merges = segment.merged.is_some();
        let end = meta.rows.len().min(*next + ROWS_PER_TURN);
        let rows = &meta.rows[*next..end];
        let found = self.queues.find_all(rows);
        *next = end;
        for (row, queue) in rows.iter().zip(found) {
            if let Some(queue) = queue {
                let queue = self.queues.get_mut(queue);
                let taken = match merges {
                    true => queue.take_merged(meta.id, row),
                    false => queue.take_row(meta.id, row, false),
                };
                assert!(
                    taken || !queue.owns(row.position),
                    "an index tells what was known"
                );
            }
        }
        if *next < meta.rows.len() {
            return;
        }
        if merges || meta.id.is_whole() {
            self.work.given_up += *next;
        }
        self.work.installing = None;
        if let Some(merged) = segment.merged.take() {
            let old = std::mem::replace(&mut segment.indexes, vec![merged]);
            for index in old {
                self.cold.forget_index(index.id);
                self.work.unwanted.push(index.id.file_name());
            }
            self.keys.begin_again();
        }
    }

    /// How many times queues gave up the room of their entries in memory, since this was asked last.
    pub fn take_given_up(&mut self) -> usize {
        std::mem::take(&mut self.work.given_up)
    }

    /// Whether queues are still taking over an index.
    pub(super) fn is_installing(&self) -> bool {
        self.work.installing.is_some()
    }

    /// Bytes that can be appended before a segment is needed that is not ready.
    fn room(&self) -> u64 {
        let newest = self.segments.newest();
        let ready: u64 = self.segments.ready.iter().map(|next| next.len).sum();
        newest.limit() - newest.end.max(newest.start) + ready
    }

    /// Tells a running preparing how much time there is; called once a group.
    pub(super) fn set_pace(&self) {
        let Some((pace, room)) = &self.work.preparing else {
            return;
        };
        let filled = room.saturating_sub(self.room()) * 100 / (*room).max(1);
        pace.set(match filled {
            75.. if self.segments.ready.is_empty() => Pace::Finish,
            percent => Pace::Filled(percent as u8),
        });
    }

    /// Whether enough was appended since the last snapshot, or damage was passed over that none knows of.
    pub fn snapshot_due(&self) -> bool {
        let is_far = self.open.end.saturating_sub(self.work.taken) >= self.options.snapshot_bytes;
        !self.stopped
            && self.work.snapshot.is_none()
            && !self.work.checkpointing
            && (self.work.checkpoint_wanted
                || is_far
                || self.holes.iter().any(|hole| !hole.settled))
    }

    /// Takes the engine's state as of now, all records appended so far included, as [`StateWriter`](super::StateWriter)
    /// made it; becomes a job once those records are durable.
    pub fn snapshot(&mut self, state: Vec<u8>) {
        self.close_group();
        let position = self.open.end;
        self.work.taken = position;
        self.work.checkpoint_wanted = false;
        let retired = self.retired_as_recorded();
        self.holes = kept(&self.holes, retired);
        self.work.snapshot = Some(Box::new(Checkpoint {
            log_id: self.log_id,
            epoch: self.epoch,
            position,
            retired,
            in_flight_bytes: self.options.in_flight_bytes(),
            newest_ms: self.newest_ms,
            queues: self.queues.save(),
            state,
            holes: self.holes.clone(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparing_is_late_where_it_would_not_be_over_before_five_eighths() {
        assert!(!Pace::Filled(0).is_late(0, 800));
        assert!(Pace::Filled(1).is_late(0, 800));
        assert!(Pace::Filled(50).is_late(639, 800));
        assert!(!Pace::Filled(50).is_late(640, 800));
        assert!(Pace::Filled(63).is_late(800, 800) && Pace::Now.is_late(799, 800));
    }
}
