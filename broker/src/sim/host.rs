//! What runs a log on a simulated disk: a poll of all tasks after each step of the disk.

use super::disk::{SimDisk, SimIo};
use crate::log::{
    Io, IoError, JobDone, Log, LogFailure, LogOptions, OpenError, OpenReport, Position, ReadBuffer,
    ReadId, Replay, WriteId, open,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Futures that wait for the disk.
#[derive(Default)]
struct Tasks {
    running: Vec<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.running.push(Box::pin(task));
    }

    /// Polls all of them once.
    fn poll(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        self.running
            .retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
    }
}

/// Runs a future until it is ready, or until the disk crashes: then there is no result.
pub fn block_on<T>(disk: &SimDisk, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        if disk.step() {
            continue;
        }
        if disk.has_crashed() {
            return None;
        }
        let ready_ms = disk.next_ready_ms();
        assert!(ready_ms.is_some(), "a future waits for nothing");
        disk.set_now(ready_ms.unwrap_or_default());
    }
}

enum Event {
    Write(WriteId, Result<(), IoError>),
    Read(ReadId, Result<ReadBuffer, IoError>),
    Job(&'static str, JobDone),
}

/// A log and everything of it that is under way.
pub struct LogHost {
    /// The log.
    pub log: Log,
    disk: SimDisk,
    io: SimIo,
    tasks: Tasks,
    events: Rc<RefCell<Vec<Event>>>,
    reads: Vec<ReadId>,
    /// Where the last group that was handed to the disk ends.
    written: Position,
    /// How many jobs of each kind have ended.
    pub jobs: BTreeMap<&'static str, u64>,
}

impl LogHost {
    /// Opens the log on the disk; `None` when the disk crashes meanwhile.
    pub fn open(
        disk: &SimDisk,
        options: LogOptions,
        replay: &mut dyn Replay,
    ) -> Option<Result<(Self, OpenReport), OpenError>> {
        let io = disk.io();
        let opened = block_on(disk, open(&io, options, replay))?;
        Some(opened.map(|(log, report)| {
            let host = Self {
                written: log.durable(),
                log,
                disk: disk.clone(),
                io,
                tasks: Tasks::default(),
                events: Rc::default(),
                reads: Vec::new(),
                jobs: BTreeMap::new(),
            };
            (host, report)
        }))
    }

    /// Hands what the log wants to the disk: once at the end of each turn.
    pub fn submit(&mut self, now_ms: i64) {
        let open: Vec<_> = self.log.writable_segments().collect();
        while let Some(write) = self.log.next_write(now_ms) {
            assert!(open.contains(&write.segment), "a host has its file open");
            let position = write.segment.0 + write.file_offset;
            assert!(
                position >= self.written,
                "no block is written twice in an epoch"
            );
            self.written = position + write.bytes.len() as Position;
            let (io, events) = (self.io.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let result = match io.open(&write.segment.file_name()).await {
                    Ok(file) => {
                        io.write_durable(&file, write.file_offset, &write.bytes)
                            .await
                    }
                    Err(error) => Err(error),
                };
                events.borrow_mut().push(Event::Write(write.id, result));
            });
        }
        while let Some(read) = self.log.next_read() {
            let (io, events) = (self.io.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let result = match io.open(&read.file.file_name()).await {
                    Ok(file) => io.read_at(&file, read.offset, read.len).await,
                    Err(error) => Err(error),
                };
                events.borrow_mut().push(Event::Read(read.id, result));
            });
        }
        while let Some(job) = self.log.next_job() {
            let (io, events) = (self.io.clone(), self.events.clone());
            let kind = job.kind();
            self.tasks.spawn(async move {
                let done = job.run(&io).await;
                events.borrow_mut().push(Event::Job(kind, done));
            });
        }
        self.tasks.poll();
    }

    /// Lets the disk finish one operation and tells the log what came of it. False when nothing is under way.
    pub fn step(&mut self) -> Result<bool, LogFailure> {
        let went = self.disk.step();
        self.tasks.poll();
        let events = std::mem::take(&mut *self.events.borrow_mut());
        for event in events {
            match event {
                Event::Write(id, result) => self.log.write_done(id, result)?,
                Event::Read(id, result) => {
                    self.log.read_done(id, result);
                    self.reads.push(id);
                }
                Event::Job(kind, done) => {
                    *self.jobs.entry(kind).or_default() += 1;
                    self.log.job_done(done)?;
                }
            }
        }
        Ok(went)
    }

    /// The reads that ended since the last call.
    pub fn take_reads(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.reads)
    }

    /// Goes on until nothing is under way or the disk has crashed.
    pub fn settle(&mut self, now_ms: i64) -> Result<(), LogFailure> {
        loop {
            self.submit(now_ms);
            if !self.step()? {
                return Ok(());
            }
        }
    }
}
