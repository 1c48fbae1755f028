//! Apache's broker registers with our NameServer and our broker with Apache's, side by side in one cluster, and a client
//! uses both as if they were one.

use std::path::Path;
use std::time::Duration;

use corelane_tests::ports::Ports;
use corelane_tests::server::Server;
use corelane_tests::turn::Turn;
use corelane_tests::{
    Client, Consumer, Language, Message, Mode, apache, eventually, ledger, new_dir, raw,
};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(120);

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn with_our_nameserver() {
    with_nameserver(|dir, port| Server::nameserver("nameserver", dir, port));
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn with_apaches_nameserver() {
    with_nameserver(|dir, port| apache::nameserver("nameserver", dir, port));
}

fn with_nameserver(start: impl Fn(&Path, u16) -> Server) {
    let _turn = Turn::alone();
    let (dir, ports) = (new_dir(), Ports::take());
    let nameserver = format!("127.0.0.1:{}", ports.nameserver());
    let _nameserver = start(&dir, ports.nameserver());
    let mut theirs = apache::broker("theirs", &dir, ports.broker(0), &nameserver, &[]);
    let mut ours = Server::broker("ours", &dir, ports.broker(1), &nameserver);
    let masters = eventually("both brokers are registered", WITHIN, || {
        theirs.must_run();
        ours.must_run();
        Some(raw::masters(&nameserver)).filter(|masters| masters.len() == 2)
    });
    let addresses: Vec<String> = masters.values().cloned().collect();

    let mut client = Client::start_with(Language::Java, &nameserver, &dir, &[]);
    client.call(
        "create_topic",
        json!({"topic": "mixed", "brokers": addresses, "queue_count": 2}),
    );
    eventually("the route of both", WITHIN, || {
        (raw::route(&nameserver, "mixed").len() == 2).then_some(())
    });
    client.producer("producer");
    client.consumer(&Consumer::new("group", "mixed"));
    let messages: Vec<Message> = (0..40)
        .map(|i| Message::new("mixed", format!("message {i}")).tag("t"))
        .collect();
    let sent = client.send("producer", Mode::Sync, &messages);
    for broker in ["ours-0", "theirs"] {
        let count = sent.iter().filter(|s| s.place.broker == broker).count();
        assert_eq!(count, 20, "messages at {broker}");
    }
    ledger::equal(&messages, &client.receive("group", messages.len(), WITHIN));
    client.wait_committed("group", "mixed", WITHIN);
    let args = ["clusterList", "-n", &nameserver];
    let list = client.call("mqadmin", json!({"args": args}))["output"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        list.contains("ours") && list.contains("theirs"),
        "clusterList: {list}"
    );

    let status = ours.sigterm(Duration::from_secs(10));
    assert!(status.success(), "{status}");
    let left = eventually("our broker has unregistered", WITHIN, || {
        Some(raw::masters(&nameserver)).filter(|masters| masters.len() == 1)
    });
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["theirs"]);
}
