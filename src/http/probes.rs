//! What machines ask: is it alive, is it well, what has it counted.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Http;
use super::problem::Problem;
use crate::broker::publisher::Link;
use crate::broker::topology_status::TopologyProblem;
use crate::campaigns::hold::{Hold, LogStatus};
use crate::follow::{Followers, Silence};
use crate::metrics::Publishing;
use crate::worker::progress::Phase;

/// The process is alive: it answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Consuming, and making progress. What was repaired lately is a line each.
pub(super) async fn readyz(State(http): State<Http>) -> Response {
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
pub(super) enum Trouble {
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
    /// Objects of the broker are missing or not as required, and the worker cannot put that right.
    #[error("the broker's objects are not as required: {}", sentences(.0))]
    Topology(Vec<TopologyProblem>),
    /// Changes of campaigns do not arrive.
    #[error("the configuration is not followed {0}")]
    NotFollowingCampaigns(Silence),
    /// Dead letters do not arrive in the view, and replays do not run.
    #[error("dead letters are not followed {0}")]
    NotFollowingDeadLetters(Silence),
}

fn sentences(problems: &[TopologyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why this worker is not well, where it is not.
pub(super) fn trouble(http: &Http) -> Option<Trouble> {
    let hold = match &*http.campaigns.log_status().borrow() {
        LogStatus::Incomplete(hold) => Some(hold.clone()),
        LogStatus::Following | LogStatus::Comparing => None,
    };
    let trouble = judge(http.progress.phase(), hold, http.publisher.link(), http.progress.stalled_for());
    trouble.or_else(|| incomplete(http.topology.problems(), &http.followers))
}

/// What is wrong although it delivers.
fn incomplete(problems: Vec<TopologyProblem>, followers: &Followers) -> Option<Trouble> {
    if !problems.is_empty() {
        return Some(Trouble::Topology(problems));
    }
    let campaigns = followers.campaigns.silence().map(Trouble::NotFollowingCampaigns);
    campaigns.or_else(|| followers.dead_letters.silence().map(Trouble::NotFollowingDeadLetters))
}

fn judge(phase: Phase, hold: Option<Hold>, link: Link, stalled: Option<Duration>) -> Option<Trouble> {
    match (phase, hold) {
        (Phase::Connecting { trouble }, _) => return Some(Trouble::NotConnected(trouble)),
        (_, Some(hold)) => return Some(Trouble::Incomplete(hold)),
        (Phase::CatchingUp, None) => return Some(Trouble::CatchingUp),
        (Phase::Draining, None) => return Some(Trouble::Stopping),
        (Phase::Consuming, None) => {}
    }
    match link {
        Link::Down(trouble) => Some(Trouble::NotPublishing(trouble)),
        Link::Blocked => Some(Trouble::Blocked),
        Link::Up => stalled.map(Trouble::Stalled),
    }
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
