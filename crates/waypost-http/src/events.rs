//! The API that publishes a step event, for publishers without AMQP.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use waypost_api::events::PublishedEvent;
use waypost_broker::publisher::{Destination, OutboundMessage};
use waypost_core::TraceContext;
use waypost_core::access::Role;
use waypost_core::event::{self, MAX_EVENT_BYTES, StepEvent};
use waypost_core::ids::EventId;
use waypost_core::violation::Violation;

use super::problem::Problem;
use super::route::Route;
use super::{ApiState, body_limit};

/// Time for the broker to confirm. After a timeout the client should send the event again.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// AMQP's limit of a routing key (the campaign's id) and of a message id.
const MAX_SHORT_STRING_BYTES: usize = 255;

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
    if event.campaign_id.len() > MAX_SHORT_STRING_BYTES {
        let message = format!("has more than {MAX_SHORT_STRING_BYTES} bytes, the limit of a routing key");
        return Err(Problem::invalid(vec![Violation::new("$.campaignId", message)]));
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let trace = TraceContext::from_headers(header("traceparent"), header("tracestate"));
    let message = OutboundMessage {
        to: Destination::Exchange { name: state.names.events(), routing_key: event.campaign_id },
        message_id: message_id(&event.event_id),
        body,
        trace,
        replay: None,
    };
    let unavailable = |detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    tokio::time::timeout(PUBLISH_TIMEOUT, state.publisher.publish(message))
        .await
        .map_err(|_| {
            let seconds = PUBLISH_TIMEOUT.as_secs();
            unavailable(format!(
                "the broker has not confirmed the event within {seconds} s: send it again, with the same eventId"
            ))
        })?
        .map_err(|error| unavailable(error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(PublishedEvent { event_id: event.event_id })).into_response())
}

/// The message id: the event's id, so that an event without an `eventId` keeps the id that the response names. An id
/// too long for AMQP comes from the body, which takes precedence over the message id.
fn message_id(event_id: &EventId) -> String {
    let id = event_id.as_str();
    if id.len() <= MAX_SHORT_STRING_BYTES { id.to_owned() } else { uuid::Uuid::now_v7().to_string() }
}
