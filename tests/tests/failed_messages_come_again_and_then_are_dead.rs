//! A message that its consumer cannot handle comes again with a count and the id of the first one, and after the last try it
//! is a dead letter: exactly so when nothing disturbs, and without a loss when the broker is killed in between.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Received, Sent, eventually,
    in_java_and_go, raw,
};

in_java_and_go!(
    tries_are_counted_and_the_last_one_is_a_dead_letter,
    tries_go_on_after_kill_9
);

const WITHIN: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options::new()
        .shards(2)
        .set("message_delay_levels", "1s 1s 1s 2s 2s 2s")
}

fn fails(topic: &str, key: &str, times: usize) -> Message {
    Message::new(topic, key).property("fails", times)
}

/// What a consumer got of one message: the counts, and the ids of the first one that retries name.
fn tries(received: &[Received], key: &str) -> (Vec<i32>, Vec<Option<String>>) {
    received
        .iter()
        .filter(|r| r.key == key)
        .map(|r| {
            let origin = r.properties.get("ORIGIN_MESSAGE_ID").cloned();
            (r.reconsume_times, origin)
        })
        .unzip()
}

fn offset_id(sent: &[Sent], key: &str) -> Option<String> {
    let found = sent.iter().find(|s| s.key == key).expect("it was sent");
    assert!(!found.offset_message_id.is_empty(), "{found:?}");
    Some(found.offset_message_id.clone())
}

fn dead_letters(
    client: &mut Client,
    cluster: &Cluster,
    group: &str,
    count: usize,
) -> Vec<Received> {
    let topic = format!("%DLQ%{group}");
    eventually("the dead letters have a topic", WITHIN, || {
        (!raw::route(cluster.nameserver(), &topic).is_empty()).then_some(())
    });
    let undertaker = format!("undertaker-of-{group}");
    client.consumer(&Consumer::new(&undertaker, &topic));
    client.deliveries(&undertaker, count, WITHIN, |_| true)
}

fn tries_are_counted_and_the_last_one_is_a_dead_letter(language: Language) {
    let cluster = Cluster::start(&options());
    cluster.create_topic("tries", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "tries").with("max_reconsume", 2));
    let messages = [
        fails("tries", "never", 0),
        fails("tries", "once", 1),
        fails("tries", "twice", 2),
        fails("tries", "always", 3),
        fails("tries", "always too", 3),
    ];
    let sent = client.send("producer", Mode::Sync, &messages);
    let wanted = 1 + 2 + 3 + 3 + 3;
    client.deliveries("group", wanted, WITHIN, |_| true);
    let letters = dead_letters(&mut client, &cluster, "group", 2);
    std::thread::sleep(Duration::from_secs(3));

    let received = client.received("group");
    assert_eq!(received.len(), wanted, "{received:#?}");
    assert!(received.iter().all(|r| r.topic == "tries"), "{received:#?}");
    for (key, times) in [
        ("never", 1),
        ("once", 2),
        ("twice", 3),
        ("always", 3),
        ("always too", 3),
    ] {
        let (counts, origins) = tries(&received, key);
        assert_eq!(counts, (0..times).collect::<Vec<_>>(), "{key}");
        assert_eq!(origins[0], None, "{key}");
        let id = offset_id(&sent, key);
        assert!(
            origins[1..].iter().all(|o| *o == id),
            "{key}: {origins:?}, not {id:?}"
        );
    }
    let mut dead: Vec<_> = letters.iter().map(|l| l.key.as_str()).collect();
    dead.sort_unstable();
    assert_eq!(dead, ["always", "always too"]);
    for letter in &letters {
        assert_eq!(letter.reconsume_times, 3, "{letter:?}");
        assert_eq!(letter.body, letter.key);
        let origin = letter.properties.get("ORIGIN_MESSAGE_ID").cloned();
        assert_eq!(origin, offset_id(&sent, &letter.key), "{letter:?}");
    }
    let again = client.received("undertaker-of-group");
    assert_eq!(again.len(), 2, "{again:#?}");
}

fn tries_go_on_after_kill_9(language: Language) {
    let mut cluster = Cluster::start(&options());
    cluster.create_topic("again", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "again").with("max_reconsume", 3));
    let messages: Vec<Message> = (0..8)
        .map(|i| fails("again", &format!("twice {i}"), 2))
        .chain((0..4).map(|i| fails("again", &format!("always {i}"), 4)))
        .collect();
    let sent = client.send("producer", Mode::Sync, &messages);
    // All have failed once and wait for their second try.
    for s in &sent {
        client.deliveries("group", 1, WITHIN, |r| r.key == s.key);
    }
    std::thread::sleep(Duration::from_millis(300));
    cluster.kill9();
    cluster.start_again();

    for s in &sent {
        let last = if s.key.starts_with("twice") { 2 } else { 3 };
        for count in 0..=last {
            let tries = client.deliveries("group", 1, WITHIN, |r| {
                r.key == s.key && r.reconsume_times == count
            });
            let origin = tries[0].properties.get("ORIGIN_MESSAGE_ID").cloned();
            let id = (count > 0).then(|| offset_id(&sent, &s.key)).flatten();
            assert_eq!(origin, id, "try {count} of {}", s.key);
        }
    }
    let letters = dead_letters(&mut client, &cluster, "group", 4);
    let dead: std::collections::BTreeSet<_> = letters.iter().map(|l| l.key.as_str()).collect();
    let wanted: Vec<String> = (0..4).map(|i| format!("always {i}")).collect();
    assert_eq!(dead.into_iter().collect::<Vec<_>>(), wanted);
    assert!(
        client
            .received("group")
            .iter()
            .all(|r| r.reconsume_times <= 3),
        "more tries than allowed"
    );
}
