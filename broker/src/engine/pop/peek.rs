//! PEEK_MESSAGE 200052: what a pop would give, without taking it. POP_ROLLBACK 200056.

use corelane_wire::ExtHeader;
use corelane_wire::code::response;
use corelane_wire::header::pop::PeekMessageRequest;

use super::take::Wanted;
use super::{Answer, Engine, MAX_MESSAGES};
use crate::engine::pull::PullFilter;
use crate::engine::turn::{Refusal, Request, Turn};

impl Engine {
    /// PEEK_MESSAGE 200052.
    pub(in crate::engine) fn peek(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = PeekMessageRequest::decode(&req.frame.ext)?;
        self.check_broker_pops("peeking")?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        let queues = self.check_popped(turn, &group, &topic, header.queue_id)?;
        self.pops.round = self.pops.round.wrapping_add(1);
        let wanted = Wanted {
            group: &group,
            topic: &topic,
            queue_id: header.queue_id,
            queues,
            most: usize::try_from(header.max_msg_nums)
                .unwrap_or(0)
                .clamp(1, MAX_MESSAGES),
            filter: &PullFilter::Own(self.filter_all.clone()),
            from_end: false,
            pop_ms: turn.now.wall_ms,
            attempt_id: "",
        };
        let haul = self.take(turn, &wanted, false);
        let answer = Answer {
            topic: &topic,
            pop_ms: turn.now.wall_ms,
            invisible_ms: 0,
            revive_qid: 0,
        };
        if haul.messages == 0 {
            if let Some(read) = haul.read {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            self.answer_pop(turn, req, response::PULL_NOT_FOUND, &answer, &haul);
            return Ok(());
        }
        self.answer_pop(turn, req, response::SUCCESS, &answer, &haul);
        Ok(())
    }

    /// POP_ROLLBACK 200056: there is only one place where pops are kept, so there is nothing to move.
    pub(in crate::engine) fn pop_rollback(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        turn.answer_ok(req.to);
        Ok(())
    }
}
