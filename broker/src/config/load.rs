//! From the sources to a checked configuration: which source wins, and what is wrong with the others.

#![allow(
    clippy::disallowed_methods,
    reason = "reads the configuration file, once at start"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::{self, Entry};
use super::schema::{Config, KEYS, Key, closest, find};
use super::{ENV_FILE, ENV_PREFIX};

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// An argument of `--set`.
    Set,
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Why there is no configuration. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was expected.
        message: String,
    },
    /// There is no such key.
    #[error("{origin}: unknown key {key}{}", suggestion(*.closest))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// As it was written.
        key: String,
        /// The key that was probably meant.
        closest: Option<&'static str>,
    },
    /// A value breaks the rule of its key.
    #[error("{origin}: {key} = {value:?}: expected {expected}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key as it was written.
        key: String,
        /// The value as it was written.
        value: String,
        /// The rule in words.
        expected: String,
    },
    /// One source gives a key twice, perhaps under two names.
    #[error("{second}: {key} is given already at {first}")]
    Twice {
        /// The key.
        key: &'static str,
        /// Where it stands first.
        first: Origin,
        /// Where it stands again.
        second: Origin,
    },
    /// An argument of `--set` has no `=`.
    #[error("--set {0}: expected key=value")]
    NoValue(String),
    /// Keys contradict one another, or the host.
    #[error("{0}")]
    Conflict(String),
}

fn suggestion(closest: Option<&'static str>) -> String {
    match closest {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `corelane config keys` lists all keys".to_owned(),
    }
}

/// What a configuration is made of.
#[derive(Debug, Default)]
pub struct Sources {
    /// Name and text of the file. `.conf` and `.properties` are read as Apache's `broker.conf`, all else as TOML.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those without the prefix are passed over.
    pub env: Vec<(String, String)>,
    /// The arguments of `--set`, each `key=value`.
    pub sets: Vec<String>,
    /// Flags that were given: the name of the key, and the value.
    pub flags: Vec<(String, String)>,
}

/// A configuration, and what its sources had to say beside it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    /// Where each value stands that is not the default.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Each one line for the operator.
    pub warnings: Vec<String>,
}

impl Sources {
    /// Takes the file at `path`, or where that is `None` the one that the environment names, if it names one.
    pub fn read_file(&mut self, path: Option<&Path>) -> Result<(), ConfigError> {
        let named = self
            .env
            .iter()
            .find(|(name, path)| name == ENV_FILE && !path.is_empty())
            .map(|(_, path)| PathBuf::from(path));
        let Some(path) = path.map(Path::to_path_buf).or(named) else {
            return Ok(());
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                self.file = Some((path, text));
                Ok(())
            }
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    /// Joins the sources, the weakest first, and checks the whole.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loading = Loading::default();
        if let Some((path, text)) = &self.file {
            loading.file(path, text)?;
        }
        loading.env(&self.env)?;
        loading.next_source();
        for set in &self.sets {
            let (key, value) = set
                .split_once('=')
                .ok_or_else(|| ConfigError::NoValue(set.clone()))?;
            loading.required(key.trim(), value.trim(), Origin::Set)?;
        }
        loading.next_source();
        for (key, value) in &self.flags {
            let origin = Origin::Flag(format!("--{}", key.replace('_', "-")));
            loading.required(key, value, origin)?;
        }
        loading.finish()
    }
}

#[derive(Default)]
struct Loading {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    // What the source that is being read has given so far.
    given: BTreeMap<&'static str, Origin>,
    warnings: Vec<String>,
}

impl Loading {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let origin = |line| Origin::File {
            path: path.to_path_buf(),
            line,
        };
        let apache = path
            .extension()
            .is_some_and(|ending| ending == "conf" || ending == "properties");
        let entries = if apache {
            file::properties(text)
        } else {
            file::toml(text).map_err(|error| ConfigError::Syntax {
                path: path.to_path_buf(),
                line: error.line,
                message: error.message,
            })?
        };
        let mut unused = Vec::new();
        for Entry { line, key, value } in entries {
            match (find(&key), value) {
                (None, _) if apache => unused.push(key),
                (None, Err(what)) if what == "a table" => {
                    return Err(ConfigError::Syntax {
                        path: path.to_path_buf(),
                        line,
                        message: format!(
                            "[{key}]: keys stand outside of tables, one below the other"
                        ),
                    });
                }
                (None, _) => return Err(unknown(&key, origin(line))),
                (Some(known), Ok(value)) => self.take(known, &key, &value, origin(line))?,
                (Some(known), Err(what)) => return Err(wrong(known, &key, &what, origin(line))),
            }
        }
        if !unused.is_empty() {
            self.warnings.push(format!(
                "{}: not used here: {}",
                path.display(),
                unused.join(", ")
            ));
        }
        self.next_source();
        Ok(())
    }

    fn env(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(key) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            if name == ENV_FILE || set_by_kubernetes(key, value) {
                continue;
            }
            let key = key.to_ascii_lowercase();
            let origin = Origin::Env(name.clone());
            match KEYS.iter().find(|known| known.name == key) {
                Some(known) => self.take(known, known.name, value, origin)?,
                // The environment is shared with others, who may use the prefix too; but what looks like a slip is one.
                None if closest(&key).is_some() => return Err(unknown(&key, origin)),
                None => self.warnings.push(format!("{origin} is not a key")),
            }
        }
        Ok(())
    }

    fn required(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        match find(key) {
            Some(known) => self.take(known, key, value, origin),
            None => Err(unknown(key, origin)),
        }
    }

    fn take(
        &mut self,
        key: &'static Key,
        written: &str,
        value: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        if let Some(first) = self.given.insert(key.name, origin.clone()) {
            return Err(ConfigError::Twice {
                key: key.name,
                first,
                second: origin,
            });
        }
        if !self.config.set(key, value) {
            return Err(wrong(key, written, value, origin));
        }
        self.origins.insert(key.name, origin);
        Ok(())
    }

    fn next_source(&mut self) {
        self.given.clear();
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        // Who names NameServers has them; a second one in here would only be in the way of their port.
        if !self.config.nameserver_addresses.0.is_empty()
            && !self.origins.contains_key("nameserver_embedded")
        {
            self.config.nameserver_embedded = false;
        }
        self.config.check()?;
        Ok(Loaded {
            config: self.config,
            origins: self.origins,
            warnings: self.warnings,
        })
    }
}

fn unknown(key: &str, origin: Origin) -> ConfigError {
    ConfigError::Unknown {
        origin,
        key: key.to_owned(),
        closest: closest(key),
    }
}

fn wrong(key: &Key, written: &str, value: &str, origin: Origin) -> ConfigError {
    ConfigError::Value {
        origin,
        key: written.to_owned(),
        value: value.to_owned(),
        expected: key.rule.to_string(),
    }
}

/// Kubernetes gives every pod variables named after the services of its namespace, and one may be called `corelane`.
fn set_by_kubernetes(key: &str, value: &str) -> bool {
    let of_a_port = |key: &str| {
        key.strip_prefix("PORT_")
            .and_then(|rest| rest.chars().next())
            .is_some_and(|c| c.is_ascii_digit())
    };
    key == "SERVICE_HOST"
        || key.starts_with("SERVICE_PORT")
        || of_a_port(key)
        || (key == "PORT" && (value.starts_with("tcp://") || value.starts_with("udp://")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::value::Flush;
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str, text: &str) -> Sources {
        Sources {
            file: Some((name.into(), text.to_owned())),
            ..Sources::default()
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn refused(sources: &Sources) -> String {
        sources.load().unwrap_err().to_string()
    }

    #[test]
    fn the_strongest_source_wins() {
        let mut sources = file("c.toml", "port = 1001\n");
        let port = |sources: &Sources| sources.load().unwrap().config.port;
        assert_eq!(port(&sources), 1001);
        sources.env = pairs(&[("CORELANE_PORT", "1002"), ("PATH", "/bin")]);
        assert_eq!(port(&sources), 1002);
        sources.sets = vec!["listenPort=1003".to_owned()];
        assert_eq!(port(&sources), 1003);
        sources.flags = pairs(&[("port", "1004")]);
        let loaded = sources.load().unwrap();
        assert_eq!(loaded.config.port, 1004);
        assert_eq!(loaded.origins["port"], Origin::Flag("--port".to_owned()));
    }

    #[test]
    fn errors_say_where_and_what() {
        assert_eq!(
            refused(&file("c.toml", "\nflsh = 1\n")),
            "c.toml:2: unknown key flsh; did you mean flush?"
        );
        assert_eq!(
            refused(&file("c.toml", "port = 70000\n")),
            "c.toml:1: port = \"70000\": expected a whole number from 3 to 65534"
        );
        assert_eq!(
            refused(&file("c.toml", "port = [1]\n")),
            "c.toml:1: port = \"a list\": expected a whole number from 3 to 65534"
        );
        assert!(refused(&file("c.toml", "[limits]\nport = 1\n")).starts_with("c.toml:1: [limits]"));
        assert!(
            refused(&file("c.toml", "port = 1001\nlistenPort = 1002\n"))
                .contains("port is given already at c.toml:1")
        );
        assert!(refused(&file("c.toml", "port = \n")).starts_with("c.toml:1: "));
        let env = Sources {
            env: pairs(&[("CORELANE_FLUSH", "never")]),
            ..Sources::default()
        };
        assert_eq!(
            refused(&env),
            "environment variable CORELANE_FLUSH: flush = \"never\": expected sync or async"
        );
        let set = Sources {
            sets: vec!["shards".to_owned()],
            ..Sources::default()
        };
        assert_eq!(refused(&set), "--set shards: expected key=value");
    }

    #[test]
    fn a_broker_conf_is_taken_for_what_it_shares() {
        let text = "brokerClusterName = c1\nbrokerName=b\nbrokerId=0\ndeleteWhen=04\nfileReservedTime=48\n\
                    flushDiskType=ASYNC_FLUSH\nnamesrvAddr=ns1:9876;ns2:9876\nmapedFileSizeCommitLog=67108864\n\
                    messageDelayLevel=1s 5s\n";
        let loaded = file("conf/broker.conf", text).load().unwrap();
        let config = loaded.config;
        assert_eq!(
            (config.cluster_name.as_str(), config.broker_name.as_str()),
            ("c1", "b")
        );
        assert_eq!(
            (config.flush, config.retention_hours, config.segment_bytes),
            (Flush::Async, 48, 64 << 20)
        );
        assert_eq!(config.message_delay_levels.0, [1_000, 5_000]);
        assert!(!config.nameserver_embedded);
        assert_eq!(
            loaded.warnings,
            ["conf/broker.conf: not used here: brokerId, deleteWhen"]
        );
        assert!(
            refused(&file("broker.conf", "flushDiskType=MAYBE\n"))
                .starts_with("broker.conf:1: flushDiskType")
        );
    }

    #[test]
    fn the_embedded_nameserver_yields_to_named_ones_unless_told() {
        let mut sources = file("c.toml", "nameserver_addresses = \"ns:9876\"\n");
        assert!(!sources.load().unwrap().config.nameserver_embedded);
        sources.sets = vec!["nameserver_embedded=true".to_owned()];
        assert!(sources.load().unwrap().config.nameserver_embedded);
    }

    #[test]
    fn strangers_in_the_environment_are_passed_over() {
        let env = pairs(&[
            ("CORELANE_PORT", "tcp://10.0.0.1:10911"),
            ("CORELANE_PORT_10911_TCP_ADDR", "10.0.0.1"),
            ("CORELANE_SERVICE_HOST", "10.0.0.1"),
            ("CORELANE_JAVA_HOME", "/opt/java"),
        ]);
        let loaded = Sources {
            env,
            ..Sources::default()
        }
        .load()
        .unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(
            loaded.warnings,
            ["environment variable CORELANE_JAVA_HOME is not a key"]
        );
        let slip = Sources {
            env: pairs(&[("CORELANE_FLUHS", "async")]),
            ..Sources::default()
        };
        assert!(refused(&slip).contains("did you mean flush?"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut sources = Sources::default();
        assert!(sources.read_file(None).is_ok());
        let error = sources
            .read_file(Some(Path::new("no/such/file.toml")))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read the configuration no/such/file.toml: "),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn loading_never_panics(
            text in "([a-z_]{1,8}|port|cores|segment_bytes|listenPort)( = |=)(\"[^\"]*\"|[0-9]{1,20}|true)\n",
            set in any::<String>(),
            variable in "CORELANE_[A-Z_]{0,20}",
            value in any::<String>(),
        ) {
            for name in ["c.toml", "c.conf"] {
                let sources = Sources {
                    file: Some((name.into(), text.clone())),
                    env: vec![(variable.clone(), value.clone())],
                    sets: vec![set.clone()],
                    flags: vec![("cores".to_owned(), value.clone())],
                };
                let _ = sources.load().map_err(|error| error.to_string());
            }
        }

        #[test]
        fn every_number_in_bounds_is_taken(port in 3u16..=9_000, shards in 1u16..=64) {
            let sources = file("c.toml", &format!("port = {port}\nshards = {shards}\n"));
            let config = sources.load().unwrap().config;
            prop_assert_eq!((config.port, config.shards), (port, shards));
        }
    }
}
