//! The commands and their arguments, as clap reads and explains them.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::keys;

/// A message broker that unmodified Apache RocketMQ clients connect to.
#[derive(Parser)]
#[command(
    name = "corelane",
    version,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  corelane start                        a broker and a NameServer in this process, data in ./corelane-data
  echo hello | corelane produce Demo    send a message
  corelane consume Demo --count 1       receive it",
    long_about = "\
A message broker that unmodified Apache RocketMQ clients connect to.

`corelane start` runs everything in one process: a NameServer on port 9876, where clients ask for brokers, and one broker
per core from port 10911 on. The other commands are clients: they ask the NameServer that --nameserver (or the
environment variable NAMESRV_ADDR) names."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the broker, and a NameServer beside it
    #[command(
        long_about = "\
Runs the broker, and a NameServer beside it unless others are named, until SIGINT or SIGTERM.

Every key of the configuration is a flag, an environment variable (CORELANE_PORT=10911) and an argument of --set. \
--help-all shows them all, `corelane config example` explains them.",
        after_help = "\
Examples:
  corelane start
  corelane start --config corelane.toml --set segment_bytes=256MiB
  corelane start --config /opt/rocketmq/conf/broker.conf      what Apache's file and we have in common is taken
  corelane start --nameserver-addresses ns1:9876\\;ns2:9876    register with these, and run none here"
    )]
    Start(ServeArgs),

    /// Run a NameServer alone
    #[command(
        long_about = "\
Runs a NameServer alone until SIGINT or SIGTERM. Several of them know nothing of each other: brokers register with each, \
and clients ask any.",
        after_help = "\
Examples:
  corelane nameserver
  corelane nameserver --nameserver-port 9877 --data-dir /var/lib/corelane-ns"
    )]
    Nameserver(ServeArgs),

    /// Show and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Print the version
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub struct ServeArgs {
    /// Read this file: TOML, or Apache's broker.conf by its ending. Without it the file that CORELANE_CONFIG names
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set any key, also by its name in broker.conf; may be given often
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Show every flag
    #[arg(long)]
    pub help_all: bool,
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print an annotated example file with every key and its default
    #[command(after_help = "\
Example:
  corelane config example > corelane.toml")]
    Example,

    /// Check a file and the environment, and print what differs from the defaults
    Check {
        /// The file: TOML, or Apache's broker.conf by its ending. Without it the file that CORELANE_CONFIG names
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,

        /// Set any key on top; may be given often
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },

    /// List all keys
    Keys {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The whole command line; with `all_flags` its help shows every key of the configuration.
pub fn command(all_flags: bool) -> clap::Command {
    Cli::command()
        .mut_subcommand("start", |start| {
            keys::add_flags(start, keys::OF_START, all_flags)
        })
        .mut_subcommand("nameserver", |nameserver| {
            keys::add_flags(nameserver, keys::OF_NAMESERVER, all_flags)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        command(true).debug_assert();
    }

    #[test]
    fn every_key_is_a_flag() {
        let mut args = vec!["corelane".to_owned(), "start".to_owned()];
        for key in corelane_broker::config::KEYS {
            args.push(format!("--{}=x", key.flag()));
        }
        let matches = command(false).try_get_matches_from(args).unwrap();
        assert_eq!(
            keys::flags(&matches).len(),
            corelane_broker::config::KEYS.len()
        );
        assert!(matches!(
            Cli::from_arg_matches(&matches).unwrap().command,
            Command::Start(_)
        ));
    }

    #[test]
    fn a_switch_needs_no_value() {
        let matches = command(false)
            .try_get_matches_from(["corelane", "start", "--recall", "--port", "5"])
            .unwrap();
        let flags = keys::flags(&matches);
        assert!(
            flags.contains(&("recall".to_owned(), "true".to_owned())),
            "{flags:?}"
        );
        assert!(
            flags.contains(&("port".to_owned(), "5".to_owned())),
            "{flags:?}"
        );
    }
}
