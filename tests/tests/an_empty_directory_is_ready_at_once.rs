//! A broker on an empty directory is there in a moment: segments are written ahead in the background. The bound here is
//! loose, for machines that do other things too; the benchmarks measure the exact time.

use std::time::{Duration, Instant};

use corelane_tests::raw::{self, Connection, code};
use corelane_tests::{Cluster, Options};

#[test]
fn it_is_ready_and_serves() {
    // Not the time of the build.
    corelane_tests::binary::corelane();
    let options = Options::new()
        .shards(2)
        .alone()
        .set("segment_bytes", "1073741824");
    // The best of three: others may keep the disk busy.
    let best = (0..3)
        .map(|_| time_to_first_answer(&options))
        .min()
        .expect("three times");
    assert!(
        best < Duration::from_secs(3),
        "the first send was answered after {best:?}"
    );
}

fn time_to_first_answer(options: &Options) -> Duration {
    let cluster = Cluster::start(options);
    cluster.create_topic("at-once", 1);
    let start = Instant::now();
    let mut connection = Connection::open(&cluster.broker()).expect("a connection");
    let answer = connection
        .request(code::SEND, &raw::send_fields("at-once", "0"), b"first")
        .expect("an answer");
    assert_eq!(answer.code, 0, "{}", answer.remark);
    let (ready, answered) = (cluster.ready_after(), start.elapsed());
    println!("ready after {ready:?}, the first send was answered after {answered:?} more");
    ready + answered
}
