//! Where queues were born whose records an index is of: a topic that was dropped and made again has a row for each life,
//! even where the offsets of one life go on where those of the other end.

use super::Position;
use super::index::Row;
use std::rc::Rc;

/// Of the queues that there are, those born in a range of positions.
#[derive(Debug, Default)]
pub(super) struct Births {
    /// In the order of topics and queue ids.
    born: Vec<(Rc<str>, i32, Position)>,
}

impl FromIterator<(Rc<str>, i32, Position)> for Births {
    /// From topics, queue ids and where they were born, in the order of topics and queue ids.
    fn from_iter<T: IntoIterator<Item = (Rc<str>, i32, Position)>>(born: T) -> Self {
        let born = born.into_iter().collect();
        Self { born }
    }
}

impl Births {
    /// Whether a row is of an earlier life of its queue than a record at `position` is, or one before it.
    pub fn are_between(&self, row: &Row, position: Position) -> bool {
        let key = (&*row.topic, row.queue_id);
        let found = self
            .born
            .binary_search_by(|(topic, queue_id, _)| (&**topic, *queue_id).cmp(&key));
        found.is_ok_and(|at| (row.position + 1..=position).contains(&self.born[at].2))
    }
}
