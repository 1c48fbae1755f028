//! Writing a frame: the head, fields in any number, then the length of the body.

use crate::code;
use crate::frame::Serialization;
use crate::scan::{bytes_below_blank, bytes_equal};
use crate::text::Text;

/// The length of a header has 24 bits.
const MAX_HEADER_BYTES: usize = 0xFF_FFFF;
/// A remark is for humans; what is longer is cut.
const MAX_REMARK_BYTES: usize = 0x7FFF;
/// What closes a header behind the last field.
const MAX_TAIL_BYTES: usize = 2;

/// What a frame says beside its fields and its body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// How to write the header. A code or a version that does not fit ROCKETMQ (16 bits) is written as JSON.
    pub serialization: Serialization,
    /// Request or response code.
    pub code: i32,
    /// Language ordinal.
    pub language: u8,
    /// `MQVersion` ordinal.
    pub version: i32,
    /// See [`Frame::opaque`](crate::Frame::opaque).
    pub opaque: i32,
    /// See [`Frame::flag`](crate::Frame::flag).
    pub flag: i32,
    /// Human text of an error; at most 32,767 bytes of it are written.
    pub remark: Option<&'a str>,
}

/// Writes one frame to the end of a buffer: head, then fields in any number, then the length of the body.
/// A writer that is dropped without `finish` leaves the buffer as it was.
pub struct FrameWriter<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    fields: Fields,
    finished: bool,
}

/// Where the fields stand.
#[derive(Clone, Copy)]
pub(crate) enum Fields {
    /// JSON; whether the object of the fields is open.
    Json { open: bool },
    /// ROCKETMQ; the place of the word that holds their length.
    Rocketmq { len_at: usize },
}

impl<'b> FrameWriter<'b> {
    /// Starts a frame at the end of `out`.
    pub fn new(out: &'b mut Vec<u8>, head: &Head<'_>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        let remark = head.remark.map(cut_remark);
        let fields = match (
            head.serialization,
            i16::try_from(head.code),
            i16::try_from(head.version),
        ) {
            (Serialization::Rocketmq, Ok(code), Ok(version)) => {
                write_rocketmq_head(out, head, code, version, remark)
            }
            _ => write_json_head(out, head, remark),
        };
        Self {
            out,
            start,
            fields,
            finished: false,
        }
    }

    /// Goes on with a frame that begins at `start` and has its head.
    pub(crate) fn go_on(out: &'b mut Vec<u8>, start: usize, fields: Fields) -> Self {
        Self {
            out,
            start,
            fields,
            finished: false,
        }
    }

    /// Where the length of the fields stands, in ROCKETMQ.
    pub(crate) fn len_at(&self) -> Option<usize> {
        match self.fields {
            Fields::Rocketmq { len_at } => Some(len_at - self.start),
            Fields::Json { .. } => None,
        }
    }

    /// Leaves the frame as it is, without its end.
    pub(crate) fn leave_open(mut self) {
        self.finished = true;
    }

    /// Adds one field. One with which the header would grow above 16 MiB is left out.
    pub fn field(&mut self, name: &str, value: &str) {
        self.text_field(name, Text::plain(value));
    }

    /// Adds one field whose value may still be escaped, as it was received.
    pub fn text_field(&mut self, name: &str, value: Text<'_>) {
        let (before_len, before_fields) = (self.out.len(), self.fields);
        match self.fields {
            Fields::Json { .. } => {
                self.json_name(name);
                self.out.push(b'"');
                match value.is_escaped() {
                    true => self.out.extend_from_slice(value.raw().as_bytes()),
                    false => push_escaped(self.out, value.raw()),
                }
                self.out.push(b'"');
            }
            Fields::Rocketmq { .. } => {
                self.out.reserve(6 + name.len() + value.raw().len());
                self.rocketmq_name(name);
                if let Some(plain) = value.as_plain() {
                    self.out
                        .extend_from_slice(&(plain.len() as u32).to_be_bytes());
                    self.out.extend_from_slice(plain.as_bytes());
                } else {
                    let len_at = self.out.len();
                    self.out.extend_from_slice(&[0; 4]);
                    value.push_to(self.out);
                    patch_len(self.out, len_at);
                }
            }
        }
        let fits = self.out.len() + MAX_TAIL_BYTES <= self.start + 8 + MAX_HEADER_BYTES;
        if !fits || name.len() > i16::MAX as usize {
            self.out.truncate(before_len);
            self.fields = before_fields;
        }
    }

    /// Adds one integer field.
    pub fn int_field(&mut self, name: &str, value: i64) {
        let mut digits = [0; 20];
        self.field(name, decimal(value, &mut digits));
    }

    /// Ends the header. The caller sends `body_len` bytes after it: behind it in the same buffer or from elsewhere.
    pub fn finish(mut self, body_len: usize) {
        self.close(body_len);
    }

    /// Ends the header and appends the body.
    pub fn finish_with(mut self, body: &[u8]) {
        self.close(body.len());
        self.out.extend_from_slice(body);
    }

    fn close(&mut self, body_len: usize) {
        let mut serialization = 0;
        match self.fields {
            Fields::Json { open } => self.out.extend_from_slice(if open { b"}}" } else { b"}" }),
            Fields::Rocketmq { len_at } => {
                serialization = 1 << 24;
                patch_len(self.out, len_at);
            }
        }
        let header_len = self.out.len() - self.start - 8;
        let words = [
            (header_len + 4 + body_len) as u32,
            serialization | header_len as u32,
        ];
        for (word, at) in words.into_iter().zip([self.start, self.start + 4]) {
            self.out[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        self.finished = true;
    }

    fn json_name(&mut self, name: &str) {
        match &mut self.fields {
            Fields::Json { open: open @ false } => {
                *open = true;
                self.out.extend_from_slice(b",\"extFields\":{\"");
            }
            _ => self.out.extend_from_slice(b",\""),
        }
        push_escaped(self.out, name);
        self.out.extend_from_slice(b"\":");
    }

    fn rocketmq_name(&mut self, name: &str) {
        self.out
            .extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.out.extend_from_slice(name.as_bytes());
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

fn write_json_head(out: &mut Vec<u8>, head: &Head<'_>, remark: Option<&str>) -> Fields {
    let mut digits = [0; 20];
    out.extend_from_slice(b"{\"code\":");
    out.extend_from_slice(decimal(head.code.into(), &mut digits).as_bytes());
    out.extend_from_slice(b",\"flag\":");
    out.extend_from_slice(decimal(head.flag.into(), &mut digits).as_bytes());
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(code::language::name(head.language).as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    out.extend_from_slice(decimal(head.opaque.into(), &mut digits).as_bytes());
    if let Some(remark) = remark {
        out.extend_from_slice(b",\"remark\":\"");
        push_escaped(out, remark);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    out.extend_from_slice(decimal(head.version.into(), &mut digits).as_bytes());
    Fields::Json { open: false }
}

fn write_rocketmq_head(
    out: &mut Vec<u8>,
    head: &Head<'_>,
    code: i16,
    version: i16,
    remark: Option<&str>,
) -> Fields {
    let remark = remark.unwrap_or_default();
    out.extend_from_slice(&code.to_be_bytes());
    out.push(head.language);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&head.opaque.to_be_bytes());
    out.extend_from_slice(&head.flag.to_be_bytes());
    out.extend_from_slice(&(remark.len() as u32).to_be_bytes());
    out.extend_from_slice(remark.as_bytes());
    let len_at = out.len();
    out.extend_from_slice(&[0; 4]);
    Fields::Rocketmq { len_at }
}

/// Writes into the word at `len_at` how many bytes follow it.
fn patch_len(out: &mut [u8], len_at: usize) {
    let len = (out.len() - len_at - 4) as u32;
    out[len_at..len_at + 4].copy_from_slice(&len.to_be_bytes());
}

fn cut_remark(remark: &str) -> &str {
    let mut end = remark.len().min(MAX_REMARK_BYTES);
    while !remark.is_char_boundary(end) {
        end -= 1;
    }
    &remark[..end]
}

/// Appends `value` as the inside of a JSON string.
pub(crate) fn push_escaped(out: &mut Vec<u8>, value: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = value.as_bytes();
    let plain = plain_words(bytes);
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if bytes[plain..].iter().all(|&byte| is_plain(byte)) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate().skip(plain) {
        if is_plain(byte) {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

/// How many bytes at the start are in words of eight that hold nothing to escape.
fn plain_words(bytes: &[u8]) -> usize {
    let to_escape =
        |word| bytes_below_blank(word) | bytes_equal(word, b'"') | bytes_equal(word, b'\\');
    let (words, _) = bytes.as_chunks::<8>();
    let plain = words
        .iter()
        .take_while(|word| to_escape(u64::from_le_bytes(**word)) == 0);
    plain.count() * 8
}

/// `value` in decimal, at the end of `digits`.
pub(crate) fn decimal(value: i64, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    std::str::from_utf8(&digits[at..]).unwrap_or_default()
}
