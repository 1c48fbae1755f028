//! REGISTER_BROKER's body, in JSON and in the compressed form of older brokers.

use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::{Deserialize, Serialize};

use super::{DataVersion, TopicConfig, TopicConfigSerializeWrapper, TopicFilterType};
use crate::fastjson::{self, BodyError};
use crate::frame::take;

/// The `MQVersion` from which a compressed body has a last part, about static topics.
const VERSION_WITH_MAPPINGS: i32 = 413;

/// What a broker tells a NameServer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Filter servers; obsolete.
    pub filter_server_list: Vec<String>,
    /// The broker's topics: all of them, or those that changed.
    pub topic_config_serialize_wrapper: TopicConfigSerializeWrapper,
}

json_body!(RegisterBrokerBody);

impl RegisterBrokerBody {
    /// Reads the compressed form. `version` is the sender's; the body may inflate to `max_inflated_bytes`.
    pub fn from_compressed(
        body: &[u8],
        version: i32,
        max_inflated_bytes: usize,
    ) -> Result<Self, BodyError> {
        let mut inflated = Vec::new();
        ZlibDecoder::new(body)
            .take(max_inflated_bytes as u64 + 1)
            .read_to_end(&mut inflated)
            .map_err(|_| BodyError::Compressed("it is not zlib"))?;
        if inflated.len() > max_inflated_bytes {
            return Err(BodyError::Compressed("it inflates beyond its bound"));
        }
        Self::from_inflated(&inflated, version)
    }

    /// Reads the compressed form after it was inflated.
    pub fn from_inflated(mut bytes: &[u8], version: i32) -> Result<Self, BodyError> {
        let mut body = Self::default();
        let wrapper = &mut body.topic_config_serialize_wrapper;
        wrapper.data_version = DataVersion::from_json(part(&mut bytes)?)?;
        for _ in 0..count(&mut bytes)? {
            let config = topic_config(part(&mut bytes)?)?;
            wrapper
                .topic_config_table
                .insert(config.topic_name.clone(), config);
        }
        body.filter_server_list = fastjson::from_slice(part(&mut bytes)?)?;
        if version >= VERSION_WITH_MAPPINGS {
            for _ in 0..count(&mut bytes)? {
                part(&mut bytes)?;
            }
        }
        Ok(body)
    }
}

/// A number of parts. Each part takes bytes, so a large number ends with the bytes.
fn count(bytes: &mut &[u8]) -> Result<u32, BodyError> {
    let (count, rest) = bytes
        .split_first_chunk::<4>()
        .ok_or(BodyError::Compressed("it breaks off"))?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*count))
}

fn part<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], BodyError> {
    let len = count(bytes)?;
    let (part, rest) = take(bytes, len).ok_or(BodyError::Compressed("a part does not fit"))?;
    *bytes = rest;
    Ok(part)
}

/// The text form: `topic readQueueNums writeQueueNums perm filterType attributes`.
fn topic_config(text: &[u8]) -> Result<TopicConfig, BodyError> {
    let broken = || BodyError::Compressed("a topic is not as expected");
    let text = std::str::from_utf8(text).map_err(|_| broken())?;
    let mut words = text.splitn(6, ' ');
    let mut word = || words.next().ok_or_else(broken);
    let number = |word: &str| word.parse().map_err(|_| broken());
    let mut config = TopicConfig {
        topic_name: word()?.to_owned(),
        read_queue_nums: number(word()?)?,
        write_queue_nums: number(word()?)?,
        perm: number(word()?)?,
        topic_filter_type: TopicFilterType::from_name(word()?).ok_or_else(broken)?,
        ..TopicConfig::default()
    };
    if let Some(attributes) = words
        .next()
        .filter(|attributes| !attributes.trim().is_empty() && *attributes != "null")
    {
        config.attributes = fastjson::from_slice(attributes.as_bytes())?;
    }
    Ok(config)
}
