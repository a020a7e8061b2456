//! An endpoint: scheme, host and port of webhooks. Whether it can take a request now, and what its requests say of it.
//!
//! ```text
//! a delivery ──admit──▶ send           ▶ ended, or given up
//!                     ├ wait a moment  ▶ admit again
//!                     └ park           (back on the delay ladder; it spends no attempt)
//! ```
//!
//! Messages in hand are few, the *window*, and all endpoints share them. So an endpoint holds only as many as it makes use
//! of: it begins with a few requests at once and has more where it answers, and what it can't take soon is parked. Endpoints
//! that are slow, or have not answered yet, have a part of the window together, and the others have the rest.

pub mod breaker;
pub mod gate;
pub mod rate;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::identity::WebhookId;
use super::outcome::{Cause, Reply};
use super::timestamp;
use breaker::{Breaker, SLOW, Sign, Verdict};
use gate::{Gate, LONGEST_PARKING, Limits, Obstacle, PATIENCE, SHORTEST_PARKING};

/// Requests at once to an endpoint that is not known. It has one more with each answer that comes while all of them are
/// under way, so twice as many in the time of one answer.
const FIRST_ALLOWED: u32 = 8;

/// Requests under way without any of them ending for this long have stalled, unless the endpoint usually takes longer.
const STALL: Duration = Duration::from_millis(250);

/// Of an endpoint that usually takes long, it takes so many times that.
const STALL_FACTOR: u32 = 8;

/// An endpoint that has not been asked for anything for this long is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// The failure ratio is that of about the last minute: what is older than this counts half.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// Scheme, host and port: `https://example.com:443`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Origin(String);

impl Origin {
    /// The endpoint of a URL; what is none is an endpoint of its own.
    pub fn of(url: &str) -> Self {
        let Ok(url) = Url::parse(url) else { return Self(url.to_owned()) };
        let port = url.port_or_known_default().unwrap_or_default();
        Self(format!("{}://{}:{port}", url.scheme(), url.host_str().unwrap_or_default()))
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
pub enum Busy {
    /// The breaker is open.
    Breaker,
    /// As many requests are under way as may be, and for longer than is worth waiting.
    Concurrency,
    /// As many requests were sent in the last second as may be.
    RateLimit,
    /// None of its requests ends, or all slow endpoints together hold their part of the window.
    Slow,
}

impl Busy {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Breaker, Self::Concurrency, Self::RateLimit, Self::Slow];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Concurrency => "concurrency",
            Self::RateLimit => "rate_limit",
            Self::Slow => "slow",
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
    /// Of endpoints that answer within a second.
    Quick,
    /// Of those that are slow, and those nobody knows yet.
    Slow,
}

/// Whether slow endpoints may have more requests under way.
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
pub enum Asking {
    /// It has just come. It does not overtake those that wait.
    First,
    /// It has waited.
    Again,
    /// It has waited for as long as is worth it.
    Last,
}

/// A delivery asks to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Its webhook, where that has limits of its own.
    pub webhook: Option<(&'a WebhookId, Limits)>,
    /// The endpoint's limits.
    pub limits: Limits,
    /// Whether there is room for a slow endpoint.
    pub slow_lane: SlowLane,
    /// How it has come to ask.
    pub asking: Asking,
    /// A number in 0..1 that spreads what is parked.
    pub jitter: f64,
}

/// What an endpoint says to a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Its request may be sent.
    Send(Pass),
    /// It may wait until a request ends, and no longer than this.
    Wait(Duration),
    /// It has to come back after this time.
    Park(Duration, Busy),
}

/// A request that may be sent. It must be given back, by [`Endpoint::ended`] or [`Endpoint::given_up`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    webhook: Option<WebhookId>,
    /// The part of the window it is in.
    pub lane: Lane,
    is: Purpose,
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

/// An endpoint as it stands. All times are since the same moment.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    breaker: Breaker,
    gate: Gate,
    /// Requests it may have under way, below the limit: what it has shown to bear. Zero: nothing is known.
    allowed: u32,
    webhooks: BTreeMap<WebhookId, Gate>,
    waiting: u32,
    /// What an answer usually takes; none where there never was one.
    latency: Option<Duration>,
    /// When a request last ended, or the first of those under way began.
    moved_at: Duration,
    used_at: Duration,
    parked: Parked,
    recent: Recent,
    last_error: Option<LastError>,
}

impl Endpoint {
    /// Asks whether a delivery may be sent.
    pub fn admit(&mut self, ask: &Ask<'_>, now: Duration) -> Admission {
        self.used_at = now;
        let is = match self.breaker.ask(now) {
            Verdict::Go => Purpose::Request,
            Verdict::Probe => Purpose::Probe,
            Verdict::Refused(time) => {
                let time = time + self.spread(ask.jitter, now);
                return self.parked.park(time, Busy::Breaker, now);
            }
        };
        let refused = self.refusal(ask, is, now);
        if let Some(admission) = refused {
            if is == Purpose::Probe {
                self.breaker.probe_lost(now);
            }
            return admission;
        }
        let lane = self.lane(is, now);
        if self.gate.in_flight == 0 {
            self.moved_at = now;
        }
        self.gate.enter(ask.limits, now);
        if let Some((id, limits)) = ask.webhook {
            self.webhooks.entry(id.clone()).or_default().enter(limits, now);
        }
        Admission::Send(Pass { webhook: ask.webhook.map(|(id, _)| id.clone()), lane, is })
    }

    /// What keeps a request that the breaker would let through.
    fn refusal(&mut self, ask: &Ask<'_>, is: Purpose, now: Duration) -> Option<Admission> {
        let limits = limits(self.allowed, ask.limits);
        let stalled = self.stalled(now);
        let useless = stalled || self.latency.is_none() && self.gate.in_flight > 0;
        let has_place = match (self.lane(is, now), ask.slow_lane) {
            (Lane::Quick, _) | (Lane::Slow, SlowLane::Free) => true,
            (Lane::Slow, SlowLane::Scarce) => !useless,
            (Lane::Slow, SlowLane::Full) => false,
        };
        if !has_place || stalled && self.gate.in_flight >= limits.concurrency.min(FIRST_ALLOWED) {
            let time = SHORTEST_PARKING + self.spread(ask.jitter, now);
            return Some(self.parked.park(time, Busy::Slow, now));
        }
        let took = self.latency.unwrap_or_else(|| now.saturating_sub(self.moved_at));
        let own = ask.webhook.map(|(id, limits)| (self.webhooks.entry(id.clone()).or_default(), limits));
        for (gate, limits) in own.into_iter().chain([(&mut self.gate, limits)]) {
            let (wait, why) = match (gate.obstacle(limits, now), ask.asking) {
                (None, Asking::First) if self.waiting > 0 => (Duration::ZERO, Busy::Concurrency),
                (None, _) => continue,
                (Some(Obstacle::Concurrency), _) => (Duration::ZERO, Busy::Concurrency),
                (Some(Obstacle::Rate(wait)), _) => (wait, Busy::RateLimit),
            };
            let worth_it = match ask.asking {
                Asking::First => wait + gate::behind(self.waiting, limits, took) <= PATIENCE,
                Asking::Again => wait <= PATIENCE,
                Asking::Last => false,
            };
            if worth_it {
                return Some(Admission::Wait(if why == Busy::RateLimit { wait } else { PATIENCE }));
            }
            let time = gate.park(limits, took, now);
            return Some(self.parked.park(time, why, now));
        }
        None
    }

    fn lane(&self, is: Purpose, now: Duration) -> Lane {
        match self.latency {
            Some(latency) if latency < SLOW && is == Purpose::Request && !self.stalled(now) => Lane::Quick,
            _ => Lane::Slow,
        }
    }

    fn stalled(&self, now: Duration) -> bool {
        let usual = self.latency.unwrap_or_default().saturating_mul(STALL_FACTOR);
        self.gate.in_flight > 0 && now.saturating_sub(self.moved_at) > usual.max(STALL)
    }

    /// The longer an endpoint has been of no use, the longer what is parked waits, and the wider it is spread: so the
    /// backlog of a dead one does not churn, and that of one that is back does not come at once.
    fn spread(&self, jitter: f64, now: Duration) -> Duration {
        let stalled = if self.gate.in_flight > 0 { now.saturating_sub(self.moved_at) } else { Duration::ZERO };
        let down = self.breaker.failing_for(now).max(stalled);
        (down * 2).min(LONGEST_PARKING - SHORTEST_PARKING).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// A request has ended after `took`, with this reply.
    pub fn ended(&mut self, pass: Pass, reply: &Reply, took: Duration, at: DateTime<Utc>, now: Duration) {
        let full = self.gate.in_flight >= self.allowed();
        self.leave(&pass, now);
        let cause = reply.cause();
        self.recent.add(cause == Cause::Ok, now);
        if cause != Cause::Ok {
            let (status, error) = match reply {
                Reply::Answer { status, .. } => (Some(*status), None),
                Reply::Failure { error, .. } => (None, Some(error.clone())),
            };
            self.last_error = Some(LastError { at, cause, status, error });
        }
        let Some(sign) = sign_of(reply, took) else {
            // It was never sent.
            return self.lose(&pass, now);
        };
        let was = self.breaker.shown();
        self.breaker.heard(sign, now);
        match sign {
            Sign::Works => {
                // A moving average: old answers fade within about ten.
                self.latency = Some(self.latency.map_or(took, |latency| (latency * 9 + took) / 10));
                self.allowed = match was {
                    // After an outage it begins with one.
                    BreakerState::Open | BreakerState::HalfOpen => 1,
                    BreakerState::Closed if full => self.allowed().saturating_add(1),
                    BreakerState::Closed => self.allowed(),
                };
            }
            Sign::AsksForLess | Sign::FailsSlowly => self.allowed = (self.allowed() / 2).max(1),
            Sign::FailsAtOnce => {}
        }
    }

    /// A request was given up before anything came of it.
    pub fn given_up(&mut self, pass: Pass, now: Duration) {
        self.leave(&pass, now);
        self.lose(&pass, now);
    }

    fn lose(&mut self, pass: &Pass, now: Duration) {
        if pass.is == Purpose::Probe {
            self.breaker.probe_lost(now);
        }
    }

    fn leave(&mut self, pass: &Pass, now: Duration) {
        self.moved_at = now;
        self.gate.leave();
        if let Some(gate) = pass.webhook.as_ref().and_then(|id| self.webhooks.get_mut(id)) {
            gate.leave();
        }
    }

    fn allowed(&self) -> u32 {
        if self.allowed == 0 { FIRST_ALLOWED } else { self.allowed }
    }

    /// A delivery begins, or ends, to wait for a request to end.
    pub fn waits(&mut self, change: Waits) {
        self.waiting = match change {
            Waits::Begin => self.waiting.saturating_add(1),
            Waits::End => self.waiting.saturating_sub(1),
        };
    }

    /// Whether anybody waits.
    pub fn is_awaited(&self) -> bool {
        self.waiting > 0
    }

    /// Whether it can be forgotten: nothing of it is under way, parked or limited, and it has not been asked for long.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.is_unused()
            && now.saturating_sub(self.used_at) > IDLE
            && self.breaker.shown() == BreakerState::Closed
            && self.parked.count(now) == 0
            && self.gate.is_idle(now)
            && self.webhooks.values().all(|gate| gate.is_idle(now))
    }

    /// Whether nothing of it is under way.
    pub fn is_unused(&self) -> bool {
        self.gate.in_flight == 0 && self.waiting == 0
    }

    /// When it was last asked.
    pub fn used_at(&self) -> Duration {
        self.used_at
    }

    /// What its breaker is.
    pub fn breaker(&self) -> BreakerState {
        self.breaker.shown()
    }

    /// How it stands, for people.
    pub fn standing(&self, now: Duration) -> Standing {
        Standing {
            breaker: self.breaker.shown(),
            in_flight: self.gate.in_flight,
            waiting: self.waiting,
            allowed: self.allowed(),
            parked: self.parked.count(now),
            failure_ratio: self.recent.failure_ratio(now),
            latency_ms: self.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            last_error: self.last_error.clone(),
        }
    }
}

/// A delivery begins or ends to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It begins.
    Begin,
    /// It has been admitted, or does not wait any longer.
    End,
}

/// An endpoint as people are shown it, as this worker sees it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Whether requests are let through.
    pub breaker: BreakerState,
    /// Requests under way.
    pub in_flight: u32,
    /// Deliveries that wait for one of those to end.
    pub waiting: u32,
    /// Requests it may have under way at once, for what it has shown to bear; its limit may be lower.
    pub allowed: u32,
    /// Deliveries that this worker has parked and whose time has not come.
    pub parked: u32,
    /// The share of requests of about the last minute that were not answered with 2xx, from 0 to 1; null where there was none.
    pub failure_ratio: Option<f64>,
    /// What an answer takes, averaged over about the last ten, in milliseconds; null where there never was one.
    pub latency_ms: Option<f64>,
    /// The last request that was not answered with 2xx.
    pub last_error: Option<LastError>,
}

impl Standing {
    /// What puts an endpoint at the head of a list: the lower, the worse.
    pub fn health(&self) -> (BreakerState, u32, u32) {
        let failing = (self.failure_ratio.unwrap_or_default() * 1000.0) as u32;
        (self.breaker, u32::MAX - failing, u32::MAX - self.parked)
    }
}

fn limits(allowed: u32, given: Limits) -> Limits {
    let allowed = if allowed == 0 { FIRST_ALLOWED } else { allowed };
    Limits { concurrency: given.concurrency.min(allowed), ..given }
}

/// What a reply says of the endpoint; nothing, where no request was sent.
fn sign_of(reply: &Reply, took: Duration) -> Option<Sign> {
    match reply {
        Reply::Failure { cause: Cause::ForbiddenAddress, .. } => None,
        Reply::Answer { status: 429 | 503, .. } => Some(Sign::AsksForLess),
        Reply::Answer { status: ..=499, .. } => Some(Sign::Works),
        Reply::Answer { .. } | Reply::Failure { .. } if took >= SLOW => Some(Sign::FailsSlowly),
        Reply::Failure { cause: Cause::Timeout, .. } => Some(Sign::FailsSlowly),
        Reply::Answer { .. } | Reply::Failure { .. } => Some(Sign::FailsAtOnce),
    }
}

/// How many deliveries are parked, by when their time comes.
#[derive(Debug, Clone, Default)]
struct Parked {
    /// The number of the first span of time.
    first: u64,
    /// For each span, those whose time comes in it.
    spans: VecDeque<u32>,
}

/// A span of time, in seconds.
const SPAN: u64 = 5;

impl Parked {
    fn park(&mut self, time: Duration, why: Busy, now: Duration) -> Admission {
        self.add(now + time, now);
        Admission::Park(time, why)
    }

    fn add(&mut self, until: Duration, now: Duration) {
        self.forget(now);
        let span = (until.as_secs() / SPAN).saturating_sub(self.first) as usize;
        if self.spans.len() <= span {
            self.spans.resize(span + 1, 0);
        }
        self.spans[span] = self.spans[span].saturating_add(1);
    }

    fn forget(&mut self, now: Duration) {
        let current = now.as_secs() / SPAN;
        let over = current.saturating_sub(self.first).min(self.spans.len() as u64) as usize;
        self.spans.drain(..over);
        self.first = self.first.max(current);
    }

    fn count(&self, now: Duration) -> u32 {
        let over = (now.as_secs() / SPAN).saturating_sub(self.first);
        self.spans.iter().skip(usize::try_from(over).unwrap_or(usize::MAX)).sum()
    }
}

/// Requests that were answered with 2xx, and others, fading with time.
#[derive(Debug, Clone, Default)]
struct Recent {
    good: f64,
    bad: f64,
    at: Duration,
}

impl Recent {
    fn add(&mut self, good: bool, now: Duration) {
        let faded = self.faded(now);
        *self = Self { good: self.good * faded, bad: self.bad * faded, at: now };
        if good {
            self.good += 1.0;
        } else {
            self.bad += 1.0;
        }
    }

    fn faded(&self, now: Duration) -> f64 {
        0.5_f64.powf(now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64())
    }

    /// None where all has faded.
    fn failure_ratio(&self, now: Duration) -> Option<f64> {
        let all = self.good + self.bad;
        (all * self.faded(now) > 0.01).then(|| self.bad / all)
    }
}

#[cfg(test)]
mod tests;
