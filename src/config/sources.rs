//! The layers: what a file says, and all that was given laid over the defaults.

use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::fault::ConfigFault;
use super::raw::RawConfig;
use super::registry::{DEFAULT, SettingRegistry, unknown};

/// A value somebody gave for a setting that exists.
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

/// What a file says.
pub(super) fn read_file(path: &Path, known: &SettingRegistry, faults: &mut Vec<ConfigFault>) -> Vec<ProvidedSetting> {
    let origin = path.display().to_string();
    let written = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}")).and_then(parse);
    match written {
        Ok(written) => settings_in(written, &origin, known, faults),
        Err(message) => {
            faults.push(ConfigFault::new(origin, message));
            Vec::new()
        }
    }
}

fn parse(text: String) -> Result<Dict, String> {
    Toml::from_str::<Dict>(&text).map_err(|error| {
        // The error's own display quotes the line, which may hold a password.
        let place = error.span().map(|span| place(&text, span.start)).unwrap_or_default();
        format!("{place}{}", error.message().replace('\n', ", "))
    })
}

/// `line 3, column 7: `
fn place(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: ")
}

fn settings_in(
    written: Dict,
    origin: &str,
    known: &SettingRegistry,
    faults: &mut Vec<ConfigFault>,
) -> Vec<ProvidedSetting> {
    let mut given = Vec::new();
    let mut fault = |key, message: String| faults.push(ConfigFault::new(key, message).from(origin));
    for (group, value) in written {
        match value {
            _ if !known.is_group(&group) => {
                let message = unknown(known.nearest(&group));
                fault(group, message);
            }
            Value::Dict(_, settings) => {
                for (setting, value) in settings {
                    let key = format!("{group}.{setting}");
                    match known.default_of(&key) {
                        Ok(_) => given.push(ProvidedSetting { key, value, origin: origin.to_owned() }),
                        Err(message) => fault(key, message),
                    }
                }
            }
            _ => {
                let message = format!("is a group of settings: write [{group}], and the settings below it");
                fault(group, message);
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
        self.figment.find_metadata(key).map_or(DEFAULT, |metadata| &metadata.name)
    }
}

/// Lays what was given over the defaults; later ones win. A value of the wrong type is a fault and left out.
pub(super) fn merge(known: &SettingRegistry, given: Vec<ProvidedSetting>, faults: &mut Vec<ConfigFault>) -> Merged {
    let mut merged = Merged { raw: RawConfig::default(), figment: Figment::from(known) };
    // figment stops at its first error: one value is added at a time, so that all the wrong ones are found.
    for given in given {
        let figment = merged.figment.clone().merge(&given);
        match figment.extract() {
            Ok(raw) => merged = Merged { raw, figment },
            Err(error) => {
                let key = if error.path.is_empty() { given.key } else { dotted(&error.path) };
                faults.push(ConfigFault::new(key, wrong_type(&error.kind)).from(&given.origin));
            }
        }
    }
    merged
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
        Kind::UnknownField(field, fields) => format!("`{field}` is not known here: write {}", fields.join(", ")),
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
