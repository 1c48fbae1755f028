//! Finding messages by key: through the key pages of indexes, and a table made when it is asked for of the groups in none.
//!
//! A key is looked up by a hash of 32 bits; each message found is read and compared, so that what is returned is exact.
//! The table of groups that are in no index takes 16 bytes a key, and exists only from the first search on.

use super::index::{KEYS_PER_PAGE, key_hash, keys_of};
use super::segment::IndexId;
use super::stored::{self, Stored};
use super::{Log, Position, ReadMiss, Slice};
use crate::log::group::records;
use std::collections::VecDeque;

/// Searches that wait for reads and remember how far they came; the oldest is given up, and begins again if it is asked.
const SEARCHES: usize = 16;

/// How far off a guess from the hash is, at most, nearly always.
const NEAR_PAGES: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Query {
    topic: String,
    key: String,
    from_ms: i64,
    to_ms: i64,
    max: usize,
}

/// Where a search goes on.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The groups without an index.
    Unsealed,
    /// The newest index that begins before a position.
    Before(Position),
    /// The first key page that can hold the hash is in `low..=high`.
    Locate {
        index: IndexId,
        low: u32,
        high: u32,
        probes: u32,
    },
    /// Keys from a page on.
    Collect {
        index: IndexId,
        page: u32,
    },
    Done,
}

#[derive(Debug)]
struct KeySearch {
    query: Query,
    hash: u32,
    stage: Stage,
    /// Positions that may be right, newest first.
    candidates: VecDeque<Position>,
    found: Vec<Position>,
}

/// Searches under way, and the keys of groups that are in no index.
#[derive(Debug, Default)]
pub(super) struct Keys {
    searches: VecDeque<KeySearch>,
    /// Hash and position, in log order.
    recent: Vec<(u32, Position)>,
    /// The keys of groups before it are in `recent`.
    until: Position,
}

impl Keys {
    /// Lets all searches begin again: indexes that they have come to are gone.
    pub fn begin_again(&mut self) {
        self.searches.clear();
    }
}

impl Log {
    /// Positions of up to `max` messages of the topic that carry `key` among their keys or as unique key and were stored
    /// from `from_ms` to `to_ms`, newest first.
    pub fn find_by_key(
        &mut self,
        topic: &str,
        key: &str,
        from_ms: i64,
        to_ms: i64,
        max: usize,
    ) -> Result<Vec<Position>, ReadMiss> {
        let query = Query {
            topic: topic.into(),
            key: key.into(),
            from_ms,
            to_ms,
            max,
        };
        let known = self
            .keys
            .searches
            .iter()
            .position(|search| search.query == query);
        let mut search = known
            .and_then(|at| self.keys.searches.remove(at))
            .unwrap_or_else(|| KeySearch {
                hash: key_hash(topic, key),
                query,
                stage: Stage::Unsealed,
                candidates: VecDeque::new(),
                found: Vec::new(),
            });
        match self.search(&mut search) {
            Ok(()) => {
                // It may have taken several reads, and retention does not wait for it.
                let oldest = self.min_position();
                search.found.retain(|&position| position >= oldest);
                Ok(search.found)
            }
            Err(miss) => {
                if matches!(miss, ReadMiss::Wanted(_)) {
                    self.keys.searches.push_back(search);
                    if self.keys.searches.len() > SEARCHES {
                        self.keys.searches.pop_front();
                    }
                }
                Err(miss)
            }
        }
    }

    fn search(&mut self, search: &mut KeySearch) -> Result<(), ReadMiss> {
        loop {
            // All of an index's are known before the first is read: the newest comes first.
            let known = !matches!(search.stage, Stage::Collect { .. });
            while known && let Some(&candidate) = search.candidates.front() {
                if search.found.len() >= search.query.max {
                    return Ok(());
                }
                match self.record_at(candidate) {
                    Ok(bytes) if search.query.matches(&bytes) => search.found.push(candidate),
                    Ok(_) | Err(ReadMiss::Gone) => {}
                    Err(miss) => return Err(miss),
                }
                search.candidates.pop_front();
            }
            search.stage = match search.stage {
                Stage::Unsealed => {
                    let start = self.collect_recent_keys()?;
                    let recent = self
                        .keys
                        .recent
                        .iter()
                        .rev()
                        .filter(|(hash, _)| *hash == search.hash);
                    search
                        .candidates
                        .extend(recent.map(|&(_, position)| position));
                    Stage::Before(start)
                }
                Stage::Before(position) => self.next_sealed(position, &search.query),
                Stage::Locate {
                    index,
                    low,
                    high,
                    probes,
                } => self.locate(index, search.hash, low, high, probes)?,
                Stage::Collect { index, page } => self.collect(index, page, search)?,
                Stage::Done => return Ok(()),
            };
        }
    }

    /// The newest index before `position` that can hold what is looked for.
    fn next_sealed(&self, position: Position, query: &Query) -> Stage {
        let indexes = self.segments.list.iter().rev();
        let indexes = indexes.flat_map(|segment| segment.indexes.iter().rev());
        for index in indexes.filter(|index| index.id.start() < position) {
            if index.newest_ms < query.from_ms {
                return Stage::Done;
            }
            if index.oldest_ms <= query.to_ms && index.layout.keys > 0 {
                let high = index.layout.key_pages().1 - 1;
                return Stage::Locate {
                    index: index.id,
                    low: 0,
                    high,
                    probes: 0,
                };
            }
        }
        Stage::Done
    }

    /// One probe for the first page whose last hash is not below `hash`. A probe needs one page only, so that any cache is
    /// large enough.
    fn locate(
        &mut self,
        index: IndexId,
        hash: u32,
        low: u32,
        high: u32,
        probes: u32,
    ) -> Result<Stage, ReadMiss> {
        if low >= high {
            return Ok(Stage::Collect { index, page: low });
        }
        let page = match probes {
            // Hashes are spread evenly, so the first guess is close; the second one bounds it from the other side.
            0 => low + ((u64::from(hash) * u64::from(high - low)) >> 32) as u32,
            1 if low > 0 => (low + NEAR_PAGES).min(high - 1),
            1 => high.saturating_sub(NEAR_PAGES).max(low),
            _ => low + (high - low) / 2,
        };
        let Some(keys) = self.key_page(index, page)? else {
            return Ok(Stage::Before(index.start()));
        };
        let probes = probes + 1;
        Ok(match (keys.first(), keys.last()) {
            (_, Some(&(last, _))) if last < hash => Stage::Locate {
                index,
                low: page + 1,
                high,
                probes,
            },
            (Some(&(first, _)), _) if first < hash => Stage::Collect { index, page },
            _ => Stage::Locate {
                index,
                low,
                high: page,
                probes,
            },
        })
    }

    fn collect(
        &mut self,
        index: IndexId,
        page: u32,
        search: &mut KeySearch,
    ) -> Result<Stage, ReadMiss> {
        let Some(keys) = self.key_page(index, page)? else {
            return Ok(Stage::Before(index.start()));
        };
        let segment = self.segments.at(index.start()).map(|found| found.start);
        let segment = segment.ok_or(ReadMiss::Gone)?;
        let of_hash = keys.iter().filter(|(hash, _)| *hash == search.hash);
        for &(_, offset) in of_hash {
            search
                .candidates
                .push_front(segment + Position::from(offset));
        }
        let ends_here = keys.last().is_none_or(|&(last, _)| last > search.hash);
        // Keys of a hash are in position order: the newest of this index come to the front last.
        Ok(if ends_here {
            Stage::Before(index.start())
        } else {
            Stage::Collect {
                index,
                page: page + 1,
            }
        })
    }

    /// The keys of a page; `None` behind the last one, or when the index is gone.
    fn key_page(&mut self, index: IndexId, page: u32) -> Result<Option<Vec<(u32, u32)>>, ReadMiss> {
        let Some(layout) = self.segments.layout(index) else {
            return Ok(None);
        };
        let (first, pages) = layout.key_pages();
        if page >= pages {
            return Ok(None);
        }
        let bytes = self.page(index, first + page)?;
        Ok(Some(
            keys_of(
                &bytes,
                (layout.keys - page * KEYS_PER_PAGE).min(KEYS_PER_PAGE),
            )
            .collect(),
        ))
    }

    /// Brings the table of groups that are in no index up to what is durable; returns where the first of them begins.
    fn collect_recent_keys(&mut self) -> Result<Position, ReadMiss> {
        let start = self.segments.indexed_to();
        let gone = self
            .keys
            .recent
            .partition_point(|&(_, position)| position < start);
        self.keys.recent.drain(..gone);
        self.keys.until = self.keys.until.max(start);
        while let Some((group, start)) = self.next_group_for_keys()? {
            for (at, bytes) in records(&group) {
                if let Some(Stored::Message(record)) = Stored::parse(bytes) {
                    let hashes = stored::keys_of(&record).map(|key| key_hash(record.topic(), key));
                    self.keys
                        .recent
                        .extend(hashes.map(|hash| (hash, start + at as Position)));
                }
            }
            self.keys.until = start + group.len() as Position;
        }
        Ok(start)
    }

    /// The first durable group at or after `keys.until`, which moves over what is none, and where it begins.
    fn next_group_for_keys(&mut self) -> Result<Option<(Slice, Position)>, ReadMiss> {
        while self.keys.until < self.durable {
            let position = self.keys.until;
            if let Some(found) = self.tail.group_from(position, self.durable) {
                return Ok(Some(found));
            }
            let Some(segment) = self.segments.at(position) else {
                return Ok(None);
            };
            if position >= segment.end {
                self.keys.until = segment.limit();
                continue;
            }
            match self.cold_group_from(position)? {
                Ok(found) => return Ok(Some(found)),
                Err(next) => self.keys.until = next,
            }
        }
        Ok(None)
    }
}

impl Query {
    fn matches(&self, bytes: &[u8]) -> bool {
        let Some(Stored::Message(record)) = Stored::parse(bytes) else {
            return false;
        };
        record.topic() == self.topic
            && (self.from_ms..=self.to_ms).contains(&record.store_timestamp())
            && stored::keys_of(&record).any(|key| key == self.key)
    }
}
