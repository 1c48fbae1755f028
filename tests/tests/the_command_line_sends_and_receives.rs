//! What the README shows: topics, messages and consumers from the shell, for people and, with `--json`, for scripts.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, binary, in_java_and_go,
};
use serde_json::Value;

in_java_and_go!(it_exchanges_messages_with_clients);

struct Shell {
    nameserver: String,
}

impl Shell {
    fn of(cluster: &Cluster) -> Self {
        Self {
            nameserver: cluster.nameserver().to_owned(),
        }
    }

    /// Runs `corelane` with these arguments and this standard input.
    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(binary::corelane());
        command.args(args).env("NAMESRV_ADDR", &self.nameserver);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        // Not every command reads its input to the end.
        let _ = child
            .stdin
            .take()
            .expect("a piped input")
            .write_all(input.as_bytes());
        child.wait_with_output().expect("an end")
    }

    /// Runs it, and what it prints; it must succeed and complain about nothing.
    fn prints(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaints.is_empty(),
            "{args:?}: {}: {complaints}",
            output.status
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs it with `--json`; the objects that it prints, one a line.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let text = self.prints(&args, "");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Runs it; it must fail with exit code 1 and one line, which is returned.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args, "");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {complaints}");
        assert_eq!(complaints.lines().count(), 1, "{args:?}: {complaints}");
        complaints
    }
}

#[test]
fn groups_are_made_changed_shown_and_deleted() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let shell = Shell::of(&cluster);
    let create = ["group", "create", "billing", "--retries", "5"];
    let made = &shell.json(&create)[0];
    assert_eq!(made["brokers"].as_array().map(Vec::len), Some(2), "{made}");
    let shown = |key: &str| {
        let rows = shell.json(&["group", "describe", "billing"]);
        let row = rows.iter().find(|row| row["key"] == key);
        row.unwrap_or_else(|| panic!("no {key}"))["value"].clone()
    };
    assert_eq!(
        (shown("retries"), shown("retry-delays")),
        (5.into(), "levels".into())
    );
    let update = [
        "group",
        "update",
        "billing",
        "--retry-delays",
        "1s,1m",
        "--enabled",
        "false",
    ];
    shell.prints(&update, "");
    assert_eq!(
        (shown("retries"), shown("enabled")),
        (5.into(), false.into())
    );
    assert_eq!(shown("retry-delays"), Value::from("1000ms,60000ms"));
    let listed = |name: &str| {
        shell
            .json(&["group", "list"])
            .iter()
            .any(|row| row["group"] == name)
    };
    assert!(listed("billing"));
    shell.prints(&["group", "delete", "billing"], "");
    assert!(!listed("billing"));
    for gone in [
        &["group", "delete", "billing"][..],
        &["group", "update", "billing"],
    ] {
        assert!(shell.fails(gone).contains("group billing does not exist"));
    }
}

#[test]
fn lines_go_in_and_come_out() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let shell = Shell::of(&cluster);
    let sent = shell.prints(&["produce", "Demo"], "hello\nworld\n");
    assert_eq!(
        sent.lines()
            .filter(|line| line.starts_with("SEND_OK"))
            .count(),
        2,
        "{sent}"
    );
    let received = shell.prints(&["consume", "Demo", "--from", "first", "--count", "2"], "");
    let mut lines: Vec<&str> = received.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["hello", "world"]);
    // The group goes on where it was.
    shell.prints(&["produce", "Demo"], "again\n");
    let received = shell.prints(
        &["consume", "Demo", "--count", "1", "--timeout-ms", "10000"],
        "",
    );
    assert_eq!(received, "again\n");
}

#[test]
fn topics_are_made_listed_described_and_deleted() {
    let cluster = Cluster::start(&Options::new().shards(2));
    let shell = Shell::of(&cluster);
    shell.prints(&["topic", "create", "Orders", "--queues", "3"], "");
    assert!(
        shell
            .prints(&["topic", "list"], "")
            .lines()
            .any(|line| line.trim() == "Orders")
    );
    shell.prints(
        &["produce", "Orders", "--body", "hello", "--count", "5"],
        "",
    );
    let queues = shell.json(&["topic", "describe", "Orders"]);
    assert_eq!(queues.len(), 6, "{queues:?}");
    let messages: i64 = queues
        .iter()
        .filter_map(|queue| queue["messages"].as_i64())
        .sum();
    assert_eq!(messages, 5);
    let brokers: std::collections::BTreeSet<&str> = queues
        .iter()
        .filter_map(|queue| queue["broker"].as_str())
        .collect();
    assert_eq!(brokers.len(), 2, "{queues:?}");
    shell.prints(&["topic", "delete", "Orders"], "");
    assert!(
        !shell
            .prints(&["topic", "list"], "")
            .lines()
            .any(|line| line.trim() == "Orders")
    );
    let complaint = shell.fails(&["topic", "delete", "Orders"]);
    assert!(complaint.contains("Orders"), "{complaint}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let nobody = Shell {
        nameserver: "127.0.0.1:1".to_owned(),
    };
    for args in [
        &["topic", "list"][..],
        &["produce", "Demo", "--body", "x"],
        &["consume", "Demo", "--count", "1"],
    ] {
        let complaint = nobody.fails(args);
        assert!(complaint.contains("127.0.0.1:1"), "{complaint}");
    }
    let cluster = Cluster::start(&Options::new().set("auto_create_topic", "false"));
    let complaint = Shell::of(&cluster).fails(&["produce", "Nowhere", "--body", "x"]);
    assert!(complaint.contains("Nowhere"), "{complaint}");
}

/// The data of a broker that is not running can be read with the same binary.
#[test]
fn a_dump_shows_what_was_stored() {
    let mut cluster = Cluster::start(&Options::new());
    let shell = Shell::of(&cluster);
    shell.prints(
        &["produce", "Dumped", "--key", "42", "--tag", "t"],
        "first\nsecond\n",
    );
    cluster.sigterm(std::time::Duration::from_secs(5));
    let data = cluster.dir().join("corelane").display().to_string();
    let text = shell.prints(&["dump", &data, "--topic", "Dumped"], "");
    assert_eq!(
        text.lines().filter(|line| line.contains("Dumped")).count(),
        2,
        "{text}"
    );
    let lines = shell.json(&["dump", &data, "--topic", "Dumped"]);
    let bodies: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["body"].as_str())
        .collect();
    assert_eq!(bodies, ["first", "second"], "{lines:?}");
}

#[test]
fn it_tells_its_version_and_explains_itself() {
    let shell = Shell {
        nameserver: String::new(),
    };
    assert!(shell.prints(&["version"], "").starts_with("corelane "));
    let help = shell.prints(&["--help"], "");
    for command in [
        "start",
        "nameserver",
        "topic",
        "produce",
        "consume",
        "verify",
        "dump",
        "import",
        "version",
    ] {
        assert!(
            help.lines()
                .any(|line| line.trim_start().starts_with(command)),
            "{command} is not in:\n{help}"
        );
        let of_command = shell.prints(&[command, "--help"], "");
        assert!(
            of_command.contains("Usage:"),
            "{command} --help:\n{of_command}"
        );
    }
    // No colours where nobody looks.
    assert!(!help.contains('\u{1b}'));
}

fn it_exchanges_messages_with_clients(language: Language) {
    let cluster = Cluster::start(&Options::new().shards(2));
    cluster.create_topic("Exchanged", 2);
    let shell = Shell::of(&cluster);
    let mut client = Client::start(language, &cluster);
    client.consumer(&Consumer::new("group", "Exchanged"));
    shell.prints(
        &[
            "produce",
            "Exchanged",
            "--tag",
            "blue",
            "--key",
            "42",
            "--property",
            "lang=en",
            "--body",
            "from the shell",
        ],
        "",
    );
    let received = client
        .receive("group", 1, std::time::Duration::from_secs(30))
        .remove(0);
    assert_eq!(
        (
            received.key.as_str(),
            received.tag.as_deref(),
            received.body.as_str()
        ),
        ("42", Some("blue"), "from the shell")
    );
    assert_eq!(received.properties["lang"], "en");

    client.producer("producer");
    client.send(
        "producer",
        Mode::Sync,
        &[Message::new("Exchanged", "from the client").tag("red")],
    );
    let messages = shell.json(&[
        "consume",
        "Exchanged",
        "--group",
        "shell",
        "--from",
        "first",
        "--tag",
        "red",
        "--count",
        "1",
    ]);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(
        messages[0].to_string().contains("from the client"),
        "{messages:?}"
    );
}
