//! Reading groups from segment files one after another: what recovery, `verify` and `dump` go through.

use super::group::{self, GroupHeader, HEADER_BYTES, NoGroup};
use super::segment::SegmentId;
use super::{AlignedBuffer, Io, IoError, Position, ReadBuffer, Slice};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Reading = Pin<Box<dyn Future<Output = Result<ReadBuffer, IoError>>>>;

/// A segment file, read window by window, with the next ones on their way.
pub(super) struct SegmentReader<I: Io> {
    io: I,
    file: I::File,
    pub start: Position,
    pub len: u64,
    /// Bytes that are read at once.
    window_bytes: u64,
    /// How many windows are on their way beside the one that is looked at.
    windows_ahead: usize,
    window: Option<(u64, Slice)>,
    /// In order, without a gap.
    ahead: VecDeque<(u64, Reading)>,
}

impl<I: Io> SegmentReader<I> {
    pub async fn open(
        io: &I,
        start: Position,
        len: u64,
        window_bytes: u64,
        windows_ahead: usize,
    ) -> Result<Self, IoError> {
        let file = io.open(&SegmentId(start).file_name()).await?;
        Ok(Self {
            io: io.clone(),
            file,
            start,
            len,
            window_bytes,
            windows_ahead,
            window: None,
            ahead: VecDeque::new(),
        })
    }

    pub fn limit(&self) -> Position {
        self.start + self.len
    }

    /// The bytes at `position`; fewer than `len` only at the end of the file.
    pub async fn bytes(&mut self, position: Position, len: usize) -> Result<Slice, IoError> {
        let mut at = position - self.start;
        let end = (at + len as u64).min(self.len);
        let mut joined: Option<(AlignedBuffer, usize)> = None;
        loop {
            let window = self.window(at / self.window_bytes).await?;
            let from = ((at % self.window_bytes) as usize).min(window.len());
            let to = (from + (end - at) as usize).min(window.len());
            at += (to - from) as u64;
            let short = to == from;
            match &mut joined {
                None if at == end || short => return Ok(window.slice(from..to)),
                None => {
                    let mut buffer = AlignedBuffer::zeroed(len);
                    buffer[..to - from].copy_from_slice(&window[from..to]);
                    joined = Some((buffer, to - from));
                }
                Some((buffer, filled)) => {
                    buffer[*filled..*filled + to - from].copy_from_slice(&window[from..to]);
                    *filled += to - from;
                }
            }
            if at == end || short {
                let Some((buffer, filled)) = joined else {
                    unreachable!("the first window was kept")
                };
                return Ok(buffer.freeze().slice(0..filled));
            }
        }
    }

    /// The group that begins at `position`, checked; none that is longer than `longest` is looked at.
    pub async fn group(
        &mut self,
        log_id: u64,
        position: Position,
        longest: u64,
    ) -> Result<Result<(GroupHeader, Slice), NoGroup>, IoError> {
        let mut bytes = self.bytes(position, HEADER_BYTES).await?;
        loop {
            match group::check(&bytes, log_id, position) {
                Ok(header) => return Ok(Ok((header, bytes.slice(0..header.padded as usize)))),
                Err(NoGroup::Short(need))
                    if need > bytes.len()
                        && need as u64 <= longest.min(self.limit() - position) =>
                {
                    let had = bytes.len();
                    bytes = self.bytes(position, need).await?;
                    if bytes.len() <= had {
                        return Ok(Err(NoGroup::Short(need)));
                    }
                }
                Err(none) => return Ok(Err(none)),
            }
        }
    }

    /// The group at `tail`, if it says that it follows `follows`, where that is known.
    pub async fn group_after(
        &mut self,
        log_id: u64,
        tail: Position,
        follows: Option<Position>,
        longest: u64,
    ) -> Result<Option<(GroupHeader, Slice)>, IoError> {
        if tail >= self.limit() {
            return Ok(None);
        }
        let found = self.group(log_id, tail, longest).await?;
        Ok(found
            .ok()
            .filter(|(header, _)| follows.is_none_or(|follows| header.follows == follows)))
    }

    async fn window(&mut self, index: u64) -> Result<Slice, IoError> {
        if let Some((have, window)) = &self.window
            && *have == index
        {
            return Ok(window.clone());
        }
        let reading = match self.ahead.pop_front() {
            Some((have, reading)) if have == index => reading,
            _ => {
                self.ahead.clear();
                self.begin(index).await
            }
        };
        let mut next = self.ahead.back().map_or(index, |(last, _)| *last) + 1;
        while self.ahead.len() < self.windows_ahead && next * self.window_bytes < self.len {
            let reading = self.begin(next).await;
            self.ahead.push_back((next, reading));
            next += 1;
        }
        let bytes = reading.await?;
        self.window = Some((index, bytes.clone()));
        Ok(bytes)
    }

    /// Polled once to get it on its way; it is waited for when it is asked for.
    async fn begin(&self, index: u64) -> Reading {
        let mut reading = self.read(index);
        let mut early = None;
        poll_fn(|context| {
            if let Poll::Ready(result) = reading.as_mut().poll(context) {
                early = Some(result);
            }
            Poll::Ready(())
        })
        .await;
        match early {
            Some(result) => Box::pin(std::future::ready(result)),
            None => reading,
        }
    }

    fn read(&self, index: u64) -> Reading {
        let (io, file) = (self.io.clone(), self.file.clone());
        let offset = index * self.window_bytes;
        let len = self.window_bytes.min(self.len - offset) as usize;
        Box::pin(async move { io.read_at(&file, offset, len).await })
    }
}
