//! A connection that is only kept alive: a heartbeat now and then.

use corelane_wire::FrameWriter;
use corelane_wire::body::{HeartbeatData, ProducerData};
use corelane_wire::code::{request, response};

use crate::measure::{Recorder, Track};
use crate::plan::{IdlerPlan, Plan};
use crate::reply::Reply;
use crate::template::{FIRST_OPAQUE, head};

/// The state of one connection.
pub struct Idler {
    frame: Vec<u8>,
    due_ns: u64,
    waits: bool,
}

impl Idler {
    /// A connection on which nothing was sent yet.
    pub fn new(plan: &Plan, idler: &IdlerPlan) -> Self {
        let data = HeartbeatData {
            client_id: format!("bench-{:08x}@{}", plan.run, idler.number),
            producer_data_set: vec![ProducerData {
                group_name: plan.sending.group.clone(),
            }],
            ..HeartbeatData::default()
        };
        let mut frame = Vec::new();
        let head = head(plan.serialization, request::HEART_BEAT);
        FrameWriter::new(&mut frame, &head).finish_with(&data.to_json());
        frame.shrink_to_fit();
        Self {
            frame,
            due_ns: 0,
            waits: false,
        }
    }

    /// Appends a heartbeat to `out`; `false` where the one before it has no answer yet.
    pub fn beat(&mut self, out: &mut Vec<u8>, due_ns: u64) -> bool {
        if self.waits {
            return false;
        }
        self.waits = true;
        self.due_ns = due_ns;
        out.extend_from_slice(&self.frame);
        true
    }

    /// Takes an answer; `false` where nothing waited for it.
    pub fn reply(&mut self, reply: &Reply, now_ns: u64, recorder: &mut Recorder) -> bool {
        if !self.waits || reply.opaque != FIRST_OPAQUE {
            return false;
        }
        self.waits = false;
        match reply.code {
            response::SUCCESS => recorder.done(Track::Heartbeat, self.due_ns, now_ns, 0, 0),
            code => recorder.failed(Track::Heartbeat, now_ns, code),
        }
        true
    }
}
