//! The keys of the configuration as flags.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use corelane_broker::config::{Config, KEYS, Key, Rule};

/// The flags that the short help of `start` shows.
pub const OF_START: &[&str] = &[
    "data_dir",
    "port",
    "nameserver_port",
    "nameserver_addresses",
    "shards",
    "cores",
    "flush",
];

/// The flags that the short help of `nameserver` shows.
pub const OF_NAMESERVER: &[&str] = &["data_dir", "listen_address", "nameserver_port"];

/// Gives a command a flag for every key; those that are not `shown` only with `all`.
pub fn add_flags(command: Command, shown: &[&str], all: bool) -> Command {
    let defaults = Config::default();
    KEYS.iter().fold(command, |command, key| {
        command.arg(flag(key, &defaults).hide(!all && !shown.contains(&key.name)))
    })
}

fn flag(key: &'static Key, defaults: &Config) -> Arg {
    let default = defaults.text(key.name).filter(|text| !text.is_empty());
    let mut help = key.doc_line().trim_end_matches('.').to_owned();
    if let Some(default) = default {
        help.push_str(&format!(" [default: {default}]"));
    }
    let arg = Arg::new(key.name)
        .long(key.flag())
        .value_name(value_name(&key.rule))
        .help(help);
    match key.rule {
        Rule::Bool => arg.num_args(0..=1).default_missing_value("true"),
        _ => arg,
    }
}

fn value_name(rule: &Rule) -> &'static str {
    match rule {
        Rule::Number { unit: "", .. } => "N",
        Rule::Number { unit, .. } => match *unit {
            "ms" => "MS",
            "secs" => "SECS",
            _ => "HOURS",
        },
        Rule::Bytes { .. } => "BYTES",
        Rule::Bool => "true|false",
        Rule::OneOf(_) => "WORD",
        Rule::Name => "NAME",
        Rule::Form(_) => "TEXT",
    }
}

/// The keys that were given as flags of the subcommand, with their values.
pub fn flags(matches: &ArgMatches) -> Vec<(String, String)> {
    let Some((_, matches)) = matches.subcommand() else {
        return Vec::new();
    };
    KEYS.iter()
        .filter(|key| {
            matches!(
                matches.value_source(key.name),
                Some(ValueSource::CommandLine)
            )
        })
        .filter_map(|key| {
            Some((
                key.name.to_owned(),
                matches.get_one::<String>(key.name)?.clone(),
            ))
        })
        .collect()
}
