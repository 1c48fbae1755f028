//! Half messages: delivered once when committed, never when rolled back, asked about not too early and not too often, and
//! put aside when nobody knows.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::code::{request, response, sys_flag};
use corelane_wire::message_id::OffsetId;
use corelane_wire::record::Record;

use super::kept::Kept;
use super::{Feature, QUEUES, Received, World};
use crate::sim::shard::settings;

pub const TOPIC: &str = "paid";
pub const GROUP: &str = "payers";
const DEAD: &str = "TRANS_CHECK_MAX_TIME_TOPIC";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Commit,
    Rollback,
}

#[derive(Default)]
struct Half {
    asked_ms: i64,
    immunity_ms: i64,
    stored: Kept<bool>,
    /// Where it is: its offset in the half queue and its position.
    at: Kept<Option<(String, String)>>,
    commits_asked: u32,
    rollbacks_asked: u32,
    ended: Kept<Option<End>>,
    checks: u32,
    /// It was given up, and somebody had it taken up again.
    resume_asked: bool,
    resumed: Kept<bool>,
}

#[derive(Default)]
pub struct Transactions {
    halves: BTreeMap<String, Half>,
    sends: HashMap<i32, String>,
    ends: HashMap<i32, (String, End)>,
    resumes: HashMap<i32, String>,
    /// Nobody knows any more how a transaction ends.
    silent: bool,
}

impl Transactions {
    fn send(&mut self, world: &mut World) {
        let body = world.body("half");
        let immunity_secs = [0, 0, 3, 20][world.random.below(4)];
        let immunity = immunity_secs.to_string();
        let mut pairs = vec![
            ("TRAN_MSG", "true"),
            ("PGROUP", GROUP),
            ("UNIQ_KEY", &*body),
        ];
        if immunity_secs > 0 {
            pairs.push(("CHECK_IMMUNITY_TIME_IN_SECONDS", &immunity));
        }
        let asked_ms = world.now_ms();
        let opaque = world.send(TOPIC, &body, &pairs);
        let half = Half {
            asked_ms,
            immunity_ms: immunity_secs * 1_000,
            ..Half::default()
        };
        self.halves.insert(body.clone(), half);
        self.sends.insert(opaque, body);
    }

    /// Ends a half message, or says that its end is not known.
    fn end(&mut self, world: &mut World, body: &str, from_check: bool) {
        let Some(half) = self.halves.get_mut(body) else {
            return;
        };
        let Some((offset, position)) = half.at.get().clone() else {
            return;
        };
        let end = match world.random.below(4) {
            0 | 1 => Some(End::Commit),
            2 => Some(End::Rollback),
            _ => None,
        };
        let how = match end {
            Some(End::Commit) => sys_flag::TRANSACTION_COMMIT,
            Some(End::Rollback) => sys_flag::TRANSACTION_ROLLBACK,
            None => 0,
        };
        let fields = [
            ("producerGroup", GROUP),
            ("tranStateTableOffset", &*offset),
            ("commitLogOffset", &position),
            ("commitOrRollback", &how.to_string()),
            ("fromTransactionCheck", &from_check.to_string()),
            ("msgId", body),
        ];
        let opaque = world.ask(request::END_TRANSACTION, &fields, &[]);
        match end {
            Some(End::Commit) => half.commits_asked += 1,
            Some(End::Rollback) => half.rollbacks_asked += 1,
            None => return,
        }
        self.ends
            .insert(opaque, (body.to_owned(), end.unwrap_or(End::Rollback)));
    }

    /// Has a message that was given up taken up again, once.
    fn resume(&mut self, world: &mut World) {
        let dead = world.shard.stored(DEAD, 0);
        let fresh = dead.into_iter().find(|message| {
            let half = self.halves.get(&message.body);
            half.is_some_and(|half| !half.resume_asked)
        });
        let Some(message) = fresh else {
            return;
        };
        let id = OffsetId {
            store_host: settings().store_host.into(),
            offset: message.position,
        };
        let fields = [("topic", DEAD), ("msgId", &*id.encode())];
        let opaque = world.ask(request::RESUME_CHECK_HALF_MESSAGE, &fields, &[]);
        let half = self.halves.get_mut(&message.body).unwrap();
        half.resume_asked = true;
        half.asked_ms = world.now_ms();
        half.at.set(world, None);
        self.resumes.insert(opaque, message.body);
    }

    fn take_check(&mut self, world: &mut World, check: &Received) {
        let seed = world.seed;
        let (record, _) = Record::parse(&check.body).unwrap();
        let body = String::from_utf8_lossy(record.body()).into_owned();
        let Some(half) = self.halves.get_mut(&body) else {
            // One of a topic that may be gone.
            return;
        };
        let settings = settings();
        half.checks += 1;
        assert!(
            half.checks
                <= (settings.transaction_check_max + world.crashes)
                    * (1 + u32::from(half.resume_asked)),
            "seed {seed}: {body} was asked about {} times",
            half.checks
        );
        assert_eq!(
            *half.ended.get(),
            None,
            "seed {seed}: {body} was asked about after its end"
        );
        let from_ms = half.asked_ms + settings.transaction_timeout_ms.max(half.immunity_ms);
        assert!(
            world.now_ms() >= from_ms,
            "seed {seed}: {body} was asked about too early"
        );
        let field = |name: &str| check.fields[name].clone();
        let at = (field("tranStateTableOffset"), field("commitLogOffset"));
        half.at.set(world, Some(at));
        if !self.silent && world.random.one_in(2) {
            self.end(world, &body, true);
        }
    }

    fn take_end(&mut self, world: &World, answer: &Received, body: &str, end: End) {
        let seed = world.seed;
        let half = self.halves.get_mut(body).unwrap();
        match answer.code {
            response::SUCCESS => {
                let ended = *half.ended.get();
                assert_eq!(ended, None, "seed {seed}: {body} ended twice");
                half.ended.set(world, Some(end));
            }
            response::SYSTEM_ERROR => {
                let settings = settings();
                // A restart asks anew after the time-out already.
                let intervals = settings.transaction_check_max.saturating_sub(world.crashes);
                let given_up_ms = settings.transaction_timeout_ms
                    + settings.transaction_check_interval_ms * i64::from(intervals);
                let may = half.resume_asked
                    || half.commits_asked + half.rollbacks_asked > 1
                    || world.now_ms() - half.asked_ms >= given_up_ms;
                assert!(
                    may,
                    "seed {seed}: {body} cannot be ended: {:?}",
                    answer.remark
                );
            }
            // Its end is taken from a check only.
            response::ILLEGAL_OPERATION => assert!(half.immunity_ms > 0, "seed {seed}: {body}"),
            _ => assert!(!world.done(answer)),
        }
    }
}

impl Feature for Transactions {
    fn act(&mut self, world: &mut World) {
        if world.random.one_in(2) {
            self.send(world);
            return;
        }
        if world.random.one_in(4) {
            self.resume(world);
            return;
        }
        let known: Vec<&String> = self.halves.keys().collect();
        if !known.is_empty() {
            let body = known[world.random.below(known.len())].clone();
            self.end(world, &body, false);
        }
    }

    fn take(&mut self, world: &mut World, frame: &Received) -> bool {
        if !frame.is_response {
            let is_check = frame.code == request::CHECK_TRANSACTION_STATE;
            if is_check {
                self.take_check(world, frame);
            }
            return is_check;
        }
        if let Some(body) = self.sends.remove(&frame.opaque) {
            if world.done(frame) {
                let half = self.halves.get_mut(&body).unwrap();
                half.stored.set(world, true);
                let id = OffsetId::parse(&frame.fields["msgId"]).unwrap();
                let at = (frame.fields["queueOffset"].clone(), id.offset.to_string());
                half.at.set(world, Some(at));
            }
            return true;
        }
        if let Some((body, end)) = self.ends.remove(&frame.opaque) {
            self.take_end(world, frame, &body, end);
            return true;
        }
        if let Some(body) = self.resumes.remove(&frame.opaque) {
            let done = world.done(frame);
            let half = self.halves.get_mut(&body).unwrap();
            half.resumed.set(world, done);
            return true;
        }
        false
    }

    fn flushed(&mut self, _: &World) {
        for half in self.halves.values_mut() {
            half.stored.flushed();
            half.at.flushed();
            half.ended.flushed();
            half.resumed.flushed();
        }
    }

    fn crashed(&mut self, _: &World) {
        self.sends.clear();
        self.ends.clear();
        self.resumes.clear();
        for half in self.halves.values_mut() {
            half.stored.crashed();
            half.at.crashed();
            half.ended.crashed();
            half.resumed.crashed();
        }
    }

    fn finish(&mut self, _: &mut World) {
        self.silent = true;
    }

    fn check(&mut self, world: &mut World) {
        let seed = world.seed;
        let mut delivered: HashMap<String, usize> = HashMap::new();
        for queue_id in 0..QUEUES {
            for message in world.shard.stored(TOPIC, queue_id) {
                *delivered.entry(message.body).or_default() += 1;
            }
        }
        let mut dead: HashMap<String, usize> = HashMap::new();
        let mut given_up = world.shard.stored(DEAD, 0);
        given_up.retain(|message| self.halves.contains_key(&message.body));
        for message in given_up {
            *dead.entry(message.body).or_default() += 1;
        }
        for (body, half) in &self.halves {
            let delivered = delivered.remove(body).unwrap_or(0);
            let dead = dead.remove(body).unwrap_or(0);
            let is = format!("seed {seed}: {body}: delivered {delivered}, given up {dead}");
            // What was taken up again lies there still, and comes to another end.
            let again = usize::from(half.resume_asked);
            assert!(delivered <= 1 && delivered + dead <= 1 + again, "{is}");
            match half.ended.get() {
                Some(End::Commit) => assert_eq!(delivered, 1, "{is}, was committed"),
                Some(End::Rollback) => {
                    assert!(delivered + dead <= again, "{is}, was rolled back");
                }
                None => {}
            }
            assert!(
                delivered == 0 || half.commits_asked > 0,
                "{is}, nobody committed it"
            );
            assert!(
                !half.stored.get() || half.rollbacks_asked > 0 || delivered + dead >= 1,
                "{is}: lost"
            );
            assert!(
                !half.resumed.get() || half.rollbacks_asked > 0 || delivered + dead == 2,
                "{is}: lost after it was taken up again"
            );
        }
        assert!(
            delivered.is_empty() && dead.is_empty(),
            "seed {seed}: {delivered:?} {dead:?}"
        );
    }
}
