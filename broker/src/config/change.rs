//! Other values for a broker that runs: `key=value` lines, as tools send them.

use super::file;
use super::schema::{Applies, Config, closest, find};

/// Why a change is refused. The configuration stays as it was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such key.
    #[error("unknown key {key}{}", closest.map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// As it was written.
        key: String,
        /// The key that was probably meant.
        closest: Option<&'static str>,
    },
    /// The key is read when the broker starts.
    #[error(
        "{0} takes effect at the next start only: set it in the configuration and start the broker anew"
    )]
    AtRestart(String),
    /// A value breaks the rule of its key.
    #[error("{key} = {value:?}: expected {expected}")]
    Value {
        /// As it was written.
        key: String,
        /// As it was written.
        value: String,
        /// The rule in words.
        expected: String,
    },
    /// Keys contradict one another.
    #[error("{0}")]
    Conflict(String),
}

impl Config {
    /// This configuration with other values. A value that a key has already is no change, whatever the key.
    pub fn changed(&self, text: &str) -> Result<Self, ChangeError> {
        let mut config = self.clone();
        for entry in file::properties(text) {
            let written = entry.key;
            let value = entry.value.unwrap_or_default();
            let Some(key) = find(&written) else {
                return Err(ChangeError::Unknown {
                    closest: closest(&written),
                    key: written,
                });
            };
            let before = config.text(key.name);
            if !config.set(key, &value) {
                return Err(ChangeError::Value {
                    key: written,
                    value,
                    expected: key.rule.to_string(),
                });
            }
            if key.applies == Applies::AtRestart && config.text(key.name) != before {
                return Err(ChangeError::AtRestart(written));
            }
        }
        config
            .check()
            .map_err(|error| ChangeError::Conflict(error.to_string()))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_applies_at_once_is_changed_and_the_rest_is_refused() {
        let config = Config::default();
        let changed = config.changed("maxMessageSize=2097152\ntransaction_check_max = 3\n");
        assert_eq!(
            changed
                .as_ref()
                .map(|c| (c.max_message_bytes, c.transaction_check_max)),
            Ok((2 << 20, 3))
        );
        assert_eq!(config.changed("listenPort=10911"), Ok(config.clone()));
        assert_eq!(
            config.changed("listenPort=10921"),
            Err(ChangeError::AtRestart("listenPort".to_owned()))
        );
        assert!(matches!(
            config.changed("recall=perhaps"),
            Err(ChangeError::Value { .. })
        ));
        assert!(matches!(
            config.changed("no_such_key=1"),
            Err(ChangeError::Unknown { .. })
        ));
    }
}
