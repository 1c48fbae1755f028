#![allow(clippy::unwrap_used)]

use super::*;
use glommio::Placement;
use io_uring::opcode;
use std::rc::Rc;
use std::time::Instant;

fn nop(ring: &mut Ring, payload: u64) {
    let entry = opcode::Nop::new()
        .build()
        .user_data(Token::new(Owner::Disk, payload).raw());
    // SAFETY: points to nothing.
    unsafe { ring.push(entry) };
}

fn timeout(ring: &mut Ring, after: &Timespec, payload: u64) {
    let entry = opcode::Timeout::new(after)
        .build()
        .user_data(Token::new(Owner::Disk, payload).raw());
    // SAFETY: the callers keep `after` until they have seen the completion.
    unsafe { ring.push(entry) };
}

fn both(test: impl Fn(RingOptions)) {
    test(RingOptions::default());
    test(RingOptions {
        plain: true,
        ..RingOptions::default()
    });
}

#[test]
fn more_operations_than_the_queue_holds_all_complete_in_order() {
    both(|options| {
        let mut ring = Ring::new(&RingOptions {
            submissions: 4,
            completions: 8,
            ..options
        })
        .unwrap();
        let mut done = Vec::new();
        for payload in 0..1000 {
            nop(&mut ring, payload);
        }
        while done.len() < 1000 {
            ring.turn().unwrap();
            ring.reap(&mut done);
        }
        for (index, completion) in done.iter().enumerate() {
            assert_eq!(completion.token(), Token::new(Owner::Disk, index as u64));
            assert_eq!(completion.result(), 0);
        }
    });
}

#[test]
fn a_token_keeps_owner_and_payload() {
    let token = Token::new(Owner::Net, (1 << Token::PAYLOAD_BITS) - 1);
    assert_eq!(token.owner(), Owner::Net);
    assert_eq!(token.payload(), (1 << Token::PAYLOAD_BITS) - 1);
    assert_eq!(Token::from_raw(0).owner(), Owner::Nobody);
}

#[test]
fn plain_uses_nothing_new() {
    let ring = Ring::new(&RingOptions {
        plain: true,
        ..RingOptions::default()
    })
    .unwrap();
    let expected = Kernel {
        completions: kernel::Delivery::Interrupting,
        buffer_ring: false,
        multishot_accept: false,
        multishot_recv: false,
        send_zero_copy: false,
    };
    assert_eq!(ring.kernel(), &expected);
    assert!(ring.features().contains("multishot receive no"));
}

#[test]
fn park_ends_with_a_completion() {
    both(|options| {
        executor(Placement::Unbound)
            .make()
            .unwrap()
            .run(async move {
                let mut ring = Ring::new(&options).unwrap();
                let mut parker = Parker::new(&ring).unwrap();
                for linger in [
                    Duration::ZERO,
                    Duration::from_millis(1),
                    Duration::from_secs(10),
                ] {
                    parker.set_linger(linger);
                    let after = Timespec::from(Duration::from_millis(30));
                    timeout(&mut ring, &after, 7);
                    let start = Instant::now();
                    let mut done = Vec::new();
                    while done.is_empty() {
                        parker
                            .park(&mut ring, Some(Duration::from_secs(20)))
                            .await
                            .unwrap();
                        ring.turn().unwrap();
                        ring.reap(&mut done);
                    }
                    assert_eq!(done[0].token().payload(), 7);
                    assert!(start.elapsed() >= Duration::from_millis(29));
                    assert!(
                        start.elapsed() < Duration::from_secs(5),
                        "{:?}",
                        start.elapsed()
                    );
                }
            });
    });
}

#[test]
fn park_ends_at_its_deadline() {
    executor(Placement::Unbound).make().unwrap().run(async {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut parker = Parker::new(&ring).unwrap();
        for linger in [
            Duration::ZERO,
            Duration::from_millis(1),
            Duration::from_secs(10),
        ] {
            parker.set_linger(linger);
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(20) {
                let left = Duration::from_millis(20).saturating_sub(start.elapsed());
                parker.park(&mut ring, Some(left)).await.unwrap();
            }
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?}",
                start.elapsed()
            );
        }
    });
}

#[test]
fn wakers_end_a_park_and_are_not_lost_before_it() {
    executor(Placement::Unbound).make().unwrap().run(async {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut parker = Parker::new(&ring).unwrap();

        parker.waker().wake();
        parker.park(&mut ring, None).await.unwrap();

        parker.remote_waker().wake();
        parker.park(&mut ring, None).await.unwrap();

        let waker = parker.waker();
        let task = glommio::spawn_local(async move {
            glommio::timer::sleep(Duration::from_millis(20)).await;
            waker.wake();
        });
        parker.park(&mut ring, None).await.unwrap();
        task.await;

        let remote = parker.remote_waker();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            remote.wake();
        });
        parker.park(&mut ring, None).await.unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn a_long_chain_of_parks_loses_no_wake_up() {
    both(|options| {
        executor(Placement::Unbound)
            .make()
            .unwrap()
            .run(async move {
                let mut ring = Ring::new(&options).unwrap();
                let mut parker = Parker::new(&ring).unwrap();
                parker.set_linger(Duration::ZERO);
                let after = Timespec::from(Duration::from_micros(50));
                let mut done = Vec::new();
                for round in 0..2000u64 {
                    timeout(&mut ring, &after, round);
                    while done.is_empty() {
                        let start = Instant::now();
                        parker
                            .park(&mut ring, Some(Duration::from_secs(5)))
                            .await
                            .unwrap();
                        assert!(
                            start.elapsed() < Duration::from_secs(4),
                            "lost in round {round}"
                        );
                        ring.turn().unwrap();
                        ring.reap(&mut done);
                    }
                    assert_eq!(done.len(), 1);
                    assert_eq!(done[0].token().payload(), round);
                    done.clear();
                }
            });
    });
}

#[test]
fn other_tasks_run_while_the_host_is_busy() {
    executor(Placement::Unbound).make().unwrap().run(async {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut parker = Parker::new(&ring).unwrap();
        let ran = Rc::new(std::cell::Cell::new(false));
        let flag = ran.clone();
        glommio::spawn_local(async move { flag.set(true) }).detach();
        let start = Instant::now();
        let mut done = Vec::new();
        while !ran.get() {
            assert!(start.elapsed() < Duration::from_secs(5));
            nop(&mut ring, 1);
            parker.park(&mut ring, None).await.unwrap();
            done.clear();
            ring.reap(&mut done);
        }
    });
}

#[test]
fn setup_errors_say_what_to_do() {
    for (errno, word) in [
        (libc::EPERM, "seccomp"),
        (libc::ENOSYS, "5.15"),
        (libc::ENOMEM, "ulimit -l"),
        (libc::EMFILE, "ulimit -n"),
    ] {
        let text = RingError::from_setup(io::Error::from_raw_os_error(errno)).to_string();
        assert!(text.contains(word), "{text}");
    }
}
