//! Topics that single groups may not read: UPDATE_AND_GET_GROUP_FORBIDDEN 353. Journalled, one state record a change.

use std::collections::BTreeMap;

use corelane_wire::ExtHeader;
use corelane_wire::body::GroupForbidden;
use corelane_wire::code::{perm, response};
use corelane_wire::header::group::UpdateAndGetGroupForbiddenRequest;

use super::Engine;
use super::position::no_topic;
use super::turn::{Refusal, Request, Turn};
use crate::log::StateWriter;

/// State record: whether a group may not read a topic, as the JSON of [`GroupForbidden`].
pub(super) const FORBIDDEN: u16 = 24;

/// The topics that groups may not read, by group. All bits of a topic are as Apache writes them: 4 forbids reading.
#[derive(Default)]
pub struct Forbidden {
    by_group: BTreeMap<String, BTreeMap<String, i32>>,
}

impl Forbidden {
    /// Whether the group may not read the topic.
    pub fn is_forbidden(&self, group: &str, topic: &str) -> bool {
        !self.by_group.is_empty()
            && self
                .by_group
                .get(group)
                .is_some_and(|topics| topics.contains_key(topic))
    }

    /// All of it, as tools read it.
    pub fn table(&self) -> &BTreeMap<String, BTreeMap<String, i32>> {
        &self.by_group
    }

    fn set(&mut self, group: &str, topic: &str, readable: bool) {
        if readable {
            if let Some(topics) = self.by_group.get_mut(group) {
                topics.remove(topic);
            }
        } else {
            self.by_group
                .entry(group.to_owned())
                .or_default()
                .insert(topic.to_owned(), perm::READ);
        }
        self.by_group.retain(|_, topics| !topics.is_empty());
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        for topics in self.by_group.values_mut() {
            topics.remove(topic);
        }
        self.by_group.retain(|_, topics| !topics.is_empty());
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        self.by_group.remove(group);
    }

    pub(super) fn snapshot(&self, writer: &mut StateWriter) {
        for (group, topics) in &self.by_group {
            for topic in topics.keys() {
                let entry = GroupForbidden {
                    topic: topic.clone(),
                    group: group.clone(),
                    readable: Some(false),
                };
                writer.push(FORBIDDEN, &entry.to_json());
            }
        }
    }

    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), String> {
        let entry = GroupForbidden::from_json(payload).map_err(|error| error.to_string())?;
        self.set(&entry.group, &entry.topic, entry.readable.unwrap_or(true));
        Ok(())
    }
}

impl Engine {
    /// UPDATE_AND_GET_GROUP_FORBIDDEN 353: sets it where the request says `readable`, and answers what holds now.
    pub(super) fn group_forbidden(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let header = UpdateAndGetGroupForbiddenRequest::decode(&req.frame.ext)?;
        let (group, topic) = (header.group.to_str(), header.topic.to_str());
        if self.topics.get(&topic).is_none() {
            return Err(no_topic(&topic));
        }
        if self.groups.get(&group).is_none() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("the group {group} does not exist"),
            ));
        }
        let mut end = turn.log.durable();
        if let Some(readable) = header.readable
            && self.forbidden.is_forbidden(&group, &topic) == readable
        {
            let entry = GroupForbidden {
                topic: topic.to_string(),
                group: group.to_string(),
                readable: Some(readable),
            };
            end = turn.log.append_state(FORBIDDEN, &entry.to_json())?;
            self.forbidden.set(&group, &topic, readable);
        }
        let readable = !self.forbidden.is_forbidden(&group, &topic);
        let body = GroupForbidden {
            topic: topic.into_owned(),
            group: group.into_owned(),
            readable: Some(readable),
        };
        self.reply_when_durable(turn, req.to, end, 0, true, |out| {
            req.to
                .write(out, response::SUCCESS, None)
                .finish_with(&body.to_json());
        });
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_is_so_until_it_is_allowed_or_its_topic_goes() {
        let mut forbidden = Forbidden::default();
        forbidden
            .apply(br#"{"group":"g","topic":"t","readable":false}"#)
            .unwrap();
        forbidden
            .apply(br#"{"group":"g","topic":"u","readable":false}"#)
            .unwrap();
        assert!(forbidden.is_forbidden("g", "t") && !forbidden.is_forbidden("h", "t"));
        forbidden
            .apply(br#"{"group":"g","topic":"t","readable":true}"#)
            .unwrap();
        assert!(!forbidden.is_forbidden("g", "t") && forbidden.is_forbidden("g", "u"));
        forbidden.remove_topic("u");
        assert!(forbidden.table().is_empty());
    }
}
