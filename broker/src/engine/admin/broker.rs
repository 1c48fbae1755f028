//! The broker itself: GET_BROKER_RUNTIME_INFO 28, GET_BROKER_CONFIG 26.

use std::collections::BTreeMap;

use corelane_wire::body::KvTable;
use corelane_wire::code::response;

use crate::engine::Engine;
use crate::engine::turn::{Refusal, Request, Turn};

impl Engine {
    pub(super) fn runtime_info(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let counters = self.counters;
        let mut table = BTreeMap::new();
        let mut says = |key: &str, value: String| {
            table.insert(key.to_owned(), value);
        };
        says("brokerActive", "true".to_owned());
        says("brokerVersionDesc", "V5_5_0".to_owned());
        says("bootTimestamp", self.started_wall_ms.to_string());
        says("msgPutTotalTodayNow", counters.messages_in.to_string());
        says("putMessageSizeTotal", counters.bytes_in.to_string());
        says("commitLogMinOffset", turn.log.min_position().to_string());
        says("commitLogMaxOffset", turn.log.max_position().to_string());
        turn.answer_body(req.to, &KvTable { table }.to_json());
        Ok(())
    }

    pub(super) fn broker_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let version = String::from_utf8_lossy(&self.topics.data_version().to_json()).into_owned();
        let body = self.settings.described.clone();
        turn.answer(
            req.to,
            response::SUCCESS,
            None,
            |fields| fields.field("version", &version),
            body.as_bytes(),
        );
        Ok(())
    }
}
