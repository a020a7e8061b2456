//! Settings that a running worker takes over at SIGHUP, and those for which it has to be started anew.

use crate::config::{Config, Setting};

/// What can change while a worker runs: these keys, and all below those that end with a dot.
const CHANGEABLE: [&str; 4] = ["log.level", "endpoint.maxConcurrency", "endpoint.rateLimit", "retry."];

/// How settings differ from those a worker runs with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// `retry.maxAttempts: 12 → 5`, for each that is taken over.
    pub taken: Vec<String>,
    /// The same for each that is not.
    pub refused: Vec<String>,
}

impl Changes {
    /// From `old` to `new`. Of what is masked in both, a password or a token, it is said that it has changed.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        for (was, is) in old.settings.iter().zip(&new.settings).filter(|(was, is)| was.print != is.print) {
            let words = match was.value == is.value {
                true => format!("{}: changed", is.key),
                false => format!("{}: {} → {}", is.key, was.value, is.value),
            };
            let changes = if is_changeable(is) { &mut changes.taken } else { &mut changes.refused };
            changes.push(words);
        }
        changes
    }
}

fn is_changeable(setting: &Setting) -> bool {
    CHANGEABLE.iter().any(|key| setting.key == *key || key.ends_with('.') && setting.key.starts_with(key))
}

/// The settings in effect: `new` where they can be taken over, else `old`.
pub fn merged(old: &Config, new: Config) -> Config {
    let settings = old.settings.iter().zip(new.settings);
    let settings = settings.map(|(was, is)| if is_changeable(&is) { is } else { was.clone() }).collect();
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
    fn what_can_change_is_told_from_what_cannot() {
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
            changes.taken,
            ["endpoint.maxConcurrency: 64 → 7", "log.level: info → debug", "retry.maxAttempts: 12 → 3"]
        );
        let refused = ["broker.prefix: waypost → other", "broker.url: changed", "endpoint.connectTimeout: 5s → 1s"];
        assert_eq!(changes.refused, refused);
        let merged = merged(&old, new);
        assert_eq!((merged.retry.max_attempts, merged.endpoint.limits.concurrency), (3, 7));
        assert_eq!(merged.broker.prefix, "waypost");
        assert_eq!(Changes::between(&merged, &old).refused, [""; 0], "what was refused is not in effect");
    }
}
