//! What the engine keeps beside messages: topics, groups and consumer offsets, journalled in the shard's own log.
//!
//! A change is one state record, durable in the same order as the messages around it; a snapshot is the same records for
//! everything there is. Reading either back is [`Engine::apply`]; a record of a kind that is not known stops the start,
//! for a log that a newer version wrote must not be half understood.

use corelane_wire::body::{SubscriptionGroupConfig, TopicConfig};
use corelane_wire::code::response;

use super::turn::{Refusal, Turn};
use super::{Engine, delay, forbidden, transaction};
use crate::log::{AppendError, Log, Position, Replay, ReplayError, StateWriter};

pub(super) const TOPIC_PUT: u16 = 1;
pub(super) const TOPIC_DELETE: u16 = 2;
pub(super) const GROUP_PUT: u16 = 3;
pub(super) const GROUP_DELETE: u16 = 4;
pub(super) const OFFSETS: u16 = 5;
pub(super) const OFFSETS_DELETE: u16 = 6;
/// All resets of one group and topic, as offsets are written; none is left where it lists none.
pub(super) const RESETS: u16 = 23;

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        let code = match error {
            AppendError::Busy => response::SYSTEM_BUSY,
            AppendError::TooLarge => response::MESSAGE_ILLEGAL,
            AppendError::DiskFull | AppendError::Stopped => response::SERVICE_NOT_AVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl Engine {
    /// Makes or changes a topic and journals it. Gives the log's end behind the change, or `None` where nothing changed.
    pub(super) fn put_topic(
        &mut self,
        turn: &mut Turn<'_>,
        config: TopicConfig,
    ) -> Result<Option<Position>, Refusal> {
        if self
            .topics
            .get(&config.topic_name)
            .is_some_and(|topic| topic.config == config)
        {
            return Ok(None);
        }
        if self.topics.get(&config.topic_name).is_none()
            && self.topics.count() >= self.settings.max_topics
        {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!(
                    "this broker has {} topics already, and max_topics allows no more",
                    self.topics.count()
                ),
            ));
        }
        let before = self
            .topics
            .get(&config.topic_name)
            .map_or(0, |topic| topic.queue_count());
        let after = config.read_queue_nums.max(config.write_queue_nums);
        let queues = self.topics.queues() + i64::from(after) - i64::from(before);
        if after > before && queues > self.settings.max_queues as i64 {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!(
                    "the topics of this broker would have {queues} queues, and max_queues allows {}",
                    self.settings.max_queues
                ),
            ));
        }
        let end = turn.log.append_state(TOPIC_PUT, &config.to_json())?;
        self.topics.put(config, turn.now.wall_ms);
        Ok(Some(end))
    }

    /// Removes a topic with its messages and offsets.
    pub(super) fn delete_topic(
        &mut self,
        turn: &mut Turn<'_>,
        topic: &str,
    ) -> Result<Option<Position>, Refusal> {
        if self.topics.get(topic).is_none() {
            return Ok(None);
        }
        let end = turn.log.append_state(TOPIC_DELETE, topic.as_bytes())?;
        self.topics.remove(topic, turn.now.wall_ms);
        self.forget_topic(topic);
        turn.log.drop_topic(topic);
        Ok(Some(end))
    }

    /// Makes or changes a group.
    pub(super) fn put_group(
        &mut self,
        turn: &mut Turn<'_>,
        config: SubscriptionGroupConfig,
    ) -> Result<Option<Position>, Refusal> {
        if self.groups.get(&config.group_name) == Some(&config) {
            return Ok(None);
        }
        if self.groups.get(&config.group_name).is_none()
            && self.groups.count() >= self.settings.max_groups
        {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!(
                    "this broker has {} groups already, and max_groups allows no more",
                    self.groups.count()
                ),
            ));
        }
        let end = turn.log.append_state(GROUP_PUT, &config.to_json())?;
        self.groups.put(config, turn.now.wall_ms);
        Ok(Some(end))
    }

    /// Removes a group, and its offsets where `clean_offsets` says so.
    pub(super) fn delete_group(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        clean_offsets: bool,
    ) -> Result<Option<Position>, Refusal> {
        let mut end = None;
        if self.groups.get(group).is_some() {
            end = Some(turn.log.append_state(GROUP_DELETE, group.as_bytes())?);
            self.groups.remove(group, turn.now.wall_ms);
            self.forget_group(group);
        }
        if clean_offsets {
            end = Some(turn.log.append_state(OFFSETS_DELETE, group.as_bytes())?);
            self.forget_offsets(group);
        }
        Ok(end)
    }

    /// Forgets what groups have to do with a topic that is no more.
    fn forget_topic(&mut self, topic: &str) {
        self.pops.remove_topic(topic);
        self.locks.remove_topic(topic);
        self.offsets.remove_topic(topic);
        self.pulled.remove_topic(topic);
        self.resets.remove_topic(topic);
        self.forbidden.remove_topic(topic);
        self.stats.remove_topic(topic);
        self.forget_found();
    }

    /// Forgets how far a group is.
    fn forget_offsets(&mut self, group: &str) {
        self.offsets.remove_group(group);
        self.pulled.remove_group(group);
        self.resets.remove_group(group);
    }

    /// Forgets what belongs to a group beside its offsets.
    fn forget_group(&mut self, group: &str) {
        self.pops.remove_group(group);
        self.locks.remove_group(group);
        self.forbidden.remove_group(group);
        self.stats.remove_group(group);
    }

    /// Journals the offsets of one group and topic now. Gives the log's end behind them.
    pub(super) fn journal_offsets(
        &mut self,
        turn: &mut Turn<'_>,
        group: &str,
        topic: &str,
    ) -> Result<Position, Refusal> {
        let mut payload = Vec::new();
        encode_offsets(&self.offsets, group, topic, &mut payload);
        let end = turn.log.append_state(OFFSETS, &payload)?;
        self.offsets.clean(group, topic);
        Ok(end)
    }

    /// Journals all offsets that changed. What the log has no room for stays for the next time.
    pub(super) fn journal_dirty_offsets(&mut self, turn: &mut Turn<'_>) {
        for (group, topic) in self.offsets.take_dirty() {
            let mut payload = Vec::new();
            encode_offsets(&self.offsets, &group, &topic, &mut payload);
            if turn.log.append_state(OFFSETS, &payload).is_err() {
                self.offsets.mark_dirty(group, topic);
            }
        }
    }

    /// Everything that is not derived from the messages, as a snapshot.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut writer = StateWriter::default();
        for topic in self.topics.iter().filter(|topic| topic.kept) {
            writer.push(TOPIC_PUT, &topic.config.to_json());
        }
        for group in self.groups.iter() {
            writer.push(GROUP_PUT, &group.to_json());
        }
        let mut payload = Vec::new();
        for (group, topic, _) in self.offsets.iter() {
            payload.clear();
            encode_offsets(&self.offsets, group, topic, &mut payload);
            writer.push(OFFSETS, &payload);
        }
        self.delays.snapshot(&mut writer);
        for (group, topic, _) in self.resets.iter() {
            payload.clear();
            encode_offsets(&self.resets, group, topic, &mut payload);
            writer.push(RESETS, &payload);
        }
        self.forbidden.snapshot(&mut writer);
        self.transactions.snapshot(&mut writer);
        self.snapshot_pops(&mut writer);
        writer.finish()
    }

    fn apply(&mut self, log: &mut Log, kind: u16, payload: &[u8]) -> Result<(), String> {
        let name = || std::str::from_utf8(payload).map_err(|error| error.to_string());
        match kind {
            TOPIC_PUT => {
                let config = TopicConfig::from_json(payload).map_err(|error| error.to_string())?;
                self.topics.put(config, 0);
            }
            TOPIC_DELETE => {
                let topic = name()?;
                self.topics.remove(topic, 0);
                self.forget_topic(topic);
                log.drop_topic(topic);
            }
            GROUP_PUT => {
                let config = SubscriptionGroupConfig::from_json(payload)
                    .map_err(|error| error.to_string())?;
                self.groups.put(config, 0);
            }
            GROUP_DELETE => {
                self.groups.remove(name()?, 0);
                self.forget_group(name()?);
            }
            OFFSETS => {
                decode_offsets(payload, |group, topic, queue_id, offset| {
                    self.offsets.load(group, topic, queue_id, offset);
                })
                .ok_or("offsets are cut short")?;
            }
            OFFSETS_DELETE => self.forget_offsets(name()?),
            RESETS => {
                let (group, topic) =
                    decode_offsets(payload, |_, _, _, _| ()).ok_or("resets are cut short")?;
                self.resets.forget(group, topic);
                decode_offsets(payload, |group, topic, queue_id, offset| {
                    self.resets.load(group, topic, queue_id, offset);
                });
            }
            forbidden::FORBIDDEN => self.forbidden.apply(payload)?,
            transaction::ENDED | transaction::CHECKED | transaction::PENDING => {
                self.transactions
                    .apply(kind, payload)
                    .ok_or("a record of transactions is cut short")?;
            }
            kind if delay::STATE_KINDS.contains(&kind) => self.apply_delay(log, kind, payload)?,
            other => match self.apply_pop(other, payload) {
                Some(applied) => applied?,
                None => return Err(format!("unknown kind {other} of state record")),
            },
        }
        Ok(())
    }
}

impl Replay for Engine {
    fn state(&mut self, log: &mut Log, kind: u16, payload: &[u8]) -> Result<(), ReplayError> {
        self.apply(log, kind, payload).map_err(ReplayError)
    }
}

/// `group | topic | count | (queue id, offset)...`; strings with a length of 16 bits, all little-endian.
pub(super) fn encode_offsets(
    offsets: &super::offset::Offsets,
    group: &str,
    topic: &str,
    out: &mut Vec<u8>,
) {
    for text in [group, topic] {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
    }
    let queues = offsets.queues(group, topic);
    let count = queues.map_or(0, |queues| queues.len() as u32);
    out.extend_from_slice(&count.to_le_bytes());
    for (queue_id, offset) in queues.into_iter().flatten() {
        out.extend_from_slice(&queue_id.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
    }
}

/// Gives each offset to `each`, and tells the group and the topic; `None` for what is cut short.
pub(super) fn decode_offsets(
    mut payload: &[u8],
    mut each: impl FnMut(&str, &str, i32, i64),
) -> Option<(&str, &str)> {
    fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
        let (head, tail) = bytes.split_first_chunk::<N>()?;
        *bytes = tail;
        Some(head)
    }
    fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
        let len = usize::from(u16::from_le_bytes(*take(bytes)?));
        let (head, tail) = bytes.split_at_checked(len)?;
        *bytes = tail;
        std::str::from_utf8(head).ok()
    }
    let group = text(&mut payload)?;
    let topic = text(&mut payload)?;
    let count = u32::from_le_bytes(*take(&mut payload)?);
    for _ in 0..count {
        let queue_id = i32::from_le_bytes(*take(&mut payload)?);
        let offset = i64::from_le_bytes(*take(&mut payload)?);
        each(group, topic, queue_id, offset);
    }
    payload.is_empty().then_some((group, topic))
}

#[cfg(test)]
mod tests {
    use super::super::offset::Offsets;
    use super::*;

    #[test]
    fn offsets_come_back_as_they_were_written() {
        let mut offsets = Offsets::default();
        offsets.load("g", "t", 0, 17);
        offsets.load("g", "t", 3, i64::MAX);
        let mut payload = Vec::new();
        encode_offsets(&offsets, "g", "t", &mut payload);
        let mut got = Vec::new();
        assert!(
            decode_offsets(&payload, |g, t, q, o| got.push((
                g.to_owned(),
                t.to_owned(),
                q,
                o
            )))
            .is_some()
        );
        assert_eq!(
            got,
            [
                ("g".into(), "t".into(), 0, 17),
                ("g".into(), "t".into(), 3, i64::MAX)
            ]
        );
        for cut in 0..payload.len() {
            assert!(
                decode_offsets(&payload[..cut], |_, _, _, _| ()).is_none(),
                "cut at {cut}"
            );
        }
    }
}
