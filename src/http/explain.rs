//! Explaining an event: what matches, what does not and why, and what would be sent.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use chrono::Utc;

use super::principal::Principal;
use super::problem::Problem;
use super::route::Route;
use super::{ApiState, body_limit};
use crate::campaigns::CampaignError;
use crate::config::Role;
use crate::delivery::campaign::Secrets;
use crate::delivery::event::{self, MAX_EVENT_BYTES, StepEvent};
use crate::delivery::explain::{Explanation, explain as explained};

/// The route of explanations.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/explain", Role::Viewer, explain)
            .named(
                "explainEvent",
                "Explain what becomes of a step event; nothing is sent, and headers are masked below `editor`",
            )
            .not_audited()
            .takes::<StepEvent>()
            .answers::<Explanation>(StatusCode::OK, "What matches, what does not and why, and what would be sent"),
    ]
}

async fn explain(
    State(http): State<ApiState>,
    Extension(caller): Extension<Principal>,
    body: Body,
) -> Result<Json<Explanation>, Problem> {
    let body = body_limit::read(body, MAX_EVENT_BYTES).await;
    let body = body.map_err(|unread| Problem::of_body(unread, "an event", MAX_EVENT_BYTES))?;
    explain_body(&http, &body, caller.secrets()).map(Json)
}

/// The explanation of an event as it would be published.
pub(super) fn explain_body(http: &ApiState, body: &[u8], secrets: Secrets) -> Result<Explanation, Problem> {
    let event = event::decode(body, None).map_err(Problem::of_faults)?;
    let stored = match http.campaigns.get(&event.campaign_id) {
        Ok(stored) => Some(stored),
        Err(CampaignError::Unknown) => None,
        Err(refused) => return Err(refused.into()),
    };
    let campaign = stored.as_ref().map(|stored| (&stored.campaign, stored.version));
    Ok(explained(event, campaign, secrets, Utc::now()))
}
