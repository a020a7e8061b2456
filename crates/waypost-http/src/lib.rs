//! The HTTP server: health checks, metrics, the JSON API and the console. Only this crate uses axum.
//!
//! | method and path | role | |
//! | --- | --- | --- |
//! | `GET /healthz` | – | 200: the process is alive |
//! | `GET /readyz` | – | 200: consuming and making progress; otherwise 503 with the reason |
//! | `GET /metrics` | – | Prometheus text |
//! | `GET /v1/campaigns` | viewer | a page of campaigns |
//! | `GET /v1/campaigns/{id}` | viewer | a campaign with its `ETag`; headers and secrets masked below `editor` |
//! | `PUT /v1/campaigns/{id}` | editor | create or replace, with `If-Match` or `If-None-Match: *` |
//! | `DELETE /v1/campaigns/{id}` | editor | delete, with `If-Match` |
//! | `GET /v1/configuration` | viewer | whether this worker has all campaigns |
//! | `POST /v1/configuration/restore` | editor | append the campaigns of this worker's store to an incomplete stream |
//! | `POST /v1/configuration/accept-empty` | editor | accept an incomplete stream as it is |
//! | `GET /v1/webhooks/{id}` | viewer | a webhook and its place; masked below `editor` |
//! | `PUT /v1/webhooks/{id}` | editor | replace a webhook in its place, with `If-Match` |
//! | `DELETE /v1/webhooks/{id}` | editor | delete a webhook, and its redirect if it is one |
//! | `POST /v1/webhooks/{id}/rotate-secret` | editor | a new signing secret; the old one signs too for some time |
//! | `POST /v1/webhooks/{id}/test` | operator | send one request with a sample event |
//! | `POST /v1/events` | operator | publish a step event; 202 once the broker has confirmed it |
//! | `POST /v1/explain` | viewer | for an event: what matches, what does not and why, and what would be sent |
//! | `GET /v1/dead-letters` | viewer | dead letters that match a filter, newest in the stream first |
//! | `GET /v1/dead-letters/summary` | viewer | counts of dead letters |
//! | `GET /v1/dead-letters/{id}` | viewer | a dead letter with its request, attempts and replays |
//! | `POST /v1/dead-letters/discard` | operator | discard dead letters, by ids or filter |
//! | `POST /v1/dead-letters/erase` | operator | erase a person's data in dead letters |
//! | `POST /v1/replays` | operator | send dead letters again; with `dryRun`, a preview |
//! | `GET /v1/replays`, `GET /v1/replays/{id}` | viewer | replays |
//! | `POST /v1/replays/{id}/pause`, `…/resume`, `…/cancel` | operator | control a replay |
//! | `GET /v1/endpoints` | viewer | recently used endpoints, the worst first |
//! | `GET /v1/openapi.json` | viewer | the description of the API |
//! | `/` and below | | the console, see `console.rs` |

pub mod api_state;
mod audit;
mod auth;
mod body_limit;
mod campaigns;
mod conditional;
mod configuration;
mod console;
mod counts;
mod dead_letters;
mod endpoints;
mod events;
mod explain;
mod extract;
mod health;
pub mod listener;
mod openapi;
mod origin_check;
mod principal;
mod problem;
mod replays;
mod route;
mod webhooks;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use self::api_state::ApiState;
use self::auth::Access;
use self::listener::Listener;
use self::route::Route;

/// Serves requests until `stop`, then finishes the open requests.
pub async fn serve(state: ApiState, listener: Listener, stop: CancellationToken) -> std::io::Result<()> {
    let (history, metrics) = (state.history.clone(), state.metrics.clone());
    let serve = axum::serve(listener, router(state, stop.clone())).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        result = serve => result,
        never = history.record(&metrics) => match never {},
    }
}

fn router(state: ApiState, stop: CancellationToken) -> Router {
    let routes = routes();
    let access = Access::new(state.tokens.clone(), "/v1", &routes);
    let api = routes.into_iter().fold(Router::new(), |api, route| api.route(route.path, route.handler));
    let api = api
        .fallback(problem::address_not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(from_fn_with_state(access, auth::authorize));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .nest("/v1", api)
        .merge(console::router(&state, stop))
        .with_state(state)
}

/// All routes under `/v1`. The router, the roles and the OpenAPI document are built only from them.
fn routes() -> Vec<Route> {
    [
        campaigns::routes(),
        webhooks::routes(),
        configuration::routes(),
        events::routes(),
        explain::routes(),
        dead_letters::routes(),
        replays::routes(),
        endpoints::routes(),
        openapi::routes(openapi),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub fn openapi() -> serde_json::Value {
    openapi::document(&routes())
}
