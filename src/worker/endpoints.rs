//! The endpoints that this worker has sent to of late: each is asked before a request, and told what came of it. What is
//! decided is in [`crate::delivery::endpoint`]; here are the locks, the clock, the waiting, and the forgetting.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::delivery::campaign::Webhook;
use crate::delivery::endpoint::gate::{Limits, PATIENCE};
use crate::delivery::endpoint::{
    Admission, Ask, Asking, BreakerState, Busy, Endpoint, Lane, Origin, Pass, SlowLane, Standing, Waits,
};
use crate::delivery::identity::WebhookId;
use crate::delivery::outcome::Reply;
use crate::metrics::Metrics;

/// Endpoints remembered at most. Beyond, those that were asked longest ago are forgotten: they begin anew.
const MOST: usize = 10_000;

/// How often those are looked for that can be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// The endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Endpoints(Arc<Shared>);

struct Shared {
    limits: Limits,
    /// Requests of slow endpoints at once.
    slow_most: usize,
    slow: AtomicUsize,
    /// Workers that share the work, and so the limits of webhooks.
    workers: AtomicU32,
    known: Mutex<Known>,
    metrics: Arc<Metrics>,
    started: Instant,
}

#[derive(Default)]
struct Known {
    endpoints: HashMap<Origin, Arc<Watched>>,
    looked_at: Duration,
}

struct Watched {
    endpoint: Mutex<Endpoint>,
    /// Told whenever a request has ended.
    freed: Notify,
}

/// What became of a delivery that asked to be sent.
pub enum Entry {
    /// Its request may be sent.
    Admitted(Permit),
    /// It has to come back after this time.
    Parked {
        /// How long it is parked.
        time: Duration,
        /// Why.
        why: Busy,
    },
}

/// The leave to send one request. Dropped, the request was given up.
pub struct Permit {
    shared: Arc<Shared>,
    watched: Arc<Watched>,
    pass: Option<Pass>,
}

impl Endpoints {
    /// Endpoints with these limits, each. `window` is the number of messages in hand: half of it is for endpoints that
    /// answer quickly.
    pub fn new(limits: Limits, window: u16, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            limits,
            slow_most: usize::from(window / 2).max(1),
            slow: AtomicUsize::new(0),
            workers: AtomicU32::new(1),
            known: Mutex::default(),
            metrics,
            started: Instant::now(),
        }))
    }

    /// How many workers there are: the limits of a webhook are for all of them together.
    pub fn set_workers(&self, workers: u32) {
        self.0.workers.store(workers.max(1), Ordering::Relaxed);
    }

    /// Asks for a request to be sent, and waits a moment for it where that is worth it. `jitter`, a number in 0..1, spreads
    /// what is parked.
    pub async fn enter(&self, webhook: &Webhook, jitter: f64) -> Entry {
        let watched = self.0.watched(Origin::of(&webhook.url));
        let own = self.0.own_limits(webhook);
        let ask = |asking| {
            let own = own.map(|limits| (&webhook.id, limits));
            self.0.ask(&watched, own, asking, jitter)
        };
        match ask(Asking::First) {
            Admission::Send(pass) => return Entry::Admitted(self.0.permit(&watched, pass)),
            Admission::Park(time, why) => return Entry::Parked { time, why },
            Admission::Wait(_) => {}
        }
        let deadline = Instant::now() + PATIENCE;
        let _waiting = Waiting::begin(&watched);
        loop {
            let mut freed = pin!(watched.freed.notified());
            // Before asking: a request that ends in between is not missed.
            freed.as_mut().enable();
            let asking = if Instant::now() >= deadline { Asking::Last } else { Asking::Again };
            let most = match ask(asking) {
                Admission::Send(pass) => return Entry::Admitted(self.0.permit(&watched, pass)),
                Admission::Park(time, why) => return Entry::Parked { time, why },
                Admission::Wait(most) => most,
            };
            tokio::select! {
                () = freed => {}
                () = sleep_until(deadline.min(Instant::now() + most)) => {}
            }
        }
    }

    /// All endpoints that are remembered, the worst first.
    pub fn standings(&self) -> Vec<(Origin, Standing)> {
        let now = self.0.now();
        let mut known = self.0.known();
        self.0.forget_idle(&mut known, now);
        let standing = |(origin, watched): (&Origin, &Arc<Watched>)| (origin.clone(), watched.lock().standing(now));
        let mut standings: Vec<(Origin, Standing)> = known.endpoints.iter().map(standing).collect();
        drop(known);
        standings.sort_by_cached_key(|(origin, standing)| (standing.health(), origin.clone()));
        standings
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self, origin: Origin) -> Arc<Watched> {
        let mut known = self.known();
        if let Some(watched) = known.endpoints.get(&origin) {
            return watched.clone();
        }
        let now = self.now();
        if known.endpoints.len() >= MOST || now.saturating_sub(known.looked_at) > FORGET_INTERVAL {
            self.forget_idle(&mut known, now);
            self.forget_the_oldest(&mut known);
        }
        let watched = Arc::new(Watched { endpoint: Mutex::default(), freed: Notify::new() });
        known.endpoints.insert(origin, watched.clone());
        self.metrics.endpoint_breaker(None, Some(BreakerState::Closed));
        watched
    }

    fn forget_idle(&self, known: &mut Known, now: Duration) {
        known.looked_at = now;
        known.endpoints.retain(|_, watched| {
            let endpoint = watched.lock();
            if endpoint.is_idle(now) {
                self.metrics.endpoint_breaker(Some(endpoint.breaker()), None);
            }
            !endpoint.is_idle(now)
        });
    }

    /// A tenth of what there may be, where there is no room: so that this is not done for each new endpoint.
    fn forget_the_oldest(&self, known: &mut Known) {
        if known.endpoints.len() < MOST {
            return;
        }
        let unused = known.endpoints.iter().filter_map(|(origin, watched)| {
            let endpoint = watched.lock();
            endpoint.is_unused().then(|| (endpoint.used_at(), origin.clone()))
        });
        let mut unused: Vec<(Duration, Origin)> = unused.collect();
        unused.sort_unstable();
        for (_, origin) in unused.into_iter().take(MOST / 10) {
            if let Some(watched) = known.endpoints.remove(&origin) {
                self.metrics.endpoint_breaker(Some(watched.lock().breaker()), None);
            }
        }
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

    fn ask(&self, watched: &Watched, own: Option<(&WebhookId, Limits)>, asking: Asking, jitter: f64) -> Admission {
        let ask = Ask { webhook: own, limits: self.limits, slow_lane: self.slow_lane(), asking, jitter };
        let now = self.now();
        let mut endpoint = watched.lock();
        let before = endpoint.breaker();
        let admission = endpoint.admit(&ask, now);
        self.metrics.endpoint_breaker(Some(before), Some(endpoint.breaker()));
        admission
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

    fn permit(self: &Arc<Self>, watched: &Arc<Watched>, pass: Pass) -> Permit {
        if pass.lane == Lane::Slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
        Permit { shared: self.clone(), watched: watched.clone(), pass: Some(pass) }
    }

    /// A request is over: tells its endpoint, and whoever waits.
    fn leave(&self, watched: &Watched, pass: Pass, tell: impl FnOnce(&mut Endpoint, Pass, Duration)) {
        if pass.lane == Lane::Slow {
            self.slow.fetch_sub(1, Ordering::Relaxed);
        }
        let mut endpoint = watched.lock();
        let before = endpoint.breaker();
        tell(&mut endpoint, pass, self.now());
        self.metrics.endpoint_breaker(Some(before), Some(endpoint.breaker()));
        if endpoint.is_awaited() {
            watched.freed.notify_one();
        }
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The request has ended `at` this time, after `took`.
    pub fn ended(mut self, reply: &Reply, took: Duration, at: DateTime<Utc>) {
        if let Some(pass) = self.pass.take() {
            self.shared.leave(&self.watched, pass, |endpoint, pass, now| endpoint.ended(pass, reply, took, at, now));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.shared.leave(&self.watched, pass, Endpoint::given_up);
        }
    }
}

/// A delivery that waits for a request to end, for as long as it lives.
struct Waiting<'a>(&'a Watched);

impl<'a> Waiting<'a> {
    fn begin(watched: &'a Watched) -> Self {
        watched.lock().waits(Waits::Begin);
        Self(watched)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut endpoint = self.0.lock();
        endpoint.waits(Waits::End);
        // There may be room for one more: two are let in where an answer has earned the endpoint another.
        if endpoint.is_awaited() {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::delivery::document;

    fn endpoints(concurrency: u32) -> Endpoints {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        Endpoints::new(Limits { concurrency, per_second: None }, 16, metrics)
    }

    fn webhook(more: serde_json::Value) -> Webhook {
        let mut webhook = json!({ "id": "wh_1", "url": "https://example.com/" });
        webhook.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let document = json!({ "id": "c", "sections": [{ "label": "l", "webhook": webhook }] }).to_string();
        let campaign = document::read(document.as_bytes(), document::HttpUrls::Refused, None).expect("a document");
        campaign.sections[0].webhook.clone().expect("a webhook")
    }

    /// A webhook at an endpoint of this number.
    fn at(number: usize) -> Webhook {
        Webhook { url: format!("https://host-{number}.example/"), ..webhook(json!({})) }
    }

    fn ok() -> Reply {
        Reply::Answer { status: 200, retry_after: None, body: Vec::new() }
    }

    async fn admitted(endpoints: &Endpoints, webhook: &Webhook) -> Permit {
        match endpoints.enter(webhook, 0.5).await {
            Entry::Admitted(permit) => permit,
            Entry::Parked { why, .. } => panic!("parked: {why:?}"),
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
        while endpoints.standings()[0].1.waiting == 0 {
            tokio::task::yield_now().await;
        }
        first.ended(&ok(), Duration::from_millis(1), Utc::now());
        let second = second.await.expect("let in");
        assert_eq!((endpoints.standings()[0].1.in_flight, endpoints.standings()[0].1.waiting), (1, 0));
        drop(second);
        assert_eq!(endpoints.standings()[0].1.in_flight, 0, "a request given up is no request under way");
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_parked() {
        let endpoints = endpoints(1);
        let first = admitted(&endpoints, &at(1)).await;
        let began = Instant::now();
        let Entry::Parked { .. } = endpoints.enter(&at(1), 0.5).await else { panic!("a second request") };
        assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
        assert_eq!(endpoints.standings()[0].1.waiting, 0);
        drop(first);
    }

    #[tokio::test]
    async fn slow_endpoints_hold_half_of_the_window_at_most() {
        let endpoints = endpoints(64);
        let mut permits = Vec::new();
        for number in 0..100 {
            // Each is new, and so may be slow.
            if let Entry::Admitted(permit) = endpoints.enter(&at(number), 0.5).await {
                permits.push(permit);
            }
        }
        assert_eq!(permits.len(), 8);
        drop(permits.pop());
        assert!(matches!(endpoints.enter(&at(7), 0.5).await, Entry::Admitted(_)));
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
        let standings = endpoints.standings();
        assert!(standings.len() <= MOST, "{}", standings.len());
        assert!(standings.iter().any(|(_, standing)| standing.in_flight == 1), "the one in use was forgotten");
        let gauge = endpoints.0.metrics.text().expect("text");
        let line = format!("waypost_endpoints{{breaker=\"closed\"}} {}", standings.len());
        assert!(String::from_utf8_lossy(&gauge).contains(&line), "{line}");
        drop(busy);
        let mut known = endpoints.0.known();
        endpoints.0.forget_idle(&mut known, endpoints.0.now() + Duration::from_secs(3_600));
        assert!(known.endpoints.is_empty());
    }
}
