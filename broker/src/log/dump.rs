//! A log read from its files alone, as it lies there: for looking at it, also while a broker runs or when opening fails.
//!
//! Nothing is written, and nothing is believed but checksums: groups are gone through in order until one is missing.

use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::checkpoint::{self, Checkpoint};
use super::group::{self, GroupHeader, MIN_BLOCK_BYTES, NoGroup, records};
use super::segment::SegmentId;
use super::stored::Stored;
use super::{Io, IoError, OpenError, Position, Slice, StdIo};

/// The largest block that groups are padded to.
const MAX_BLOCK_BYTES: u64 = 65536;
/// What is read at once where a group may begin.
const LOOK_BYTES: usize = 64 << 10;
/// Offsets and lengths of reads are multiples of it.
const READ_ALIGN: u64 = 4096;

/// What a log is made of, in the order in which it was written.
#[derive(Debug)]
pub enum Dumped<'a> {
    /// A group begins; its records follow.
    Group(GroupHeader),
    /// A message.
    Message {
        /// Where it begins.
        position: Position,
        /// All of its bytes, in RocketMQ's stored layout.
        bytes: &'a [u8],
    },
    /// A state record of the engine, or of the log itself.
    State {
        /// Where it begins.
        position: Position,
        /// Its kind.
        kind: u16,
        /// Its payload.
        payload: &'a [u8],
    },
}

/// Where a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpEnd {
    /// Behind the last sound group.
    pub end: Position,
    /// Up to where the checkpoint knows that there is a log. Where this is beyond `end`, groups are damaged or missing.
    pub checkpoint: Position,
}

/// Goes through the log of one shard. `visit` may end it; then `end` is behind the group it was at.
pub fn dump(
    directory: &Path,
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<DumpEnd, OpenError> {
    let io = StdIo::read_only(directory.to_path_buf());
    let mut walk = pin!(walk(&io, visit));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // Each of its operations is done when it is first polled.
        if let Poll::Ready(end) = walk.as_mut().poll(&mut context) {
            return end;
        }
    }
}

async fn walk<I: Io>(
    io: &I,
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<DumpEnd, OpenError> {
    let mut files = io.list().await?;
    files.sort();
    let checkpoint_len = files
        .iter()
        .find(|(name, _)| name == checkpoint::FILE_NAME)
        .map(|(_, len)| *len);
    let checkpoint = match checkpoint_len {
        Some(len) => Checkpoint::read(io, len)
            .await?
            .map_err(OpenError::Checkpoint)?,
        None => return Err(OpenError::Checkpoint("it is missing".into())),
    };
    let mut segments = files
        .iter()
        .filter_map(|(name, len)| Some((SegmentId::of_file_name(name)?.0, *len)))
        .filter(|(start, len)| start + len > checkpoint.retired)
        .peekable();
    let mut end = segments.peek().map_or(0, |(start, _)| *start);
    let mut first = true;
    for (start, len) in segments {
        let file = io.open(&SegmentId(start).file_name()).await?;
        let segment = Segment {
            io,
            file,
            start,
            limit: start + len,
            log_id: checkpoint.log_id,
        };
        // Before the first group of all nothing is known; each other one says which it follows.
        while let Some((header, bytes)) = segment
            .next_group(end.max(start), (!first).then_some(end))
            .await?
        {
            first = false;
            end = header.end();
            if visit_group(&header, &bytes, visit).is_break() {
                return Ok(DumpEnd {
                    end,
                    checkpoint: checkpoint.position,
                });
            }
        }
    }
    Ok(DumpEnd {
        end,
        checkpoint: checkpoint.position,
    })
}

struct Segment<'a, I: Io> {
    io: &'a I,
    file: I::File,
    start: Position,
    limit: Position,
    log_id: u64,
}

impl<I: Io> Segment<'_, I> {
    /// The sound group that comes next: at `at`, or at the next multiple of some block that groups may be padded to.
    async fn next_group(
        &self,
        at: Position,
        follows: Option<Position>,
    ) -> Result<Option<(GroupHeader, Slice)>, IoError> {
        let mut block = MIN_BLOCK_BYTES;
        let mut looked = None;
        while block <= MAX_BLOCK_BYTES {
            let position = at.next_multiple_of(block);
            block *= 2;
            if looked == Some(position) || position >= self.limit {
                continue;
            }
            looked = Some(position);
            if let Some((header, bytes)) = self.group(position).await?
                && follows.is_none_or(|follows| header.follows == follows)
            {
                return Ok(Some((header, bytes)));
            }
        }
        Ok(None)
    }

    async fn group(&self, position: Position) -> Result<Option<(GroupHeader, Slice)>, IoError> {
        let mut bytes = self.bytes(position, LOOK_BYTES).await?;
        loop {
            match group::check(&bytes, self.log_id, position) {
                Ok(header) => return Ok(Some((header, bytes.slice(0..header.padded as usize)))),
                Err(NoGroup::Short(need))
                    if need > bytes.len() && position + need as u64 <= self.limit =>
                {
                    let had = bytes.len();
                    bytes = self.bytes(position, need).await?;
                    if bytes.len() <= had {
                        return Ok(None);
                    }
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Bytes from `position` on; fewer than `len` only at the end of the file.
    async fn bytes(&self, position: Position, len: usize) -> Result<Slice, IoError> {
        let offset = position - self.start;
        let from = offset - offset % READ_ALIGN;
        let to = (offset + len as u64)
            .min(self.limit - self.start)
            .next_multiple_of(READ_ALIGN);
        let read = self
            .io
            .read_at(&self.file, from, (to - from) as usize)
            .await?;
        let skip = ((offset - from) as usize).min(read.len());
        Ok(read.slice(skip..read.len()))
    }
}

fn visit_group(
    header: &GroupHeader,
    group: &[u8],
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    visit(Dumped::Group(*header))?;
    for (offset, bytes) in records(group) {
        let position = header.position + offset as u64;
        match Stored::parse(bytes) {
            Some(Stored::State { kind, payload }) => visit(Dumped::State {
                position,
                kind,
                payload,
            })?,
            _ => visit(Dumped::Message { position, bytes })?,
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{FlushMode, Log, LogOptions, Replay, ReplayError, sample};
    use super::*;
    use crate::sim::{LogHost, SimDisk, block_on};

    struct Ignore;

    impl Replay for Ignore {
        fn state(&mut self, _: &mut Log, _: u16, _: &[u8]) -> Result<(), ReplayError> {
            Ok(())
        }
    }

    fn options() -> LogOptions {
        LogOptions {
            segment_bytes: 4 * 65536,
            first_segment_bytes: 65536,
            buffer_bytes: 32768,
            max_group_bytes: 16384,
            max_record_bytes: 8192,
            max_unflushed_bytes: 128 << 10,
            flush: FlushMode::Sync,
            ..LogOptions::default()
        }
    }

    #[test]
    fn every_record_is_there_in_order() {
        let disk = SimDisk::new(1);
        let mut appended = Vec::new();
        let mut durable = 0;
        // Two lives over several segments; the second begins with a group that has no records.
        for life in 0..2 {
            let (mut host, _) = LogHost::open(&disk, options(), &mut Ignore)
                .unwrap()
                .unwrap();
            for count in 0..60 {
                let queue = host.log.queue("orders", 0);
                let body = vec![life as u8; 37 * count];
                let size = sample::message("orders", 0, 0, 0, 0, &body, b"").len();
                let mut position = 0;
                host.log
                    .append_message(queue, size, 0, 1, |at, offset, out| {
                        out.copy_from_slice(&sample::message(
                            "orders", 0, offset, at, 1, &body, b"",
                        ));
                        position = at;
                    })
                    .unwrap();
                appended.push((position, size));
                if count % 7 == 0 {
                    host.log.append_state(1, b"state").unwrap();
                    host.settle(1).unwrap();
                }
            }
            host.settle(1).unwrap();
            durable = host.log.durable();
        }
        let (mut groups, mut states, mut found) = (0, 0, Vec::new());
        let end = block_on(
            &disk,
            walk(&disk.io(), &mut |dumped| {
                match dumped {
                    Dumped::Group(_) => groups += 1,
                    Dumped::Message { position, bytes } => found.push((position, bytes.len())),
                    Dumped::State {
                        kind: 1,
                        payload: b"state",
                        ..
                    } => states += 1,
                    Dumped::State { .. } => {}
                }
                ControlFlow::Continue(())
            }),
        );
        let end = end.unwrap().unwrap();
        assert_eq!(found, appended);
        assert_eq!((end.end, states), (durable, 18));
        assert!(end.checkpoint <= end.end && groups > 18);

        let mut seen = 0;
        let io = disk.io();
        let mut third = |_: Dumped<'_>| {
            seen += 1;
            if seen == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let stopped = block_on(&disk, walk(&io, &mut third)).unwrap().unwrap();
        assert!(stopped.end < durable);
        assert_eq!(seen, 3);
    }

    #[test]
    fn a_directory_without_a_log_is_said() {
        let error = dump(Path::new("/nowhere"), &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
