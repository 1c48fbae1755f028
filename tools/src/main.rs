//! `corelane`: starts the broker and the NameServer, and speaks to running ones.
//!
//! A command prints what was asked for on standard output and everything else on standard error. It ends with 0, with 1
//! when it failed (one line says why and what to do), or with 2 when its arguments make no sense.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "outside the broker threads may block and ask the time"
)]

mod apache_store;
mod cli;
mod config;
mod consume;
mod data_directory;
mod dump;
mod group;
mod import;
mod keys;
mod message;
mod output;
mod produce;
mod serve;
mod topic;
mod verify;

use std::process::ExitCode;

use clap::FromArgMatches;

use cli::{Cli, Command};
use output::{Failure, Output};

fn main() -> ExitCode {
    if std::env::args_os().len() == 1 {
        return finish(Output::new(false).text(&cli::command(false).render_help().to_string()));
    }
    let matches = cli::command(false).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    run(cli.command, &matches)
}

fn run(command: Command, matches: &clap::ArgMatches) -> ExitCode {
    finish(match command {
        Command::Start(args) => serve::start(&args, &keys::flags(matches)),
        Command::Nameserver(args) => serve::nameserver(&args, &keys::flags(matches)),
        Command::Topic(command) => topic::run(command),
        Command::Group(command) => group::run(command),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Config(command) => config::run(&command),
        // It reports for itself: a bound that was missed is no failure of the command.
        Command::Bench(command) => return corelane_bench::command::run(command),
        Command::Version { json } => version(json),
    })
}

fn version(json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let protocol = corelane_wire::code::VERSION;
    let mut out = Output::new(json);
    out.record(
        &serde_json::json!({ "version": version, "protocolVersion": protocol }),
        &format!("corelane {version} (RocketMQ protocol version {protocol})"),
    )
}

fn finish(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Said(message)) => {
            output::complain(&message);
            ExitCode::from(1)
        }
    }
}
