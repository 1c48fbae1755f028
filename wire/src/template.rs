//! Frames that are alike: head and first fields are written once, and copied into each frame.

use crate::frame::{FrameWriter, Head, Serialization};
use crate::write::{Fields, decimal};

/// Where the opaque stands behind the two lengths of a ROCKETMQ header.
const OPAQUE_AT: usize = 8 + 5;

/// The start of a frame, but for its opaque: a head, and fields that are the same in all of them.
#[derive(Debug, Clone)]
pub struct FrameTemplate {
    rocketmq: Vec<u8>,
    /// Where the length of the fields stands in a ROCKETMQ frame.
    len_at: usize,
    /// Before and behind the opaque.
    json: (Vec<u8>, Vec<u8>),
}

impl FrameTemplate {
    /// A template of a head, whose opaque and serialization do not count, and of at least one field.
    pub fn new(head: &Head<'_>, fields: &[(&str, &str)]) -> Self {
        assert!(!fields.is_empty(), "a template has a field");
        let start = |serialization| {
            let mut bytes = Vec::new();
            let head = Head {
                serialization,
                opaque: 0,
                ..*head
            };
            let mut writer = FrameWriter::new(&mut bytes, &head);
            let len_at = writer.len_at();
            for (name, value) in fields {
                writer.field(name, value);
            }
            writer.leave_open();
            (bytes, len_at)
        };
        let (rocketmq, len_at) = start(Serialization::Rocketmq);
        let (json, _) = start(Serialization::Json);
        let mark = b"\"opaque\":0";
        let found = json.windows(mark.len()).position(|window| window == mark);
        let at = found.map_or(json.len(), |at| at + mark.len());
        Self {
            rocketmq,
            len_at: len_at.unwrap_or_default(),
            json: (json[..at - 1].to_vec(), json[at..].to_vec()),
        }
    }

    /// Starts a frame at the end of `out`: more fields may follow.
    pub fn start<'b>(
        &self,
        out: &'b mut Vec<u8>,
        serialization: Serialization,
        opaque: i32,
    ) -> FrameWriter<'b> {
        let start = out.len();
        let fields = match serialization {
            Serialization::Rocketmq => {
                out.extend_from_slice(&self.rocketmq);
                out[start + OPAQUE_AT..start + OPAQUE_AT + 4]
                    .copy_from_slice(&opaque.to_be_bytes());
                Fields::Rocketmq {
                    len_at: start + self.len_at,
                }
            }
            Serialization::Json => {
                out.extend_from_slice(&self.json.0);
                out.extend_from_slice(decimal(opaque.into(), &mut [0; 20]).as_bytes());
                out.extend_from_slice(&self.json.1);
                Fields::Json { open: true }
            }
        };
        FrameWriter::go_on(out, start, fields)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Frame;
    use crate::code::{VERSION, language};

    #[test]
    fn a_frame_of_a_template_is_the_frame_that_is_written_field_by_field() {
        for serialization in [Serialization::Json, Serialization::Rocketmq] {
            for opaque in [0, 7, -1, i32::MAX, i32::MIN] {
                let head = Head {
                    serialization,
                    code: 0,
                    language: language::JAVA,
                    version: VERSION,
                    opaque,
                    flag: 1,
                    remark: None,
                };
                let mut whole = b"before".to_vec();
                let mut writer = FrameWriter::new(&mut whole, &head);
                for (name, value) in [("same", "é\""), ("other", "x")] {
                    writer.field(name, value);
                }
                writer.int_field("number", -5);
                writer.finish(3);
                let template = FrameTemplate::new(&head, &[("same", "é\""), ("other", "x")]);
                let mut made = b"before".to_vec();
                let mut writer = template.start(&mut made, serialization, opaque);
                writer.int_field("number", -5);
                writer.finish(3);
                assert_eq!(made, whole);
                made.extend_from_slice(b"xyz");
                assert_eq!(Frame::parse(&made[6..]).unwrap().opaque, opaque);
            }
        }
    }
}
