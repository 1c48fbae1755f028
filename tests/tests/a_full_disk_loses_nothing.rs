//! A disk that runs full: sends are refused with the protocol's answer, what was acknowledged stays, and where the disk gets
//! room again, so does the broker. On a real file system of its own.

use std::fs;
use std::time::Duration;

use corelane_tests::loop_disk::LoopDisk;
use corelane_tests::raw_queue::RawQueue;
use corelane_tests::{
    Client, Cluster, Consumer, Language, Message, Mode, Options, eventually, ledger,
};

/// Apache's code for a broker whose disk is full.
const SERVICE_NOT_AVAILABLE: i64 = 14;
const WITHIN: Duration = Duration::from_secs(30);

fn broker_on(disk: &LoopDisk, delete_above: &str, refuse_above: &str) -> Options {
    Options::new()
        .set("data_dir", &disk.path().join("data").display().to_string())
        .set("segment_bytes", "16777216")
        .set("delete_above_percent", delete_above)
        .set("refuse_above_percent", refuse_above)
}

#[test]
fn there_is_no_room_for_another_file() {
    let Some(mut disk) = LoopDisk::new(100) else {
        return;
    };
    let mut cluster = Cluster::start(&broker_on(&disk, "100", "100"));
    let mut queue = RawQueue::create(&cluster.broker(), "full");
    let refused = queue.send_until_refused(100_000, 2_000).expect("an answer");
    assert_eq!(refused.code, SERVICE_NOT_AVAILABLE, "{}", refused.remark);
    assert!(
        refused.remark.contains("disk is full"),
        "{}",
        refused.remark
    );
    // Several files were filled, and the last bit is not enough for one more.
    assert!(
        queue.acknowledged.len() > 400,
        "{}",
        queue.acknowledged.len()
    );
    assert!(disk.free_bytes() < 32 << 20, "{}", disk.free_bytes());
    let log = cluster.process().log();
    assert!(log.contains("the file system of the log is full"), "{log}");
    // It goes on: reads are answered, sends are refused.
    assert_eq!(queue.check(), 0);
    let again = queue.send(100_000).expect("an answer");
    assert_eq!(again.code, SERVICE_NOT_AVAILABLE, "{}", again.remark);

    cluster.kill9();
    disk.mount_again();
    cluster.start_again();
    queue.connect_again();
    assert_eq!(queue.check(), 0, "nothing was deleted");

    // The same after an orderly end.
    let status = cluster.sigterm(WITHIN);
    assert!(status.success(), "{status}");
    disk.mount_again();
    cluster.start_again();
    queue.connect_again();
    assert_eq!(queue.check(), 0);
}

#[test]
fn above_the_mark_sends_are_refused_before_the_disk_is_full() {
    let Some(mut disk) = LoopDisk::new(200) else {
        return;
    };
    let mut cluster = Cluster::start(&broker_on(&disk, "60", "70"));
    let mut queue = RawQueue::create(&cluster.broker(), "marks");
    for _ in 0..400 {
        assert_eq!(queue.send(100_000).expect("an answer").code, 0);
    }
    // Somebody else fills the disk, save for the two files that the broker may be about to make, and a little.
    let ballast = disk.path().join("ballast");
    let bytes = disk.free_bytes() - (48 << 20);
    fs::write(&ballast, vec![1; bytes as usize]).expect("room for it");
    let refused = eventually("a send is refused", WITHIN, || {
        let answer = queue.send(1_000).expect("an answer");
        (answer.code != 0).then_some(answer)
    });
    assert_eq!(refused.code, SERVICE_NOT_AVAILABLE, "{}", refused.remark);
    assert!(disk.free_bytes() > 10 << 20, "the disk is not full");
    // What is old was deleted early, whole files of it, and what is left is right.
    let min = eventually("files are deleted", WITHIN, || {
        let min = queue.min_offset();
        (min > 0).then_some(min)
    });
    let moved = queue.pull(0);
    assert_eq!(
        (moved.code, moved.ext["minOffset"].parse::<i64>().ok()),
        (21, Some(queue.min_offset())),
        "PULL_OFFSET_MOVED"
    );
    assert!(queue.check() >= min);

    fs::remove_file(&ballast).expect("the file is there");
    eventually("sends are taken again", WITHIN, || {
        (queue.send(1_000).expect("an answer").code == 0).then_some(())
    });
    let log = cluster.process().log();
    assert!(log.contains("there is room for the log again"), "{log}");
    assert!(log.contains("go before their time"), "{log}");
    let min = queue.check();
    cluster.kill9();
    disk.mount_again();
    cluster.start_again();
    queue.connect_again();
    assert!(queue.check() >= min, "what is gone stays gone");
}

/// A producer is told why its messages are not taken, and consumers go on meanwhile.
#[test]
#[cfg_attr(not(have_java), ignore = "a JDK or Maven is absent")]
fn clients_are_told_and_go_on_when_there_is_room() {
    let Some(disk) = LoopDisk::new(200) else {
        return;
    };
    let cluster = Cluster::start(&broker_on(&disk, "70", "80"));
    cluster.create_topic("crowded", 2);
    let mut client = Client::start(Language::Java, &cluster);
    client.producer("producer");
    let numbered = |name: &str| -> Vec<Message> {
        (0..20)
            .map(|i| Message::new("crowded", format!("{name} {i}")))
            .collect()
    };
    let (before, after) = (numbered("before"), numbered("after"));
    client.send("producer", Mode::Sync, &before);
    let ballast = disk.path().join("ballast");
    let bytes = disk.free_bytes() - (30 << 20);
    fs::write(&ballast, vec![1; bytes as usize]).expect("room for it");
    let probe = [Message::new("crowded", "probe")];
    let mut taken = 0;
    let error = eventually("a send is refused", WITHIN, || {
        let outcome = client.try_send("producer", Mode::Sync, None, &probe);
        taken += outcome.sent.len();
        outcome.failed.into_iter().next().map(|failed| failed.error)
    });
    let wanted = format!("code {SERVICE_NOT_AVAILABLE}");
    assert!(
        error.contains(&wanted) && error.contains("disk is full"),
        "{error}"
    );
    client.consumer(&Consumer::new("group", "crowded"));
    client.receive("group", before.len() + taken, WITHIN);

    fs::remove_file(&ballast).expect("the file is there");
    eventually("sends are taken again", WITHIN, || {
        let outcome = client.try_send("producer", Mode::Sync, None, &probe);
        taken += outcome.sent.len();
        outcome.failed.is_empty().then_some(())
    });
    client.send("producer", Mode::Sync, &after);
    client.receive("group", before.len() + taken + after.len(), WITHIN);
    let mut received = client.received("group");
    received.retain(|r| r.key != "probe");
    ledger::equal(&[before, after].concat(), &received);
}
