//! The API of dead letters: list, count, show, discard and erase.

mod erase;
mod preview;
pub(super) mod query;
mod summary;

use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use tokio::task::block_in_place;
use waypost_api::dead_letters::discard::{DiscardRequest, DiscardResponse, DiscardResult};
use waypost_api::dead_letters::erase::{EraseRequest, EraseResponse};
use waypost_api::dead_letters::summary::DeadLetterSummary;
use waypost_api::dead_letters::{LetterResponse, LetterSummaryResponse};
use waypost_api::page::Page;
use waypost_api::unique_map::UniqueMap;
use waypost_core::access::Role;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::record::MAX_DISCARD_REASON_CHARS;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;
use waypost_core::violation::Violation;
use waypost_engine::dead_letters::{DeadLetterError, DiscardOutcome};
use waypost_store::dead_letters::search::LetterCounts;

use super::ApiState;
use super::audit::{AuditDetail, describe};
use super::extract::{Id, JsonBody};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;
use query::{LetterQuery, SearchParams, decode_cursor, encode_cursor};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters", Role::Viewer, list)
            .named("listDeadLetters", "List dead letters that match a filter, newest in the stream first")
            .query::<SearchParams>()
            .responds::<Page<LetterSummaryResponse>>(
                StatusCode::OK,
                "A page of dead letters, in the order of the stream: `deadAt` descends, except for dead letters that several workers \
                 wrote at the same time. If few of very many match, a page can be short and still have a next page",
            ),
        Route::get("/dead-letters/summary", Role::Viewer, summary)
            .named("summarizeDeadLetters", "Count the dead letters that match a filter")
            .query::<LetterFilter>()
            .responds::<DeadLetterSummary>(StatusCode::OK, "The counts"),
        Route::get("/dead-letters/{id}", Role::Viewer, get)
            .named("getDeadLetter", "Read a dead letter: its event, its request, its attempts and its replays")
            .subject("The dead letter's id")
            .responds::<LetterResponse>(StatusCode::OK, "The dead letter"),
        Route::post("/dead-letters/discard", Role::Operator, discard)
            .named("discardDeadLetters", "Discard pending dead letters, by ids or by filter; or count them")
            .takes::<DiscardRequest>()
            .responds::<DiscardResult>(StatusCode::OK, "The number discarded; with `dryRun`, counts of the dead letters")
            .problem(StatusCode::NOT_FOUND, "One of the dead letters does not exist")
            .problem(StatusCode::CONFLICT, "One of the dead letters is being replayed"),
        Route::post("/dead-letters/erase", Role::Operator, erase::erase)
            .named("eraseDeadLetters", "Erase a person's data in dead letters, which can't be sent again then")
            .takes::<EraseRequest>()
            .responds::<EraseResponse>(StatusCode::OK, "The counts, and a cursor if there are more dead letters to search"),
    ]
}

/// How long the search for a page takes at most. The page ends where the search has ended.
pub(super) const SEARCH_TIME: Duration = Duration::from_millis(25);

/// `GET /v1/dead-letters`: in reverse order of the stream.
async fn list(
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<LetterSummaryResponse>>, Problem> {
    let query = LetterQuery::parse(query.as_deref().unwrap_or_default())?;
    let before = query.cursor.as_deref().map(|cursor| decode_cursor(cursor, &query.filter)).transpose()?;
    let view = state.dead_letters.ready_view().await?;
    let deadline = Instant::now() + SEARCH_TIME;
    let page = block_in_place(|| view.page(&query.filter, before, query.limit.get(), deadline))?;
    let items = page.letters.into_iter().map(|stored| LetterSummaryResponse::from(stored.letter)).collect();
    Ok(Json(Page { items, next: page.next.map(|before| encode_cursor(before, &query.filter)) }))
}

/// `GET /v1/dead-letters/summary`
async fn summary(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Result<Json<DeadLetterSummary>, Problem> {
    let query = LetterQuery::parse(query.as_deref().unwrap_or_default())?;
    if query.has_page {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a summary has no pages: leave `limit` and `cursor` out"));
    }
    Ok(Json(summary::to_response(count_letters(&state, query.filter).await?)))
}

/// Counts the letters that match a filter. Very many letters take long, so a blocking thread counts them.
pub(super) async fn count_letters(state: &ApiState, filter: LetterFilter) -> Result<LetterCounts, Problem> {
    let view = state.dead_letters.ready_view().await?.clone();
    let counts = tokio::task::spawn_blocking(move || view.count(&filter)).await;
    let counts = counts.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(counts?)
}

/// `GET /v1/dead-letters/{id}`
async fn get(State(state): State<ApiState>, Id(id): Id) -> Result<Json<LetterResponse>, Problem> {
    let view = state.dead_letters.ready_view().await?;
    let stored = view.letter(&DeadLetterId::new(&*id))?;
    let stored = stored.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))?;
    let history = view.history(stored.offset)?;
    Ok(Json(LetterResponse::from_letter(stored.letter, history)))
}

/// `POST /v1/dead-letters/discard`
async fn discard(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    JsonBody(DiscardRequest { ids, filter, because, dry_run }): JsonBody<DiscardRequest>,
) -> Result<Response, Problem> {
    let selection = Selection::read(ids, filter.map(|UniqueMap(fields)| fields)).map_err(Problem::invalid)?;
    if dry_run == Some(true) {
        let counts = state.dead_letters.count_discardable(&selection).await?;
        let about = AuditDetail(format!(
            "nothing: a dry run, for {} dead letters selected {}",
            counts.total,
            describe(&selection)
        ));
        return Ok((Extension(about), Json(DiscardResult::Preview(preview::to_response(counts)))).into_response());
    }
    if let Some(violation) = because_violation(because.as_deref(), &selection) {
        return Err(Problem::invalid(vec![violation]));
    }
    let (outcome, about) = discard_audited(&state, selection, &principal.name, because).await?;
    let response = DiscardResponse { discarded: outcome.letters, more: outcome.has_more };
    Ok((Extension(about), Json(DiscardResult::Discarded(response))).into_response())
}

/// Discards, and describes it for the audit.
pub(super) async fn discard_audited(
    state: &ApiState,
    selection: Selection,
    by: &str,
    because: Option<String>,
) -> Result<(DiscardOutcome, AuditDetail), DeadLetterError> {
    let selected = describe(&selection);
    let why = because.clone().unwrap_or_else(|| "no reason given".to_owned());
    let outcome = state.dead_letters.discard(selection, by, because).await?;
    let about = AuditDetail(format!("{} dead letters selected {selected}: {why}", outcome.letters));
    Ok((outcome, about))
}

/// What is wrong with the `because` of a discard.
pub(super) fn because_violation(because: Option<&str>, selection: &Selection) -> Option<Violation> {
    let violation = |message: String| Some(Violation::new("$.because", message));
    let Some(because) = because else {
        return match selection {
            Selection::Filter(_) => violation("is required with a filter: give the reason of the discard".to_owned()),
            Selection::Ids(_) => None,
        };
    };
    if because.trim().is_empty() {
        return violation("is empty: give the reason of the discard".to_owned());
    }
    let length = because.chars().count();
    if length <= MAX_DISCARD_REASON_CHARS {
        return None;
    }
    violation(format!("has {length} characters, and at most {MAX_DISCARD_REASON_CHARS} are allowed: shorten it"))
}
