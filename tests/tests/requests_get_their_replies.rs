//! A reply finds the client that asked, whichever shard and process it comes through, and a request that nobody answers ends at
//! its time-out; so it is again after a kill -9 of the broker.

use std::time::{Duration, Instant};

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Options, eventually, in_java_and_go,
};
use serde_json::json;

in_java_and_go!(each_client_gets_its_own_reply);

fn ask(client: &mut Client, producer: &str, text: &str) -> Result<String, String> {
    let question = Message::new("questions", text).property("reply", format!("answer to {text}"));
    client
        .try_call(
            "request",
            json!({"producer": producer, "message": question, "timeout_ms": 5_000}),
        )
        .map(|reply| reply["body"].as_str().unwrap_or_default().to_owned())
}

/// Nothing is promised of a request whose client the broker does not know yet: the Go client tells of itself every 30 s.
fn ask_until_answered(client: &mut Client, producer: &str, text: &str) {
    let answer = eventually("a first reply", Duration::from_secs(90), || {
        ask(client, producer, text).ok()
    });
    assert_eq!(answer, format!("answer to {text}"));
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
    for (client, name) in asking.iter_mut().zip(names) {
        ask_until_answered(client, name, &format!("first of {name}"));
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
    let received = answering.received("group");
    let questions = received.iter().filter(|r| r.key.starts_with("question"));
    assert_eq!(questions.count(), 8, "{received:#?}");

    cluster.kill9();
    cluster.start_again();
    for (client, name) in asking.iter_mut().zip(names) {
        ask_until_answered(client, name, &format!("late question of {name}"));
    }
}
