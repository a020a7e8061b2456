//! Settings for display: effective value, default and origin, with masked secrets.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use figment::value::Value;
use url::Url;

use super::registry::SettingRegistry;
use super::sources::Merged;

/// One setting as shown by `waypost check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `broker.prefetch`
    pub key: String,
    /// The effective value. Secrets are masked.
    pub value: String,
    pub default: String,
    /// Differs between two values even if both are masked.
    pub(crate) fingerprint: u64,
    /// The source of the value: `default`, a file's path, a variable's name or `the command line`.
    pub origin: String,
}

/// All settings, ordered by key.
pub(super) fn settings(registry: &SettingRegistry, merged: &Merged) -> Vec<Setting> {
    let setting = |key: &str| Setting {
        key: key.to_owned(),
        value: merged.value(key).as_ref().map(display).unwrap_or_default(),
        fingerprint: fingerprint(merged.value(key).as_ref()),
        default: registry.default_of(key).map(display).unwrap_or_default(),
        origin: merged.origin(key).to_owned(),
    };
    registry.keys().map(setting).collect()
}

/// Never leaves the process.
fn fingerprint(value: Option<&Value>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&value).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

fn display(value: &Value) -> String {
    match value {
        Value::String(_, text) if text.contains("://") => {
            Url::parse(text).map_or_else(|_| "***".to_owned(), |url| mask_password(&url))
        }
        Value::String(_, text) if text.is_empty() => "none".to_owned(),
        Value::String(_, text) => text.clone(),
        Value::Bool(_, value) => value.to_string(),
        Value::Array(_, items) if items.is_empty() => "none".to_owned(),
        Value::Array(_, items) => items.iter().map(display).collect::<Vec<_>>().join(", "),
        // A token. Other settings are not tables.
        Value::Dict(_, token) => {
            let field = |name| token.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{} ({})", field("name"), field("role"))
        }
        number => match number.to_i128() {
            Some(whole) => whole.to_string(),
            None => number.to_f64().map(|number| number.to_string()).unwrap_or_default(),
        },
    }
}

/// The URL with `***` as its password.
pub(super) fn mask_password(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for a URL without a host, which has no password.
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "***".to_owned();
    }
    url.into()
}
