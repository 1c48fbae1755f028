//! Who consumes which queues, where clients leave that to the broker: QUERY_ASSIGNMENT 400, SET_MESSAGE_REQUEST_MODE 401,
//! GET_ALL_MESSAGE_REQUEST_MODE 402.
//!
//! A client asks one broker, and the answer is for the queues of all of them; so the topic's route is asked of the
//! NameServer and kept for [`ROUTE_MS`]. Who asks meanwhile waits. Where no NameServer answers in time the answer is for the
//! queues of this broker only.

use std::collections::{BTreeMap, HashMap};

use corelane_wire::Frame;
use corelane_wire::body::{
    MessageModel, MessageQueue, MessageQueueAssignment, MessageRequestMode,
    MessageRequestModeSerializeWrapper, QueryAssignmentRequestBody, QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody, TopicRouteData,
};
use corelane_wire::code::{perm, response};

use super::journal::REQUEST_MODE;
use crate::engine::turn::{Connection, Effect, Refusal, ReplyTo, Request, Turn};
use crate::engine::{Engine, name};

/// How long a route is used, in milliseconds.
const ROUTE_MS: i64 = 5_000;
/// How long a NameServer may take, in milliseconds.
const ROUTE_WAIT_MS: i64 = 3_000;
/// Routes that are kept.
const MAX_ROUTES: usize = 4_096;
/// Requests that wait for a route.
const MAX_WAITING: usize = 4_096;
/// Request modes that are kept: one for each pair of a topic and a group.
const MAX_MODES: usize = 100_000;

type Mode = SetMessageRequestModeRequestBody;

/// How groups ask for the messages of topics, where somebody said so.
#[derive(Default)]
pub struct RequestModes {
    by_topic: BTreeMap<String, BTreeMap<String, Mode>>,
}

impl RequestModes {
    /// What was said of a group and a topic.
    pub fn get(&self, topic: &str, group: &str) -> Option<&Mode> {
        self.by_topic.get(topic)?.get(group)
    }

    /// Says it.
    pub fn put(&mut self, mode: Mode) {
        self.by_topic
            .entry(mode.topic.clone())
            .or_default()
            .insert(mode.consumer_group.clone(), mode);
    }

    /// Everything that was said.
    pub fn iter(&self) -> impl Iterator<Item = &Mode> {
        self.by_topic.values().flat_map(|groups| groups.values())
    }

    /// Forgets a topic.
    pub fn remove_topic(&mut self, topic: &str) {
        self.by_topic.remove(topic);
    }

    /// Forgets a group.
    pub fn remove_group(&mut self, group: &str) {
        self.by_topic.retain(|_, groups| {
            groups.remove(group);
            !groups.is_empty()
        });
    }
}

struct Route {
    queues: Vec<MessageQueue>,
    until_mono_ms: i64,
}

struct Asked {
    requests: Vec<(Connection, Box<[u8]>)>,
    deadline_mono_ms: i64,
}

/// Where topics are, as the NameServer said, and who waits to know.
#[derive(Default)]
pub struct Routes {
    known: HashMap<String, Route>,
    asked: HashMap<String, Asked>,
}

impl Routes {
    /// Forgets what a connection waited for.
    pub fn closed(&mut self, connection: Connection) {
        for asked in self.asked.values_mut() {
            asked.requests.retain(|(other, _)| *other != connection);
        }
    }

    /// When somebody has waited long enough.
    pub fn deadline_mono_ms(&self) -> i64 {
        self.asked
            .values()
            .map(|asked| asked.deadline_mono_ms)
            .min()
            .unwrap_or(i64::MAX)
    }

    fn keep(&mut self, topic: String, route: Route, now_ms: i64) {
        if self.known.len() >= MAX_ROUTES {
            self.known.retain(|_, route| route.until_mono_ms > now_ms);
        }
        if self.known.len() < MAX_ROUTES {
            self.known.insert(topic, route);
        }
    }
}

impl Engine {
    /// SET_MESSAGE_REQUEST_MODE 401.
    pub(in crate::engine) fn set_request_mode(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let mode = Mode::from_json(req.frame.body)?;
        if mode.topic.starts_with(name::RETRY_PREFIX) {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                "retry topic is not allowed to set mode",
            ));
        }
        name::check_topic(&mode.topic)?;
        name::check_group(&mode.consumer_group)?;
        if self
            .pops
            .modes
            .get(&mode.topic, &mode.consumer_group)
            .is_none()
            && self.pops.modes.iter().count() >= MAX_MODES
        {
            return Err(Refusal::new(
                response::SYSTEM_ERROR,
                format!("this broker has {MAX_MODES} request modes already"),
            ));
        }
        let end = turn.log.append_state(REQUEST_MODE, &mode.to_json())?;
        self.pops.modes.put(mode);
        self.answer_when_durable(turn, req.to, end, 0);
        Ok(())
    }

    /// GET_ALL_MESSAGE_REQUEST_MODE 402.
    pub(in crate::engine) fn all_request_modes(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let wrapper = MessageRequestModeSerializeWrapper {
            message_request_mode_map: self.pops.modes.by_topic.clone(),
        };
        turn.answer_body(req.to, &wrapper.to_json());
        Ok(())
    }

    /// QUERY_ASSIGNMENT 400.
    pub(in crate::engine) fn query_assignment(
        &mut self,
        turn: &mut Turn<'_>,
        req: &Request<'_>,
    ) -> Result<(), Refusal> {
        let asks = QueryAssignmentRequestBody::from_json(req.frame.body)?;
        name::check_topic(&asks.topic)?;
        let now_ms = turn.now.mono_ms;
        if let Some(route) = self
            .pops
            .routes
            .known
            .get(&asks.topic)
            .filter(|route| route.until_mono_ms > now_ms)
        {
            let body = self.assignment(&asks, &route.queues);
            turn.answer_body(req.to, &body);
            return Ok(());
        }
        if self
            .pops
            .routes
            .asked
            .values()
            .map(|asked| asked.requests.len())
            .sum::<usize>()
            >= MAX_WAITING
        {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "too many clients wait for the NameServer",
            ));
        }
        let asked = self
            .pops
            .routes
            .asked
            .entry(asks.topic.clone())
            .or_insert_with(|| {
                turn.out.effect(Effect::Route { topic: asks.topic });
                Asked {
                    requests: Vec::new(),
                    deadline_mono_ms: now_ms + ROUTE_WAIT_MS,
                }
            });
        asked.requests.push((req.to.connection, req.bytes.into()));
        Ok(())
    }

    /// A NameServer said where a topic is; `None` where none could be asked, or none knows it.
    pub fn on_route(&mut self, turn: &mut Turn<'_>, topic: &str, route: Option<&TopicRouteData>) {
        let mut queues = match route {
            Some(route) => queues_of(topic, route),
            None => {
                let count = self
                    .topics
                    .get(topic)
                    .map_or(0, |known| known.config.read_queue_nums);
                (0..count)
                    .map(|queue_id| self.message_queue(topic, queue_id))
                    .collect()
            }
        };
        queues.sort_by(|a, b| (&a.broker_name, a.queue_id).cmp(&(&b.broker_name, b.queue_id)));
        // Answered with what was said just now: there may be no room to keep it.
        if let Some(asked) = self.pops.routes.asked.remove(topic) {
            for (connection, bytes) in &asked.requests {
                let Ok(frame) = Frame::parse(bytes) else {
                    continue;
                };
                if let Ok(asks) = QueryAssignmentRequestBody::from_json(frame.body) {
                    let body = self.assignment(&asks, &queues);
                    turn.answer_body(ReplyTo::new(*connection, &frame), &body);
                }
            }
        }
        let now_ms = turn.now.mono_ms;
        self.pops.routes.keep(
            topic.to_owned(),
            Route {
                queues,
                until_mono_ms: now_ms + ROUTE_MS,
            },
            now_ms,
        );
    }

    /// Answers who waited for a NameServer too long, as far as this broker knows.
    pub(super) fn expire_routes(&mut self, turn: &mut Turn<'_>) {
        if self.pops.routes.deadline_mono_ms() > turn.now.mono_ms {
            return;
        }
        let asked = self
            .pops
            .routes
            .asked
            .iter()
            .filter(|(_, asked)| asked.deadline_mono_ms <= turn.now.mono_ms);
        for topic in asked.map(|(topic, _)| topic.clone()).collect::<Vec<_>>() {
            self.on_route(turn, &topic, None);
        }
    }

    fn assignment(&self, asks: &QueryAssignmentRequestBody, queues: &[MessageQueue]) -> Vec<u8> {
        // Without queues, members or a strategy there is nothing to say; the client keeps what it has.
        let nothing = b"{}".to_vec();
        if queues.is_empty() {
            return nothing;
        }
        let said = self.pops.modes.get(&asks.topic, &asks.consumer_group);
        let mode = said.map_or(MessageRequestMode::Pull, |said| said.mode);
        let mine = match asks.message_model {
            MessageModel::Broadcasting => queues.to_vec(),
            MessageModel::Clustering => {
                let Some(consumers) = self.clients.consumers(&asks.consumer_group) else {
                    return nothing;
                };
                let members: Vec<&str> = consumers.clients.keys().map(String::as_str).collect();
                let Some(strategy) = Spread::named(&asks.strategy_name) else {
                    return nothing;
                };
                match mode {
                    MessageRequestMode::Pull => {
                        strategy.allocate(queues, &members, &asks.client_id)
                    }
                    MessageRequestMode::Pop => {
                        let share = said.map_or(0, |said| said.pop_share_queue_num);
                        allocate_pops(strategy, queues, &members, &asks.client_id, share)
                    }
                }
            }
        };
        let mut assignments: Vec<MessageQueueAssignment> = Vec::with_capacity(mine.len());
        for message_queue in mine {
            if !assignments
                .iter()
                .any(|other| other.message_queue == message_queue)
            {
                assignments.push(MessageQueueAssignment {
                    message_queue,
                    mode,
                    attachments: None,
                });
            }
        }
        QueryAssignmentResponseBody {
            message_queue_assignments: assignments,
        }
        .to_json()
    }
}

fn queues_of(topic: &str, route: &TopicRouteData) -> Vec<MessageQueue> {
    let readable = route
        .queue_datas
        .iter()
        .filter(|data| data.perm & perm::READ != 0);
    let queues = readable.flat_map(|data| {
        let queue = |queue_id| MessageQueue {
            topic: topic.to_owned(),
            broker_name: data.broker_name.clone(),
            queue_id,
        };
        (0..data.read_queue_nums).map(queue)
    });
    queues.collect()
}

/// How queues are spread over members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// Neighbours to one member.
    Average,
    /// One to each in turn.
    Circle,
}

impl Spread {
    fn named(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Average),
            "AVG_BY_CIRCLE" => Some(Self::Circle),
            _ => None,
        }
    }

    /// The queues of one member; none for who is no member.
    fn allocate(
        self,
        queues: &[MessageQueue],
        members: &[&str],
        member: &str,
    ) -> Vec<MessageQueue> {
        let Some(index) = members.iter().position(|other| *other == member) else {
            return Vec::new();
        };
        match self {
            Self::Average => {
                let (each, over) = (queues.len() / members.len(), queues.len() % members.len());
                let start = index * each + index.min(over);
                let count = each + usize::from(index < over);
                queues[start..start + count].to_vec()
            }
            Self::Circle => queues
                .iter()
                .skip(index)
                .step_by(members.len())
                .cloned()
                .collect(),
        }
    }
}

/// The queues that a member pops: all of every broker, or its own and those of the `share` members after it.
fn allocate_pops(
    strategy: Spread,
    queues: &[MessageQueue],
    members: &[&str],
    member: &str,
    share: i32,
) -> Vec<MessageQueue> {
    let share = usize::try_from(share).unwrap_or(0);
    if share == 0 || share + 1 >= members.len() {
        return queues
            .iter()
            .map(|queue| MessageQueue {
                queue_id: -1,
                ..queue.clone()
            })
            .collect();
    }
    let Some(index) = members.iter().position(|other| *other == member) else {
        return Vec::new();
    };
    if members.len() > queues.len() {
        return vec![queues[index % queues.len()].clone()];
    }
    let shared = (0..=share).map(|step| members[(index + step) % members.len()]);
    shared
        .flat_map(|other| strategy.allocate(queues, members, other))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        let queue = |queue_id| MessageQueue {
            topic: "t".into(),
            broker_name: "b".into(),
            queue_id,
        };
        (0..count).map(queue).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|queue| queue.queue_id).collect()
    }

    #[test]
    fn strategies_spread_as_the_clients_do() {
        let (queues, members) = (queues(5), ["a", "b"]);
        assert_eq!(
            ids(&Spread::Average.allocate(&queues, &members, "a")),
            [0, 1, 2]
        );
        assert_eq!(
            ids(&Spread::Average.allocate(&queues, &members, "b")),
            [3, 4]
        );
        assert_eq!(
            ids(&Spread::Circle.allocate(&queues, &members, "b")),
            [1, 3]
        );
        assert_eq!(
            ids(&Spread::Average.allocate(&queues, &members, "c")),
            [0; 0]
        );
    }

    #[test]
    fn pops_share_with_the_members_that_follow() {
        let members = ["a", "b", "c", "d"];
        let pops = |count, member, share| {
            ids(&allocate_pops(
                Spread::Average,
                &queues(count),
                &members,
                member,
                share,
            ))
        };
        assert_eq!(pops(4, "d", 1), [3, 0]);
        assert_eq!(pops(4, "a", 0), [-1; 4]);
        assert_eq!(pops(4, "a", 3), [-1; 4]);
        assert_eq!(pops(4, "a", -1), [-1; 4]);
        assert_eq!(pops(2, "c", 1), [0]);
    }

    proptest! {
        #[test]
        fn every_queue_has_exactly_one_member(count in 1i32..40, members in 1usize..20, circle: bool) {
            let names: Vec<String> = (0..members).map(|member| format!("{member:02}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let strategy = if circle { Spread::Circle } else { Spread::Average };
            let mut all: Vec<i32> =
                names.iter().flat_map(|member| ids(&strategy.allocate(&queues(count), &names, member))).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
    }
}
