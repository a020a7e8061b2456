//! The list of all settings, and suggestions for unknown names.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use waypost_core::suggestion::{closest, normalize};

use super::raw::RawConfig;

/// The origin of default values.
pub(super) const DEFAULT: &str = "default";

/// All settings with their defaults, derived from [`RawConfig`].
pub(super) struct SettingRegistry {
    tree: Dict,
    keys: Vec<String>,
}

impl SettingRegistry {
    pub(super) fn new() -> Self {
        // Plain structs always serialize. Otherwise no setting would be known, and every test of this module would
        // fail.
        let tree = Value::serialize(RawConfig::default()).ok().and_then(Value::into_dict).unwrap_or_default();
        let mut keys = Vec::new();
        for (group, settings) in &tree {
            let settings = settings.as_dict().into_iter().flat_map(Dict::keys);
            keys.extend(settings.map(|setting| format!("{group}.{setting}")));
        }
        Self { tree, keys }
    }

    /// The keys of all settings: `broker.prefetch`, `broker.prefix`, …
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    pub(super) fn is_group(&self, name: &str) -> bool {
        self.tree.contains_key(name)
    }

    /// # Errors
    /// The message of [`unknown_setting`].
    pub(super) fn default_of(&self, key: &str) -> Result<&Value, String> {
        let find = |(group, setting)| self.tree.get(group)?.as_dict()?.get(setting);
        key.split_once('.').and_then(find).ok_or_else(|| unknown_setting(self.nearest(key)))
    }

    /// The setting or group with the most similar name, if any is similar.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        let candidates = || self.tree.keys().map(String::as_str).chain(self.keys());
        let normalized = normalize(name);
        let same = candidates().find(|key| normalize(key) == normalized);
        // The right name in a wrong group or without a group.
        let other_group = || self.keys().find(|key| normalize(last_part(key)) == normalize(last_part(name)));
        same.or_else(other_group).or_else(|| closest(name, candidates()))
    }
}

/// Provides the defaults.
impl Provider for SettingRegistry {
    fn metadata(&self) -> Metadata {
        Metadata::named(DEFAULT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree.clone()))
    }
}

/// The message for a setting that does not exist.
pub(super) fn unknown_setting(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("there is no such setting, did you mean {nearest}?"),
        None => "there is no such setting: waypost.example.toml lists them all".to_owned(),
    }
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_group_and_name() {
        let registry = SettingRegistry::new();
        let keys: Vec<&str> = registry.keys().collect();
        assert_eq!(keys.len(), 32);
        for key in
            ["broker.url", "deadLetters.retention", "egress.allowHttp", "egress.caFile", "telemetry.otlpEndpoint"]
        {
            assert!(keys.contains(&key), "{key}");
        }
    }

    #[test]
    fn nearest_finds_similar_names() {
        let registry = SettingRegistry::new();
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
        for (name, nearest) in cases {
            assert_eq!(registry.nearest(name), nearest, "{name}");
        }
    }
}
