//! Extractors of handlers. An invalid request is refused with a problem that names the place and the cause.

use std::error::Error as _;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;
use waypost_api::field_error::{self, FieldError};
use waypost_core::violation::{Violation, type_name};

use super::body_limit;
use super::problem::Problem;

/// The largest JSON body, if its handler has no other limit.
const MAX_JSON_BYTES: usize = 1024 * 1024;

/// The `{id}` of the path.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id)).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
    }
}

/// The query parameters. `T` must deny unknown fields.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        query.map(|axum::extract::Query(query)| Self(query)).map_err(|error| {
            let detail = error.source().map_or_else(|| error.body_text(), ToString::to_string);
            Problem::new(StatusCode::BAD_REQUEST, detail.replace("unknown field", "unknown parameter"))
        })
    }
}

/// A JSON body. `Option<JsonBody<T>>` is an optional body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        json(&bytes(request.into_body()).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Problem> {
        let body = bytes(request.into_body()).await?;
        if body.trim_ascii().is_empty() { Ok(None) } else { json(&body).map(Self).map(Some) }
    }
}

async fn bytes(body: Body) -> Result<Vec<u8>, Problem> {
    let body = body_limit::read(body, MAX_JSON_BYTES).await;
    body.map_err(|error| Problem::unreadable_body(error, "a body", MAX_JSON_BYTES))
}

/// Parses a JSON object. The problem is a 422 with the path of the violation.
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let violation = |message: String| Problem::invalid(vec![Violation::new("$", message)]);
    let invalid_json = |error: &serde_json::Error| violation(format!("not valid JSON: {error}"));
    if body.trim_ascii().is_empty() {
        return Err(violation("there is no body: send a JSON object".to_owned()));
    }
    // Serde would accept an array as a struct.
    if !body.trim_ascii_start().starts_with(b"{") {
        let value: Value = serde_json::from_slice(body).map_err(|error| invalid_json(&error))?;
        return Err(violation(format!("expected an object, found {}", type_name(&value))));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = field_error::deserialize(&mut deserializer).map_err(|FieldError { path, error }| {
        if !error.is_data() {
            return invalid_json(&error);
        }
        let path = path.map_or_else(|| "$".to_owned(), |path| format!("$.{path}"));
        Problem::invalid(vec![Violation::new(path, error.to_string())])
    })?;
    deserializer.end().map_err(|error| invalid_json(&error))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::to_value;
    use waypost_api::unique_map::UniqueMap;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct QueryParams {
        #[serde(rename = "ids")]
        _ids: Vec<String>,
        #[serde(rename = "rate")]
        _rate: Option<f64>,
        #[serde(rename = "filter")]
        _filter: Option<UniqueMap>,
    }

    fn problem_of(body: &str) -> Value {
        to_value(json::<QueryParams>(body.as_bytes()).expect_err("a problem")).expect("JSON")
    }

    #[test]
    fn a_violation_has_its_path() {
        assert!(json::<QueryParams>(br#" {"ids": ["a"], "rate": 2.5} "#).is_ok());
        for (body, path, words) in [
            (r#"{"ids": [1]}"#, "$.ids[0]", "expected a string"),
            (r#"{"ids": [], "rate": "x"}"#, "$.rate", "expected f64"),
            (r#"{"ids": [], "rat": 1}"#, "$.rat", "unknown field `rat`"),
            (r#"{"ids": [], "ids": []}"#, "$", "duplicate field `ids`"),
            (r#"{"ids": [], "filter": {"a": 1, "b": 2, "a": 3}}"#, "$.filter.a", "twice"),
            (r#"{"ids": [], "filter": []}"#, "$.filter", "an object"),
            ("{}", "$", "missing field `ids`"),
            ("[[\"a\"], null]", "$", "expected an object, found an array"),
            ("7", "$", "found a number"),
            ("", "$", "no body"),
            ("  \n", "$", "no body"),
            ("{", "$", "not valid JSON"),
            ("nonsense", "$", "not valid JSON"),
            ("[1", "$", "not valid JSON"),
            (r#"{"ids": []} x"#, "$", "not valid JSON"),
            ("{\"ids\": [\"\u{0}\"]}", "$", "not valid JSON"),
        ] {
            let problem = problem_of(body);
            assert_eq!(problem["status"], 422, "{body}: {problem}");
            let violation = &problem["errors"][0];
            assert!(violation["message"].as_str().is_some_and(|message| message.contains(words)), "{body}: {problem}");
            assert_eq!(violation["path"], path, "{body}: {problem}");
        }
    }
}
