//! `corelane config`: the example file, the check of a file, the list of keys.

use std::path::Path;

use corelane_broker::config::{Config, ENV_PREFIX, KEYS, Loaded, Sources, example};
use serde_json::json;

use crate::cli::ConfigCommand;
use crate::output::{Failure, Output, complain};

/// Runs one of the commands.
pub fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Example => Output::new(false).text(&example()),
        ConfigCommand::Check { file, sets, json } => check(file.as_deref(), sets, *json),
        ConfigCommand::Keys { json } => keys(*json),
    }
}

/// The configuration of a file, the environment, `--set` and flags.
pub fn load(
    file: Option<&Path>,
    sets: &[String],
    flags: &[(String, String)],
) -> Result<Loaded, Failure> {
    let env = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect();
    let mut sources = Sources {
        env,
        sets: sets.to_vec(),
        flags: flags.to_vec(),
        ..Sources::default()
    };
    sources.read_file(file).map_err(Failure::from)?;
    sources.load().map_err(Failure::from)
}

fn check(file: Option<&Path>, sets: &[String], json: bool) -> Result<(), Failure> {
    let loaded = load(file, sets, &[])?;
    for warning in &loaded.warnings {
        complain(warning);
    }
    let rows: Vec<_> = KEYS
        .iter()
        .filter_map(|key| {
            let origin = loaded.origins.get(key.name)?.to_string();
            Some([
                json!(key.name),
                json!(loaded.config.text(key.name)),
                json!(origin),
            ])
        })
        .collect();
    if rows.is_empty() && !json {
        return Output::new(false).text("every key has its default\n");
    }
    Output::new(json).table(["key", "value", "from"], &rows)
}

fn keys(json: bool) -> Result<(), Failure> {
    let defaults = Config::default();
    if json {
        let mut out = Output::new(true);
        for key in KEYS {
            let object = json!({
                "key": key.name,
                "flag": format!("--{}", key.flag()),
                "environment": key.env(),
                "brokerConf": key.aliases,
                "default": defaults.text(key.name),
                "value": key.rule.to_string(),
                "unit": key.rule.unit(),
                "doc": key.doc_line(),
            });
            out.record(&object, "")?;
        }
        return Ok(());
    }
    let rows: Vec<_> = KEYS
        .iter()
        .map(|key| {
            [
                json!(key.name),
                json!(defaults.text(key.name)),
                json!(key.rule.to_string()),
                json!(key.aliases.join(" ")),
            ]
        })
        .collect();
    Output::new(false).table(["key", "default", "value", "in broker.conf"], &rows)
}
