//! Replays over HTTP: ordered, tried, watched, paused, resumed, cancelled.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::ApiState;
use super::audit::{AuditDetail, chosen};
use super::counts::by_count_with;
use super::extract::{Id, JsonBody, Query, UniqueMap};
use super::pagination::{Page, PageParams};
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;
use crate::config::Role;
use crate::dead_letters::DeadLetterError;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::selection::Selection;
use crate::delivery::ids::DeadLetterId;
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::replay::{Replay, ReplayCommand, ReplayConfig, ReplayId, ReplayProgress};
use crate::delivery::request;
use crate::replays::{ReplayPreview, ReplaySpec};

/// The routes of replays.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/replays", Role::Operator, create)
            .named("createReplay", "Send dead letters again, by ids or by filter; or tell what that would do")
            .takes::<CreateReplay>()
            .answers::<ReplayResponse>(StatusCode::ACCEPTED, "The replay, which runs from now on")
            .answers::<ReplayPreviewResponse>(StatusCode::OK, "With `dryRun`: what it would do")
            .problem(StatusCode::NOT_FOUND, "One of the dead letters is not there")
            .problem(StatusCode::CONFLICT, "One of the dead letters is being replayed already"),
        Route::get("/replays", Role::Viewer, list)
            .named("listReplays", "List replays, newest first")
            .query::<PageParams>()
            .answers::<Page<ReplayResponse>>(StatusCode::OK, "A page of replays"),
        Route::get("/replays/{id}", Role::Viewer, get)
            .named("getReplay", "Read a replay")
            .subject(SUBJECT)
            .answers::<ReplayResponse>(StatusCode::OK, "The replay"),
        Route::post("/replays/{id}/pause", Role::Operator, pause)
            .named("pauseReplay", "Send no more until it is resumed")
            .subject(SUBJECT)
            .answers::<ReplayResponse>(StatusCode::OK, "The replay")
            .problem(StatusCode::CONFLICT, "It is paused already, or has ended"),
        Route::post("/replays/{id}/resume", Role::Operator, resume)
            .named("resumeReplay", "Go on with a paused replay")
            .subject(SUBJECT)
            .answers::<ReplayResponse>(StatusCode::OK, "The replay")
            .problem(StatusCode::CONFLICT, "It is not paused"),
        Route::post("/replays/{id}/cancel", Role::Operator, cancel)
            .named(
                "cancelReplay",
                "End a replay; the dead letters it has not sent are as they were before, mostly pending",
            )
            .subject(SUBJECT)
            .answers::<ReplayResponse>(StatusCode::OK, "The replay")
            .problem(StatusCode::CONFLICT, "It has ended"),
    ]
}

const SUBJECT: &str = "The replay's id";

/// More ids than these are left out of the list.
const IDS_LISTED: usize = 100;

/// A replay, as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Replay")]
struct ReplayResponse {
    #[serde(flatten)]
    replay: Replay,
    /// How many letters were named, where they were. The list of replays leaves `ids` out where they are more than 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    id_count: Option<usize>,
}

impl ReplayResponse {
    /// With all of its ids.
    fn whole(replay: Replay) -> Self {
        Self { id_count: replay.ids.as_ref().map(Vec::len), replay }
    }

    /// With its ids where they are few.
    fn listed(replay: Replay) -> Self {
        let mut shown = Self::whole(replay);
        shown.replay.ids.take_if(|ids| ids.len() > IDS_LISTED);
        shown
    }
}

/// A replay as it is ordered.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ReplayOrder")]
struct CreateReplay {
    /// These dead letters, in any state but `replaying`.
    ids: Option<Vec<DeadLetterId>>,
    /// Or all that this matches; where it names no state, the pending ones.
    #[schemars(with = "Option<LetterFilter>")]
    filter: Option<UniqueMap>,
    /// The most dead letters sent in a second; absent for as many as go.
    rate_per_second: Option<f64>,
    /// Tell only what it would do.
    dry_run: Option<bool>,
    /// Where they are sent: to the webhooks as they are now, or as they were.
    config: Option<ReplayConfig>,
    /// Stops when so great a share of the latest ones has failed, from 0 to 1; the first 20 are sent and judged alone.
    stop_on_failure_ratio: Option<f64>,
}

/// What a replay would do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReplayForecast")]
pub(super) struct ReplayPreviewResponse {
    /// Dead letters it would take.
    pub(super) total: u64,
    /// Where they would go, the greatest count first.
    pub(super) endpoints: Vec<EndpointCount>,
    /// Those that would be dead again without a request.
    pub(super) unsendable: Vec<UnsendableCount>,
    /// Requests, at most five: the oldest one to each endpoint, then others that can be sent. Values of headers are masked
    /// below `editor`.
    pub(super) sample: Vec<SampleRequest>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct EndpointCount {
    /// Scheme, host and port.
    pub(super) endpoint: String,
    pub(super) count: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct UnsendableCount {
    pub(super) reason: DeadLetterReason,
    pub(super) count: u64,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SampleRequest {
    pub(super) dead_letter_id: DeadLetterId,
    #[serde(flatten)]
    pub(super) request: request::RequestPreview,
}

/// `POST /v1/replays`: 202, or 200 for a `dryRun`.
async fn create(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    JsonBody(ordered): JsonBody<CreateReplay>,
) -> Result<Response, Problem> {
    let CreateReplay { ids, filter, rate_per_second, dry_run, config, stop_on_failure_ratio } = ordered;
    let choice = Selection::read(ids, filter.map(|UniqueMap(fields)| fields)).map_err(Problem::of_faults)?;
    let order = ReplaySpec { choice, rate_per_second, config: config.unwrap_or_default(), stop_on_failure_ratio };
    if dry_run == Some(true) {
        let forecast = http.replays.forecast(&order, caller.secrets()).await?;
        return Ok(Json(ReplayPreviewResponse::from(forecast)).into_response());
    }
    let (replay, about) = create_audited(&http, order, &caller.name).await?;
    Ok((StatusCode::ACCEPTED, Extension(about), Json(ReplayResponse::whole(replay))).into_response())
}

/// Creates a replay, and tells the audit of it.
pub(super) async fn create_audited(
    http: &ApiState,
    order: ReplaySpec,
    by: &str,
) -> Result<(Replay, AuditDetail), DeadLetterError> {
    let chosen = chosen(&order.choice);
    let replay = http.replays.create(order, by).await?;
    let about = AuditDetail(format!("{}: {} dead letters chosen {chosen}", replay.id, replay.total));
    Ok((replay, about))
}

/// `GET /v1/replays`: the cursor is the last id of the page before.
async fn list(State(http): State<ApiState>, Query(page): Query<PageParams>) -> Result<Page<ReplayResponse>, Problem> {
    if page.cursor.as_ref().is_some_and(|cursor| !ReplayId::is_one(cursor)) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "cursor: not one that this list has given"));
    }
    let before = page.cursor.map(ReplayId::new);
    let view = http.dead_letters.ready_view().await?;
    // One by one: together they may have ten million ids.
    let listed = |job: ReplayProgress| ReplayResponse::listed(job.replay);
    let replays = block_in_place(|| view.jobs(before.as_ref(), page.limit.get() + 1, listed))?;
    Ok(Page::new(replays, page.limit, |last: &ReplayResponse| last.replay.id.to_string()))
}

async fn get(State(http): State<ApiState>, Id(id): Id) -> Result<Json<ReplayResponse>, Problem> {
    Ok(Json(ReplayResponse::whole(http.replays.get(&ReplayId::new(id)).await?)))
}

async fn pause(http: State<ApiState>, caller: Extension<Principal>, id: Id) -> Result<Json<ReplayResponse>, Problem> {
    control(http, caller, id, ReplayCommand::Pause).await
}

async fn resume(http: State<ApiState>, caller: Extension<Principal>, id: Id) -> Result<Json<ReplayResponse>, Problem> {
    control(http, caller, id, ReplayCommand::Resume).await
}

async fn cancel(http: State<ApiState>, caller: Extension<Principal>, id: Id) -> Result<Json<ReplayResponse>, Problem> {
    control(http, caller, id, ReplayCommand::Cancel).await
}

async fn control(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    Id(id): Id,
    command: ReplayCommand,
) -> Result<Json<ReplayResponse>, Problem> {
    Ok(Json(ReplayResponse::whole(http.replays.control(&ReplayId::new(id), command, &caller.name).await?)))
}

impl From<ReplayPreview> for ReplayPreviewResponse {
    fn from(forecast: ReplayPreview) -> Self {
        let endpoints = by_count_with(forecast.endpoints, String::clone);
        let unsendable = by_count_with(forecast.unsendable, |reason| reason.as_str());
        Self {
            total: forecast.total,
            endpoints: endpoints.into_iter().map(|(endpoint, count)| EndpointCount { endpoint, count }).collect(),
            unsendable: unsendable.into_iter().map(|(reason, count)| UnsendableCount { reason, count }).collect(),
            sample: forecast
                .sample
                .into_iter()
                .map(|(dead_letter_id, request)| SampleRequest { dead_letter_id, request })
                .collect(),
        }
    }
}
