//! A broker whose consumers wait for messages uses next to no CPU. The bound here is loose; the benchmarks measure the exact
//! share.

use std::thread::sleep;
use std::time::Duration;

use corelane_tests::{Client, Cluster, Consumer, Language, Message, Mode, Options};

const WATCHED: Duration = Duration::from_secs(10);

#[test]
fn without_clients() {
    let cluster = Cluster::start(&Options::new().shards(2).alone());
    assert_idle(&cluster);
}

#[test]
#[cfg_attr(not(all(have_java, have_go)), ignore = "a JDK, Maven or Go is absent")]
fn with_waiting_consumers() {
    let cluster = Cluster::start(&Options::new().shards(2).alone());
    cluster.create_topic("idle", 8);
    let waiting = [(Language::Java, "java"), (Language::Go, "go")].map(|(language, group)| {
        let mut client = Client::start(language, &cluster);
        client.producer("producer");
        client.consumer(&Consumer::new(group, "idle"));
        client.send("producer", Mode::Sync, &[Message::new("idle", "one")]);
        client.receive(group, 1, Duration::from_secs(30));
        client
    });
    assert_idle(&cluster);
    drop(waiting);
}

fn assert_idle(cluster: &Cluster) {
    // What a start leaves to do in the background is not idleness.
    sleep(Duration::from_secs(3));
    let before = cluster.process().cpu_time();
    sleep(WATCHED);
    let used = cluster.process().cpu_time() - before;
    let percent = used.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    println!("{percent:.1} % of a core");
    assert!(
        percent < 3.0,
        "{percent:.1} % of a core without anything to do"
    );
}
