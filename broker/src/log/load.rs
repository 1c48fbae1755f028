//! Opening a log: what indexes tell of the groups that the checkpoint has left behind, so that they need not be read.

use super::index::Meta;
use super::recovery::Recovery;
use super::seal::{Run, SealError, seal};
use super::segment::{IndexId, Segment};
use super::{Io, OpenError, Position};

impl<I: Io> Recovery<'_, I> {
    /// Loads the indexes of what the checkpoint has left behind, and builds those of full segments that are missing. Returns
    /// where the last of them ends.
    pub(super) async fn load_indexes(&mut self) -> Result<Option<Position>, OpenError> {
        let mut follows = None;
        while let Some(segment) = self.log.segments.ready.pop_front() {
            let behind = segment.limit() <= self.checkpoint.position;
            let start = segment.start;
            self.log.segments.list.push_back(segment);
            if behind && self.load_index(IndexId::whole(start)).await? {
                follows = Some(self.log.segments.newest().end);
                continue;
            }
            while self
                .load_index(IndexId::run(self.log.segments.newest().indexed_to()))
                .await?
            {}
            if behind {
                self.build_missing().await?;
            }
            let newest = self.log.segments.newest();
            if !newest.indexes.is_empty() {
                follows = Some(newest.end);
            }
            if !behind {
                break;
            }
        }
        Ok(follows)
    }

    /// Loads an index of the newest segment, if it is there, sound, and of nothing that the checkpoint has not left behind.
    async fn load_index(&mut self, id: IndexId) -> Result<bool, OpenError> {
        if !self.indexes.contains(&id) {
            return Ok(false);
        }
        let limit = self
            .log
            .segments
            .newest()
            .limit()
            .min(self.checkpoint.position);
        let found = Meta::read(self.io, self.log.log_id, id).await?;
        let Some(meta) = found.filter(|meta| (id.start()..=limit).contains(&meta.end)) else {
            return Ok(false);
        };
        self.report.indexes += 1;
        self.take_index(&meta)?;
        // Behind an index of no group there is none of the same name.
        Ok(meta.end > id.start() || id.is_whole())
    }

    /// Builds the index of what of the newest segment, which is full, is in none.
    async fn build_missing(&mut self) -> Result<(), OpenError> {
        let segment = self.log.segments.newest().clone();
        let (from, end) = (segment.indexed_to(), self.end_of(&segment).await?);
        if from == end && !segment.indexes.is_empty() {
            return Ok(());
        }
        self.report.rebuilt += 1;
        let id = match from == segment.start {
            true => IndexId::whole(from),
            false => IndexId::run(from),
        };
        let run = Run {
            id,
            segment: segment.start,
            len: segment.len,
            end,
        };
        let (log_id, holes) = (self.log.log_id, &self.log.holes);
        let births = self.log.queues.births(segment.start..segment.limit());
        let built = seal(self.io, log_id, run, holes, births, 0).await;
        let meta = built.map_err(|error| match error {
            SealError::Io(error) => OpenError::Io(error),
            SealError::Damaged(position) => self.damaged(
                position,
                "there is no sound group where one was acknowledged",
            ),
            SealError::Unsound(id) => self.damaged(id.start(), "an index is not sound"),
        })?;
        self.indexes.insert(id);
        self.take_index(&meta)
    }

    /// Lets the newest segment and the queues know of an index.
    fn take_index(&mut self, meta: &Meta) -> Result<(), OpenError> {
        let mut lost = Vec::new();
        let found = self.log.queues.find_all(&meta.rows);
        for (row, queue) in meta.rows.iter().zip(found) {
            if let Some(queue) = queue {
                let queue = self.log.queues.get_mut(queue);
                let may_skip = self.crossing.is_behind(&self.log.holes, row.position);
                let (known, expected) = (!queue.parts.is_empty(), queue.base);
                if queue.take_row(meta.id, row, may_skip) {
                    if known && expected < row.first {
                        lost.push((row.topic.clone(), row.queue_id, expected..row.first));
                    }
                } else if queue.owns(row.position) {
                    return Err(self.damaged(
                        meta.id.start(),
                        "the indexes of a queue do not follow one another",
                    ));
                }
            }
        }
        for (topic, queue_id, offsets) in lost {
            self.note_lost(&topic, queue_id, offsets, true);
        }
        self.epoch = self.epoch.max(meta.epoch);
        self.log.segments.newest_mut().load_index(meta);
        Ok(())
    }

    /// Where the last group of a segment that is behind the checkpoint ends: the next segment's first group says it.
    async fn end_of(&mut self, segment: &Segment) -> Result<Position, OpenError> {
        let limit = segment.limit();
        if limit == self.checkpoint.position {
            return Ok(limit);
        }
        let mut holes = self.log.holes.iter();
        if let Some(hole) = holes.find(|hole| hole.from <= limit && limit < hole.to) {
            return Ok(hole.from.max(segment.start));
        }
        let (log_id, longest) = (self.log.log_id, self.checkpoint.in_flight_bytes);
        match self
            .reader(limit)
            .await?
            .group(log_id, limit, longest)
            .await?
        {
            Ok((header, _)) if (segment.start..=limit).contains(&header.follows) => {
                Ok(header.follows)
            }
            _ => Err(self.damaged(limit, "there is no sound group where one was acknowledged")),
        }
    }

    /// Removes indexes of groups that were scanned. What followed such a segment when it was sealed may have been lost: it
    /// goes on then, and its index would not know of what comes.
    pub(super) async fn remove_old_indexes(&mut self) -> Result<(), OpenError> {
        let from = self.report.scanned_from;
        let newest = self
            .log
            .segments
            .at(from)
            .map_or(from, |segment| segment.start);
        let of_scanned = |id: &IndexId| id.start() >= from || *id == IndexId::whole(newest);
        let old: Vec<IndexId> = self.indexes.iter().copied().filter(of_scanned).collect();
        for id in &old {
            self.io.remove(&id.file_name()).await?;
            self.indexes.remove(id);
        }
        if !old.is_empty() {
            self.io.sync_dir().await?;
        }
        Ok(())
    }
}
