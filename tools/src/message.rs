//! A message as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corelane_client::Received;
use serde_json::{Map, Value, json};

/// Everything that is known of a message. A body that is not UTF-8 is in Base64.
pub fn object(message: &Received) -> Value {
    let properties: Map<String, Value> = message
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let mut object = json!({
        "topic": message.topic,
        "broker": message.broker,
        "queueId": message.queue_id,
        "queueOffset": message.queue_offset,
        "msgId": message.message_id,
        "offsetMsgId": message.offset_message_id,
        "bornTimestamp": message.born_ms,
        "storeTimestamp": message.stored_ms,
        "reconsumeTimes": message.reconsume_times,
        "flag": message.flag,
        "properties": properties,
    });
    match std::str::from_utf8(&message.body) {
        Ok(text) => object["body"] = json!(text),
        Err(_) => object["bodyBase64"] = json!(STANDARD.encode(&message.body)),
    }
    object
}
