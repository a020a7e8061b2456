//! The settings there are, and which one was meant by a name that is none of them.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::raw::RawConfig;

/// The origin of a value that nobody gave.
pub(super) const DEFAULT: &str = "default";

/// The settings there are and their defaults, read off [`RawConfig`] so that the list can't drift from it.
pub(super) struct SettingRegistry {
    tree: Dict,
    keys: Vec<String>,
}

impl SettingRegistry {
    pub(super) fn new() -> Self {
        // Plain structs always serialise. Did they not, no key would be known, and every test of this room would fail.
        let tree = Value::serialize(RawConfig::default()).ok().and_then(Value::into_dict).unwrap_or_default();
        let mut keys = Vec::new();
        for (group, settings) in &tree {
            let settings = settings.as_dict().into_iter().flat_map(Dict::keys);
            keys.extend(settings.map(|setting| format!("{group}.{setting}")));
        }
        Self { tree, keys }
    }

    /// Every setting: `broker.prefetch`, `broker.prefix`, …
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    pub(super) fn is_group(&self, name: &str) -> bool {
        self.tree.contains_key(name)
    }

    /// The default of a setting.
    ///
    /// # Errors
    /// The sentence about a setting that does not exist.
    pub(super) fn default_of(&self, key: &str) -> Result<&Value, String> {
        let find = |(group, setting)| self.tree.get(group)?.as_dict()?.get(setting);
        key.split_once('.').and_then(find).ok_or_else(|| unknown(self.nearest(key)))
    }

    /// The setting or group that was probably meant.
    pub(super) fn nearest(&self, unknown: &str) -> Option<&str> {
        let candidates = || self.tree.keys().map(String::as_str).chain(self.keys());
        let meant = letters(unknown);
        let same = candidates().find(|key| letters(key) == meant);
        // The right name in the wrong group, or in none.
        let elsewhere = || self.keys().find(|key| letters(last(key)) == letters(last(unknown)));
        let close = || {
            let distances = candidates().map(|key| (strsim::levenshtein(&letters(key), &meant), key));
            distances.filter(|(distance, _)| *distance <= meant.len() / 3).min().map(|(_, key)| key)
        };
        same.or_else(elsewhere).or_else(close)
    }
}

/// The lowest layer: the defaults.
impl Provider for SettingRegistry {
    fn metadata(&self) -> Metadata {
        Metadata::named(DEFAULT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree.clone()))
    }
}

/// The sentence about a setting that does not exist.
pub(super) fn unknown(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("there is no such setting, did you mean {nearest}?"),
        None => "there is no such setting: waypost.example.toml lists them all".to_owned(),
    }
}

/// What of a name counts when names are compared: neither case nor `_`, `-` and `.`.
pub(super) fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_known_by_its_group_and_name() {
        let known = SettingRegistry::new();
        let keys: Vec<&str> = known.keys().collect();
        assert_eq!(keys.len(), 32);
        for key in
            ["broker.url", "deadLetters.retention", "egress.allowHttp", "egress.caFile", "telemetry.otlpEndpoint"]
        {
            assert!(keys.contains(&key), "{key}");
        }
    }

    #[test]
    fn what_was_meant_is_found() {
        let known = SettingRegistry::new();
        let cases = [
            ("broker.perfix", Some("broker.prefix")),
            ("brokr", Some("broker")),
            ("egress.allow_http", Some("egress.allowHttp")),
            ("prefetch", Some("broker.prefetch")),
            ("http.prefetch", Some("broker.prefetch")),
            ("brokerurl", Some("broker.url")),
            ("log.lvl", Some("log.level")),
            ("kafka.topic", None),
            ("x", None),
            ("", None),
        ];
        for (unknown, meant) in cases {
            assert_eq!(known.nearest(unknown), meant, "{unknown}");
        }
    }
}
