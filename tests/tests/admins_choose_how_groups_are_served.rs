//! An operator chooses for a group and a topic whether consumers that leave the sharing of queues to the broker pull or pop, and
//! how many of them share a queue; running consumers follow, nothing is lost, and what fails is retried and at last is dead in
//! each mode.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Model, Options, Received, eventually,
    ledger, raw,
};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);
/// How long the driver's consumers have for a message.
const INVISIBLE: Duration = Duration::from_secs(5);

fn numbered(topic: &str, name: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|i| Message::new(topic, format!("{name} {i}")))
        .collect()
}

/// A consumer that asks the broker which queues it has.
fn led<'a>(group: &'a str, topic: &'a str, name: &'a str) -> Consumer<'a> {
    Consumer::new(group, topic)
        .name(name)
        .with("client_rebalance", false)
        .with("threads", 4)
}

fn set_mode(
    client: &mut Client,
    cluster: &Cluster,
    group: &str,
    topic: &str,
    mode: &str,
    share: &str,
) {
    let args = [
        "setConsumeMode",
        "-c",
        "DefaultCluster",
        "-g",
        group,
        "-t",
        topic,
        "-m",
        mode,
        "-q",
        share,
        "-n",
        cluster.nameserver(),
    ];
    let answer = client.call("mqadmin", json!({"args": args}));
    let output = answer["output"].as_str().unwrap_or_default();
    assert!(output.contains("success"), "setConsumeMode: {output}");
}

/// The queues that a consumer pulls and those that it pops; -1 is any queue of its shard.
fn queues(client: &mut Client, name: &str, topic: &str) -> [BTreeSet<(String, i64)>; 2] {
    [false, true].map(|pop| {
        let verb = json!({"name": name, "topic": topic, "pop": pop});
        let answer = client.call("assigned", verb);
        let queues = answer["queues"].as_array().into_iter().flatten();
        let queues = queues.map(|q| {
            let broker = q["broker"].as_str().expect("a broker").to_owned();
            (broker, q["queue"].as_i64().expect("a number"))
        });
        queues.collect()
    })
}

/// Waits until the consumers pull and pop so many queues each.
fn wait_queues(client: &mut Client, topic: &str, names: &[&str], pulls: usize, pops: usize) {
    eventually(
        &format!("{names:?} have {pulls} and {pops} queues"),
        WITHIN,
        || {
            names
                .iter()
                .all(|name| queues(client, name, topic).map(|q| q.len()) == [pulls, pops])
                .then_some(())
        },
    );
}

fn received(client: &Client, names: &[&str], prefix: &str) -> Vec<Received> {
    let all = names.iter().flat_map(|name| client.received(name));
    all.filter(|r| r.key.starts_with(prefix)).collect()
}

fn wait_received(client: &Client, names: &[&str], prefix: &str, count: usize) -> Vec<Received> {
    eventually(&format!("{count} deliveries of {prefix}"), WITHIN, || {
        let received = received(client, names, prefix);
        (received.len() >= count).then_some(received)
    })
}

/// The keys of the dead letters of a group, sorted.
fn dead_letters(client: &mut Client, cluster: &Cluster, group: &str, count: usize) -> Vec<String> {
    let topic = format!("%DLQ%{group}");
    eventually("the dead letters have a topic", WITHIN, || {
        (!raw::route(cluster.nameserver(), &topic).is_empty()).then_some(())
    });
    let undertaker = format!("undertaker-of-{group}");
    client.consumer(&Consumer::new(&undertaker, &topic));
    client.receive(&undertaker, count, WITHIN);
    std::thread::sleep(Duration::from_secs(2));
    let mut keys: Vec<_> = client
        .received(&undertaker)
        .into_iter()
        .map(|r| r.key)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn running_consumers_follow_from_pull_to_pop_and_back() {
    let mut cluster = Cluster::start(
        &Options::new()
            .shards(2)
            .set("offset_commit_interval_ms", "500")
            .set("message_delay_levels", "1s 1s 1s 1s"),
    );
    cluster.create_topic("followed", 4);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    let names = ["first", "second"];
    for name in names {
        client.consumer(&led("group", "followed", name).with("max_reconsume", 1));
    }
    // Nobody has said anything yet: each pulls its share, and failures go the way of pulls.
    wait_queues(&mut client, "followed", &names, 4, 0);
    wait_queues(&mut client, "%RETRY%group", &names, 1, 0);
    let shares = names.map(|name| queues(&mut client, name, "followed")[0].clone());
    assert!(shares[0].is_disjoint(&shares[1]), "{shares:?}");
    let mut all = numbered("followed", "pulled", 16);
    let failing = [Message::new("followed", "fails-pulled").property("fails", 2)];
    client.send("producer", Mode::Sync, &all);
    client.send("producer", Mode::Sync, &failing);
    let pulled = wait_received(&client, &names, "pulled", 16);
    assert!(
        pulled.iter().all(|r| !r.properties.contains_key("POP_CK")),
        "{pulled:#?}"
    );
    wait_received(&client, &names, "fails-pulled", 2);
    assert_eq!(
        dead_letters(&mut client, &cluster, "group", 1),
        ["fails-pulled"]
    );

    client.wait_committed("group", "followed", WITHIN);
    set_mode(&mut client, &cluster, "group", "followed", "POP", "0");
    // Each pops of any queue of each shard.
    wait_queues(&mut client, "followed", &names, 0, 2);
    let popped = numbered("followed", "popped", 16);
    client.send("producer", Mode::Sync, &popped);
    let got = wait_received(&client, &names, "popped", 16);
    assert!(
        got.iter().all(|r| r.properties.contains_key("POP_CK")),
        "{got:#?}"
    );
    all.extend(popped);
    // Everything is acknowledged, and where the group is written down.
    std::thread::sleep(Duration::from_secs(2));
    cluster.kill9();
    cluster.start_again();
    wait_queues(&mut client, "followed", &names, 0, 2);

    set_mode(&mut client, &cluster, "group", "followed", "PULL", "0");
    wait_queues(&mut client, "followed", &names, 4, 0);
    let again = numbered("followed", "again", 16);
    client.send("producer", Mode::Sync, &again);
    let got = wait_received(&client, &names, "again", 16);
    assert!(
        got.iter().all(|r| !r.properties.contains_key("POP_CK")),
        "{got:#?}"
    );
    all.extend(again);
    std::thread::sleep(INVISIBLE + Duration::from_secs(2));
    let mut seen = received(&client, &names, "");
    // A pop that waited when the mode changed may have taken a message that nobody was there for any more.
    seen.retain(|r| {
        !r.key.starts_with("fails") && (r.reconsume_times == 0 || !r.key.starts_with("again"))
    });
    ledger::equal(&all, &seen);
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn so_many_members_share_the_queues_that_they_pop() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("shared", 3);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    set_mode(&mut client, &cluster, "group", "shared", "POP", "1");
    let names = ["one", "two", "three"];
    for name in names {
        client.consumer(&led("group", "shared", name));
    }
    // Six queues among three members is two each, and the two of the next member.
    wait_queues(&mut client, "shared", &names, 0, 4);
    let mut members: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for name in names {
        for queue in queues(&mut client, name, "shared")[1].clone() {
            *members.entry(queue).or_default() += 1;
        }
    }
    assert!(
        members.len() == 6 && members.values().all(|n| *n == 2),
        "{members:?}"
    );
    let messages = numbered("shared", "message", 60);
    client.send("producer", Mode::Sync, &messages);
    wait_received(&client, &names, "", 60);
    std::thread::sleep(INVISIBLE + Duration::from_secs(2));
    ledger::equal(&messages, &received(&client, &names, ""));
    // In broadcasting the mode does not count: each one pulls everything.
    client.consumer(&led("loud", "shared", "loud").model(Model::Broadcasting));
    let late = numbered("shared", "late", 6);
    wait_queues(&mut client, "shared", &["loud"], 6, 0);
    client.send("producer", Mode::Sync, &late);
    wait_received(&client, &["loud"], "late", 6);
}

/// A consumer that is always too slow never acknowledges: the group's number of tries says when a message is dead.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn what_is_popped_and_never_acknowledged_is_dead_at_last() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("slow", 1);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    let brokers: Vec<String> = cluster.brokers().into_values().collect();
    client.call(
        "set_group",
        json!({"brokers": brokers, "group": "group", "retry_max_times": 1}),
    );
    set_mode(&mut client, &cluster, "group", "slow", "POP", "0");
    client.consumer(&led("group", "slow", "slow"));
    client.consumer(&Consumer::new("pull-group", "slow"));
    let slow = Message::new("slow", "too slow").property("works_ms", 8000);
    client.send(
        "producer",
        Mode::Sync,
        &[slow, Message::new("slow", "good")],
    );
    let tries = client.deliveries("slow", 2, WITHIN, |r| r.key == "too slow");
    assert_eq!(
        tries.iter().map(|r| r.reconsume_times).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(
        dead_letters(&mut client, &cluster, "group", 1),
        ["too slow"]
    );
    std::thread::sleep(INVISIBLE * 2);
    let seen = received(&client, &["slow"], "");
    assert_eq!(seen.len(), 3, "{seen:#?}");
    assert_eq!(client.received("pull-group").len(), 2);
}

/// Orderly consumers that pop see each queue in its order, and what fails is before what comes after it.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn orderly_consumers_keep_the_order_when_they_pop() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let all_queues = cluster.create_topic("in-order", 2);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    set_mode(&mut client, &cluster, "group", "in-order", "POP", "0");
    for queue in &all_queues {
        let messages: Vec<Message> = (0..12)
            .map(|i| {
                let message =
                    Message::new("in-order", format!("{} {} {i}", queue.broker, queue.id));
                message.property("fails", if i == 4 { 1 } else { 0 })
            })
            .collect();
        client.send_to(queue, "producer", Mode::Sync, &messages);
    }
    client.consumer(&led("group", "in-order", "orderly").orderly());
    client.deliveries("orderly", 4 * 13, Duration::from_secs(120), |_| true);
    std::thread::sleep(INVISIBLE + Duration::from_secs(1));
    let mut of_queue: BTreeMap<(String, i32), Vec<i64>> = BTreeMap::new();
    for r in client.received("orderly") {
        of_queue
            .entry((r.place.broker, r.place.queue))
            .or_default()
            .push(r.place.offset);
    }
    assert_eq!(of_queue.len(), 4);
    for (queue, offsets) in of_queue {
        let mut highest = -1;
        for offset in &offsets {
            assert!(
                *offset <= highest + 1,
                "{queue:?} jumps to {offset}: {offsets:?}"
            );
            highest = highest.max(*offset);
        }
        assert_eq!(highest, 11, "{queue:?}: {offsets:?}");
    }
}
