//! What comes in goes out: whole, in order, and nothing is left behind.

use super::*;

#[test]
fn whole_frames_are_answered_in_order() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        for index in 0..200u32 {
            let request = frame(b'e', &index.to_be_bytes());
            stream.write_all(&request).unwrap();
            assert_eq!(read_frame(&mut stream).unwrap(), request);
        }
        server.end();
    });
}

#[test]
fn frames_cut_at_every_byte_come_whole() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        let mut bytes = Vec::new();
        for body in ["", "one", "and another"] {
            bytes.extend(frame(b'e', body.as_bytes()));
        }
        for cut in 1..bytes.len() {
            stream.write_all(&bytes[..cut]).unwrap();
            thread::sleep(Duration::from_micros(500));
            stream.write_all(&bytes[cut..]).unwrap();
            let mut answer = vec![0; bytes.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, bytes);
        }
        let seen = server.until("frames", |seen| {
            seen.counters.frames == 3 * (bytes.len() as u64 - 1)
        });
        assert!(seen.counters.frames_assembled > 10);
        server.end();
    });
}

/// Many frames of many sizes over few small buffers: cut, starved, left over.
#[test]
fn thousands_of_pipelined_frames_over_few_buffers_all_come_back_in_order() {
    let limits = NetLimits {
        receive_buffers: 4,
        receive_buffer_bytes: 1 << 10,
        max_frames_per_turn: 3,
        ..NetLimits::default()
    };
    both(limits, |server| {
        let clients: Vec<_> = (0..8u32)
            .map(|client| {
                let mut stream = server.connect();
                thread::spawn(move || {
                    let request = move |index: u32| {
                        let most = if index.is_multiple_of(8) { 3000 } else { 60 };
                        let len = (index * 7919 + client * 104_729) % most;
                        frame(b'e', &vec![(index ^ client) as u8; len as usize])
                    };
                    let mut sender = stream.try_clone().unwrap();
                    let sending = thread::spawn(move || {
                        for index in 0..2000 {
                            sender.write_all(&request(index)).unwrap();
                        }
                    });
                    for index in 0..2000 {
                        assert_eq!(
                            read_frame(&mut stream).unwrap(),
                            request(index),
                            "{client} {index}"
                        );
                    }
                    sending.join().unwrap();
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let seen = server.until("all frames", |seen| seen.counters.frames == 16_000);
        assert!(seen.counters.frames_assembled > 500, "{:?}", seen.counters);
        assert!(seen.counters.left_over > 0, "{:?}", seen.counters);
        // One receive for each buffer finds one; a multishot receive takes what it can get.
        assert!(
            server.plain || seen.counters.starved > 0,
            "{:?}",
            seen.counters
        );
        server.end();
    });
}

#[test]
fn large_answers_with_shared_parts_come_whole() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        for len in [100u32, 8_000, 100_000, 5_000_000] {
            for _ in 0..3 {
                stream.write_all(&big(len)).unwrap();
            }
            for _ in 0..3 {
                let answer = read_frame(&mut stream).unwrap();
                let len = len as usize;
                assert_eq!(answer.len(), len);
                assert!(answer[4..len / 2].iter().all(|&byte| byte == 1));
                assert!(answer[len / 2..].iter().all(|&byte| byte == 2));
            }
        }
        assert!(
            server
                .until("shared sends", |seen| seen.counters.sends_shared > 0)
                .counters
                .sends
                > 0
        );
        server.end();
    });
}

#[test]
fn a_handler_closes_after_its_answer() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        let mut requests = frame(b'e', b"one");
        requests.extend(frame(b'c', b"two"));
        requests.extend(frame(b'e', b"never answered"));
        stream.write_all(&requests).unwrap();
        assert_eq!(read_frame(&mut stream).unwrap(), frame(b'e', b"one"));
        assert_eq!(read_frame(&mut stream).unwrap(), frame(b'c', b"two"));
        assert!(at_its_end(&mut stream));
        server.until("the reason", |seen| {
            seen.closed == [CloseReason::Requested("asked to")]
        });
        server.end();
    });
}

#[test]
fn a_peer_that_goes_during_a_send_frees_its_parts() {
    both(NetLimits::default(), |server| {
        for _ in 0..20 {
            let mut stream = server.connect();
            stream.write_all(&big(8 << 20)).unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
            assert!(server.alive.load(Ordering::SeqCst) > 0);
            drop(stream);
        }
        server.until("all closed", |seen| {
            seen.closed.len() == 20 && seen.connections == 0
        });
        let start = Instant::now();
        while server.alive.load(Ordering::SeqCst) > 0 {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(5));
        }
        server.end();
    });
}

#[test]
fn a_half_closed_peer_gets_what_was_queued() {
    both(
        NetLimits {
            max_frames_per_turn: 2,
            ..NetLimits::default()
        },
        |server| {
            let mut stream = server.connect();
            for _ in 0..9 {
                stream.write_all(&big(300_000)).unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            for _ in 0..9 {
                assert_eq!(read_frame(&mut stream).unwrap().len(), 300_000);
            }
            assert!(at_its_end(&mut stream));
            server.end();
        },
    );
}

#[test]
fn stopping_sends_what_is_queued() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        stream.write_all(&big(6 << 20)).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        let reading = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).map(|_| rest.len())
        });
        server.end();
        assert_eq!(reading.join().unwrap().unwrap(), (6 << 20) - 10);
    });
}

#[test]
fn stopping_does_not_wait_for_a_peer_that_does_not_read() {
    both(
        NetLimits {
            linger_ms: 300,
            ..NetLimits::default()
        },
        |server| {
            let mut stream = server.connect();
            stream.write_all(&big(20 << 20)).unwrap();
            server.until("the request", |seen| seen.counters.frames == 1);
            let start = Instant::now();
            server.end();
            assert!(start.elapsed() < Duration::from_secs(5));
        },
    );
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    executor(Placement::Unbound).make().unwrap().run(async {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        let mut net = Net::<NoParts>::new(&mut ring, NetLimits::default()).unwrap();
        let address = net
            .listen(&mut ring, "127.0.0.1:0".parse().unwrap())
            .unwrap();
        let error = net.listen(&mut ring, address).unwrap_err();
        assert!(matches!(error, NetError::Taken(_)), "{error}");
        assert!(error.to_string().contains(&address.to_string()));
        let error = net
            .listen(&mut ring, "192.0.2.1:0".parse().unwrap())
            .unwrap_err();
        assert!(matches!(error, NetError::NoSuchAddress(_)), "{error}");
    });
}

/// A descriptor that the server forgot to close would leave its side of the connection waiting for that.
fn held_open(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields
                .next()
                .is_some_and(|address| address.ends_with(&local));
            let state = fields.nth(1);
            is_ours && matches!(state, Some("01" | "08"))
        })
        .count()
}

#[test]
fn a_thousand_connections_leave_no_descriptor() {
    both(NetLimits::default(), |server| {
        for round in 0..10 {
            let streams: Vec<_> = (0..100).map(|_| server.connect()).collect();
            for mut stream in streams.iter().skip(round % 2).step_by(2) {
                stream.write_all(&frame(b'e', b"hello")).unwrap();
            }
        }
        server.until("all gone", |seen| {
            seen.closed.len() == 1000 && seen.connections == 0
        });
        let start = Instant::now();
        while held_open(server.address.port()) > 0 {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{}",
                held_open(server.address.port())
            );
            thread::sleep(Duration::from_millis(10));
        }
        let address = server.address;
        server.end();
        assert!(
            TcpStream::connect(address).is_err(),
            "the port is still open"
        );
    });
}

#[test]
fn accepted_connections_do_not_delay_small_answers() {
    both(NetLimits::default(), |server| {
        let mut stream = server.connect();
        let start = Instant::now();
        // Two answers in a row on a connection that acknowledges late would wait 40 ms each without TCP_NODELAY.
        for _ in 0..50 {
            for _ in 0..2 {
                stream.write_all(&frame(b'e', b"small")).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
            read_frame(&mut stream).unwrap();
            read_frame(&mut stream).unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_millis(1500),
            "{:?}",
            start.elapsed()
        );
        server.end();
    });
}
