//! However the clients share queues (averagely, in a circle, by a consistent hash, by rooms, by a list of their own), the
//! consumers of a group have each queue once, and what is in it is received once.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, Queue, eventually, ledger,
};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);

fn assigned(client: &mut Client, name: &str) -> BTreeSet<(String, i64)> {
    let answer = client.call("assigned", json!({"name": name, "topic": "shared"}));
    answer["queues"]
        .as_array()
        .expect("queues")
        .iter()
        .map(|q| {
            let broker = q["broker"].as_str().expect("a broker").to_owned();
            (broker, q["queue"].as_i64().expect("a number"))
        })
        .collect()
}

fn of(queues: &[Queue]) -> BTreeSet<(String, i64)> {
    queues
        .iter()
        .map(|q| (q.broker.clone(), i64::from(q.id)))
        .collect()
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn each_queue_has_one_consumer_and_each_message_comes_once() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let queues = cluster.create_topic("shared", 4);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    let messages: Vec<Message> = (0..queues.len())
        .map(|i| Message::new("shared", format!("message {i}")))
        .collect();
    // Rooms are the last characters of names: each consumer of "nearby" has the queues of the shard of its number.
    let names = |strategy: &str| [0, 1].map(|i| format!("{strategy}-{i}"));
    let strategies = ["averagely", "circle", "hash", "nearby", "config"];
    for strategy in strategies {
        for (i, name) in names(strategy).iter().enumerate() {
            let (own, _): (Vec<_>, Vec<_>) = queues.iter().partition(|q| q.id as usize % 2 == i);
            let consumer = Consumer::new(strategy, "shared")
                .name(name)
                .with("strategy", strategy)
                .with("queues", json!(own));
            client.consumer(&consumer);
        }
    }
    for strategy in strategies {
        eventually(&format!("{strategy} shares all queues"), WITHIN, || {
            let [first, second] = names(strategy).map(|name| assigned(&mut client, &name));
            let all: BTreeSet<_> = first.union(&second).cloned().collect();
            let even = first.len() == queues.len() / 2 || strategy == "hash";
            (first.is_disjoint(&second) && all == of(&queues) && even).then_some(())
        });
    }
    let shard_of = |name: &str| {
        let found = |q: &&Queue| q.broker.ends_with(&name[name.len() - 1..]);
        of(&queues.iter().filter(found).cloned().collect::<Vec<_>>())
    };
    for name in names("nearby") {
        assert_eq!(assigned(&mut client, &name), shard_of(&name), "{name}");
    }
    for (i, name) in names("config").iter().enumerate() {
        let own: Vec<_> = queues
            .iter()
            .filter(|q| q.id as usize % 2 == i)
            .cloned()
            .collect();
        assert_eq!(assigned(&mut client, name), of(&own), "{name}");
    }

    for (queue, message) in queues.iter().zip(&messages) {
        client.send_to(queue, "producer", Mode::Sync, std::slice::from_ref(message));
    }
    for strategy in strategies {
        let names = names(strategy);
        let received = || {
            names
                .iter()
                .flat_map(|name| client.received(name))
                .collect::<Vec<_>>()
        };
        eventually(&format!("{strategy} receives all"), WITHIN, || {
            (received().len() >= messages.len()).then_some(())
        });
        ledger::equal(&messages, &received());
    }
}
