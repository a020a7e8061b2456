//! Endpoints over HTTP: how each stands, as this worker sees it.

use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::ApiState;
use super::extract::Query;
use super::pagination::{Page, PageParams};
use super::problem::Problem;
use super::route::Route;
use crate::config::Role;
use crate::delivery::endpoint::{EndpointStats, Origin};
use crate::worker::endpoint_registry::EndpointSnapshot;

/// The routes of endpoints.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/endpoints", Role::Viewer, list)
            .named("listEndpoints", "List the endpoints in use of late, the worst first, as this worker sees them")
            .query::<PageParams>()
            .answers::<Page<EndpointResponse>>(
                StatusCode::OK,
                "A page of endpoints. The order changes with their health: the next page may repeat one or leave one out",
            ),
    ]
}

/// The most receivers that an endpoint is listed with.
pub(super) const RECEIVERS: usize = 10;

/// An endpoint, and how it stands.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Endpoint")]
struct EndpointResponse {
    /// Scheme, host and port.
    endpoint: Origin,
    #[serde(flatten)]
    standing: EndpointStats,
    /// Its receivers, the worst first and at most ten.
    receivers: Vec<ReceiverResponse>,
}

/// A path of an endpoint, and how it stands.
#[derive(Serialize, JsonSchema)]
struct ReceiverResponse {
    path: String,
    #[serde(flatten)]
    standing: EndpointStats,
}

impl From<EndpointSnapshot> for EndpointResponse {
    fn from(EndpointSnapshot { endpoint, standing, receivers }: EndpointSnapshot) -> Self {
        let receivers =
            receivers.into_iter().take(RECEIVERS).map(|(path, standing)| ReceiverResponse { path, standing });
        Self { endpoint, standing, receivers: receivers.collect() }
    }
}

/// `GET /v1/endpoints`: the cursor is the number of those that were listed before.
async fn list(State(http): State<ApiState>, Query(page): Query<PageParams>) -> Result<Page<EndpointResponse>, Problem> {
    let before = match page.cursor.as_deref().map(str::parse::<usize>) {
        None => 0,
        Some(Ok(before)) => before,
        Some(Err(_)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "cursor: not one that this list has given"));
        }
    };
    let listed = http.worker.endpoints.list().into_iter().skip(before).take(page.limit.get() + 1);
    let shown = listed.map(EndpointResponse::from).collect();
    let after = before + page.limit.get();
    Ok(Page::new(shown, page.limit, |_: &EndpointResponse| after.to_string()))
}
