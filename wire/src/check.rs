//! What must hold for any input. Property tests and fuzz targets (`wire/fuzz`) call the same functions.
//!
//! Each takes arbitrary bytes, parses them, and panics where an invariant of what was parsed is broken.

use crate::ext::ExtHeader;
use crate::frame::{Frame, FrameWriter, Head, Serialization, announced_len, split};
use crate::header::*;
use crate::message_id::{OffsetId, RecallHandle, UniqueId};
use crate::properties::{Edit, Properties};
use crate::record::{Record, RecordFields};
use crate::text::Text;
use crate::{batch, properties};

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

macro_rules! stable {
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
    stable!(
        ext,
        send::SendMessageRequest::decode_short,
        send::SendMessageRequest::encode_short
    );
    stable!(
        ext,
        broker::GetBrokerConfigResponse::decode,
        broker::GetBrokerConfigResponse::encode
    );
    stable!(
        ext,
        broker::BrokerHeartbeatRequest::decode,
        broker::BrokerHeartbeatRequest::encode
    );
    stable!(
        ext,
        broker::NotifyMinBrokerIdChangeRequest::decode,
        broker::NotifyMinBrokerIdChangeRequest::encode
    );
    stable!(
        ext,
        broker::ExchangeBrokerHaInfoRequest::decode,
        broker::ExchangeBrokerHaInfoRequest::encode
    );
    stable!(
        ext,
        broker::ExchangeBrokerHaInfoResponse::decode,
        broker::ExchangeBrokerHaInfoResponse::encode
    );
    stable!(
        ext,
        broker::GetBrokerMemberGroupRequest::decode,
        broker::GetBrokerMemberGroupRequest::encode
    );
    stable!(
        ext,
        broker::ResetMasterFlushOffsetRequest::decode,
        broker::ResetMasterFlushOffsetRequest::encode
    );
    stable!(
        ext,
        broker::NotifyBrokerRoleChangedRequest::decode,
        broker::NotifyBrokerRoleChangedRequest::encode
    );
    stable!(
        ext,
        broker::AuthUserRequest::decode,
        broker::AuthUserRequest::encode
    );
    stable!(
        ext,
        broker::AuthListUserRequest::decode,
        broker::AuthListUserRequest::encode
    );
    stable!(
        ext,
        broker::AuthAclRequest::decode,
        broker::AuthAclRequest::encode
    );
    stable!(
        ext,
        broker::AuthListAclRequest::decode,
        broker::AuthListAclRequest::encode
    );
    stable!(
        ext,
        client::HeartBeatResponse::decode,
        client::HeartBeatResponse::encode
    );
    stable!(
        ext,
        client::UnregisterClientRequest::decode,
        client::UnregisterClientRequest::encode
    );
    stable!(
        ext,
        client::GetConsumerListByGroupRequest::decode,
        client::GetConsumerListByGroupRequest::encode
    );
    stable!(
        ext,
        client::GetConsumerConnectionListRequest::decode,
        client::GetConsumerConnectionListRequest::encode
    );
    stable!(
        ext,
        client::GetProducerConnectionListRequest::decode,
        client::GetProducerConnectionListRequest::encode
    );
    stable!(
        ext,
        group::GetAllSubscriptiongroupConfigRequest::decode,
        group::GetAllSubscriptiongroupConfigRequest::encode
    );
    stable!(
        ext,
        group::GetAllSubscriptiongroupConfigResponse::decode,
        group::GetAllSubscriptiongroupConfigResponse::encode
    );
    stable!(
        ext,
        group::GetSubscriptiongroupConfigRequest::decode,
        group::GetSubscriptiongroupConfigRequest::encode
    );
    stable!(
        ext,
        group::DeleteSubscriptiongroupRequest::decode,
        group::DeleteSubscriptiongroupRequest::encode
    );
    stable!(
        ext,
        group::UpdateAndGetGroupForbiddenRequest::decode,
        group::UpdateAndGetGroupForbiddenRequest::encode
    );
    stable!(
        ext,
        group::QueryTopicConsumeByWhoRequest::decode,
        group::QueryTopicConsumeByWhoRequest::encode
    );
    stable!(
        ext,
        group::QueryTopicsByConsumerRequest::decode,
        group::QueryTopicsByConsumerRequest::encode
    );
    stable!(
        ext,
        group::QuerySubscriptionByConsumerRequest::decode,
        group::QuerySubscriptionByConsumerRequest::encode
    );
    stable!(
        ext,
        group::InvokeBrokerToResetOffsetRequest::decode,
        group::InvokeBrokerToResetOffsetRequest::encode
    );
    stable!(
        ext,
        group::InvokeBrokerToGetConsumerStatusRequest::decode,
        group::InvokeBrokerToGetConsumerStatusRequest::encode
    );
    stable!(
        ext,
        group::ResumeCheckHalfMessageRequest::decode,
        group::ResumeCheckHalfMessageRequest::encode
    );
    stable!(
        ext,
        nameserver::PutKvConfigRequest::decode,
        nameserver::PutKvConfigRequest::encode
    );
    stable!(
        ext,
        nameserver::GetKvConfigRequest::decode,
        nameserver::GetKvConfigRequest::encode
    );
    stable!(
        ext,
        nameserver::GetKvConfigResponse::decode,
        nameserver::GetKvConfigResponse::encode
    );
    stable!(
        ext,
        nameserver::DeleteKvConfigRequest::decode,
        nameserver::DeleteKvConfigRequest::encode
    );
    stable!(
        ext,
        nameserver::GetKvlistByNamespaceRequest::decode,
        nameserver::GetKvlistByNamespaceRequest::encode
    );
    stable!(
        ext,
        nameserver::QueryDataVersionRequest::decode,
        nameserver::QueryDataVersionRequest::encode
    );
    stable!(
        ext,
        nameserver::QueryDataVersionResponse::decode,
        nameserver::QueryDataVersionResponse::encode
    );
    stable!(
        ext,
        nameserver::RegisterBrokerRequest::decode,
        nameserver::RegisterBrokerRequest::encode
    );
    stable!(
        ext,
        nameserver::RegisterBrokerResponse::decode,
        nameserver::RegisterBrokerResponse::encode
    );
    stable!(
        ext,
        nameserver::UnregisterBrokerRequest::decode,
        nameserver::UnregisterBrokerRequest::encode
    );
    stable!(
        ext,
        nameserver::GetRouteinfoByTopicRequest::decode,
        nameserver::GetRouteinfoByTopicRequest::encode
    );
    stable!(
        ext,
        nameserver::WipeWritePermOfBrokerRequest::decode,
        nameserver::WipeWritePermOfBrokerRequest::encode
    );
    stable!(
        ext,
        nameserver::WipeWritePermOfBrokerResponse::decode,
        nameserver::WipeWritePermOfBrokerResponse::encode
    );
    stable!(
        ext,
        nameserver::AddWritePermOfBrokerRequest::decode,
        nameserver::AddWritePermOfBrokerRequest::encode
    );
    stable!(
        ext,
        nameserver::AddWritePermOfBrokerResponse::decode,
        nameserver::AddWritePermOfBrokerResponse::encode
    );
    stable!(
        ext,
        nameserver::GetTopicsByClusterRequest::decode,
        nameserver::GetTopicsByClusterRequest::encode
    );
    stable!(
        ext,
        nameserver::RegisterTopicInNamesrvRequest::decode,
        nameserver::RegisterTopicInNamesrvRequest::encode
    );
    stable!(
        ext,
        nameserver::DeleteTopicInNamesrvRequest::decode,
        nameserver::DeleteTopicInNamesrvRequest::encode
    );
    stable!(
        ext,
        notify::CheckTransactionStateRequest::decode,
        notify::CheckTransactionStateRequest::encode
    );
    stable!(
        ext,
        notify::NotifyConsumerIdsChangedRequest::decode,
        notify::NotifyConsumerIdsChangedRequest::encode
    );
    stable!(
        ext,
        notify::ResetConsumerClientOffsetRequest::decode,
        notify::ResetConsumerClientOffsetRequest::encode
    );
    stable!(
        ext,
        notify::GetConsumerStatusFromClientRequest::decode,
        notify::GetConsumerStatusFromClientRequest::encode
    );
    stable!(
        ext,
        notify::GetConsumerRunningInfoRequest::decode,
        notify::GetConsumerRunningInfoRequest::encode
    );
    stable!(
        ext,
        notify::ConsumeMessageDirectlyRequest::decode,
        notify::ConsumeMessageDirectlyRequest::encode
    );
    stable!(
        ext,
        notify::PushReplyMessageToClientRequest::decode,
        notify::PushReplyMessageToClientRequest::encode
    );
    stable!(
        ext,
        offset::QueryConsumerOffsetRequest::decode,
        offset::QueryConsumerOffsetRequest::encode
    );
    stable!(
        ext,
        offset::QueryConsumerOffsetResponse::decode,
        offset::QueryConsumerOffsetResponse::encode
    );
    stable!(
        ext,
        offset::UpdateConsumerOffsetRequest::decode,
        offset::UpdateConsumerOffsetRequest::encode
    );
    stable!(
        ext,
        offset::GetMaxOffsetRequest::decode,
        offset::GetMaxOffsetRequest::encode
    );
    stable!(
        ext,
        offset::GetMaxOffsetResponse::decode,
        offset::GetMaxOffsetResponse::encode
    );
    stable!(
        ext,
        offset::GetMinOffsetRequest::decode,
        offset::GetMinOffsetRequest::encode
    );
    stable!(
        ext,
        offset::GetMinOffsetResponse::decode,
        offset::GetMinOffsetResponse::encode
    );
    stable!(
        ext,
        offset::GetEarliestMsgStoretimeRequest::decode,
        offset::GetEarliestMsgStoretimeRequest::encode
    );
    stable!(
        ext,
        offset::GetEarliestMsgStoretimeResponse::decode,
        offset::GetEarliestMsgStoretimeResponse::encode
    );
    stable!(
        ext,
        offset::SearchOffsetByTimestampRequest::decode,
        offset::SearchOffsetByTimestampRequest::encode
    );
    stable!(
        ext,
        offset::SearchOffsetByTimestampResponse::decode,
        offset::SearchOffsetByTimestampResponse::encode
    );
    stable!(
        ext,
        offset::QueryCorrectionOffsetRequest::decode,
        offset::QueryCorrectionOffsetRequest::encode
    );
    stable!(
        ext,
        offset::CloneGroupOffsetRequest::decode,
        offset::CloneGroupOffsetRequest::encode
    );
    stable!(
        ext,
        pop::PopMessageRequest::decode,
        pop::PopMessageRequest::encode
    );
    stable!(
        ext,
        pop::PopMessageResponse::decode,
        pop::PopMessageResponse::encode
    );
    stable!(
        ext,
        pop::AckMessageRequest::decode,
        pop::AckMessageRequest::encode
    );
    stable!(
        ext,
        pop::ChangeMessageInvisibletimeRequest::decode,
        pop::ChangeMessageInvisibletimeRequest::encode
    );
    stable!(
        ext,
        pop::ChangeMessageInvisibletimeResponse::decode,
        pop::ChangeMessageInvisibletimeResponse::encode
    );
    stable!(
        ext,
        pop::PeekMessageRequest::decode,
        pop::PeekMessageRequest::encode
    );
    stable!(
        ext,
        pop::NotificationRequest::decode,
        pop::NotificationRequest::encode
    );
    stable!(
        ext,
        pop::NotificationResponse::decode,
        pop::NotificationResponse::encode
    );
    stable!(
        ext,
        pop::PollingInfoRequest::decode,
        pop::PollingInfoRequest::encode
    );
    stable!(
        ext,
        pop::PollingInfoResponse::decode,
        pop::PollingInfoResponse::encode
    );
    stable!(
        ext,
        pull::PullMessageRequest::decode,
        pull::PullMessageRequest::encode
    );
    stable!(
        ext,
        pull::PullMessageResponse::decode,
        pull::PullMessageResponse::encode
    );
    stable!(
        ext,
        query::QueryMessageRequest::decode,
        query::QueryMessageRequest::encode
    );
    stable!(
        ext,
        query::QueryMessageResponse::decode,
        query::QueryMessageResponse::encode
    );
    stable!(
        ext,
        query::ViewMessageByIdRequest::decode,
        query::ViewMessageByIdRequest::encode
    );
    stable!(
        ext,
        query::QueryConsumeQueueRequest::decode,
        query::QueryConsumeQueueRequest::encode
    );
    stable!(
        ext,
        query::QueryConsumeTimeSpanRequest::decode,
        query::QueryConsumeTimeSpanRequest::encode
    );
    stable!(
        ext,
        send::SendMessageRequest::decode,
        send::SendMessageRequest::encode
    );
    stable!(
        ext,
        send::SendMessageResponse::decode,
        send::SendMessageResponse::encode
    );
    stable!(
        ext,
        send::ConsumerSendMsgBackRequest::decode,
        send::ConsumerSendMsgBackRequest::encode
    );
    stable!(
        ext,
        send::EndTransactionRequest::decode,
        send::EndTransactionRequest::encode
    );
    stable!(
        ext,
        send::RecallMessageRequest::decode,
        send::RecallMessageRequest::encode
    );
    stable!(
        ext,
        send::RecallMessageResponse::decode,
        send::RecallMessageResponse::encode
    );
    stable!(
        ext,
        stats::GetConsumeStatsRequest::decode,
        stats::GetConsumeStatsRequest::encode
    );
    stable!(
        ext,
        stats::GetBrokerConsumeStatsRequest::decode,
        stats::GetBrokerConsumeStatsRequest::encode
    );
    stable!(
        ext,
        stats::ViewBrokerStatsDataRequest::decode,
        stats::ViewBrokerStatsDataRequest::encode
    );
    stable!(
        ext,
        topic::UpdateAndCreateTopicRequest::decode,
        topic::UpdateAndCreateTopicRequest::encode
    );
    stable!(
        ext,
        topic::DeleteTopicInBrokerRequest::decode,
        topic::DeleteTopicInBrokerRequest::encode
    );
    stable!(
        ext,
        topic::GetAllTopicConfigRequest::decode,
        topic::GetAllTopicConfigRequest::encode
    );
    stable!(
        ext,
        topic::GetAllTopicConfigResponse::decode,
        topic::GetAllTopicConfigResponse::encode
    );
    stable!(
        ext,
        topic::GetTopicConfigRequest::decode,
        topic::GetTopicConfigRequest::encode
    );
    stable!(
        ext,
        topic::GetTopicStatsInfoRequest::decode,
        topic::GetTopicStatsInfoRequest::encode
    );
    stable!(
        ext,
        topic::UpdateAndCreateStaticTopicRequest::decode,
        topic::UpdateAndCreateStaticTopicRequest::encode
    );
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
        received: plain,
        without: &[&dropped],
        append: &append,
    };
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
                received: escaped,
                without: &[&dropped],
                append: &append,
            };
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
