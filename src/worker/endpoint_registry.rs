//! The endpoints that this worker has sent to of late: each is asked before a request, and told what came of it. What is
//! decided is in [`crate::delivery::endpoint`]; here are the locks, the clock, the waiting, and the forgetting.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::delivery::campaign::Webhook;
use crate::delivery::endpoint::concurrency_limiter::{ConcurrencyLimiter, Limits};
use crate::delivery::endpoint::receiver::Receiver;
use crate::delivery::endpoint::{
    Admission, AdmissionRequest, AdmissionToken, AskRound, EndpointStats, Ladder, Lane, Origin, ParkReason, Queue,
    ReceiverKey, SlowLane, Source,
};
use crate::delivery::ids::WebhookId;
use crate::delivery::outcome::Reply;

/// Receivers remembered at most. Beyond, those that were asked longest ago are forgotten: they begin anew.
const MOST: usize = 10_000;

/// How often those are looked for that can be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// The endpoints. Cheap to clone.
#[derive(Clone)]
pub struct EndpointRegistry(Arc<Shared>);

struct Shared {
    limits: ArcSwap<Limits>,
    /// Requests of slow receivers at once.
    slow_most: usize,
    slow: AtomicUsize,
    /// Workers that share the work, and so the limits of webhooks.
    workers: AtomicU32,
    /// As last seen.
    workers_seen: AtomicU32,
    known: Mutex<Registry>,
    started: Instant,
}

#[derive(Default)]
struct Registry {
    receivers: HashMap<ReceiverKey, Arc<ReceiverSlot>>,
    /// An endpoint is there as long as one of its receivers is.
    endpoints: HashMap<Origin, Weak<OriginLimiter>>,
    looked_at: Duration,
}

/// A receiver. Where both are locked, it is before its door.
struct ReceiverSlot {
    receiver: Mutex<Receiver>,
    /// Told whenever one of its requests has ended.
    freed: Notify,
    door: Arc<OriginLimiter>,
}

/// What all receivers of an endpoint pass.
#[derive(Default)]
struct OriginLimiter {
    gate: Mutex<ConcurrencyLimiter>,
    /// Told whenever one of their requests has ended.
    freed: Notify,
}

/// What became of a delivery that asked to be sent.
pub enum AdmissionOutcome {
    /// Its request may be sent.
    Admitted(Permit),
    /// It has to come back after this time.
    Parked {
        /// How long it is parked.
        time: Duration,
        /// Why.
        why: ParkReason,
    },
    /// It can be neither sent nor parked now, and has to ask again.
    Refused,
}

/// The leave to send one request. Dropped, the request was given up.
pub struct Permit {
    shared: Arc<Shared>,
    watched: Arc<ReceiverSlot>,
    pass: Option<AdmissionToken>,
}

/// An endpoint, and those of its receivers that were sent to of late, by their paths.
pub struct EndpointSnapshot {
    /// Scheme, host and port.
    pub endpoint: Origin,
    /// All receivers together.
    pub standing: EndpointStats,
    /// Each receiver, by its path; the worst first.
    pub receivers: Vec<(String, EndpointStats)>,
}

impl EndpointRegistry {
    /// Endpoints with these limits, each. `window` is the number of messages in hand: half of it is for receivers that
    /// answer quickly.
    pub fn new(limits: Limits, window: u16) -> Self {
        Self(Arc::new(Shared {
            limits: ArcSwap::from_pointee(limits),
            slow_most: usize::from(window / 2).max(1),
            slow: AtomicUsize::new(0),
            workers: AtomicU32::new(1),
            workers_seen: AtomicU32::new(1),
            known: Mutex::default(),
            started: Instant::now(),
        }))
    }

    /// Other limits of each endpoint, from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.0.limits.store(Arc::new(limits));
    }

    /// How many workers there are now: the limits of a webhook are for all of them together. Fewer are believed when seen twice,
    /// for one that changes its channel is not there for a moment.
    pub fn set_workers(&self, workers: u32) {
        let before = self.0.workers_seen.swap(workers, Ordering::Relaxed);
        self.0.workers.store(workers.max(before).max(1), Ordering::Relaxed);
    }

    /// Asks for a request to be sent, and waits a moment for it where that is worth it. `ladder` tells whether it can be parked.
    /// `jitter`, a number in 0..1, spreads what is parked.
    pub async fn admit(
        &self,
        webhook: &Webhook,
        arrival: Source,
        ladder: impl Fn() -> Ladder,
        jitter: f64,
    ) -> AdmissionOutcome {
        let watched = self.0.watched(webhook.url.place());
        let own = self.0.own_limits(webhook).map(|limits| (&webhook.id, limits));
        let ask = |asking| {
            let (limits, slow_lane) = (**self.0.limits.load(), self.0.slow_lane());
            let ask = AdmissionRequest { webhook: own, limits, slow_lane, asking, arrival, ladder: ladder(), jitter };
            watched.ask(&ask, self.0.now())
        };
        let admitted = |pass| AdmissionOutcome::Admitted(self.0.permit(&watched, pass));
        let mut waiting = match ask(AskRound::First) {
            Admission::Send(pass) => return admitted(pass),
            Admission::Park(time, why) => return AdmissionOutcome::Parked { time, why },
            Admission::Refused(_) => return AdmissionOutcome::Refused,
            Admission::Wait(_, queue) => SlotWaiter::begin(&watched, queue, &webhook.id),
        };
        let deadline = Instant::now() + arrival.patience();
        loop {
            let mut freed = pin!(waiting.slot_released().notified());
            // Before asking: a request that ends in between is not missed.
            freed.as_mut().enable();
            let asking = if Instant::now() >= deadline { AskRound::Last } else { AskRound::Again };
            let (most, queue) = match ask(asking) {
                Admission::Send(pass) => return admitted(pass),
                Admission::Park(time, why) => return AdmissionOutcome::Parked { time, why },
                Admission::Refused(_) => return AdmissionOutcome::Refused,
                Admission::Wait(most, queue) => (most, queue),
            };
            if queue != waiting.queue {
                waiting = SlotWaiter::begin(&watched, queue, &webhook.id);
                continue;
            }
            tokio::select! {
                () = freed => {}
                () = sleep_until(deadline.min(Instant::now() + most)) => {}
            }
        }
    }

    /// Tells the receiver of a webhook what came of a request that did not ask to be sent. One that is not known stays so.
    pub fn record(&self, webhook: &Webhook, reply: &Reply, at: DateTime<Utc>) {
        let now = self.0.now();
        let watched = self.0.known().receivers.get(webhook.url.place()).cloned();
        if let Some(watched) = watched {
            watched.lock().record(reply, at, now);
        }
    }

    /// How the receiver at a place stands, where it was sent to of late.
    pub fn standing(&self, place: &ReceiverKey) -> Option<EndpointStats> {
        let now = self.0.now();
        self.0.known().receivers.get(place).map(|watched| watched.lock().standing(now))
    }

    /// All endpoints that are remembered, the worst first.
    pub fn list(&self) -> Vec<EndpointSnapshot> {
        let now = self.0.now();
        let mut endpoints: BTreeMap<Origin, Vec<(String, EndpointStats)>> = BTreeMap::new();
        let mut known = self.0.known();
        known.evict_idle(now);
        for (place, watched) in &known.receivers {
            let receiver = (place.path.clone(), watched.lock().standing(now));
            endpoints.entry(place.endpoint.clone()).or_default().push(receiver);
        }
        let listed = endpoints.into_iter().filter_map(|(endpoint, mut receivers)| {
            receivers.sort_by_cached_key(|(path, standing)| (standing.health(), path.clone()));
            let mut standing = receivers.iter().map(|(_, standing)| standing.clone()).reduce(EndpointStats::and)?;
            let door = known.endpoints.get(&endpoint).and_then(Weak::upgrade);
            standing.waiting += door.map_or(0, |door| door.lock().waiting());
            Some(EndpointSnapshot { endpoint, standing, receivers })
        });
        let mut listed: Vec<EndpointSnapshot> = listed.collect();
        listed.sort_by_key(|listed| listed.standing.health());
        listed
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn known(&self) -> MutexGuard<'_, Registry> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self, place: &ReceiverKey) -> Arc<ReceiverSlot> {
        let mut known = self.known();
        if let Some(watched) = known.receivers.get(place) {
            return watched.clone();
        }
        let now = self.now();
        if known.receivers.len() >= MOST || now.saturating_sub(known.looked_at) > FORGET_INTERVAL {
            known.evict_idle(now);
            known.evict_oldest();
        }
        known.watch(place.clone())
    }

    /// The limits that a webhook has of its own: this worker's share of them.
    fn own_limits(&self, webhook: &Webhook) -> Option<Limits> {
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

    fn slow_lane(&self) -> SlowLane {
        let slow = self.slow.load(Ordering::Relaxed);
        if slow >= self.slow_most {
            SlowLane::Full
        } else if slow >= self.slow_most / 2 {
            SlowLane::Scarce
        } else {
            SlowLane::Free
        }
    }

    fn permit(self: &Arc<Self>, watched: &Arc<ReceiverSlot>, pass: AdmissionToken) -> Permit {
        if pass.lane == Lane::Slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
        Permit { shared: self.clone(), watched: watched.clone(), pass: Some(pass) }
    }
}

impl Registry {
    fn watch(&mut self, place: ReceiverKey) -> Arc<ReceiverSlot> {
        let door = self.endpoints.get(&place.endpoint).and_then(Weak::upgrade).unwrap_or_default();
        self.endpoints.insert(place.endpoint.clone(), Arc::downgrade(&door));
        let watched = Arc::new(ReceiverSlot { receiver: Mutex::default(), freed: Notify::new(), door });
        self.receivers.insert(place, watched.clone());
        watched
    }

    fn evict_idle(&mut self, now: Duration) {
        self.looked_at = now;
        self.receivers.retain(|_, watched| !watched.lock().is_idle(now));
        self.endpoints.retain(|_, door| door.strong_count() > 0);
    }

    /// A tenth of what there may be, where there is no room: so that this is not done for each new receiver.
    fn evict_oldest(&mut self) {
        if self.receivers.len() < MOST {
            return;
        }
        let unused = self.receivers.iter().filter_map(|(place, watched)| {
            let receiver = watched.lock();
            receiver.is_unused().then(|| (receiver.used_at(), place.clone()))
        });
        let mut unused: Vec<(Duration, ReceiverKey)> = unused.collect();
        unused.sort_unstable();
        for (_, place) in unused.into_iter().take(MOST / 10) {
            self.receivers.remove(&place);
        }
        self.endpoints.retain(|_, door| door.strong_count() > 0);
    }
}

impl ReceiverSlot {
    fn lock(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, ask: &AdmissionRequest<'_>, now: Duration) -> Admission {
        self.lock().admit(&mut self.door.lock(), ask, now)
    }

    /// A request is over: tells the receiver, and whoever waits.
    fn leave(&self, tell: impl FnOnce(&mut Receiver, &mut ConcurrencyLimiter)) {
        let (mut receiver, mut gate) = (self.lock(), self.door.lock());
        tell(&mut receiver, &mut gate);
        if receiver.has_waiters() {
            self.freed.notify_one();
        }
        if gate.has_waiters() {
            self.door.freed.notify_one();
        }
    }
}

impl OriginLimiter {
    fn lock(&self) -> MutexGuard<'_, ConcurrencyLimiter> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The request has ended `at` this time, after `took`.
    pub fn ended(mut self, reply: &Reply, took: Duration, at: DateTime<Utc>) {
        self.leave(|receiver, gate, pass, now| receiver.ended(gate, pass, reply, took, at, now));
    }

    fn leave(&mut self, tell: impl FnOnce(&mut Receiver, &mut ConcurrencyLimiter, AdmissionToken, Duration)) {
        let Some(pass) = self.pass.take() else { return };
        if pass.lane == Lane::Slow {
            self.shared.slow.fetch_sub(1, Ordering::Relaxed);
        }
        let now = self.shared.now();
        self.watched.leave(|receiver, gate| tell(receiver, gate, pass, now));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave(Receiver::cancelled);
    }
}

/// A delivery that waits for a request to end, for as long as it lives.
struct SlotWaiter<'a> {
    watched: &'a ReceiverSlot,
    queue: Queue,
    webhook: &'a WebhookId,
}

impl<'a> SlotWaiter<'a> {
    fn begin(watched: &'a ReceiverSlot, queue: Queue, webhook: &'a WebhookId) -> Self {
        watched.lock().gate(&mut watched.door.lock(), queue, webhook).begin_waiting();
        Self { watched, queue, webhook }
    }

    fn slot_released(&self) -> &'a Notify {
        match self.queue {
            Queue::Webhook | Queue::Receiver => &self.watched.freed,
            Queue::Endpoint => &self.watched.door.freed,
        }
    }
}

impl Drop for SlotWaiter<'_> {
    fn drop(&mut self) {
        let mut receiver = self.watched.lock();
        let mut gate = self.watched.door.lock();
        let gate = receiver.gate(&mut gate, self.queue, self.webhook);
        gate.end_waiting();
        // There may be room for one more: two are let in where an answer has earned the receiver another.
        if gate.has_waiters() {
            self.slot_released().notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::delivery::document;

    fn endpoints(concurrency: u32) -> EndpointRegistry {
        EndpointRegistry::new(Limits { concurrency, per_second: None }, 16)
    }

    fn webhook(more: serde_json::Value) -> Webhook {
        let mut webhook = json!({ "id": "wh_1", "url": "https://example.com/" });
        webhook.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let document = json!({ "id": "c", "sections": [{ "label": "l", "webhook": webhook }] }).to_string();
        let campaign =
            document::read(document.as_bytes(), crate::delivery::egress::HttpUrls::Refused, None).expect("a document");
        campaign.sections[0].webhook.as_deref().cloned().expect("a webhook")
    }

    /// A webhook at an endpoint of this number.
    fn at(number: usize) -> Webhook {
        Webhook { url: format!("https://host-{number}.example/").into(), ..webhook(json!({})) }
    }

    fn ok() -> Reply {
        Reply::Answer { status: 200, retry_after: None, body: Vec::new() }
    }

    async fn admitted(endpoints: &EndpointRegistry, webhook: &Webhook) -> Permit {
        match endpoints.admit(webhook, Source::Event, || Ladder::Open, 0.5).await {
            AdmissionOutcome::Admitted(permit) => permit,
            AdmissionOutcome::Parked { why, .. } => panic!("parked: {why:?}"),
            AdmissionOutcome::Refused => panic!("refused"),
        }
    }

    #[tokio::test]
    async fn who_waits_is_let_in_when_a_request_ends() {
        let endpoints = endpoints(1);
        let first = admitted(&endpoints, &at(1)).await;
        let second = tokio::spawn({
            let endpoints = endpoints.clone();
            async move { admitted(&endpoints, &at(1)).await }
        });
        while endpoints.list()[0].standing.waiting == 0 {
            tokio::task::yield_now().await;
        }
        first.ended(&ok(), Duration::from_millis(1), Utc::now());
        let second = second.await.expect("let in");
        assert_eq!((endpoints.list()[0].standing.in_flight, endpoints.list()[0].standing.waiting), (1, 0));
        drop(second);
        assert_eq!(endpoints.list()[0].standing.in_flight, 0, "a request given up is no request under way");
    }

    #[tokio::test]
    async fn what_replays_send_is_seen_where_the_endpoint_is_known() {
        let endpoints = endpoints(1);
        endpoints.record(&at(1), &ok(), Utc::now());
        assert!(endpoints.list().is_empty(), "nothing asked to be sent there");
        let failed = Reply::TimedOut { phase: crate::delivery::outcome::Phase::Answering };
        admitted(&endpoints, &at(1)).await.ended(&failed, Duration::from_secs(1), Utc::now());
        assert_eq!(endpoints.list()[0].standing.failure_ratio, Some(1.0));
        for _ in 0..9 {
            endpoints.record(&at(1), &ok(), Utc::now());
        }
        let failing = endpoints.list()[0].standing.failure_ratio.expect("requests");
        assert!((failing - 0.1).abs() < 0.01, "{failing}");
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_parked() {
        let endpoints = endpoints(1);
        let first = admitted(&endpoints, &at(1)).await;
        let began = Instant::now();
        let AdmissionOutcome::Parked { .. } = endpoints.admit(&at(1), Source::Event, || Ladder::Open, 0.5).await else {
            panic!("a second request")
        };
        assert!(began.elapsed() >= Source::Event.patience(), "{:?}", began.elapsed());
        assert_eq!(endpoints.list()[0].standing.waiting, 0);
        drop(first);
    }

    #[tokio::test]
    async fn who_waits_in_vain_and_cannot_be_parked_is_not_counted_as_parked() {
        let endpoints = endpoints(1);
        let first = admitted(&endpoints, &at(1)).await;
        for _ in 0..3 {
            let entry = endpoints.admit(&at(1), Source::Event, || Ladder::Closed, 0.5).await;
            assert!(matches!(entry, AdmissionOutcome::Refused));
        }
        assert_eq!((endpoints.list()[0].standing.waiting, endpoints.list()[0].standing.parked), (0, 0));
        first.ended(&ok(), Duration::from_millis(1), Utc::now());
        let entry = endpoints.admit(&at(1), Source::Event, || Ladder::Closed, 0.5).await;
        assert!(matches!(entry, AdmissionOutcome::Admitted(_)), "its turn has come");
    }

    #[tokio::test]
    async fn slow_endpoints_hold_half_of_the_window_at_most() {
        let endpoints = endpoints(64);
        let mut permits = Vec::new();
        for number in 0..100 {
            // Each is new, and so may be slow.
            if let AdmissionOutcome::Admitted(permit) =
                endpoints.admit(&at(number), Source::Event, || Ladder::Open, 0.5).await
            {
                permits.push(permit);
            }
        }
        assert_eq!(permits.len(), 8);
        drop(permits.pop());
        assert!(matches!(
            endpoints.admit(&at(7), Source::Event, || Ladder::Open, 0.5).await,
            AdmissionOutcome::Admitted(_)
        ));
    }

    #[tokio::test]
    async fn receivers_of_one_endpoint_share_its_limit_and_are_listed_together() {
        let endpoints = endpoints(3);
        let path = |path: &str| Webhook { url: format!("https://example.com/{path}").into(), ..at(1) };
        let permits = [admitted(&endpoints, &path("a")).await, admitted(&endpoints, &path("b")).await];
        let third = admitted(&endpoints, &path("a")).await;
        assert!(matches!(
            endpoints.admit(&path("b"), Source::Event, || Ladder::Open, 0.5).await,
            AdmissionOutcome::Parked { why: ParkReason::Concurrency, .. }
        ));
        let listed = endpoints.list();
        assert_eq!((listed.len(), listed[0].endpoint.as_str()), (1, "https://example.com:443"));
        let in_flight: BTreeMap<&str, u32> =
            listed[0].receivers.iter().map(|(path, standing)| (path.as_str(), standing.in_flight)).collect();
        assert_eq!(in_flight, BTreeMap::from([("/a", 2), ("/b", 1)]));
        assert_eq!((listed[0].standing.in_flight, listed[0].standing.parked), (3, 1));
        third.ended(&ok(), Duration::from_millis(5), Utc::now());
        drop(admitted(&endpoints, &path("b")).await);
        drop(permits);
    }

    #[tokio::test]
    async fn limits_of_webhooks_are_shared_by_the_workers() {
        let endpoints = endpoints(64);
        let webhook = webhook(json!({ "maxConcurrency": 5, "rateLimit": 10 }));
        assert_eq!(endpoints.0.own_limits(&webhook), Some(Limits { concurrency: 5, per_second: Some(10.0) }));
        endpoints.set_workers(2);
        assert_eq!(endpoints.0.own_limits(&webhook), Some(Limits { concurrency: 3, per_second: Some(5.0) }));
    }

    #[tokio::test]
    async fn a_hundred_thousand_endpoints_are_not_all_remembered() {
        let endpoints = endpoints(64);
        let busy = admitted(&endpoints, &at(0)).await;
        for number in 1..100_000 {
            admitted(&endpoints, &at(number)).await.ended(&ok(), Duration::from_millis(5), Utc::now());
        }
        let listed = endpoints.list();
        assert!(listed.len() <= MOST, "{}", listed.len());
        assert!(listed.iter().any(|listed| listed.standing.in_flight == 1), "the one in use was forgotten");
        drop(busy);
        let mut known = endpoints.0.known();
        known.evict_idle(endpoints.0.now() + Duration::from_secs(3_600));
        assert!(known.receivers.is_empty() && known.endpoints.is_empty());
    }
}
