//! The API of endpoints: the health of each, as this worker sees it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use waypost_api::endpoints::{EndpointResponse, ReceiverResponse};
use waypost_api::page::{Page, PageParams};
use waypost_core::access::Role;
use waypost_engine::worker::endpoint_registry::EndpointSnapshot;

use super::api_state::ApiState;
use super::extract::Query;
use super::problem::{INVALID_CURSOR, Problem};
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

fn to_response(EndpointSnapshot { endpoint, stats, receivers }: EndpointSnapshot) -> EndpointResponse {
    let receivers = receivers.into_iter().take(MAX_RECEIVERS).map(|(path, stats)| ReceiverResponse { path, stats });
    EndpointResponse { endpoint, stats, receivers: receivers.collect() }
}

/// `GET /v1/endpoints`: the cursor is the number of endpoints on previous pages.
async fn list(
    State(state): State<ApiState>,
    Query(page): Query<PageParams>,
) -> Result<Json<Page<EndpointResponse>>, Problem> {
    let before = match page.cursor.as_deref().map(str::parse::<usize>) {
        None => 0,
        Some(Ok(before)) => before,
        Some(Err(_)) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, INVALID_CURSOR));
        }
    };
    let endpoints = state.endpoints.list().into_iter().skip(before).take(page.limit.get() + 1);
    let responses = endpoints.map(to_response).collect();
    let after = before + page.limit.get();
    Ok(Json(Page::new(responses, page.limit, |_: &EndpointResponse| after.to_string())))
}
