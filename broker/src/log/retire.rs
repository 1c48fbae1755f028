//! Retention: whole segments go, oldest first, by age, by size, or because the disk fills up.
//!
//! A segment may go when its indexes are in place and the checkpoint lies beyond it. First a state record of the log's own
//! says up to where everything is retired; when that is durable, minimum offsets rise, readers get `Gone`, and only then
//! files are used again or removed. So a missing file is never mistaken for a retired one, and minimum offsets never fall.

use super::stored::KIND_RETIRED;
use super::{Log, Position};

/// A retirement that waits for its record to be durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retirement {
    /// Everything before it goes.
    to: Position,
    /// End of the record that says so.
    recorded: Position,
}

impl Log {
    /// Retires what is due; called once a turn.
    pub(super) fn retire(&mut self) {
        if let Some(retirement) = self.retirement {
            // A segment whose index is built once more is read until that is done.
            let is_read = self.work.seals_before(retirement.to);
            if self.durable >= retirement.recorded && !is_read {
                self.retirement = None;
                self.retire_before(retirement.to);
            }
            return;
        }
        if let Some(to) = self.retirement_due()
            && let Ok(recorded) = self.append_own_state(KIND_RETIRED, &to.to_le_bytes())
        {
            self.retirement = Some(Retirement { to, recorded });
        }
    }

    /// Segments that went before their time, because the disk was short of space.
    pub fn retired_early(&self) -> u64 {
        self.retired_early
    }

    /// What the records so far say is retired, durable or not.
    pub(super) fn retired_as_recorded(&self) -> Position {
        self.retirement
            .map_or(self.retired, |retirement| retirement.to.max(self.retired))
    }

    fn retirement_due(&mut self) -> Option<Position> {
        if self.is_installing() || self.segments.list.len() < 2 {
            return None;
        }
        let full = self.segments.list.len() - 1;
        let checkpoint = self.work.checkpoint;
        let may_go = |limit: Position| limit <= checkpoint;
        let mut kept_by_checkpoint = false;
        let oldest_ms = self.work.now_ms.saturating_sub(self.options.retention_ms);
        let mut bytes = self.open.end - self.segments.oldest_start();
        let mut due = None;
        for segment in self.segments.list.iter().take(full) {
            if !segment.is_sealed()
                || (segment.newest_ms >= oldest_ms && bytes <= self.options.retention_bytes)
            {
                break;
            }
            if !may_go(segment.limit()) {
                kept_by_checkpoint = true;
                break;
            }
            bytes -= segment.len;
            due = Some(segment.limit());
        }
        if due.is_none() && self.disk_is_short() {
            // One at a time: what it gave is only known when the space has been looked at again.
            let oldest = self.segments.list.front();
            if let Some(oldest) = oldest.filter(|oldest| oldest.is_sealed()) {
                if may_go(oldest.limit()) {
                    due = Some(oldest.limit());
                    self.retired_early += 1;
                    self.work.space = None;
                } else {
                    kept_by_checkpoint = true;
                }
            }
        }
        // One checkpoint at a time: that of a snapshot which was taken meanwhile may be enough.
        self.work.checkpoint_wanted = kept_by_checkpoint && self.work.taken_is_written();
        due
    }

    fn disk_is_short(&self) -> bool {
        let full =
            self.work.disk_full && self.segments.ready.is_empty() && self.work.spare.is_empty();
        self.work.used_percent() > self.options.delete_above_percent
            || (full && self.options.delete_above_percent < 100)
    }

    /// Forgets everything before `to`, the start of a segment, and gives its files away.
    pub(super) fn retire_before(&mut self, to: Position) {
        self.retired = self.retired.max(to);
        while let Some(oldest) = self.segments.list.front()
            && oldest.limit() <= to
            && self.segments.list.len() > 1
        {
            self.work.spare.push_back((oldest.id(), oldest.len));
            let indexes = oldest.indexes.iter().chain(&oldest.merged);
            let names = indexes.map(|index| index.id.file_name());
            self.work.unwanted.extend(names);
            self.segments.list.pop_front();
        }
        self.work.forget_unsound_before(to);
        self.queues.retire_before(to);
        self.cold.retire_before(to);
        self.alone.retire_before(to);
    }
}
