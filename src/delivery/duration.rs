//! Durations as text with a unit: `250ms`, `5s`, `6h`. A serde `with` module.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// The text of a duration.
pub fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Reads a duration.
///
/// # Errors
/// A sentence saying what was expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        format!("`{text}` is not a duration: write a number and a unit, such as \"250ms\", \"5s\" or \"6h\"")
    })
}

/// For `#[serde(with)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*duration))
}

/// For `#[serde(with)]`.
///
/// # Errors
/// Where the value is no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same for a duration that may be absent.
pub mod optional {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse, text};

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_str(&text(*duration)),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// Where the value is neither null nor a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| parse(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}
