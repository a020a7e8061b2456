//! The error of a JSON value that is not of the expected type, with the place of the error.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer};

/// What is wrong with a field, or with the whole value.
#[derive(Debug)]
pub struct FieldError<E> {
    /// Such as `items[0].id`. `None` for the whole value.
    pub path: Option<String>,
    pub error: E,
}

impl<E: fmt::Display> fmt::Display for FieldError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

/// Like [`serde::Deserialize::deserialize`], with the place of an error.
pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, FieldError<D::Error>>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        // The path of the whole value is a single dot.
        FieldError { path: (path != ".").then_some(path), error: error.into_inner() }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::deserialize;

    fn error(value: &Value) -> (Option<String>, String) {
        let error = deserialize::<Vec<Vec<u8>>, _>(value).expect_err("an error");
        (error.path.clone(), error.to_string())
    }

    #[test]
    fn an_error_has_the_path_of_its_field() {
        let (path, text) = error(&json!([[1], [2, "three"]]));
        assert_eq!(path.as_deref(), Some("[1][1]"));
        assert!(text.starts_with("[1][1]: invalid type: string"), "{text}");
    }

    #[test]
    fn an_error_of_the_whole_value_has_no_path() {
        let (path, text) = error(&json!({}));
        assert_eq!(path, None);
        assert!(text.starts_with("invalid type: map"), "{text}");
    }
}
