//! Servers for tests: what they say is a function of what they are asked.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use corelane_wire::code::language;
use corelane_wire::frame::{Head, Serialization, split};
use corelane_wire::{Frame, FrameWriter};

pub(crate) fn head(opaque: i32, code: i32, flag: i32, remark: Option<&str>) -> Head<'_> {
    Head {
        serialization: Serialization::Json,
        code,
        language: language::JAVA,
        version: 1,
        opaque,
        flag,
        remark,
    }
}

/// Answers a request.
pub(crate) fn answer(
    frame: &Frame<'_>,
    code: i32,
    fields: &[(&str, &str)],
    body: &[u8],
    out: &mut Vec<u8>,
) {
    let mut writer = FrameWriter::new(out, &head(frame.opaque, code, 1, None));
    for (name, value) in fields {
        writer.field(name, value);
    }
    writer.finish_with(body);
}

/// A server; `script` makes the bytes that follow each request. Gives its address.
pub(crate) fn serve(script: impl Fn(&Frame<'_>, &mut Vec<u8>) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script = Arc::new(script);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let script = Arc::clone(&script);
            thread::spawn(move || serve_one(stream, &*script));
        }
    });
    address
}

fn serve_one(mut stream: TcpStream, script: &(dyn Fn(&Frame<'_>, &mut Vec<u8>) + Sync)) {
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        while let Some(len) = split(&received, 1 << 20).unwrap() {
            let mut out = Vec::new();
            script(&Frame::parse(&received[..len]).unwrap(), &mut out);
            received.drain(..len);
            if stream.write_all(&out).is_err() {
                return;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => received.extend_from_slice(&piece[..bytes]),
        }
    }
}
