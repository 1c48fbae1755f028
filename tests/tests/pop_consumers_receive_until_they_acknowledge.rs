//! Push consumers that leave the sharing of queues to the broker (POP): what is acknowledged is done with, what is not comes
//! again when its time is over, with a count, through the death of a consumer and a kill -9 of the broker; a group of pull
//! consumers on the same topic sees everything as ever.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_tests::{Client, Cluster, Consumer, Language, Message, Mode, Options, eventually};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);
/// How long the driver's consumers have for a message.
const INVISIBLE: Duration = Duration::from_secs(5);

fn pop<'a>(group: &'a str, topic: &'a str, name: &'a str) -> Consumer<'a> {
    Consumer::new(group, topic)
        .name(name)
        .with("client_rebalance", false)
        .with("max_reconsume", 1)
        .with("retry_level", 1)
        .with("threads", 4)
}

fn use_pop(client: &mut Client, cluster: &Cluster, group: &str, topic: &str) {
    let brokers: Vec<String> = cluster.brokers().into_values().collect();
    client.call(
        "request_mode",
        json!({"brokers": brokers, "topic": topic, "group": group, "mode": "POP"}),
    );
}

fn numbered(topic: &str, name: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")))
        .collect()
}

fn wait_connected(client: &mut Client, group: &str, count: usize) {
    eventually("the consumers are connected", WITHIN, || {
        (client.connections(group).len() == count).then_some(())
    });
}

/// What all these consumers received of messages whose key starts with `prefix`: key and count, sorted.
fn tries(client: &Client, consumers: &[&str], prefix: &str) -> Vec<(String, i32)> {
    let mut tries: Vec<_> = consumers
        .iter()
        .flat_map(|name| client.received(name))
        .filter(|r| r.key.starts_with(prefix))
        .map(|r| (r.key, r.reconsume_times))
        .collect();
    tries.sort_unstable();
    tries
}

fn each(messages: &[Message], counts: &[i32]) -> Vec<(String, i32)> {
    let mut all: Vec<_> = messages
        .iter()
        .flat_map(|m| counts.iter().map(|count| (m.key.clone(), *count)))
        .collect();
    all.sort_unstable();
    all
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn acknowledged_once_and_again_when_not_beside_a_pull_group() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("popped", 2);
    let mut client = Client::start(Language::Java, &cluster);
    use_pop(&mut client, &cluster, "group", "popped");
    client.producer("producer");
    let names = ["first", "second"];
    for name in names {
        client.consumer(&pop("group", "popped", name));
    }
    client.consumer(&Consumer::new("pull", "popped"));
    wait_connected(&mut client, "group", 2);
    let good = numbered("popped", "good", 40);
    let bad: Vec<Message> = numbered("popped", "bad", 4)
        .into_iter()
        .map(|m| m.property("fails", 1))
        .collect();
    let dead: Vec<Message> = numbered("popped", "dead", 2)
        .into_iter()
        .map(|m| m.property("fails", 99))
        .collect();
    let all = [good.clone(), bad.clone(), dead.clone()].concat();
    client.send("producer", Mode::Sync, &all);
    eventually("all tries are made", WITHIN, || {
        (tries(&client, &names, "").len() >= 40 + 2 * 4 + 2 * 2).then_some(())
    });
    client.receive("pull", all.len(), WITHIN);
    // Long enough for everything that is not acknowledged to come again.
    std::thread::sleep(INVISIBLE * 2);
    cluster.kill9();
    cluster.start_again();
    let later = numbered("popped", "later", 20);
    eventually("the producer is there again", WITHIN, || {
        let probe = [Message::new("popped", "probe")];
        let sent = client.try_send("producer", Mode::Sync, None, &probe);
        sent.failed.is_empty().then_some(())
    });
    client.send("producer", Mode::Sync, &later);
    eventually("what was sent later arrives", WITHIN, || {
        (tries(&client, &names, "later").len() >= 20).then_some(())
    });
    std::thread::sleep(INVISIBLE + Duration::from_secs(2));

    assert_eq!(tries(&client, &names, "good"), each(&good, &[0]));
    assert_eq!(tries(&client, &names, "bad"), each(&bad, &[0, 1]));
    // The client gives up by itself after the last try, and acknowledges.
    assert_eq!(tries(&client, &names, "dead"), each(&dead, &[0, 1]));
    assert_eq!(tries(&client, &names, "later"), each(&later, &[0]));
    for name in names {
        assert!(
            client.received_count(name) > 0,
            "{name} has received nothing"
        );
        for r in client.received(name) {
            assert!(r.properties.contains_key("POP_CK"), "{r:?}");
        }
    }
    let pulled: BTreeSet<String> = client.received("pull").into_iter().map(|r| r.key).collect();
    let wanted: BTreeSet<String> = all.iter().chain(&later).map(|m| m.key.clone()).collect();
    assert!(
        pulled.is_superset(&wanted),
        "the pull group misses some of {wanted:?}"
    );
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn what_a_dead_consumer_had_comes_to_another_one_through_kill_9() {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("held", 2);
    let mut client = Client::start(Language::Java, &cluster);
    let mut victim = Client::start(Language::Java, &cluster);
    use_pop(&mut client, &cluster, "group", "held");
    client.producer("producer");
    victim.consumer(&pop("group", "held", "victim"));
    wait_connected(&mut client, "group", 1);
    let slow: Vec<Message> = numbered("held", "slow", 4)
        .into_iter()
        .map(|m| m.property("works_ms", 3000))
        .collect();
    client.send("producer", Mode::Sync, &slow);
    victim.deliveries("victim", 4, WITHIN, |_| true);
    victim.kill9();
    cluster.kill9();
    cluster.start_again();
    client.consumer(&pop("group", "held", "heir"));
    client.deliveries("heir", 4, WITHIN, |_| true);
    std::thread::sleep(INVISIBLE + Duration::from_secs(4));
    assert_eq!(tries(&client, &["heir"], "slow"), each(&slow, &[1]));
}
