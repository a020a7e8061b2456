//! The journey of one step event, from its bytes to outcomes that are durable:
//!
//! ```text
//! decode ▶ resolve ▶ admit ▶ render ▶ send ▶ classify ▶ decide ▶ settle
//!                      └ parked, where its endpoint can't take it now
//! ```
//!
//! Each function returns when the outcome is safe: delivered, or the retry or the dead letter confirmed by the broker.
//! Only then is the message acknowledged, by [`consumer`]. An `Err` means that *our* side failed; the message then goes
//! back to the broker, which gives it out again.
//!
//! A future is copied, whole, by each that awaits it. So a delivery is boxed on its way, and all that is seldom is a future in a box.

pub mod consumer;
pub mod consumer_status;
mod dead_lettering;
mod delivery_log;
pub mod endpoint_registry;
pub mod memory_budget;
pub mod park_batcher;
mod queue;
pub mod receipts;
pub mod retry_throttle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tracing::{Instrument as _, Span};

use crate::broker::delay_queues::{DelayTier, rung_until};
use crate::broker::names::Names;
use crate::broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};
use crate::broker::stream_writer::StreamWriter;
use crate::broker::subscription::Message;
use crate::delivery::campaign::{Target, Webhook};
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::endpoint::{Ladder, ParkReason, Source};
use crate::delivery::event::StepEvent;
use crate::delivery::outcome::{Outcome, Reply, classify};
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::redact::{self, Truncation};
use crate::delivery::replay::ReplayId;
use crate::delivery::retry::{RetryPolicy, Settlement, decide, park};
use crate::delivery::violation::Violation;
use crate::delivery::{Attempt, Delivery, TraceContext, event, request, resolve, timestamp};
use crate::metrics::ledger::{DeliveryGuard, Origin, RequeueCause};
use crate::metrics::{AttemptOutcome, EventResult, Metrics};
use crate::sender::{ANSWER_BYTES_KEPT, Sender};
use crate::store::dead_letters::RecordOutcome;
use crate::store::{Store, StoreError};
use crate::telemetry::spans;
use endpoint_registry::{AdmissionOutcome, EndpointRegistry};
use memory_budget::MemoryBudget;
use park_batcher::ParkBatcher;
use receipts::Receipts;

/// While the broker takes no messages, nothing can be parked: what would be asks again after this time.
const PARK_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A delivery that does not fit into memory is parked for a time between these. Those that are attempted end within 30 s.
const MEMORY_PARKING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Delivers.
pub struct Worker {
    /// Names of the broker's objects.
    pub names: Names,
    /// Where configuration is looked up.
    pub store: Store,
    /// Where retries go.
    pub publisher: Publisher,
    /// Where dead letters go.
    pub letters: StreamWriter<RecordOutcome>,
    /// What sends requests.
    pub sender: Sender,
    /// What knows whether an endpoint can take one.
    pub endpoints: EndpointRegistry,
    /// Where a delivery goes that an endpoint can't take.
    pub parking: ParkBatcher,
    /// Tells messages apart.
    pub receipts: Receipts,
    /// How often a delivery is tried, unless its webhook says otherwise.
    pub policy: ArcSwap<RetryPolicy>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How much memory large webhooks may take.
    pub memory_budget: MemoryBudget,
}

/// Why a message could not be settled: it goes back to the broker.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The configuration could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A retry or a dead letter could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It could not be written as JSON.
    #[error("a record could not be written: {0}")]
    Encode(#[from] serde_json::Error),
}

impl DeliveryError {
    fn blame(&self) -> RequeueCause {
        match self {
            Self::Store(_) => RequeueCause::Store,
            Self::Publish(PublishError::Stopping) => RequeueCause::Interrupted,
            Self::Publish(_) => RequeueCause::Broker,
            Self::Encode(_) => RequeueCause::Bug,
        }
    }
}

/// What came of one attempt.
#[derive(Debug)]
pub struct AttemptResult {
    /// What it means for the delivery.
    pub outcome: Outcome,
    /// What came back.
    pub reply: Reply,
    /// How long it took.
    pub took: Duration,
    /// When it was over.
    pub ended: DateTime<Utc>,
}

impl Worker {
    /// A message of the events queue: one step event, for every webhook it resolves to.
    pub async fn handle_event(&self, message: &mut Message) -> Result<(), DeliveryError> {
        let span = spans::event(message.message_id.as_deref(), message.body.len(), message.trace.as_ref());
        self.process_event(message).instrument(span).await
    }

    async fn process_event(&self, message: &mut Message) -> Result<(), DeliveryError> {
        let event = match event::decode(&message.body, message.message_id.as_deref()) {
            Ok(event) => event,
            Err(faults) => {
                Box::pin(self.dead_letter_malformed(message, faults)).await?;
                self.metrics.event(EventResult::Malformed);
                return Ok(());
            }
        };
        let trace = message.trace.take();
        // It may be large, and is not needed for as long as the requests take.
        message.body = Vec::new();
        let targets = spans::resolve().in_scope(|| self.targets(&event))?;
        spans::resolved(&Span::current(), &event.campaign_id, event.event_id.as_str(), targets.len());
        let result = if targets.is_empty() { EventResult::NoWebhook } else { EventResult::Resolved };
        delivery_log::resolved(&event, targets.len(), trace.as_ref());
        self.attempt_all(event, targets, trace).await?;
        self.metrics.event(result);
        Ok(())
    }

    /// The webhooks that an event fires.
    fn targets(&self, event: &StepEvent) -> Result<Vec<Target>, StoreError> {
        let stored = self.store.campaign(&event.campaign_id)?;
        Ok(stored.map_or_else(Vec::new, |stored| resolve::resolve(&stored.campaign, event)))
    }

    /// A first attempt for each target, to their ends: one that can't be settled does not cut the others short.
    async fn attempt_all(
        &self,
        event: StepEvent,
        mut targets: Vec<Target>,
        trace: Option<TraceContext>,
    ) -> Result<(), DeliveryError> {
        let receipt = self.receipts.next();
        if targets.len() == 1 {
            return self.first_attempt(Box::new(Delivery::received(event, targets.remove(0), trace, receipt))).await;
        }
        let deliveries = targets
            .into_iter()
            .map(|target| Box::new(Delivery::received(event.clone(), target, trace.clone(), receipt)));
        let attempts = join_all(deliveries.map(|delivery| self.first_attempt(delivery)));
        Box::pin(attempts).await.into_iter().collect()
    }

    /// The first attempt of a delivery.
    async fn first_attempt(&self, delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let in_hand = self.metrics.account.take(Origin::Event);
        close_account(in_hand, self.attempt(delivery).await)
    }

    /// A message of the retries queue: a delivery that waits or is due again, or several that were parked together.
    pub async fn retry(&self, message: &mut Message) -> Result<(), DeliveryError> {
        let mut waiting = match Delivery::read_waiting(&message.body) {
            Ok(waiting) => waiting,
            Err(error) => {
                let faults = vec![Violation::new("$", format!("not a delivery: {error}"))];
                return Box::pin(self.dead_letter_malformed(message, faults)).await;
            }
        };
        message.body = Vec::new();
        if waiting.len() == 1 {
            return self.process_waiting(Box::new(waiting.remove(0))).await;
        }
        let resumed = join_all(waiting.into_iter().map(|delivery| self.process_waiting(Box::new(delivery))));
        Box::pin(resumed).await.into_iter().collect()
    }

    /// Goes on with a delivery that has waited.
    async fn process_waiting(&self, delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let span = spans::resumed(&delivery);
        self.process_waiting_delivery(delivery).instrument(span).await
    }

    async fn process_waiting_delivery(&self, mut delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        if let Some(due) = delivery.due.filter(|due| rung_until(*due, Utc::now()).is_some()) {
            // Those that were parked together go on together.
            let (rung, body) = encode_for_delay(&mut delivery, due)?;
            return Ok(self.parking.park(rung, body).await?);
        }
        let in_hand = self.metrics.account.take(Origin::Ladder);
        let ended = match self.current_target(&delivery) {
            Ok(Ok(target)) => {
                delivery.target = target;
                self.attempt(delivery).await
            }
            Ok(Err(reason)) => Box::pin(self.dead(delivery, reason)).await,
            Err(error) => Err(error.into()),
        };
        close_account(in_hand, ended)
    }

    /// One attempt of a delivery, if its endpoint can take it now, and what follows from it.
    async fn attempt(&self, mut delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let arrival = if delivery.due.is_none() { Source::Event } else { Source::Retry };
        let Some(hold) = self.memory_budget.hold(&mut delivery.target.webhook) else {
            return Box::pin(self.wait_for_memory(delivery)).await;
        };
        let ladder = || if self.publisher.is_up() { Ladder::Open } else { Ladder::Closed };
        let permit = loop {
            match self.endpoints.admit(&delivery.target.webhook, arrival, ladder, jitter()).await {
                AdmissionOutcome::Admitted(permit) => break permit,
                AdmissionOutcome::Parked { time, why } => {
                    drop(hold);
                    return Box::pin(self.park(delivery, time, why)).await;
                }
                // Here it may get its turn.
                AdmissionOutcome::Refused => tokio::time::sleep(PARK_RETRY_INTERVAL).await,
            }
        };
        if arrival == Source::Event {
            // Fresh from its event: what was parked is late for its endpoint's sake.
            let delay = Utc::now().signed_duration_since(delivery.event.date);
            self.metrics.first_attempt_delay.observe(delay.as_seconds_f64().max(0.0));
        }
        let in_flight = InFlight::begin(&self.metrics);
        let AttemptResult { outcome, reply, took, ended } = self.attempt_once(&mut delivery).await;
        drop(in_flight);
        permit.ended(&reply, took, ended);
        let settlement = decide(&self.policy.load().for_webhook(&delivery.target.webhook), &delivery, &outcome, ended);
        self.observe(&delivery, &reply, took, &settlement, ended);

        match settlement {
            Settlement::Delivered => Ok(()),
            Settlement::Retry { due } => {
                drop(hold);
                Box::pin(self.retry_at(delivery, due)).await
            }
            Settlement::Dead(reason) => Box::pin(self.dead(delivery, reason)).await,
        }
    }

    /// Parks a delivery whose webhook does not fit into memory. While the broker takes no messages it waits here, without the
    /// webhook's configuration.
    async fn wait_for_memory(&self, mut delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let settings = self.policy.load_full();
        let policy = settings.for_webhook(&delivery.target.webhook);
        delivery.target = delivery.target.reference();
        while !self.publisher.is_up() {
            tokio::time::sleep(PARK_RETRY_INTERVAL).await;
        }
        let [shortest, longest] = MEMORY_PARKING;
        let time = shortest + (longest - shortest).mul_f64(jitter());
        self.park_by(&policy, delivery, time, ParkReason::Memory).await
    }

    /// Has a delivery tried again when it is due.
    async fn retry_at(&self, mut delivery: Box<Delivery>, due: DateTime<Utc>) -> Result<(), DeliveryError> {
        let (rung, body) = encode_for_delay(&mut delivery, due)?;
        self.publish(new_outgoing(Destination::Queue(self.names.delay(rung)), body)).await?;
        self.metrics.account.put_on_ladder.inc();
        self.metrics.retries_scheduled.inc();
        Ok(())
    }

    /// Puts a delivery back without an attempt, because its endpoint can't take it for some time.
    async fn park(&self, delivery: Box<Delivery>, time: Duration, why: ParkReason) -> Result<(), DeliveryError> {
        let settings = self.policy.load_full();
        let policy = settings.for_webhook(&delivery.target.webhook);
        self.park_by(&policy, delivery, time, why).await
    }

    async fn park_by(
        &self,
        policy: &RetryPolicy,
        mut delivery: Box<Delivery>,
        time: Duration,
        why: ParkReason,
    ) -> Result<(), DeliveryError> {
        match park(policy, &mut delivery, time, Utc::now()) {
            Ok(due) => {
                let (rung, body) = encode_for_delay(&mut delivery, due)?;
                self.parking.park(rung, body).await?;
                self.metrics.parked(why);
                delivery_log::parked(&delivery, why, due);
                Ok(())
            }
            Err(reason) => self.dead(delivery, reason).await,
        }
    }

    /// Sends a delivery's request, and records the attempt in its history. Nothing is counted, kept or retried here.
    pub async fn attempt_once(&self, delivery: &mut Delivery) -> AttemptResult {
        let began = Utc::now();
        let clock = Instant::now();
        let timeout = Duration::from_millis(delivery.target.webhook.timeout_ms);
        let request = request::render(delivery, began);
        let span = spans::attempt(delivery);
        let (reply, stages) = self.sender.send(request, timeout, &span).await;
        spans::replied(&span, &reply);
        let took = clock.elapsed();
        let ended = Utc::now();
        let (own, policy) = (delivery.target.webhook.retry.permanent_statuses.as_ref(), self.policy.load());
        let outcome = classify(&reply, own.unwrap_or(&policy.permanent_statuses), ended);
        let attempt = attempt_of(&reply, began, took, &delivery.target.webhook);
        delivery.record(attempt);
        self.metrics.stages(&stages);
        AttemptResult { outcome, reply, took, ended }
    }

    /// The one attempt of a delivery that a replay makes: counted and logged as any other, and nothing follows from it here.
    /// None where the receiver has it, else why the delivery is dead again.
    pub(crate) async fn attempt_for_replay(
        &self,
        delivery: &mut Delivery,
        replay: &ReplayId,
    ) -> Option<DeadLetterReason> {
        // A replay has few requests in flight: its deliveries share what is there already, and are sent in any case.
        let _hold = self.memory_budget.hold(&mut delivery.target.webhook);
        let in_flight = InFlight::begin(&self.metrics);
        let span = spans::replayed(delivery, replay);
        let AttemptResult { outcome, reply, took, ended } = self.attempt_once(delivery).instrument(span).await;
        drop(in_flight);
        self.metrics.attempt_duration.observe(took.as_secs_f64());
        self.endpoints.record(&delivery.target.webhook, &reply, ended);
        let reason = match outcome {
            Outcome::Delivered => {
                self.metrics.attempt(AttemptOutcome::Delivered, reply.cause());
                delivery_log::delivered(delivery, took, ended, Some(replay));
                return None;
            }
            Outcome::Permanent(reason) => reason,
            Outcome::Transient { .. } => DeadLetterReason::Exhausted,
        };
        self.metrics.attempt(AttemptOutcome::Dead, reply.cause());
        self.metrics.blamed(&reply);
        delivery_log::failed(delivery, &reply, took, AttemptOutcome::Dead, reason.as_str(), Some(replay));
        Some(reason)
    }

    /// Gives a delivery up.
    async fn dead(&self, delivery: Box<Delivery>, reason: DeadLetterReason) -> Result<(), DeliveryError> {
        self.publish_dead_letter(&DeadLetter::of_delivery(*delivery, reason, Utc::now())).await?;
        self.metrics.dead();
        Ok(())
    }

    /// Publishes until the broker has taken it. To give the message back instead would send the request once more.
    pub(crate) async fn publish(&self, outgoing: OutboundMessage) -> Result<(), DeliveryError> {
        Ok(self.publisher.publish_with_retry(outgoing).instrument(spans::publish()).await?)
    }

    /// The webhook of a waiting delivery as it is configured now, or why there is none.
    fn current_target(&self, delivery: &Delivery) -> Result<Result<Target, DeadLetterReason>, StoreError> {
        let stored = self.store.campaign(&delivery.event.campaign_id)?;
        let place = stored.as_ref().and_then(|stored| stored.campaign.place_of(&delivery.target.webhook.id));
        Ok(resolve::current(place))
    }

    fn observe(&self, delivery: &Delivery, reply: &Reply, took: Duration, settlement: &Settlement, now: DateTime<Utc>) {
        let metrics = &self.metrics;
        metrics.attempt_duration.observe(took.as_secs_f64());
        let (outcome, then) = match settlement {
            Settlement::Delivered => {
                let latency = now.signed_duration_since(delivery.event.date);
                metrics.delivered(latency.as_seconds_f64());
                metrics.attempt(AttemptOutcome::Delivered, reply.cause());
                delivery_log::delivered(delivery, took, now, None);
                return;
            }
            Settlement::Retry { due } => (AttemptOutcome::Retry, timestamp::text(due)),
            Settlement::Dead(reason) => (AttemptOutcome::Dead, reason.as_str().to_owned()),
        };
        metrics.attempt(outcome, reply.cause());
        metrics.blamed(reply);
        delivery_log::failed(delivery, reply, took, outcome, &then, None);
    }
}

/// A delivery in hand has come to an end, or could not.
fn close_account(in_hand: DeliveryGuard<'_>, ended: Result<(), DeliveryError>) -> Result<(), DeliveryError> {
    match &ended {
        Ok(()) => in_hand.settled(),
        Err(error) => in_hand.given_back(error.blame()),
    }
    ended
}

/// Counts a delivery as in flight for as long as it lives, also where its task is aborted.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.deliveries_in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.deliveries_in_flight.dec();
    }
}

/// A delivery as it waits until it is due, and the rung for that.
fn encode_for_delay(delivery: &mut Delivery, due: DateTime<Utc>) -> Result<(DelayTier, Vec<u8>), serde_json::Error> {
    delivery.wait_until(due);
    Ok((rung_until(due, Utc::now()).unwrap_or(DelayTier::LOWEST), serde_json::to_vec(delivery)?))
}

/// A number in 0..1: another each time, and none that has to be drawn.
fn jitter() -> f64 {
    f64::from(Utc::now().timestamp_subsec_micros() % 1_000_000) / 1e6
}

fn new_outgoing(to: Destination, body: Vec<u8>) -> OutboundMessage {
    OutboundMessage::new(to, uuid::Uuid::now_v7().to_string(), body)
}

/// What is kept of a reply: nothing of what it repeats of the request's secrets.
fn attempt_of(reply: &Reply, at: DateTime<Utc>, took: Duration, webhook: &Webhook) -> Attempt {
    let (status, answer) = match reply {
        Reply::Answer { status, body, .. } => {
            let extent = if body.len() < ANSWER_BYTES_KEPT { Truncation::Whole } else { Truncation::Beginning };
            let answer = || redact::masked(&String::from_utf8_lossy(body), extent, webhook);
            (Some(*status), (!body.is_empty()).then(answer))
        }
        Reply::ProxyFailure { .. } | Reply::NotConnected { .. } | Reply::TimedOut { .. } | Reply::Failure { .. } => {
            (None, None)
        }
    };
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Attempt { at, duration_ms, status, cause: reply.cause(), error: reply.error().map(str::to_owned), answer }
}
