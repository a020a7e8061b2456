//! Settings as they are written, before anything of them is checked: the shape of `waypost.toml`, and what the
//! layers (defaults, file, environment, flags) make of it together.

use std::io;
use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

use super::ConfigFault;

/// The origin of a value that nobody gave.
pub(super) const DEFAULT: &str = "default";

/// The whole of `waypost.toml`. An empty text is the same as none where a setting is optional: TOML has no null, and a
/// variable has to be able to take back what the file says.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) broker: RawBroker,
    pub(super) http: RawHttp,
    pub(super) store: RawStore,
    pub(super) retry: RawRetry,
    pub(super) dead_letters: RawDeadLetters,
    pub(super) endpoint: RawEndpoint,
    pub(super) egress: RawEgress,
    pub(super) shutdown: RawShutdown,
    pub(super) log: RawLog,
    pub(super) telemetry: RawTelemetry,
}

// Whole numbers are i64 throughout, so that one out of range is refused by us, with the range, and not by serde.

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawBroker {
    pub(super) url: String,
    pub(super) prefix: String,
    pub(super) shards: i64,
    pub(super) prefetch: i64,
}

impl Default for RawBroker {
    fn default() -> Self {
        Self {
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
            prefix: "waypost".to_owned(),
            shards: 1,
            prefetch: 512,
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawHttp {
    pub(super) listen: String,
    pub(super) tokens: Vec<RawToken>,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            tokens: Vec::new(),
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a table with name, role and sha256"
)]
pub(super) struct RawToken {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) sha256: String,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawStore {
    pub(super) path: String,
}

impl Default for RawStore {
    fn default() -> Self {
        Self {
            path: "./data".to_owned(),
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawRetry {
    pub(super) initial_delay: String,
    pub(super) multiplier: f64,
    pub(super) max_delay: String,
    pub(super) jitter: f64,
    pub(super) max_attempts: i64,
    pub(super) max_age: String,
    pub(super) permanent_statuses: Vec<i64>,
}

impl Default for RawRetry {
    /// `RetryPolicy::default()` as a person writes it; a test holds the two together.
    fn default() -> Self {
        Self {
            initial_delay: "5s".to_owned(),
            multiplier: 3.0,
            max_delay: "6h".to_owned(),
            jitter: 0.2,
            max_attempts: 12,
            max_age: "48h".to_owned(),
            permanent_statuses: vec![410],
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawDeadLetters {
    pub(super) retention: String,
}

impl Default for RawDeadLetters {
    fn default() -> Self {
        Self {
            retention: "30d".to_owned(),
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawEndpoint {
    pub(super) max_concurrency: i64,
    pub(super) connect_timeout: String,
}

impl Default for RawEndpoint {
    fn default() -> Self {
        Self {
            max_concurrency: 64,
            connect_timeout: "5s".to_owned(),
        }
    }
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawEgress {
    pub(super) allow_http: bool,
    pub(super) allow: Vec<String>,
    pub(super) proxy: String,
    pub(super) ca_file: String,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawShutdown {
    pub(super) grace: String,
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self {
            grace: "25s".to_owned(),
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) level: String,
    pub(super) format: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: "auto".to_owned(),
        }
    }
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawTelemetry {
    pub(super) otlp_endpoint: String,
}

/// The settings there are and their defaults, read off [`RawConfig`] so that the list can't drift from it.
pub(super) struct Known {
    tree: Dict,
    keys: Vec<String>,
}

impl Known {
    pub(super) fn new() -> Self {
        // Plain structs always serialise. Did they not, no key would be known, and every test of this room would fail.
        let tree = Value::serialize(RawConfig::default())
            .ok()
            .and_then(Value::into_dict)
            .unwrap_or_default();
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

    /// The default of a setting; `None` where there is no such setting.
    pub(super) fn default_of(&self, key: &str) -> Option<&Value> {
        let (group, setting) = key.split_once('.')?;
        self.tree.get(group)?.as_dict()?.get(setting)
    }

    /// The setting or group that was probably meant.
    pub(super) fn nearest(&self, unknown: &str) -> Option<&str> {
        let candidates = || self.tree.keys().map(String::as_str).chain(self.keys());
        let letters = letters(unknown);
        let same = candidates().find(|key| self::letters(key) == letters);
        // The right name in the wrong group, or in none.
        let elsewhere = || {
            self.keys()
                .find(|key| self::letters(last(key)) == self::letters(last(unknown)))
        };
        let close = || {
            let distances = candidates().map(|key| (distance(&self::letters(key), &letters), key));
            distances
                .filter(|(distance, _)| *distance <= letters.len() / 3)
                .min()
                .map(|(_, key)| key)
        };
        same.or_else(elsewhere).or_else(close)
    }
}

/// What of a name counts when names are compared: neither case nor `_`, `-` and `.`.
pub(super) fn letters(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// The fewest letters to add, drop or replace that make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The sentence about a setting that does not exist.
pub(super) fn unknown(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("there is no such setting, did you mean {nearest}?"),
        None => "there is no such setting: waypost.example.toml lists them all".to_owned(),
    }
}

/// A value somebody gave for a setting that exists.
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: Value,
    /// A file's path, a variable's name, or the command line.
    pub(super) origin: String,
}

/// What a file says. Only a file that cannot be read is an error; what is wrong in it is a fault.
pub(super) fn read_file(
    path: &Path,
    known: &Known,
    faults: &mut Vec<ConfigFault>,
) -> io::Result<Vec<Given>> {
    let text = std::fs::read_to_string(path)?;
    let origin = path.display().to_string();
    let given = match Toml::from_str::<Dict>(&text) {
        Ok(written) => given_in(written, &origin, known, faults),
        Err(error) => {
            // The error's own display quotes the line, which may hold a password.
            let place = error
                .span()
                .map(|span| place(&text, span.start))
                .unwrap_or_default();
            let message = format!("{place}{}", error.message().replace('\n', ", "));
            faults.push(ConfigFault::new(origin, message));
            Vec::new()
        }
    };
    Ok(given)
}

/// `line 3, column 7: `
fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("line {line}, column {column}: ")
}

fn given_in(
    written: Dict,
    origin: &str,
    known: &Known,
    faults: &mut Vec<ConfigFault>,
) -> Vec<Given> {
    let mut given = Vec::new();
    for (group, value) in written {
        match (known.tree.contains_key(&group), value) {
            (true, Value::Dict(_, settings)) => {
                for (setting, value) in settings {
                    let key = format!("{group}.{setting}");
                    if known.default_of(&key).is_some() {
                        given.push(Given {
                            key,
                            value,
                            origin: origin.to_owned(),
                        });
                    } else {
                        let message = unknown(known.nearest(&key));
                        faults.push(ConfigFault::new(key, message).from(origin));
                    }
                }
            }
            (true, _) => {
                let message =
                    format!("is a group of settings: write [{group}], and the settings below it");
                faults.push(ConfigFault::new(group, message).from(origin));
            }
            (false, _) => {
                let message = unknown(known.nearest(&group));
                faults.push(ConfigFault::new(group, message).from(origin));
            }
        }
    }
    given
}

/// All layers together.
pub(super) struct Merged {
    pub(super) raw: RawConfig,
    figment: Figment,
}

impl Merged {
    /// The effective value of a setting.
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        self.figment.find_value(key).ok()
    }

    /// Where the effective value came from.
    pub(super) fn origin(&self, key: &str) -> &str {
        self.figment
            .find_metadata(key)
            .map_or(DEFAULT, |metadata| &metadata.name)
    }
}

/// Lays what was given over the defaults; later ones win. A value of the wrong type is a fault and left out.
pub(super) fn merge(known: &Known, given: Vec<Given>, faults: &mut Vec<ConfigFault>) -> Merged {
    let defaults = Figment::from(Layer {
        origin: DEFAULT.to_owned(),
        values: known.tree.clone(),
    });
    let mut merged = Merged {
        raw: RawConfig::default(),
        figment: defaults.clone(),
    };
    for given in given {
        let nested = figment::util::nest(&given.key, given.value);
        let layer = Layer {
            origin: given.origin.clone(),
            values: nested.into_dict().unwrap_or_default(),
        };
        // figment stops at its first error: each value is tried on its own, so that all the wrong ones are found.
        match defaults.clone().merge(&layer).extract::<RawConfig>() {
            Ok(_) => merged.figment = merged.figment.merge(layer),
            Err(error) => {
                let key = if error.path.is_empty() {
                    given.key
                } else {
                    dotted(&error.path)
                };
                faults.push(ConfigFault::new(key, wrong_type(&error.kind)).from(&given.origin));
            }
        }
    }
    match merged.figment.extract() {
        Ok(raw) => merged.raw = raw,
        // Can't happen, as each value was accepted on its own.
        Err(error) => faults.push(ConfigFault::new("settings", error.to_string())),
    }
    merged
}

struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// `http.tokens[0].role`
fn dotted(path: &[String]) -> String {
    let mut dotted = String::new();
    for segment in path {
        if segment.bytes().all(|byte| byte.is_ascii_digit()) {
            dotted.push_str(&format!("[{segment}]"));
        } else {
            if !dotted.is_empty() {
                dotted.push('.');
            }
            dotted.push_str(segment);
        }
    }
    dotted
}

/// figment's error in our words. Text that was found is not repeated: it may be a secret in the wrong place.
fn wrong_type(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let expected = match expected.as_str() {
                "i64" => "a whole number",
                "f64" => "a number",
                "a boolean" => "true or false",
                "a string" => "text in quotes",
                "a sequence" => "a list",
                other => other,
            };
            format!("must be {expected}, not {}", type_name(found))
        }
        Kind::UnknownField(field, fields) => {
            format!("`{field}` is not known here: write {}", fields.join(", "))
        }
        Kind::MissingField(field) => format!("`{field}` is missing"),
        other => other.to_string(),
    }
}

fn type_name(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "text".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_known_by_its_group_and_name() {
        let known = Known::new();
        let keys: Vec<&str> = known.keys().collect();
        assert_eq!(keys.len(), 25);
        for key in [
            "broker.url",
            "deadLetters.retention",
            "egress.allowHttp",
            "egress.caFile",
            "telemetry.otlpEndpoint",
        ] {
            assert!(keys.contains(&key), "{key}");
        }
    }

    #[test]
    fn what_was_meant_is_found() {
        let known = Known::new();
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

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("log", "log", 0),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
