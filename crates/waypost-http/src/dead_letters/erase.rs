//! `POST /v1/dead-letters/erase`: erases a person's data in dead letters.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use waypost_api::dead_letters::erase::{EraseRequest, EraseResponse};
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::phone_number::PhoneNumber;
use waypost_engine::dead_letters::erase::EraseMode;

use super::query::{decode_cursor, encode_cursor};
use crate::api_state::ApiState;
use crate::audit::AuditDetail;
use crate::extract::JsonBody;
use crate::principal::Principal;
use crate::problem::Problem;

/// `POST /v1/dead-letters/erase`
pub(super) async fn erase(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    JsonBody(request): JsonBody<EraseRequest>,
) -> Result<Response, Problem> {
    let phone_number =
        PhoneNumber::parse(request.phone_number).map_err(|violation| Problem::invalid(vec![violation]))?;
    let before = request.cursor.as_deref().map(|cursor| decode_cursor(cursor, &LetterFilter::default())).transpose()?;
    let mode = if request.dry_run { EraseMode::DryRun } else { EraseMode::Apply };
    let outcome = state.dead_letters.erase(&phone_number, before, mode, &principal.name).await?;
    // The phone number must not be in the audit.
    let about = match mode {
        EraseMode::DryRun => format!("nothing: a dry run, for {} dead letters of a person", outcome.letters),
        EraseMode::Apply => format!("{} dead letters of a person erased", outcome.letters),
    };
    let about = AuditDetail(about);
    let cursor_of = |before| encode_cursor(before, &LetterFilter::default());
    let (from, next) = (cursor_of(outcome.before), outcome.next.map(cursor_of));
    let response = EraseResponse {
        looked_at: outcome.examined,
        erased: outcome.letters,
        replaying: outcome.replaying,
        from,
        next,
    };
    Ok((Extension(about), Json(response)).into_response())
}
