//! The receivers and endpoints that this worker has recently sent to. Each request must be admitted here, and its
//! result is recorded here. [`waypost_core::endpoint`] decides; this module has the locks, the clock, the waiting
//! and the eviction.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::Instant;
use waypost_core::campaign::Webhook;
use waypost_core::endpoint::concurrency_limiter::{ConcurrencyLimiter, Limits};
use waypost_core::endpoint::receiver::Receiver;
use waypost_core::endpoint::{
    Admission, AdmissionRequest, AdmissionToken, AskRound, EndpointStats, LatencyClass, Origin, ParkReason, Parking,
    ReceiverKey, SlowBudget, Source, WaitList,
};
use waypost_core::ids::WebhookId;
use waypost_core::outcome::SendResult;

use crate::sender::deadline_timer::DeadlineTimer;

/// If there are more receivers, the least recently used ones are evicted. An evicted receiver starts without a history.
const MAX_RECEIVERS: usize = 10_000;

/// Unused timers that are kept. More deliveries wait only if the window is larger.
const MAX_POOLED_TIMERS: usize = 2_000;

/// How often idle receivers are evicted.
const EVICTION_INTERVAL: Duration = Duration::from_secs(10);

/// Cheap to clone.
#[derive(Clone)]
pub struct EndpointRegistry(Arc<Shared>);

struct Shared {
    limits: ArcSwap<Limits>,
    /// Requests that all slow receivers together may have in flight.
    max_slow: usize,
    slow: AtomicUsize,
    /// Workers that share the limits of webhooks.
    workers: AtomicU32,
    /// The latest number, which can be too low for a moment.
    workers_seen: AtomicU32,
    registry: Mutex<Registry>,
    /// The unused timers of deliveries that waited.
    timers: Mutex<Vec<DeadlineTimer>>,
    started: Instant,
}

#[derive(Default)]
struct Registry {
    receivers: HashMap<ReceiverKey, Arc<ReceiverSlot>>,
    /// A limiter lives as long as one of its endpoint's receivers.
    limiters: HashMap<Origin, Weak<OriginLimiter>>,
    evicted_at: Duration,
}

/// A receiver. To avoid deadlocks, `receiver` is locked before `limiter`.
struct ReceiverSlot {
    receiver: Mutex<Receiver>,
    /// Notified when a request of the receiver has ended.
    slot_freed: Notify,
    limiter: Arc<OriginLimiter>,
}

/// The limiter that all receivers of an endpoint share.
#[derive(Default)]
struct OriginLimiter {
    limiter: Mutex<ConcurrencyLimiter>,
    /// Notified when a request to the endpoint has ended.
    slot_freed: Notify,
}

pub enum AdmissionOutcome {
    Admitted(Permit),
    /// The delivery is to be parked.
    Parked {
        delay: Duration,
        reason: ParkReason,
    },
    /// The delivery can be neither sent nor parked now, and has to ask again.
    Refused,
}

/// The permission to send one request. A permit that is dropped without [`finish`](Self::finish) means that the request
/// was cancelled.
pub struct Permit {
    shared: Arc<Shared>,
    slot: Arc<ReceiverSlot>,
    token: Option<AdmissionToken>,
}

/// An endpoint and its recently used receivers.
pub struct EndpointSnapshot {
    pub endpoint: Origin,
    /// All receivers together.
    pub stats: EndpointStats,
    /// By path, the least healthy first.
    pub receivers: Vec<(String, EndpointStats)>,
}

impl EndpointRegistry {
    /// `limits` apply to each endpoint. `window` is the number of messages in flight. Slow receivers together get at
    /// most half of it.
    pub fn new(limits: Limits, window: u16) -> Self {
        Self(Arc::new(Shared {
            limits: ArcSwap::from_pointee(limits),
            max_slow: usize::from(window / 2).max(1),
            slow: AtomicUsize::new(0),
            workers: AtomicU32::new(1),
            workers_seen: AtomicU32::new(1),
            registry: Mutex::default(),
            timers: Mutex::default(),
            started: Instant::now(),
        }))
    }

    pub fn set_limits(&self, limits: Limits) {
        self.0.limits.store(Arc::new(limits));
    }

    /// Sets the number of workers, which share the limits of each webhook. A lower number is used only when it is
    /// reported twice, because a worker that changes its channel is missing for a moment.
    pub fn set_workers(&self, workers: u32) {
        let previous = self.0.workers_seen.swap(workers, Ordering::Relaxed);
        self.0.workers.store(workers.max(previous).max(1), Ordering::Relaxed);
    }

    /// Asks to send a request. Waits a moment if the request may soon be sent. `parking` says whether the delivery can
    /// be parked. `jitter`, a number in 0..1, spreads the times at which parked deliveries come back.
    pub async fn admit(
        &self,
        webhook: &Webhook,
        source: Source,
        parking: impl Fn() -> Parking,
        jitter: f64,
    ) -> AdmissionOutcome {
        let slot = self.0.slot(webhook.url.receiver_key());
        let limits_of_webhook = self.0.webhook_limits(webhook).map(|limits| (&webhook.id, limits));
        let mut now = Instant::now();
        let deadline = now + source.max_queue_delay();
        let mut round = AskRound::First;
        let mut waiter = SlotWaiter { shared: &self.0, slot: &slot, webhook: &webhook.id, wait_list: None };
        let mut timer = PooledTimer { pool: &self.0.timers, timer: None };
        loop {
            let (limits, slow_budget) = (**self.0.limits.load(), self.0.slow_budget());
            let webhook = limits_of_webhook;
            let request = AdmissionRequest { webhook, limits, slow_budget, round, source, parking: parking(), jitter };
            let max_wait = match waiter.ask(&request, now.saturating_duration_since(self.0.started)) {
                Admission::Send(token) => return AdmissionOutcome::Admitted(self.0.permit(&slot, token)),
                Admission::Park(delay, reason) => return AdmissionOutcome::Parked { delay, reason },
                Admission::Refused(_) => return AdmissionOutcome::Refused,
                Admission::Wait(max_wait, _) => max_wait,
            };
            waiter.wait(&mut timer, deadline.min(now + max_wait)).await;
            now = Instant::now();
            round = if now >= deadline { AskRound::Last } else { AskRound::Again };
        }
    }

    /// Records the result of a request that was not admitted here. A receiver that is not in the registry is not added.
    pub fn record(&self, webhook: &Webhook, send_result: &SendResult, at: DateTime<Utc>) {
        let now = self.0.now();
        let slot = self.0.registry().receivers.get(webhook.url.receiver_key()).cloned();
        if let Some(slot) = slot {
            slot.lock().record(send_result, at, now);
        }
    }

    /// `None` if nothing was sent to the receiver recently.
    pub fn stats(&self, key: &ReceiverKey) -> Option<EndpointStats> {
        let now = self.0.now();
        self.0.registry().receivers.get(key).map(|slot| slot.lock().stats(now))
    }

    /// All endpoints in the registry, the least healthy first.
    pub fn list(&self) -> Vec<EndpointSnapshot> {
        let now = self.0.now();
        let mut endpoints: BTreeMap<Origin, Vec<(String, EndpointStats)>> = BTreeMap::new();
        let mut registry = self.0.registry();
        registry.evict_idle(now);
        for (key, slot) in &registry.receivers {
            let receiver = (key.path.clone(), slot.lock().stats(now));
            endpoints.entry(key.endpoint.clone()).or_default().push(receiver);
        }
        let snapshots = endpoints.into_iter().filter_map(|(endpoint, mut receivers)| {
            receivers.sort_by_cached_key(|(path, stats)| (stats.health_rank(), path.clone()));
            let mut stats = receivers.iter().map(|(_, stats)| stats.clone()).reduce(EndpointStats::merge)?;
            let limiter = registry.limiters.get(&endpoint).and_then(Weak::upgrade);
            stats.waiting += limiter.map_or(0, |limiter| limiter.lock().waiting());
            Some(EndpointSnapshot { endpoint, stats, receivers })
        });
        let mut snapshots: Vec<EndpointSnapshot> = snapshots.collect();
        snapshots.sort_by_key(|snapshot| snapshot.stats.health_rank());
        snapshots
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: &ReceiverKey) -> Arc<ReceiverSlot> {
        let mut registry = self.registry();
        if let Some(slot) = registry.receivers.get(key) {
            return slot.clone();
        }
        let now = self.now();
        if registry.receivers.len() >= MAX_RECEIVERS || now.saturating_sub(registry.evicted_at) > EVICTION_INTERVAL {
            registry.evict_idle(now);
            registry.evict_oldest();
        }
        registry.insert(key.clone())
    }

    /// This worker's share of the limits that a webhook sets. `None` if the webhook sets no limits.
    fn webhook_limits(&self, webhook: &Webhook) -> Option<Limits> {
        let rate = webhook.rate_limit.as_ref().and_then(serde_json::Number::as_f64);
        if webhook.max_concurrency.is_none() && rate.is_none() {
            return None;
        }
        let workers = self.workers.load(Ordering::Relaxed);
        Some(Limits {
            concurrency: webhook.max_concurrency.unwrap_or(u32::MAX).div_ceil(workers),
            per_second: rate.map(|rate| rate / f64::from(workers)),
        })
    }

    fn slow_budget(&self) -> SlowBudget {
        let slow = self.slow.load(Ordering::Relaxed);
        if slow >= self.max_slow {
            SlowBudget::Exhausted
        } else if slow >= self.max_slow / 2 {
            SlowBudget::Limited
        } else {
            SlowBudget::Free
        }
    }

    fn permit(self: &Arc<Self>, slot: &Arc<ReceiverSlot>, token: AdmissionToken) -> Permit {
        if token.latency_class == LatencyClass::Slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
        Permit { shared: self.clone(), slot: slot.clone(), token: Some(token) }
    }
}

impl Registry {
    fn insert(&mut self, key: ReceiverKey) -> Arc<ReceiverSlot> {
        let limiter = self.limiters.get(&key.endpoint).and_then(Weak::upgrade).unwrap_or_default();
        self.limiters.insert(key.endpoint.clone(), Arc::downgrade(&limiter));
        let slot = Arc::new(ReceiverSlot { receiver: Mutex::default(), slot_freed: Notify::new(), limiter });
        self.receivers.insert(key, slot.clone());
        slot
    }

    fn evict_idle(&mut self, now: Duration) {
        self.evicted_at = now;
        self.receivers.retain(|_, slot| !slot.lock().is_idle(now));
        self.limiters.retain(|_, limiter| limiter.strong_count() > 0);
    }

    /// Evicts a tenth of the maximum if the registry is full, so that not every new receiver causes an eviction.
    fn evict_oldest(&mut self) {
        if self.receivers.len() < MAX_RECEIVERS {
            return;
        }
        let unused = self.receivers.iter().filter_map(|(key, slot)| {
            let receiver = slot.lock();
            receiver.is_unused().then(|| (receiver.used_at(), key.clone()))
        });
        let mut unused: Vec<(Duration, ReceiverKey)> = unused.collect();
        unused.sort_unstable();
        for (_, key) in unused.into_iter().take(MAX_RECEIVERS / 10) {
            self.receivers.remove(&key);
        }
        self.limiters.retain(|_, limiter| limiter.strong_count() > 0);
    }
}

impl ReceiverSlot {
    fn lock(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notified when a request has ended for which the deliveries in a wait list wait.
    fn slot_freed(&self, wait_list: WaitList) -> &Notify {
        match wait_list {
            WaitList::Webhook | WaitList::Receiver => &self.slot_freed,
            WaitList::Endpoint => &self.limiter.slot_freed,
        }
    }

    /// Updates the receiver and its endpoint after a request, and wakes one delivery that waits for each of them.
    fn release(&self, update: impl FnOnce(&mut Receiver, &mut ConcurrencyLimiter)) {
        let (mut receiver, mut limiter) = (self.lock(), self.limiter.lock());
        update(&mut receiver, &mut limiter);
        if receiver.has_waiters() {
            self.slot_freed.notify_one();
        }
        if limiter.has_waiters() {
            self.limiter.slot_freed.notify_one();
        }
    }
}

impl OriginLimiter {
    fn lock(&self) -> MutexGuard<'_, ConcurrencyLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Records the result of the request.
    pub fn finish(mut self, send_result: &SendResult, duration: Duration, ended_at: DateTime<Utc>) {
        self.release(|receiver, limiter, token, now| {
            receiver.record_end(limiter, token, send_result, duration, ended_at, now)
        });
    }

    fn release(&mut self, update: impl FnOnce(&mut Receiver, &mut ConcurrencyLimiter, AdmissionToken, Duration)) {
        let Some(token) = self.token.take() else { return };
        if token.latency_class == LatencyClass::Slow {
            self.shared.slow.fetch_sub(1, Ordering::Relaxed);
        }
        let now = self.shared.now();
        self.slot.release(|receiver, limiter| update(receiver, limiter, token, now));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release(Receiver::record_cancellation);
    }
}

/// A delivery that asks to be sent, and is counted as waiting for a request to end between two questions.
struct SlotWaiter<'a> {
    shared: &'a Shared,
    slot: &'a ReceiverSlot,
    webhook: &'a WebhookId,
    /// Where the delivery waits.
    wait_list: Option<WaitList>,
}

impl SlotWaiter<'_> {
    /// Asks for admission, and enters or leaves a wait list by the answer.
    fn ask(&mut self, request: &AdmissionRequest<'_>, now: Duration) -> Admission {
        let (mut receiver, mut limiter) = (self.slot.lock(), self.slot.limiter.lock());
        let admission = receiver.admit(&mut limiter, request, now);
        let wait_list = if let Admission::Wait(_, wait_list) = &admission { Some(*wait_list) } else { None };
        if wait_list != self.wait_list {
            if let Some(wait_list) = wait_list {
                receiver.limiter(&mut limiter, wait_list, self.webhook).begin_waiting();
            }
            let left = std::mem::replace(&mut self.wait_list, wait_list);
            self.leave(left, &mut receiver, &mut limiter);
        } else if wait_list == Some(WaitList::Webhook)
            && receiver.has_room()
            && receiver.limiter(&mut limiter, WaitList::Receiver, self.webhook).has_waiters()
        {
            // Webhooks and receiver share the notification. It may have been meant for a delivery of another webhook.
            self.slot.slot_freed.notify_one();
        }
        admission
    }

    /// Waits until a request has ended, or until `deadline`. A request that has ended since the last question ends the
    /// wait at once.
    async fn wait(&self, timer: &mut PooledTimer<'_>, deadline: Instant) {
        let Some(wait_list) = self.wait_list else { return };
        let mut slot_freed = pin!(self.slot.slot_freed(wait_list).notified());
        poll_fn(|cx| match slot_freed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => timer.get(deadline).poll_elapsed(cx, deadline),
        })
        .await;
    }

    /// Leaves a wait list, if the delivery was in one.
    fn leave(&self, wait_list: Option<WaitList>, receiver: &mut Receiver, endpoint: &mut ConcurrencyLimiter) {
        let Some(wait_list) = wait_list else { return };
        receiver.limiter(endpoint, wait_list, self.webhook).end_waiting();
        self.wake_next(wait_list, receiver, endpoint);
    }

    /// Wakes another delivery if there is room for it. A good response can raise the limit, so that one ended request
    /// makes room for two.
    fn wake_next(&self, wait_list: WaitList, receiver: &Receiver, endpoint: &ConcurrencyLimiter) {
        let can_send = match wait_list {
            WaitList::Webhook | WaitList::Receiver => receiver.has_waiters() && receiver.has_room(),
            WaitList::Endpoint => endpoint.has_waiters() && endpoint.has_room(self.shared.limits.load().concurrency),
        };
        if can_send {
            self.slot.slot_freed(wait_list).notify_one();
        }
    }
}

impl Drop for SlotWaiter<'_> {
    fn drop(&mut self) {
        if let Some(wait_list) = self.wait_list.take() {
            self.leave(Some(wait_list), &mut self.slot.lock(), &mut self.slot.limiter.lock());
        }
    }
}

/// A timer that is taken from a pool when it is needed, and returned to it.
struct PooledTimer<'a> {
    pool: &'a Mutex<Vec<DeadlineTimer>>,
    timer: Option<DeadlineTimer>,
}

impl PooledTimer<'_> {
    fn get(&mut self, deadline: Instant) -> &mut DeadlineTimer {
        let pooled = || self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.timer.get_or_insert_with(|| pooled().unwrap_or_else(|| DeadlineTimer::new(deadline)))
    }
}

impl Drop for PooledTimer<'_> {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < MAX_POOLED_TIMERS {
            pool.push(timer);
        }
    }
}

#[cfg(test)]
mod tests;
