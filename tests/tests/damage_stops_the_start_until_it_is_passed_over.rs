//! Bytes that were acknowledged and are damaged: the broker does not start, says where, and goes on without them only when
//! it is told exactly that. What was lost is said, nothing else is, and no offset is used twice.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use corelane_tests::process::Process;
use corelane_tests::{Cluster, Options, binary, eventually, raw};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(60);
/// More than one segment of 16 MiB.
const MESSAGES: i64 = 300;
const BODY_BYTES: &str = "65536";

fn corelane(args: &[&str]) -> Output {
    let mut command = Command::new(binary::corelane());
    command.args(args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = text(&output.stdout);
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The messages that lie in the logs, as position and offset in the queue.
fn dumped(data: &str) -> Vec<(u64, i64)> {
    let output = corelane(&["dump", data, "--topic", "Damage", "--json"]);
    let messages = json_lines(&output)
        .into_iter()
        .filter_map(|line| Some((line["position"].as_u64()?, line["queueOffset"].as_i64()?)));
    messages.collect()
}

fn flip_a_byte(shard: &Path, position: u64) {
    let starts = std::fs::read_dir(shard).expect("the shard's directory");
    let starts = starts.filter_map(|file| {
        let name = file.ok()?.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".log")?.parse::<u64>().ok()
    });
    let start = starts.filter(|start| *start <= position).max();
    let start = start.expect("a segment");
    let path = shard.join(format!("{start:020}.log"));
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("a segment to write to");
    let mut byte = [0];
    let at = position - start;
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x40], at).expect("a byte");
}

/// Starts the broker of a cluster that has ended, with these arguments on top. How it ended, if it does not serve.
fn start(cluster: &Cluster, data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let settings = [
        format!("data_dir={}", data.display()),
        "listen_address=127.0.0.1".to_owned(),
        "broker_ip=127.0.0.1".to_owned(),
        "segment_bytes=16777216".to_owned(),
        format!("port={}", cluster.ports().broker(0)),
        format!("nameserver_port={}", cluster.ports().nameserver()),
        "shards=1".to_owned(),
    ];
    let mut command = Command::new(binary::corelane());
    command.arg("start").args(more).env("NO_COLOR", "1");
    for setting in &settings {
        command.args(["--set", setting]);
    }
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let log = cluster.dir().join(format!("start-{number}.log"));
    let mut process = Process::start(command, &log, false);
    let code = eventually("the broker serves or ends", WITHIN, || {
        match process.ended() {
            Some(status) => Some(status.code()),
            None => (!raw::masters(cluster.nameserver()).is_empty()).then_some(None),
        }
    });
    if code.is_none() {
        process.sigterm();
        assert!(process.wait(WITHIN).success(), "{}", process.log_end());
    }
    (code, process.log())
}

/// The offset that a start, or `verify`, reports.
fn reported(said: &str, before: &str) -> String {
    let at = said
        .find(before)
        .unwrap_or_else(|| panic!("no {before:?} in: {said}"));
    let digits = said[at + before.len()..].chars();
    digits.take_while(char::is_ascii_digit).collect()
}

fn consumed(cluster: &Cluster) -> BTreeSet<i64> {
    let output = corelane(&[
        "consume",
        "Damage",
        "--from",
        "first",
        "--timeout-ms",
        "4000",
        "--no-commit",
        "--json",
        "--nameserver",
        cluster.nameserver(),
    ]);
    let lines = json_lines(&output);
    lines
        .iter()
        .filter_map(|line| line["queueOffset"].as_i64())
        .collect()
}

#[test]
fn in_a_full_segment_and_in_the_newest_one() {
    let mut cluster = Cluster::start(&Options::new());
    cluster.create_topic("Damage", 1);
    let nameserver = cluster.nameserver().to_owned();
    let count = MESSAGES.to_string();
    let send = [
        "produce",
        "Damage",
        "--size",
        BODY_BYTES,
        "--nameserver",
        &nameserver,
    ];
    let sent = corelane(&[&send[..], &["--count", &count]].concat());
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let data: PathBuf = cluster.dir().join("corelane");
    let path = data.display().to_string();
    let running = corelane(&["verify", &path]);
    assert_eq!(running.status.code(), Some(1));
    assert!(
        text(&running.stderr).contains("running"),
        "{}",
        text(&running.stderr)
    );
    cluster.kill9();

    let sound = corelane(&["verify", &path]);
    assert!(sound.status.success(), "{}", text(&sound.stderr));
    assert!(
        text(&sound.stdout).contains("all is sound"),
        "{}",
        text(&sound.stdout)
    );
    let messages = dumped(&path);
    assert_eq!(messages.len() as i64, MESSAGES);
    let hurt = [messages[20], messages[messages.len() - 12]];
    assert!(hurt[0].0 < 16 << 20 && hurt[1].0 > 16 << 20, "{hurt:?}");
    for (position, _) in hurt {
        flip_a_byte(&data.join("shard-0"), position + 3_000);
    }

    let mut skipped = Vec::new();
    for (position, _) in hurt {
        let (code, said) = start(&cluster, &data, &[]);
        assert_eq!(code, Some(1), "{said}");
        let line = said.lines().last().unwrap_or_default();
        let offset = reported(line, "damaged at ");
        assert!(
            offset
                .parse::<u64>()
                .is_ok_and(|offset| offset < position && position < offset + (1 << 20)),
            "{line}"
        );
        let way = format!("--skip-damage 0:{offset}");
        assert!(
            line.contains("corelane verify") && line.contains(&way),
            "{line}"
        );

        let verified = corelane(&["verify", &path]);
        let said = text(&verified.stderr);
        assert_eq!(verified.status.code(), Some(1), "{said}");
        assert_eq!(reported(&said, "in its bytes at "), offset, "{said}");

        // A wrong offset is no way on.
        let wrong = format!("0:{}", offset.parse::<u64>().expect("a number") + 4096);
        let (code, said) = start(&cluster, &data, &["--skip-damage", &wrong]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nothing is damaged at"), "{said}");

        let (code, said) = start(&cluster, &data, &["--skip-damage", &format!("0:{offset}")]);
        skipped.push((offset, code, said));
    }
    let (_, code, _) = &skipped[0];
    assert_eq!(*code, Some(1), "the other damage still stops the start");
    let (offset, code, said) = &skipped[1];
    assert_eq!(*code, None, "{said}");
    assert!(
        said.contains("damage is passed over") && said.contains("offsets have none any more"),
        "{said}"
    );
    // Nobody can leave it on.
    let (code, said) = start(&cluster, &data, &["--skip-damage", &format!("0:{offset}")]);
    assert_eq!(code, Some(1), "{said}");

    let known = corelane(&["verify", &path, "--json"]);
    assert!(known.status.success(), "{}", text(&known.stderr));
    let holes = json_lines(&known)[0]["holes"].as_array().map(Vec::len);
    assert_eq!(holes, Some(2));

    cluster.start_again();
    let kept = consumed(&cluster);
    let lost: Vec<i64> = (0..MESSAGES)
        .filter(|offset| !kept.contains(offset))
        .collect();
    assert!(
        lost.contains(&hurt[0].1) && lost.contains(&hurt[1].1),
        "{lost:?}"
    );
    // A group holds a few messages of this length.
    assert!(lost.len() <= 10, "{lost:?}");
    let still_there: BTreeSet<i64> = dumped(&path)
        .into_iter()
        .map(|(_, offset)| offset)
        .collect();
    assert_eq!(still_there, kept);

    let again = corelane(&[&send[..], &["--count", "1", "--json"]].concat());
    let offset = json_lines(&again)[0]["queueOffset"].as_i64();
    assert_eq!(offset, Some(MESSAGES), "{}", text(&again.stdout));
}
