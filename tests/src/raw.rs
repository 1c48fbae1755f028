//! The protocol by hand: frames that are made and read here, without the project's own codec, and bytes that are no frames.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// Request codes that the tests use.
pub mod code {
    /// SEND_MESSAGE.
    pub const SEND: i64 = 10;
    /// PULL_MESSAGE.
    pub const PULL: i64 = 11;
    /// QUERY_CONSUMER_OFFSET.
    pub const QUERY_CONSUMER_OFFSET: i64 = 14;
    /// UPDATE_CONSUMER_OFFSET.
    pub const UPDATE_CONSUMER_OFFSET: i64 = 15;
    /// UPDATE_AND_CREATE_TOPIC.
    pub const CREATE_TOPIC: i64 = 17;
    /// GET_PRODUCER_CONNECTION_LIST.
    pub const PRODUCER_CONNECTIONS: i64 = 204;
    /// UPDATE_BROKER_CONFIG.
    pub const UPDATE_CONFIG: i64 = 25;
    /// GET_BROKER_RUNTIME_INFO.
    pub const RUNTIME_INFO: i64 = 28;
    /// GET_MIN_OFFSET.
    pub const MIN_OFFSET: i64 = 31;
    /// GET_MAX_OFFSET.
    pub const MAX_OFFSET: i64 = 30;
    /// REGISTER_BROKER.
    pub const REGISTER_BROKER: i64 = 103;
    /// UNREGISTER_BROKER.
    pub const UNREGISTER_BROKER: i64 = 104;
    /// GET_ROUTEINFO_BY_TOPIC.
    pub const ROUTE: i64 = 105;
    /// GET_BROKER_CLUSTER_INFO.
    pub const CLUSTER_INFO: i64 = 106;
}

/// How long a peer may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a request was answered with.
#[derive(Debug)]
pub struct Response {
    /// 0 is success.
    pub code: i64,
    /// The explanation of an error.
    pub remark: String,
    /// The header's own fields, all as text.
    pub ext: BTreeMap<String, String>,
    /// The rest of the frame.
    pub body: Vec<u8>,
}

/// A connection that sends and receives one thing after the other.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_opaque: i64,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            next_opaque: 1,
        })
    }

    /// Sends a request with a JSON header and waits for its answer.
    pub fn request(
        &mut self,
        code: i64,
        ext: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        self.write(&request(code, opaque, ext, body))?;
        loop {
            let (header, body) = self.read()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if header["opaque"] == opaque
                && header["flag"].as_i64().is_some_and(|flag| flag & 1 == 1)
            {
                return Ok(Response::from(&header, body));
            }
        }
    }

    /// Writes these bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame, or nothing when the peer has closed. Only frames with a JSON header can be read.
    pub fn read(&mut self) -> io::Result<Option<(Value, Vec<u8>)>> {
        read_frame(&mut self.stream)
    }

    /// Waits until the peer answers, as `Some`, or closes the connection, as `None`; an error when it does neither.
    pub fn answer_or_end(&mut self) -> io::Result<Option<Response>> {
        match self.read() {
            Ok(frame) => Ok(frame.map(|(header, body)| Response::from(&header, body))),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::BrokenPipe
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

impl Response {
    fn from(header: &Value, body: Vec<u8>) -> Self {
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let ext = header["extFields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), text(v)))
            .collect();
        Self {
            code: header["code"].as_i64().unwrap_or(-1),
            remark: header["remark"].as_str().unwrap_or_default().to_owned(),
            ext,
            body,
        }
    }

    /// The body as JSON, in which RocketMQ writes keys that are numbers without quotes.
    pub fn json(&self) -> Value {
        let text = quote_number_keys(&String::from_utf8_lossy(&self.body));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

/// `{0:"a",1:"b"}` as `{"0":"a","1":"b"}`; digits after a brace or a comma and before a colon.
fn quote_number_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut in_string, mut escaped, mut before) = (false, false, ' ');
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if !in_string
            && matches!(before, '{' | ',')
            && digits > 0
            && rest[digits..].starts_with(':')
        {
            out.push('"');
            out.push_str(&rest[..digits]);
            out.push('"');
            rest = &rest[digits..];
            before = '"';
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        before = c;
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// A frame around a header that is serialised already; `serializer` is 0 for JSON, 1 for ROCKETMQ.
pub fn frame(serializer: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + header.len() + body.len());
    out.extend(((4 + header.len() + body.len()) as u32).to_be_bytes());
    out.extend((u32::from(serializer) << 24 | header.len() as u32).to_be_bytes());
    out.extend(header);
    out.extend(body);
    out
}

/// A request with a JSON header, as Java's client makes it.
pub fn request(code: i64, opaque: i64, ext: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let fields: Map<String, Value> = ext
        .iter()
        .map(|(k, v)| ((*k).to_owned(), Value::from(*v)))
        .collect();
    let header = json!({"code": code, "flag": 0, "language": "JAVA", "opaque": opaque, "serializeTypeCurrentRPC": "JSON",
        "version": 513, "extFields": fields});
    frame(0, header.to_string().as_bytes(), body)
}

/// The masters that a NameServer knows: their addresses by name. Empty when it cannot be asked.
pub fn masters(nameserver: &str) -> BTreeMap<String, String> {
    let ask = || -> io::Result<Response> {
        Connection::open(nameserver)?.request(code::CLUSTER_INFO, &[], &[])
    };
    match ask() {
        Ok(response) if response.code == 0 => addresses(
            response.json()["brokerAddrTable"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(_, b)| b),
        ),
        _ => BTreeMap::new(),
    }
}

/// The masters of a topic by name, with the number of queues to write to; empty when the NameServer does not know it.
pub fn route(nameserver: &str, topic: &str) -> BTreeMap<String, i64> {
    let ask = || -> io::Result<Response> {
        Connection::open(nameserver)?.request(code::ROUTE, &[("topic", topic)], &[])
    };
    let Ok(response) = ask() else {
        return BTreeMap::new();
    };
    if response.code != 0 {
        return BTreeMap::new();
    }
    let route = response.json();
    let masters = addresses(route["brokerDatas"].as_array().into_iter().flatten());
    let queues = route["queueDatas"].as_array().into_iter().flatten();
    queues
        .filter_map(|q| {
            Some((
                q["brokerName"].as_str()?.to_owned(),
                q["writeQueueNums"].as_i64()?,
            ))
        })
        .filter(|(broker, _)| masters.contains_key(broker))
        .collect()
}

fn addresses<'a>(brokers: impl Iterator<Item = &'a Value>) -> BTreeMap<String, String> {
    brokers
        .filter_map(|b| {
            Some((
                b["brokerName"].as_str()?.to_owned(),
                b["brokerAddrs"]["0"].as_str()?.to_owned(),
            ))
        })
        .collect()
}

/// Makes a topic on one broker, as an admin client does.
pub fn create_topic(broker: &str, topic: &str, queues: usize) -> io::Result<Response> {
    let queues = queues.to_string();
    Connection::open(broker)?.request(
        code::CREATE_TOPIC,
        &[
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
        ],
        &[],
    )
}

/// The offset that a group has committed in a queue, as the broker tells it; `None` when there is none.
pub fn committed(broker: &str, group: &str, topic: &str, queue: i32) -> Option<i64> {
    let queue = queue.to_string();
    let fields = [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", &queue),
    ];
    let response = Connection::open(broker)
        .ok()?
        .request(code::QUERY_CONSUMER_OFFSET, &fields, &[])
        .ok()?;
    (response.code == 0).then(|| response.ext.get("offset")?.parse().ok())?
}

/// The fields of a request that sends to a queue.
pub fn send_fields<'a>(topic: &'a str, queue: &'a str) -> [(&'a str, &'a str); 11] {
    [
        ("producerGroup", "raw"),
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", queue),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "0"),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ]
}

/// The fields of a pull from a topic's first queue that takes everything and does not wait.
pub fn pull_fields<'a>(
    group: &'a str,
    topic: &'a str,
    offset: &'a str,
) -> [(&'a str, &'a str); 10] {
    [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", offset),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "1"),
    ]
}

/// A NameServer that says yes to everything and remembers what it was asked.
#[derive(Debug)]
pub struct YesNameServer {
    address: String,
    asked: Arc<Mutex<Vec<(i64, Value)>>>,
}

impl YesNameServer {
    /// Listens on this port of 127.0.0.1, to the end of the process.
    pub fn listen(port: u16) -> Self {
        let address = format!("127.0.0.1:{port}");
        let listener = TcpListener::bind(&address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&remembered);
                thread::spawn(move || answer_all(stream, &asked));
            }
        });
        Self { address, asked }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The fields of all requests of this code so far, in order.
    pub fn asked(&self, code: i64) -> Vec<Value> {
        let asked = self.asked.lock().expect("no panic under the lock");
        asked
            .iter()
            .filter(|(c, _)| *c == code)
            .map(|(_, fields)| fields.clone())
            .collect()
    }
}

fn answer_all(mut stream: TcpStream, asked: &Mutex<Vec<(i64, Value)>>) {
    while let Ok(Some((header, _))) = read_frame(&mut stream) {
        let code = header["code"].as_i64().unwrap_or(-1);
        asked
            .lock()
            .expect("no panic under the lock")
            .push((code, header["extFields"].clone()));
        let answer = json!({"code": 0, "flag": 1, "language": "JAVA", "opaque": header["opaque"], "version": 513,
            "serializeTypeCurrentRPC": "JSON", "extFields": {}});
        if stream
            .write_all(&frame(0, answer.to_string().as_bytes(), &[]))
            .is_err()
        {
            return;
        }
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Option<(Value, Vec<u8>)>> {
    let mut word = [0; 4];
    match stream.read_exact(&mut word) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut rest = vec![0; u32::from_be_bytes(word) as usize];
    stream.read_exact(&mut rest)?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (mark, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| invalid("a frame without a header's length"))?;
    let header_bytes = (u32::from_be_bytes(*mark) & 0x00ff_ffff) as usize;
    let (header, body) = rest
        .split_at_checked(header_bytes)
        .ok_or_else(|| invalid("a header longer than its frame"))?;
    match mark[0] {
        0 => Ok(Some((serde_json::from_slice(header)?, body.to_vec()))),
        other => Err(invalid(&format!("a header of serialiser {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::quote_number_keys;

    #[test]
    fn only_keys_that_are_numbers_are_quoted() {
        let cases = [
            (r#"{"a":{0:"x",12:"y"}}"#, r#"{"a":{"0":"x","12":"y"}}"#),
            (r#"{"a":[1,2],"b":3}"#, r#"{"a":[1,2],"b":3}"#),
            (r#"{"a":"{0:1,\"2:3"}"#, r#"{"a":"{0:1,\"2:3"}"#),
        ];
        for (text, quoted) in cases {
            assert_eq!(quote_number_keys(text), quoted);
        }
    }
}
