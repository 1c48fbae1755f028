//! What a shard's host does for its log, and nothing else: groups to the disk, jobs and reads as tasks of the executor.

use corelane_broker::log::{IoError, QueueRef};
use corelane_broker::log::{
    JobDone, Log, LogOptions, OpenReport, ReadBuffer, ReadId, Replay, ReplayError, SegmentId,
    StateWriter, WriteId, open,
};
use corelane_broker::ring::{Completion, Owner, Parker, Ring, RingOptions};
use corelane_broker::shard::Disk;
use corelane_wire::properties::MessageKeys;
use corelane_wire::record::{Host as Address, RecordFields, RecordHead};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

const LINGER: Duration = Duration::from_millis(1);
const BUSY_LINGER: Duration = Duration::from_micros(100);

enum Event {
    Job(Box<JobDone>),
    ReadFileOpen,
    SegmentOpen(SegmentId),
}

/// Nothing keeps state in these logs.
pub struct NoState;

impl Replay for NoState {
    fn state(&mut self, _: &mut Log, _: u16, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }
}

/// How groups are written: which way a shard takes and when is not the log's matter.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// Through the ring, as many at once as the log lets.
    Ring,
    /// On this thread, one after another.
    Thread,
}

/// A log with its disk.
pub struct Host {
    pub log: Log,
    ring: Ring,
    parker: Parker,
    disk: Disk,
    /// For writes on this thread.
    files: HashMap<SegmentId, File>,
    directory: PathBuf,
    events: Rc<RefCell<VecDeque<Event>>>,
    tasks_in_flight: usize,
    writable: Vec<SegmentId>,
    opening: HashSet<SegmentId>,
    completions: Vec<Completion>,
    finished: Vec<(WriteId, Result<(), IoError>)>,
    reads: Vec<(ReadId, Result<ReadBuffer, IoError>)>,
    began: Instant,
    /// How groups are written.
    pub way: Way,
    /// Reads that have ended since the last look.
    pub reads_done: usize,
}

impl Host {
    /// Opens the log of a directory, and says how long that took.
    pub async fn open(directory: &Path, options: LogOptions) -> (Self, OpenReport, Duration) {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut parker = Parker::new(&ring).unwrap();
        let disk = Disk::new(directory.to_owned(), parker.waker());
        let io = disk.clone();
        let began = Instant::now();
        let mut task = glommio::spawn_local(async move {
            let mut none = NoState;
            open(&io, options, &mut none).await
        });
        parker.set_linger(Duration::ZERO);
        let waker = parker.waker();
        let mut completions = Vec::new();
        // As a shard does it.
        let opened = loop {
            disk.submit(&mut ring);
            ring.turn().unwrap();
            ring.reap(&mut completions);
            for completion in completions.drain(..) {
                disk.completion(completion);
            }
            if let Some(opened) = futures_lite::future::poll_once(&mut task).await {
                break opened;
            }
            if !disk.has_background() {
                let woken = waker.clone();
                glommio::spawn_local(async move {
                    glommio::timer::sleep(Duration::from_micros(200)).await;
                    woken.wake();
                })
                .detach();
            }
            disk.submit(&mut ring);
            let wait = Some(Duration::from_millis(20));
            parker.park(&mut ring, wait).await.unwrap();
        };
        let took = began.elapsed();
        let (log, report) = opened.unwrap();
        let host = Self {
            log,
            ring,
            parker,
            disk,
            files: HashMap::new(),
            directory: directory.to_owned(),
            way: Way::Ring,
            events: Rc::default(),
            tasks_in_flight: 0,
            writable: Vec::new(),
            opening: HashSet::new(),
            completions: Vec::new(),
            finished: Vec::new(),
            reads: Vec::new(),
            began: Instant::now(),
            reads_done: 0,
        };
        (host, report, took)
    }

    fn now_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64
    }

    /// Everything that can be done now, `act` in the place of the requests, then rest as a shard rests. `act` says whether it
    /// has more to do at once.
    pub async fn turn(&mut self, act: impl FnOnce(&mut Log) -> bool) {
        self.disk.submit(&mut self.ring);
        self.ring.turn().unwrap();
        self.ring.reap(&mut self.completions);
        for completion in self.completions.drain(..) {
            if completion.token().owner() == Owner::Disk {
                self.disk.completion(completion);
            }
        }
        if self.disk.submit_reads(&mut self.ring) {
            self.ring.turn().unwrap();
        }
        self.disk.finished(&mut self.finished);
        for (id, result) in self.finished.drain(..) {
            self.log.write_done(id, result).unwrap();
        }
        self.disk.finished_reads(&mut self.reads);
        for (id, result) in self.reads.drain(..) {
            self.log.read_done(id, result);
            assert!(self.log.take_read_failures().is_empty());
            self.reads_done += 1;
        }
        self.take_events();
        let busy = act(&mut self.log);
        self.log.take_visible(|_, _| {});
        self.give_work();
        self.write_groups();
        self.rest(busy).await;
    }

    fn take_events(&mut self) {
        while let Some(event) = { self.events.borrow_mut().pop_front() } {
            self.tasks_in_flight -= 1;
            match event {
                Event::Job(done) => self.log.job_done(*done).unwrap(),
                Event::ReadFileOpen => {}
                Event::SegmentOpen(segment) => {
                    self.opening.remove(&segment);
                }
            }
        }
    }

    fn give_work(&mut self) {
        if self.log.snapshot_due() {
            self.log.snapshot(StateWriter::default().finish());
        }
        if !self
            .log
            .writable_segments()
            .eq(self.writable.iter().copied())
        {
            self.writable = self.log.writable_segments().collect();
            for segment in self.disk.keep_segments(&self.writable) {
                if self.opening.insert(segment) {
                    let disk = self.disk.clone();
                    self.spawn(async move {
                        disk.open_segment(segment).await.unwrap();
                        Event::SegmentOpen(segment)
                    });
                }
            }
        }
        while let Some(job) = self.log.next_job() {
            let disk = self.disk.clone();
            self.spawn(async move { Event::Job(Box::new(job.run(&disk).await)) });
        }
        while let Some(read) = self.log.next_read() {
            let disk = self.disk.clone();
            if let Some(file) = self.disk.read(read) {
                self.spawn(async move {
                    disk.open_for_reads(file).await;
                    Event::ReadFileOpen
                });
            }
        }
    }

    fn write_groups(&mut self) {
        let now_ms = self.now_ms();
        while let Some(write) = self.log.next_write(now_ms) {
            if self.way == Way::Ring {
                self.disk.write_group(write);
                continue;
            }
            let file = self.files.entry(write.segment).or_insert_with(|| {
                let path = self.directory.join(write.segment.file_name());
                let mut options = File::options();
                options
                    .write(true)
                    .custom_flags(libc::O_DIRECT | libc::O_DSYNC);
                options.open(path).unwrap()
            });
            file.write_all_at(&write.bytes, write.file_offset).unwrap();
            self.finished.push((write.id, Ok(())));
        }
        self.files
            .retain(|segment, _| self.writable.contains(segment));
    }

    fn spawn(&mut self, work: impl Future<Output = Event> + 'static) {
        self.tasks_in_flight += 1;
        let (events, waker) = (self.events.clone(), self.parker.waker());
        glommio::spawn_local(async move {
            let event = work.await;
            events.borrow_mut().push_back(event);
            waker.wake();
        })
        .detach();
    }

    async fn rest(&mut self, busy: bool) {
        if self.disk.take_woke_task() {
            glommio::executor().yield_task_queue_now().await;
        }
        self.parker.set_tasks_under_way(self.tasks_in_flight > 0);
        if busy || !self.finished.is_empty() {
            self.parker.share().await;
            return;
        }
        let under_way = self.tasks_in_flight > 0;
        self.parker
            .set_linger(if under_way { BUSY_LINGER } else { LINGER });
        self.disk.submit(&mut self.ring);
        let wait = Some(Duration::from_millis(1));
        self.parker.park(&mut self.ring, wait).await.unwrap();
    }

    /// Waits until everything is durable.
    pub async fn settle(&mut self) {
        while self.log.durable() < self.log.max_position() {
            self.turn(|log| {
                log.flush_now();
                false
            })
            .await;
        }
    }

    /// Waits until nothing is under way: segments are ready, full ones are sealed.
    pub async fn quiet(&mut self) {
        let sealed = |log: &Log| log.sizes().segments_sealed + 1 >= log.sizes().segments;
        while self.tasks_in_flight > 0 || self.log.sizes().segments_ready == 0 || !sealed(&self.log)
        {
            self.turn(|_| false).await;
        }
    }
}

/// A message of one topic, as it is stored, but for the places that the log fixes.
pub struct Message {
    bytes: Vec<u8>,
}

pub const TOPIC: &str = "speed";
const UNIQUE_KEY: &str = "7F00000100002A9F0000000000000001";

impl Message {
    pub fn with_body(bytes: usize) -> Self {
        let host = Address {
            ip: [127, 0, 0, 1].into(),
            port: 10911,
        };
        let head = RecordHead {
            queue_id: 0,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 1,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
        };
        let properties = format!("UNIQ_KEY\x01{UNIQUE_KEY}\x02");
        let fields = RecordFields {
            head,
            body: &vec![b'x'; bytes],
            topic: TOPIC,
            properties: properties.as_bytes(),
        };
        let mut bytes = vec![0; fields.encoded_len().unwrap()];
        fields.encode(&mut bytes).unwrap();
        Self { bytes }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends it; returns its end, or `None` when the log takes none now.
    #[inline]
    pub fn append(&self, log: &mut Log, queue: QueueRef, queue_id: u32) -> Option<u64> {
        let appended = log.append_message(
            queue,
            self.bytes.len(),
            0,
            1,
            MessageKeys {
                unique: UNIQUE_KEY,
                user: "",
            },
            |position, queue_offset, out| {
                out.copy_from_slice(&self.bytes);
                out[12..16].copy_from_slice(&queue_id.to_be_bytes());
                out[20..28].copy_from_slice(&queue_offset.to_be_bytes());
                out[28..36].copy_from_slice(&position.to_be_bytes());
            },
        );
        appended.ok().map(|appended| appended.end)
    }
}
