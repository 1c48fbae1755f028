//! The configuration: one schema of all keys, and the way from its sources to a checked [`Config`].
//!
//! A value comes from the first of: its flag, `--set key=value`, the environment, the file, the default. Whatever is
//! wrong (a key that does not exist, a value that breaks its rule, two keys that contradict one another) is an error that
//! says where it stands and what is expected; nothing is ignored in silence. Reading the file and asking the host for its
//! address are the only I/O in here; both have a function of their own.

mod change;
mod check;
mod example;
mod file;
mod host;
mod load;
mod schema;
mod value;

pub use change::ChangeError;
pub use check::Ports;
pub use example::example;
pub use load::{ConfigError, Loaded, Origin, Sources};
pub use schema::{Applies, Config, KEYS, Key, find};
pub use value::{Addresses, Cores, DelayLevels, Flush, LogLevel, Rule};

/// What the name of an environment variable of a key starts with.
pub const ENV_PREFIX: &str = "CORELANE_";

/// The environment variable that names the file; no key.
pub const ENV_FILE: &str = "CORELANE_CONFIG";
