//! Errors as RFC 9457 problem documents.

use axum::body::Body;
use axum::extract::OriginalUri;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::body_limit::BodyError;
use crate::campaigns;
use crate::dead_letters;
use crate::delivery::violation::Violation;
use crate::store::StoreError;

/// What went wrong, for the caller.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Problem {
    /// No problem of ours has a page of its own.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, in a sentence.
    detail: String,
    /// Each fault of what was sent, with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Violation>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { kind: "about:blank", title, status: status.as_u16(), detail: detail.into(), errors: Vec::new() }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The status in words.
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    /// What is wrong, in a sentence.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Each fault of what was sent.
    pub(super) fn errors(&self) -> &[Violation] {
        &self.errors
    }

    /// Something given to us has faults: 422, all of them at once.
    pub(crate) fn of_faults(errors: Vec<Violation>) -> Self {
        let detail = match errors.as_slice() {
            [fault] => fault.to_string(),
            faults => format!("{} faults; `errors` has them all", faults.len()),
        };
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// A body that could not be read; `what` may have `limit` bytes.
    pub(super) fn of_body(unread: BodyError, what: &str, limit: usize) -> Self {
        match unread {
            BodyError::TooLarge => {
                Self::of_faults(vec![Violation::new("$", format!("{what} has at most {limit} bytes"))])
            }
            BodyError::Broken => Self::new(StatusCode::BAD_REQUEST, "the body ended before its time"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], Body::from(body)).into_response()
    }
}

impl From<campaigns::CampaignError> for Problem {
    fn from(refused: campaigns::CampaignError) -> Self {
        match refused {
            campaigns::CampaignError::Faults(faults) => Self::of_faults(faults),
            campaigns::CampaignError::Unknown => Self::new(StatusCode::NOT_FOUND, "no such campaign"),
            campaigns::CampaignError::Precondition => Self::new(StatusCode::PRECONDITION_FAILED, refused.to_string()),
            campaigns::CampaignError::Conflict(detail) => Self::new(StatusCode::CONFLICT, detail),
            campaigns::CampaignError::Unavailable(detail) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            campaigns::CampaignError::Store(error) => error.into(),
        }
    }
}

impl From<dead_letters::DeadLetterError> for Problem {
    fn from(refused: dead_letters::DeadLetterError) -> Self {
        match refused {
            dead_letters::DeadLetterError::Faults(faults) => Self::of_faults(faults),
            dead_letters::DeadLetterError::Unknown(detail) => Self::new(StatusCode::NOT_FOUND, detail),
            dead_letters::DeadLetterError::Conflict(detail) => Self::new(StatusCode::CONFLICT, detail),
            dead_letters::DeadLetterError::Unavailable(detail) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            dead_letters::DeadLetterError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

pub(super) async fn no_such_address(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

pub(super) async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
