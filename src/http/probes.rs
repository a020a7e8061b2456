//! What machines ask: is it alive, is it well, what has it counted.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Http;
use super::problem::Problem;
use crate::broker::publisher::Link;
use crate::metrics::Publishing;
use crate::worker::progress::Phase;

/// The process is alive: it answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Consuming, and making progress.
pub(super) async fn readyz(State(http): State<Http>) -> Response {
    match trouble(&http) {
        None => "ready\n".into_response(),
        Some(trouble) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, trouble).into_response(),
    }
}

fn trouble(http: &Http) -> Option<String> {
    match http.progress.phase() {
        Phase::Connecting { trouble } => {
            return Some(format!("not connected to the broker: {trouble}"));
        }
        Phase::CatchingUp => return Some("reading the configuration from the broker".to_owned()),
        Phase::Draining => return Some("stopping".to_owned()),
        Phase::Consuming => {}
    }
    match http.publisher.link() {
        Link::Down(trouble) => {
            return Some(format!("not connected to the broker for publishing: {trouble}"));
        }
        Link::Blocked => {
            return Some("the broker takes no messages: it is short of memory or disk".to_owned());
        }
        Link::Up => {}
    }
    let stalled = http.progress.stalled_for()?;
    Some(format!("no message settled for {} s, and there are some to settle", stalled.as_secs()))
}

/// Everything counted, as Prometheus reads it.
pub(super) async fn metrics(State(http): State<Http>) -> Response {
    http.metrics.endpoints(http.worker.endpoints.list().iter().map(|listed| listed.standing.breaker));
    http.metrics.messages_in_hand.set(i64::try_from(http.progress.in_hand()).unwrap_or(i64::MAX));
    http.metrics.publisher(match http.publisher.link() {
        Link::Up => Publishing::Up,
        Link::Blocked => Publishing::Blocked,
        Link::Down(_) => Publishing::Down,
    });
    http.metrics.store_bytes.set(i64::try_from(http.store.bytes_on_disk()).unwrap_or(i64::MAX));
    match http.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
