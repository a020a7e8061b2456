//! Reads a type that has the fields of another type beside its own (`#[serde(flatten)]`).
//!
//! A derived `Deserialize` can't do this. serde keeps the fields of a flattened type in a buffer of its own, and with
//! serde_json's feature `arbitrary_precision` that buffer has a map for a number that is no integer. So `2.5` would not
//! be read as `f64`, and long numbers and extra parameters would not be read at all.

use serde::Deserialize as _;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::Value;

use crate::field_error;

/// Reads one object as two types. Each ignores the fields of the other.
pub(crate) fn read_twice<'de, D: Deserializer<'de>, A: DeserializeOwned, B: DeserializeOwned>(
    deserializer: D,
) -> Result<(A, B), D::Error> {
    let object = Value::deserialize(deserializer)?;
    Ok((read::<A, D::Error>(&object)?, read::<B, D::Error>(&object)?))
}

fn read<T: DeserializeOwned, E: Error>(object: &Value) -> Result<T, E> {
    // The caller's deserializer does not see inside the object, so the message must name the field.
    field_error::deserialize(object).map_err(E::custom)
}
