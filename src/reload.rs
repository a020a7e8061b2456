//! Compares settings at SIGHUP: those that a running worker applies, and those that need a restart.

use crate::config::{Config, Setting};

/// Keys of settings that can change while a worker runs. A key that ends with a dot stands for all keys below it.
const CHANGEABLE: [&str; 4] = ["log.level", "endpoint.maxConcurrency", "endpoint.rateLimit", "retry."];

/// The differences between two configurations, such as `retry.maxAttempts: 12 → 5`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes that a running worker applies.
    pub applied: Vec<String>,
    /// Changes that need a restart.
    pub needs_restart: Vec<String>,
}

impl Changes {
    /// If the values are masked (passwords and tokens), a change is listed without them.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        for (old, new) in old.settings.iter().zip(&new.settings).filter(|(old, new)| old.fingerprint != new.fingerprint)
        {
            let change = match old.value == new.value {
                true => format!("{}: changed", new.key),
                false => format!("{}: {} → {}", new.key, old.value, new.value),
            };
            let changes = if is_changeable(new) { &mut changes.applied } else { &mut changes.needs_restart };
            changes.push(change);
        }
        changes
    }
}

fn is_changeable(setting: &Setting) -> bool {
    CHANGEABLE.iter().any(|key| setting.key == *key || key.ends_with('.') && setting.key.starts_with(key))
}

/// The configuration in effect after a reload: changeable settings from `new`, all others from `old`.
pub fn merge(old: &Config, new: Config) -> Config {
    let settings = old.settings.iter().zip(new.settings);
    let settings = settings.map(|(old, new)| if is_changeable(&new) { new } else { old.clone() }).collect();
    let mut merged = Config { settings, retry: new.retry, ..old.clone() };
    (merged.log.level, merged.endpoint.limits) = (new.log.level, new.endpoint.limits);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(overrides: &[(&str, &str)]) -> Config {
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Config::load(None, &overrides).expect("settings")
    }

    #[test]
    fn only_changeable_settings_are_applied() {
        let old = config(&[("broker.url", "amqp://guest:secret@127.0.0.1:5672/%2f")]);
        let new = config(&[
            ("retry.maxAttempts", "3"),
            ("log.level", "debug"),
            ("endpoint.maxConcurrency", "7"),
            ("broker.prefix", "other"),
            ("endpoint.connectTimeout", "1s"),
            ("broker.url", "amqp://guest:other@127.0.0.1:5672/%2f"),
        ]);
        let changes = Changes::between(&old, &new);
        assert_eq!(
            changes.applied,
            ["endpoint.maxConcurrency: 64 → 7", "log.level: info → debug", "retry.maxAttempts: 12 → 3"]
        );
        let needs_restart =
            ["broker.prefix: waypost → other", "broker.url: changed", "endpoint.connectTimeout: 5s → 1s"];
        assert_eq!(changes.needs_restart, needs_restart);
        let merged = merge(&old, new);
        assert_eq!((merged.retry.max_attempts, merged.endpoint.limits.concurrency), (3, 7));
        assert_eq!(merged.broker.prefix, "waypost");
        assert_eq!(
            Changes::between(&merged, &old).needs_restart,
            [""; 0],
            "settings that need a restart do not change"
        );
    }
}
