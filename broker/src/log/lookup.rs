//! From offsets and times to entries: in memory for the newest groups, in the index files for the others.

use super::cold::{Asked, Place};
use super::index::{BLOCK_PAGES, PAGE_BYTES, entries_from};
use super::queue::Part;
use super::segment::IndexId;
use super::{Boundary, Entry, Log, QueueRef, ReadMiss, Slice};
use std::collections::VecDeque;

/// Searches that wait for reads and remember how far they came; the oldest is given up, and begins again if it is asked.
const SEARCHES: usize = 64;

/// A binary search for a time that has to read.
#[derive(Clone, Copy, Debug)]
struct TimeSearch {
    queue: QueueRef,
    time_ms: i64,
    boundary: Boundary,
    low: i64,
    high: i64,
}

#[derive(Debug, Default)]
pub(super) struct TimeSearches(VecDeque<TimeSearch>);

impl Log {
    /// Appends up to `max` visible entries from offset `from` on to `out`: at least one, but for `from == max_offset`, where
    /// there are none. `Gone` outside of min and max offset, and where there is no record: see [`Log::next_kept`].
    pub fn entries(
        &mut self,
        queue: QueueRef,
        from: i64,
        max: usize,
        out: &mut Vec<Entry>,
    ) -> Result<(), ReadMiss> {
        let target = self.queues.get(queue);
        if from < target.min() || from > target.visible {
            return Err(ReadMiss::Gone);
        }
        if from >= target.base {
            let start = target.place(from).map_err(|_| ReadMiss::Gone)?;
            let run = (target.run_end(from) - from) as usize;
            out.extend(target.entries.range(start..start + run.min(max)));
            return Ok(());
        }
        let part = target.part_at(from).ok_or(ReadMiss::Gone)?;
        let slot = part.slot + (from - part.first) as u32;
        let part_end = part.slot + part.count;
        let end = part_end.min(slot.saturating_add(u32::try_from(max).unwrap_or(u32::MAX)));
        self.read_ahead_entries(part.index, slot, part_end);
        self.sealed_entries(part.index, slot, end, out)
    }

    /// Has the next block of pages read for a reader of one, if entries before `end` lie in it: chunks are read further ahead
    /// than half a block reaches.
    fn read_ahead_entries(&mut self, index: IndexId, slot: u32, end: u32) {
        let Some(layout) = self.segments.layout(index) else {
            return;
        };
        let (here, last) = (layout.entry(slot).0, layout.entry(end.saturating_sub(1)).0);
        let page = (here / BLOCK_PAGES + 1) * BLOCK_PAGES;
        if last >= page {
            let len = BLOCK_PAGES.min(layout.pages() - page) as usize * PAGE_BYTES;
            self.cold.read_ahead(Place::Pages { page, index }, len);
        }
    }

    /// The first offset at or after `from` that has a record; max offset when none has. Where records were lost, or never
    /// were, a queue has gaps.
    pub fn next_kept(&self, queue: QueueRef, from: i64) -> i64 {
        let target = self.queues.get(queue);
        let from = from.max(target.min());
        if from < target.base {
            let after = target
                .parts
                .partition_point(|part| part.first + i64::from(part.count) <= from);
            let kept = target.parts.get(after).map(|part| part.first.max(from));
            return kept.unwrap_or(target.base).min(target.visible);
        }
        let kept = target.place(from).err().unwrap_or(from);
        kept.min(target.visible)
    }

    /// Entries of an index file from `slot` on, before `end`, as far as its first block of pages goes.
    fn sealed_entries(
        &mut self,
        index: IndexId,
        slot: u32,
        end: u32,
        out: &mut Vec<Entry>,
    ) -> Result<(), ReadMiss> {
        let layout = self.segments.layout(index).ok_or(ReadMiss::Gone)?;
        let (first, _) = layout.entry(slot);
        let mut slot = slot;
        while slot < end {
            let (page, place) = layout.entry(slot);
            if page / BLOCK_PAGES != first / BLOCK_PAGES {
                break;
            }
            let bytes = match self.page(index, page) {
                Ok(bytes) => bytes,
                Err(miss) if page == first => return Err(miss),
                Err(_) => break,
            };
            let on_page = entries_from(&bytes, place, (end - slot) as usize);
            let before = out.len();
            out.extend(on_page);
            if out.len() == before {
                return Err(ReadMiss::Damaged {
                    position: index.start(),
                });
            }
            slot += (out.len() - before) as u32;
        }
        Ok(())
    }

    /// A checked page of an index.
    pub(super) fn page(&mut self, index: IndexId, page: u32) -> Result<Slice, ReadMiss> {
        let layout = self.segments.layout(index).ok_or(ReadMiss::Gone)?;
        let first = page / BLOCK_PAGES * BLOCK_PAGES;
        let len = BLOCK_PAGES.min(layout.pages() - first) as usize * PAGE_BYTES;
        let place = Place::Pages { page: first, index };
        match self.cold.ask(place, len) {
            Asked::Here { piece, .. } => match piece.sound_at((page - first) as usize * PAGE_BYTES)
            {
                Ok((bytes, _)) => Ok(bytes),
                Err(_) => {
                    self.work.rebuild(index);
                    Err(ReadMiss::Damaged {
                        position: index.start(),
                    })
                }
            },
            Asked::Wanted(id) => Err(ReadMiss::Wanted(id)),
            Asked::Failed => {
                self.work.rebuild(index);
                Err(ReadMiss::Damaged {
                    position: index.start(),
                })
            }
        }
    }

    fn entry(&mut self, queue: QueueRef, offset: i64) -> Result<Entry, ReadMiss> {
        let target = self.queues.get(queue);
        if offset >= target.base {
            let place = target.place(offset).map_err(|_| ReadMiss::Gone)?;
            return target.entries.get(place).copied().ok_or(ReadMiss::Gone);
        }
        let Part {
            index, first, slot, ..
        } = target.part_at(offset).ok_or(ReadMiss::Gone)?;
        let slot = slot + (offset - first) as u32;
        let mut found = Vec::with_capacity(1);
        self.sealed_entries(index, slot, slot + 1, &mut found)?;
        found.first().copied().ok_or(ReadMiss::Gone)
    }

    /// The offset that belongs to a store time. `Lower`: the first record stored then or later; max offset when all are
    /// older. `Upper`: the last one stored then or earlier; min offset when all are newer.
    pub fn offset_by_time(
        &mut self,
        queue: QueueRef,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<i64, ReadMiss> {
        let (min, max) = (self.min_offset(queue), self.max_offset(queue));
        let same = |search: &TimeSearch| {
            search.queue == queue && search.time_ms == time_ms && search.boundary == boundary
        };
        let known = self
            .time_searches
            .0
            .iter()
            .position(same)
            .and_then(|at| self.time_searches.0.remove(at));
        let mut search = known.unwrap_or_else(|| {
            let (low, high) = self.bounds_in_time(queue, time_ms);
            TimeSearch {
                queue,
                time_ms,
                boundary,
                low,
                high,
            }
        });
        (search.low, search.high) = (search.low.clamp(min, max), search.high.clamp(min, max));
        while search.low < search.high {
            let middle = search.low + (search.high - search.low) / 2;
            // In a gap the record behind it decides.
            let kept = self.next_kept(queue, middle);
            if kept >= search.high {
                search.high = middle;
                continue;
            }
            let entry = match self.entry(queue, kept) {
                Ok(entry) => entry,
                Err(miss) => {
                    if matches!(miss, ReadMiss::Wanted(_)) {
                        self.time_searches.0.push_back(search);
                        if self.time_searches.0.len() > SEARCHES {
                            self.time_searches.0.pop_front();
                        }
                    }
                    return Err(miss);
                }
            };
            let before = match boundary {
                Boundary::Lower => entry.store_ms < time_ms,
                Boundary::Upper => entry.store_ms <= time_ms,
            };
            if before {
                search.low = kept + 1
            } else {
                search.high = middle
            }
        }
        Ok(match boundary {
            Boundary::Lower => search.low,
            Boundary::Upper => (search.low - 1).max(min),
        })
    }

    /// Offsets between which a time can lie: indexes know the newest time before their ends.
    fn bounds_in_time(&self, queue: QueueRef, time_ms: i64) -> (i64, i64) {
        let target = self.queues.get(queue);
        let newest_ms = |part: &Part| {
            let segment = self.segments.at(part.index.start());
            segment
                .and_then(|segment| segment.index(part.index))
                .map_or(i64::MIN, |index| index.newest_ms)
        };
        let older = target
            .parts
            .partition_point(|part| newest_ms(part) < time_ms);
        (
            target
                .parts
                .get(older)
                .map_or(target.base, |part| part.first),
            target.visible,
        )
    }
}
