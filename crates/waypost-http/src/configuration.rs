//! The API of the configuration: whether this worker has all campaigns, and an operator's decision about an incomplete
//! campaigns stream.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use waypost_api::configuration::{ConfigurationResponse, ConfigurationState, DecisionResponse};
use waypost_core::access::Role;
use waypost_engine::campaigns::hold::StreamStatus;
use waypost_engine::campaigns::restore::Configuration;
use waypost_engine::view_sync::SyncState;

use super::api_state::ApiState;
use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/configuration", Role::Viewer, get)
            .named("getConfiguration", "Read whether this worker has all campaigns")
            .responds::<ConfigurationResponse>(StatusCode::OK, "The state of the configuration"),
        Route::post("/configuration/restore", Role::Editor, restore)
            .named(
                "restoreConfiguration",
                "Append the campaigns of this worker's store to an incomplete campaigns stream",
            )
            .responds::<DecisionResponse>(StatusCode::OK, "All campaigns are appended; workers read them now")
            .problem(StatusCode::CONFLICT, "This worker does not have all campaigns: ask another worker"),
        Route::post("/configuration/accept-empty", Role::Editor, accept_empty)
            .named("acceptEmptyConfiguration", "Accept an incomplete campaigns stream as it is")
            .responds::<DecisionResponse>(StatusCode::OK, "All workers continue with the campaigns in the stream")
            .problem(
                StatusCode::CONFLICT,
                "This worker does not hold its events, or it is loading the campaigns of a ready worker",
            ),
    ]
}

fn to_response(configuration: Configuration) -> ConfigurationResponse {
    let can_restore = configuration.can_restore();
    let Configuration { sync_state, stream_status, campaigns, last_change_at } = configuration;
    let (state, hold) = match (stream_status, sync_state) {
        (StreamStatus::Incomplete(hold), _) => (ConfigurationState::Incomplete, Some(hold)),
        (StreamStatus::Following, SyncState::Current) => (ConfigurationState::Current, None),
        (StreamStatus::Following | StreamStatus::Comparing, _) => (ConfigurationState::Reading, None),
    };
    ConfigurationResponse {
        state,
        reason: hold.as_ref().map(|hold| hold.reason.name().to_owned()),
        detail: hold.map(|hold| hold.to_string()),
        campaigns,
        last_change_at,
        can_restore,
    }
}

/// `GET /v1/configuration`.
async fn get(State(state): State<ApiState>) -> Result<Json<ConfigurationResponse>, Problem> {
    Ok(Json(to_response(state.campaigns.configuration()?)))
}

/// `POST /v1/configuration/restore`.
async fn restore(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<DecisionResponse>, Problem> {
    Ok(Json(DecisionResponse { campaigns: state.campaigns.restore(&principal.name).await? }))
}

/// `POST /v1/configuration/accept-empty`.
async fn accept_empty(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<DecisionResponse>, Problem> {
    Ok(Json(DecisionResponse { campaigns: state.campaigns.accept_empty(&principal.name).await? }))
}
