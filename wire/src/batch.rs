//! The body of a batch: messages one behind the other, each
//! `totalSize | magic | bodyCRC | flag | bodyLen | body | propertiesLen | properties`.
//!
//! Senders write 0 for magic and CRC; neither is looked at. The topic is the header's.

use crate::frame::take;
use crate::record::MAX_PROPERTIES_BYTES;

/// What a message takes beside its body and its properties.
const FIXED_BYTES: usize = 22;

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The user's flag.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// The properties as text (see [`properties`](crate::properties)).
    pub properties: &'a str,
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The lengths of a message do not fit each other or the batch.
    #[error("message {0} of the batch has lengths that do not fit")]
    Lengths(usize),
    /// The properties of a message are not UTF-8.
    #[error("message {0} of the batch has properties that are not UTF-8")]
    Properties(usize),
    /// A message has more than 32,767 bytes of properties, or more than 2^31 - 1 bytes in all.
    #[error("a message is too long for a batch")]
    TooLong,
}

/// Reads a batch. After an error there is nothing more.
#[derive(Debug, Clone)]
pub struct BatchIter<'a> {
    rest: &'a [u8],
    index: usize,
}

/// The messages of a batch.
pub fn messages(body: &[u8]) -> BatchIter<'_> {
    BatchIter {
        rest: body,
        index: 0,
    }
}

impl<'a> BatchIter<'a> {
    /// The first message, and what follows it. The outer `Option` is about lengths, the inner one about UTF-8.
    fn split_first(bytes: &'a [u8]) -> Option<(Option<BatchMessage<'a>>, &'a [u8])> {
        let (total_size, _) = bytes.split_first_chunk::<4>()?;
        let (message, rest) = take(bytes, u32::from_be_bytes(*total_size))?;
        let (flag, message) = message.get(12..)?.split_first_chunk::<4>()?;
        let (body_len, message) = message.split_first_chunk::<4>()?;
        let (body, message) = take(message, u32::from_be_bytes(*body_len))?;
        let (properties_len, properties) = message.split_first_chunk::<2>()?;
        let fits = usize::from(u16::from_be_bytes(*properties_len)) == properties.len();
        if !fits || properties.len() > MAX_PROPERTIES_BYTES {
            return None;
        }
        let flag = i32::from_be_bytes(*flag);
        let message = std::str::from_utf8(properties)
            .ok()
            .map(|properties| BatchMessage {
                flag,
                body,
                properties,
            });
        Some((message, rest))
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<BatchMessage<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let index = self.index;
        self.index += 1;
        match Self::split_first(std::mem::take(&mut self.rest)) {
            Some((Some(message), rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            Some((None, _)) => Some(Err(BatchError::Properties(index))),
            None => Some(Err(BatchError::Lengths(index))),
        }
    }
}

/// Appends one message to the body of a batch.
pub fn push(out: &mut Vec<u8>, message: &BatchMessage<'_>) -> Result<(), BatchError> {
    let (body, properties) = (message.body, message.properties.as_bytes());
    let total = i32::try_from(body.len() + properties.len() + FIXED_BYTES)
        .map_err(|_| BatchError::TooLong)?;
    if properties.len() > MAX_PROPERTIES_BYTES {
        return Err(BatchError::TooLong);
    }
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&message.flag.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    out.extend_from_slice(properties);
    Ok(())
}

#[cfg(test)]
mod tests;
