//! A log read from its files alone, as it lies there: for looking at it, also while a broker runs or when opening fails.
//!
//! Nothing is written, and nothing is believed but checksums: groups are gone through in order until one is missing.

use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::checkpoint::{self, Checkpoint};
use super::group::{GroupHeader, HEADER_BYTES, MIN_BLOCK_BYTES, records};
use super::scan::SegmentReader;
use super::segment::SegmentId;
use super::stored::Stored;
use super::{Io, IoError, OpenError, Position, Slice, StdIo};

/// The largest block that groups are padded to.
const MAX_BLOCK_BYTES: u64 = 65536;
const WINDOW_BYTES: u64 = 1 << 20;

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
    let checkpoint_len = files.iter().find(|(name, _)| name == checkpoint::FILE_NAME).map(|(_, len)| *len);
    let checkpoint = match checkpoint_len {
        Some(len) => Checkpoint::read(io, len).await?.map_err(OpenError::Checkpoint)?,
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
        let mut reader = SegmentReader::open(io, start, len, WINDOW_BYTES).await?;
        let mut at = end.max(start);
        // Before the first group of all nothing is known; each other one says which it follows.
        while let Some((header, group)) = next_group(&mut reader, checkpoint.log_id, at, (!first).then_some(end)).await? {
            first = false;
            end = header.end();
            at = end;
            if visit_group(&header, &group, visit).is_break() {
                return Ok(DumpEnd { end, checkpoint: checkpoint.position });
            }
        }
    }
    Ok(DumpEnd { end, checkpoint: checkpoint.position })
}

/// The sound group that comes next: at `at`, or at the next multiple of some block that groups may be padded to.
async fn next_group<I: Io>(
    reader: &mut SegmentReader<I>,
    log_id: u64,
    at: Position,
    follows: Option<Position>,
) -> Result<Option<(GroupHeader, Slice)>, IoError> {
    let mut block = MIN_BLOCK_BYTES;
    let mut looked = None;
    while block <= MAX_BLOCK_BYTES {
        let position = at.next_multiple_of(block);
        block *= 2;
        if looked == Some(position) || position >= reader.limit() {
            continue;
        }
        looked = Some(position);
        if let Ok((header, bytes)) = reader.group(log_id, position, reader.len).await?
            && follows.is_none_or(|follows| header.follows == follows)
        {
            return Ok(Some((header, bytes)));
        }
    }
    Ok(None)
}

fn visit_group(
    header: &GroupHeader,
    group: &[u8],
    visit: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    visit(Dumped::Group(*header))?;
    for (offset, bytes) in records(group) {
        debug_assert!(offset >= HEADER_BYTES);
        let position = header.position + offset as u64;
        match Stored::parse(bytes) {
            Some(Stored::State { kind, payload }) => visit(Dumped::State { position, kind, payload })?,
            _ => visit(Dumped::Message { position, bytes })?,
        }
    }
    ControlFlow::Continue(())
}
