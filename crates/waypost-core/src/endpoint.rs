//! Admission control: whether an endpoint can take a request now.
//!
//! ```text
//! a delivery ──admit──▶ send   ▶ ended, or cancelled
//!                     ├ wait   ▶ admit again
//!                     └ park   (back to the delay queues, without an attempt)
//! ```
//!
//! An *endpoint* is scheme, host and port. It has limits. Many customers can share one host, and one of them can hang.
//! Health is therefore tracked for each [`receiver`], which is an endpoint and a path.
//!
//! The messages in flight are limited (the *window*), and all endpoints share them. A receiver starts with a few
//! concurrent requests and may have more if it answers. Deliveries that it cannot take soon are parked. Each request
//! has a [`LatencyClass`]: slow receivers, and receivers that have not answered yet, share a limited part of the
//! window, the [`SlowBudget`]. Fast receivers use the rest, so slow ones cannot delay them.

pub mod breaker;
pub mod concurrency_limiter;
pub mod decaying_ratio;
pub mod receiver;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::ids::WebhookId;
use super::outcome::Cause;
use super::timestamp;
use concurrency_limiter::Limits;
pub use concurrency_limiter::{AskRound, Source};
use decaying_ratio::DecayingRatio;

/// Identifies a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverKey {
    pub endpoint: Origin,
    /// Without the query.
    pub path: String,
}

impl ReceiverKey {
    /// Accepts any text: a text that is not a URL is a key of its own.
    pub fn from_url(url: &str) -> Self {
        match Url::parse(url) {
            Ok(url) => Self { endpoint: Origin::from_url(&url), path: url.path().to_owned() },
            Err(_) => Self { endpoint: Origin(url.to_owned()), path: String::new() },
        }
    }
}

/// Scheme, host and port: `https://example.com:443`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Origin(String);

impl Origin {
    pub fn from_url(url: &Url) -> Self {
        let port = url.port_or_known_default().unwrap_or_default();
        Self(format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default()))
    }

    /// Parses an endpoint such as `https://example.com`. The default port may be omitted.
    ///
    /// # Errors
    /// A sentence that says what to write. The text is not repeated, because it may have credentials.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text.trim()).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && (url.username(), url.password()) == ("", None)
                && (url.path(), url.query(), url.fragment()) == ("/", None, None)
        });
        let url =
            url.ok_or("not an endpoint: write scheme, host and port, like https://example.com:443, without a path")?;
        Ok(Self::from_url(&url))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a delivery is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// The breaker is open.
    Breaker,
    /// The concurrency limit is reached, and waiting would take too long.
    Concurrency,
    /// The rate limit is reached.
    RateLimit,
    /// The receiver's requests do not end, or the slow receivers have used up their part of the window.
    Slow,
    /// The worker has no memory left for webhooks with large extra parameters.
    Memory,
}

impl ParkReason {
    pub const ALL: [Self; 5] = [Self::Breaker, Self::Concurrency, Self::RateLimit, Self::Slow, Self::Memory];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Concurrency => "concurrency",
            Self::RateLimit => "rate_limit",
            Self::Slow => "slow",
            Self::Memory => "memory",
        }
    }
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// No requests are sent until a probe is due.
    Open,
    /// A probe is in flight.
    HalfOpen,
    /// Requests are sent.
    Closed,
}

impl BreakerState {
    pub const ALL: [Self; 3] = [Self::Open, Self::HalfOpen, Self::Closed];

    /// The name in metrics and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Closed => "closed",
        }
    }
}

/// How fast the receiver of a request answers. Slow requests together use at most a part of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyClass {
    /// The receiver answers within a second.
    Fast,
    /// The receiver is slow or has not answered yet.
    Slow,
}

/// Whether more slow requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowBudget {
    Free,
    /// Free only for receivers that are known to answer, and for the first request of the other receivers.
    Limited,
    Exhausted,
}

/// Whether a delivery can be parked in a delay queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parking {
    Possible,
    /// The broker accepts no messages now.
    Blocked,
}

/// A delivery requests to be sent.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionRequest<'a> {
    /// The webhook, if it has limits of its own.
    pub webhook: Option<(&'a WebhookId, Limits)>,
    /// The endpoint's limits.
    pub limits: Limits,
    pub slow_budget: SlowBudget,
    pub round: AskRound,
    pub source: Source,
    pub parking: Parking,
    /// A number in 0..1 that spreads the delays of parked deliveries.
    pub jitter: f64,
}

/// The decision on an [`AdmissionRequest`].
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// The request may be sent.
    Send(AdmissionToken),
    /// Wait in this list for at most this time, then request admission again.
    Wait(Duration, WaitList),
    /// Park for this time. The delivery now counts as parked.
    Park(Duration, ParkReason),
    /// The delivery cannot be parked because the broker accepts no messages. Request admission again. No state has
    /// changed.
    Refused(ParkReason),
}

/// The list in which a delivery waits in memory for a request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitList {
    /// For the requests of one webhook.
    Webhook,
    /// For the requests of one receiver.
    Receiver,
    /// For the requests of all receivers of the endpoint.
    Endpoint,
}

/// Permission to send one request. Return it with [`receiver::Receiver::record_end`] or [`receiver::Receiver::record_cancellation`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct AdmissionToken {
    webhook: Option<WebhookId>,
    pub latency_class: LatencyClass,
    kind: RequestKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Regular,
    Probe,
}

/// The last failed request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When the request failed.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// How the request ended, as in the metrics.
    pub cause: Cause,
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// What went wrong, for people. Null if there was a response.
    pub error: Option<String>,
}

/// The state of a receiver or an endpoint in this worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStats {
    /// The state of the breaker. For an endpoint, the worst state of its receivers.
    pub breaker: BreakerState,
    /// The time in milliseconds until the next probe. Null if no breaker is open.
    pub probe_in_ms: Option<u64>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Deliveries that wait for a request in flight to end.
    pub waiting: u32,
    /// The requests that its receivers may have in flight, learned from their responses. The configured limit may be
    /// lower.
    pub allowed: u32,
    /// Deliveries that this worker has parked and that are not due yet.
    pub parked: u32,
    /// The share of requests in about the last minute that were not answered with 2xx, from 0 to 1. Null if there was
    /// no request.
    pub failure_ratio: Option<f64>,
    /// The average latency of about the last ten responses, in milliseconds. Null if there was no response. For an
    /// endpoint, the latency of its slowest receiver.
    pub latency_ms: Option<f64>,
    /// The last request that was not answered with 2xx.
    pub last_error: Option<LastError>,
    #[serde(skip)]
    ratio: DecayingRatio,
}

impl EndpointStats {
    /// The sort key of a list with the worst first: a lower rank is worse.
    pub fn health_rank(&self) -> (BreakerState, u32, u32) {
        let failing_per_mille = (self.failure_ratio.unwrap_or_default() * 1000.0) as u32;
        (self.breaker, u32::MAX - failing_per_mille, u32::MAX - self.parked)
    }

    /// The state of an endpoint with both receivers.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let ratio = self.ratio.merge(other.ratio);
        let time_of = |error: &Option<LastError>| error.as_ref().map(|error| error.at);
        let last_error =
            if time_of(&self.last_error) >= time_of(&other.last_error) { self.last_error } else { other.last_error };
        Self {
            breaker: self.breaker.min(other.breaker),
            probe_in_ms: self.probe_in_ms.into_iter().chain(other.probe_in_ms).min(),
            in_flight: self.in_flight + other.in_flight,
            waiting: self.waiting + other.waiting,
            allowed: self.allowed.saturating_add(other.allowed),
            parked: self.parked.saturating_add(other.parked),
            failure_ratio: ratio.failure_ratio(),
            latency_ms: match (self.latency_ms, other.latency_ms) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            },
            last_error,
            ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_key_is_the_endpoint_and_the_path() {
        for (url, endpoint, path) in [
            ("https://Example.com/a?b", "https://example.com:443", "/a"),
            ("https://example.com:443", "https://example.com:443", "/"),
            ("http://127.1:8080/x/y", "http://127.0.0.1:8080", "/x/y"),
            ("https://[2001:DB8::1]/", "https://[2001:db8::1]:443", "/"),
            ("no URL", "no URL", ""),
        ] {
            let key = ReceiverKey::from_url(url);
            assert_eq!((key.endpoint.as_str(), key.path.as_str()), (endpoint, path));
        }
    }
}
