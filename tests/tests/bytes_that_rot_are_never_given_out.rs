//! Bytes on disk that are not what was written: a reader gets an error, never them; the log of the process and the runtime
//! information say it; and a start on damaged data is refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corelane_tests::process::Process;
use corelane_tests::raw::code;
use corelane_tests::raw_queue::RawQueue;
use corelane_tests::{Cluster, Options, binary};

const SYSTEM_ERROR: i64 = 1;
const WITHIN: Duration = Duration::from_secs(30);

/// Small files and a small memory, so that old messages are read from disk.
fn small() -> Options {
    Options::new()
        .set("segment_bytes", "1048576")
        .set("max_message_bytes", "65536")
        .set("max_frame_bytes", "1048576")
        .set("tail_cache_bytes", "1048576")
        .set("log_buffer_bytes", "262144")
        .set("max_group_bytes", "65536")
}

fn shard_dir(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("corelane/shard-0")
}

/// The files of the log, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).expect("the directory of the shard");
    let mut segments: Vec<PathBuf> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    segments.sort();
    segments
}

/// Flips a bit in the middle of these bytes, wherever they lie in the log; gives the file.
fn flip(dir: &Path, bytes: &[u8]) -> PathBuf {
    for path in segments(dir) {
        let content = fs::read(&path).expect("a file of the log");
        let found = content.windows(bytes.len()).position(|part| part == bytes);
        if let Some(at) = found {
            let at = at + bytes.len() / 2;
            let file = fs::File::options().write(true).open(&path);
            let file = file.expect("a file of the log");
            let flipped = [content[at] ^ 1];
            file.write_all_at(&flipped, at as u64).expect("a write");
            file.sync_all().expect("a sync");
            return path;
        }
    }
    panic!("the message is nowhere in {}", dir.display());
}

fn failed_reads(queue: &mut RawQueue) -> u64 {
    let info = queue.ask(code::RUNTIME_INFO, &[]).json();
    let figure = info["table"]["commitLogReadFailedTimes"].as_str();
    figure.and_then(|text| text.parse().ok()).expect("a figure")
}

/// The one line of a start that must fail.
fn start_says(data: &Path, dir: &Path, port: u16) -> String {
    let mut command = std::process::Command::new(binary::corelane());
    command.arg("start").current_dir(dir);
    for set in [
        format!("data_dir={}", data.display()),
        "listen_address=127.0.0.1".to_owned(),
        format!("port={port}"),
        "nameserver_embedded=false".to_owned(),
        "nameserver_addresses=127.0.0.1:9".to_owned(),
        "shards=1".to_owned(),
    ] {
        command.arg("--set").arg(set);
    }
    let mut process = Process::start(command, &dir.join("failing.log"), false);
    let status = process.wait(WITHIN);
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_message_that_rots_is_an_error_for_its_readers_only() {
    let cluster = Cluster::start(&small());
    let mut queue = RawQueue::create(&cluster.broker(), "rots");
    for _ in 0..400 {
        assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    }
    assert_eq!(failed_reads(&mut queue), 0);
    let file = flip(&shard_dir(&cluster), &queue.acknowledged[&3]);
    let answer = queue.pull(3);
    assert_eq!(answer.code, SYSTEM_ERROR, "{answer:?}");
    assert!(answer.remark.contains("damaged"), "{}", answer.remark);
    assert_eq!(failed_reads(&mut queue), 1);
    let name = file.file_name().expect("a name").to_string_lossy();
    let log = cluster.process().log();
    let said = log
        .lines()
        .find(|line| line.contains("ERROR") && line.contains(&*name));
    assert!(said.is_some_and(|line| line.contains("checksum")), "{log}");
    // Its neighbours are what they were.
    assert_eq!(queue.pull(2).code, 0);
    assert_eq!(queue.pull(5).code, 0);
    assert_eq!(queue.send(10_000).expect("an answer").code, 0);
}

#[test]
fn a_file_that_vanishes_is_an_error_for_its_readers_and_for_the_next_start() {
    let mut cluster = Cluster::start(&small());
    let mut queue = RawQueue::create(&cluster.broker(), "gone");
    for _ in 0..400 {
        assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    }
    let oldest = segments(&shard_dir(&cluster)).swap_remove(0);
    fs::remove_file(&oldest).expect("the oldest file");
    assert_eq!(queue.pull(0).code, SYSTEM_ERROR);
    assert_eq!(failed_reads(&mut queue), 1);
    assert_eq!(queue.pull(399).code, 0);
    assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    let status = cluster.sigterm(WITHIN);
    assert!(status.success(), "{status}");
    let data = cluster.dir().join("corelane");
    let said = start_says(&data, cluster.dir(), cluster.ports().broker(0));
    let name = oldest.file_name().expect("a name").to_string_lossy();
    assert!(said.contains(&*name) && said.contains("missing"), "{said}");
}

/// The very last message that was acknowledged looks like one that was never finished; but an orderly end has written down
/// how far the log goes.
#[test]
fn after_an_orderly_end_the_last_message_counts_as_damaged_and_not_as_torn() {
    let mut cluster = Cluster::start(&Options::new());
    let mut queue = RawQueue::create(&cluster.broker(), "last");
    for _ in 0..20 {
        assert_eq!(queue.send(1_000).expect("an answer").code, 0);
    }
    let status = cluster.sigterm(WITHIN);
    assert!(status.success(), "{status}");
    let file = flip(&shard_dir(&cluster), &queue.acknowledged[&19]);
    let data = cluster.dir().join("corelane");
    let said = start_says(&data, cluster.dir(), cluster.ports().broker(0));
    let name = file.file_name().expect("a name").to_string_lossy();
    assert!(said.contains("damaged") && said.contains(&*name), "{said}");
}

/// Without an orderly end what is damaged at the very end cannot be told from what was never finished: the start says that it
/// cut it off, and everything before it is there.
#[test]
fn after_a_crash_what_is_cut_is_said() {
    let mut cluster = Cluster::start(&Options::new());
    let mut queue = RawQueue::create(&cluster.broker(), "torn");
    for _ in 0..20 {
        assert_eq!(queue.send(1_000).expect("an answer").code, 0);
    }
    cluster.kill9();
    flip(&shard_dir(&cluster), &queue.acknowledged[&19]);
    queue.acknowledged.remove(&19);
    cluster.start_again();
    queue.connect_again();
    queue.check();
    assert_eq!(queue.max_offset(), 19);
    let log = cluster.process().log();
    let opened = log.lines().rfind(|line| line.contains("the log is open"));
    let opened = opened.expect("what was found is said");
    for figure in [
        "took_ms=",
        "tail=",
        "groups=",
        "messages=19",
        "indexes_rebuilt=0",
        "cut_bytes=",
    ] {
        assert!(opened.contains(figure), "{figure} is not in: {opened}");
    }
}
