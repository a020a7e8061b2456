//! Admission control and health of a receiver, which is an endpoint and a path.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::breaker::{Breaker, BreakerDecision, HealthSignal, SLOW_THRESHOLD};
use super::concurrency_limiter::{ConcurrencyLimiter, LimitHit, Limits, MAX_PARK_TIME, MIN_PARK_TIME};
use super::decaying_ratio::{DecayingRatio, Parked};
use super::{
    Admission, AdmissionRequest, AdmissionToken, BreakerState, EndpointStats, LastError, LatencyClass, ParkReason,
    Parking, RequestKind, SlowBudget, WaitList,
};
use crate::ids::WebhookId;
use crate::outcome::{Cause, SendResult};

/// Requests in flight to an unknown receiver. Each response that arrives while all of them are in flight allows one
/// more, so the number doubles within the latency of one response.
const INITIAL_ALLOWED: u32 = 8;

/// The requests have stalled if none of them ends for this time. Longer for receivers that are usually slow.
const MIN_STALL: Duration = Duration::from_millis(250);

/// The requests have stalled if none of them ends for this multiple of the usual latency.
const STALL_FACTOR: u32 = 8;

/// Receivers are evicted if they are unused for this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// All times have the same origin.
#[derive(Debug, Clone)]
pub struct Receiver {
    breaker: Breaker,
    /// Limits the requests of this receiver. The limiter of the endpoint applies in addition.
    limiter: ConcurrencyLimiter,
    /// Requests that may be in flight, learned from responses.
    allowed: u32,
    /// The webhooks that have their own limits.
    webhooks: BTreeMap<WebhookId, ConcurrencyLimiter>,
    /// The moving average of the latency of responses. `None` if there was no response yet.
    latency: Option<Duration>,
    /// When the last request ended, or when the first request in flight began.
    last_progress: Duration,
    used_at: Duration,
    parked: Parked,
    ratio: DecayingRatio,
    last_error: Option<LastError>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            breaker: Breaker::default(),
            limiter: ConcurrencyLimiter::default(),
            allowed: INITIAL_ALLOWED,
            webhooks: BTreeMap::new(),
            latency: None,
            last_progress: Duration::ZERO,
            used_at: Duration::ZERO,
            parked: Parked::default(),
            ratio: DecayingRatio::default(),
            last_error: None,
        }
    }
}

impl Receiver {
    /// Decides if a delivery may be sent. `endpoint` is the limiter of the endpoint, shared by its receivers.
    pub fn admit(
        &mut self,
        endpoint: &mut ConcurrencyLimiter,
        request: &AdmissionRequest<'_>,
        now: Duration,
    ) -> Admission {
        self.used_at = now;
        let kind = match self.breaker.admit(now) {
            BreakerDecision::Allow => RequestKind::Regular,
            BreakerDecision::Probe => RequestKind::Probe,
            BreakerDecision::Refused(time) => {
                let time = time + self.spread(request.jitter, now);
                return self.park(request.parking, time, ParkReason::Breaker, now);
            }
        };
        if let Some(refusal) = self.refusal(endpoint, request, kind, now) {
            self.breaker.probe_cancelled(now);
            return refusal;
        }
        let latency_class = self.latency_class(kind, now);
        if self.limiter.in_flight == 0 {
            self.last_progress = now;
        }
        self.limiter.begin_request(None, now);
        endpoint.begin_request(request.limits.rate(), now);
        if let Some((id, limits)) = request.webhook {
            self.webhooks.entry(id.clone()).or_default().begin_request(limits.rate(), now);
        }
        Admission::Send(AdmissionToken { webhook: request.webhook.map(|(id, _)| id.clone()), latency_class, kind })
    }

    /// Checks the slow budget and the limits of a request that the breaker allows. `None` if the request may be sent.
    fn refusal(
        &mut self,
        endpoint: &mut ConcurrencyLimiter,
        request: &AdmissionRequest<'_>,
        kind: RequestKind,
        now: Duration,
    ) -> Option<Admission> {
        let is_stalled = self.is_stalled(now);
        let is_unproven = is_stalled || self.latency.is_none() && self.limiter.in_flight > 0;
        let fits_budget = match (self.latency_class(kind, now), request.slow_budget) {
            (LatencyClass::Fast, _) | (LatencyClass::Slow, SlowBudget::Free) => true,
            (LatencyClass::Slow, SlowBudget::Limited) => !is_unproven,
            (LatencyClass::Slow, SlowBudget::Exhausted) => false,
        };
        if !fits_budget || is_stalled && self.limiter.in_flight >= self.allowed.min(INITIAL_ALLOWED) {
            let time = MIN_PARK_TIME + self.spread(request.jitter, now);
            return Some(self.park(request.parking, time, ParkReason::Slow, now));
        }
        let request_time = self.latency.unwrap_or_else(|| now.saturating_sub(self.last_progress));
        let receiver_limits = Limits { concurrency: self.allowed, per_second: None };
        let own = request.webhook.map(|(id, limits)| (self.webhooks.entry(id.clone()).or_default(), limits));
        let own = own.map(|(limiter, limits)| (limiter, limits, WaitList::Webhook));
        let limiters =
            [(&mut self.limiter, receiver_limits, WaitList::Receiver), (endpoint, request.limits, WaitList::Endpoint)];
        for (limiter, limits, wait_list) in own.into_iter().chain(limiters) {
            let Some(limit_hit) = limiter.limit_hit(limits, request.round, now) else { continue };
            if let Some(wait) = limiter.max_wait(limit_hit, limits, request.round, request.source, request_time) {
                return Some(Admission::Wait(wait, wait_list));
            }
            let reason = match limit_hit {
                LimitHit::Concurrency => ParkReason::Concurrency,
                LimitHit::Rate(_) => ParkReason::RateLimit,
            };
            if request.parking == Parking::Blocked {
                return Some(Admission::Refused(reason));
            }
            // The learned limit may be higher when the delivery is due, so park by the configured limit.
            let limits = Limits { concurrency: limits.concurrency.max(request.limits.concurrency), ..limits };
            let time = limiter.park(limits, request_time, now);
            self.parked.add(now + time, now);
            return Some(Admission::Park(time, reason));
        }
        None
    }

    fn latency_class(&self, kind: RequestKind, now: Duration) -> LatencyClass {
        match self.latency {
            Some(latency) if latency < SLOW_THRESHOLD && kind == RequestKind::Regular && !self.is_stalled(now) => {
                LatencyClass::Fast
            }
            _ => LatencyClass::Slow,
        }
    }

    fn is_stalled(&self, now: Duration) -> bool {
        let max_usual = self.latency.unwrap_or_default().saturating_mul(STALL_FACTOR);
        self.limiter.in_flight > 0 && now.saturating_sub(self.last_progress) > max_usual.max(MIN_STALL)
    }

    /// Spreads the times of parked deliveries, more widely the longer the receiver has been unhealthy. So the backlog
    /// of a dead receiver is rarely retried, and the backlog of a recovered receiver does not arrive all at once.
    fn spread(&self, jitter: f64, now: Duration) -> Duration {
        let stalled_for =
            if self.limiter.in_flight > 0 { now.saturating_sub(self.last_progress) } else { Duration::ZERO };
        let unhealthy_for = self.breaker.failing_for(now).max(stalled_for);
        (unhealthy_for * 2).min(MAX_PARK_TIME - MIN_PARK_TIME).mul_f64(jitter.clamp(0.0, 1.0))
    }

    fn park(&mut self, parking: Parking, time: Duration, reason: ParkReason, now: Duration) -> Admission {
        if parking == Parking::Blocked {
            return Admission::Refused(reason);
        }
        let time = round_up_to_delay_queue(time);
        self.parked.add(now + time, now);
        Admission::Park(time, reason)
    }

    /// Records a request that was sent without admission, such as one of a replay. Only affects statistics.
    pub fn record(&mut self, send_result: &SendResult, wall_clock: DateTime<Utc>, now: Duration) {
        let cause = send_result.cause();
        self.ratio.add(cause == Cause::Ok, now);
        if cause != Cause::Ok {
            self.last_error = Some(LastError::from_send_result(send_result, wall_clock));
        }
    }

    /// Records the end of a request that took `request_time`. `wall_clock` is the time shown to people, `now` that of
    /// the monotonic clock.
    pub fn record_end(
        &mut self,
        endpoint: &mut ConcurrencyLimiter,
        token: AdmissionToken,
        send_result: &SendResult,
        request_time: Duration,
        wall_clock: DateTime<Utc>,
        now: Duration,
    ) {
        let used_all = self.limiter.in_flight >= self.allowed;
        self.end_request(endpoint, &token, now);
        self.record(send_result, wall_clock, now);
        let Some(signal) = signal_of(send_result, request_time) else {
            // No request was sent.
            return self.cancel_probe(&token, now);
        };
        let previous_state = self.breaker.state();
        self.breaker.record(signal, now);
        match signal {
            HealthSignal::Success => {
                // A moving average over about ten responses.
                self.latency = Some(self.latency.map_or(request_time, |latency| (latency * 9 + request_time) / 10));
                self.allowed = match previous_state {
                    // After an outage, start with one request.
                    BreakerState::Open | BreakerState::HalfOpen => 1,
                    BreakerState::Closed => self.allowed.saturating_add(u32::from(used_all)),
                };
            }
            HealthSignal::Throttled | HealthSignal::SlowFailure => self.allowed = (self.allowed / 2).max(1),
            HealthSignal::FastFailure => {}
        }
    }

    /// Records that a request was cancelled without a result.
    pub fn record_cancellation(&mut self, endpoint: &mut ConcurrencyLimiter, token: AdmissionToken, now: Duration) {
        self.end_request(endpoint, &token, now);
        self.cancel_probe(&token, now);
    }

    fn cancel_probe(&mut self, token: &AdmissionToken, now: Duration) {
        if token.kind == RequestKind::Probe {
            self.breaker.probe_cancelled(now);
        }
    }

    fn end_request(&mut self, endpoint: &mut ConcurrencyLimiter, token: &AdmissionToken, now: Duration) {
        self.last_progress = now;
        self.limiter.end_request();
        endpoint.end_request();
        if let Some(limiter) = token.webhook.as_ref().and_then(|id| self.webhooks.get_mut(id)) {
            limiter.end_request();
        }
    }

    /// The limiter for which a delivery of this webhook waits in `wait_list`.
    pub fn limiter<'a>(
        &'a mut self,
        endpoint: &'a mut ConcurrencyLimiter,
        wait_list: WaitList,
        webhook: &WebhookId,
    ) -> &'a mut ConcurrencyLimiter {
        match wait_list {
            WaitList::Webhook => self.webhooks.entry(webhook.clone()).or_default(),
            WaitList::Receiver => &mut self.limiter,
            WaitList::Endpoint => endpoint,
        }
    }

    /// Whether the receiver's own limit allows another request.
    pub fn has_room(&self) -> bool {
        self.limiter.has_room(self.allowed)
    }

    /// Tells if the receiver can be evicted: it has no requests, no parked deliveries and no state to remember.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.is_unused()
            && now.saturating_sub(self.used_at) > IDLE_TIMEOUT
            && self.breaker.state() == BreakerState::Closed
            && self.parked.count(now) == 0
            && self.webhooks.values().all(|limiter| limiter.is_idle(now))
    }

    /// Tells if no request is in flight and no delivery waits.
    pub fn is_unused(&self) -> bool {
        self.limiter.in_flight == 0 && self.waiting() == 0
    }

    fn waiting(&self) -> u32 {
        self.limiter.waiting + self.webhooks.values().map(|limiter| limiter.waiting).sum::<u32>()
    }

    /// Tells if a delivery waits for a request of the receiver or of its webhooks to end.
    pub fn has_waiters(&self) -> bool {
        self.waiting() > 0
    }

    /// When admission was last requested.
    pub fn used_at(&self) -> Duration {
        self.used_at
    }

    pub fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    pub fn stats(&self, now: Duration) -> EndpointStats {
        let ratio = self.ratio.at(now);
        EndpointStats {
            breaker: self.breaker.state(),
            probe_in_ms: self.breaker.open_for(now).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            in_flight: self.limiter.in_flight,
            waiting: self.waiting(),
            allowed: self.allowed,
            parked: self.parked.count(now),
            failure_ratio: ratio.failure_ratio(),
            latency_ms: self.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            last_error: self.last_error.clone(),
            ratio,
        }
    }
}

impl LastError {
    fn from_send_result(send_result: &SendResult, at: DateTime<Utc>) -> Self {
        let status = if let SendResult::Response { status, .. } = send_result { Some(*status) } else { None };
        Self { at, cause: send_result.cause(), status, error: send_result.error().map(str::to_owned) }
    }
}

/// Rounds up to a delay of a single delay queue, which is a power of two in seconds. Any other delay takes several
/// queues, and a message to the broker for each.
fn round_up_to_delay_queue(time: Duration) -> Duration {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let longest = (MAX_PARK_TIME.as_secs() + 1).next_power_of_two() / 2;
    Duration::from_secs(seconds.next_power_of_two().min(longest))
}

/// `None` if no request reached the receiver.
fn signal_of(send_result: &SendResult, request_time: Duration) -> Option<HealthSignal> {
    match send_result {
        // Failures of Waypost's own proxy do not tell anything about the receiver.
        SendResult::Failure { cause: Cause::ForbiddenAddress, .. } | SendResult::ProxyFailure { .. } => None,
        SendResult::Response { status: 429 | 503, .. } => Some(HealthSignal::Throttled),
        SendResult::Response { status: ..=499, .. } => Some(HealthSignal::Success),
        SendResult::TimedOut { .. } => Some(HealthSignal::SlowFailure),
        SendResult::Response { .. } | SendResult::NotConnected { .. } | SendResult::Failure { .. }
            if request_time >= SLOW_THRESHOLD =>
        {
            Some(HealthSignal::SlowFailure)
        }
        SendResult::Response { .. } | SendResult::NotConnected { .. } | SendResult::Failure { .. } => {
            Some(HealthSignal::FastFailure)
        }
    }
}

#[cfg(test)]
mod tests;
