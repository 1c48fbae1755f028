//! The locks of orderly consumers.

use serde::{Deserialize, Serialize};

use super::MessageQueue;

/// The body of LOCK_BATCH_MQ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchRequestBody {
    /// The group.
    pub consumer_group: String,
    /// The member that wants the queues.
    pub client_id: String,
    /// Whether replicas need not agree.
    pub only_this_broker: bool,
    /// The queues.
    pub mq_set: Vec<MessageQueue>,
}

/// The body of UNLOCK_BATCH_MQ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnlockBatchRequestBody {
    /// The group.
    pub consumer_group: String,
    /// The member that gives the queues up.
    pub client_id: String,
    /// Whether replicas need not be told.
    pub only_this_broker: bool,
    /// The queues.
    pub mq_set: Vec<MessageQueue>,
}

/// The body of LOCK_BATCH_MQ's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponseBody {
    /// The queues that the member has now, as it named them.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

json_body!(
    LockBatchRequestBody,
    UnlockBatchRequestBody,
    LockBatchResponseBody
);
