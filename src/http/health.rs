//! What machines ask: is it alive, is it well, what has it counted.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::problem::Problem;
use crate::broker::publisher::PublisherStatus;
use crate::broker::topology_status::TopologyStatus;
use crate::campaigns::hold::{Hold, LogStatus};
use crate::metrics::PublisherGauge;
use crate::view_sync::{Followers, Silence};
use crate::worker::consumer_status::Phase;

/// The process is alive: it answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Consuming, and making progress. What was repaired lately is a line each.
pub(super) async fn readyz(State(http): State<ApiState>) -> Response {
    match trouble(&http) {
        None => {
            let repairs = http.topology.recent_repairs();
            let notes: String = repairs.iter().map(|repair| format!("repaired: {repair}\n")).collect();
            format!("ready\n{notes}").into_response()
        }
        Some(trouble) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, trouble.to_string()).into_response(),
    }
}

/// Why a worker is not well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnreadyReason {
    /// It can't take messages.
    #[error("not connected to the broker: {0}")]
    NotConnected(String),
    /// It takes none before it knows the configuration.
    #[error("reading the configuration from the broker")]
    CatchingUp,
    /// It has been told to stop.
    #[error("stopping")]
    Stopping,
    /// Campaigns may be missing from their log.
    #[error("{0}")]
    Incomplete(Hold),
    /// It can't publish retries and dead letters.
    #[error("not connected to the broker for publishing: {0}")]
    NotPublishing(String),
    /// The broker takes no messages.
    #[error("the broker takes no messages: it is short of memory or disk")]
    Blocked,
    /// Nothing has been settled for so long.
    #[error("no message settled for {} s, and there are some to settle", .0.as_secs())]
    Stalled(Duration),
    /// Objects of the broker are missing or not as required, and the worker cannot put that right. Or it cannot check them.
    #[error("the broker's objects are {0}")]
    Topology(String),
    /// Changes of campaigns do not arrive.
    #[error("the configuration is not followed {0}")]
    NotFollowingCampaigns(Silence),
    /// Dead letters do not arrive in the view, and replays do not run.
    #[error("dead letters are not followed {0}")]
    NotFollowingDeadLetters(Silence),
}

/// Why this worker is not well, where it is not.
pub(super) fn trouble(http: &ApiState) -> Option<UnreadyReason> {
    let status = http.campaigns.log_status().borrow().clone();
    let trouble = judge(http.progress.phase(), status, http.publisher.link(), http.progress.stalled_for());
    trouble.or_else(|| incomplete(&http.topology, &http.followers))
}

/// What is wrong although it delivers.
fn incomplete(topology: &TopologyStatus, followers: &Followers) -> Option<UnreadyReason> {
    let problems: Vec<String> = topology.problems().iter().map(ToString::to_string).collect();
    let problems = (!problems.is_empty()).then(|| format!("not as required: {}", problems.join("; ")));
    let unchecked = topology.unchecked().map(|unchecked| unchecked.to_string());
    let topology: Vec<String> = problems.into_iter().chain(unchecked).collect();
    if !topology.is_empty() {
        return Some(UnreadyReason::Topology(topology.join("; ")));
    }
    let campaigns = followers.campaigns.silence().map(UnreadyReason::NotFollowingCampaigns);
    campaigns.or_else(|| followers.dead_letters.silence().map(UnreadyReason::NotFollowingDeadLetters))
}

fn judge(phase: Phase, status: LogStatus, link: PublisherStatus, stalled: Option<Duration>) -> Option<UnreadyReason> {
    match (phase, status) {
        (Phase::Connecting { trouble }, _) => return Some(UnreadyReason::NotConnected(trouble)),
        (_, LogStatus::Incomplete(hold)) => return Some(UnreadyReason::Incomplete(hold)),
        // It finishes what is in hand, and does not stop.
        (Phase::CatchingUp, _) | (_, LogStatus::Comparing) => return Some(UnreadyReason::CatchingUp),
        (Phase::Draining, LogStatus::Following) => return Some(UnreadyReason::Stopping),
        (Phase::Consuming, LogStatus::Following) => {}
    }
    match link {
        PublisherStatus::Down(trouble) => Some(UnreadyReason::NotPublishing(trouble)),
        PublisherStatus::Blocked => Some(UnreadyReason::Blocked),
        PublisherStatus::Up => stalled.map(UnreadyReason::Stalled),
    }
}

/// Everything counted, as Prometheus reads it.
pub(super) async fn metrics(State(http): State<ApiState>) -> Response {
    http.metrics.endpoints(http.worker.endpoints.list().iter().map(|listed| listed.standing.breaker));
    http.metrics.messages_in_hand.set(i64::try_from(http.progress.in_hand()).unwrap_or(i64::MAX));
    http.metrics.publisher(match http.publisher.link() {
        PublisherStatus::Up => PublisherGauge::Up,
        PublisherStatus::Blocked => PublisherGauge::Blocked,
        PublisherStatus::Down(_) => PublisherGauge::Down,
    });
    http.metrics.broker_state.topology(&http.topology);
    http.metrics.broker_state.followers(&http.followers);
    http.metrics.store_bytes.set(i64::try_from(http.store.bytes_on_disk()).unwrap_or(i64::MAX));
    if let Some(free) = http.store.free_bytes() {
        http.metrics.store_free_bytes(free);
    }
    match http.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_reads_the_configuration_again_does_not_say_that_it_stops() {
        let trouble = |phase, status| judge(phase, status, PublisherStatus::Up, None);
        assert_eq!(trouble(Phase::Draining, LogStatus::Comparing), Some(UnreadyReason::CatchingUp));
        assert_eq!(trouble(Phase::Draining, LogStatus::Following), Some(UnreadyReason::Stopping));
        assert_eq!(trouble(Phase::Consuming, LogStatus::Following), None);
    }
}
