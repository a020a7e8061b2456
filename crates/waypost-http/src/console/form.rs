//! Fields of a form or query by name, and URLs with a query.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use url::form_urlencoded;

/// Fields in order. A name may occur several times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

/// The form of an unsafe request. `auth_middleware` has read it.
impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.remove().unwrap_or_default())
    }
}

/// The query of the URL.
pub(super) struct FormQuery(pub(super) Form);

impl<S: Send + Sync> FromRequestParts<S> for FormQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Form::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

impl Form {
    /// Parses `application/x-www-form-urlencoded`. Any bytes are valid.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// The first value. Empty if there is no such field.
    pub(super) fn get(&self, name: &str) -> &str {
        self.get_all(name).next().unwrap_or_default()
    }

    /// The first value, trimmed. `None` if it is missing or blank.
    pub(super) fn get_non_blank(&self, name: &str) -> Option<&str> {
        Some(self.get(name).trim()).filter(|value| !value.is_empty())
    }

    pub(super) fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Keeps only the fields with these names.
    pub(super) fn only(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| names.contains(&name.as_str())).cloned().collect())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Whether the field exists. A checkbox is sent only if it is checked.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get_all(name).next().is_some()
    }
}

/// Encodes text for the path or the query of a URL.
pub(super) fn percent_encode(text: &str) -> String {
    // In a path, a plus does not mean a space.
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// `path?name=value`, without empty fields.
pub(super) fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let mut serializer = form_urlencoded::Serializer::new(String::new());
    serializer.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
    let query = serializer.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}
