//! PULL_MESSAGE 11 and LITE_PULL_MESSAGE 361: messages of one queue, from an offset on, that pass the group's filter.
//!
//! What is found is sent as references to the log's buffers. A pull that finds nothing and may wait is held (see `hold`);
//! one that needs bytes from the disk is handled again when they are there.

use std::rc::Rc;

use corelane_wire::ExtHeader;
use corelane_wire::code::{forbidden, perm, pull_flag, request, response};
use corelane_wire::header::pull::PullMessageRequest;
use corelane_wire::record::Record;

use super::Engine;
use super::client::Subscription;
use super::filter::Filter;
use super::position::no_topic;
use super::turn::{Refusal, Request, Turn};
use crate::log::{Entry, LastGroup, QueueRef, ReadMiss, Slice};

/// Index entries that one pull looks at, at most; what lies behind them is for the next pull.
const MAX_SCANNED: usize = 4096;
/// Index entries taken from the log in one go.
const SCAN_STEP: usize = 256;

/// Where the filter of a pull comes from.
#[derive(Clone)]
pub enum PullFilter {
    /// The pull brought it along.
    Own(Rc<Filter>),
    /// The group's last heartbeat.
    Registered(Rc<Subscription>),
}

impl PullFilter {
    /// The filter, or `None` where the registered one does not compile.
    pub fn get(&self) -> Option<&Filter> {
        match self {
            Self::Own(filter) => Some(filter),
            Self::Registered(subscription) => subscription.filter.as_ref().ok(),
        }
    }
}

/// The system flags of what is pulled: its client writes them into each message.
#[derive(Clone, Copy)]
struct Flags {
    topic: i32,
    group: i32,
}

/// What a pull found.
struct Found {
    /// Status of the protocol.
    code: i32,
    /// Its name in the remark.
    status: &'static str,
    /// Where the next pull should begin.
    next: i64,
    min: i64,
    max: i64,
    messages: usize,
    bytes: usize,
}

impl Engine {
    /// PULL_MESSAGE 11, LITE_PULL_MESSAGE 361. With `may_hold` unset it answers whatever there is.
    pub(super) fn pull(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
        may_hold: bool,
    ) -> Result<(), Refusal> {
        let header = PullMessageRequest::decode(&req.frame.ext)?;
        self.check_broker_pulls(req.frame.code == request::LITE_PULL_MESSAGE)?;
        let (group, topic) = (header.consumer_group.to_str(), header.topic.to_str());
        if self.ensure_group(turn, &group)?.is_none() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("subscription group [{group}] does not exist"),
            ));
        }
        let config = self.groups.get(&group);
        if config.is_some_and(|config| !config.consume_enable) {
            return Err(Refusal::forbidden_pull(
                forbidden::GROUP,
                format!("consumer group [{group}] is not permitted to consume"),
            ));
        }
        let broadcast = config.is_none_or(|config| config.consume_broadcast_enable);
        let group_flag = config.map_or(0, |config| config.group_sys_flag);
        let Some(known) = self.topics.get_mut(&topic) else {
            return Err(no_topic(&topic));
        };
        if known.config.perm & perm::READ == 0 {
            return Err(Refusal::forbidden_pull(
                forbidden::TOPIC,
                format!("the topic[{topic}] pulling message is forbidden"),
            ));
        }
        if header.queue_id < 0 || header.queue_id >= known.config.read_queue_nums {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "queueId[{}] is illegal, topic[{topic}] has {} queues to read",
                    header.queue_id, known.config.read_queue_nums
                ),
            ));
        }
        let queue = known.queue(turn.log, header.queue_id);
        let flags = Flags {
            topic: known.config.topic_sys_flag,
            group: group_flag,
        };
        let filter = self.pull_filter(&header, &group, &topic, broadcast)?;
        if let Some(next) = self.take_reset(turn, &group, &topic, header.queue_id)? {
            let (min, max) = (turn.log.min_offset(queue), turn.log.max_offset(queue));
            let found = Found {
                code: response::PULL_OFFSET_MOVED,
                status: "OFFSET_RESET",
                next,
                min,
                max,
                messages: 0,
                bytes: 0,
            };
            self.answer_pull(turn, req, flags, &found);
            return Ok(());
        }
        let room = self.offsets.count() < self.settings.max_offsets;
        if header.sys_flag & pull_flag::COMMIT_OFFSET != 0
            && may_hold
            && header.commit_offset >= 0
            && room
        {
            self.offsets
                .commit(&group, &topic, header.queue_id, header.commit_offset);
        }

        let max_messages = usize::try_from(header.max_msg_nums)
            .unwrap_or(0)
            .clamp(1, self.settings.pull_max_messages);
        let wanted_bytes = header
            .max_msg_bytes
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0);
        let max_bytes = wanted_bytes.map_or(self.settings.pull_max_bytes, |bytes| {
            bytes.min(self.settings.pull_max_bytes)
        });
        let found = match self.find(
            turn,
            queue,
            header.queue_offset,
            max_messages,
            max_bytes,
            &filter,
        ) {
            Ok(found) => found,
            Err(ReadMiss::Wanted(read)) => {
                self.retry_after_read(turn, read, req);
                return Ok(());
            }
            Err(miss @ ReadMiss::Damaged { .. }) => {
                tracing::error!(%topic, queue_id = header.queue_id, "a pull met damage: {miss}");
                return Err(Refusal::new(response::SYSTEM_ERROR, miss.to_string()));
            }
            Err(ReadMiss::Gone) => {
                let min = turn.log.min_offset(queue);
                let max = turn.log.max_offset(queue);
                Found {
                    code: response::PULL_OFFSET_MOVED,
                    status: "MESSAGE_WAS_REMOVING",
                    next: min,
                    min,
                    max,
                    messages: 0,
                    bytes: 0,
                }
            }
        };
        let waits = found.code == response::PULL_NOT_FOUND
            && may_hold
            && self.settings.long_polling
            && header.sys_flag & pull_flag::SUSPEND != 0
            && header.suspend_timeout_millis > 0;
        if waits
            && self.hold_pull(
                turn,
                req,
                queue,
                found.next,
                header.suspend_timeout_millis,
                filter,
            )
        {
            return Ok(());
        }
        if found.code == response::SUCCESS {
            // Only beside a committed offset, so that there are never more of them than of those.
            if self.offsets.get(&group, &topic, header.queue_id).is_some() {
                self.pulled
                    .load(&group, &topic, header.queue_id, found.next);
            }
            self.stats.got(
                &group,
                &topic,
                found.messages,
                found.bytes,
                turn.now.wall_ms,
            );
        } else {
            self.stats.missed(turn.now.wall_ms);
        }
        self.answer_pull(turn, req, flags, &found);
        Ok(())
    }

    fn answer_pull(&mut self, turn: &mut Turn<'_>, req: &Request<'_>, flags: Flags, found: &Found) {
        if !req.to.oneway {
            let mut fields = req.to.write(
                turn.out.buffer(req.to.connection),
                found.code,
                Some(found.status),
            );
            fields.int_field("suggestWhichBrokerId", 0);
            fields.int_field("nextBeginOffset", found.next);
            fields.int_field("minOffset", found.min);
            fields.int_field("maxOffset", found.max);
            fields.int_field("topicSysFlag", flags.topic.into());
            fields.int_field("groupSysFlag", flags.group.into());
            fields.finish(found.bytes);
            for part in self.parts.drain(..) {
                turn.out.shared(req.to.connection, part);
            }
        }
        self.parts.clear();
    }

    fn pull_filter(
        &mut self,
        header: &PullMessageRequest<'_>,
        group: &str,
        topic: &str,
        broadcast: bool,
    ) -> Result<PullFilter, Refusal> {
        if header.sys_flag & pull_flag::SUBSCRIPTION != 0 {
            let expression = header
                .subscription
                .map(|text| text.to_str())
                .unwrap_or_default();
            if expression == "*" {
                return Ok(PullFilter::Own(self.filter_all.clone()));
            }
            let kind = header.expression_type.map(|text| text.to_str());
            return Ok(PullFilter::Own(Rc::new(
                self.compile(kind.as_deref(), &expression)?,
            )));
        }
        let Some(consumers) = self.clients.consumers(group) else {
            return Err(Refusal::new(
                response::SUBSCRIPTION_NOT_EXIST,
                format!("the consumer's group info not exist: {group}"),
            ));
        };
        if !broadcast && consumers.is_broadcasting() {
            return Err(Refusal::forbidden_pull(
                forbidden::BROADCAST,
                format!("the consumer group[{group}] can not consume by broadcast way"),
            ));
        }
        if self.forbidden.is_forbidden(group, topic) {
            return Err(Refusal::forbidden_pull(
                forbidden::SUBSCRIPTION,
                format!("the consumer group[{group}] is forbidden for topic[{topic}]"),
            ));
        }
        let Some(subscription) = consumers.subscriptions.get(topic) else {
            return Err(Refusal::new(
                response::SUBSCRIPTION_NOT_EXIST,
                format!(
                    "the consumer's subscription not exist: {group} does not subscribe to {topic}"
                ),
            ));
        };
        if subscription.data.sub_version < header.sub_version {
            return Err(Refusal::new(
                response::SUBSCRIPTION_NOT_LATEST,
                format!("the consumer's subscription of {topic} is not the latest"),
            ));
        }
        if let Err(error) = &subscription.filter {
            return Err(Refusal::new(
                response::SUBSCRIPTION_PARSE_FAILED,
                error.to_string(),
            ));
        }
        if subscription
            .filter
            .as_ref()
            .is_ok_and(Filter::needs_properties)
            && !self.settings.property_filter
        {
            self.compile(
                Some(&subscription.data.expression_type),
                &subscription.data.sub_string,
            )?;
        }
        Ok(PullFilter::Registered(subscription.clone()))
    }

    /// Looks for messages; what it finds is in `self.parts`.
    fn find(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueRef,
        from: i64,
        max_messages: usize,
        max_bytes: usize,
        filter: &PullFilter,
    ) -> Result<Found, ReadMiss> {
        self.parts.clear();
        let min = turn.log.min_offset(queue);
        let max = turn.log.max_offset(queue);
        let none = |code, status, next| Found {
            code,
            status,
            next,
            min,
            max,
            messages: 0,
            bytes: 0,
        };
        if max == 0 {
            let code = if from == 0 {
                response::PULL_NOT_FOUND
            } else {
                response::PULL_OFFSET_MOVED
            };
            return Ok(none(code, "NO_MESSAGE_IN_QUEUE", 0));
        }
        if from < min {
            return Ok(none(response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL", min));
        }
        if from > max {
            return Ok(none(
                response::PULL_OFFSET_MOVED,
                "OFFSET_OVERFLOW_BADLY",
                max,
            ));
        }
        if from == max {
            return Ok(none(response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE", from));
        }
        let (mut next, mut messages, mut bytes, mut scanned) = (from, 0, 0, 0);
        let takes_all = filter.get().is_some_and(Filter::takes_all);
        let mut last = LastGroup::default();
        let mut entries = std::mem::take(&mut self.entries);
        let result = 'scan: loop {
            entries.clear();
            let step = SCAN_STEP.min(MAX_SCANNED - scanned);
            let step = if takes_all {
                step.min(max_messages - messages)
            } else {
                step
            };
            // Offsets whose records were lost are passed over.
            next = turn.log.next_kept(queue, next);
            if let Err(miss) = turn.log.entries(queue, next, step, &mut entries) {
                break Err(miss);
            }
            if entries.is_empty() {
                break Ok(());
            }
            for entry in &entries {
                let size = entry.size as usize;
                let slice = match self.matching(turn, &mut last, entry, filter) {
                    Ok(slice) => slice,
                    Err(miss) => break 'scan Err(miss),
                };
                if let Some(slice) = slice {
                    if messages > 0 && bytes + size > max_bytes {
                        break 'scan Ok(());
                    }
                    messages += 1;
                    bytes += size;
                    self.add_part(slice);
                }
                next += 1;
                if messages == max_messages {
                    break 'scan Ok(());
                }
            }
            scanned += entries.len();
            if scanned >= MAX_SCANNED {
                break Ok(());
            }
        };
        self.entries = entries;
        match result {
            Err(miss) if messages == 0 => return Err(miss),
            // What was found already goes out; the next pull meets the rest.
            Err(_) | Ok(()) => {}
        }
        if messages == 0 {
            return Ok(none(
                response::PULL_RETRY_IMMEDIATELY,
                "NO_MATCHED_MESSAGE",
                next,
            ));
        }
        Ok(Found {
            code: response::SUCCESS,
            status: "FOUND",
            next,
            min,
            max,
            messages,
            bytes,
        })
    }

    /// The record of an entry, where it passes the filter.
    pub(super) fn matching(
        &mut self,
        turn: &mut Turn<'_>,
        last: &mut LastGroup,
        entry: &Entry,
        filter: &PullFilter,
    ) -> Result<Option<Slice>, ReadMiss> {
        let Some(filter) = filter.get() else {
            return Ok(None);
        };
        if !filter.matches_tags_code(entry.tags_code) {
            return Ok(None);
        }
        let slice = turn.log.record_after(last, entry.position, entry.size)?;
        if filter.needs_properties() {
            let passes = Record::parse(&slice)
                .is_ok_and(|(record, _)| filter.matches_properties(record.properties_bytes()));
            return Ok(passes.then_some(slice));
        }
        Ok(Some(slice))
    }

    /// Adds a record to the answer; neighbours in the log become one part.
    fn add_part(&mut self, slice: Slice) {
        if self.parts.last_mut().is_none_or(|last| !last.join(&slice)) {
            self.parts.push(slice);
        }
    }

    /// Whether any visible record of a queue from `from` on passes a filter. Says "yes" where it would have to read first.
    pub(super) fn any_match(
        &mut self,
        turn: &mut Turn<'_>,
        queue: QueueRef,
        from: i64,
        filter: &PullFilter,
    ) -> bool {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        let mut last = LastGroup::default();
        let mut any = turn
            .log
            .entries(queue, from, MAX_SCANNED, &mut entries)
            .is_err()
            || entries.len() == MAX_SCANNED;
        for entry in &entries {
            any = any || !matches!(self.matching(turn, &mut last, entry, filter), Ok(None));
        }
        self.entries = entries;
        any
    }
}
