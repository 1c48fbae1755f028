//! Bytes that are no frames get the protocol's error or the end of their connection, with at most one line in the log; never
//! a panic, never more memory than what really came. All the while other clients are served.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use corelane_tests::raw::{self, Connection, Response, code, frame};
use corelane_tests::{Cluster, Options};
use serde_json::json;

const MIB: u64 = 1024 * 1024;

/// A client that goes on with its work: each of its sends gets the next offset of its queue.
struct Witness {
    connection: Connection,
    next_offset: i64,
}

impl Witness {
    fn new(cluster: &Cluster) -> Self {
        cluster.create_topic("witness", 1);
        Self {
            connection: Connection::open(&cluster.broker()).expect("a connection"),
            next_offset: 0,
        }
    }

    fn is_served(&mut self, cluster: &Cluster, after: &str) {
        let response = self
            .connection
            .request(code::SEND, &raw::send_fields("witness", "0"), b"still here")
            .unwrap_or_else(|e| panic!("after {after} a send got no answer: {e}"));
        assert_eq!(
            response.code, 0,
            "after {after} a send was refused: {}",
            response.remark
        );
        assert_eq!(
            response.ext["queueOffset"],
            self.next_offset.to_string(),
            "after {after}"
        );
        self.next_offset += 1;
        assert_eq!(
            raw::masters(cluster.nameserver()).len(),
            1,
            "after {after} the NameServer does not answer"
        );
    }
}

/// What is no frame at all: the connection must end.
fn no_frames() -> Vec<(&'static str, Vec<u8>)> {
    let length = |n: u32| n.to_be_bytes().to_vec();
    vec![
        (
            "the greatest length",
            [length(0x7fff_ffff), vec![0; 100]].concat(),
        ),
        (
            "a negative length",
            [length(0xffff_ffff), vec![0; 100]].concat(),
        ),
        (
            "a length of 100 MiB",
            [length(100 << 20), vec![0; 100]].concat(),
        ),
        ("a length of 0", length(0)),
        (
            "a length without room for the header's length",
            [length(3), vec![0; 3]].concat(),
        ),
        (
            "a header longer than its frame",
            [length(14), length(11), b"{\"code\":1}".to_vec()].concat(),
        ),
        (
            "the greatest header in a small frame",
            [length(8), length(0x00ff_ffff), vec![0; 4]].concat(),
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec()),
        (
            "a TLS hello",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat(),
        ),
    ]
}

/// Frames with a header that nobody can read: an error or the end of the connection.
fn broken_headers() -> Vec<(&'static str, Vec<u8>)> {
    let text = |header: &str| frame(0, header.as_bytes(), b"body");
    let fields = |entries: &[u8]| rocketmq_header(105, 0, entries.len() as u32, entries);
    vec![
        ("an empty header", text("")),
        ("no JSON", text("garbage")),
        (
            "JSON that does not end",
            text(r#"{"code":105,"opaque":1,"extFields":{"topic":"#),
        ),
        ("an array", text("[1,2,3]")),
        ("deep nesting", text(&"[".repeat(100_000))),
        (
            "deep nesting in a field",
            text(&format!(
                r#"{{"code":105,"opaque":1,"extFields":{}"#,
                r#"{"a":"#.repeat(50_000)
            )),
        ),
        ("no code", text(r#"{"opaque":1,"flag":0}"#)),
        (
            "a code that is a word",
            text(r#"{"code":"SEND","opaque":1,"flag":0}"#),
        ),
        (
            "a code beyond all numbers",
            text(r#"{"code":1e999,"opaque":1,"flag":0}"#),
        ),
        (
            "bytes that are no UTF-8",
            frame(
                0,
                b"{\"code\":105,\"opaque\":1,\"extFields\":{\"topic\":\"\xff\xfe\"}",
                b"",
            ),
        ),
        (
            "an unknown serialiser",
            frame(7, br#"{"code":105,"opaque":1,"flag":0}"#, b""),
        ),
        (
            "the last serialiser",
            frame(255, br#"{"code":105,"opaque":1,"flag":0}"#, b""),
        ),
        ("a ROCKETMQ header that is cut", frame(1, &[0, 105, 0], b"")),
        (
            "a negative length of the remark",
            frame(1, &rocketmq_header(105, 0xffff_ffff, 0, &[]), b""),
        ),
        (
            "a negative length of the fields",
            frame(1, &rocketmq_header(105, 0, 0xffff_fff0, &[]), b""),
        ),
        (
            "fields longer than the header",
            frame(1, &rocketmq_header(105, 0, 1 << 20, &[0, 1, b'a']), b""),
        ),
        (
            "a field's name longer than the fields",
            frame(1, &fields(&[0xff, 0xff, b'a', 0, 0, 0, 0]), b""),
        ),
        (
            "a negative length of a field",
            frame(1, &fields(&[0, 1, b'a', 0xff, 0xff, 0xff, 0xff]), b""),
        ),
        (
            "a field that is cut",
            frame(1, &fields(&[0, 1, b'a', 0, 0]), b""),
        ),
    ]
}

/// Code, language Java, version 513, opaque 1, flag 0; then the two lengths, and the fields.
fn rocketmq_header(code: u16, remark_length: u32, fields_length: u32, fields: &[u8]) -> Vec<u8> {
    let mut header = code.to_be_bytes().to_vec();
    header.push(0);
    header.extend(513u16.to_be_bytes());
    header.extend(1u32.to_be_bytes());
    header.extend(0u32.to_be_bytes());
    header.extend(remark_length.to_be_bytes());
    header.extend(fields_length.to_be_bytes());
    header.extend(fields);
    header
}

fn answer_or_end(address: &str, what: &str, bytes: &[u8]) -> Option<Response> {
    let mut connection = Connection::open(address).expect("a connection");
    // The peer may close before it has taken everything.
    let _ = connection.write(bytes);
    connection
        .answer_or_end()
        .unwrap_or_else(|e| panic!("{what} got neither an answer nor an end: {e}"))
}

#[test]
fn what_is_no_frame_ends_its_connection() {
    let cluster = Cluster::start(&Options::new());
    let mut witness = Witness::new(&cluster);
    let lines_before = cluster.process().log().lines().count();
    let broken = no_frames();
    for (what, bytes) in &broken {
        for address in [&cluster.broker(), cluster.nameserver()] {
            let answer = answer_or_end(address, what, bytes);
            assert!(answer.is_none(), "{what} got an answer: {answer:?}");
        }
        witness.is_served(&cluster, what);
    }
    assert_log(&cluster, lines_before, broken.len() * 2);
}

#[test]
fn broken_headers_get_an_error_or_the_end() {
    let cluster = Cluster::start(&Options::new());
    let mut witness = Witness::new(&cluster);
    let lines_before = cluster.process().log().lines().count();
    let broken = broken_headers();
    for (what, bytes) in &broken {
        for address in [&cluster.broker(), cluster.nameserver()] {
            if let Some(answer) = answer_or_end(address, what, bytes) {
                assert_ne!(answer.code, 0, "{what} was taken for a request");
            }
        }
        witness.is_served(&cluster, what);
    }
    assert_log(&cluster, lines_before, broken.len() * 2);
}

#[test]
fn frames_that_are_cut_are_dropped() {
    let cluster = Cluster::start(&Options::new());
    let mut witness = Witness::new(&cluster);
    let whole = raw::request(
        code::SEND,
        1,
        &raw::send_fields("witness", "0"),
        &[b'x'; 3000],
    );
    let mut open = Vec::new();
    for address in [cluster.broker(), cluster.nameserver().to_owned()] {
        for end in [
            0,
            1,
            3,
            4,
            5,
            7,
            8,
            9,
            100,
            whole.len() / 2,
            whole.len() - 1,
        ] {
            // One that closes, one that only stops sending, one that stays.
            for kind in 0..3 {
                let mut stream = TcpStream::connect(&address).expect("a connection");
                stream.write_all(&whole[..end]).expect("a peer that reads");
                match kind {
                    0 => drop(stream),
                    1 => {
                        stream.shutdown(Shutdown::Write).expect("a connection");
                        open.push(stream);
                    }
                    _ => open.push(stream),
                }
            }
        }
    }
    witness.is_served(&cluster, "frames that are cut");
    let log = cluster.process().log();
    assert!(!log.contains("panicked"), "{log}");
}

/// A frame may be cut anywhere on its way: it arrives byte by byte and is served.
#[test]
fn frames_in_pieces_are_served() {
    let cluster = Cluster::start(&Options::new());
    cluster.create_topic("pieces", 1);
    let mut connection = Connection::open(&cluster.broker()).expect("a connection");
    let whole = raw::request(
        code::SEND,
        1,
        &raw::send_fields("pieces", "0"),
        b"in pieces",
    );
    for byte in &whole {
        connection.write(&[*byte]).expect("a peer that reads");
    }
    let answer = connection
        .answer_or_end()
        .expect("an answer")
        .expect("an answer");
    assert_eq!(answer.code, 0, "{}", answer.remark);
    // And several in one write.
    let three: Vec<u8> = (2..5)
        .flat_map(|i| raw::request(code::SEND, i, &raw::send_fields("pieces", "0"), b"more"))
        .collect();
    connection.write(&three).expect("a peer that reads");
    for _ in 0..3 {
        assert_eq!(
            connection
                .answer_or_end()
                .expect("an answer")
                .expect("an answer")
                .code,
            0
        );
    }
}

/// An answer that nobody waits for is no request; what follows it is.
#[test]
fn answers_that_nobody_waits_for_are_ignored() {
    let cluster = Cluster::start(&Options::new());
    let mut witness = Witness::new(&cluster);
    let header = json!({"code": 0, "flag": 1, "language": "JAVA", "opaque": 77, "version": 513, "serializeTypeCurrentRPC": "JSON"});
    let answer = frame(0, header.to_string().as_bytes(), b"");
    witness
        .connection
        .write(&answer)
        .expect("a peer that reads");
    witness.is_served(&cluster, "an answer that nobody waits for");
}

#[test]
fn announced_bytes_take_no_memory() {
    let cluster = Cluster::start(&Options::new().alone());
    let mut witness = Witness::new(&cluster);
    witness.is_served(&cluster, "nothing");
    let before = cluster.process().rss_bytes();
    let (connections, came) = (200, 64 * 1024);
    let announced = [
        (15u32 << 20).to_be_bytes().to_vec(),
        200u32.to_be_bytes().to_vec(),
        vec![b'x'; came - 8],
    ]
    .concat();
    let open: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = TcpStream::connect(cluster.broker()).expect("a connection");
            let _ = stream.write_all(&announced);
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    witness.is_served(&cluster, "many frames of 15 MiB that do not come");
    let grown = cluster.process().rss_bytes().saturating_sub(before);
    // What came is 12.5 MiB, what was announced 3 GiB.
    assert!(
        grown < 96 * MIB,
        "{connections} connections took {} MiB",
        grown / MIB
    );
    drop(open);
}

/// Somebody who asks and asks and never reads the answers.
#[test]
fn a_client_that_does_not_read_takes_no_memory() {
    let cluster = Cluster::start(&Options::new().alone());
    let mut witness = Witness::new(&cluster);
    witness.is_served(&cluster, "nothing");
    let before = cluster.process().rss_bytes();
    let requests: Vec<u8> = (0..100)
        .flat_map(|i| raw::request(code::CLUSTER_INFO, i, &[], &[]))
        .collect();
    let pulls: Vec<u8> = (0..100)
        .flat_map(|i| {
            raw::request(
                code::MAX_OFFSET,
                i,
                &[("topic", "witness"), ("queueId", "0")],
                &[],
            )
        })
        .collect();
    for (address, bytes) in [
        (cluster.nameserver().to_owned(), requests),
        (cluster.broker(), pulls),
    ] {
        let mut stream = TcpStream::connect(&address).expect("a connection");
        stream
            .set_write_timeout(Some(Duration::from_secs(2)))
            .expect("a time-out");
        let mut written = 0;
        // It ends when the peer reads no more, or closes; both is well.
        while written < 64 * MIB && stream.write_all(&bytes).is_ok() {
            written += bytes.len() as u64;
        }
        witness.is_served(&cluster, "a client that does not read");
        let grown = cluster.process().rss_bytes().saturating_sub(before);
        assert!(
            grown < 128 * MIB,
            "{} MiB after {} MiB of requests",
            grown / MIB,
            written / MIB
        );
    }
}

fn assert_log(cluster: &Cluster, lines_before: usize, broken: usize) {
    let log = cluster.process().log();
    assert!(!log.contains("panicked"), "{log}");
    let lines = log.lines().count() - lines_before;
    assert!(
        lines <= broken,
        "{lines} lines in the log for {broken} broken connections:\n{log}"
    );
}
