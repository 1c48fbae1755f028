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
    let turn_and_start = Instant::now();
    let cluster = Cluster::start(&options);
    let ready = cluster.ready_after();
    assert!(
        ready < Duration::from_secs(5),
        "ready after {ready:?} (with its turn {:?})",
        turn_and_start.elapsed()
    );
    cluster.create_topic("at-once", 1);
    let start = Instant::now();
    let mut connection = Connection::open(&cluster.broker()).expect("a connection");
    let answer = connection
        .request(code::SEND, &raw::send_fields("at-once", "0"), b"first")
        .expect("an answer");
    assert_eq!(answer.code, 0, "{}", answer.remark);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "the first send took {:?}",
        start.elapsed()
    );
    println!(
        "ready after {ready:?}, the first send after {:?} more",
        start.elapsed()
    );
}
