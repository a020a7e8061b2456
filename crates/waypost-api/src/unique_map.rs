//! A JSON object in a request whose names must be unique.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use waypost_core::dead_letter::filter::LetterFilter;

/// The fields of a JSON object with unique names. A filter with two values of one field would be ambiguous.
///
/// The values are unchecked, so that the server can report all violations at once.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct UniqueMap(pub Map<String, Value>);

impl From<&LetterFilter> for UniqueMap {
    fn from(filter: &LetterFilter) -> Self {
        match serde_json::to_value(filter) {
            Ok(Value::Object(fields)) => Self(fields),
            // A filter is an object, and all its keys are strings.
            _ => Self(Map::new()),
        }
    }
}

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueMap(Map::new()))
    }
}

impl<'de> Visitor<'de> for UniqueMap {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            let value = if self.0.contains_key(&name) { map.next_value_seed(DuplicateKey)? } else { map.next_value()? };
            self.0.insert(name, value);
        }
        Ok(self)
    }
}

/// Deserializes the value of a repeated name, and fails, so that the error has the value's path.
struct DuplicateKey;

impl<'de> DeserializeSeed<'de> for DuplicateKey {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<Value, D::Error> {
        Err(D::Error::custom("is given twice: send it once"))
    }
}
