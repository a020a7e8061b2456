//! The health checks `/healthz` and `/readyz`, and `/metrics`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use waypost_broker::publisher::PublisherStatus;
use waypost_broker::topology_status::TopologyStatus;
use waypost_engine::campaigns::hold::{Hold, StreamStatus};
use waypost_engine::metrics::PublisherGauge;
use waypost_engine::view_sync::{FollowerStall, Followers};
use waypost_engine::worker::consumer_status::ConsumerPhase;
use waypost_store::{folder_bytes, free_bytes};

use crate::api_state::ApiState;
use crate::problem::Problem;

/// The process is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready if the worker consumes and makes progress. Each recent repair of a broker object is a line of the response.
pub(super) async fn readyz(State(state): State<ApiState>) -> Response {
    match unready_reason(&state) {
        None => {
            let repairs = state.topology.recent_repairs();
            let notes: String = repairs.iter().map(|repair| format!("repaired: {repair}\n")).collect();
            format!("ready\n{notes}").into_response()
        }
        Some(reason) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason.to_string()).into_response(),
    }
}

/// Why a worker is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnreadyReason {
    #[error("not connected to the broker: {0}")]
    NotConnected(String),
    /// No message is consumed before the configuration is current.
    #[error("reading the configuration from the broker")]
    CatchingUp,
    #[error("stopping")]
    Stopping,
    /// Campaigns may be missing from their stream.
    #[error("{0}")]
    Incomplete(Hold),
    /// Retries and dead letters can't be published.
    #[error("not connected to the broker for publishing: {0}")]
    NotPublishing(String),
    #[error("the broker takes no messages: it is short of memory or disk")]
    Blocked,
    /// Messages are in progress, but none was settled for this time.
    #[error("no message settled for {} s, although messages are in progress", .0.as_secs())]
    Stalled(Duration),
    /// Objects of the broker are missing or wrong and this worker can't repair them, or it can't check them.
    #[error("{0}")]
    Topology(String),
    /// Changes of campaigns do not arrive.
    #[error("the campaigns stream is not being read {0}")]
    NotFollowingCampaigns(FollowerStall),
    /// Dead letters do not arrive in the view, and replays do not run.
    #[error("the dead-letter stream is not being read {0}")]
    NotFollowingDeadLetters(FollowerStall),
}

/// `None` if this worker is ready.
pub(super) fn unready_reason(state: &ApiState) -> Option<UnreadyReason> {
    let status = state.campaigns.stream_status().borrow().clone();
    let reason = consumer_reason(
        state.consumer_status.phase(),
        status,
        state.publisher.status(),
        state.consumer_status.stalled_for(),
    );
    reason.or_else(|| background_reason(&state.topology, &state.followers))
}

/// Reasons other than consuming and publishing.
fn background_reason(topology: &TopologyStatus, followers: &Followers) -> Option<UnreadyReason> {
    let problems: Vec<String> = topology.problems().iter().map(ToString::to_string).collect();
    let problems = (!problems.is_empty()).then(|| format!("missing or wrong broker objects: {}", problems.join("; ")));
    let overdue = topology.overdue_check().map(|overdue| format!("broker objects {overdue}"));
    let topology: Vec<String> = problems.into_iter().chain(overdue).collect();
    if !topology.is_empty() {
        return Some(UnreadyReason::Topology(topology.join("; ")));
    }
    let campaigns = followers.campaigns.stall().map(UnreadyReason::NotFollowingCampaigns);
    campaigns.or_else(|| followers.dead_letters.stall().map(UnreadyReason::NotFollowingDeadLetters))
}

fn consumer_reason(
    phase: ConsumerPhase,
    status: StreamStatus,
    publisher: PublisherStatus,
    stalled_for: Option<Duration>,
) -> Option<UnreadyReason> {
    match (phase, status) {
        (ConsumerPhase::Connecting { error }, _) => return Some(UnreadyReason::NotConnected(error)),
        (_, StreamStatus::Incomplete(hold)) => return Some(UnreadyReason::Incomplete(hold)),
        (ConsumerPhase::CatchingUp, _) | (_, StreamStatus::Comparing) => return Some(UnreadyReason::CatchingUp),
        (ConsumerPhase::Draining, StreamStatus::Following) => return Some(UnreadyReason::Stopping),
        (ConsumerPhase::Consuming, StreamStatus::Following) => {}
    }
    match publisher {
        PublisherStatus::Down(reason) => Some(UnreadyReason::NotPublishing(reason)),
        PublisherStatus::Blocked => Some(UnreadyReason::Blocked),
        PublisherStatus::Up => stalled_for.map(UnreadyReason::Stalled),
    }
}

/// All metrics in Prometheus' text format.
pub(super) async fn metrics(State(state): State<ApiState>) -> Response {
    state.metrics.set_endpoints(state.endpoints.list().iter().map(|endpoint| endpoint.stats.breaker));
    state.metrics.messages_in_hand.set(i64::try_from(state.consumer_status.in_flight()).unwrap_or(i64::MAX));
    state.metrics.set_publisher(match state.publisher.status() {
        PublisherStatus::Up => PublisherGauge::Up,
        PublisherStatus::Blocked => PublisherGauge::Blocked,
        PublisherStatus::Down(_) => PublisherGauge::Down,
    });
    state.metrics.broker_state.update_topology(&state.topology);
    state.metrics.broker_state.update_followers(&state.followers);
    state.metrics.store_bytes.set(i64::try_from(folder_bytes(&state.store_folder)).unwrap_or(i64::MAX));
    if let Some(free) = free_bytes(&state.store_folder) {
        state.metrics.set_store_free_bytes(free);
    }
    match state.metrics.to_text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_reads_the_configuration_again_is_not_reported_as_stopping() {
        let reason = |phase, status| consumer_reason(phase, status, PublisherStatus::Up, None);
        assert_eq!(reason(ConsumerPhase::Draining, StreamStatus::Comparing), Some(UnreadyReason::CatchingUp));
        assert_eq!(reason(ConsumerPhase::Draining, StreamStatus::Following), Some(UnreadyReason::Stopping));
        assert_eq!(reason(ConsumerPhase::Consuming, StreamStatus::Following), None);
    }
}
