//! Durations as text with a unit: `250ms`, `5s`, `6h`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Only the two largest units, in whole seconds: `2days 3h`.
pub fn approximate(duration: Duration) -> String {
    text(Duration::from_secs(duration.as_secs())).split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// # Errors
/// A sentence that says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| {
        format!("`{text}` is not a duration: write a number and a unit, such as \"250ms\", \"5s\" or \"6h\"")
    })
}

/// A duration that keeps its original text: `90s` stays `90s`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", rename = "Duration")]
pub struct TextDuration {
    text: String,
    value: Duration,
}

impl TextDuration {
    /// # Errors
    /// Those of [`parse`].
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), value: parse(text)? })
    }

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
