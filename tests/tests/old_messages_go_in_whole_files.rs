//! Retention: what is more than one wants to keep goes, oldest first and in whole files; the smallest offset says so at once
//! and after a restart; who asks for what is gone is told where to go on.

use std::time::Duration;

use corelane_tests::raw::code;
use corelane_tests::raw_queue::RawQueue;
use corelane_tests::{Cluster, Options, eventually};

const PULL_OFFSET_MOVED: i64 = 21;
const WITHIN: Duration = Duration::from_secs(30);
const SEGMENT: u64 = 1 << 20;

fn log_bytes(cluster: &Cluster) -> u64 {
    let dir = cluster.dir().join("corelane/shard-0");
    let files = std::fs::read_dir(dir).expect("the directory of the shard");
    files
        .map(|file| file.expect("a file"))
        .filter(|file| {
            file.path()
                .extension()
                .is_some_and(|ending| ending == "log")
        })
        .map(|file| file.metadata().map_or(0, |facts| facts.len()))
        .sum()
}

#[test]
fn by_size() {
    let options = Options::new()
        .set("segment_bytes", &SEGMENT.to_string())
        .set("max_message_bytes", "65536")
        .set("max_group_bytes", "65536")
        .set("retention_bytes", &(4 * SEGMENT).to_string());
    let mut cluster = Cluster::start(&options);
    let mut queue = RawQueue::create(&cluster.broker(), "size");
    for _ in 0..1_500 {
        assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    }
    // What may stay: the bytes to be kept, the file that is written, the one that is ready, one to be used again.
    eventually("old files are gone", WITHIN, || {
        (log_bytes(&cluster) <= 8 * SEGMENT).then_some(())
    });
    // That no more than is due has gone.
    let kept = eventually("nothing more goes", WITHIN, || {
        let before = queue.min_offset();
        std::thread::sleep(Duration::from_millis(1_500));
        (before == queue.min_offset()).then(|| 1_500 - before)
    });
    assert!(
        (300..=530).contains(&kept),
        "{kept} messages of 10 KB are kept"
    );
    let min = queue.check();
    for gone in [0, min - 1] {
        let answer = queue.pull(gone);
        assert_eq!(answer.code, PULL_OFFSET_MOVED, "{}", answer.remark);
        assert_eq!(answer.ext["minOffset"], min.to_string());
        assert_eq!(answer.ext["nextBeginOffset"], min.to_string());
    }

    for round in 0..2 {
        if round == 0 {
            cluster.kill9();
        } else {
            assert!(cluster.sigterm(WITHIN).success());
        }
        cluster.start_again();
        queue.connect_again();
        assert_eq!(queue.check(), min, "round {round}");
        assert_eq!(queue.max_offset(), 1_500);
    }
}

#[test]
fn by_other_bounds_while_it_runs() {
    let options = Options::new()
        .set("segment_bytes", &SEGMENT.to_string())
        .set("max_message_bytes", "65536")
        .set("max_group_bytes", "65536");
    let cluster = Cluster::start(&options);
    let mut queue = RawQueue::create(&cluster.broker(), "bounds");
    for _ in 0..600 {
        assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    }
    assert_eq!(queue.check(), 0);
    let answer = queue.ask_with(code::UPDATE_CONFIG, b"retention_bytes=2097152\n");
    assert_eq!(answer.code, 0, "{}", answer.remark);
    let min = eventually("old files go", WITHIN, || {
        let min = queue.min_offset();
        (min > 0).then_some(min)
    });
    assert!(queue.check() >= min);
}
