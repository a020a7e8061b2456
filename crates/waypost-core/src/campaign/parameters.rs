//! A webhook's extra parameters, stored as the JSON text that requests send.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Maximum nesting of arrays and objects. Documents allow less. serde_json reads at most 128 levels, and other JSON
/// around the parameters needs the rest.
const MAX_DEPTH: usize = 64;

/// Ordered extra parameters of a request body.
///
/// Stored as text, because many small parsed values take twenty times as much memory. Clones share the text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExtraParameters(
    /// A JSON object with at least one field, or no bytes.
    Bytes,
);

impl ExtraParameters {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The length of the text in bytes. 0 if there are no parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A JSON object.
    pub fn as_json(&self) -> &str {
        // The bytes are valid UTF-8, because they are made from a `str` or by serde_json.
        std::str::from_utf8(&self.0).ok().filter(|text| !text.is_empty()).unwrap_or("{}")
    }

    /// Slow, and needs much memory. Not for deliveries.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.as_json()).unwrap_or_default()
    }

    /// The text after the opening brace: `"name":value}`. Completes an object that begins with other fields. Not
    /// copied.
    pub fn fields(&self) -> Bytes {
        if self.is_empty() { Bytes::new() } else { self.0.slice(1..) }
    }

    /// Tells if both share the same memory.
    pub fn is_same_text(&self, other: &Self) -> bool {
        self.0.as_ptr() == other.0.as_ptr() && self.0.len() == other.0.len()
    }
}

impl From<&Map<String, Value>> for ExtraParameters {
    fn from(parameters: &Map<String, Value>) -> Self {
        if parameters.is_empty() {
            return Self::default();
        }
        // Writing JSON values to memory can't fail.
        Self(serde_json::to_vec(parameters).unwrap_or_default().into())
    }
}

impl FromIterator<(String, Value)> for ExtraParameters {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(parameters: I) -> Self {
        Self::from(&parameters.into_iter().collect::<Map<String, Value>>())
    }
}

impl fmt::Debug for ExtraParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl Serialize for ExtraParameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.as_json()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExtraParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let Some(fields) = text.strip_prefix('{') else {
            return Err(D::Error::custom("extra parameters must be a JSON object"));
        };
        if depth(text) > MAX_DEPTH {
            return Err(D::Error::custom(format!("extra parameters are nested more than {MAX_DEPTH} levels deep")));
        }
        if fields.trim_start().starts_with('}') {
            return Ok(Self::default());
        }
        Ok(Self(String::from(Box::<str>::from(raw)).into()))
    }
}

/// The nesting of arrays and objects in valid JSON.
fn depth(json: &str) -> usize {
    let (mut max_depth, mut open, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json.bytes() {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                open += 1;
                max_depth = max_depth.max(open);
            }
            (false, b']' | b'}') => open = open.saturating_sub(1),
            _ => {}
        }
    }
    max_depth
}

impl JsonSchema for ExtraParameters {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Map::<String, Value>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Map::<String, Value>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ExtraParameters, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn numbers_and_the_order_of_parameters_are_kept() {
        let text = r#"{"z":1.50,"a":{"b":[1e+2,null]},"big":123456789012345678901234567890}"#;
        let parameters = read(text).expect("parameters");
        assert_eq!(serde_json::to_string(&parameters).expect("JSON"), text);
        assert_eq!(serde_json::to_value(&parameters).expect("JSON"), parameters.to_value());
        assert_eq!(serde_json::from_value::<ExtraParameters>(parameters.to_value()).expect("parameters"), parameters);
        assert_eq!(parameters.fields(), &text[1..]);
        assert!(parameters.is_same_text(&parameters.clone()));
        assert!(!parameters.is_same_text(&read(text).expect("parameters")));
    }

    #[test]
    fn no_parameters_are_an_empty_object() {
        for empty in ["{}", "{ }", "{\n}"] {
            assert_eq!(read(empty).expect("parameters"), ExtraParameters::default());
        }
        assert_eq!(serde_json::to_string(&ExtraParameters::default()).expect("JSON"), "{}");
        assert_eq!(ExtraParameters::default().to_value(), serde_json::json!({}));
    }

    #[test]
    fn other_values_and_deep_nesting_are_refused() {
        let nested = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        for invalid in [nested(MAX_DEPTH + 1).as_str(), "[]", "1", "\"{}\"", "null"] {
            assert!(read(invalid).is_err(), "{invalid}");
        }
        assert_eq!(depth(r#"{"[[\"{[":"\\","a":[{}]}"#), 3);
    }
}
