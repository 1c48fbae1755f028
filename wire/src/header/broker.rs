//! Headers of the state of a broker, and of what brokers, replicas and controllers say to each other.

use crate::text::Text;

ext_header! {
    /// The answer to GET_BROKER_CONFIG: `version` is a DataVersion in JSON.
    pub struct GetBrokerConfigResponse<'a> {
        version: Text<'a> = "version",
    }
}

ext_header! {
    /// BROKER_HEARTBEAT.
    pub struct BrokerHeartbeatRequest<'a> {
        cluster_name: Text<'a> = "clusterName",
        broker_addr: Text<'a> = "brokerAddr",
        broker_name: Text<'a> = "brokerName",
        broker_id: Option<i64> = "brokerId",
        epoch: Option<i32> = "epoch",
        max_offset: Option<i64> = "maxOffset",
        confirm_offset: Option<i64> = "confirmOffset",
        heartbeat_timeout_mills: Option<i64> = "heartbeatTimeoutMills",
        election_priority: Option<i32> = "electionPriority",
    }
}

ext_header! {
    /// NOTIFY_MIN_BROKER_ID_CHANGE.
    pub struct NotifyMinBrokerIdChangeRequest<'a> {
        min_broker_id: Option<i64> = "minBrokerId",
        broker_name: Option<Text<'a>> = "brokerName",
        min_broker_addr: Option<Text<'a>> = "minBrokerAddr",
        offline_broker_addr: Option<Text<'a>> = "offlineBrokerAddr",
        ha_broker_addr: Option<Text<'a>> = "haBrokerAddr",
    }
}

ext_header! {
    /// EXCHANGE_BROKER_HA_INFO.
    pub struct ExchangeBrokerHaInfoRequest<'a> {
        master_ha_address: Option<Text<'a>> = "masterHaAddress",
        master_flush_offset: Option<i64> = "masterFlushOffset",
        master_address: Option<Text<'a>> = "masterAddress",
    }
}

ext_header! {
    /// The answer to EXCHANGE_BROKER_HA_INFO.
    pub struct ExchangeBrokerHaInfoResponse<'a> {
        master_ha_address: Option<Text<'a>> = "masterHaAddress",
        master_flush_offset: Option<i64> = "masterFlushOffset",
        master_address: Option<Text<'a>> = "masterAddress",
    }
}

ext_header! {
    /// GET_BROKER_MEMBER_GROUP.
    pub struct GetBrokerMemberGroupRequest<'a> {
        cluster_name: Text<'a> = "clusterName",
        broker_name: Text<'a> = "brokerName",
    }
}

ext_header! {
    /// RESET_MASTER_FLUSH_OFFSET.
    pub struct ResetMasterFlushOffsetRequest {
        master_flush_offset: i64 = "masterFlushOffset",
    }
}

ext_header! {
    /// NOTIFY_BROKER_ROLE_CHANGED.
    pub struct NotifyBrokerRoleChangedRequest<'a> {
        master_address: Option<Text<'a>> = "masterAddress",
        master_epoch: Option<i32> = "masterEpoch",
        sync_state_set_epoch: Option<i32> = "syncStateSetEpoch",
        master_broker_id: Option<i64> = "masterBrokerId",
    }
}

ext_header! {
    /// AUTH_CREATE_USER, AUTH_UPDATE_USER, AUTH_DELETE_USER and AUTH_GET_USER.
    pub struct AuthUserRequest<'a> {
        username: Option<Text<'a>> = "username",
    }
}

ext_header! {
    /// AUTH_LIST_USER.
    pub struct AuthListUserRequest<'a> {
        filter: Option<Text<'a>> = "filter",
    }
}

ext_header! {
    /// AUTH_CREATE_ACL, AUTH_UPDATE_ACL, AUTH_DELETE_ACL and AUTH_GET_ACL.
    pub struct AuthAclRequest<'a> {
        subject: Option<Text<'a>> = "subject",
        policy_type: Option<Text<'a>> = "policyType",
        resource: Option<Text<'a>> = "resource",
    }
}

ext_header! {
    /// AUTH_LIST_ACL.
    pub struct AuthListAclRequest<'a> {
        subject_filter: Option<Text<'a>> = "subjectFilter",
        resource_filter: Option<Text<'a>> = "resourceFilter",
    }
}
