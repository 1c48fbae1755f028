//! What must hold for any input. Property tests and fuzz targets (`wire/fuzz`) call the same functions.
//!
//! Each takes arbitrary bytes, parses them, and panics where an invariant of what was parsed is broken.

use crate::body::*;
use crate::ext::ExtHeader;
use crate::fastjson::{self, Keys};
use crate::frame::{Frame, FrameWriter, Head, Serialization, announced_len, split};
use crate::message_id::{OffsetId, RecallHandle, UniqueId};
use crate::properties::{Edit, Properties};
use crate::record::{Record, RecordFields};
use crate::text::Text;
use crate::{batch, header, properties};

/// A frame that parses says the same after it was written again, in either serialization.
pub fn frame(bytes: &[u8]) {
    let whole = split(bytes, bytes.len()).ok().flatten();
    if let Some(len) = whole {
        assert!(len <= bytes.len());
        assert_eq!(announced_len(bytes, bytes.len()), Ok(Some(len)));
    }
    let Ok(frame) = Frame::parse(bytes) else {
        return;
    };
    assert_eq!(whole, Some(bytes.len()));
    for serialization in [Serialization::Json, Serialization::Rocketmq] {
        let mut out = vec![7];
        let remark = frame.remark.map(|remark| remark.to_str().into_owned());
        let head = Head {
            serialization,
            code: frame.code,
            language: frame.language,
            version: frame.version,
            opaque: frame.opaque,
            flag: frame.flag,
            remark: remark.as_deref(),
        };
        let mut writer = FrameWriter::new(&mut out, &head);
        for (name, value) in frame.ext.iter() {
            writer.text_field(&name.to_str(), value);
        }
        writer.finish_with(frame.body);
        let again = Frame::parse(&out[1..]);
        assert!(again.is_ok(), "{again:?}");
        let Ok(again) = again else { return };
        assert_eq!(
            (again.code, again.version, again.opaque),
            (frame.code, frame.version, frame.opaque)
        );
        assert_eq!((again.flag, again.body), (frame.flag, frame.body));
        if remark.as_ref().is_none_or(|remark| remark.len() < 1000) && bytes.len() < 10_000 {
            let filled = |text: &Text<'_>| !text.is_empty();
            assert_eq!(again.remark.filter(filled), frame.remark.filter(filled));
            assert!(again.ext.iter().eq(frame.ext.iter()));
        }
    }
}

/// Writes the fields of a header, parses them again and gives the frame to `look`.
fn rewritten(
    serialization: Serialization,
    encode: impl Fn(&mut FrameWriter<'_>),
    look: impl Fn(&Frame<'_>),
) {
    let head = Head {
        serialization,
        code: 10,
        language: 0,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
    };
    let mut out = Vec::new();
    let mut writer = FrameWriter::new(&mut out, &head);
    encode(&mut writer);
    writer.finish(0);
    match Frame::parse(&out) {
        Ok(frame) => look(&frame),
        Err(error) => panic!("a header that was written does not parse: {error}"),
    }
}

/// Checks one header in both serializations; `$decode` and `$encode` are its two directions.
macro_rules! stable_header {
    ($ext:expr, $decode:path, $encode:path) => {
        if let Ok(header) = $decode($ext) {
            for serialization in [Serialization::Json, Serialization::Rocketmq] {
                rewritten(
                    serialization,
                    |out| $encode(&header, out),
                    |frame| assert_eq!($decode(&frame.ext), Ok(header)),
                );
            }
        }
    };
}

macro_rules! stable_headers {
    ($ext:expr, $($module:ident: $($header:ident)+;)+) => {
        $($(stable_header!($ext, header::$module::$header::decode, header::$module::$header::encode);)+)+
    };
}

/// Every typed header that the fields of a frame make says the same after it was written and read again.
pub fn headers(bytes: &[u8]) {
    let Ok(frame) = Frame::parse(bytes) else {
        return;
    };
    // Fields are left out of a header that would grow above 16 MiB.
    if bytes.len() > 1 << 20 {
        return;
    }
    let ext = &frame.ext;
    use header::send::SendMessageRequest;
    stable_header!(
        ext,
        SendMessageRequest::decode_short,
        SendMessageRequest::encode_short
    );
    stable_headers! {
        ext,
        broker: GetBrokerConfigResponse BrokerHeartbeatRequest NotifyMinBrokerIdChangeRequest
            ExchangeBrokerHaInfoRequest ExchangeBrokerHaInfoResponse GetBrokerMemberGroupRequest
            ResetMasterFlushOffsetRequest NotifyBrokerRoleChangedRequest AuthUserRequest AuthListUserRequest
            AuthAclRequest AuthListAclRequest;
        client: HeartBeatResponse UnregisterClientRequest GetConsumerListByGroupRequest
            GetConsumerConnectionListRequest GetProducerConnectionListRequest;
        group: GetAllSubscriptiongroupConfigRequest GetAllSubscriptiongroupConfigResponse
            GetSubscriptiongroupConfigRequest DeleteSubscriptiongroupRequest UpdateAndGetGroupForbiddenRequest
            QueryTopicConsumeByWhoRequest QueryTopicsByConsumerRequest QuerySubscriptionByConsumerRequest
            InvokeBrokerToResetOffsetRequest InvokeBrokerToGetConsumerStatusRequest
            ResumeCheckHalfMessageRequest;
        nameserver: PutKvConfigRequest GetKvConfigRequest GetKvConfigResponse DeleteKvConfigRequest
            GetKvlistByNamespaceRequest QueryDataVersionRequest QueryDataVersionResponse RegisterBrokerRequest
            RegisterBrokerResponse UnregisterBrokerRequest GetRouteinfoByTopicRequest
            WipeWritePermOfBrokerRequest WipeWritePermOfBrokerResponse AddWritePermOfBrokerRequest
            AddWritePermOfBrokerResponse GetTopicsByClusterRequest RegisterTopicInNamesrvRequest
            DeleteTopicInNamesrvRequest;
        notify: CheckTransactionStateRequest NotifyConsumerIdsChangedRequest ResetConsumerClientOffsetRequest
            GetConsumerStatusFromClientRequest GetConsumerRunningInfoRequest ConsumeMessageDirectlyRequest
            PushReplyMessageToClientRequest;
        offset: QueryConsumerOffsetRequest QueryConsumerOffsetResponse UpdateConsumerOffsetRequest
            GetMaxOffsetRequest GetMaxOffsetResponse GetMinOffsetRequest GetMinOffsetResponse
            GetEarliestMsgStoretimeRequest GetEarliestMsgStoretimeResponse SearchOffsetByTimestampRequest
            SearchOffsetByTimestampResponse QueryCorrectionOffsetRequest CloneGroupOffsetRequest;
        pop: PopMessageRequest PopMessageResponse AckMessageRequest ChangeMessageInvisibletimeRequest
            ChangeMessageInvisibletimeResponse PeekMessageRequest NotificationRequest NotificationResponse
            PollingInfoRequest PollingInfoResponse;
        pull: PullMessageRequest PullMessageResponse;
        query: QueryMessageRequest QueryMessageResponse ViewMessageByIdRequest QueryConsumeQueueRequest
            QueryConsumeTimeSpanRequest;
        send: SendMessageRequest SendMessageResponse ConsumerSendMsgBackRequest EndTransactionRequest
            RecallMessageRequest RecallMessageResponse;
        stats: GetConsumeStatsRequest GetBrokerConsumeStatsRequest ViewBrokerStatsDataRequest;
        topic: UpdateAndCreateTopicRequest DeleteTopicInBrokerRequest GetAllTopicConfigRequest
            GetAllTopicConfigResponse GetTopicConfigRequest GetTopicStatsInfoRequest
            UpdateAndCreateStaticTopicRequest;
    }
}

/// Records that parse lie one behind the other, and say the same after they were written again.
pub fn record(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok((record, after)) = Record::parse(rest) {
        assert_eq!(record.total_size() + after.len(), rest.len());
        assert_eq!(record.bytes(), &rest[..record.total_size()]);
        rest = after;
        properties(record.properties_bytes());
        let fields = RecordFields {
            head: record.head(),
            body: record.body(),
            topic: record.topic(),
            properties: record.properties_bytes(),
        };
        let mut out = Vec::new();
        assert_eq!(fields.push_to(&mut out), Ok(()));
        match Record::parse(&out) {
            Ok((again, [])) => {
                assert!(again.check_body_crc());
                assert_eq!(
                    (again.head(), again.body(), again.topic()),
                    (fields.head, fields.body, fields.topic)
                );
                assert_eq!(again.properties_bytes(), fields.properties);
                if again.magic() == record.magic() && record.check_body_crc() {
                    assert_eq!(again.bytes(), record.bytes());
                }
            }
            other => panic!("a record that was written does not parse: {other:?}"),
        }
    }
}

/// Properties are the same pairs whether they are plain, escaped, or written by an edit, whose length is exact.
pub fn properties(bytes: &[u8]) {
    let plain = Properties::from_bytes(bytes);
    let pairs: Vec<_> = plain.iter().collect();
    for (name, value) in &pairs {
        assert!(!name.is_empty() && !value.is_empty());
        let last = pairs
            .iter()
            .rev()
            .find(|(other, _)| other == name)
            .map(|(_, value)| *value);
        assert_eq!(plain.get(&name.to_str()), last);
    }
    let dropped = pairs
        .first()
        .map(|(name, _)| name.to_str())
        .unwrap_or_default();
    let append = [("CLUSTER", "c"), ("EMPTY", "")];
    let edit = Edit {
        ready: "",
        received: plain,
        without: &[&dropped],
        append: &append,
    };
    let edit = edit.measure();
    let mut written = vec![0; edit.len()];
    assert_eq!(edit.write_to(&mut written), written.len());
    let edited = Properties::from_bytes(&written);
    assert_eq!(edited.get(&dropped).is_some(), dropped == "CLUSTER");
    assert_eq!(edited.get("CLUSTER"), Some(Text::plain("c")));
    let kept = pairs
        .iter()
        .filter(|(name, _)| *name != *dropped && *name != "CLUSTER")
        .count();
    assert_eq!(edited.iter().count(), kept + 1);

    let mut built = Vec::new();
    for (name, value) in &pairs {
        properties::push(&mut built, &name.to_str(), &value.to_str());
    }
    assert!(
        Properties::from_bytes(&built)
            .iter()
            .eq(pairs.iter().copied())
    );

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    rewritten(
        Serialization::Json,
        |out| out.field("p", text),
        |frame| {
            let received = frame.ext.get("p").unwrap_or_default();
            assert_eq!(received, *text);
            let escaped = Properties::from_text(received);
            assert!(escaped.iter().eq(plain.iter()));
            let edit = Edit {
                ready: "",
                received: escaped,
                without: &[&dropped],
                append: &append,
            };
            let edit = edit.measure();
            let mut from_escaped = vec![0; edit.len()];
            assert_eq!(edit.write_to(&mut from_escaped), from_escaped.len());
            assert_eq!(from_escaped, written);
        },
    );
}

/// A batch that parses to its end says the same after it was written again.
pub fn batch(bytes: &[u8]) {
    let Ok(messages) = batch::messages(bytes).collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let mut out = Vec::new();
    for message in &messages {
        assert_eq!(batch::push(&mut out, message), Ok(()));
    }
    assert_eq!(out.len(), bytes.len());
    assert!(batch::messages(&out).eq(messages.into_iter().map(Ok)));
}

/// Ids that parse say the same after they were written again.
pub fn message_ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(id) = OffsetId::parse(text) {
        assert_eq!(id.encode().as_str(), text.to_ascii_uppercase());
    }
    if let Some(id) = UniqueId::parse(text) {
        assert_eq!(id.encode().as_str(), text.to_ascii_uppercase());
    }
    if let Some(handle) = RecallHandle::parse(text) {
        assert_eq!(RecallHandle::parse(&handle.encode()), Some(handle));
    }
}

/// Text that becomes standard JSON stays what it is when it is rewritten again, and grows by no more than its escapes.
pub fn fastjson(bytes: &[u8]) {
    let Ok(standard) = fastjson::to_standard(bytes) else {
        return;
    };
    assert!(standard.len() <= bytes.len() * 2 + 2);
    match fastjson::to_standard(&standard) {
        Ok(again) => assert_eq!(again, standard),
        Err(error) => panic!("rewritten JSON is broken: {error}"),
    }
}

/// Checks bodies; `$arguments` are those of `to_json`, in parentheses.
macro_rules! stable_bodies {
    ($json:expr, $arguments:tt, $($body:ident)+) => {$(
        if let Ok(body) = $body::from_json($json) {
            match $body::from_json(&body.to_json $arguments) {
                Ok(again) => assert_eq!(again, body),
                Err(error) => panic!("a body that was written does not parse: {error}"),
            }
        }
    )+};
}

/// Every body that a text makes says the same after it was written and read again.
pub fn bodies(json: &[u8]) {
    stable_bodies! {
        json, (),
        BatchAckMessageRequestBody BrokerStatsData CheckClientRequestBody Connection ConsumeStats
        ConsumeStatsList ConsumerConnection ConsumerData ConsumerList CreateTopicListRequestBody DataVersion
        GetConsumerStatusBody GroupForbidden GroupList HeartbeatData KvTable LockBatchRequestBody
        LockBatchResponseBody MessageRequestModeSerializeWrapper ProducerConnection ProducerTableInfo
        QueryAssignmentRequestBody QueryAssignmentResponseBody QueryConsumeQueueResponseBody
        QueryConsumeTimeSpanBody QuerySubscriptionResponseBody RegisterBrokerBody ResetOffsetBody
        SetMessageRequestModeRequestBody SubscriptionData SubscriptionGroupConfig SubscriptionGroupList
        SubscriptionGroupWrapper TopicConfig TopicConfigSerializeWrapper TopicList TopicStatsTable
        UnlockBatchRequestBody
    }
    for keys in [Keys::Quoted, Keys::Bare] {
        stable_bodies! {
            json, (keys),
            BrokerData BrokerMemberGroup ClusterInfo ConsumerOffsetSerializeWrapper
            DelayOffsetSerializeWrapper GetBrokerMemberGroupResponseBody QueryCorrectionOffsetBody
            TopicRouteData
        }
    }
}

/// What clients say of themselves and of what they want: heartbeats, subscriptions, checks.
pub fn heartbeat(json: &[u8]) {
    stable_bodies!(json, (), HeartbeatData ConsumerData ProducerData SubscriptionData CheckClientRequestBody);
}

/// Lists of queues that are locked and unlocked.
pub fn locks(json: &[u8]) {
    stable_bodies!(json, (), LockBatchRequestBody LockBatchResponseBody UnlockBatchRequestBody);
}

/// Lists of acknowledgements. The bits of one are as many as its text has room for.
pub fn acks(json: &[u8]) {
    stable_bodies!(json, (), BatchAckMessageRequestBody);
    if let Ok(body) = BatchAckMessageRequestBody::from_json(json) {
        for ack in &body.acks {
            let bits: Vec<usize> = ack.bit_set.iter().collect();
            assert!(bits.iter().all(|bit| *bit < json.len() * 8));
            assert_eq!(
                bits.iter()
                    .copied()
                    .collect::<BitSet>()
                    .iter()
                    .collect::<Vec<_>>(),
                bits
            );
        }
    }
}

/// Tables of offsets, whose keys are numbers or queues.
pub fn offsets(json: &[u8]) {
    stable_bodies!(json, (), ResetOffsetBody GetConsumerStatusBody);
    for keys in [Keys::Quoted, Keys::Bare] {
        stable_bodies!(json, (keys), ConsumerOffsetSerializeWrapper DelayOffsetSerializeWrapper QueryCorrectionOffsetBody);
    }
}

/// Tables and lists of topics and of groups, as tools send them.
pub fn configs(json: &[u8]) {
    stable_bodies!(json, (), TopicConfig CreateTopicListRequestBody SubscriptionGroupConfig SubscriptionGroupList);
    stable_bodies!(json, (), QueryAssignmentRequestBody SetMessageRequestModeRequestBody KvTable);
}

/// The compressed form of a registration never inflates beyond its bound, whatever it holds.
pub fn register_body(bytes: &[u8]) {
    for version in [400, 513] {
        let _ = RegisterBrokerBody::from_compressed(bytes, version, 1 << 16);
        if let Ok(body) = RegisterBrokerBody::from_inflated(bytes, version) {
            stable_bodies!(&body.to_json(), (), RegisterBrokerBody);
        }
    }
}
