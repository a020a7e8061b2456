//! The API that publishes a step event, for publishers without AMQP.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use waypost_api::events::PublishedEvent;
use waypost_core::TraceContext;
use waypost_core::access::Role;
use waypost_core::event::{self, MAX_EVENT_BYTES, StepEvent};

use crate::api_state::ApiState;
use crate::body_limit;
use crate::problem::Problem;
use crate::route::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/events", Role::Operator, publish)
            .named("publishEvent", "Publish a step event")
            .not_audited()
            .takes::<StepEvent>()
            .responds::<PublishedEvent>(StatusCode::ACCEPTED, "The broker has confirmed the event")
            .problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "The broker has not confirmed the event: send it again, with the same `eventId`",
            ),
    ]
}

/// `POST /v1/events`: 202 after the broker's confirm. The body is published unchanged.
async fn publish(State(state): State<ApiState>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let body = body_limit::read(body, MAX_EVENT_BYTES).await;
    let body = body.map_err(|error| Problem::unreadable_body(error, "an event", MAX_EVENT_BYTES))?;
    let event = event::decode(&body, None).map_err(Problem::invalid)?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let trace = TraceContext::from_headers(header("traceparent"), header("tracestate"));
    state.events.publish(&event, body, trace).await?;
    Ok((StatusCode::ACCEPTED, Json(PublishedEvent { event_id: event.event_id })).into_response())
}
