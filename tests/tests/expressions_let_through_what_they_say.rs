//! A consumer with tags or with an SQL92 expression gets what the expression is true of, and nothing that it is false or
//! unknown of, also after a kill -9; one with a wrong expression is told so when it starts.

use std::time::Duration;

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, eventually, in_java_and_go,
};

in_java_and_go!(each_group_gets_what_its_expression_says);

const WITHIN: Duration = Duration::from_secs(60);

/// Numbers 0 to 23: `n` is the number, every third has a `name`, every fourth says whether it is `ok`.
fn messages(round: &str) -> Vec<Message> {
    // "Aa" and "BB" have the same hash code.
    let tags = ["Aa", "BB", "red", "green", "", "blue"];
    (0..24usize)
        .map(|i| {
            let mut m = Message::new("filtered", format!("{round} {i:02}"))
                .tag(tags[i % tags.len()])
                .property("n", i);
            if i.is_multiple_of(3) {
                m = m.property("name", format!("x{}", i % 4));
            }
            if i % 4 == 1 {
                m = m.property("ok", i % 8 == 1);
            }
            m
        })
        .collect()
}

type Chosen = (&'static str, &'static [usize]);

const TAGS: [Chosen; 5] = [
    ("Aa", &[0, 6, 12, 18]),
    ("BB", &[1, 7, 13, 19]),
    ("red || green", &[2, 3, 8, 9, 14, 15, 20, 21]),
    ("red||Aa || nothing", &[0, 2, 6, 8, 12, 14, 18, 20]),
    ("none", &[]),
];

const SQL: [Chosen; 14] = [
    ("n > 20", &[21, 22, 23]),
    ("n >= 4 AND n < 8", &[4, 5, 6, 7]),
    ("n BETWEEN 10 AND 12", &[10, 11, 12]),
    ("n NOT BETWEEN 2 AND 22", &[0, 1, 23]),
    ("name = 'x0'", &[0, 12]),
    // Without a name neither this nor its opposite is true.
    ("name <> 'x0'", &[3, 6, 9, 15, 18, 21]),
    ("NOT (name = 'x0')", &[3, 6, 9, 15, 18, 21]),
    ("name IS NULL AND n < 5", &[1, 2, 4]),
    ("name IS NOT NULL AND n > 15", &[18, 21]),
    ("name IN ('x1', 'x3')", &[3, 9, 15, 21]),
    ("TAGS IN ('red', 'blue') AND n > 12", &[14, 17, 20, 23]),
    ("ok = TRUE", &[1, 9, 17]),
    ("n = 3 OR (n > 15 AND name = 'x2')", &[3, 18]),
    ("missing > 1", &[]),
];

fn each_group_gets_what_its_expression_says(language: Language) {
    let mut cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("filtered", 2);
    let mut client = Client::start(language, &cluster);
    client.producer("producer");
    client.send("producer", Mode::Sync, &messages("before"));
    let groups: Vec<(String, bool, Chosen)> = TAGS
        .iter()
        .map(|chosen| (false, *chosen))
        .chain(SQL.iter().map(|chosen| (true, *chosen)))
        .enumerate()
        .map(|(i, (sql, chosen))| (format!("group-{i}"), sql, chosen))
        .collect();
    for (group, sql, (expression, _)) in &groups {
        let consumer = Consumer::new(group, "filtered");
        client.consumer(&if *sql {
            consumer.sql(expression)
        } else {
            consumer.expression(expression)
        });
    }
    check(&client, &groups, &["before"]);

    cluster.kill9();
    cluster.start_again();
    eventually("the producer is there again", WITHIN, || {
        let probe = [Message::new("filtered", "probe").tag("probe")];
        let sent = client.try_send("producer", Mode::Sync, None, &probe);
        sent.failed.is_empty().then_some(())
    });
    client.send("producer", Mode::Sync, &messages("after"));
    check(&client, &groups, &["before", "after"]);
}

fn check(client: &Client, groups: &[(String, bool, Chosen)], rounds: &[&str]) {
    let keys = |chosen: &[usize]| -> Vec<String> {
        let mut keys: Vec<String> = rounds
            .iter()
            .flat_map(|round| chosen.iter().map(move |i| format!("{round} {i:02}")))
            .collect();
        keys.sort_unstable();
        keys
    };
    for (group, _, (_, chosen)) in groups {
        client.deliveries(group, rounds.len() * chosen.len(), WITHIN, |_| true);
    }
    std::thread::sleep(Duration::from_secs(1));
    for (group, _, (expression, chosen)) in groups {
        // What was not committed before a kill may come again.
        let mut received: Vec<String> = client.received(group).into_iter().map(|r| r.key).collect();
        received.sort_unstable();
        if rounds.len() > 1 {
            received.dedup();
        }
        assert_eq!(received, keys(chosen), "{expression}");
    }
}

#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn a_wrong_expression_is_refused() {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("filtered", 2);
    let mut client = Client::start(Language::Java, &cluster);
    for (i, expression) in ["n >", "n = 'a' AND", "AND", "a == 1", "n BETWEEN 5 AND 1"]
        .iter()
        .enumerate()
    {
        let group = format!("wrong-{i}");
        let refused = client.try_consumer(&Consumer::new(&group, "filtered").sql(expression));
        let error = refused.expect_err(expression);
        assert!(error.contains("code 23"), "{expression}: {error}");
    }
    client.consumer(&Consumer::new("right", "filtered").sql("n = 1"));
    client.producer("producer");
    client.send("producer", Mode::Sync, &messages("sent"));
    client.deliveries("right", 1, WITHIN, |r| r.key == "sent 01");
}
