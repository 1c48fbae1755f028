//! The load generator alone, for a machine that runs no broker.

use std::process::ExitCode;

use clap::Parser;

/// Measures brokers that speak the RocketMQ protocol.
#[derive(Parser)]
#[command(name = "corelane-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: corelane_bench::command::BenchCommand,
}

fn main() -> ExitCode {
    corelane_bench::command::run(Cli::parse().command)
}
