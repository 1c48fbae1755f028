//! The broker itself: GET_BROKER_RUNTIME_INFO 28, GET_BROKER_CONFIG 26, UPDATE_BROKER_CONFIG 25, and the cleaning that
//! administrators ask for (CLEAN_UNUSED_TOPIC 316, CLEAN_EXPIRED_CONSUMEQUEUE 306, DELETE_EXPIRED_COMMITLOG 329).

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::body::KvTable;
use corelane_wire::code::response;
use corelane_wire::header::stats::ViewBrokerStatsDataRequest;

use crate::engine::settings::Settings;
use crate::engine::stats::per_second_text;
use crate::engine::turn::{Effect, Refusal, ReplyTo, Request, Turn};
use crate::engine::{Engine, name};

/// The pools of threads that tools ask about. There are none: nothing waits between the network and the engine.
const POOLS: [&str; 5] = ["send", "pull", "litePull", "query", "ack"];

impl Engine {
    pub(super) fn runtime_info(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let mut table = BTreeMap::new();
        let mut says = |key: &str, value: String| {
            table.insert(key.to_owned(), value);
        };
        let now_ms = turn.now.wall_ms;
        says("brokerActive", "true".to_owned());
        says("brokerVersionDesc", "V5_5_0".to_owned());
        says("bootTimestamp", self.started_wall_ms.to_string());
        says(
            "startAcceptSendRequestTimeStamp",
            self.started_wall_ms.to_string(),
        );
        says(
            "runtime",
            spent((now_ms - self.started_wall_ms).max(0) / 1000),
        );

        if let Some([put, got, found, missed]) = self.stats.broker_rates() {
            let [put_now, put_morning, put_yesterday] = put.totals(now_ms);
            let [got_now, got_morning, got_yesterday] = got.totals(now_ms);
            says("msgPutTotalTodayNow", put_now.to_string());
            says("msgPutTotalTodayMorning", put_morning.to_string());
            says("msgPutTotalYesterdayMorning", put_yesterday.to_string());
            says("msgGetTotalTodayNow", got_now.to_string());
            says("msgGetTotalTodayMorning", got_morning.to_string());
            says("msgGetTotalYesterdayMorning", got_yesterday.to_string());
            says("putTps", put.per_second_text(now_ms));
            says("getTransferredTps", got.per_second_text(now_ms));
            let (found, missed) = (found.per_second(now_ms), missed.per_second(now_ms));
            says("getFoundTps", per_second_text(found));
            says("getMissTps", per_second_text(missed));
            says(
                "getTotalTps",
                per_second_text(std::array::from_fn(|i| found[i] + missed[i])),
            );
        }

        let counters = self.counters;
        says("putMessageTimesTotal", counters.messages_in.to_string());
        says("putMessageSizeTotal", counters.bytes_in.to_string());
        says("putMessageFailedTimes", counters.sends_refused.to_string());
        let average = counters.bytes_in as f64 / counters.messages_in.max(1) as f64;
        says("putMessageAverageSize", format!("{average:.2}"));
        let waits = self.held.waits();
        says("putMessageEntireTimeMax", waits.longest_ms().to_string());
        says("putMessageDistributeTime", waits.to_string());
        says("putLatency99", format!("{:.2}", waits.below_ms(0.99)));
        says("putLatency999", format!("{:.2}", waits.below_ms(0.999)));

        let (min, max) = (turn.log.min_position(), turn.log.max_position());
        says("commitLogMinOffset", min.to_string());
        says("commitLogMaxOffset", max.to_string());
        says(
            "remainHowManyDataToFlush",
            format!("{} B", turn.log.sizes().unflushed_bytes),
        );
        says(
            "commitLogReadFailedTimes",
            turn.log.sizes().reads_failed.to_string(),
        );
        says("remainHowManyDataToCommit", "0 B".to_owned());
        says("remainTransientStoreBufferNumbs", i32::MAX.to_string());
        says(
            "earliestMessageTimeStamp",
            turn.log.oldest_ms().unwrap_or(-1).to_string(),
        );
        if let Some(space) = turn.log.disk_space().filter(|space| space.total_bytes > 0) {
            let used = 1.0 - space.free_bytes as f64 / space.total_bytes as f64;
            says("commitLogDiskRatio", format!("{used:.2}"));
            says("consumeQueueDiskRatio", format!("{used:.2}"));
            let (total, free) = (gib(space.total_bytes), gib(space.free_bytes));
            says(
                "commitLogDirCapacity",
                format!("Total : {total:.1} GiB, Free : {free:.1} GiB."),
            );
        }
        // The index is made of the log as it is appended: it is never behind, and no page cache is locked.
        for key in [
            "dispatchBehindBytes",
            "dispatchMaxBuffer",
            "pageCacheLockTimeMills",
        ] {
            says(key, "0".to_owned());
        }
        for pool in POOLS {
            let (waiting, oldest_ms) = match pool {
                "send" => (self.held.len(), self.held.oldest_ms(turn.now.mono_ms)),
                _ => (0, 0),
            };
            says(&format!("{pool}ThreadPoolQueueSize"), waiting.to_string());
            says(
                &format!("{pool}ThreadPoolQueueCapacity"),
                i32::MAX.to_string(),
            );
            says(
                &format!("{pool}ThreadPoolQueueHeadWaitTimeMills"),
                oldest_ms.to_string(),
            );
        }
        says("EndTransactionQueueSize", "0".to_owned());
        says(
            "EndTransactionThreadPoolQueueCapacity",
            i32::MAX.to_string(),
        );
        for (level, offset) in self.delays.level_offsets() {
            let queue = turn.log.find_queue(name::SCHEDULE_TOPIC, level - 1);
            let max = queue.map_or(offset, |queue| turn.log.max_offset(queue));
            says(
                &format!("scheduleMessageOffset_{level}"),
                format!("{offset},{max}"),
            );
        }
        let behind_secs = self.delays.timers_behind_secs(turn.now);
        says("timerReadBehind", behind_secs.to_string());
        // A timer is in its second's queue as soon as it is stored.
        says("timerOffsetBehind", "0".to_owned());
        says("timerCongestNum", self.delays.timers_waiting().to_string());
        let [timers_in, timers_out] = self.stats.timers_per_second(now_ms);
        says("timerEnqueueTps", format!("{timers_in:?}"));
        says("timerDequeueTps", format!("{timers_out:?}"));
        turn.answer_body(req.to, &KvTable { table }.to_json());
        Ok(())
    }

    pub(super) fn stats_data(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = ViewBrokerStatsDataRequest::decode(&req.frame.ext)?;
        let (item, key) = (header.stats_name.to_str(), header.stats_key.to_str());
        let Some(data) = self.stats.data(&item, &key, turn.now.wall_ms) else {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("The stats <{item}> <{key}> not exist"),
            ));
        };
        turn.answer_body(req.to, &data.to_json());
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

    /// The host knows the keys; it checks the new values and calls [`Engine::configured`].
    pub(super) fn update_config(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let text = std::str::from_utf8(req.frame.body).map_err(|error| {
            Refusal::new(
                response::SYSTEM_ERROR,
                format!("the body is no text: {error}"),
            )
        })?;
        turn.out.effect(Effect::Configure {
            to: req.to,
            text: text.to_owned(),
        });
        Ok(())
    }

    /// What came of an UPDATE_BROKER_CONFIG: other settings, which hold from now on, or a text that says what is wrong.
    pub fn configured(
        &mut self,
        turn: &mut Turn<'_>,
        to: ReplyTo,
        outcome: Result<Settings, String>,
    ) {
        match outcome {
            Ok(settings) => {
                let mut changed = self.topics.allow_auto_creation(&settings, turn.now.wall_ms);
                if settings.broker_permission != self.settings.broker_permission {
                    self.topics.changed_all(turn.now.wall_ms);
                    changed = true;
                }
                if changed {
                    turn.out.effect(Effect::Register {
                        version: self.topics.version(),
                    });
                }
                self.settings = settings;
                turn.answer(
                    to,
                    response::SUCCESS,
                    Some("in effect until the next start"),
                    |_| {},
                    &[],
                );
            }
            Err(why) => turn.refuse(to, &Refusal::new(response::SYSTEM_ERROR, why)),
        }
    }

    /// Nothing is ever left over to be cleaned: a topic's queues go with it, and segments go when they are too old.
    pub(super) fn clean(&mut self, turn: &mut Turn<'_>, req: &Request<'_>) -> Result<(), Refusal> {
        turn.answer_ok(req.to);
        Ok(())
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// A span of time as tools read it.
fn spent(secs: i64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    format!(
        "[ {days} days, {hours} hours, {minutes} minutes, {} seconds ]",
        secs % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_in_words() {
        assert_eq!(spent(0), "[ 0 days, 0 hours, 0 minutes, 0 seconds ]");
        assert_eq!(
            spent(86_400 + 3_600 + 61),
            "[ 1 days, 1 hours, 1 minutes, 1 seconds ]"
        );
    }
}
