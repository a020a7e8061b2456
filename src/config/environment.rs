//! Settings from environment variables (`WAYPOST_BROKER__URL`) and flags.
//!
//! The type of the setting's default decides how the text is parsed: `123` is a number for `broker.prefetch` and text
//! for `broker.prefix`.

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use waypost_core::secret_encryption::Keyring;
use waypost_core::suggestion::normalize;

use super::registry::{SettingRegistry, unknown_setting};
use super::sources::ProvidedSetting;
use super::violation::ConfigViolation;

const PREFIX: &str = "WAYPOST_";

/// Variables that are not settings: options of client commands, and the secret key.
const NOT_SETTINGS: [&str; 4] = ["SERVER", "TOKEN", "CA_FILE", "SECRET_KEY"];

/// The keys can only be set in the environment, so that they are not in a file beside the encrypted data.
const SECRET_KEY: &str = "WAYPOST_SECRET_KEY";

/// The keys of `WAYPOST_SECRET_KEY`. Empty if it is not set or invalid.
pub(super) fn keyring(variables: &[(String, String)], violations: &mut Vec<ConfigViolation>) -> Keyring {
    let text = variables.iter().find(|(name, _)| name == SECRET_KEY).map_or("", |(_, text)| text);
    Keyring::parse(text).unwrap_or_else(|message| {
        violations.push(ConfigViolation::new(SECRET_KEY, message));
        Keyring::default()
    })
}

pub(super) fn read(
    variables: impl IntoIterator<Item = (String, String)>,
    registry: &SettingRegistry,
    violations: &mut Vec<ConfigViolation>,
) -> Vec<ProvidedSetting> {
    let mut variables: Vec<(String, String)> =
        variables.into_iter().filter(|(name, text)| is_setting(name, text)).collect();
    // Sorted, so that the order of errors is always the same.
    variables.sort();
    let mut provided: Vec<ProvidedSetting> = Vec::new();
    for (name, text) in variables {
        let Some(key) = key_of(&name, registry) else {
            let nearest = registry.nearest(&to_dotted(&name)).map(to_variable);
            violations.push(ConfigViolation::new(name, unknown_setting(nearest.as_deref())));
            continue;
        };
        if let Some(duplicate) = provided.iter().find(|setting| setting.key == key) {
            let message = format!("is also set by {}: unset one of the two", duplicate.origin);
            violations.push(ConfigViolation::new(key, message).from(&name));
            continue;
        }
        provided.extend(provide(key, &text, &name, registry, violations));
    }
    provided
}

pub(super) fn overrides(
    flags: &[(&str, String)],
    registry: &SettingRegistry,
    violations: &mut Vec<ConfigViolation>,
) -> Vec<ProvidedSetting> {
    flags.iter().filter_map(|(key, text)| provide(key, text, "the command line", registry, violations)).collect()
}

/// The setting from text. Adds a violation if it is invalid.
fn provide(
    key: &str,
    text: &str,
    origin: &str,
    registry: &SettingRegistry,
    violations: &mut Vec<ConfigViolation>,
) -> Option<ProvidedSetting> {
    match parse_value(key, text, registry) {
        Ok(value) => Some(ProvidedSetting { key: key.to_owned(), value, origin: origin.to_owned() }),
        Err(message) => {
            violations.push(ConfigViolation::new(key, message).from(origin));
            None
        }
    }
}

fn is_setting(name: &str, text: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| !NOT_SETTINGS.contains(&rest) && !is_kubernetes_variable(rest, text))
}

/// Whether Kubernetes set this variable for a service named `waypost` (`WAYPOST_PORT`, `WAYPOST_SERVICE_HOST`) or
/// `waypost-metrics` (`WAYPOST_METRICS_PORT_9090_TCP_ADDR`). It sets them in every pod of the namespace.
fn is_kubernetes_variable(rest: &str, text: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let other_service_port = rest.ends_with("_PORT") && text.contains("://");
    let has_port_and_protocol = |protocol| rest.contains("_PORT_") && rest.contains(protocol);
    rest == "PORT"
        || rest.starts_with("PORT_")
        || rest.starts_with("SERVICE_")
        || rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || other_service_port
        || ["_TCP", "_UDP", "_SCTP"].into_iter().any(has_port_and_protocol)
}

/// The key of a variable's setting. Case and single underscores are ignored: `ALLOW_HTTP` equals `ALLOWHTTP`.
fn key_of<'a>(name: &str, registry: &'a SettingRegistry) -> Option<&'a str> {
    let (group, setting) = name.strip_prefix(PREFIX)?.split_once("__")?;
    let (group, setting) = (normalize(group), normalize(setting));
    registry
        .keys()
        .find(|key| key.split_once('.').is_some_and(|(g, s)| normalize(g) == group && normalize(s) == setting))
}

/// `WAYPOST_BROKER__URL` → `BROKER.URL`
fn to_dotted(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).replace("__", ".")
}

/// `egress.allowHttp` → `WAYPOST_EGRESS__ALLOW_HTTP`
fn to_variable(key: &str) -> String {
    let mut name = PREFIX.to_owned();
    for c in key.chars() {
        match c {
            '.' => name.push_str("__"),
            'A'..='Z' => name.extend(['_', c]),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

fn parse_value(key: &str, text: &str, registry: &SettingRegistry) -> Result<Value, String> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("is not UTF-8 text".to_owned());
    }
    // Secrets mounted from files often end with a newline. Surrounding space is never part of a value.
    let text = text.trim();
    match registry.default_of(key)? {
        Value::Bool(..) => boolean(text),
        Value::Num(..) => number(text),
        Value::Array(_, items) => list(text, items.first()),
        _ => Ok(Value::from(text)),
    }
}

fn boolean(text: &str) -> Result<Value, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(Value::from(true)),
        "false" | "0" => Ok(Value::from(false)),
        _ => Err("must be true or false".to_owned()),
    }
}

fn number(text: &str) -> Result<Value, String> {
    let whole = text.parse::<i64>().map(Value::from);
    whole.or_else(|_| text.parse::<f64>().map(Value::from)).map_err(|_| format!("`{text}` is not a number"))
}

/// `a,b`, or a TOML or JSON array. `sample` is an item of the default, where that has any.
fn list(text: &str, sample: Option<&Value>) -> Result<Value, String> {
    if text.starts_with('[') {
        let toml = || Toml::from_str::<Dict>(&format!("list = {text}")).ok()?.remove("list");
        let json = || serde_json::from_str::<Value>(text).ok();
        return toml().or_else(json).ok_or_else(|| "is neither a TOML nor a JSON array".to_owned());
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items: Result<Vec<Value>, String> = match sample {
        Some(Value::Num(..)) => items.map(number).collect(),
        _ => Ok(items.map(Value::from).collect()),
    };
    items.map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_underscores_of_a_variable_are_ignored() {
        let registry = SettingRegistry::new();
        let cases = [
            ("WAYPOST_EGRESS__ALLOW_HTTP", Some("egress.allowHttp")),
            ("WAYPOST_EGRESS__ALLOWHTTP", Some("egress.allowHttp")),
            ("WAYPOST_EGRESS__allowHttp", Some("egress.allowHttp")),
            ("WAYPOST_DEAD_LETTERS__RETENTION", Some("deadLetters.retention")),
            ("WAYPOST_DEADLETTERS__RETENTION", Some("deadLetters.retention")),
            ("WAYPOST_TELEMETRY__OTLP_ENDPOINT", Some("telemetry.otlpEndpoint")),
            ("WAYPOST_BROKER_URL", None),
            ("WAYPOST_BROKER", None),
            ("WAYPOST_BROKER__URL__X", None),
            ("WAYPOST_", None),
        ];
        for (name, key) in cases {
            assert_eq!(key_of(name, &registry), key, "{name}");
        }
    }

    #[test]
    fn every_setting_has_a_variable() {
        let registry = SettingRegistry::new();
        for key in registry.keys() {
            assert_eq!(key_of(&to_variable(key), &registry), Some(key));
        }
    }

    #[test]
    fn other_variables_are_not_settings() {
        for (name, text) in [
            ("PATH", "/bin"),
            ("waypost_broker__url", "x"),
            ("WAYPOST_SERVER", "http://localhost"),
            ("WAYPOST_TOKEN", "x"),
            ("WAYPOST_SECRET_KEY", "x"),
            ("WAYPOST_SERVICE_HOST", "10.0.0.1"),
            ("WAYPOST_SERVICE_PORT_HTTP", "8080"),
            ("WAYPOST_PORT", "tcp://10.0.0.1:8080"),
            ("WAYPOST_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("WAYPOST_METRICS_SERVICE_HOST", "10.0.0.1"),
            ("WAYPOST_METRICS_SERVICE_PORT", "9090"),
            ("WAYPOST_METRICS_PORT", "tcp://10.0.0.1:9090"),
            ("WAYPOST_METRICS_PORT_9090_TCP_PROTO", "tcp"),
        ] {
            assert!(!is_setting(name, text), "{name}");
        }
        for (name, text) in [("WAYPOST_HTTP_PORT", "8080"), ("WAYPOST_BROKER__URL", "amqp://x"), ("WAYPOST_X", "")] {
            assert!(is_setting(name, text), "{name}");
        }
    }

    #[test]
    fn text_is_parsed_by_the_type_of_the_setting() {
        let registry = SettingRegistry::new();
        let parse = |key: &str, text: &str| parse_value(key, text, &registry);
        assert_eq!(parse("broker.prefix", "123").unwrap(), Value::from("123"));
        assert_eq!(parse("broker.prefix", " true\n").unwrap(), Value::from("true"));
        assert_eq!(parse("broker.prefetch", "123").unwrap(), Value::from(123_i64));
        assert_eq!(parse("retry.multiplier", "1.5").unwrap(), Value::from(1.5));
        assert_eq!(parse("egress.allowHttp", "TRUE").unwrap(), Value::from(true));
        assert_eq!(parse("egress.allowHttp", "0").unwrap(), Value::from(false));
        let hosts = Value::from(vec!["127.0.0.0/8", "localhost"]);
        assert_eq!(parse("egress.allow", "127.0.0.0/8, localhost,").unwrap(), hosts);
        assert_eq!(parse("egress.allow", r#"["127.0.0.0/8","localhost"]"#).unwrap(), hosts);
        assert_eq!(parse("egress.allow", "['127.0.0.0/8', 'localhost']").unwrap(), hosts);
        assert_eq!(parse("egress.allow", "").unwrap(), Value::from(Vec::<String>::new()));
        assert_eq!(parse("retry.permanentStatuses", "404,410").unwrap(), Value::from(vec![404_i64, 410]));
        assert_eq!(parse("retry.permanentStatuses", "[404, 410]").unwrap(), Value::from(vec![404_i64, 410]));
        let json = parse("http.tokens", r#"[{"name": "ci", "role": "viewer"}]"#).unwrap();
        let toml = parse("http.tokens", r#"[{name = "ci", role = "viewer"}]"#).unwrap();
        assert_eq!(json, toml);

        for (key, text) in [
            ("broker.prefetch", "many"),
            ("broker.prefetch", ""),
            ("egress.allowHttp", "yes"),
            ("egress.allow", "[localhost"),
            ("retry.permanentStatuses", "404,x"),
            ("broker.url", "\u{fffd}"),
            ("broker.nothing", "1"),
        ] {
            assert!(parse(key, text).is_err(), "{key} {text}");
        }
    }

    #[test]
    fn two_variables_for_one_setting_are_refused() {
        let registry = SettingRegistry::new();
        let mut violations = Vec::new();
        let names = ["WAYPOST_EGRESS__ALLOW_HTTP", "WAYPOST_EGRESS__ALLOWHTTP"];
        let provided = read(names.map(|name| (name.to_owned(), "true".to_owned())), &registry, &mut violations);
        assert_eq!(provided.len(), 1);
        assert_eq!(
            violations[0].to_string(),
            "egress.allowHttp: is also set by WAYPOST_EGRESS__ALLOWHTTP: unset one of the two \
             (from WAYPOST_EGRESS__ALLOW_HTTP)"
        );
    }
}
