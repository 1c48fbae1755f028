//! `corelane import` of stores that are made here: queues whose heads are gone, damage, what waits, what is deleted.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use corelane_wire::record::{Host, RecordFields, RecordHead};
use serde_json::Value;

/// Where the first file of the commit log begins.
const START: u64 = 4 << 20;
const FILE_BYTES: usize = 64 << 10;

/// A store of an Apache broker.
struct Store {
    root: PathBuf,
    log: Vec<u8>,
}

impl Store {
    fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("corelane-import-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for directory in ["store/commitlog", "store/config"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let store = Self {
            root,
            log: Vec::new(),
        };
        store.config(
            "topics.json",
            r#"{"dataVersion":{"counter":1},"topicConfigTable":{
                "orders":{"topicName":"orders","readQueueNums":4,"writeQueueNums":4,"perm":6},
                "TBW102":{"topicName":"TBW102","readQueueNums":8,"writeQueueNums":8,"perm":7}}}"#,
        );
        store.config(
            "subscriptionGroup.json",
            r#"{"subscriptionGroupTable":{"g":{"groupName":"g"}}}"#,
        );
        store.config(
            "consumerOffset.json",
            r#"{"offsetTable":{"orders@g":{0:102,3:77}}}"#,
        );
        store.config("delayOffset.json", r#"{"offsetTable":{3:1}}"#);
        store
    }

    fn config(&self, name: &str, text: &str) {
        fs::write(self.root.join("store/config").join(name), text).unwrap();
    }

    /// Appends a record and returns its position.
    fn push(
        &mut self,
        topic: &str,
        queue_id: i32,
        queue_offset: i64,
        body: &[u8],
        properties: &str,
    ) -> u64 {
        let host = Host {
            ip: [10, 1, 2, 3].into(),
            port: 10911,
        };
        let position = START + self.log.len() as u64;
        let head = RecordHead {
            queue_id,
            flag: 9,
            queue_offset,
            physical_offset: position as i64,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: host,
            store_timestamp: 1_700_000_000_500,
            store_host: host,
            reconsume_times: 2,
            prepared_transaction_offset: 0,
        };
        let fields = RecordFields {
            head,
            body,
            topic,
            properties: properties.as_bytes(),
        };
        fields.push_to(&mut self.log).unwrap();
        position
    }

    /// Writes the commit log as files, with filler at the end of each but the last.
    fn write(&self) -> String {
        assert!(self.log.len() < FILE_BYTES);
        let mut bytes = self.log.clone();
        bytes.resize(FILE_BYTES, 0);
        fs::write(
            self.root.join(format!("store/commitlog/{START:020}")),
            bytes,
        )
        .unwrap();
        self.root.join("store").display().to_string()
    }

    fn target(&self) -> String {
        self.root.join("into").display().to_string()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command.env_remove("CORELANE_CONFIG");
    command.args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn import(store: &Store, more: &[&str]) -> Output {
    let (from, into) = (store.write(), store.target());
    let settings = ["--set", "segment_bytes=16MiB", "--json"];
    run(&[
        &["import", from.as_str(), "--into", into.as_str()],
        &settings[..],
        more,
    ]
    .concat())
}

/// Topic, queue, offset and body of the messages in a directory.
fn messages(directory: &str) -> Vec<(String, i64, i64, String)> {
    let found = json(&run(&["dump", directory, "--json"]))
        .into_iter()
        .filter_map(|line| {
            Some((
                line["topic"].as_str()?.to_owned(),
                line["queueId"].as_i64()?,
                line["queueOffset"].as_i64()?,
                line["body"].as_str()?.to_owned(),
            ))
        });
    found.collect()
}

#[test]
fn queues_begin_and_end_where_they_did() {
    let mut store = Store::new("offsets");
    for offset in 100..105 {
        store.push(
            "orders",
            0,
            offset,
            format!("a{offset}").as_bytes(),
            "KEYS\u{1}k\u{2}TAGS\u{1}t\u{2}",
        );
    }
    store.push("orders", 1, 0, b"b0", "");
    // Offsets in the middle are missing.
    store.push("orders", 1, 7, b"b7", "");
    store.push("gone", 0, 0, b"of a topic that is deleted", "");
    store.push("rmq_sys_REVIVE_LOG_c", 0, 0, b"{}", "");
    let output = import(&store, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = json(&output);
    let summary = lines.last().unwrap();
    assert_eq!(
        (summary["messages"].as_i64(), summary["offsets"].as_i64()),
        (Some(7), Some(2))
    );
    assert_eq!(
        summary["leftOut"].as_array().map(Vec::len),
        Some(2),
        "{summary}"
    );
    let ranges: Vec<_> = lines[..lines.len() - 1]
        .iter()
        .map(|row| ["queueId", "from", "to", "missing"].map(|name| row[name].as_i64().unwrap()))
        .collect();
    // Queue 3 has no message left, but a group stands in it.
    assert_eq!(ranges, [[0, 100, 105, 0], [1, 0, 8, 6], [3, 77, 77, 0]]);

    let into = store.target();
    let found = messages(&into);
    assert_eq!(found.len(), 7);
    assert_eq!(found[0], ("orders".to_owned(), 0, 100, "a100".to_owned()));
    assert_eq!(found[6], ("orders".to_owned(), 1, 7, "b7".to_owned()));
    let by_key = json(&run(&[
        "dump",
        &into,
        "--key",
        "k",
        "--topic",
        "orders",
        "--queue",
        "0",
        "--from-offset",
        "103",
        "--json",
    ]));
    let first = &by_key[0];
    assert_eq!(first["queueOffset"], 103);
    assert_eq!(
        (&first["storeTimestamp"], &first["bornTimestamp"]),
        (&1_700_000_000_500i64.into(), &1_700_000_000_000i64.into())
    );
    assert_eq!(
        (first["reconsumeTimes"].as_i64(), first["flag"].as_i64()),
        (Some(2), Some(9))
    );
    assert_eq!(first["properties"]["TAGS"], "t");

    let states = String::from_utf8(run(&["dump", &into, "--states"]).stdout).unwrap();
    for expected in [
        "goes on at 105",
        "orders 3 goes on at 77",
        "offsets g orders 0:102 3:77",
        "\"groupName\":\"g\"",
    ] {
        assert!(states.contains(expected), "{expected}: {states}");
    }
    let verified = run(&["verify", &into]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    // A second time there is no room for it.
    let again = import(&store, &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("has messages in this shard already"),
        "{}",
        stderr(&again)
    );
    // Another shard has.
    let other = import(&store, &["--shard", "1"]);
    assert!(other.status.success(), "{}", stderr(&other));
}

#[test]
fn a_dry_run_writes_nothing() {
    let mut store = Store::new("dry");
    store.push("orders", 0, 5, b"x", "");
    let output = import(&store, &["--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(json(&output).last().unwrap()["dryRun"], true);
    assert!(!Path::new(&store.target()).exists());
}

#[test]
fn damage_is_said_and_the_rest_is_imported() {
    let mut store = Store::new("damage");
    store.push("orders", 0, 0, b"first", "");
    let hurt = store.push("orders", 0, 1, b"second", "");
    store.push("orders", 0, 2, b"third", "");
    let body = store
        .log
        .windows(6)
        .position(|bytes| bytes == b"second")
        .unwrap();
    store.log[body] ^= 1;
    let output = import(&store, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("the first from {hurt} to ")),
        "{}",
        stderr(&output)
    );
    let offsets: Vec<i64> = messages(&store.target())
        .iter()
        .map(|message| message.2)
        .collect();
    assert_eq!(offsets, [0, 2]);
    assert!(run(&["verify", &store.target()]).status.success());
}

#[test]
fn what_waits_goes_on_waiting() {
    let mut store = Store::new("waits");
    let real = "REAL_TOPIC\u{1}orders\u{2}REAL_QID\u{1}1\u{2}";
    let with = |key: &str, more: &str| format!("{real}UNIQ_KEY\u{1}{key}\u{2}{more}");
    // Level 3 is delivered up to offset 1.
    store.push("SCHEDULE_TOPIC_XXXX", 2, 0, b"delivered", &with("l0", ""));
    store.push("SCHEDULE_TOPIC_XXXX", 2, 1, b"level", &with("l1", ""));
    let out = "TIMER_OUT_MS\u{1}4102444800000\u{2}";
    store.push("rmq_sys_wheel_timer", 0, 0, b"timer", &with("t0", out));
    store.push("rmq_sys_wheel_timer", 0, 1, b"came out", &with("t1", out));
    store.push("rmq_sys_wheel_timer", 0, 2, b"recalled", &with("t2", out));
    store.push(
        "rmq_sys_wheel_timer",
        0,
        3,
        b"",
        "TIMER_DEL_UNIQKEY\u{1}orders+t2\u{2}",
    );
    store.push("orders", 1, 0, b"came out", "UNIQ_KEY\u{1}t1\u{2}");
    store.push("RMQ_SYS_TRANS_HALF_TOPIC", 0, 0, b"ended", &with("h0", ""));
    store.push("RMQ_SYS_TRANS_HALF_TOPIC", 0, 1, b"half", &with("h1", ""));
    store.push(
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        0,
        0,
        b"0,",
        "TAGS\u{1}d\u{2}",
    );
    let output = import(&store, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = json(&output).pop().unwrap();
    let counts = ["delayed", "timers", "halfMessages"].map(|name| summary[name].as_i64());
    assert_eq!(counts, [Some(1); 3], "{summary}");
    let found = messages(&store.target());
    let bodies: Vec<&str> = found.iter().map(|message| message.3.as_str()).collect();
    assert_eq!(bodies, ["level", "timer", "came out", "half"]);
    assert!(found[1].0.starts_with("rmq_sys_wheel_timer-"), "{found:?}");
    assert_eq!(found[3].2, 0);
    assert!(run(&["verify", &store.target()]).status.success());
}

#[test]
fn the_copy_of_a_broken_file_is_used_and_said() {
    let mut store = Store::new("bak");
    store.push("orders", 0, 0, b"x", "");
    let config = store.root.join("store/config");
    fs::rename(config.join("topics.json"), config.join("topics.json.bak")).unwrap();
    fs::write(config.join("topics.json"), "{").unwrap();
    let output = import(&store, &["--dry-run"]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("its .bak is used"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_is_no_store_is_said() {
    let output = run(&["import", "/nowhere", "--into", "/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("/nowhere is not the store of an Apache broker"),
        "{}",
        stderr(&output)
    );
}
