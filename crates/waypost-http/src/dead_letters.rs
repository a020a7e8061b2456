//! The API of dead letters: list, count, show, discard and erase.

mod erase;
mod preview;
pub(super) mod query;
mod summary;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use waypost_api::dead_letters::discard::{DiscardRequest, DiscardResponse, DiscardResult};
use waypost_api::dead_letters::erase::{EraseRequest, EraseResponse};
use waypost_api::dead_letters::summary::DeadLetterSummary;
use waypost_api::dead_letters::{LetterResponse, LetterSummaryResponse};
use waypost_api::page::Page;
use waypost_api::unique_map::UniqueMap;
use waypost_core::access::Role;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::history::LetterHistory;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;
use waypost_engine::dead_letters::queries::LetterDetail;

use crate::api_state::ApiState;
use crate::audit::AuditDetail;
use crate::extract::{Id, JsonBody};
use crate::principal::Principal;
use crate::problem::Problem;
use crate::route::Route;
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

/// `GET /v1/dead-letters`: in reverse order of the stream.
async fn list(
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<LetterSummaryResponse>>, Problem> {
    let query = LetterQuery::parse(query.as_deref().unwrap_or_default())?;
    let before = query.cursor.as_deref().map(|cursor| decode_cursor(cursor, &query.filter)).transpose()?;
    let page = state.dead_letters.page(&query.filter, before, query.limit.get()).await?;
    let items = page.letters.into_iter().map(|stored| LetterSummaryResponse::from(stored.letter)).collect();
    Ok(Json(Page { items, next: page.next.map(|before| encode_cursor(before, &query.filter)) }))
}

/// `GET /v1/dead-letters/summary`
async fn summary(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Result<Json<DeadLetterSummary>, Problem> {
    let query = LetterQuery::parse(query.as_deref().unwrap_or_default())?;
    if query.has_page {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a summary has no pages: leave `limit` and `cursor` out"));
    }
    Ok(Json(summary::to_response(state.dead_letters.count(query.filter).await?)))
}

/// `GET /v1/dead-letters/{id}`
async fn get(State(state): State<ApiState>, Id(id): Id) -> Result<Json<LetterResponse>, Problem> {
    let LetterDetail { letter, history, last_request } = state.dead_letters.get(&DeadLetterId::new(id)).await?;
    let LetterHistory { replays, discard, erased, .. } = history;
    Ok(Json(LetterResponse { summary: letter.into(), request: last_request, replays, discard, erased }))
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
        let about = AuditDetail::dry_run(counts.total, &selection);
        return Ok((Extension(about), Json(DiscardResult::Preview(preview::to_response(counts)))).into_response());
    }
    let outcome = state.dead_letters.discard(&selection, &principal.name, because.as_deref()).await?;
    let about = AuditDetail::discarded(outcome, &selection, because.as_deref());
    let response = DiscardResponse { discarded: outcome.letters, more: outcome.has_more };
    Ok((Extension(about), Json(DiscardResult::Discarded(response))).into_response())
}
