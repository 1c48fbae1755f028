//! A reply finds the client that asked, whichever shard and process it comes through, and a request that nobody answers ends at
//! its time-out; so it is again after a kill -9 of the broker.

use std::time::{Duration, Instant};

use corelane_tests::{Client, Cluster, Consumer, Language, Message, Options, in_java_and_go};
use serde_json::json;

in_java_and_go!(each_client_gets_its_own_reply);

fn ask(client: &mut Client, producer: &str, text: &str) -> Result<String, String> {
    let question = Message::new("questions", text).property("reply", format!("answer to {text}"));
    client
        .try_call(
            "request",
            json!({"producer": producer, "message": question, "timeout_ms": 20_000}),
        )
        .map(|reply| reply["body"].as_str().unwrap_or_default().to_owned())
}

fn each_client_gets_its_own_reply(language: Language) {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("questions", 2);
    let mut answering = Client::start(language, &cluster);
    answering.producer("answers");
    answering.consumer(&Consumer::new("group", "questions").with("replies_with", "answers"));
    let mut asking = [(); 2].map(|()| Client::start(language, &cluster));
    // A client is known by its name, in whichever process it is.
    let names = ["asks", "asks-too"];
    for (client, name) in asking.iter_mut().zip(names) {
        client.producer(name);
    }
    for round in 0..4 {
        for (i, client) in asking.iter_mut().enumerate() {
            let text = format!("question {round} of {i}");
            assert_eq!(
                ask(client, names[i], &text),
                Ok(format!("answer to {text}"))
            );
        }
    }
    let start = Instant::now();
    let silent = asking[0].try_call(
        "request",
        json!({"producer": "asks", "message": Message::new("questions", "no answer"), "timeout_ms": 2000}),
    );
    assert!(silent.is_err(), "a reply that nobody sent: {silent:?}");
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(10)).contains(&took),
        "the time-out of 2 s came after {took:?}"
    );
    assert_eq!(answering.received_count("group"), 9);

    cluster.kill9();
    cluster.start_again();
    for (i, client) in asking.iter_mut().enumerate() {
        // A request may be lost with the connection that breaks; nothing is promised of it.
        let answer =
            corelane_tests::eventually("a reply after the kill", Duration::from_secs(90), || {
                ask(client, names[i], &format!("late question of {i}")).ok()
            });
        assert_eq!(answer, format!("answer to late question of {i}"));
    }
}
