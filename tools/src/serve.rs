//! `corelane start` and `corelane nameserver`: configuration, logging, and then the broker's own code.

use std::io::IsTerminal;

use corelane_broker::config::{Config, LogLevel};
use tracing_subscriber::EnvFilter;

use crate::cli::{self, ServeArgs, StartArgs};
use crate::config;
use crate::output::{Failure, Output};

/// Runs the broker until it is told to stop.
pub fn start(args: &StartArgs, flags: &[(String, String)]) -> Result<(), Failure> {
    match prepare("start", &args.serve, flags)? {
        Some(config) => corelane_broker::run(&config, &args.skip_damage).map_err(Failure::from),
        None => Ok(()),
    }
}

/// Runs a NameServer until it is told to stop.
pub fn nameserver(args: &ServeArgs, flags: &[(String, String)]) -> Result<(), Failure> {
    match prepare("nameserver", args, flags)? {
        Some(config) => corelane_broker::run_nameserver(&config).map_err(Failure::from),
        None => Ok(()),
    }
}

/// The configuration to run with; `None` where only the help was wanted.
fn prepare(
    name: &str,
    args: &ServeArgs,
    flags: &[(String, String)],
) -> Result<Option<Config>, Failure> {
    if args.help_all {
        let mut command = cli::command(true);
        command.build();
        let help = command
            .find_subcommand_mut(name)
            .map(|command| command.render_help().to_string());
        Output::new(false).text(&help.unwrap_or_default())?;
        return Ok(None);
    }
    let loaded = config::load(args.config.as_deref(), &args.sets, flags)?;
    log_to_stderr(loaded.config.log_level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Some(loaded.config))
}

fn log_to_stderr(level: LogLevel) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.as_str()));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .with_target(false)
        .init();
}
