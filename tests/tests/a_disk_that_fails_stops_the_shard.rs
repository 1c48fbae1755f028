//! A disk that turns read-only or fails under the broker: no send is acknowledged any more, the broker says why and ends with
//! an exit code that is not 0, and what was acknowledged before is there afterwards. On a real file system of its own.

use std::time::Duration;

use corelane_tests::loop_disk::LoopDisk;
use corelane_tests::ports::Ports;
use corelane_tests::raw::{YesNameServer, code};
use corelane_tests::raw_queue::RawQueue;
use corelane_tests::server::Server;
use corelane_tests::{eventually, new_dir, raw};

const WITHIN: Duration = Duration::from_secs(30);

fn fails_under_load(what: &str, fail: fn(&LoopDisk), says: &[&str]) {
    let Some(mut disk) = LoopDisk::new(100) else {
        return;
    };
    let (dir, ports) = (new_dir(), Ports::take());
    let nameserver = YesNameServer::listen(ports.nameserver());
    let settings = [
        ("data_dir", &*disk.path().join("data").display().to_string()),
        ("broker_name", "fails"),
        ("port", &ports.broker(0).to_string()),
        ("shards", "1"),
        ("nameserver_embedded", "false"),
        ("nameserver_addresses", nameserver.address()),
    ];
    let mut broker = Server::corelane("fails", "start", &dir, &settings);
    let address = format!("127.0.0.1:{}", ports.broker(0));
    eventually("it serves", WITHIN, || {
        raw::Connection::open(&address).ok()?;
        (!nameserver.asked(code::REGISTER_BROKER).is_empty()).then_some(())
    });
    let mut queue = RawQueue::create(&address, "fails");
    for _ in 0..100 {
        assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    }
    fail(&disk);
    // A write that is on its way may still come through; then there is an error, or no answer at all.
    if let Ok(answer) = queue.send_until_refused(10_000, 100) {
        println!("{what}: {} {}", answer.code, answer.remark);
    }
    let (status, log) = broker.ended(WITHIN);
    assert_eq!(status.code(), Some(1), "{what}: {log}");
    assert!(!log.contains("panicked"), "{log}");
    for words in says {
        assert!(log.contains(words), "{words:?} is not in:\n{log}");
    }
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("corelane: fails-0: "), "{last}");
    let unregistered = nameserver.asked(code::UNREGISTER_BROKER);
    assert_eq!(unregistered.len(), 1, "it unregisters");

    disk.mount_again();
    broker.start_again();
    eventually("it serves again", WITHIN, || {
        raw::Connection::open(&address).ok()
    });
    queue.connect_again();
    assert_eq!(queue.check(), 0);
    assert_eq!(queue.send(10_000).expect("an answer").code, 0);
    broker.kill9();
}

#[test]
fn a_disk_that_turns_read_only() {
    fails_under_load(
        "read-only",
        LoopDisk::turn_read_only,
        &["failed", "Read-only file system"],
    );
}

#[test]
fn a_disk_that_fails() {
    fails_under_load("EIO", LoopDisk::fail, &["failed", "Input/output error"]);
}
