//! The outcome of an attempt as text.

use axum::http::StatusCode;

/// The status with its reason phrase, or the cause.
pub(super) fn outcome(status: Option<u16>, cause: Option<&str>) -> String {
    match status {
        Some(status) => format!("{status} {}", reason_phrase(status)).trim_end().to_owned(),
        None => cause.unwrap_or_default().to_owned(),
    }
}

/// The standard reason phrase of a status. Empty if there is none.
pub(super) fn reason_phrase(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}
