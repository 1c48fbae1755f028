//! Whether every message that was acknowledged arrives: once, whole, in its place.
//!
//! An acknowledgement says which message lies at which offset of which queue; a consumer says the same when it sees it. The two
//! are held against each other. What one side has said and the other not yet is kept, and only that. Sends and consumption
//! of a queue are checked on the same thread.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// How many sequence numbers of a stream are remembered for finding duplicates.
const REMEMBERED: u64 = 1 << 20;

/// How many messages that nobody acknowledged may hold up a queue's memory.
const UNACKNOWLEDGED_KEPT: usize = 1 << 16;

/// A message of this run: its stream and its number there.
pub type Id = (u32, u64);

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Messages of this run that arrived.
    pub arrived: u64,
    /// Acknowledged, and not arrived by the end.
    pub lost: u64,
    /// Arrived more than once.
    pub duplicates: u64,
    /// Another message lies where the acknowledgement said.
    pub misplaced: u64,
    /// An offset of a queue was left out, or came again, or a later send got an earlier place.
    pub out_of_order: u64,
    /// The body, or its checksum, is not what was sent.
    pub damaged: u64,
    /// Arrived without an acknowledgement. Allowed where a send got no answer or an error.
    pub unacknowledged: u64,
    /// Sends that got no answer or an error.
    pub uncertain: u64,
    /// Messages of others in the queues.
    pub foreign: u64,
}

impl Findings {
    /// Whether the broker kept its word.
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.duplicates == 0
            && self.misplaced == 0
            && self.out_of_order == 0
            && self.damaged == 0
            && self.unacknowledged <= self.uncertain
    }
}

impl std::ops::AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.arrived += other.arrived;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.misplaced += other.misplaced;
        self.out_of_order += other.out_of_order;
        self.damaged += other.damaged;
        self.unacknowledged += other.unacknowledged;
        self.uncertain += other.uncertain;
        self.foreign += other.foreign;
    }
}

/// What a thread has to compare.
#[derive(Debug, Default)]
pub struct Checker {
    findings: Findings,
    queues: BTreeMap<usize, Queue>,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The offset of the first cell.
    base: u64,
    cells: VecDeque<Cell>,
    /// The next offset that the consumer should see.
    next: u64,
    /// Cells that were acknowledged and not seen.
    awaited: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    acknowledged: Option<Id>,
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Ours(Id),
    Foreign,
}

#[derive(Debug)]
struct Stream {
    /// One more than the highest number seen.
    end: u64,
    bits: Vec<u64>,
}

impl Checker {
    /// Takes note of a queue whose consumption starts at this offset.
    pub fn watch(&mut self, queue: usize, offset: u64) {
        self.queues.insert(
            queue,
            Queue {
                base: offset,
                next: offset,
                ..Queue::default()
            },
        );
    }

    /// The broker says that `messages` messages from `first` on lie at `offset` and behind it. `floor` is an offset that had
    /// been acknowledged for the same queue before the send was made.
    pub fn acknowledged(
        &mut self,
        queue: usize,
        offset: u64,
        first: Id,
        messages: u64,
        floor: Option<u64>,
    ) {
        self.findings.acknowledged += messages;
        if floor.is_some_and(|floor| offset <= floor) {
            self.findings.out_of_order += 1;
        }
        let Some(state) = self.queues.get_mut(&queue) else {
            return;
        };
        for number in 0..messages {
            let id = (first.0, first.1 + number);
            match state.cell(offset + number) {
                Some(cell) if cell.acknowledged.is_none() => {
                    cell.acknowledged = Some(id);
                    match cell.seen {
                        None => state.awaited += 1,
                        Some(seen) if seen != Seen::Ours(id) => self.findings.misplaced += 1,
                        Some(_) => {}
                    }
                }
                // Two messages at one offset, or one where consumption had gone by.
                _ => self.findings.misplaced += 1,
            }
        }
        state.forget(&mut self.findings);
    }

    /// A send got an error, or no answer by the end.
    pub fn uncertain(&mut self, messages: u64) {
        self.findings.uncertain += messages;
    }

    /// A consumer saw a message; `id` is `None` for one that is not of this run.
    pub fn seen(&mut self, queue: usize, offset: u64, id: Option<Id>, is_whole: bool) {
        let Some(state) = self.queues.get_mut(&queue) else {
            return;
        };
        if offset != state.next {
            self.findings.out_of_order += 1;
        }
        state.next = offset + 1;
        match id {
            None => self.findings.foreign += 1,
            Some((stream, seq)) => {
                self.findings.arrived += 1;
                self.findings.damaged += u64::from(!is_whole);
                let stream = self.streams.entry(stream).or_insert_with(|| Stream {
                    end: 0,
                    bits: vec![0; REMEMBERED as usize / 64],
                });
                self.findings.duplicates += u64::from(stream.is_known(seq));
            }
        }
        let seen = id.map_or(Seen::Foreign, Seen::Ours);
        if let Some(cell) = state.cell(offset)
            && cell.seen.is_none()
        {
            cell.seen = Some(seen);
            if let Some(acknowledged) = cell.acknowledged {
                state.awaited -= 1;
                self.findings.misplaced += u64::from(Seen::Ours(acknowledged) != seen);
            }
        }
        state.forget(&mut self.findings);
    }

    /// Whether everything that was acknowledged has arrived.
    pub fn is_settled(&self) -> bool {
        self.queues.values().all(|queue| queue.awaited == 0)
    }

    /// The end: what has not arrived is lost.
    pub fn finish(mut self) -> Findings {
        for queue in self.queues.values() {
            self.findings.lost += queue.awaited as u64;
            let unacknowledged = |cell: &&Cell| {
                matches!(cell.seen, Some(Seen::Ours(_))) && cell.acknowledged.is_none()
            };
            self.findings.unacknowledged +=
                queue.cells.iter().filter(unacknowledged).count() as u64;
        }
        self.findings
    }
}

impl Queue {
    fn cell(&mut self, offset: u64) -> Option<&mut Cell> {
        let at = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        if at >= self.cells.len() {
            self.cells.resize(at + 1, Cell::default());
        }
        self.cells.get_mut(at)
    }

    /// Drops from the front what both sides have said.
    fn forget(&mut self, findings: &mut Findings) {
        while let Some(cell) = self.cells.front() {
            match (cell.acknowledged, cell.seen) {
                (Some(_), Some(_)) | (None, Some(Seen::Foreign)) => {}
                (None, Some(Seen::Ours(_))) if self.cells.len() > UNACKNOWLEDGED_KEPT => {
                    findings.unacknowledged += 1;
                }
                _ => return,
            }
            self.cells.pop_front();
            self.base += 1;
        }
    }
}

impl Stream {
    /// Marks a number; whether it was marked before.
    fn is_known(&mut self, seq: u64) -> bool {
        // A number far ahead comes from a damaged body; one far behind shares its slot with another.
        let (behind, ahead) = (self.end.saturating_sub(seq), seq.saturating_sub(self.end));
        if behind > REMEMBERED - 64 || ahead > REMEMBERED {
            return false;
        }
        while self.end <= seq {
            // The slots of numbers that fall out of memory are used again.
            if self.end.is_multiple_of(64) {
                let word = (self.end / 64) as usize % self.bits.len();
                self.bits[word] = 0;
            }
            self.end += 1;
        }
        let word = &mut self.bits[(seq / 64) as usize % (REMEMBERED as usize / 64)];
        let bit = 1 << (seq % 64);
        let known = *word & bit != 0;
        *word |= bit;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checker() -> Checker {
        let mut checker = Checker::default();
        checker.watch(0, 100);
        checker
    }

    #[test]
    fn a_good_broker_is_clean_in_either_order() {
        let mut checker = checker();
        checker.acknowledged(0, 100, (1, 0), 2, None);
        assert!(!checker.is_settled());
        checker.seen(0, 100, Some((1, 0)), true);
        checker.seen(0, 101, Some((1, 1)), true);
        checker.seen(0, 102, None, true);
        checker.seen(0, 103, Some((1, 2)), true);
        checker.acknowledged(0, 103, (1, 2), 1, Some(101));
        assert!(checker.is_settled());
        assert!(checker.queues[&0].cells.is_empty());
        let findings = checker.finish();
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!(
            (findings.acknowledged, findings.arrived, findings.foreign),
            (3, 3, 1)
        );
    }

    #[test]
    fn what_never_arrives_is_lost() {
        let mut checker = checker();
        checker.acknowledged(0, 100, (1, 0), 3, None);
        checker.seen(0, 100, Some((1, 0)), true);
        let findings = checker.finish();
        assert_eq!(findings.lost, 2);
        assert!(!findings.is_clean());
    }

    #[test]
    fn what_comes_twice_is_a_duplicate() {
        let mut checker = checker();
        checker.acknowledged(0, 100, (1, 0), 1, None);
        checker.seen(0, 100, Some((1, 0)), true);
        checker.seen(0, 101, Some((1, 0)), true);
        let findings = checker.finish();
        assert_eq!((findings.duplicates, findings.unacknowledged), (1, 1));
        assert!(!findings.is_clean());
    }

    #[test]
    fn another_message_at_the_place_is_found() {
        let mut checker = checker();
        checker.acknowledged(0, 100, (1, 0), 1, None);
        checker.seen(0, 100, Some((1, 1)), true);
        checker.seen(0, 101, Some((2, 7)), true);
        checker.acknowledged(0, 101, (2, 8), 1, None);
        assert_eq!(checker.finish().misplaced, 2);
    }

    #[test]
    fn order_and_damage_are_found() {
        let mut checker = checker();
        checker.seen(0, 100, Some((1, 0)), true);
        checker.seen(0, 102, Some((1, 1)), false);
        checker.acknowledged(0, 100, (1, 0), 1, Some(100));
        let findings = checker.finish();
        assert_eq!((findings.out_of_order, findings.damaged), (2, 1));
    }

    #[test]
    fn a_send_without_an_answer_may_arrive() {
        let mut checker = checker();
        checker.uncertain(1);
        checker.seen(0, 100, Some((1, 0)), true);
        assert!(checker.finish().is_clean());
        let mut checker = self::checker();
        checker.seen(0, 100, Some((1, 0)), true);
        assert!(!checker.finish().is_clean());
    }

    #[test]
    fn the_memory_of_a_stream_slides() {
        let mut stream = Stream {
            end: 0,
            bits: vec![0; REMEMBERED as usize / 64],
        };
        for seq in 0..3 * REMEMBERED {
            assert!(!stream.is_known(seq));
        }
        assert!(stream.is_known(3 * REMEMBERED - 1));
        assert!(stream.is_known(2 * REMEMBERED + 100));
    }
}
