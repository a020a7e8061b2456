//! A receiver: an endpoint and a path. What it lets through, and what its requests say of it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::breaker::{Breaker, BreakerDecision, HealthSignal, SLOW};
use super::concurrency_limiter::{ConcurrencyLimiter, LONGEST_PARKING, LimitHit, Limits, SHORTEST_PARKING};
use super::decaying_ratio::{DecayingRatio, Parked};
use super::{
    Admission, AdmissionRequest, AdmissionToken, BreakerState, EndpointStats, Ladder, Lane, LastError, ParkReason,
    Purpose, Queue, SlowLane,
};
use crate::delivery::ids::WebhookId;
use crate::delivery::outcome::{Cause, Reply};

/// Requests at once to a receiver that is not known. It has one more with each answer that comes while all of them are
/// under way, so twice as many in the time of one answer.
const FIRST_ALLOWED: u32 = 8;

/// Requests under way without any of them ending for this long have stalled, unless the receiver usually takes longer.
const STALL: Duration = Duration::from_millis(250);

/// Of a receiver that usually takes long, it takes so many times that.
const STALL_FACTOR: u32 = 8;

/// A receiver that has not been asked for anything for this long is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// A receiver as it stands. All times are since the same moment.
#[derive(Debug, Clone)]
pub struct Receiver {
    breaker: Breaker,
    /// Its requests; those of all receivers of its endpoint pass that one's gate as well.
    gate: ConcurrencyLimiter,
    /// Requests it may have under way: what it has shown to bear.
    allowed: u32,
    /// Of webhooks that have limits of their own.
    webhooks: BTreeMap<WebhookId, ConcurrencyLimiter>,
    /// What an answer usually takes; none where there never was one.
    latency: Option<Duration>,
    /// When a request last ended, or the first of those under way began.
    moved_at: Duration,
    used_at: Duration,
    parked: Parked,
    recent: DecayingRatio,
    last_error: Option<LastError>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            breaker: Breaker::default(),
            gate: ConcurrencyLimiter::default(),
            allowed: FIRST_ALLOWED,
            webhooks: BTreeMap::new(),
            latency: None,
            moved_at: Duration::ZERO,
            used_at: Duration::ZERO,
            parked: Parked::default(),
            recent: DecayingRatio::default(),
            last_error: None,
        }
    }
}

impl Receiver {
    /// Asks whether a delivery may be sent; `endpoint` is the gate of all its receivers.
    pub fn admit(&mut self, endpoint: &mut ConcurrencyLimiter, ask: &AdmissionRequest<'_>, now: Duration) -> Admission {
        self.used_at = now;
        let purpose = match self.breaker.ask(now) {
            BreakerDecision::Go => Purpose::Request,
            BreakerDecision::Probe => Purpose::Probe,
            BreakerDecision::Refused(time) => {
                let time = time + self.spread(ask.jitter, now);
                return self.park(ask.ladder, time, ParkReason::Breaker, now);
            }
        };
        if let Some(refusal) = self.refusal(endpoint, ask, purpose, now) {
            self.breaker.probe_lost(now);
            return refusal;
        }
        let lane = self.lane(purpose, now);
        if self.gate.in_flight == 0 {
            self.moved_at = now;
        }
        self.gate.enter(None, now);
        endpoint.enter(ask.limits.per_second, now);
        if let Some((id, limits)) = ask.webhook {
            self.webhooks.entry(id.clone()).or_default().enter(limits.per_second, now);
        }
        Admission::Send(AdmissionToken { webhook: ask.webhook.map(|(id, _)| id.clone()), lane, purpose })
    }

    /// What keeps a request that the breaker would let through.
    fn refusal(
        &mut self,
        endpoint: &mut ConcurrencyLimiter,
        ask: &AdmissionRequest<'_>,
        purpose: Purpose,
        now: Duration,
    ) -> Option<Admission> {
        let stalled = self.stalled(now);
        let useless = stalled || self.latency.is_none() && self.gate.in_flight > 0;
        let has_place = match (self.lane(purpose, now), ask.slow_lane) {
            (Lane::Quick, _) | (Lane::Slow, SlowLane::Free) => true,
            (Lane::Slow, SlowLane::Scarce) => !useless,
            (Lane::Slow, SlowLane::Full) => false,
        };
        if !has_place || stalled && self.gate.in_flight >= self.allowed.min(FIRST_ALLOWED) {
            let time = SHORTEST_PARKING + self.spread(ask.jitter, now);
            return Some(self.park(ask.ladder, time, ParkReason::Slow, now));
        }
        let took = self.latency.unwrap_or_else(|| now.saturating_sub(self.moved_at));
        let bearable = Limits { concurrency: self.allowed, per_second: None };
        let own = ask.webhook.map(|(id, limits)| (self.webhooks.entry(id.clone()).or_default(), limits));
        let own = own.map(|(gate, limits)| (gate, limits, Queue::Webhook));
        let gates = [(&mut self.gate, bearable, Queue::Receiver), (endpoint, ask.limits, Queue::Endpoint)];
        for (gate, limits, queue) in own.into_iter().chain(gates) {
            let Some(obstacle) = gate.obstacle(limits, ask.asking, now) else { continue };
            if let Some(wait) = gate.worth_waiting(obstacle, limits, ask.asking, ask.arrival, took) {
                return Some(Admission::Wait(wait, queue));
            }
            let why = match obstacle {
                LimitHit::Concurrency => ParkReason::Concurrency,
                LimitHit::Rate(_) => ParkReason::RateLimit,
            };
            if ask.ladder == Ladder::Closed {
                return Some(Admission::Refused(why));
            }
            // What it may bear is found out anew: when this comes back it may be more.
            let limits = Limits { concurrency: limits.concurrency.max(ask.limits.concurrency), ..limits };
            let time = gate.park(limits, took, now);
            self.parked.add(now + time, now);
            return Some(Admission::Park(time, why));
        }
        None
    }

    fn lane(&self, purpose: Purpose, now: Duration) -> Lane {
        match self.latency {
            Some(latency) if latency < SLOW && purpose == Purpose::Request && !self.stalled(now) => Lane::Quick,
            _ => Lane::Slow,
        }
    }

    fn stalled(&self, now: Duration) -> bool {
        let usual = self.latency.unwrap_or_default().saturating_mul(STALL_FACTOR);
        self.gate.in_flight > 0 && now.saturating_sub(self.moved_at) > usual.max(STALL)
    }

    /// The longer a receiver has been of no use, the longer what is parked waits, and the wider it is spread: so the
    /// backlog of a dead one does not churn, and that of one that is back does not come at once.
    fn spread(&self, jitter: f64, now: Duration) -> Duration {
        let stalled = if self.gate.in_flight > 0 { now.saturating_sub(self.moved_at) } else { Duration::ZERO };
        let down = self.breaker.failing_for(now).max(stalled);
        (down * 2).min(LONGEST_PARKING - SHORTEST_PARKING).mul_f64(jitter.clamp(0.0, 1.0))
    }

    fn park(&mut self, ladder: Ladder, time: Duration, why: ParkReason, now: Duration) -> Admission {
        if ladder == Ladder::Closed {
            return Admission::Refused(why);
        }
        let time = in_one_hop(time);
        self.parked.add(now + time, now);
        Admission::Park(time, why)
    }

    /// What came of a request that did not ask to be sent, as those of a replay: it is seen, and nothing follows from it.
    pub fn record(&mut self, reply: &Reply, at: DateTime<Utc>, now: Duration) {
        let cause = reply.cause();
        self.recent.add(cause == Cause::Ok, now);
        if cause != Cause::Ok {
            self.last_error = Some(LastError::from_reply(reply, at));
        }
    }

    /// A request has ended `at` this time, after `took`, with this reply.
    pub fn ended(
        &mut self,
        endpoint: &mut ConcurrencyLimiter,
        pass: AdmissionToken,
        reply: &Reply,
        took: Duration,
        at: DateTime<Utc>,
        now: Duration,
    ) {
        let all_used = self.gate.in_flight >= self.allowed;
        self.leave(endpoint, &pass, now);
        self.record(reply, at, now);
        let Some(sign) = sign_of(reply, took) else {
            // It was never sent.
            return self.lose(&pass, now);
        };
        let was = self.breaker.shown();
        self.breaker.record(sign, now);
        match sign {
            HealthSignal::Success => {
                // A moving average: old answers fade within about ten.
                self.latency = Some(self.latency.map_or(took, |latency| (latency * 9 + took) / 10));
                self.allowed = match was {
                    // After an outage it begins with one.
                    BreakerState::Open | BreakerState::HalfOpen => 1,
                    BreakerState::Closed => self.allowed.saturating_add(u32::from(all_used)),
                };
            }
            HealthSignal::Throttled | HealthSignal::SlowFailure => self.allowed = (self.allowed / 2).max(1),
            HealthSignal::FastFailure => {}
        }
    }

    /// A request was given up before anything came of it.
    pub fn cancelled(&mut self, endpoint: &mut ConcurrencyLimiter, pass: AdmissionToken, now: Duration) {
        self.leave(endpoint, &pass, now);
        self.lose(&pass, now);
    }

    fn lose(&mut self, pass: &AdmissionToken, now: Duration) {
        if pass.purpose == Purpose::Probe {
            self.breaker.probe_lost(now);
        }
    }

    fn leave(&mut self, endpoint: &mut ConcurrencyLimiter, pass: &AdmissionToken, now: Duration) {
        self.moved_at = now;
        self.gate.leave();
        endpoint.leave();
        if let Some(gate) = pass.webhook.as_ref().and_then(|id| self.webhooks.get_mut(id)) {
            gate.leave();
        }
    }

    /// The gate at which a delivery of this webhook waits in `queue`.
    pub fn gate<'a>(
        &'a mut self,
        endpoint: &'a mut ConcurrencyLimiter,
        queue: Queue,
        webhook: &WebhookId,
    ) -> &'a mut ConcurrencyLimiter {
        match queue {
            Queue::Webhook => self.webhooks.entry(webhook.clone()).or_default(),
            Queue::Receiver => &mut self.gate,
            Queue::Endpoint => endpoint,
        }
    }

    /// Whether it can be forgotten: nothing of it is under way, parked or limited, and it has not been asked for long.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.is_unused()
            && now.saturating_sub(self.used_at) > IDLE
            && self.breaker.shown() == BreakerState::Closed
            && self.parked.count(now) == 0
            && self.webhooks.values().all(|gate| gate.is_idle(now))
    }

    /// Whether nothing of it is under way.
    pub fn is_unused(&self) -> bool {
        self.gate.in_flight == 0 && self.waiting() == 0
    }

    fn waiting(&self) -> u32 {
        self.gate.waiting + self.webhooks.values().map(|gate| gate.waiting).sum::<u32>()
    }

    /// Whether anybody waits for one of its requests, or its webhooks', to end.
    pub fn has_waiters(&self) -> bool {
        self.waiting() > 0
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
    pub fn standing(&self, now: Duration) -> EndpointStats {
        let recent = self.recent.at(now);
        EndpointStats {
            breaker: self.breaker.shown(),
            probe_in_ms: self.breaker.refuses_for(now).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            in_flight: self.gate.in_flight,
            waiting: self.waiting(),
            allowed: self.allowed,
            parked: self.parked.count(now),
            failure_ratio: recent.failure_ratio(),
            latency_ms: self.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            last_error: self.last_error.clone(),
            recent,
        }
    }
}

impl LastError {
    fn from_reply(reply: &Reply, at: DateTime<Utc>) -> Self {
        let status = if let Reply::Answer { status, .. } = reply { Some(*status) } else { None };
        Self { at, cause: reply.cause(), status, error: reply.error().map(str::to_owned) }
    }
}

/// As long at least, in one hop on the delay ladder, whose rungs are powers of two: a wait of any other length is a message to the
/// broker for each rung that it takes, and nobody is waiting for this one to the second.
fn in_one_hop(time: Duration) -> Duration {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let longest = (LONGEST_PARKING.as_secs() + 1).next_power_of_two() / 2;
    Duration::from_secs(seconds.next_power_of_two().min(longest))
}

/// What a reply says of its receiver; nothing, where no request was sent.
fn sign_of(reply: &Reply, took: Duration) -> Option<HealthSignal> {
    match reply {
        // Nor does what our own proxy does say anything of it.
        Reply::Failure { cause: Cause::ForbiddenAddress, .. } | Reply::ProxyFailure { .. } => None,
        Reply::Answer { status: 429 | 503, .. } => Some(HealthSignal::Throttled),
        Reply::Answer { status: ..=499, .. } => Some(HealthSignal::Success),
        Reply::TimedOut { .. } => Some(HealthSignal::SlowFailure),
        Reply::Answer { .. } | Reply::NotConnected { .. } | Reply::Failure { .. } if took >= SLOW => {
            Some(HealthSignal::SlowFailure)
        }
        Reply::Answer { .. } | Reply::NotConnected { .. } | Reply::Failure { .. } => Some(HealthSignal::FastFailure),
    }
}

#[cfg(test)]
mod tests;
