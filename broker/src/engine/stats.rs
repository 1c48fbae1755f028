//! What is counted for people and their tools: messages in and out, of the broker, of topics, and of groups in topics.
//!
//! A [`Window`] is a ring of buckets that are filled as events come; nothing is sampled and nothing runs while nothing
//! happens. A topic or a group in a topic that was never used takes no memory; one that was takes about 1 KiB. Days are
//! those of UTC. All of it begins at 0 with every start.

use std::collections::HashMap;

use corelane_wire::body::{BrokerStatsData, BrokerStatsItem};

/// Groups in topics that are counted one by one; what comes on top of them is counted in the broker's figures only.
const MAX_GROUP_SERIES: usize = 50_000;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Events, and what they amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    events: u64,
    messages: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

/// The last `N * WIDTH_MS` milliseconds, in buckets of `WIDTH_MS`.
#[derive(Clone, Copy, Debug)]
struct Window<const N: usize, const WIDTH_MS: i64> {
    /// Number of the newest bucket, counted from the epoch.
    newest: i64,
    /// Number of the first bucket that was ever used.
    first: i64,
    buckets: [Sum; N],
}

impl<const N: usize, const WIDTH_MS: i64> Window<N, WIDTH_MS> {
    fn new(wall_ms: i64) -> Self {
        let newest = wall_ms.div_euclid(WIDTH_MS);
        Self {
            newest,
            first: newest,
            buckets: [Sum::default(); N],
        }
    }

    /// Empties what is older than the window. A clock that goes back leaves everything as it is.
    fn advance(&mut self, wall_ms: i64) {
        let now = wall_ms.div_euclid(WIDTH_MS);
        if now <= self.newest {
            return;
        }
        for number in (self.newest + 1).max(now - N as i64 + 1)..=now {
            self.buckets[number.rem_euclid(N as i64) as usize] = Sum::default();
        }
        self.newest = now;
    }

    fn add(&mut self, wall_ms: i64, sum: Sum) {
        self.advance(wall_ms);
        self.buckets[self.newest.rem_euclid(N as i64) as usize].add(sum);
    }

    /// What is in the window, and over how many seconds that came.
    fn read(&mut self, wall_ms: i64) -> (Sum, f64) {
        self.advance(wall_ms);
        let mut sum = Sum::default();
        for bucket in &self.buckets {
            sum.add(*bucket);
        }
        let oldest = self.first.max(self.newest - N as i64 + 1);
        let spent_ms = (wall_ms - oldest * WIDTH_MS).max(SECOND_MS);
        (sum, spent_ms as f64 / SECOND_MS as f64)
    }
}

/// One thing that is counted, over the last minute, hour and day.
struct Series {
    minute: Window<6, { 10 * SECOND_MS }>,
    hour: Window<6, { 10 * MINUTE_MS }>,
    day: Window<24, HOUR_MS>,
}

impl Series {
    fn new(wall_ms: i64) -> Self {
        Self {
            minute: Window::new(wall_ms),
            hour: Window::new(wall_ms),
            day: Window::new(wall_ms),
        }
    }

    fn add(&mut self, wall_ms: i64, sum: Sum) {
        self.minute.add(wall_ms, sum);
        self.hour.add(wall_ms, sum);
        self.day.add(wall_ms, sum);
    }

    fn data(&mut self, wall_ms: i64, figure: fn(&Sum) -> u64) -> BrokerStatsData {
        let item = |(sum, secs): (Sum, f64)| {
            let total = figure(&sum);
            BrokerStatsItem {
                sum: total as i64,
                tps: round(total as f64 / secs),
                avgpt: if sum.events == 0 {
                    0.0
                } else {
                    round(total as f64 / sum.events as f64)
                },
            }
        };
        BrokerStatsData {
            stats_minute: item(self.minute.read(wall_ms)),
            stats_hour: item(self.hour.read(wall_ms)),
            stats_day: item(self.day.read(wall_ms)),
        }
    }

    fn messages_per_second(&mut self, wall_ms: i64) -> f64 {
        let (sum, secs) = self.minute.read(wall_ms);
        round(sum.messages as f64 / secs)
    }
}

fn round(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// One figure of the broker: how many a second, and how many a day.
pub struct Rate {
    ten_seconds: Window<10, SECOND_MS>,
    minute: Window<6, { 10 * SECOND_MS }>,
    ten_minutes: Window<10, MINUTE_MS>,
    total: u64,
    day: i64,
    this_morning: u64,
    yesterday_morning: u64,
}

impl Rate {
    fn new(wall_ms: i64) -> Self {
        Self {
            ten_seconds: Window::new(wall_ms),
            minute: Window::new(wall_ms),
            ten_minutes: Window::new(wall_ms),
            total: 0,
            day: wall_ms.div_euclid(DAY_MS),
            this_morning: 0,
            yesterday_morning: 0,
        }
    }

    fn turn_day(&mut self, wall_ms: i64) {
        let today = wall_ms.div_euclid(DAY_MS);
        if today > self.day {
            self.yesterday_morning = if today == self.day + 1 {
                self.this_morning
            } else {
                self.total
            };
            self.this_morning = self.total;
            self.day = today;
        }
    }

    fn add(&mut self, wall_ms: i64, count: u64) {
        self.turn_day(wall_ms);
        let sum = Sum {
            events: 1,
            messages: count,
            bytes: 0,
        };
        self.ten_seconds.add(wall_ms, sum);
        self.minute.add(wall_ms, sum);
        self.ten_minutes.add(wall_ms, sum);
        self.total += count;
    }

    /// How many a second over ten seconds, a minute and ten minutes.
    pub fn per_second(&mut self, wall_ms: i64) -> [f64; 3] {
        let windows = [
            self.ten_seconds.read(wall_ms),
            self.minute.read(wall_ms),
            self.ten_minutes.read(wall_ms),
        ];
        windows.map(|(sum, secs)| round(sum.messages as f64 / secs))
    }

    /// The same as the protocol writes it.
    pub fn per_second_text(&mut self, wall_ms: i64) -> String {
        per_second_text(self.per_second(wall_ms))
    }

    /// How many since the start: by now, by this morning, and by yesterday's morning.
    pub fn totals(&mut self, wall_ms: i64) -> [u64; 3] {
        self.turn_day(wall_ms);
        [self.total, self.this_morning, self.yesterday_morning]
    }
}

/// Three figures as tools read them.
pub fn per_second_text(figures: [f64; 3]) -> String {
    figures.map(|figure| format!("{figure:?}")).join(" ")
}

struct Broker {
    put: Rate,
    got: Rate,
    found: Rate,
    missed: Rate,
    put_series: Series,
    got_series: Series,
    timers_in: Rate,
    timers_out: Rate,
}

/// What a group did in a topic.
struct GroupSeries {
    got: Series,
    sent_back: Option<Box<Series>>,
}

/// Messages that were stored in one topic in one turn: they are counted in as one.
#[derive(Default)]
struct Latest {
    topic: String,
    wall_ms: i64,
    sum: Sum,
}

/// The statistics of a shard.
#[derive(Default)]
pub struct Stats {
    latest: Latest,
    broker: Option<Box<Broker>>,
    topics: foldhash::HashMap<String, Box<Series>>,
    groups: HashMap<String, HashMap<String, Box<GroupSeries>>>,
    group_series: usize,
}

impl Stats {
    /// Counting begins.
    pub fn started(&mut self, wall_ms: i64) {
        self.broker = Some(Box::new(Broker {
            put: Rate::new(wall_ms),
            got: Rate::new(wall_ms),
            found: Rate::new(wall_ms),
            missed: Rate::new(wall_ms),
            put_series: Series::new(wall_ms),
            got_series: Series::new(wall_ms),
            timers_in: Rate::new(wall_ms),
            timers_out: Rate::new(wall_ms),
        }));
    }

    /// A message was stored.
    pub fn put(&mut self, topic: &str, bytes: usize, wall_ms: i64) {
        if self.latest.wall_ms != wall_ms || self.latest.topic != topic {
            self.settle();
            self.latest.wall_ms = wall_ms;
            self.latest.topic.clear();
            self.latest.topic.push_str(topic);
        }
        self.latest.sum.add(Sum {
            events: 1,
            messages: 1,
            bytes: bytes as u64,
        });
    }

    /// Counts the latest messages in.
    fn settle(&mut self) {
        let sum = std::mem::take(&mut self.latest.sum);
        let (topic, wall_ms) = (self.latest.topic.as_str(), self.latest.wall_ms);
        if sum == Sum::default() {
            return;
        }
        if let Some(broker) = &mut self.broker {
            broker.put.add(wall_ms, sum.messages);
            broker.put_series.add(wall_ms, sum);
        }
        match self.topics.get_mut(topic) {
            Some(series) => series.add(wall_ms, sum),
            None => {
                let mut series = Box::new(Series::new(wall_ms));
                series.add(wall_ms, sum);
                self.topics.insert(topic.to_owned(), series);
            }
        }
    }

    /// A group got messages.
    pub fn got(&mut self, group: &str, topic: &str, messages: usize, bytes: usize, wall_ms: i64) {
        let sum = Sum {
            events: 1,
            messages: messages as u64,
            bytes: bytes as u64,
        };
        if let Some(broker) = &mut self.broker {
            broker.got.add(wall_ms, messages as u64);
            broker.found.add(wall_ms, 1);
            broker.got_series.add(wall_ms, sum);
        }
        self.count_group(group, topic, wall_ms, |series| series.got.add(wall_ms, sum));
    }

    /// A group asked and there was nothing for it.
    pub fn missed(&mut self, wall_ms: i64) {
        if let Some(broker) = &mut self.broker {
            broker.missed.add(wall_ms, 1);
        }
    }

    /// A timer was stored.
    pub fn timer_in(&mut self, wall_ms: i64) {
        if let Some(broker) = &mut self.broker {
            broker.timers_in.add(wall_ms, 1);
        }
    }

    /// Timers were delivered.
    pub fn timers_out(&mut self, messages: u64, wall_ms: i64) {
        if let Some(broker) = &mut self.broker {
            broker.timers_out.add(wall_ms, messages);
        }
    }

    /// Timers a second that were stored and that were delivered, over the last minute.
    pub fn timers_per_second(&mut self, wall_ms: i64) -> [f64; 2] {
        self.broker.as_mut().map_or([0.0; 2], |broker| {
            [&mut broker.timers_in, &mut broker.timers_out].map(|rate| rate.per_second(wall_ms)[1])
        })
    }

    /// A group sent a message back.
    pub fn sent_back(&mut self, group: &str, topic: &str, wall_ms: i64) {
        let sum = Sum {
            events: 1,
            messages: 1,
            bytes: 0,
        };
        self.count_group(group, topic, wall_ms, |series| {
            series
                .sent_back
                .get_or_insert_with(|| Box::new(Series::new(wall_ms)))
                .add(wall_ms, sum);
        });
    }

    /// Names are made owned only for what is counted the first time.
    fn count_group(
        &mut self,
        group: &str,
        topic: &str,
        wall_ms: i64,
        count: impl FnOnce(&mut GroupSeries),
    ) {
        if let Some(series) = self
            .groups
            .get_mut(group)
            .and_then(|topics| topics.get_mut(topic))
        {
            count(series);
            return;
        }
        if self.group_series >= MAX_GROUP_SERIES {
            return;
        }
        self.group_series += 1;
        let mut series = Box::new(GroupSeries {
            got: Series::new(wall_ms),
            sent_back: None,
        });
        count(&mut series);
        self.groups
            .entry(group.to_owned())
            .or_default()
            .insert(topic.to_owned(), series);
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        self.settle();
        self.topics.remove(topic);
        for topics in self.groups.values_mut() {
            self.group_series -= usize::from(topics.remove(topic).is_some());
        }
        self.groups.retain(|_, topics| !topics.is_empty());
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        self.group_series -= self.groups.remove(group).map_or(0, |topics| topics.len());
    }

    /// Messages a second that came into a topic, over the last minute.
    pub fn topic_put_tps(&mut self, topic: &str, wall_ms: i64) -> f64 {
        self.settle();
        self.topics
            .get_mut(topic)
            .map_or(0.0, |series| series.messages_per_second(wall_ms))
    }

    /// Messages a second that a group got of a topic, over the last minute.
    pub fn group_get_tps(&mut self, group: &str, topic: &str, wall_ms: i64) -> f64 {
        let series = self
            .groups
            .get_mut(group)
            .and_then(|topics| topics.get_mut(topic));
        series.map_or(0.0, |series| series.got.messages_per_second(wall_ms))
    }

    /// The broker's rates: messages in, messages out, pulls that found something, pulls that did not.
    pub fn broker_rates(&mut self) -> Option<[&mut Rate; 4]> {
        self.settle();
        let broker = self.broker.as_mut()?;
        Some([
            &mut broker.put,
            &mut broker.got,
            &mut broker.found,
            &mut broker.missed,
        ])
    }

    /// One item of the statistics as VIEW_BROKER_STATS_DATA names it; `None` for what was never counted.
    pub fn data(&mut self, item: &str, key: &str, wall_ms: i64) -> Option<BrokerStatsData> {
        self.settle();
        let messages: fn(&Sum) -> u64 = |sum| sum.messages;
        let bytes: fn(&Sum) -> u64 = |sum| sum.bytes;
        let figure = if item.ends_with("_SIZE") {
            bytes
        } else {
            messages
        };
        let series = match item {
            "BROKER_PUT_NUMS" => &mut self.broker.as_mut()?.put_series,
            "BROKER_GET_NUMS" => &mut self.broker.as_mut()?.got_series,
            "TOPIC_PUT_NUMS" | "TOPIC_PUT_SIZE" => self.topics.get_mut(key)?,
            "GROUP_GET_NUMS" | "GROUP_GET_SIZE" | "SNDBCK_PUT_NUMS" => {
                let (topic, group) = key.split_once('@')?;
                let series = self.groups.get_mut(group)?.get_mut(topic)?;
                match item {
                    "SNDBCK_PUT_NUMS" => series.sent_back.as_mut()?,
                    _ => &mut series.got,
                }
            }
            _ => return None,
        };
        Some(series.data(wall_ms, figure))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const NOON_MS: i64 = 20_000 * DAY_MS + 12 * HOUR_MS;

    #[test]
    fn a_window_forgets_what_is_older_than_itself() {
        let mut window = Window::<10, SECOND_MS>::new(NOON_MS);
        let one = Sum {
            events: 1,
            messages: 3,
            bytes: 7,
        };
        for second in 0..20 {
            window.add(NOON_MS + second * SECOND_MS, one);
        }
        let (sum, secs) = window.read(NOON_MS + 20 * SECOND_MS - 1);
        assert_eq!(
            sum,
            Sum {
                events: 10,
                messages: 30,
                bytes: 70
            }
        );
        assert!((9.9..=10.0).contains(&secs), "{secs}");
        assert_eq!(window.read(NOON_MS + 25 * SECOND_MS).0.events, 4);
        assert_eq!(window.read(NOON_MS + DAY_MS).0, Sum::default());
        // A clock that goes back loses nothing.
        window.add(NOON_MS, one);
        assert_eq!(window.read(NOON_MS + DAY_MS).0, one);
    }

    #[test]
    fn rates_are_those_of_the_time_that_was_spent() {
        let mut stats = Stats::default();
        stats.started(NOON_MS);
        for at in 0..5_000 {
            stats.put("t", 100, NOON_MS + at);
        }
        let [put, ..] = stats.broker_rates().unwrap();
        let [ten, minute, ten_minutes] = put.per_second(NOON_MS + 5_000);
        assert!((990.0..=1_010.0).contains(&ten), "{ten}");
        assert!((990.0..=1_010.0).contains(&minute), "{minute}");
        assert!((990.0..=1_010.0).contains(&ten_minutes), "{ten_minutes}");
        let data = stats.data("TOPIC_PUT_SIZE", "t", NOON_MS + 50_000).unwrap();
        assert_eq!(data.stats_minute.sum, 500_000);
        assert_eq!(data.stats_day.sum, 500_000);
        assert!((data.stats_minute.avgpt - 100.0).abs() < 0.01);
        assert_eq!(
            stats
                .data("TOPIC_PUT_NUMS", "t", NOON_MS + 120_000)
                .unwrap()
                .stats_minute
                .sum,
            0
        );
        assert_eq!(stats.data("TOPIC_PUT_NUMS", "other", NOON_MS), None);
        assert_eq!(stats.data("NO_SUCH_ITEM", "t", NOON_MS), None);
    }

    #[test]
    fn days_begin_with_what_was_there() {
        let mut rate = Rate::new(NOON_MS);
        rate.add(NOON_MS, 5);
        rate.add(NOON_MS + DAY_MS, 2);
        assert_eq!(rate.totals(NOON_MS + DAY_MS), [7, 5, 0]);
        assert_eq!(rate.totals(NOON_MS + 2 * DAY_MS), [7, 7, 5]);
        assert_eq!(rate.totals(NOON_MS + 9 * DAY_MS), [7, 7, 7]);
    }

    #[test]
    fn groups_are_counted_by_topic() {
        let mut stats = Stats::default();
        stats.got("g", "t", 32, 3_200, NOON_MS);
        stats.got("g", "t", 8, 800, NOON_MS);
        let data = stats.data("GROUP_GET_NUMS", "t@g", NOON_MS).unwrap();
        assert_eq!((data.stats_minute.sum, data.stats_minute.avgpt), (40, 20.0));
        assert!(stats.group_get_tps("g", "t", NOON_MS) > 0.0);
        assert_eq!(stats.data("SNDBCK_PUT_NUMS", "t@g", NOON_MS), None);
        stats.sent_back("g", "t", NOON_MS);
        assert_eq!(
            stats
                .data("SNDBCK_PUT_NUMS", "t@g", NOON_MS)
                .unwrap()
                .stats_minute
                .sum,
            1
        );
        stats.remove_topic("t");
        assert_eq!(stats.data("GROUP_GET_NUMS", "t@g", NOON_MS), None);
    }
}
