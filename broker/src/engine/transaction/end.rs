//! END_TRANSACTION 37: a producer says what becomes of its half message.

use corelane_wire::ExtHeader;
use corelane_wire::code::{response, sys_flag};
use corelane_wire::header::send::EndTransactionRequest;
use corelane_wire::properties::{Edit, name as property};
use corelane_wire::record::Record;

use super::half::copied;
use super::{ENDED, HALF_TOPIC};
use crate::engine::Engine;
use crate::engine::position::no_topic;
use crate::engine::store::NewMessage;
use crate::engine::turn::{Refusal, Request, Turn};
use crate::log::{Position, ReadMiss};

/// What the state record of an end takes in the log, in bytes.
const END_BYTES: usize = 12 + size_of::<i64>();

impl Engine {
    /// END_TRANSACTION 37. UNKNOWN changes nothing: the producer will be asked.
    pub(in crate::engine) fn end_transaction(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = EndTransactionRequest::decode(&req.frame.ext)?;
        let commits = match header.commit_or_rollback {
            sys_flag::TRANSACTION_COMMIT => true,
            sys_flag::TRANSACTION_ROLLBACK => false,
            0 => {
                turn.answer_ok(req.to);
                return Ok(());
            }
            other => {
                return Err(wrong(format!(
                    "commitOrRollback is {other}; it is 8, 12 or 0"
                )));
            }
        };
        let offset = header.tran_state_table_offset;
        if !self.transactions.pending.contains_key(&offset) {
            return Err(wrong(
                "find prepared transaction message failed: it is not there, or has ended already"
                    .to_owned(),
            ));
        }
        let position = Position::try_from(header.commit_log_offset).map_err(|_| {
            wrong(format!(
                "{} is not a commit log offset",
                header.commit_log_offset
            ))
        })?;
        let slice = match turn.log.record_at(position) {
            Ok(slice) => slice,
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Err(miss) => {
                return Err(wrong(format!(
                    "find prepared transaction message failed: {miss}"
                )));
            }
        };
        let Ok((record, _)) = Record::parse(&slice) else {
            return Err(wrong(
                "find prepared transaction message failed: the record is damaged".to_owned(),
            ));
        };
        self.check_end(turn, &header, &record)?;
        let end = match commits {
            true => self.commit(turn, &record, offset)?,
            false => self.journal_end(turn, offset)?,
        };
        self.answer_when_durable(turn, req.to, end, 0);
        Ok(())
    }

    fn check_end(
        &self,
        turn: &Turn<'_>,
        header: &EndTransactionRequest<'_>,
        record: &Record<'_>,
    ) -> Result<(), Refusal> {
        if record.topic() != HALF_TOPIC {
            return Err(wrong(
                "the commit log offset wrong: no half message lies there".to_owned(),
            ));
        }
        if record.queue_offset() != header.tran_state_table_offset {
            return Err(wrong("the transaction state table offset wrong".to_owned()));
        }
        let [group, immunity] = record
            .properties()
            .find([property::PGROUP, property::CHECK_IMMUNITY_TIME_IN_SECONDS]);
        if group != Some(header.producer_group) {
            return Err(wrong("the producer group wrong".to_owned()));
        }
        let immunity_ms = immunity.and_then(|secs| immunity_ms(&secs.to_str()));
        let age_ms = turn.now.wall_ms - record.store_timestamp();
        if !header.from_transaction_check
            && immunity_ms.is_some_and(|immunity_ms| age_ms > immunity_ms)
        {
            return Err(Refusal::new(
                response::ILLEGAL_OPERATION,
                "the time in which the message is not checked is over: its end is taken from a check only",
            ));
        }
        Ok(())
    }

    /// Stores the message where it belongs and ends its half message. Gives the log's end behind both.
    fn commit(
        &mut self,
        turn: &mut Turn<'_>,
        record: &Record<'_>,
        offset: i64,
    ) -> Result<Position, Refusal> {
        let [topic, queue_id] = record
            .properties()
            .find([property::REAL_TOPIC, property::REAL_QID]);
        let topic = topic.map(|topic| topic.to_str()).unwrap_or_default();
        let Some(known) = self.topics.get_mut(&topic) else {
            return Err(no_topic(&topic));
        };
        let named = queue_id
            .and_then(|id| id.to_str().parse::<i32>().ok())
            .unwrap_or(0);
        // The topic may have lost queues since.
        let queue_id = if (0..known.queue_count()).contains(&named) {
            named
        } else {
            0
        };
        let queue = known.queue(turn.log, queue_id);
        let checks = self
            .transactions
            .pending
            .get(&offset)
            .map_or(0, |pending| pending.checks);
        let times = if checks > 0 {
            checks.to_string()
        } else {
            String::new()
        };
        let append = [(property::TRANSACTION_CHECK_TIMES, times.as_str())];
        let without = [property::REAL_TOPIC, property::REAL_QID];
        let properties = Edit {
            ready: "",
            received: record.properties(),
            without: &without,
            append: &append,
        };
        let message = NewMessage {
            sys_flag: record.sys_flag() & !sys_flag::TRANSACTION_MASK
                | sys_flag::TRANSACTION_COMMIT,
            prepared_transaction_offset: record.physical_offset(),
            ..copied(record, &topic, queue_id, queue, properties)
        };
        self.store_and_end(turn, &message, offset)
    }

    /// Stores what becomes of a half message and ends it: after a crash both are there, or neither.
    pub(super) fn store_and_end(
        &mut self,
        turn: &mut Turn<'_>,
        message: &NewMessage<'_>,
        offset: i64,
    ) -> Result<Position, Refusal> {
        turn.log
            .together(self.layout(message)?.total_len() + END_BYTES)?;
        self.store(turn, message)?;
        self.journal_end(turn, offset)
    }

    /// Ends a half message. Gives the log's end behind that.
    pub(super) fn journal_end(
        &mut self,
        turn: &mut Turn<'_>,
        offset: i64,
    ) -> Result<Position, Refusal> {
        let end = turn.log.append_state(ENDED, &offset.to_le_bytes())?;
        self.transactions.remove(offset);
        Ok(end)
    }
}

/// The time for which a message says that it is not to be checked, in milliseconds; `None` where it says nothing usable.
pub(super) fn immunity_ms(secs: &str) -> Option<i64> {
    secs.parse::<i64>()
        .ok()
        .filter(|secs| (0..=i64::from(i32::MAX)).contains(secs))
        .map(|secs| secs * 1000)
}

fn wrong(what: String) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, what)
}
