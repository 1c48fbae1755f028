//! KV config: small settings that clients and brokers keep at the NameServer, by namespace and key. The only state that
//! outlives a restart.

use std::collections::BTreeMap;

use corelane_wire::fastjson;
use serde::{Deserialize, Serialize};

/// The namespace that says in which queues the messages of an ordered topic lie.
pub(super) const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// The longest namespace, key or value.
const MAX_TEXT_BYTES: usize = 64 * 1024;

type Namespace = BTreeMap<String, String>;

/// All namespaces. Bounded by the number of entries.
#[derive(Debug, Default)]
pub(super) struct KvConfig {
    namespaces: BTreeMap<String, Namespace>,
    entries: usize,
    max_entries: usize,
}

/// The file, as Apache writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    config_table: BTreeMap<String, Namespace>,
}

impl KvConfig {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            max_entries,
            ..Self::default()
        }
    }

    /// Takes what [`KvConfig::to_bytes`] gave once, or Apache's `kvConfig.json`.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), fastjson::BodyError> {
        let stored: Stored = fastjson::from_slice(bytes)?;
        self.namespaces = stored.config_table;
        self.entries = self.namespaces.values().map(BTreeMap::len).sum();
        Ok(())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Borrowed<'a> {
            config_table: &'a BTreeMap<String, Namespace>,
        }
        let mut out = Vec::new();
        fastjson::push(
            &mut out,
            &Borrowed {
                config_table: &self.namespaces,
            },
            fastjson::Keys::Quoted,
        );
        out
    }

    /// Sets a value; `false` when there is no room for it.
    pub(super) fn put(&mut self, namespace: &str, key: &str, value: &str) -> bool {
        if [namespace, key, value]
            .iter()
            .any(|text| text.len() > MAX_TEXT_BYTES)
        {
            return false;
        }
        if let Some(old) = self
            .namespaces
            .get_mut(namespace)
            .and_then(|entries| entries.get_mut(key))
        {
            value.clone_into(old);
            return true;
        }
        if self.entries >= self.max_entries {
            return false;
        }
        self.entries += 1;
        self.namespaces
            .entry(namespace.to_owned())
            .or_default()
            .insert(key.to_owned(), value.to_owned());
        true
    }

    pub(super) fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.get(key).map(String::as_str)
    }

    /// Whether there was something to delete.
    pub(super) fn delete(&mut self, namespace: &str, key: &str) -> bool {
        let Some(entries) = self.namespaces.get_mut(namespace) else {
            return false;
        };
        let deleted = entries.remove(key).is_some();
        if deleted {
            self.entries -= 1;
        }
        if entries.is_empty() {
            self.namespaces.remove(namespace);
        }
        deleted
    }

    /// A namespace that has entries.
    pub(super) fn namespace(&self, namespace: &str) -> Option<&Namespace> {
        self.namespaces.get(namespace)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let mut kv = KvConfig::new(3);
        assert!(kv.put("n", "a", "1") && kv.put("n", "b", "\"2\"") && kv.put("m", "a", "3"));
        assert!(!kv.put("m", "b", "4"), "beyond the bound");
        assert!(kv.put("n", "a", "5"), "a new value takes no room");
        let mut again = KvConfig::new(3);
        again.restore(&kv.to_bytes()).unwrap();
        assert_eq!(again.get("n", "a"), Some("5"));
        assert_eq!(again.get("n", "b"), Some("\"2\""));
        assert!(again.delete("m", "a") && !again.delete("m", "a"));
        assert_eq!(again.namespace("m"), None);
        assert!(again.put("m", "b", "4"));
        assert!(again.restore(b"{\"configTable\":").is_err());
        assert_eq!(
            again.get("m", "b"),
            Some("4"),
            "a broken file changes nothing"
        );
    }
}
