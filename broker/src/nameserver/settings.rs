//! What an administrator can change while the NameServer runs (UPDATE_NAMESRV_CONFIG), under Apache's names. A restart
//! forgets it.

/// The switches that have an effect here, with Apache's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// Whether the list of all topics is given out.
    pub enable_all_topic_list: bool,
    /// Whether routes carry the ORDER_TOPIC_CONFIG of their topic.
    pub order_message_enable: bool,
    /// Whether brokers are told the ORDER_TOPIC_CONFIG when they register.
    pub return_order_topic_config_to_broker: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enable_all_topic_list: true,
            order_message_enable: false,
            return_order_topic_config_to_broker: true,
        }
    }
}

/// Why properties are not taken; none of them is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Places of files, which nobody may move from afar.
    Forbidden(String),
    /// Not UTF-8, or not `key=value`.
    Malformed,
}

impl Settings {
    /// Takes `key=value` lines. Keys that mean nothing here are passed over, as Apache does.
    pub(super) fn update(&mut self, properties: &[u8]) -> Result<(), Refused> {
        let text = std::str::from_utf8(properties).map_err(|_| Refused::Malformed)?;
        let mut changed = *self;
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = line.split_once('=').ok_or(Refused::Malformed)?;
            let (key, on) = (key.trim(), value.trim() == "true");
            match key {
                "kvConfigPath" | "configStorePath" | "configBlackList" => {
                    return Err(Refused::Forbidden(key.to_owned()));
                }
                "enableAllTopicList" => changed.enable_all_topic_list = on,
                "orderMessageEnable" => changed.order_message_enable = on,
                "returnOrderTopicConfigToBroker" => {
                    changed.return_order_topic_config_to_broker = on
                }
                _ => {}
            }
        }
        *self = changed;
        Ok(())
    }

    /// All switches as properties, in the order of their names.
    pub(super) fn to_properties(self) -> String {
        let Self {
            enable_all_topic_list,
            order_message_enable,
            return_order_topic_config_to_broker,
        } = self;
        format!(
            "enableAllTopicList={enable_all_topic_list}\n\
             orderMessageEnable={order_message_enable}\n\
             returnOrderTopicConfigToBroker={return_order_topic_config_to_broker}\n"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_taken() {
        let changed = Settings {
            order_message_enable: true,
            enable_all_topic_list: false,
            ..Settings::default()
        };
        let mut settings = Settings::default();
        settings.update(changed.to_properties().as_bytes()).unwrap();
        assert_eq!(settings, changed);
        settings.update(b"listenPort=1\n# nothing\n\n").unwrap();
        assert_eq!(settings, changed);
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let mut settings = Settings::default();
        let forbidden = settings.update(b"orderMessageEnable=true\nkvConfigPath=/etc/x");
        assert_eq!(
            forbidden,
            Err(Refused::Forbidden("kvConfigPath".to_owned()))
        );
        assert_eq!(settings.update(b"\xff=1"), Err(Refused::Malformed));
        assert_eq!(settings, Settings::default());
    }
}
