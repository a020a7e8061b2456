//! Endpoints, and whether they can take a request now.
//!
//! ```text
//! a delivery ──admit──▶ send           ▶ ended, or given up
//!                     ├ wait a moment  ▶ admit again
//!                     └ park           (back on the delay ladder; it spends no attempt)
//! ```
//!
//! An *endpoint* is scheme, host and port; it has limits. Behind one host can be many customers, of which one hangs: so
//! how things go is watched for each [`receiver`], which is an endpoint and a path.
//!
//! Messages in hand are few, the *window*, and all endpoints share them. So a receiver holds only as many as it makes use
//! of: it begins with a few requests at once and has more where it answers, and what it can't take soon is parked.
//! Receivers that are slow, or have not answered yet, have a part of the window together, and the others have the rest.

pub mod breaker;
pub mod concurrency_limiter;
pub mod decaying_ratio;
pub mod gcra;
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
use decaying_ratio::DecayingRatio;

/// Where a webhook's requests go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverKey {
    /// Scheme, host and port.
    pub endpoint: Origin,
    /// The path, without a query.
    pub path: String,
}

impl ReceiverKey {
    /// The place of a URL; what is none is a place of its own.
    pub fn of_url(url: &str) -> Self {
        match Url::parse(url) {
            Ok(url) => Self { endpoint: Origin::of_url(&url), path: url.path().to_owned() },
            Err(_) => Self { endpoint: Origin(url.to_owned()), path: String::new() },
        }
    }
}

/// Scheme, host and port: `https://example.com:443`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Origin(String);

impl Origin {
    /// That of a URL.
    pub fn of_url(url: &Url) -> Self {
        let port = url.port_or_known_default().unwrap_or_default();
        Self(format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default()))
    }

    /// Reads what a person writes: `https://example.com`, with or without the default port.
    ///
    /// # Errors
    /// What to write instead. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text.trim()).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && (url.username(), url.password()) == ("", None)
                && (url.path(), url.query(), url.fragment()) == ("/", None, None)
        });
        let url =
            url.ok_or("not an endpoint: write scheme, host and port, like https://example.com:443, without a path")?;
        Ok(Self::of_url(&url))
    }

    /// Its text.
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
    /// As many requests are under way as may be, and for longer than is worth waiting.
    Concurrency,
    /// As many requests were sent in the last second as may be.
    RateLimit,
    /// None of its requests ends, or all slow receivers together hold their part of the window.
    Slow,
    /// The worker has no memory left for webhooks with large extra parameters.
    Memory,
}

impl ParkReason {
    /// Every reason.
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

/// What a breaker is, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Nothing is sent but a probe, when its time has come.
    Open,
    /// A probe is under way.
    HalfOpen,
    /// All is sent.
    Closed,
}

impl BreakerState {
    /// Every state.
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

/// Which part of the window a request is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Of receivers that answer within a second.
    Quick,
    /// Of those that are slow, and those nobody knows yet.
    Slow,
}

/// Whether slow receivers may have more requests under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowLane {
    /// They may.
    Free,
    /// Those may that are known to answer, and of the others the first request.
    Scarce,
    /// They hold all they may hold together.
    Full,
}

/// How a delivery has come to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskRound {
    /// It has just come. It does not overtake those that wait.
    First,
    /// It has waited.
    Again,
    /// It has waited for as long as is worth it.
    Last,
}

/// Where a delivery comes from, that asks to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From its event.
    Event,
    /// From the delay ladder.
    Retry,
}

/// Whether the delay ladder takes what is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ladder {
    /// It does.
    Open,
    /// The broker takes no messages now.
    Closed,
}

/// A delivery asks to be sent.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionRequest<'a> {
    /// Its webhook, where that has limits of its own.
    pub webhook: Option<(&'a WebhookId, Limits)>,
    /// The endpoint's limits.
    pub limits: Limits,
    /// Whether there is room for a slow receiver.
    pub slow_lane: SlowLane,
    /// How it has come to ask.
    pub asking: AskRound,
    /// Where it comes from.
    pub arrival: Source,
    /// Whether it can be parked.
    pub ladder: Ladder,
    /// A number in 0..1 that spreads what is parked.
    pub jitter: f64,
}

/// What a delivery is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its request may be sent.
    Send(AdmissionToken),
    /// It may wait there for so long.
    Wait(Duration, Queue),
    /// It has to come back after this time. From now on it counts as parked.
    Park(Duration, ParkReason),
    /// It would be parked, but the delay ladder is closed. It has to ask again, and nothing has changed.
    Refused(ParkReason),
}

/// Whose requests a delivery waits for to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Those of its webhook.
    Webhook,
    /// Those of its receiver.
    Receiver,
    /// Those of its endpoint, whatever the receiver.
    Endpoint,
}

/// A request that may be sent. It must be given back, by [`receiver::Receiver::ended`] or [`receiver::Receiver::cancelled`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct AdmissionToken {
    webhook: Option<WebhookId>,
    /// The part of the window it is in.
    pub lane: Lane,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Request,
    Probe,
}

/// What is known of a request that has failed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// When.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// How it ended, in the words of the metrics.
    pub cause: Cause,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// What went wrong, for people. None where an answer came.
    pub error: Option<String>,
}

/// A receiver or an endpoint as people are shown it, as this worker sees it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStats {
    /// Whether requests are let through; of an endpoint, the worst of its receivers.
    pub breaker: BreakerState,
    /// The time in milliseconds after which the next delivery is sent as a probe; null where no breaker is open.
    pub probe_in_ms: Option<u64>,
    /// Requests under way.
    pub in_flight: u32,
    /// Deliveries that wait for one of those to end.
    pub waiting: u32,
    /// Requests its receivers may have under way at once, for what they have shown to bear; the limit may be lower.
    pub allowed: u32,
    /// Deliveries that this worker has parked and whose time has not come.
    pub parked: u32,
    /// The share of requests of about the last minute that were not answered with 2xx, from 0 to 1; null where there was
    /// none.
    pub failure_ratio: Option<f64>,
    /// What an answer takes, averaged over about the last ten, in milliseconds; null where there never was one. Of an
    /// endpoint, that of its slowest receiver.
    pub latency_ms: Option<f64>,
    /// The last request that was not answered with 2xx.
    pub last_error: Option<LastError>,
    #[serde(skip)]
    recent: DecayingRatio,
}

impl EndpointStats {
    /// What puts it at the head of a list: the lower, the worse.
    pub fn health(&self) -> (BreakerState, u32, u32) {
        let failing = (self.failure_ratio.unwrap_or_default() * 1000.0) as u32;
        (self.breaker, u32::MAX - failing, u32::MAX - self.parked)
    }

    /// That of an endpoint with these two receivers.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let recent = self.recent.and(other.recent);
        let later = |one: &Option<LastError>| one.as_ref().map(|error| error.at);
        let latest =
            if later(&self.last_error) >= later(&other.last_error) { self.last_error } else { other.last_error };
        Self {
            breaker: self.breaker.min(other.breaker),
            probe_in_ms: self.probe_in_ms.into_iter().chain(other.probe_in_ms).min(),
            in_flight: self.in_flight + other.in_flight,
            waiting: self.waiting + other.waiting,
            allowed: self.allowed.saturating_add(other.allowed),
            parked: self.parked.saturating_add(other.parked),
            failure_ratio: recent.failure_ratio(),
            latency_ms: match (self.latency_ms, other.latency_ms) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            },
            last_error: latest,
            recent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (url, endpoint, path) in [
            ("https://Example.com/a?b", "https://example.com:443", "/a"),
            ("https://example.com:443", "https://example.com:443", "/"),
            ("http://127.1:8080/x/y", "http://127.0.0.1:8080", "/x/y"),
            ("https://[2001:DB8::1]/", "https://[2001:db8::1]:443", "/"),
            ("no URL", "no URL", ""),
        ] {
            let place = ReceiverKey::of_url(url);
            assert_eq!((place.endpoint.as_str(), place.path.as_str()), (endpoint, path));
        }
    }
}
