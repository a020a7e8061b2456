//! The API of the configuration: whether this worker has all campaigns, and an operator's decision about an incomplete
//! campaigns stream.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use waypost_core::access::Role;
use waypost_core::timestamp;
use waypost_engine::campaigns::hold::StreamStatus;
use waypost_engine::campaigns::restore::Configuration;
use waypost_engine::view_sync::SyncState;

use super::ApiState;
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

/// The state of the configuration.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Configuration")]
struct ConfigurationResponse {
    /// Whether this worker has all campaigns.
    state: ConfigurationState,
    /// Why campaigns may be missing, for programs: `logReplaced`, `logTrimmed`, `logBeginsLater`, `heldByWorker` or
    /// `deliveriesWait`.
    reason: Option<&'static str>,
    /// Why campaigns may be missing, and what to do.
    detail: Option<String>,
    /// How many campaigns this worker's store has.
    campaigns: u64,
    /// When the latest change that the store has was accepted; null if that is not known.
    #[serde(serialize_with = "timestamp::optional::serialize")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    last_change_at: Option<DateTime<Utc>>,
    /// Whether the campaigns stream can be restored from this worker.
    can_restore: bool,
}

/// Whether a worker has all campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum ConfigurationState {
    /// It has all campaigns.
    Current,
    /// It is reading the campaigns stream.
    Reading,
    /// Campaigns may be missing: events are held until an operator decides.
    Incomplete,
}

/// The result of a decision.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ConfigurationDecision")]
struct DecisionResponse {
    /// How many campaigns were appended, or were in the store of this worker when the stream was accepted.
    campaigns: u64,
}

impl From<Configuration> for ConfigurationResponse {
    fn from(configuration: Configuration) -> Self {
        let can_restore = configuration.can_restore();
        let Configuration { sync_state, stream_status, campaigns, last_change_at } = configuration;
        let (state, hold) = match (stream_status, sync_state) {
            (StreamStatus::Incomplete(hold), _) => (ConfigurationState::Incomplete, Some(hold)),
            (StreamStatus::Following, SyncState::Current) => (ConfigurationState::Current, None),
            (StreamStatus::Following | StreamStatus::Comparing, _) => (ConfigurationState::Reading, None),
        };
        Self {
            state,
            reason: hold.as_ref().map(|hold| hold.reason.name()),
            detail: hold.map(|hold| hold.to_string()),
            campaigns,
            last_change_at,
            can_restore,
        }
    }
}

/// `GET /v1/configuration`.
async fn get(State(state): State<ApiState>) -> Result<Json<ConfigurationResponse>, Problem> {
    Ok(Json(state.campaigns.configuration()?.into()))
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
