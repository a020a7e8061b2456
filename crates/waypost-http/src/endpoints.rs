//! The API of endpoints: the health of each, as this worker sees it.

use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use waypost_core::access::Role;
use waypost_core::endpoint::{EndpointStats, Origin};
use waypost_engine::worker::endpoint_registry::EndpointSnapshot;

use super::ApiState;
use super::extract::Query;
use super::pagination::{INVALID_CURSOR, Page, PageParams};
use super::problem::Problem;
use super::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/endpoints", Role::Viewer, list)
            .named("listEndpoints", "List the recently used endpoints, the worst first, as this worker sees them")
            .query::<PageParams>()
            .responds::<Page<EndpointResponse>>(
                StatusCode::OK,
                "A page of endpoints. The order changes with their health, so the next page may repeat or miss an endpoint",
            ),
    ]
}

/// Maximum number of receivers listed of an endpoint.
pub(super) const MAX_RECEIVERS: usize = 10;

/// An endpoint and its health.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Endpoint")]
struct EndpointResponse {
    /// Scheme, host and port.
    endpoint: Origin,
    #[serde(flatten)]
    stats: EndpointStats,
    /// Its receivers, the worst first and at most ten.
    receivers: Vec<ReceiverResponse>,
}

/// A path of an endpoint and its health.
#[derive(Serialize, JsonSchema)]
struct ReceiverResponse {
    path: String,
    #[serde(flatten)]
    stats: EndpointStats,
}

impl From<EndpointSnapshot> for EndpointResponse {
    fn from(EndpointSnapshot { endpoint, stats, receivers }: EndpointSnapshot) -> Self {
        let receivers = receivers.into_iter().take(MAX_RECEIVERS).map(|(path, stats)| ReceiverResponse { path, stats });
        Self { endpoint, stats, receivers: receivers.collect() }
    }
}

/// `GET /v1/endpoints`: the cursor is the number of endpoints on previous pages.
async fn list(
    State(state): State<ApiState>,
    Query(page): Query<PageParams>,
) -> Result<Page<EndpointResponse>, Problem> {
    let before = match page.cursor.as_deref().map(str::parse::<usize>) {
        None => 0,
        Some(Ok(before)) => before,
        Some(Err(_)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, INVALID_CURSOR));
        }
    };
    let endpoints = state.endpoints.list().into_iter().skip(before).take(page.limit.get() + 1);
    let responses = endpoints.map(EndpointResponse::from).collect();
    let after = before + page.limit.get();
    Ok(Page::new(responses, page.limit, |_: &EndpointResponse| after.to_string()))
}
