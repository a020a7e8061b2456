//! What handlers take from a request. What can't be read is refused with a problem that says where and why.

use std::error::Error as _;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::body;
use super::problem::Problem;
use crate::delivery::fault::Fault;

/// The largest JSON body, where its handler says nothing else.
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

/// The parameters of the query. `T` denies unknown fields.
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

/// A JSON body. `Option<Given<T>>` is one that may be left out.
pub(super) struct Given<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        json(&bytes(request.into_body()).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Problem> {
        let body = bytes(request.into_body()).await?;
        if body.trim_ascii().is_empty() { Ok(None) } else { json(&body).map(Self).map(Some) }
    }
}

async fn bytes(body: Body) -> Result<Vec<u8>, Problem> {
    let body = body::read(body, MAX_JSON_BYTES).await;
    body.map_err(|unread| Problem::of_body(unread, "a body", MAX_JSON_BYTES))
}

/// Reads JSON: 400 where it is none, 422 with the path where it says what it must not.
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let no_json = |error: &serde_json::Error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON that can be read: {error}"))
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let given = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        if !error.inner().is_data() {
            return no_json(error.inner());
        }
        let path = match error.path().to_string().as_str() {
            "." => "$".to_owned(),
            path => format!("$.{path}"),
        };
        Problem::of_faults(vec![Fault::new(path, error.inner().to_string())])
    })?;
    deserializer.end().map_err(|error| no_json(&error))?;
    Ok(given)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, to_value};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Asked {
        #[serde(rename = "ids")]
        _ids: Vec<String>,
        #[serde(rename = "rate")]
        _rate: Option<f64>,
    }

    fn refused(body: &str) -> Value {
        to_value(json::<Asked>(body.as_bytes()).expect_err("it was taken")).expect("JSON")
    }

    #[test]
    fn a_fault_has_its_path() {
        assert!(json::<Asked>(br#" {"ids": ["a"], "rate": 2.5} "#).is_ok());
        for (body, path, words) in [
            (r#"{"ids": [1]}"#, "$.ids[0]", "expected a string"),
            (r#"{"ids": [], "rate": "x"}"#, "$.rate", "expected f64"),
            (r#"{"ids": [], "rat": 1}"#, "$.rat", "unknown field `rat`"),
            ("{}", "$", "missing field `ids`"),
            ("[1]", "$", ""),
        ] {
            let problem = refused(body);
            assert_eq!(problem["status"], 422, "{body}: {problem}");
            let fault = &problem["errors"][0];
            assert!(fault["message"].as_str().is_some_and(|message| message.contains(words)), "{body}: {problem}");
            if body != "[1]" {
                assert_eq!(fault["path"], path, "{body}: {problem}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_told_apart() {
        for body in ["", "{", "nonsense", r#"{"ids": []} x"#, "{\"ids\": [\"\u{0}\"]}"] {
            assert_eq!(refused(body)["status"], 400, "{body}");
        }
    }
}
