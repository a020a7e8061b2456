//! Settings as people are shown them: effective value, default and origin, secrets masked.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use figment::value::Value;
use url::Url;

use super::registry::SettingRegistry;
use super::sources::Merged;

/// One setting as `waypost check` shows it: secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `broker.prefetch`
    pub key: String,
    /// The effective value.
    pub value: String,
    /// What it would be if nobody had set it.
    pub default: String,
    /// Two values are told apart by it, also where both are masked.
    pub(crate) print: u64,
    /// Where the value came from: `default`, a file's path, a variable's name or `the command line`.
    pub origin: String,
}

/// All of them, in the order of their keys.
pub(super) fn settings(known: &SettingRegistry, merged: &Merged) -> Vec<Setting> {
    let setting = |key: &str| Setting {
        key: key.to_owned(),
        value: merged.value(key).as_ref().map(shown).unwrap_or_default(),
        print: print_of(merged.value(key).as_ref()),
        default: known.default_of(key).map(shown).unwrap_or_default(),
        origin: merged.origin(key).to_owned(),
    };
    known.keys().map(setting).collect()
}

/// Never leaves the process, and tells nothing of the value.
fn print_of(value: Option<&Value>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) if text.contains("://") => {
            Url::parse(text).map_or_else(|_| "***".to_owned(), |url| masked(&url))
        }
        Value::String(_, text) if text.is_empty() => "none".to_owned(),
        Value::String(_, text) => text.clone(),
        Value::Bool(_, value) => value.to_string(),
        Value::Array(_, items) if items.is_empty() => "none".to_owned(),
        Value::Array(_, items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        // A token: the only table there is.
        Value::Dict(_, token) => {
            let part = |name| token.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{} ({})", part("name"), part("role"))
        }
        number => match number.to_i128() {
            Some(whole) => whole.to_string(),
            None => number.to_f64().map(|number| number.to_string()).unwrap_or_default(),
        },
    }
}

/// A URL without its password.
pub(super) fn masked(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for a URL without a host, which has no password either.
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    url.into()
}
