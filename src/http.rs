//! The one listener: probes, metrics, the JSON API and the console. The only room that knows axum.
//!
//! | method and path | role | |
//! | --- | --- | --- |
//! | `GET /healthz` | – | 200: the process is alive |
//! | `GET /readyz` | – | 200: consuming, and making progress; else 503 with the reason |
//! | `GET /metrics` | – | Prometheus text |
//! | `GET /v1/campaigns` | viewer | the campaigns, a page at a time |
//! | `GET /v1/campaigns/{id}` | viewer | one, with its `ETag`; headers and secrets masked below `editor` |
//! | `PUT /v1/campaigns/{id}` | editor | create or replace, with `If-Match` or `If-None-Match: *` |
//! | `DELETE /v1/campaigns/{id}` | editor | delete, with `If-Match` |
//! | `GET /v1/configuration` | viewer | whether this worker has all campaigns |
//! | `POST /v1/configuration/restore` | editor | append the campaigns of this worker's store to an incomplete log |
//! | `POST /v1/configuration/accept-empty` | editor | accept an incomplete log as it is |
//! | `GET /v1/webhooks/{id}` | viewer | one webhook, and where it is; masked below `editor` |
//! | `PUT /v1/webhooks/{id}` | editor | replace it where it is, with `If-Match` |
//! | `DELETE /v1/webhooks/{id}` | editor | delete it, and the redirect that it is |
//! | `POST /v1/webhooks/{id}/rotate-secret` | editor | a new signing secret; the old one signs beside it for a while |
//! | `POST /v1/webhooks/{id}/test` | operator | one request with a sample event, now |
//! | `POST /v1/events` | operator | publish a step event; 202 once the broker has confirmed it |
//! | `POST /v1/explain` | viewer | for an event: what matches, what does not and why, and what would be sent |
//! | `GET /v1/dead-letters` | viewer | those that match a filter, the latest of the log first |
//! | `GET /v1/dead-letters/summary` | viewer | their counts |
//! | `GET /v1/dead-letters/{id}` | viewer | one, with its request, its attempts and its replays |
//! | `POST /v1/dead-letters/discard` | operator | give them up for good, by ids or filter |
//! | `POST /v1/dead-letters/erase` | operator | erase what they tell of a person |
//! | `POST /v1/replays` | operator | send them again; with `dryRun`, tell what that would do |
//! | `GET /v1/replays`, `GET /v1/replays/{id}` | viewer | the replays |
//! | `POST /v1/replays/{id}/pause`, `…/process_waiting`, `…/cancel` | operator | tell a replay what to do |
//! | `GET /v1/endpoints` | viewer | the endpoints in use of late, the worst first |
//! | `GET /v1/openapi.json` | viewer | the description of all of this |
//! | `/` and below | | the console: pages for people, see `http/console.rs` |

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
mod pagination;
mod principal;
mod problem;
mod replays;
mod route;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use self::auth::Access;
use self::listener::Listener;
use self::route::Route;
use crate::broker::names::Names;
use crate::broker::publisher::Publisher;
use crate::broker::topology_status::TopologyStatus;
use crate::campaigns::Campaigns;
use crate::config::Token;
use crate::dead_letters::DeadLetters;
use crate::metrics::Metrics;
use crate::metrics::history::History;
use crate::replays::Replays;
use crate::store::Store;
use crate::view_sync::Followers;
use crate::worker::Worker;
use crate::worker::consumer_status::ConsumerStatus;

/// What the handlers need. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Where campaigns are read.
    pub store: Store,
    /// Where campaigns are changed.
    pub campaigns: Campaigns,
    /// What could not be delivered.
    pub dead_letters: DeadLetters,
    /// What sends it again.
    pub replays: Replays,
    /// What sends a request by itself.
    pub worker: Arc<Worker>,
    /// Where events go.
    pub publisher: Publisher,
    /// Names of the broker's objects.
    pub names: Names,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// And what was counted of late.
    pub history: History,
    /// How the intake is.
    pub progress: ConsumerStatus,
    /// What of the broker's objects is missing.
    pub topology: TopologyStatus,
    /// Whether the logs are read as they grow.
    pub followers: Followers,
    /// Who may do what; empty where everybody on this machine may do everything.
    pub tokens: Arc<[Token]>,
}

impl ApiState {
    /// Answers until `stop`, and then what has been asked already.
    ///
    /// # Errors
    /// Where the listener fails.
    pub async fn run(self, listener: Listener, stop: CancellationToken) -> std::io::Result<()> {
        let (history, metrics) = (self.history.clone(), self.metrics.clone());
        let serve = axum::serve(listener, self.router(stop.clone())).with_graceful_shutdown(stop.cancelled_owned());
        tokio::select! {
            served = serve => served,
            never = history.keep(&metrics) => match never {},
        }
    }

    fn router(self, stop: CancellationToken) -> Router {
        let routes = routes();
        let access = Access::new(self.tokens.clone(), "/v1", &routes);
        let api = routes.into_iter().fold(Router::new(), |api, route| api.route(route.path, route.handler));
        let api = api
            .fallback(problem::no_such_address)
            .method_not_allowed_fallback(problem::no_such_method)
            .layer(from_fn_with_state(access, auth::require));
        Router::new()
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics))
            .method_not_allowed_fallback(problem::no_such_method)
            .nest("/v1", api)
            .merge(console::router(&self, stop))
            .with_state(self)
    }
}

/// All routes under `/v1`. There is no other way into the router, the roles or the document.
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
        openapi::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The OpenAPI document of all routes.
pub fn openapi() -> serde_json::Value {
    openapi::document(&routes())
}
