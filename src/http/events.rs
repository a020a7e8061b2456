//! Publishing a step event over HTTP, for whoever has no AMQP at hand.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;
use super::route::Route;
use super::{ApiState, body_limit};
use crate::broker::publisher::{Destination, OutboundMessage};
use crate::config::Role;
use crate::delivery::TraceContext;
use crate::delivery::event::{self, MAX_EVENT_BYTES, StepEvent};
use crate::delivery::ids::EventId;
use crate::delivery::violation::Violation;

/// The broker confirms within this time, or the caller is told to repeat the event.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// AMQP's limit of a routing key, which is the campaign's id, and of a message id.
const MAX_SHORT_STRING_BYTES: usize = 255;

/// The routes of events.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/events", Role::Operator, publish)
            .named("publishEvent", "Publish a step event")
            .not_audited()
            .takes::<StepEvent>()
            .answers::<Accepted>(StatusCode::ACCEPTED, "The broker has confirmed it")
            .problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "The broker has not confirmed it: send it again, with the same `eventId`",
            ),
    ]
}

/// What was accepted.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    /// The event's identity.
    event_id: EventId,
}

/// `POST /v1/events`: 202 once the broker has confirmed the event. It is published as it came, byte for byte.
async fn publish(State(http): State<ApiState>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let body = body_limit::read(body, MAX_EVENT_BYTES).await;
    let body = body.map_err(|unread| Problem::of_body(unread, "an event", MAX_EVENT_BYTES))?;
    let event = event::decode(&body, None).map_err(Problem::of_faults)?;
    if event.campaign_id.len() > MAX_SHORT_STRING_BYTES {
        let message = format!("takes more than {MAX_SHORT_STRING_BYTES} bytes, which no routing key can");
        return Err(Problem::of_faults(vec![Violation::new("$.campaignId", message)]));
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let trace = TraceContext::read(header("traceparent"), header("tracestate"));
    let outgoing = OutboundMessage {
        to: Destination::Exchange { name: http.names.events(), routing_key: event.campaign_id },
        message_id: message_id(&event.event_id),
        body,
        trace,
        replay: None,
    };
    let unavailable = |detail: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    tokio::time::timeout(PUBLISH_TIMEOUT, http.publisher.publish(outgoing))
        .await
        .map_err(|_| {
            let waited = PUBLISH_TIMEOUT.as_secs();
            unavailable(format!(
                "the broker has not confirmed the event within {waited} s: send it again, with the same eventId"
            ))
        })?
        .map_err(|error| unavailable(error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { event_id: event.event_id })).into_response())
}

/// The event's identity, so that an event which names none has the one its publisher was told. One too long for AMQP
/// was given in the body, which counts first.
fn message_id(event_id: &EventId) -> String {
    let id = event_id.as_str();
    if id.len() <= MAX_SHORT_STRING_BYTES { id.to_owned() } else { uuid::Uuid::now_v7().to_string() }
}
