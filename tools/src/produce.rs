//! `corelane produce`: messages from standard input or from the command line.

use std::io::{self, BufRead};

use corelane_client::producer::Sent;
use corelane_client::{Message, Producer};
use corelane_wire::code::{response, response_name};
use serde_json::json;

use crate::cli::ProduceArgs;
use crate::output::{Failure, Output};

/// Sends messages until there are no more.
pub fn run(args: &ProduceArgs) -> Result<(), Failure> {
    let mut producer = Producer::new(args.at.open()?, &args.group);
    let mut out = Output::new(args.json);
    let batch = args.batch as usize;
    let mut gathered = Vec::with_capacity(batch);
    let mut bodies = Bodies::of(args);
    while let Some(body) = bodies.next()? {
        gathered.push(message(args, body));
        if gathered.len() == batch {
            send(args, &mut producer, &mut gathered, &mut out)?;
        }
    }
    if gathered.is_empty() {
        Ok(())
    } else {
        send(args, &mut producer, &mut gathered, &mut out)
    }
}

/// Where bodies come from.
enum Bodies {
    Same { body: Vec<u8>, left: u64 },
    Lines { left: u64 },
}

impl Bodies {
    fn of(args: &ProduceArgs) -> Self {
        let filling = |size| (0..size).map(|index| b'a' + (index % 26) as u8).collect();
        let body = args
            .body
            .as_ref()
            .map(|text| text.clone().into_bytes())
            .or_else(|| args.size.map(filling));
        match body {
            Some(body) => Self::Same {
                body,
                left: args.count.unwrap_or(1),
            },
            None => Self::Lines {
                left: args.count.unwrap_or(u64::MAX),
            },
        }
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let (Self::Same { left, .. } | Self::Lines { left }) = self;
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        match self {
            Self::Same { body, .. } => Ok(Some(body.clone())),
            Self::Lines { .. } => next_line(),
        }
    }
}

/// The next line that is not empty: a message must have a body.
fn next_line() -> Result<Option<Vec<u8>>, Failure> {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        if stdin.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        while line
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            line.pop();
        }
        if !line.is_empty() {
            return Ok(Some(line));
        }
    }
}

fn message(args: &ProduceArgs, body: Vec<u8>) -> Message {
    Message {
        body,
        tag: args.tag.clone(),
        keys: args.keys.clone(),
        delay_level: args.delay_level,
        flag: 0,
        properties: args.properties.clone(),
    }
}

fn send(
    args: &ProduceArgs,
    producer: &mut Producer,
    messages: &mut Vec<Message>,
    out: &mut Output,
) -> Result<(), Failure> {
    let sent = match messages.as_slice() {
        [one] => producer.send(&args.topic, one, args.queue)?,
        many => producer.send_batch(&args.topic, many, args.queue)?,
    };
    messages.clear();
    print(&sent, out)
}

/// A line for each message; those of a batch have their offsets in a row.
fn print(sent: &Sent, out: &mut Output) -> Result<(), Failure> {
    let status = match sent.code {
        response::SUCCESS => "SEND_OK",
        code => response_name(code).unwrap_or("STORED"),
    };
    let mut places = sent.offset_message_id.split(',');
    for (index, id) in sent.message_id.split(',').enumerate() {
        let offset = sent.queue_offset + index as i64;
        let object = json!({
            "status": status,
            "msgId": id,
            "offsetMsgId": places.next(),
            "broker": sent.broker,
            "queueId": sent.queue_id,
            "queueOffset": offset,
            "recallHandle": sent.recall_handle,
        });
        out.record(
            &object,
            &format!("{status} {id} {} {} {offset}", sent.broker, sent.queue_id),
        )?;
    }
    Ok(())
}
