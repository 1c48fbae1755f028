//! The store that Apache's broker leaves behind becomes ours: the same messages at the same offsets, groups that go on where
//! they stood, and delayed messages that still come.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use corelane_tests::ports::Ports;
use corelane_tests::server::Server;
use corelane_tests::turn::Turn;
use corelane_tests::{
    Client, Consumer, Language, Message, Mode, Received, apache, binary, eventually, ledger,
    new_dir, raw,
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(120);

fn corelane(args: &[&str]) -> Output {
    let mut command = Command::new(binary::corelane());
    let output = command.args(args).output().expect("the binary runs");
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a place is but for the broker's name.
fn place(received: &Received) -> (i32, i64) {
    (received.place.queue, received.place.offset)
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn consumers_go_on_where_they_were() {
    let _turn = Turn::alone();
    let (dir, ports) = (new_dir(), Ports::take());
    let nameserver = format!("127.0.0.1:{}", ports.nameserver());
    let _nameserver = Server::nameserver("nameserver", &dir, ports.nameserver());
    let mut theirs = apache::broker("theirs", &dir, ports.broker(0), &nameserver, &[]);
    let ready = |server: &mut Server, name: &str| {
        eventually("the broker is registered", WITHIN, || {
            server.must_run();
            let masters = raw::masters(&nameserver);
            masters.keys().any(|known| known == name).then_some(masters)
        })
    };
    let masters = ready(&mut theirs, "theirs");
    let address = masters["theirs"].clone();

    let mut client = Client::start_with(Language::Java, &nameserver, &dir, &[]);
    client.call(
        "create_topic",
        json!({"topic": "moved", "brokers": [address], "queue_count": 2}),
    );
    eventually("the route", WITHIN, || {
        (raw::route(&nameserver, "moved").len() == 1).then_some(())
    });
    client.producer("producer");
    client.consumer(&Consumer::new("group", "moved"));
    let messages = |from: usize, to: usize| -> Vec<Message> {
        (from..to)
            .map(|i| Message::new("moved", format!("message {i}")).tag("t"))
            .collect()
    };
    let before = messages(0, 40);
    let mut sent = client.send("producer", Mode::Sync, &before);
    let seen = client.receive("group", before.len(), WITHIN);
    client.wait_committed("group", "moved", WITHIN);
    client.shutdown("group");
    let unread = messages(40, 60);
    sent.extend(client.send("producer", Mode::Sync, &unread));
    let mut fields = raw::send_fields("moved", "1").to_vec();
    // Level 4 waits 30 seconds.
    fields.push((
        "properties",
        "DELAY\u{1}4\u{2}KEYS\u{1}late\u{2}UNIQ_KEY\u{1}late0001\u{2}",
    ));
    let mut connection = raw::Connection::open(&address).expect("a connection");
    let response = connection.request(raw::code::SEND, &fields, b"late");
    assert_eq!(response.expect("an answer").code, 0);
    drop(client);
    theirs.sigterm(WITHIN);
    eventually("the broker has unregistered", WITHIN, || {
        raw::masters(&nameserver).is_empty().then_some(())
    });

    let store = dir.join("theirs").display().to_string();
    let into = dir.join("ours").display().to_string();
    let dry = corelane(&["import", &store, "--into", &into, "--dry-run", "--json"]);
    assert!(!dir.join("ours").exists(), "a dry run writes nothing");
    let imported = corelane(&["import", &store, "--into", &into, "--json"]);
    let last = |output: &Output| -> Value {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(text.lines().last().expect("a summary")).expect("JSON")
    };
    let (mut dry, imported) = (last(&dry), last(&imported));
    dry["dryRun"] = json!(false);
    assert_eq!(dry, imported);
    assert_eq!(imported["delayed"], 1, "{imported}");
    corelane(&["verify", &into]);

    let mut ours = Server::broker("ours", &dir, ports.broker(1), &nameserver);
    ready(&mut ours, "ours-0");
    let mut client = Client::start_with(Language::Java, &nameserver, &dir, &[]);
    client.consumer(&Consumer::new("group", "moved").name("goes on"));
    client.consumer(&Consumer::new("other", "moved").name("all"));
    let all = client.receive("all", 61, WITHIN);
    let rest = client.receive("goes on", 21, WITHIN);
    ledger::nothing_twice(&all);
    ledger::nothing_twice(&rest);
    let by_key: BTreeMap<&str, &Received> = all.iter().map(|r| (r.key.as_str(), r)).collect();
    assert_eq!(by_key.len(), 61);
    for sent in &sent {
        let received = by_key[sent.key.as_str()];
        assert_eq!(
            place(received),
            (sent.place.queue, sent.place.offset),
            "{}",
            sent.key
        );
        assert_eq!(received.message_id, sent.message_id, "{}", sent.key);
    }
    for seen in &seen {
        let received = by_key[seen.key.as_str()];
        assert_eq!(
            (
                received.stored_ms,
                received.born_ms,
                &received.tag,
                &received.body
            ),
            (seen.stored_ms, seen.born_ms, &seen.tag, &seen.body)
        );
    }
    let mut keys: Vec<&str> = rest.iter().map(|r| r.key.as_str()).collect();
    keys.sort_unstable();
    let mut expected: Vec<&str> = unread
        .iter()
        .map(|m| m.key.as_str())
        .chain(["late"])
        .collect();
    expected.sort_unstable();
    assert_eq!(keys, expected, "only what the group had not consumed");

    client.producer("producer");
    for sent in client.send("producer", Mode::Sync, &messages(60, 62)) {
        let same_queue = all.iter().filter(|r| r.place.queue == sent.place.queue);
        let newest = same_queue.map(|r| r.place.offset).max();
        assert_eq!(newest.map(|offset| offset + 1), Some(sent.place.offset));
    }
    assert!(ours.sigterm(WITHIN).success());
}
