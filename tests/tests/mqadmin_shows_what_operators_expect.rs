//! The commands of mqadmin that operators use every day find in the broker what they look for, and do what they say.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, eventually, raw,
};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);

/// The columns of the line that begins with these columns.
fn line<'a>(output: &'a str, begins: &[&str]) -> Vec<&'a str> {
    output
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.starts_with(begins))
        .unwrap_or_else(|| panic!("no line begins with {begins:?}: {output}"))
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn every_day_commands() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let nameserver = cluster.nameserver().to_owned();
    let brokers = cluster.brokers();
    let (name, address) = brokers.iter().next().expect("a shard");
    let mut client = Client::start(Language::Java, &cluster);
    let run = |client: &mut Client, args: &[&str]| -> String {
        let args: Vec<&str> = args.iter().copied().chain(["-n", &nameserver]).collect();
        let output = client.call("mqadmin", json!({"args": args}))["output"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(!output.contains("Exception"), "mqadmin {args:?}: {output}");
        output
    };
    run(
        &mut client,
        &[
            "updateTopic",
            "-c",
            "DefaultCluster",
            "-t",
            "daily",
            "-r",
            "2",
            "-w",
            "2",
        ],
    );
    run(
        &mut client,
        &[
            "updateSubGroup",
            "-c",
            "DefaultCluster",
            "-g",
            "group",
            "-r",
            "5",
        ],
    );
    eventually("the route", WITHIN, || {
        (raw::route(&nameserver, "daily").len() == 2).then_some(())
    });
    let group = client.call("group", json!({"broker": address, "group": "group"}));
    assert_eq!(group["retry_max_times"], 5);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "daily").name("watched"));
    let messages: Vec<Message> = (0..20)
        .map(|i| Message::new("daily", format!("key{i}")).tag("t"))
        .collect();
    let sent = client.send("producer", Mode::Sync, &messages);
    client.receive("watched", 20, WITHIN);
    client.wait_committed("group", "daily", WITHIN);

    let progress = run(
        &mut client,
        &["consumerProgress", "-g", "group", "-t", "daily"],
    );
    for shard in brokers.keys() {
        for queue in ["0", "1"] {
            let columns = line(&progress, &["daily", shard, queue]);
            assert_eq!(
                (columns[3], columns[4], columns[columns.len() - 3]),
                ("5", "5", "0"),
                "{progress}"
            );
        }
    }
    assert!(progress.contains("Consume Diff Total: 0"), "{progress}");
    let all = run(&mut client, &["consumerProgress"]);
    assert_eq!(
        line(&all, &["group"])[1],
        "1",
        "members of the group: {all}"
    );
    let status = run(&mut client, &["topicStatus", "-t", "daily"]);
    let columns = line(&status, &[name, "1"]);
    assert_eq!(&columns[2..4], ["0", "5"], "{status}");
    let runtime = run(&mut client, &["brokerStatus", "-b", address]);
    for key in [
        "brokerVersionDesc",
        "putTps",
        "getTotalTps",
        "msgPutTotalTodayNow",
        "bootTimestamp",
    ] {
        assert!(runtime.contains(key), "{key} in {runtime}");
    }
    let put = line(&runtime, &["msgPutTotalTodayNow"]);
    assert!(put[2].parse::<u64>().is_ok_and(|n| n >= 10), "{put:?}");
    let list = run(&mut client, &["clusterList"]);
    assert!(
        brokers.values().all(|address| list.contains(address)),
        "{list}"
    );

    let found = run(&mut client, &["queryMsgByKey", "-t", "daily", "-k", "key7"]);
    assert!(found.contains(&sent[7].message_id), "{found}");
    let found = run(
        &mut client,
        &[
            "queryMsgById",
            "-t",
            "daily",
            "-i",
            &sent[7].offset_message_id,
        ],
    );
    assert!(
        found.contains("key7") && found.contains(&sent[7].message_id),
        "{found}"
    );
    let found = run(
        &mut client,
        &[
            "queryMsgByUniqueKey",
            "-t",
            "daily",
            "-i",
            &sent[7].message_id,
        ],
    );
    assert!(found.contains("key7"), "{found}");
    let queue = sent[7].place.queue.to_string();
    let offset = sent[7].place.offset.to_string();
    let found = run(
        &mut client,
        &[
            "queryMsgByOffset",
            "-t",
            "daily",
            "-b",
            &sent[7].place.broker,
            "-i",
            &queue,
            "-o",
            &offset,
        ],
    );
    assert!(found.contains(&sent[7].message_id), "{found}");
    let printed = run(&mut client, &["printMsg", "-t", "daily", "-d", "true"]);
    assert!(
        sent.iter().all(|s| printed.contains(&s.message_id)),
        "{printed}"
    );
    let consumed = run(
        &mut client,
        &["consumeMessage", "-t", "daily", "-g", "admin-group"],
    );
    assert!(
        sent.iter().all(|s| consumed.contains(&s.message_id)),
        "{consumed}"
    );
    let told = run(
        &mut client,
        &[
            "sendMessage",
            "-t",
            "daily",
            "-p",
            "by hand",
            "-k",
            "by-hand",
            "-b",
            name,
            "-i",
            "1",
        ],
    );
    assert!(told.contains("SEND_OK"), "{told}");
    client.deliveries("watched", 1, WITHIN, |r| {
        r.key == "by-hand" && r.place.queue == 1
    });

    let connected = run(&mut client, &["consumerConnection", "-g", "group"]);
    assert!(
        connected.contains("watched") && connected.contains("daily"),
        "{connected}"
    );
    let connected = run(
        &mut client,
        &["producerConnection", "-g", "producer-group", "-t", "daily"],
    );
    assert!(connected.contains("producer"), "{connected}");
    let status = run(&mut client, &["consumerStatus", "-g", "group"]);
    assert!(status.contains("watched"), "{status}");
    client.shutdown("watched");

    let reset = run(
        &mut client,
        &["resetOffsetByTime", "-g", "group", "-t", "daily", "-s", "0"],
    );
    assert!(!reset.contains("error"), "{reset}");
    let progress = client.call("progress", json!({"group": "group", "topic": "daily"}));
    let committed = progress["queues"].as_array().expect("queues");
    assert!(
        committed.iter().all(|q| q["committed"] == 0),
        "{committed:?}"
    );
    run(
        &mut client,
        &[
            "cloneGroupOffset",
            "-s",
            "group",
            "-d",
            "clone",
            "-t",
            "daily",
            "-o",
            "true",
        ],
    );
    run(
        &mut client,
        &[
            "setConsumeMode",
            "-c",
            "DefaultCluster",
            "-t",
            "daily",
            "-g",
            "group",
            "-m",
            "POP",
            "-q",
            "0",
        ],
    );
    let route = run(&mut client, &["topicRoute", "-t", "daily"]);
    assert!(
        brokers.values().all(|address| route.contains(address)),
        "{route}"
    );
    run(
        &mut client,
        &["deleteSubGroup", "-c", "DefaultCluster", "-g", "group"],
    );
    for address in brokers.values() {
        let groups = client.call("groups", json!({"broker": address}));
        assert!(
            !groups["groups"]
                .as_array()
                .expect("groups")
                .contains(&json!("group"))
        );
    }
    run(
        &mut client,
        &["deleteTopic", "-c", "DefaultCluster", "-t", "daily"],
    );
    eventually("the topic has no route", WITHIN, || {
        raw::route(&nameserver, "daily").is_empty().then_some(())
    });
    assert!(
        !run(&mut client, &["topicList"])
            .lines()
            .any(|line| line == "daily")
    );
}
