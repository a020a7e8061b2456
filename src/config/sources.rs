//! Reads the settings file, and merges all provided settings into the defaults.

use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::raw::RawConfig;
use super::registry::{DEFAULT, SettingRegistry, unknown_setting};
use super::violation::ConfigViolation;

/// A value for an existing setting.
pub(super) struct ProvidedSetting {
    pub(super) key: String,
    pub(super) value: Value,
    /// A file's path, a variable's name, or the command line.
    pub(super) origin: String,
}

impl Provider for ProvidedSetting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, self.value.clone());
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

pub(super) fn read_file(
    path: &Path,
    registry: &SettingRegistry,
    violations: &mut Vec<ConfigViolation>,
) -> Vec<ProvidedSetting> {
    let origin = path.display().to_string();
    let result = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}")).and_then(parse);
    match result {
        Ok(groups) => settings_in(groups, &origin, registry, violations),
        Err(message) => {
            violations.push(ConfigViolation::new(origin, message));
            Vec::new()
        }
    }
}

fn parse(text: String) -> Result<Dict, String> {
    Toml::from_str::<Dict>(&text).map_err(|error| {
        // The error's `Display` quotes the line, which may have a password.
        let position = error.span().map(|span| line_and_column(&text, span.start)).unwrap_or_default();
        format!("{position}{}", error.message().replace('\n', ", "))
    })
}

/// `line 3, column 7: `
fn line_and_column(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: ")
}

fn settings_in(
    groups: Dict,
    origin: &str,
    registry: &SettingRegistry,
    violations: &mut Vec<ConfigViolation>,
) -> Vec<ProvidedSetting> {
    let mut provided = Vec::new();
    let mut violation = |key, message: String| violations.push(ConfigViolation::new(key, message).from(origin));
    for (group, value) in groups {
        match value {
            _ if !registry.is_group(&group) => {
                let message = unknown_setting(registry.nearest(&group));
                violation(group, message);
            }
            Value::Dict(_, settings) => {
                for (setting, value) in settings {
                    let key = format!("{group}.{setting}");
                    match registry.default_of(&key) {
                        Ok(_) => provided.push(ProvidedSetting { key, value, origin: origin.to_owned() }),
                        Err(message) => violation(key, message),
                    }
                }
            }
            _ => {
                let message = format!("is a group of settings: write [{group}], and the settings below it");
                violation(group, message);
            }
        }
    }
    provided
}

/// All sources merged.
pub(super) struct Merged {
    pub(super) raw: RawConfig,
    figment: Figment,
}

impl Merged {
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        self.figment.find_value(key).ok()
    }

    /// The origin of the effective value.
    pub(super) fn origin(&self, key: &str) -> &str {
        self.figment.find_metadata(key).map_or(DEFAULT, |metadata| &metadata.name)
    }
}

/// Merges provided settings into the defaults. Later settings win. A value of the wrong type is an error and is
/// skipped.
pub(super) fn merge(
    registry: &SettingRegistry,
    provided: Vec<ProvidedSetting>,
    violations: &mut Vec<ConfigViolation>,
) -> Merged {
    let mut merged = Merged { raw: RawConfig::default(), figment: Figment::from(registry) };
    // figment stops at its first error. Values are merged one at a time, so that all errors are found.
    for setting in provided {
        let figment = merged.figment.clone().merge(&setting);
        match figment.extract() {
            Ok(raw) => merged = Merged { raw, figment },
            Err(error) => {
                let key = if error.path.is_empty() { setting.key } else { to_dotted(&error.path) };
                violations.push(ConfigViolation::new(key, type_error(&error.kind)).from(&setting.origin));
            }
        }
    }
    merged
}

/// `http.tokens[0].role`
fn to_dotted(path: &[String]) -> String {
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

/// The message for a figment error. It does not repeat text, which may be a secret in the wrong setting.
fn type_error(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let expected = match expected.as_str() {
                "i64" => "a whole number",
                "f64" => "a number",
                "a boolean" => "true or false",
                "a string" => "text in quotes",
                "a sequence" => "a list",
                other => other,
            };
            format!("must be {expected}, not {}", type_name(actual))
        }
        Kind::UnknownField(field, fields) => format!("unknown field `{field}`: the fields are {}", fields.join(", ")),
        Kind::MissingField(field) => format!("`{field}` is missing"),
        other => other.to_string(),
    }
}

fn type_name(actual: &Actual) -> String {
    match actual {
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
