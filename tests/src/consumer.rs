//! How a push consumer is to be.

use serde_json::{Map, Value};

/// Clustering or broadcasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// The consumers of a group share the messages.
    Clustering,
    /// Each consumer gets all messages.
    Broadcasting,
}

/// Where a consumer without a stored offset starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// At the first message.
    First,
    /// After the last message.
    Last,
    /// At the first message that was stored at this time or later, in milliseconds since 1970. Push consumers know whole
    /// seconds only.
    TimestampMs(i64),
}

/// A push consumer.
#[derive(Debug, Clone)]
pub struct Consumer<'a> {
    /// Its name in the driver; part of its client id.
    pub name: &'a str,
    /// Group.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// `*`, or tags with `||` between them.
    pub expression: &'a str,
    /// Clustering or broadcasting.
    pub model: Model,
    /// Where it starts.
    pub from: From,
    /// Further members of the driver's verb.
    pub more: Map<String, Value>,
}

impl<'a> Consumer<'a> {
    /// A consumer of all messages of a topic from the first on, in clustering, named like its group.
    pub fn new(group: &'a str, topic: &'a str) -> Self {
        Self {
            name: group,
            group,
            topic,
            expression: "*",
            model: Model::Clustering,
            from: From::First,
            more: Map::new(),
        }
    }

    /// With another name.
    pub fn name(mut self, name: &'a str) -> Self {
        self.name = name;
        self
    }

    /// With another model.
    pub fn model(mut self, model: Model) -> Self {
        self.model = model;
        self
    }

    /// With another start.
    pub fn from(mut self, from: From) -> Self {
        self.from = from;
        self
    }

    /// With other tags.
    pub fn expression(mut self, expression: &'a str) -> Self {
        self.expression = expression;
        self
    }

    /// With an SQL92 expression.
    pub fn sql(self, expression: &'a str) -> Self {
        self.expression(expression).with("sql", true)
    }

    /// One message of a queue after the other.
    pub fn orderly(self) -> Self {
        self.with("orderly", true)
    }

    /// With another member of the driver's verb.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}
