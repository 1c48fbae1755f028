//! Background work: the log hands out what is to be done, the host runs it beside everything else.
//!
//! One job of a kind runs at a time. What runs out of space is tried again later; what fails otherwise stops the log.

use super::checkpoint::Checkpoint;
use super::segment::{SEGMENT_ALIGN, Segment, SegmentId};
use super::{Io, IoError, Log, LogFailure, LogOptions, Position, Slice};
use std::cell::Cell;
use std::rc::Rc;

/// Where a segment is prepared; an interrupted preparing leaves this name behind and is done again.
pub(super) const PREPARE_NAME: &str = "prepare.tmp";
/// Bytes that preparing writes at once.
const PREPARE_BYTES: usize = 1 << 20;
/// After running out of space, the next try is not before this.
const RETRY_MS: i64 = 1000;

/// How much preparing may get into the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Wait this long after each piece.
    Wait(u64),
    /// The segment is needed now: leave the rest reserved but unwritten.
    Finish,
}

/// A piece of background work: `job.run(&io).await`, then [`Log::job_done`] with what came of it.
pub struct Job(Work);

enum Work {
    Prepare {
        start: Position,
        len: u64,
        pace: Rc<Cell<Pace>>,
    },
    Checkpoint(Box<Checkpoint>),
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
}

impl Job {
    /// Runs the work.
    pub async fn run<I: Io>(self, io: &I) -> JobDone {
        JobDone(match self.0 {
            Work::Prepare { start, len, pace } => Done::Prepare {
                start,
                len,
                result: prepare(io, SegmentId(start), len, &pace).await,
            },
            Work::Checkpoint(checkpoint) => Done::Checkpoint {
                position: checkpoint.position,
                result: checkpoint.write(io).await,
            },
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
    let zeros = Slice::copied(&[], 1);
    let zeros = if len > 0 {
        super::AlignedBuffer::zeroed(PREPARE_BYTES.min(len as usize)).freeze()
    } else {
        zeros
    };
    let mut at = 0;
    while at < len {
        let Pace::Wait(wait_ms) = pace.get() else {
            break;
        };
        let part = zeros.slice(0..zeros.len().min((len - at) as usize));
        io.write_at(&file, at, &part).await?;
        at += part.len() as u64;
        if wait_ms > 0 {
            io.pause(wait_ms).await;
        }
    }
    io.sync(&file).await?;
    io.rename(PREPARE_NAME, &segment.file_name()).await?;
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
pub(super) struct Backlog {
    preparing: Option<Rc<Cell<Pace>>>,
    /// A snapshot that waits until the log is durable up to it.
    snapshot: Option<Box<Checkpoint>>,
    checkpointing: bool,
    /// Position of the newest snapshot that was taken.
    taken: Position,
    /// Position of the checkpoint on disk.
    pub checkpoint: Position,
    disk_full: bool,
    now_ms: i64,
    not_before_ms: i64,
}

impl Backlog {
    pub fn new(checkpoint: Position) -> Self {
        Self {
            preparing: None,
            snapshot: None,
            checkpointing: false,
            taken: checkpoint,
            checkpoint,
            disk_full: false,
            now_ms: 0,
            not_before_ms: i64::MIN,
        }
    }

    pub fn disk_is_full(&self) -> bool {
        self.disk_full
    }

    pub fn set_now(&mut self, now_ms: i64) {
        if now_ms < self.now_ms {
            self.not_before_ms = self.not_before_ms.min(now_ms + RETRY_MS);
        }
        self.now_ms = now_ms;
    }
}

impl Log {
    /// The next piece of background work; to be run beside everything else.
    pub fn next_job(&mut self) -> Option<Job> {
        if self.stopped || self.work.now_ms < self.work.not_before_ms {
            return None;
        }
        if self.work.preparing.is_none() && self.segments.ready.len() < self.options.segments_ahead
        {
            let (start, last) = self.segments.next_start();
            let pace = Rc::new(Cell::new(self.pace()));
            self.work.preparing = Some(pace.clone());
            return Some(Job(Work::Prepare {
                start,
                len: next_len(&self.options, last),
                pace,
            }));
        }
        if !self.work.checkpointing
            && let Some(snapshot) = self
                .work
                .snapshot
                .take_if(|snapshot| snapshot.position <= self.durable)
        {
            self.work.checkpointing = true;
            return Some(Job(Work::Checkpoint(snapshot)));
        }
        None
    }

    /// A job has ended.
    pub fn job_done(&mut self, done: JobDone) -> Result<(), LogFailure> {
        match done.0 {
            Done::Prepare { start, len, result } => {
                self.work.preparing = None;
                if self.settle("preparing a segment", result)? {
                    assert_eq!(
                        start,
                        self.segments.next_start().0,
                        "segments follow one another"
                    );
                    self.segments.ready.push_back(Segment::new(start, len));
                }
            }
            Done::Checkpoint { position, result } => {
                self.work.checkpointing = false;
                if self.settle("writing the checkpoint", result)? {
                    self.work.checkpoint = position;
                } else {
                    self.work.taken = self.work.checkpoint;
                }
            }
        }
        Ok(())
    }

    /// Whether the work was done; want of space is no failure, but makes all work wait.
    fn settle(
        &mut self,
        what: &'static str,
        result: Result<(), IoError>,
    ) -> Result<bool, LogFailure> {
        match result {
            Ok(()) => {
                self.work.disk_full = false;
                Ok(true)
            }
            Err(IoError::NoSpace { .. }) => {
                self.work.disk_full = true;
                self.work.not_before_ms = self.work.now_ms + RETRY_MS;
                Ok(false)
            }
            Err(cause) => {
                self.stop();
                Err(LogFailure::Job { what, cause })
            }
        }
    }

    /// Preparing waits the less the fuller the newest segment is.
    fn pace(&self) -> Pace {
        let newest = self.segments.newest();
        match (newest.limit() - newest.end.max(newest.start)) * 8 / newest.len {
            _ if !self.segments.ready.is_empty() => Pace::Wait(4),
            6.. => Pace::Wait(4),
            4.. => Pace::Wait(1),
            2.. => Pace::Wait(0),
            _ => Pace::Finish,
        }
    }

    /// Tells a running preparing how much time there is; called once a group.
    pub(super) fn set_pace(&self) {
        if let Some(pace) = &self.work.preparing {
            pace.set(self.pace());
        }
    }

    /// Whether enough was appended since the last snapshot.
    pub fn snapshot_due(&self) -> bool {
        !self.stopped
            && self.work.snapshot.is_none()
            && !self.work.checkpointing
            && self.open.end.saturating_sub(self.work.taken) >= self.options.snapshot_bytes
    }

    /// Takes the engine's state as of now, all records appended so far included, as [`StateWriter`](super::StateWriter)
    /// made it; becomes a job once those records are durable.
    pub fn snapshot(&mut self, state: Vec<u8>) {
        self.close_group();
        let position = self.open.end;
        self.work.taken = position;
        self.work.snapshot = Some(Box::new(Checkpoint {
            log_id: self.log_id,
            epoch: self.epoch,
            position,
            retired: self.retired,
            in_flight_bytes: self.options.in_flight_bytes(),
            newest_ms: self.newest_ms,
            queues: self.queues.save(),
            state,
        }));
    }
}
