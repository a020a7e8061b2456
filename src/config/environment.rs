//! Settings from text: variables (`WAYPOST_BROKER__URL`) and flags.
//!
//! Text has no type of its own. What it becomes is decided by the type of the setting's default: `123` is a number for
//! `broker.prefetch` and text for `broker.prefix`.

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use super::fault::ConfigFault;
use super::registry::{SettingRegistry, letters, unknown};
use super::sources::ProvidedSetting;
use crate::delivery::secret_encryption::Keyring;

/// What every variable of ours begins with.
const PREFIX: &str = "WAYPOST_";

/// Read by the client commands, and a secret that is no setting.
const NOT_SETTINGS: [&str; 4] = ["SERVER", "TOKEN", "CA_FILE", "SECRET_KEY"];

/// Only from the environment: a key does not lie in a file beside what it opens.
const SECRET_KEY: &str = "WAYPOST_SECRET_KEY";

/// The keys of secrets; none where nobody gave any.
pub(super) fn keyring(variables: &[(String, String)], faults: &mut Vec<ConfigFault>) -> Keyring {
    let text = variables.iter().find(|(name, _)| name == SECRET_KEY).map_or("", |(_, text)| text);
    Keyring::read(text).unwrap_or_else(|message| {
        faults.push(ConfigFault::new(SECRET_KEY, message));
        Keyring::default()
    })
}

/// What the environment says.
pub(super) fn read(
    variables: impl IntoIterator<Item = (String, String)>,
    known: &SettingRegistry,
    faults: &mut Vec<ConfigFault>,
) -> Vec<ProvidedSetting> {
    let mut ours: Vec<(String, String)> = variables.into_iter().filter(|(name, text)| is_setting(name, text)).collect();
    // The system gives them in no order; faults are easier to read in one.
    ours.sort();
    let mut given: Vec<ProvidedSetting> = Vec::new();
    for (name, text) in ours {
        let Some(key) = key_of(&name, known) else {
            let nearest = known.nearest(&dotted(&name)).map(variable);
            faults.push(ConfigFault::new(name, unknown(nearest.as_deref())));
            continue;
        };
        if let Some(twin) = given.iter().find(|twin| twin.key == key) {
            let message = format!("is given by {} as well: unset one of the two", twin.origin);
            faults.push(ConfigFault::new(key, message).from(&name));
            continue;
        }
        given.extend(give(key, &text, &name, known, faults));
    }
    given
}

/// What the flags say.
pub(super) fn overrides(
    flags: &[(&str, String)],
    known: &SettingRegistry,
    faults: &mut Vec<ConfigFault>,
) -> Vec<ProvidedSetting> {
    flags.iter().filter_map(|(key, text)| give(key, text, "the command line", known, faults)).collect()
}

fn give(
    key: &str,
    text: &str,
    origin: &str,
    known: &SettingRegistry,
    faults: &mut Vec<ConfigFault>,
) -> Option<ProvidedSetting> {
    match value(key, text, known) {
        Ok(value) => Some(ProvidedSetting { key: key.to_owned(), value, origin: origin.to_owned() }),
        Err(message) => {
            faults.push(ConfigFault::new(key, message).from(origin));
            None
        }
    }
}

fn is_setting(name: &str, text: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| !NOT_SETTINGS.contains(&rest) && !is_of_kubernetes(rest, text))
}

/// Whether Kubernetes made this variable for a service named `waypost` (`WAYPOST_PORT`, `WAYPOST_SERVICE_HOST`) or
/// `waypost-metrics` (`WAYPOST_METRICS_PORT_9090_TCP_ADDR`): it gives them to every pod of the namespace, unasked.
fn is_of_kubernetes(rest: &str, text: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let port_of_another = rest.ends_with("_PORT") && text.contains("://");
    let protocol = |protocol| rest.contains("_PORT_") && rest.contains(protocol);
    rest == "PORT"
        || rest.starts_with("PORT_")
        || rest.starts_with("SERVICE_")
        || rest.ends_with("_SERVICE_HOST")
        || rest.contains("_SERVICE_PORT")
        || port_of_another
        || ["_TCP", "_UDP", "_SCTP"].into_iter().any(protocol)
}

/// The setting a variable names. Case and single underscores do not count: `ALLOW_HTTP` and `ALLOWHTTP` are one.
fn key_of<'a>(name: &str, known: &'a SettingRegistry) -> Option<&'a str> {
    let (group, setting) = name.strip_prefix(PREFIX)?.split_once("__")?;
    let (group, setting) = (letters(group), letters(setting));
    known.keys().find(|key| key.split_once('.').is_some_and(|(g, s)| letters(g) == group && letters(s) == setting))
}

/// `WAYPOST_BROKER__URL` → `BROKER.URL`
fn dotted(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).replace("__", ".")
}

/// `egress.allowHttp` → `WAYPOST_EGRESS__ALLOW_HTTP`
fn variable(key: &str) -> String {
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

/// The value `text` is for a setting.
fn value(key: &str, text: &str, known: &SettingRegistry) -> Result<Value, String> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("is not UTF-8 text".to_owned());
    }
    // Secrets mounted from files often end with a newline. No setting has space around it that means something.
    let text = text.trim();
    match known.default_of(key)? {
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
    fn a_variable_names_a_setting_whatever_its_case_and_underscores() {
        let known = SettingRegistry::new();
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
            assert_eq!(key_of(name, &known), key, "{name}");
        }
    }

    #[test]
    fn every_setting_has_a_variable() {
        let known = SettingRegistry::new();
        for key in known.keys() {
            assert_eq!(key_of(&variable(key), &known), Some(key));
        }
    }

    #[test]
    fn what_others_put_there_is_no_setting() {
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
    fn text_becomes_what_the_setting_is() {
        let known = SettingRegistry::new();
        let read = |key: &str, text: &str| value(key, text, &known);
        assert_eq!(read("broker.prefix", "123").unwrap(), Value::from("123"));
        assert_eq!(read("broker.prefix", " true\n").unwrap(), Value::from("true"));
        assert_eq!(read("broker.prefetch", "123").unwrap(), Value::from(123_i64));
        assert_eq!(read("retry.multiplier", "1.5").unwrap(), Value::from(1.5));
        assert_eq!(read("egress.allowHttp", "TRUE").unwrap(), Value::from(true));
        assert_eq!(read("egress.allowHttp", "0").unwrap(), Value::from(false));
        let hosts = Value::from(vec!["127.0.0.0/8", "localhost"]);
        assert_eq!(read("egress.allow", "127.0.0.0/8, localhost,").unwrap(), hosts);
        assert_eq!(read("egress.allow", r#"["127.0.0.0/8","localhost"]"#).unwrap(), hosts);
        assert_eq!(read("egress.allow", "['127.0.0.0/8', 'localhost']").unwrap(), hosts);
        assert_eq!(read("egress.allow", "").unwrap(), Value::from(Vec::<String>::new()));
        assert_eq!(read("retry.permanentStatuses", "404,410").unwrap(), Value::from(vec![404_i64, 410]));
        assert_eq!(read("retry.permanentStatuses", "[404, 410]").unwrap(), Value::from(vec![404_i64, 410]));
        let json = read("http.tokens", r#"[{"name": "ci", "role": "viewer"}]"#).unwrap();
        let toml = read("http.tokens", r#"[{name = "ci", role = "viewer"}]"#).unwrap();
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
            assert!(read(key, text).is_err(), "{key} {text}");
        }
    }

    #[test]
    fn two_variables_for_one_setting_are_refused() {
        let known = SettingRegistry::new();
        let mut faults = Vec::new();
        let names = ["WAYPOST_EGRESS__ALLOW_HTTP", "WAYPOST_EGRESS__ALLOWHTTP"];
        let given = read(names.map(|name| (name.to_owned(), "true".to_owned())), &known, &mut faults);
        assert_eq!(given.len(), 1);
        assert_eq!(
            faults[0].to_string(),
            "egress.allowHttp: is given by WAYPOST_EGRESS__ALLOWHTTP as well: unset one of the two \
             (from WAYPOST_EGRESS__ALLOW_HTTP)"
        );
    }
}
