//! `corelane consume`: messages on standard output.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelane_client::ClientError;
use corelane_client::consumer::{Consumer, Filter, Start, Subscription};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::ConsumeArgs;
use crate::message::object;
use crate::output::{Failure, Output, complain};

/// How often is looked whether to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Receives messages until there were enough.
pub fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    let subscription = Subscription {
        topic: args.topic.clone(),
        group: args.group.clone(),
        filter: match (&args.tag, &args.sql) {
            (Some(tags), _) => Filter::Tags(tags.clone()),
            (None, Some(sql)) => Filter::Sql(sql.clone()),
            (None, None) => Filter::All,
        },
        start: args.from.unwrap_or(Start::Group),
        commit: !args.no_commit,
    };
    let interrupted = interrupts()?;
    let mut consumer = Consumer::start(&mut args.at.open()?, &subscription)?;
    let outcome = receive(args, &mut consumer, &interrupted);
    // Whatever ended it: what was printed is committed.
    consumer.close();
    outcome
}

/// A flag that the first SIGINT or SIGTERM sets; the second ends the process.
fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag clear.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

fn receive(
    args: &ConsumeArgs,
    consumer: &mut Consumer,
    interrupted: &AtomicBool,
) -> Result<(), Failure> {
    let mut out = Output::new(args.json);
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut heard = Instant::now();
    let mut trouble = String::new();
    while left > 0 && !interrupted.load(Ordering::Relaxed) {
        match consumer.next(LOOK_EVERY) {
            Ok(Some(message)) => {
                if args.json {
                    out.record(&object(&message), "")?;
                } else {
                    out.bytes(&message.body)?;
                }
                left -= 1;
                heard = Instant::now();
                trouble.clear();
            }
            Ok(None) => {}
            // A broker that refuses will refuse again; one that cannot be reached may come back.
            Err(error @ (ClientError::Refused { .. } | ClientError::Cluster(_))) => {
                return Err(error.into());
            }
            Err(error) => {
                let error = error.to_string();
                if error != trouble {
                    complain(&format!("{error}; trying again"));
                    trouble = error;
                }
            }
        }
        if args
            .timeout_ms
            .is_some_and(|timeout_ms| heard.elapsed() >= Duration::from_millis(timeout_ms))
        {
            break;
        }
    }
    Ok(())
}
