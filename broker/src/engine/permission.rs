//! What the broker permits as a whole (`broker_permission`), whatever its topics and groups permit.
//!
//! Topics are registered with NameServers without what is not permitted, so that clients find no queues for it. Who knows of
//! them still is refused when it reads. When it sends it is refused only where the topic is in order: elsewhere it would
//! send to this broker until it asks for its route again, and nothing is gained by failing it.

use corelane_wire::code::{forbidden, perm, response};

use super::Engine;
use super::turn::Refusal;

/// What topics are registered with: their own permissions, as far as the broker's leave them.
pub fn registered(topic: i32, broker: i32) -> i32 {
    let both = perm::READ | perm::WRITE;
    if broker & both == both {
        return topic;
    }
    topic & broker
}

impl Engine {
    /// Refuses a send to a topic in order where nothing may be written.
    pub(super) fn check_broker_takes(&self, topic: &str) -> Result<(), Refusal> {
        if self.settings.broker_permission & perm::WRITE != 0 {
            return Ok(());
        }
        let topic = self.topics.get(topic);
        if topic.is_some_and(|topic| topic.config.order) {
            return self.check_broker_writable();
        }
        Ok(())
    }

    /// Refuses where nothing may be written.
    pub(super) fn check_broker_writable(&self) -> Result<(), Refusal> {
        if self.settings.broker_permission & perm::WRITE != 0 {
            return Ok(());
        }
        let remark = self.broker_says("sending message is forbidden");
        Err(Refusal::new(response::NO_PERMISSION, remark))
    }

    /// Refuses a pull where nothing may be read, or no lite pull.
    pub(super) fn check_broker_pulls(&self, lite: bool) -> Result<(), Refusal> {
        let why = if self.settings.broker_permission & perm::READ == 0 {
            "pulling message is forbidden"
        } else if lite && !self.settings.lite_pull {
            "for lite pull consumer is forbidden"
        } else {
            return Ok(());
        };
        Err(Refusal::forbidden_pull(
            forbidden::BROKER,
            self.broker_says(why),
        ))
    }

    /// Refuses what belongs to pops (`what` for people) where nothing may be read.
    pub(super) fn check_broker_pops(&self, what: &str) -> Result<(), Refusal> {
        if self.settings.broker_permission & perm::READ != 0 {
            return Ok(());
        }
        let remark = self.broker_says(&format!("{what} message is forbidden"));
        Err(Refusal::new(response::NO_PERMISSION, remark))
    }

    /// Refuses half messages where there are to be none.
    pub(super) fn check_broker_takes_halves(&self) -> Result<(), Refusal> {
        if !self.settings.reject_transactions {
            return Ok(());
        }
        let remark = self.broker_says("sending transaction message is forbidden");
        Err(Refusal::new(response::NO_PERMISSION, remark))
    }

    fn broker_says(&self, what: &str) -> String {
        format!("the broker[{}] {what}", self.settings.store_host.ip())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::engine::Settings;
    use crate::engine::turn::ReplyTo;
    use crate::sim::test_host::{TestHost, settings, small_log};
    use corelane_wire::frame::Serialization;

    #[test]
    fn topics_are_registered_with_what_the_broker_leaves_them() {
        for (topic, broker, told) in [
            (7, 6, 7),
            (7, 7, 7),
            (7, 4, 4),
            (6, 2, 2),
            (4, 2, 0),
            (6, 0, 0),
        ] {
            assert_eq!(registered(topic, broker), told, "{topic} {broker}");
        }
    }

    #[test]
    fn another_permission_is_told_of_every_topic_and_no_other_key_is() {
        let mut host = TestHost::start(1, settings(), small_log());
        let to = ReplyTo {
            connection: host.connect(),
            opaque: 1,
            serialization: Serialization::Json,
            oneway: false,
        };
        let mut version = host.engine.topics().version();
        for (broker_permission, lite_pull, told) in [
            (4, true, Some(4)),
            (4, false, None),
            (0, true, Some(0)),
            (6, true, Some(6)),
        ] {
            let settings = Settings {
                broker_permission,
                lite_pull,
                ..settings()
            };
            host.turn(|engine, turn| engine.configured(turn, to, Ok(settings)));
            let body = host.engine.register_body(Some(version));
            let topics = body.topic_config_serialize_wrapper.topic_config_table;
            let perm = topics.get("SELF_TEST_TOPIC").map(|topic| topic.perm);
            assert_eq!(perm, told);
            version = host.engine.topics().version();
        }
    }
}
