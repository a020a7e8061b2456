//! The API of replays: create, preview, list, pause, resume and cancel.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use waypost_api::page::{Page, PageParams};
use waypost_api::replays::{
    CreateReplay, EndpointCount, ReplayPreviewResponse, ReplayResponse, SampleRequest, UnsendableCount,
};
use waypost_api::unique_map::UniqueMap;
use waypost_core::access::Role;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::replay::{ReplayCommand, ReplayId};
use waypost_engine::replays::{ReplayPreview, ReplaySpec};

use crate::api_state::ApiState;
use crate::audit::AuditDetail;
use crate::counts::by_count_with;
use crate::extract::{Id, JsonBody, Query};
use crate::principal::Principal;
use crate::problem::{INVALID_CURSOR, Problem};
use crate::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/replays", Role::Operator, create)
            .named("createReplay", "Send dead letters again, by ids or by filter; or show a preview")
            .takes::<CreateReplay>()
            .responds::<ReplayResponse>(StatusCode::ACCEPTED, "The replay, which runs now")
            .responds::<ReplayPreviewResponse>(StatusCode::OK, "With `dryRun`: what it would do")
            .problem(StatusCode::NOT_FOUND, "One of the dead letters does not exist")
            .problem(StatusCode::CONFLICT, "One of the dead letters is being replayed already"),
        Route::get("/replays", Role::Viewer, list)
            .named("listReplays", "List replays, newest first")
            .query::<PageParams>()
            .responds::<Page<ReplayResponse>>(StatusCode::OK, "A page of replays"),
        Route::get("/replays/{id}", Role::Viewer, get)
            .named("getReplay", "Read a replay")
            .subject(SUBJECT)
            .responds::<ReplayResponse>(StatusCode::OK, "The replay"),
        Route::post("/replays/{id}/pause", Role::Operator, pause)
            .named("pauseReplay", "Pause a replay: send no more dead letters until it is resumed")
            .subject(SUBJECT)
            .responds::<ReplayResponse>(StatusCode::OK, "The replay")
            .problem(StatusCode::CONFLICT, "The replay is already paused, or has ended"),
        Route::post("/replays/{id}/resume", Role::Operator, resume)
            .named("resumeReplay", "Resume a paused replay")
            .subject(SUBJECT)
            .responds::<ReplayResponse>(StatusCode::OK, "The replay")
            .problem(StatusCode::CONFLICT, "The replay is not paused"),
        Route::post("/replays/{id}/cancel", Role::Operator, cancel)
            .named(
                "cancelReplay",
                "Cancel a replay; dead letters not sent yet return to their previous state, usually pending",
            )
            .subject(SUBJECT)
            .responds::<ReplayResponse>(StatusCode::OK, "The replay")
            .problem(StatusCode::CONFLICT, "The replay has ended"),
    ]
}

const SUBJECT: &str = "The replay's id";

/// `POST /v1/replays`: 202, or 200 for a `dryRun`.
async fn create(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    JsonBody(request): JsonBody<CreateReplay>,
) -> Result<Response, Problem> {
    let CreateReplay { ids, filter, rate_per_second, dry_run, config, stop_on_failure_ratio } = request;
    let selection = Selection::read(ids, filter.map(|UniqueMap(fields)| fields)).map_err(Problem::invalid)?;
    let spec = ReplaySpec { selection, rate_per_second, config: config.unwrap_or_default(), stop_on_failure_ratio };
    if dry_run == Some(true) {
        let preview = state.replays.preview(&spec, principal.secrets()).await?;
        return Ok(Json(preview_response(preview)).into_response());
    }
    let replay = state.replays.create(&spec, &principal.name).await?;
    let about = AuditDetail::created_replay(&replay, &spec.selection);
    Ok((StatusCode::ACCEPTED, Extension(about), Json(ReplayResponse::with_all_ids(replay))).into_response())
}

/// `GET /v1/replays`: the cursor is the last id of the previous page.
async fn list(
    State(state): State<ApiState>,
    Query(page): Query<PageParams>,
) -> Result<Json<Page<ReplayResponse>>, Problem> {
    if page.cursor.as_ref().is_some_and(|cursor| !ReplayId::is_valid(cursor)) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, INVALID_CURSOR));
    }
    let before = page.cursor.map(ReplayId::new);
    let replays = state.replays.list(before.as_ref(), page.limit.get() + 1, ReplayResponse::for_list).await?;
    Ok(Json(Page::new(replays, page.limit, |last: &ReplayResponse| last.replay.id.to_string())))
}

async fn get(State(state): State<ApiState>, Id(id): Id) -> Result<Json<ReplayResponse>, Problem> {
    Ok(Json(ReplayResponse::with_all_ids(state.replays.get(&ReplayId::new(id)).await?)))
}

async fn pause(
    state: State<ApiState>,
    principal: Extension<Principal>,
    id: Id,
) -> Result<Json<ReplayResponse>, Problem> {
    control(state, principal, id, ReplayCommand::Pause).await
}

async fn resume(
    state: State<ApiState>,
    principal: Extension<Principal>,
    id: Id,
) -> Result<Json<ReplayResponse>, Problem> {
    control(state, principal, id, ReplayCommand::Resume).await
}

async fn cancel(
    state: State<ApiState>,
    principal: Extension<Principal>,
    id: Id,
) -> Result<Json<ReplayResponse>, Problem> {
    control(state, principal, id, ReplayCommand::Cancel).await
}

async fn control(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Id(id): Id,
    command: ReplayCommand,
) -> Result<Json<ReplayResponse>, Problem> {
    Ok(Json(ReplayResponse::with_all_ids(state.replays.control(&ReplayId::new(id), command, &principal.name).await?)))
}

pub(super) fn preview_response(preview: ReplayPreview) -> ReplayPreviewResponse {
    let endpoints = by_count_with(preview.endpoints, String::clone);
    let unsendable = by_count_with(preview.unsendable, |reason| reason.as_str());
    ReplayPreviewResponse {
        total: preview.total,
        endpoints: endpoints.into_iter().map(|(endpoint, count)| EndpointCount { endpoint, count }).collect(),
        unsendable: unsendable.into_iter().map(|(reason, count)| UnsendableCount { reason, count }).collect(),
        sample: preview
            .sample
            .into_iter()
            .map(|(dead_letter_id, request)| SampleRequest { dead_letter_id, request })
            .collect(),
    }
}
