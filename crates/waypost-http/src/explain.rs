//! The API that explains an event: what matches, what does not and why, and what would be sent.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use chrono::Utc;
use waypost_core::access::Role;
use waypost_core::event::{self, MAX_EVENT_BYTES, StepEvent};
use waypost_core::explain::Explanation;
use waypost_engine::explain::explain as explained;

use crate::api_state::ApiState;
use crate::body_limit;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/explain", Role::Viewer, explain)
            .named(
                "explainEvent",
                "Explain how a step event would be handled; nothing is sent, and headers are masked below `editor`",
            )
            .not_audited()
            .takes::<StepEvent>()
            .responds::<Explanation>(StatusCode::OK, "What matches, what does not and why, and what would be sent"),
    ]
}

async fn explain(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    body: Body,
) -> Result<Json<Explanation>, Problem> {
    let body = body_limit::read(body, MAX_EVENT_BYTES).await;
    let body = body.map_err(|error| Problem::unreadable_body(error, "an event", MAX_EVENT_BYTES))?;
    let event = event::decode(&body, None).map_err(Problem::invalid)?;
    Ok(Json(explained(&state.campaigns, event, principal.secrets(), Utc::now())?))
}
