//! Dead letters over HTTP: found, understood, discarded.

mod erase;
mod preview;
pub(super) mod query;
pub(super) mod response;
mod summary;

use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::ApiState;
use super::audit::{AuditDetail, chosen};
use super::extract::{Id, JsonBody, UniqueMap};
use super::pagination::Page;
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;
use crate::config::Role;
use crate::dead_letters::{self, DeadLetterError, Remainder};
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::record::MAX_BECAUSE_CHARS;
use crate::delivery::dead_letter::selection::Selection;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::violation::Violation;
use crate::store::dead_letters::search::LetterCounts;
use preview::DiscardPreview;
use query::{LetterQuery, Search, cursor, offset_of};
use response::{LetterResponse, LetterSummaryResponse};
use summary::Summary;

/// The routes of dead letters.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/dead-letters", Role::Viewer, list)
            .named("listDeadLetters", "List dead letters that match a filter, the latest of the log first")
            .query::<Search>()
            .answers::<Page<LetterSummaryResponse>>(
                StatusCode::OK,
                "A page of dead letters, in the order of the log: `deadAt` descends but for what several workers wrote at once. \
                 Where few of very many match, a page can be short and have a next one all the same",
            ),
        Route::get("/dead-letters/summary", Role::Viewer, summary)
            .named("summarizeDeadLetters", "Count the dead letters that match a filter")
            .query::<LetterFilter>()
            .answers::<Summary>(StatusCode::OK, "The counts"),
        Route::get("/dead-letters/{id}", Role::Viewer, get)
            .named("getDeadLetter", "Read a dead letter: its event, its request, its attempts, and what became of it")
            .subject("The dead letter's id")
            .answers::<LetterResponse>(StatusCode::OK, "The dead letter"),
        Route::post("/dead-letters/discard", Role::Operator, discard)
            .named("discardDeadLetters", "Give pending dead letters up for good, by ids or by filter; or count them")
            .takes::<Discard>()
            .answers::<DiscardAnswer>(StatusCode::OK, "What was discarded; with `dryRun`, how much it would concern")
            .problem(StatusCode::NOT_FOUND, "One of them is not there")
            .problem(StatusCode::CONFLICT, "One of them is being replayed"),
        Route::post("/dead-letters/erase", Role::Operator, erase::erase)
            .named("eraseDeadLetters", "Erase what dead letters tell of a person; they can't be sent again")
            .takes::<erase::Erase>()
            .answers::<erase::Erased>(StatusCode::OK, "What was erased, and whether there are more to be looked at"),
    ]
}

/// A page is looked for this long, and ends where it has come to.
pub(super) const SEARCH_TIME: Duration = Duration::from_millis(25);

/// What is to be discarded.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "DiscardOrder")]
struct Discard {
    /// These dead letters.
    ids: Option<Vec<DeadLetterId>>,
    /// Or all pending ones that this matches.
    #[schemars(with = "Option<LetterFilter>")]
    filter: Option<UniqueMap>,
    /// Why, for whoever asks later. A filter needs it.
    #[schemars(length(min = 1, max = MAX_BECAUSE_CHARS))]
    because: Option<String>,
    /// Count only how many dead letters it concerns, and change nothing. This needs no `because`.
    dry_run: Option<bool>,
}

/// What was discarded, or would be.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum DiscardAnswer {
    Discarded(Discarded),
    Preview(DiscardPreview),
}

/// What was discarded.
#[derive(Serialize, JsonSchema)]
struct Discarded {
    /// How many dead letters.
    discarded: u64,
    /// Whether there are more: send the request again.
    more: bool,
}

/// `GET /v1/dead-letters`: the reverse of the order in which they were written, whatever the limit.
async fn list(State(http): State<ApiState>, RawQuery(query): RawQuery) -> Result<Page<LetterSummaryResponse>, Problem> {
    let asked = LetterQuery::read(query.as_deref().unwrap_or_default())?;
    let before = asked.cursor.as_deref().map(|cursor| offset_of(cursor, &asked.filter)).transpose()?;
    let view = http.dead_letters.ready_view().await?;
    let deadline = Instant::now() + SEARCH_TIME;
    let page = block_in_place(|| view.page(&asked.filter, before, asked.limit.get(), deadline))?;
    let items = page.letters.into_iter().map(|kept| LetterSummaryResponse::from(kept.letter)).collect();
    Ok(Page { items, next: page.next.map(|before| cursor(before, &asked.filter)) })
}

/// `GET /v1/dead-letters/summary`
async fn summary(State(http): State<ApiState>, RawQuery(query): RawQuery) -> Result<Json<Summary>, Problem> {
    let asked = LetterQuery::read(query.as_deref().unwrap_or_default())?;
    if asked.paged {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a summary has no pages: leave `limit` and `cursor` out"));
    }
    Ok(Json(Summary::from(tally(&http, asked.filter).await?)))
}

/// Counts the letters that a filter matches: of very many, beside everything else.
pub(super) async fn tally(http: &ApiState, filter: LetterFilter) -> Result<LetterCounts, Problem> {
    let view = http.dead_letters.ready_view().await?.clone();
    let tally = tokio::task::spawn_blocking(move || view.tally(&filter)).await;
    let tally = tally.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(tally?)
}

/// `GET /v1/dead-letters/{id}`
async fn get(State(http): State<ApiState>, Id(id): Id) -> Result<Json<LetterResponse>, Problem> {
    let view = http.dead_letters.ready_view().await?;
    let kept = view.letter(&DeadLetterId::new(&*id))?;
    let kept = kept.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))?;
    let fate = view.fate(kept.offset)?;
    Ok(Json(LetterResponse::from_letter(kept.letter, fate)))
}

/// `POST /v1/dead-letters/discard`
async fn discard(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    JsonBody(Discard { ids, filter, because, dry_run }): JsonBody<Discard>,
) -> Result<Response, Problem> {
    let choice = Selection::read(ids, filter.map(|UniqueMap(fields)| fields)).map_err(Problem::of_faults)?;
    if dry_run == Some(true) {
        let tally = http.dead_letters.count_discardable(&choice).await?;
        let about =
            AuditDetail(format!("nothing: a dry run, for {} dead letters chosen {}", tally.total, chosen(&choice)));
        return Ok((Extension(about), Json(DiscardAnswer::Preview(tally.into()))).into_response());
    }
    if let Some(fault) = fault_of(because.as_deref(), &choice) {
        return Err(Problem::of_faults(vec![fault]));
    }
    let (discarded, about) = discard_audited(&http, choice, &caller.name, because).await?;
    let answer = Discarded { discarded: discarded.letters, more: discarded.rest == Remainder::Some };
    Ok((Extension(about), Json(DiscardAnswer::Discarded(answer))).into_response())
}

/// Discards, and tells the audit of it.
pub(super) async fn discard_audited(
    http: &ApiState,
    choice: Selection,
    by: &str,
    because: Option<String>,
) -> Result<(dead_letters::Discarded, AuditDetail), DeadLetterError> {
    let chosen = chosen(&choice);
    let why = because.clone().unwrap_or_else(|| "no reason given".to_owned());
    let discarded = http.dead_letters.discard(choice, by, because).await?;
    let about = AuditDetail(format!("{} dead letters chosen {chosen}: {why}", discarded.letters));
    Ok((discarded, about))
}

/// What is wrong with the `because` of a discard.
pub(super) fn fault_of(because: Option<&str>, choice: &Selection) -> Option<Violation> {
    let fault = |message: String| Some(Violation::new("$.because", message));
    let Some(because) = because else {
        return match choice {
            Selection::Filter(_) => fault("is required with a filter: say why these letters are given up".to_owned()),
            Selection::Ids(_) => None,
        };
    };
    if because.trim().is_empty() {
        return fault("is empty: say why these letters are given up".to_owned());
    }
    let length = because.chars().count();
    if length <= MAX_BECAUSE_CHARS {
        return None;
    }
    fault(format!("has {length} characters, and {MAX_BECAUSE_CHARS} at most are kept: say it in fewer words"))
}
