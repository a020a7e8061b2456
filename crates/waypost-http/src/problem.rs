//! Errors as RFC 9457 problem documents.

use axum::body::Body;
use axum::extract::OriginalUri;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use waypost_api::problem::ProblemDocument;
use waypost_core::violation::Violation;
use waypost_engine::campaigns::error::CampaignError;
use waypost_engine::dead_letters;
use waypost_engine::events::PublishEventError;
use waypost_store::StoreError;

use crate::body_limit::BodyError;

/// The problem of a cursor that is not from this list.
pub(super) const INVALID_CURSOR: &str = "cursor: not a `next` of this list";

/// Why a request failed.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Problem(ProblemDocument);

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(ProblemDocument {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        })
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn title(&self) -> &str {
        &self.0.title
    }

    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(super) fn errors(&self) -> &[Violation] {
        &self.0.errors
    }

    /// A 422 with all violations.
    pub(crate) fn invalid(errors: Vec<Violation>) -> Self {
        let detail = match errors.as_slice() {
            [violation] => violation.to_string(),
            violations => format!("{} errors: see `errors`", violations.len()),
        };
        let Self(document) = Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        Self(ProblemDocument { errors, ..document })
    }

    /// The problem of a body that could not be read. `what` is the name of the body, such as `a document`.
    pub(super) fn unreadable_body(error: BodyError, what: &str, limit: usize) -> Self {
        match error {
            BodyError::TooLarge => {
                Self::invalid(vec![Violation::new("$", format!("{what} has at most {limit} bytes"))])
            }
            BodyError::Incomplete => {
                Self::new(StatusCode::BAD_REQUEST, "the body is incomplete: the connection ended early")
            }
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

impl From<CampaignError> for Problem {
    fn from(error: CampaignError) -> Self {
        match error {
            CampaignError::Invalid(violations) => Self::invalid(violations),
            CampaignError::NotFound => Self::new(StatusCode::NOT_FOUND, "no such campaign"),
            CampaignError::Precondition => Self::new(StatusCode::PRECONDITION_FAILED, error.to_string()),
            CampaignError::Conflict(detail) => Self::new(StatusCode::CONFLICT, detail),
            CampaignError::Unavailable(detail) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            CampaignError::Store(error) => error.into(),
        }
    }
}

impl From<dead_letters::DeadLetterError> for Problem {
    fn from(error: dead_letters::DeadLetterError) -> Self {
        match error {
            dead_letters::DeadLetterError::Invalid(violations) => Self::invalid(violations),
            dead_letters::DeadLetterError::NotFound(detail) => Self::new(StatusCode::NOT_FOUND, detail),
            dead_letters::DeadLetterError::Conflict(detail) => Self::new(StatusCode::CONFLICT, detail),
            dead_letters::DeadLetterError::Unavailable(detail) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            dead_letters::DeadLetterError::Store(error) => error.into(),
            dead_letters::DeadLetterError::Interrupted(error) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<PublishEventError> for Problem {
    fn from(error: PublishEventError) -> Self {
        match error {
            PublishEventError::Invalid(violation) => Self::invalid(vec![violation]),
            PublishEventError::Unconfirmed | PublishEventError::Publish(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

pub(super) async fn address_not_found(OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

pub(super) async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not allowed at {}: see /v1/openapi.json", uri.path()),
    )
}
