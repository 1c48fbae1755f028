//! What waits for its time, by level or to the second, is delivered then, not before, and once, also when the broker is killed
//! while it waits; what is recalled is not delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Received, Sent, in_java_and_go,
    now_ms,
};
use serde_json::json;

in_java_and_go!(
    levels_wait_as_long_as_they_say_through_kill_9,
    timers_come_at_their_second_through_kill_9_and_recalled_ones_never
);

const WITHIN: Duration = Duration::from_secs(60);
/// How late a delivery may be on a machine that does other things too.
const LATE_MS: i64 = 4000;

/// Each message came once, not before its time, and not late: `due_ms` by key, and from when on the broker was there.
fn came_in_time(
    received: &[Received],
    due_ms: &BTreeMap<String, i64>,
    there_ms: i64,
    early_ms: i64,
) {
    assert_eq!(received.len(), due_ms.len(), "{received:#?}");
    for (key, due) in due_ms {
        let found: Vec<_> = received.iter().filter(|r| r.key == *key).collect();
        assert_eq!(found.len(), 1, "deliveries of {key}");
        let came = found[0].received_ms;
        assert!(came >= due - early_ms, "{key} came {} ms early", due - came);
        // When the broker delivered it: a client may need longer to find a broker again.
        let came = found[0].stored_ms;
        let wanted = if came < there_ms {
            *due
        } else {
            (*due).max(there_ms)
        };
        assert!(
            came <= wanted + LATE_MS,
            "{key} came {} ms late",
            came - wanted
        );
    }
}

/// Sends each message at once; returns when it should come, by its key, if `after_ms` says how long it waits.
fn send_waiting(client: &mut Client, messages: &[(Message, i64)]) -> BTreeMap<String, i64> {
    let mut due_ms = BTreeMap::new();
    for (message, after_ms) in messages {
        let start_ms = now_ms();
        client.send("producer", Mode::Sync, std::slice::from_ref(message));
        due_ms.insert(message.key.clone(), start_ms + after_ms);
    }
    due_ms
}

/// What there is of a topic in all, for a group of its own.
fn all_of(client: &mut Client, topic: &str, count: usize) -> Vec<String> {
    let auditor = format!("auditor of {topic}").replace(' ', "-");
    client.consumer(&Consumer::new(&auditor, topic));
    client.deliveries(&auditor, count, WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(2));
    let mut keys: Vec<_> = client
        .received(&auditor)
        .into_iter()
        .map(|r| r.key)
        .collect();
    keys.sort_unstable();
    keys
}

/// What the group has received, but for the first message.
fn once_each(client: &Client, language: Language) -> Vec<Received> {
    let mut received = client.received("group");
    received.retain(|r| r.key != "at once");
    if language == Language::Go {
        // It commits its offsets every 5 s only: what it had before the kill may come again.
        let mut keys = std::collections::BTreeSet::new();
        received.retain(|r| keys.insert(r.key.clone()));
    }
    received
}

fn levels_wait_as_long_as_they_say_through_kill_9(language: Language) {
    let mut cluster = Cluster::start(
        &Options::new()
            .shards(2)
            .set("message_delay_levels", "1s 3s 9s"),
    );
    cluster.create_topic("levels", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "levels"));
    client.send("producer", Mode::Sync, &[Message::new("levels", "at once")]);
    client.receive("group", 1, WITHIN);
    let messages: Vec<_> = [(1, 1000), (2, 3000), (3, 9000), (9, 9000)]
        .into_iter()
        .flat_map(|(level, after_ms)| {
            (0..3).map(move |i| {
                let key = format!("level {level} number {i}");
                (
                    Message::new("levels", key).with("delay_level", level),
                    after_ms,
                )
            })
        })
        .collect();
    let due_ms = send_waiting(&mut client, &messages);
    client.deliveries("group", 6, WITHIN, |r| {
        r.key.starts_with("level 1") || r.key.starts_with("level 2")
    });
    // Their offsets are committed.
    std::thread::sleep(Duration::from_millis(1500));
    cluster.kill9();
    cluster.start_again();
    let there_ms = now_ms();

    client.deliveries("group", 1 + messages.len(), WITHIN, |_| true);
    std::thread::sleep(Duration::from_secs(1));
    let received = once_each(&client, language);
    came_in_time(&received, &due_ms, there_ms, 0);
    let mut keys: Vec<_> = due_ms.into_keys().chain(["at once".to_owned()]).collect();
    keys.sort_unstable();
    assert_eq!(all_of(&mut client, "levels", keys.len()), keys);
}

fn timers_come_at_their_second_through_kill_9_and_recalled_ones_never(language: Language) {
    let mut cluster = Cluster::start(&Options::new().shards(2).set("recall", "true"));
    cluster.create_topic("timers", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "timers"));
    client.send("producer", Mode::Sync, &[Message::new("timers", "at once")]);
    client.receive("group", 1, WITHIN);
    let timer = |key: &str| Message::new("timers", key);
    // The Go client cannot recall.
    let mut recalled: Vec<String> = Vec::new();
    if language == Language::Java {
        let messages = [
            timer("recalled before").with("delay_sec", 12),
            timer("recalled after").with("delay_sec", 14),
        ];
        let sent = client.send("producer", Mode::Sync, &messages);
        let handle = |s: &Sent| s.recall_handle.clone().expect("a handle of a timer");
        recalled = sent.iter().map(handle).collect();
    }
    let messages = [
        (timer("past").with("deliver_ms", now_ms() - 10_000), 0),
        (timer("2 seconds").with("delay_sec", 2), 2000),
        (timer("2500 ms").with("delay_ms", 2500), 2500),
        (timer("9 seconds").with("delay_sec", 9), 9000),
        (
            timer("a time").with("deliver_ms", now_ms() + 11_000),
            11_000,
        ),
    ];
    let due_ms = send_waiting(&mut client, &messages);
    let recall = |client: &mut Client, handle: &str| {
        client.try_call(
            "recall",
            json!({"producer": "producer", "topic": "timers", "handle": handle}),
        )
    };
    if let Some(handle) = recalled.first() {
        recall(&mut client, handle).expect("a recall");
        let refused = recall(&mut client, "nonsense").expect_err("a recall of nonsense");
        assert!(!refused.is_empty());
    }
    client.deliveries("group", 3, WITHIN, |r| {
        r.key.starts_with('2') || r.key == "past"
    });
    std::thread::sleep(Duration::from_millis(1500));
    cluster.kill9();
    cluster.start_again();
    let there_ms = now_ms();
    if let Some(handle) = recalled.get(1) {
        recall(&mut client, handle).expect("a recall by a handle of before the kill");
    }

    client.deliveries("group", 1 + messages.len(), WITHIN, |_| true);
    // Until well after the time of what was recalled.
    std::thread::sleep(Duration::from_secs(6));
    let received = once_each(&client, language);
    // A timer is precise to a second.
    came_in_time(&received, &due_ms, there_ms, 1000);
    let mut keys: Vec<_> = due_ms.into_keys().chain(["at once".to_owned()]).collect();
    keys.sort_unstable();
    assert_eq!(all_of(&mut client, "timers", keys.len()), keys);
}
