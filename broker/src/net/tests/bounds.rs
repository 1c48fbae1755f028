//! Who takes too much is slowed down, cut off or refused; the others are not.

use super::*;

#[test]
fn a_slow_reader_is_paused_and_gets_everything_in_the_end() {
    let limits = NetLimits {
        pause_queued_bytes: 100_000,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut stream = server.connect();
        let mut sender = stream.try_clone().unwrap();
        let sending = thread::spawn(move || {
            for index in 0..3000u32 {
                sender
                    .write_all(&frame(b'e', &[index as u8; 10_000]))
                    .unwrap();
            }
        });
        let seen = server.until("a pause", |seen| seen.counters.paused > 0);
        assert!(seen.closed.is_empty());
        for index in 0..3000u32 {
            assert_eq!(
                read_frame(&mut stream).unwrap(),
                frame(b'e', &[index as u8; 10_000])
            );
        }
        sending.join().unwrap();
        server.end();
    });
}

/// Sends 400 frames that are held up, lets go of them whenever asked to, and says how many bytes were held up at most.
fn most_held_up(server: &Server, senders: usize) -> usize {
    let sending: Vec<_> = (0..senders)
        .map(|_| {
            let mut stream = server.connect();
            thread::spawn(move || {
                for _ in 0..400 / senders {
                    stream.write_all(&frame(b'h', &[0; 10_000])).unwrap();
                }
                stream
            })
        })
        .collect();
    server.until("too much", |seen| seen.counters.overdrawn > 0);
    thread::sleep(Duration::from_millis(50));
    assert!(server.seen().held_up < 400, "nothing was kept back");
    // Everything comes through in the end, though only so much is let in at a time.
    let mut other = server.connect();
    server.until("all of them", |seen| {
        other.write_all(&frame(b'l', b"")).unwrap();
        read_frame(&mut other).unwrap();
        seen.held_up == 400
    });
    let _streams: Vec<_> = sending.into_iter().map(|one| one.join().unwrap()).collect();
    let seen = server.seen();
    assert_eq!(seen.closed, []);
    seen.inflight_bytes
}

#[test]
fn what_one_connection_has_in_flight_is_bounded() {
    let limits = NetLimits {
        max_inflight_bytes: 100_000,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let most = most_held_up(&server, 1);
        assert!((100_000..=110_008).contains(&most), "{most}");
        server.end();
    });
}

#[test]
fn what_all_connections_have_in_flight_is_bounded() {
    let limits = NetLimits {
        max_inflight_bytes_total: 100_000,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let most = most_held_up(&server, 4);
        // Each may have been let in with one frame more.
        assert!((100_000..=150_032).contains(&most), "{most}");
        server.end();
    });
}

#[test]
fn a_reader_that_never_reads_is_cut_off_at_the_bound() {
    let limits = NetLimits {
        max_queued_bytes: 20 << 20,
        pause_queued_bytes: 1 << 30,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut stream = server.connect();
        for _ in 0..10 {
            stream.write_all(&big(4 << 20)).unwrap();
        }
        server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
        server.until("its count", |seen| {
            seen.connections == 0 && seen.counters.closed_slow == 1
        });
        server.end();
    });
}

#[test]
fn a_reader_that_never_reads_is_cut_off_after_its_time() {
    let limits = NetLimits {
        stalled_ms: 300,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut stream = server.connect();
        stream.write_all(&big(20 << 20)).unwrap();
        server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
        server.end();
    });
}

#[test]
fn over_the_total_bound_the_largest_queue_is_cut_off() {
    let limits = NetLimits {
        max_queued_bytes: 64 << 20,
        max_queued_bytes_total: 36 << 20,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut small = server.connect();
        small.write_all(&big(10 << 20)).unwrap();
        let mut large = server.connect();
        large.write_all(&big(40 << 20)).unwrap();
        server.until("the cut", |seen| seen.closed == [CloseReason::SlowReader]);
        assert_eq!(read_frame(&mut small).unwrap().len(), 10 << 20);
        assert!(read_frame(&mut large).is_err());
        server.end();
    });
}

#[test]
fn one_connection_too_many_is_closed_and_a_place_that_is_free_again_is_taken() {
    let limits = NetLimits {
        max_connections: 2,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut first = server.connect();
        let _second = server.connect();
        server.until("two", |seen| seen.opened == 2);
        let mut third = server.connect();
        assert!(at_its_end(&mut third));
        server.until("the rejection", |seen| seen.counters.rejected == 1);
        first.write_all(&frame(b'e', b"still here")).unwrap();
        read_frame(&mut first).unwrap();
        drop(first);
        server.until("the end", |seen| seen.closed == [CloseReason::Peer]);
        let mut fourth = server.connect();
        fourth.write_all(&frame(b'e', b"in")).unwrap();
        read_frame(&mut fourth).unwrap();
        server.end();
    });
}

#[test]
fn idle_connections_expire_and_active_ones_do_not() {
    let limits = NetLimits {
        idle_ms: 600,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut idle = server.connect();
        let mut active = server.connect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1800) {
            active.write_all(&frame(b'e', b"tick")).unwrap();
            read_frame(&mut active).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        assert!(at_its_end(&mut idle));
        let seen = server.seen();
        assert_eq!(seen.closed, [CloseReason::Idle]);
        assert_eq!(seen.connections, 1);
        server.end();
    });
}

#[test]
fn absurd_lengths_close_with_a_reason() {
    both(NetLimits::default(), |server| {
        for length in [
            0u32,
            3,
            (16 << 20) + 1,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
        ] {
            let mut stream = server.connect();
            stream.write_all(&frame(b'e', b"good")).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            // What was good before it is answered or not; nothing else comes.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty() || rest == frame(b'e', b"good"));
        }
        let seen = server.until("six closed", |seen| {
            seen.closed.len() == 6 && seen.counters.closed_frame == 6
        });
        assert!(
            seen.closed
                .iter()
                .all(|reason| matches!(reason, CloseReason::Frame(_))),
            "{:?}",
            seen.closed
        );
        server.end();
    });
}

#[test]
fn unfinished_frames_of_all_are_bounded() {
    let limits = NetLimits {
        max_assembly_bytes: 1 << 20,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut streams: Vec<_> = (0..4).map(|_| server.connect()).collect();
        let start_of_a_frame = &frame(b'e', &vec![0; 10 << 20])[..400_000];
        for stream in &mut streams {
            let _ = stream.write_all(start_of_a_frame);
        }
        let cut = |seen: &Seen| {
            !seen.closed.is_empty() && seen.counters.closed == seen.closed.len() as u64
        };
        let seen = server.until("the cut", cut);
        assert!(
            seen.closed
                .iter()
                .all(|reason| *reason == CloseReason::AssemblyMemory),
            "{:?}",
            seen.closed
        );
        assert!(seen.connections >= 1);
        server.end();
    });
}

#[test]
fn an_announced_length_takes_no_memory() {
    let limits = NetLimits {
        max_assembly_bytes: 1 << 20,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let mut streams: Vec<_> = (0..50).map(|_| server.connect()).collect();
        for stream in &mut streams {
            stream.write_all(&(10u32 << 20).to_be_bytes()).unwrap();
        }
        server.until("the bytes", |seen| seen.counters.received_bytes == 200);
        assert_eq!(server.seen().closed, []);
        server.end();
    });
}

#[test]
fn a_flood_does_not_starve_a_trickle() {
    let limits = NetLimits {
        receive_buffers: 4,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let stop = Arc::new(AtomicUsize::new(0));
        let floods: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = server.connect();
                let stop = stop.clone();
                thread::spawn(move || {
                    let bytes = frame(b'n', b"flood").repeat(10_000);
                    while stop.load(Ordering::SeqCst) == 0 {
                        stream.write_all(&bytes).unwrap();
                    }
                })
            })
            .collect();
        let mut trickle = server.connect();
        thread::sleep(Duration::from_millis(100));
        let mut waits = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            trickle.write_all(&frame(b'e', b"drop")).unwrap();
            read_frame(&mut trickle).unwrap();
            waits.push(start.elapsed());
        }
        stop.store(1, Ordering::SeqCst);
        for flood in floods {
            flood.join().unwrap();
        }
        waits.sort();
        assert!(waits[25] < Duration::from_millis(100), "{waits:?}");
        assert!(server.seen().counters.left_over > 0);
        server.end();
    });
}

#[test]
fn an_idle_server_with_a_hundred_connections_uses_no_cpu() {
    both(NetLimits::default(), |server| {
        let _streams: Vec<_> = (0..100).map(|_| server.connect()).collect();
        server.until("all open", |seen| seen.connections == 100);
        thread::sleep(Duration::from_millis(100));
        let before = server.seen().thread_cpu;
        thread::sleep(Duration::from_secs(2));
        let used = server.seen().thread_cpu - before;
        // The service of these tests ticks 50 times a second.
        assert!(used < Duration::from_millis(40), "{used:?} of 2 s");
        server.end();
    });
}
