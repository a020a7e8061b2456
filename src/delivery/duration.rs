//! Durations as text with a unit: `250ms`, `5s`, `6h`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text of a duration.
pub fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The two largest units of it, in whole seconds: nobody counts the seconds of a day.
pub fn rough(duration: Duration) -> String {
    text(Duration::from_secs(duration.as_secs())).split(' ').take(2).collect::<Vec<_>>().join(" ")
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

/// A duration that keeps the text it was written as: `90s` is read again as `90s`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "Duration")]
pub struct TextDuration {
    text: String,
    value: Duration,
}

impl TextDuration {
    /// Reads a duration.
    ///
    /// # Errors
    /// Those of [`parse`].
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), value: parse(text)? })
    }

    /// How long it is.
    pub fn value(&self) -> Duration {
        self.value
    }
}

impl Serialize for TextDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for TextDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
