//! Requests of our own to clients, and what is done with their answers.
//!
//! A call is known by its opaque, and is answered by the connection it went to or by nobody. It ends once: with the
//! answer, when its time is over, or when its connection closes. At most [`MAX_CALLS`] are under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use corelane_wire::body::{GetConsumerStatusBody, MessageQueue};
use corelane_wire::code::response;
use corelane_wire::message_id::IdText;
use corelane_wire::{Frame, FrameWriter, Text};

use super::Engine;
use super::turn::{Connection, Refusal, ReplyTo, Turn};

/// Calls that wait for their answer, at most.
const MAX_CALLS: usize = 10_000;

/// A reply that was stored while it is pushed to the client that waits for it.
pub struct StoredReply {
    /// Its offset message id.
    pub msg_id: IdText,
    /// Its queue.
    pub queue_id: i32,
    /// Its offset there.
    pub queue_offset: i64,
}

/// What is done with the answer to a call.
pub enum Then {
    /// It is the answer to somebody's request.
    Relay {
        /// Who asked.
        to: ReplyTo,
    },
    /// It says whether a client took a reply.
    Pushed {
        /// Who sent the reply.
        to: ReplyTo,
        /// What the answer says beside.
        stored: StoredReply,
    },
    /// It is one client's part of a table.
    Status {
        /// The table.
        survey: u64,
        /// The client.
        client_id: String,
    },
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Its time is over.
    #[error("the client did not answer in time")]
    TimedOut,
    /// Its connection closed.
    #[error("the client's connection closed before it answered")]
    Gone,
}

struct Call {
    connection: Connection,
    deadline_mono_ms: i64,
    then: Then,
}

/// A table that several clients fill.
struct Survey {
    to: ReplyTo,
    /// Clients that have not answered.
    open: usize,
    table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
}

/// The calls of a shard that are under way.
#[derive(Default)]
pub struct Calls {
    by_opaque: HashMap<i32, Call>,
    by_connection: BTreeSet<(Connection, i32)>,
    deadlines: BTreeSet<(i64, i32)>,
    surveys: HashMap<u64, Survey>,
    last_survey: u64,
}

impl Calls {
    fn insert(&mut self, opaque: i32, call: Call) {
        self.by_connection.insert((call.connection, opaque));
        self.deadlines.insert((call.deadline_mono_ms, opaque));
        self.by_opaque.insert(opaque, call);
    }

    fn remove(&mut self, opaque: i32) -> Option<Then> {
        let call = self.by_opaque.remove(&opaque)?;
        self.by_connection.remove(&(call.connection, opaque));
        self.deadlines.remove(&(call.deadline_mono_ms, opaque));
        Some(call.then)
    }

    /// Takes the call that a connection answers.
    fn answered(&mut self, connection: Connection, opaque: i32) -> Option<Then> {
        if self.by_opaque.get(&opaque)?.connection != connection {
            return None;
        }
        self.remove(opaque)
    }

    fn of(&self, connection: Connection) -> Vec<i32> {
        let range = (connection, i32::MIN)..=(connection, i32::MAX);
        self.by_connection
            .range(range)
            .map(|(_, opaque)| *opaque)
            .collect()
    }

    /// When the first of them is over.
    pub fn deadline_mono_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

impl Engine {
    /// Sends a request to a client. `then` is done with what it answers within `wait_ms`.
    #[expect(clippy::too_many_arguments, reason = "a request has that many parts")]
    pub(super) fn call(
        &mut self,
        turn: &mut Turn<'_>,
        connection: Connection,
        code: i32,
        wait_ms: i64,
        then: Then,
        fields: impl FnOnce(&mut FrameWriter<'_>),
        body: &[u8],
    ) -> Result<(), Refusal> {
        if self.calls.by_opaque.len() >= MAX_CALLS {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "too many requests to clients wait for their answers",
            ));
        }
        let opaque = self.next_opaque();
        let deadline_mono_ms = turn.now.mono_ms + wait_ms;
        self.calls.insert(
            opaque,
            Call {
                connection,
                deadline_mono_ms,
                then,
            },
        );
        turn.request(connection, opaque, code, fields, body);
        Ok(())
    }

    /// Begins a table that `clients` clients will fill; answered when all have.
    pub(super) fn begin_survey(&mut self, to: ReplyTo, clients: usize) -> u64 {
        self.calls.last_survey += 1;
        let survey = Survey {
            to,
            open: clients,
            table: BTreeMap::new(),
        };
        self.calls.surveys.insert(self.calls.last_survey, survey);
        self.calls.last_survey
    }

    /// A client answered.
    pub(super) fn take_answer(
        &mut self,
        turn: &mut Turn<'_>,
        connection: Connection,
        frame: &Frame<'_>,
    ) {
        match self.calls.answered(connection, frame.opaque) {
            Some(then) => self.end_call(turn, then, Ok(frame)),
            None => tracing::debug!(
                connection = connection.0,
                opaque = frame.opaque,
                "an answer to no call"
            ),
        }
    }

    /// Ends the calls whose time is over.
    pub(super) fn end_overdue_calls(&mut self, turn: &mut Turn<'_>) {
        while let Some((deadline, opaque)) = self.calls.deadlines.first().copied() {
            if deadline > turn.now.mono_ms {
                break;
            }
            if let Some(then) = self.calls.remove(opaque) {
                self.end_call(turn, then, Err(CallError::TimedOut));
            }
        }
    }

    /// Ends the calls of a connection that is gone.
    pub(super) fn end_calls_of(&mut self, turn: &mut Turn<'_>, connection: Connection) {
        for opaque in self.calls.of(connection) {
            if let Some(then) = self.calls.remove(opaque) {
                self.end_call(turn, then, Err(CallError::Gone));
            }
        }
    }

    fn end_call(&mut self, turn: &mut Turn<'_>, then: Then, answer: Result<&Frame<'_>, CallError>) {
        match then {
            Then::Relay { to } => relay(turn, to, answer),
            Then::Pushed { to, stored } => {
                let failure = match answer {
                    Ok(frame) if frame.code == response::SUCCESS => None,
                    Ok(frame) => Some(format!(
                        "the client refused the reply with code {}",
                        frame.code
                    )),
                    Err(error) => Some(error.to_string()),
                };
                self.answer_reply(turn, to, &stored, failure.as_deref());
            }
            Then::Status { survey, client_id } => {
                let table = match answer {
                    Ok(frame) if frame.code == response::SUCCESS => {
                        GetConsumerStatusBody::from_json(frame.body)
                            .ok()
                            .map(|body| body.message_queue_table)
                    }
                    _ => None,
                };
                self.fill_survey(turn, survey, client_id, table);
            }
        }
    }

    /// One client's part of a survey is there, or will not come.
    pub(super) fn fill_survey(
        &mut self,
        turn: &mut Turn<'_>,
        id: u64,
        client_id: String,
        part: Option<BTreeMap<MessageQueue, i64>>,
    ) {
        let Some(survey) = self.calls.surveys.get_mut(&id) else {
            return;
        };
        survey.open -= 1;
        if let Some(part) = part {
            survey.table.insert(client_id, part);
        }
        if survey.open == 0
            && let Some(survey) = self.calls.surveys.remove(&id)
        {
            let body = GetConsumerStatusBody {
                consumer_table: survey.table,
                ..GetConsumerStatusBody::default()
            };
            turn.answer_body(survey.to, &body.to_json());
        }
    }
}

/// Hands a client's answer on to who asked for it.
fn relay(turn: &mut Turn<'_>, to: ReplyTo, answer: Result<&Frame<'_>, CallError>) {
    match answer {
        Ok(frame) => {
            let remark = frame.remark.as_ref().map(Text::to_str);
            let fields = |writer: &mut FrameWriter<'_>| {
                for (name, value) in frame.ext.iter() {
                    writer.text_field(&name.to_str(), value);
                }
            };
            turn.answer(to, frame.code, remark.as_deref(), fields, frame.body);
        }
        Err(error) => {
            let code = match error {
                CallError::TimedOut => response::CONSUME_MSG_TIMEOUT,
                CallError::Gone => response::SYSTEM_ERROR,
            };
            turn.refuse(to, &Refusal::new(code, error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_wire::frame::Serialization;

    fn call(connection: u64, deadline_mono_ms: i64) -> Call {
        let to = ReplyTo {
            connection: Connection(9),
            opaque: 1,
            serialization: Serialization::Json,
            oneway: false,
        };
        Call {
            connection: Connection(connection),
            deadline_mono_ms,
            then: Then::Relay { to },
        }
    }

    #[test]
    fn only_the_connection_that_was_asked_answers_and_only_once() {
        let mut calls = Calls::default();
        calls.insert(7, call(1, 100));
        calls.insert(8, call(2, 50));
        calls.insert(9, call(1, 70));
        assert_eq!(calls.deadline_mono_ms(), Some(50));
        assert!(calls.answered(Connection(2), 7).is_none());
        assert!(calls.answered(Connection(1), 7).is_some());
        assert!(calls.answered(Connection(1), 7).is_none());
        assert_eq!(calls.of(Connection(1)), [9]);
        assert!(calls.remove(8).is_some());
        assert_eq!(calls.deadline_mono_ms(), Some(70));
    }
}
