//! Versions over HTTP: the `ETag` of an answer, and the precondition of a request.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::campaigns::Precondition;

/// An answer with the version of a campaign as its `ETag`.
pub(super) fn tagged(version: u64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Reads `If-Match` and `If-None-Match`. A tag that can't be one of ours matches nothing.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tag), None) => match tag.trim_matches('"').parse() {
            Ok(version) => Ok(Precondition::Version(version)),
            Err(_) => Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("{tag} is no version of a campaign"))),
        },
        (_, Some(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "send either If-Match, or If-None-Match: *")),
    }
}
