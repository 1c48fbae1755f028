//! The consumers of a group share the queues of a topic, and when one leaves, in the ordinary way or by kill -9, the other
//! takes over its queues without a loss.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Queue, Received, eventually,
    in_java_and_go, ledger,
};

in_java_and_go!(
    one_stops_and_the_other_takes_over,
    one_is_killed_and_the_other_takes_over
);

/// The Go client looks for new queues by itself only every 20 s; a broker tells it at once.
const WITHIN: Duration = Duration::from_secs(60);

fn one_stops_and_the_other_takes_over(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("stops", 4);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "stops").name("stays"));
    client.consumer(&Consumer::new("group", "stops").name("stops"));
    wait_shared(&mut client, &queues, "stops", |client| {
        [client.received("stays"), client.received("stops")]
    });

    let stream = client.stream("producer", "stops", &queues, 3000, 100);
    eventually("the stream flows", WITHIN, || {
        (client.acknowledged(stream) > 1000).then_some(())
    });
    client.shutdown("stops");
    let outcome = client.end(stream, WITHIN);
    assert!(outcome.failed.is_empty(), "not sent: {:?}", outcome.failed);

    let received = ledger::receive_all(
        &[(&client, "stays"), (&client, "stops")],
        &outcome.sent,
        WITHIN,
    );
    let received: Vec<_> = received
        .into_iter()
        .filter(|r| !r.key.starts_with("probe"))
        .collect();
    ledger::nothing_lost(&outcome.sent, &received);
    ledger::in_order(&received);
    assert_eq!(
        queues_of(&client.received("stays")).len(),
        queues.len(),
        "the one that stays has all queues"
    );
}

fn one_is_killed_and_the_other_takes_over(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("killed", 4);
    let mut client = Client::start(language, &cluster);
    let mut victim = Client::start(language, &cluster);
    client.producer("producer");
    client.consumer(&Consumer::new("group", "killed").name("stays"));
    victim.consumer(&Consumer::new("group", "killed").name("dies"));
    wait_shared(&mut client, &queues, "killed", |client| {
        [client.received("stays"), victim.received("dies")]
    });

    let stream = client.stream("producer", "killed", &queues, 3000, 100);
    eventually("the stream flows", WITHIN, || {
        (client.acknowledged(stream) > 1000).then_some(())
    });
    let victims = victim.kill9();
    let outcome = client.end(stream, WITHIN);
    assert!(outcome.failed.is_empty(), "not sent: {:?}", outcome.failed);

    // What the victim had received and not committed comes again; what it had not received must come to the other one.
    let by_victim: BTreeSet<_> = victims["dies"].iter().map(|r| r.place.clone()).collect();
    let rest: Vec<_> = outcome
        .sent
        .iter()
        .filter(|s| !by_victim.contains(&s.place))
        .cloned()
        .collect();
    let mut received = ledger::receive_all(&[(&client, "stays")], &rest, WITHIN);
    received.extend(victims["dies"].iter().cloned());
    received.retain(|r| !r.key.starts_with("probe"));
    ledger::nothing_lost(&outcome.sent, &received);
    ledger::in_order(&received);
}

fn queues_of(received: &[Received]) -> BTreeSet<(String, i32)> {
    received
        .iter()
        .map(|r| (r.place.broker.clone(), r.place.queue))
        .collect()
}

/// Sends a message to every queue, again and again, until two consumers get half of them each.
fn wait_shared(
    client: &mut Client,
    queues: &[Queue],
    topic: &str,
    seen: impl Fn(&Client) -> [Vec<Received>; 2],
) {
    let mut round = 0;
    eventually("the queues are shared", WITHIN, || {
        round += 1;
        let prefix = format!("probe {round} ");
        for (i, queue) in queues.iter().enumerate() {
            client.send_to(
                queue,
                "producer",
                Mode::Sync,
                &[Message::new(topic, format!("{prefix}{i}"))],
            );
        }
        std::thread::sleep(Duration::from_millis(500));
        let shares = seen(client).map(|mut received| {
            received.retain(|r| r.key.starts_with(&prefix));
            queues_of(&received)
        });
        let half = queues.len() / 2;
        (shares[0].len() == half && shares[1].len() == half && shares[0].is_disjoint(&shares[1]))
            .then_some(())
    });
}
