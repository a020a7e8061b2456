//! Erasing what dead letters tell of a person.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::query::{cursor, offset_of};
use crate::dead_letters::erase::EraseMode;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::violation::Violation;
use crate::http::ApiState;
use crate::http::audit::AuditDetail;
use crate::http::extract::JsonBody;
use crate::http::principal::Principal;
use crate::http::problem::Problem;

/// Shorter ones would be found in every body that could not be read.
const MIN_PHONE_CHARS: usize = 4;

/// Whose letters are to be erased.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ErasureOrder")]
pub(super) struct Erase {
    /// The person's, as events have it.
    phone_number: String,
    /// The `next` of the answer before. Or the `from` of a dry run: letters that died since are left then.
    cursor: Option<String>,
    /// Whether only to count them.
    #[serde(default)]
    dry_run: bool,
}

/// What was erased.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Erasure")]
pub(super) struct Erased {
    /// Dead letters looked at.
    looked_at: u64,
    /// Those about the person, which are erased.
    erased: u64,
    /// Those about the person that are being replayed, and were left: ask again when the replay has ended.
    replaying: u64,
    /// Where the search began: send it as `cursor` to look at the same letters again, and at no later ones.
    from: String,
    /// There are more to be looked at: send it as `cursor`. Null at the end.
    next: Option<String>,
}

/// `POST /v1/dead-letters/erase`
pub(super) async fn erase(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    JsonBody(asked): JsonBody<Erase>,
) -> Result<Response, Problem> {
    if asked.phone_number.chars().count() < MIN_PHONE_CHARS {
        let fault = Violation::new("$.phoneNumber", format!("must have {MIN_PHONE_CHARS} characters at least"));
        return Err(Problem::of_faults(vec![fault]));
    }
    let before = asked.cursor.as_deref().map(|cursor| offset_of(cursor, &LetterFilter::default())).transpose()?;
    let doing = if asked.dry_run { EraseMode::Nothing } else { EraseMode::It };
    let done = http.dead_letters.erase(&asked.phone_number, before, doing, &caller.name).await?;
    // The audit is not the place for the number.
    let about = match doing {
        EraseMode::Nothing => format!("nothing: a dry run, for {} dead letters of a person", done.letters),
        EraseMode::It => format!("{} dead letters of a person erased", done.letters),
    };
    let about = AuditDetail(about);
    let cursor_of = |before| cursor(before, &LetterFilter::default());
    let (from, next) = (cursor_of(done.before), done.next.map(cursor_of));
    let erased = Erased { looked_at: done.looked_at, erased: done.letters, replaying: done.replaying, from, next };
    Ok((Extension(about), Json(erased)).into_response())
}
