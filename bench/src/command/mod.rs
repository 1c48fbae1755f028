//! `corelane bench ...`: the arguments, and what is done with them.
//!
//! Results go to standard output, progress and errors to standard error. The exit code is 0, 1 when messages were lost, a bound
//! was missed or the run failed, and 2 when the arguments make no sense.

mod args;
mod measure;
mod servers;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

pub use args::{
    ConnectionsArgs, ConsumeArgs, DiffArgs, DiskArgs, E2eArgs, LoadArgs, OutputArgs, PullArgs,
    RawArgs, ReplayArgs, RunArgs, SendArgs, SoakArgs, TargetArgs,
};

use crate::error::BenchError;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send messages: as fast as answers come, or at a rate
    #[command(after_help = "\
Examples:
  corelane bench send                                        16 connections with 4 requests in flight each
  corelane bench send --broker 127.0.0.1:10911 --connections 64 --in-flight 16 --cores 1
  corelane bench send --rate 50000 --arrivals poisson --expect 'p99<2ms'
  corelane bench send --find-max 'p99<2ms'                   the highest rate that keeps the bound
  corelane bench send --size 128 --batch 16 --json out.json --report out.html")]
    Send(Box<SendArgs>),

    /// Pull messages: all that are there, or those that come
    #[command(after_help = "\
Examples:
  corelane bench consume                    from the first message to the last that is there now
  corelane bench consume --tail             what comes from now on")]
    Consume(Box<ConsumeArgs>),

    /// Send at a rate and receive: the time from the one to the other
    #[command(after_help = "\
Example:
  corelane bench e2e --rate 10000 --expect 'p99<3ms'")]
    E2e(Box<E2eArgs>),

    /// Send as fast as answers come, and receive at the same time
    Mixed(Box<E2eArgs>),

    /// Send and receive, and check that every message arrives once, whole and in its place
    #[command(after_help = "\
Example:
  corelane bench soak --rate 5000 --duration 1h --size 100-4000")]
    Soak(Box<SoakArgs>),

    /// Keep many connections alive
    #[command(after_help = "\
Examples:
  corelane bench connections --connections 10000 --duration 2m
  corelane bench connections --groups 1000 --topics 6250 --queues 8     consumers that wait at 50,000 queues of each broker")]
    Connections(Box<ConnectionsArgs>),

    /// Send with the rates and sizes of a recording
    #[command(after_help = "\
Examples:
  corelane bench send --json day.json
  corelane bench replay day.json --scale 2
  echo '30s 2000-20000 128:9,4KiB:1' > shape && corelane bench replay shape")]
    Replay(Box<ReplayArgs>),

    /// Compare two results that were written with --json
    Diff(DiffArgs),

    /// Serve without a broker: what this machine could reach at best
    #[command(after_help = "\
Example:
  corelane bench raw --mode write --core 0 --port 10999 &
  corelane bench send --broker 127.0.0.1:10999 --cores 1")]
    Raw(RawArgs),

    /// Measure what the disk does with writes that must last, and with reads
    Disk(DiskArgs),
}

/// Runs a command to its end.
pub fn run(command: BenchCommand) -> ExitCode {
    let good = match command {
        BenchCommand::Send(args) => measure::send(&args),
        BenchCommand::Consume(args) => measure::consume(&args),
        BenchCommand::E2e(args) => measure::e2e(&args),
        BenchCommand::Mixed(args) => measure::mixed(&args),
        BenchCommand::Soak(args) => measure::soak(&args),
        BenchCommand::Connections(args) => measure::connections(&args),
        BenchCommand::Replay(args) => measure::replay(&args),
        BenchCommand::Diff(args) => crate::report::diff(&args.before, &args.after).and_then(print),
        BenchCommand::Raw(args) => servers::raw(&args),
        BenchCommand::Disk(args) => servers::disk(&args),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Where even standard error is gone, there is nothing left to do about it.
            let _ = writeln!(io::stderr(), "corelane: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output. A reader that has gone is nobody's failure.
fn print(text: String) -> Result<bool, BenchError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(BenchError::io("cannot write to standard output")(error))
        }
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: BenchCommand,
    }

    #[test]
    fn clap_finds_no_fault() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn arguments_are_read() {
        let line = "bench send --broker a:1 --broker b:2 --connections 64 --in-flight 16 --size 128 --batch 16 \
                    --rate 5e4 --arrivals poisson --cores 1 --expect p99<2ms --duration 500ms --header json";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let BenchCommand::Send(args) = cli.command else {
            panic!("not send")
        };
        assert_eq!(args.target.broker, ["a:1", "b:2"]);
        assert_eq!((args.load.connections, args.load.in_flight), (64, 16));
        assert_eq!(args.load.rate, Some(50_000.0));
        assert_eq!(args.run.duration.as_millis(), 500);
        assert_eq!(args.output.expect.len(), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "bench send --size -3",
            "bench send --rate 0",
            "bench send --in-flight 0",
            "bench send --in-flight 100000",
            "bench send --expect p99",
            "bench raw --mode nap",
        ] {
            assert!(
                Cli::try_parse_from(line.split_whitespace()).is_err(),
                "{line}"
            );
        }
    }
}
