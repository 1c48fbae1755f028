//! Headers of sending.

use crate::ext::{ExtFields, FieldError, FieldType, RawText};
use crate::frame::FrameWriter;
use crate::text::Text;

ext_header! {
    /// SEND_MESSAGE and SEND_REPLY_MESSAGE under their long names; the same with names of one letter in SEND_MESSAGE_V2,
    /// SEND_BATCH_MESSAGE and SEND_REPLY_MESSAGE_V2 ([`SendMessageRequest::decode_short`]).
    pub struct SendMessageRequest<'a> {
        producer_group: Text<'a> = "producerGroup",
        topic: Text<'a> = "topic",
        default_topic: Text<'a> = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<Text<'a>> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        batch: Option<bool> = "batch",
        bname: Option<Text<'a>> = "bname",
    }
}

ext_header! {
    /// The answer to a send that was stored. `msg_id` is the offset message id.
    pub struct SendMessageResponse<'a> {
        msg_id: Text<'a> = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<Text<'a>> = "transactionId",
        batch_uniq_id: Option<Text<'a>> = "batchUniqId",
        recall_handle: Option<Text<'a>> = "recallHandle",
        msg_region: Option<Text<'a>> = "MSG_REGION",
        trace_on: Option<Text<'a>> = "TRACE_ON",
    }
}

ext_header! {
    /// CONSUMER_SEND_MSG_BACK.
    pub struct ConsumerSendMsgBackRequest<'a> {
        offset: i64 = "offset",
        group: Text<'a> = "group",
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<Text<'a>> = "originMsgId",
        origin_topic: Option<Text<'a>> = "originTopic",
        unit_mode: bool = "unitMode" or false,
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }
}

ext_header! {
    /// END_TRANSACTION. `commit_or_rollback` is 8, 12 or 0 (unknown).
    pub struct EndTransactionRequest<'a> {
        topic: Option<Text<'a>> = "topic",
        producer_group: Text<'a> = "producerGroup",
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        commit_or_rollback: i32 = "commitOrRollback",
        from_transaction_check: bool = "fromTransactionCheck" or false,
        msg_id: Text<'a> = "msgId",
        transaction_id: Option<Text<'a>> = "transactionId",
    }
}

ext_header! {
    /// RECALL_MESSAGE.
    pub struct RecallMessageRequest<'a> {
        producer_group: Option<Text<'a>> = "producerGroup",
        topic: Text<'a> = "topic",
        recall_handle: Text<'a> = "recallHandle",
    }
}

ext_header! {
    /// The answer to RECALL_MESSAGE.
    pub struct RecallMessageResponse<'a> {
        msg_id: Text<'a> = "msgId",
    }
}

/// The fields of one letter that were read so far.
#[derive(Default)]
struct Short<'a> {
    producer_group: Option<Text<'a>>,
    topic: Option<Text<'a>>,
    default_topic: Option<Text<'a>>,
    default_topic_queue_nums: Option<i32>,
    queue_id: Option<i32>,
    sys_flag: Option<i32>,
    born_timestamp: Option<i64>,
    flag: Option<i32>,
    properties: Option<Text<'a>>,
    reconsume_times: Option<i32>,
    unit_mode: Option<bool>,
    max_reconsume_times: Option<i32>,
    batch: Option<bool>,
    bname: Option<Text<'a>>,
}

impl<'a> Short<'a> {
    #[inline(always)]
    fn take(&mut self, name: &[u8], value: RawText<'a>) -> Result<(), FieldError> {
        let &[letter] = name else { return Ok(()) };
        match letter {
            b'a' => self.producer_group = FieldType::parse(value, "a")?,
            b'b' => self.topic = FieldType::parse(value, "b")?,
            b'c' => self.default_topic = FieldType::parse(value, "c")?,
            b'd' => self.default_topic_queue_nums = FieldType::parse(value, "d")?,
            b'e' => self.queue_id = FieldType::parse(value, "e")?,
            b'f' => self.sys_flag = FieldType::parse(value, "f")?,
            b'g' => self.born_timestamp = FieldType::parse(value, "g")?,
            b'h' => self.flag = FieldType::parse(value, "h")?,
            b'i' => self.properties = FieldType::parse(value, "i")?,
            b'j' => self.reconsume_times = FieldType::parse(value, "j")?,
            b'k' => self.unit_mode = FieldType::parse(value, "k")?,
            b'l' => self.max_reconsume_times = FieldType::parse(value, "l")?,
            b'm' => self.batch = FieldType::parse(value, "m")?,
            b'n' => self.bname = FieldType::parse(value, "n")?,
            _ => {}
        }
        Ok(())
    }

    fn whole(self) -> Result<SendMessageRequest<'a>, FieldError> {
        Ok(SendMessageRequest {
            producer_group: self.producer_group.ok_or(FieldError::Missing("a"))?,
            topic: self.topic.ok_or(FieldError::Missing("b"))?,
            default_topic: self.default_topic.ok_or(FieldError::Missing("c"))?,
            default_topic_queue_nums: self
                .default_topic_queue_nums
                .ok_or(FieldError::Missing("d"))?,
            queue_id: self.queue_id.ok_or(FieldError::Missing("e"))?,
            sys_flag: self.sys_flag.ok_or(FieldError::Missing("f"))?,
            born_timestamp: self.born_timestamp.ok_or(FieldError::Missing("g"))?,
            flag: self.flag.ok_or(FieldError::Missing("h"))?,
            properties: self.properties,
            reconsume_times: self.reconsume_times,
            unit_mode: self.unit_mode,
            max_reconsume_times: self.max_reconsume_times,
            batch: self.batch,
            bname: self.bname,
        })
    }
}

impl<'a> SendMessageRequest<'a> {
    /// Reads the fields under their names of one letter.
    pub fn decode_short(ext: &ExtFields<'a>) -> Result<Self, FieldError> {
        let mut short = Short::default();
        // The binary form has a loop of its own: it is the one that every send of a fast client goes through.
        if let Some(entries) = ext.rocketmq_entries() {
            for (name, value) in entries {
                short.take(name, RawText::Bytes(value))?;
            }
        } else {
            for (name, value) in ext.raw_fields() {
                match name.plain() {
                    Some(name) => short.take(name, value)?,
                    None => short.take(&name.bytes(), value)?,
                }
            }
        }
        short.whole()
    }

    /// Writes the fields under their names of one letter.
    pub fn encode_short(&self, out: &mut FrameWriter<'_>) {
        self.producer_group.write("a", out);
        self.topic.write("b", out);
        self.default_topic.write("c", out);
        self.default_topic_queue_nums.write("d", out);
        self.queue_id.write("e", out);
        self.sys_flag.write("f", out);
        self.born_timestamp.write("g", out);
        self.flag.write("h", out);
        self.properties.write("i", out);
        self.reconsume_times.write("j", out);
        self.unit_mode.write("k", out);
        self.max_reconsume_times.write("l", out);
        self.batch.write("m", out);
        self.bname.write("n", out);
    }
}
