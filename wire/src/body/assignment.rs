//! Queues that the broker hands out: QUERY_ASSIGNMENT and SET_MESSAGE_REQUEST_MODE.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MessageModel, MessageQueue};

java_enum! {
    /// How a group asks for messages.
    pub enum MessageRequestMode {
        /// PULL_MESSAGE.
        #[default]
        Pull = "PULL",
        /// POP_MESSAGE.
        Pop = "POP",
    }
}

/// The body of QUERY_ASSIGNMENT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentRequestBody {
    /// The topic.
    pub topic: String,
    /// The group.
    pub consumer_group: String,
    /// The member that asks.
    pub client_id: String,
    /// How queues are spread, such as `AVG`.
    pub strategy_name: String,
    /// Who gets a message.
    pub message_model: MessageModel,
}

/// A queue that a member shall ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueueAssignment {
    /// The queue; id -1 means all of the broker.
    pub message_queue: MessageQueue,
    /// How to ask.
    pub mode: MessageRequestMode,
    /// Further parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachments: Option<BTreeMap<String, String>>,
}

/// The body of QUERY_ASSIGNMENT's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResponseBody {
    /// The queues.
    pub message_queue_assignments: Vec<MessageQueueAssignment>,
}

/// The body of SET_MESSAGE_REQUEST_MODE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetMessageRequestModeRequestBody {
    /// The topic.
    pub topic: String,
    /// The group.
    pub consumer_group: String,
    /// How the group is to ask.
    pub mode: MessageRequestMode,
    /// How many members share a queue; 0 means that every member pops every queue.
    pub pop_share_queue_num: i32,
}

/// The body of GET_ALL_MESSAGE_REQUEST_MODE's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageRequestModeSerializeWrapper {
    /// By topic, then by group.
    pub message_request_mode_map:
        BTreeMap<String, BTreeMap<String, SetMessageRequestModeRequestBody>>,
}

json_body!(
    QueryAssignmentRequestBody,
    QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody,
    MessageRequestModeSerializeWrapper,
);
