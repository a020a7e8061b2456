//! Processes one step event, from the bytes of its message to durable outcomes:
//!
//! ```text
//! decode ▶ resolve ▶ admit ▶ render ▶ send ▶ classify ▶ decide ▶ settle
//!                      └ park, if the endpoint can't take the request now
//! ```
//!
//! Each function returns when the outcome is durable: delivered, or the broker has confirmed the retry or the dead
//! letter. Only then does [`consumer`] acknowledge the message. An `Err` means that Waypost failed, not the receiver:
//! the message is requeued, so that the broker delivers it again.
//!
//! Nested futures are moved at each level. Messages, deliveries and cold paths are boxed to keep them small.

pub mod consumer;
pub mod consumer_status;
mod dead_lettering;
pub mod delay_batcher;
pub mod endpoint_registry;
pub mod memory_budget;
mod queue;
pub mod receipts;
mod request;
pub mod retry_slots;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tracing::Instrument as _;
use waypost_broker::delay_queues::{DelayQueue, next_delay_queue};
use waypost_broker::names::Names;
use waypost_broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};
use waypost_broker::stream_writer::StreamWriter;
use waypost_broker::subscription::Message;
use waypost_core::campaign::Target;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::endpoint::{ParkReason, Parking, Source};
use waypost_core::event::StepEvent;
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::ReplayId;
use waypost_core::retry::{RetryPolicy, Settlement, decide, decide_once, park};
use waypost_core::violation::Violation;
use waypost_core::{Delivery, TraceContext, event, resolve};
use waypost_store::dead_letters::RecordOutcome;
use waypost_store::{Store, StoreError};

use crate::delivery_event::DeliveryEvent;
use crate::metrics::ledger::{DeliveryGuard, DeliverySource, RequeueCause};
use crate::metrics::{EventResult, Metrics};
use crate::sender::Sender;
use crate::spans;
use delay_batcher::DelayBatcher;
use endpoint_registry::{AdmissionOutcome, EndpointRegistry};
use memory_budget::MemoryBudget;
use receipts::Receipts;
use retry_slots::{RetrySlot, RetrySlots};

/// While the broker accepts no messages, nothing can be parked. A delivery then asks for admission again after this
/// time.
const PARK_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A delivery that does not fit into memory is parked for a random time between these two.
/// The attempts that hold the memory end within 30 s.
const MEMORY_PARK_TIME_RANGE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Makes the attempts of deliveries, and publishes retries and dead letters.
pub struct Worker {
    pub names: Names,
    pub store: Store,
    pub publisher: Publisher,
    pub dead_letter_writer: StreamWriter<RecordOutcome>,
    pub sender: Sender,
    pub endpoints: EndpointRegistry,
    pub delay_batcher: DelayBatcher,
    pub receipts: Receipts,
    /// The settings `retry.*`. A webhook's own `retry` overrides them.
    pub retry_policy: ArcSwap<RetryPolicy>,
    pub metrics: Arc<Metrics>,
    pub memory_budget: MemoryBudget,
    pub retry_slots: RetrySlots,
}

/// Why a message could not be settled. The message is requeued.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A retry or a dead letter could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("a delivery or dead letter could not be encoded as JSON: {0}")]
    Encode(#[from] serde_json::Error),
}

impl DeliveryError {
    fn requeue_cause(&self) -> RequeueCause {
        match self {
            Self::Store(_) => RequeueCause::Store,
            Self::Publish(PublishError::Stopping) => RequeueCause::Interrupted,
            Self::Publish(_) => RequeueCause::Broker,
            Self::Encode(_) => RequeueCause::Bug,
        }
    }
}

impl Worker {
    /// Handles a message of the events queue: one step event, which is delivered to every webhook that it resolves to.
    pub async fn handle_event(&self, message: Box<Message>) -> Result<(), DeliveryError> {
        let span = spans::event(message.message_id.as_deref(), message.body.len(), message.trace.as_ref());
        if span.is_disabled() {
            return self.process_event(message).await;
        }
        Box::pin(self.process_event(message).instrument(span)).await
    }

    async fn process_event(&self, message: Box<Message>) -> Result<(), DeliveryError> {
        let event = match event::decode(&message.body, message.message_id.as_deref()) {
            Ok(event) => event,
            Err(violations) => {
                Box::pin(self.dead_letter_malformed(message, violations)).await?;
                DeliveryEvent::EventSettled(EventResult::Malformed).emit(&self.metrics);
                return Ok(());
            }
        };
        let trace = message.trace;
        // The body may be large, and the requests do not need it.
        drop(message.body);
        let targets = spans::resolve().in_scope(|| self.resolve_targets(&event))?;
        let result = if targets.is_empty() { EventResult::NoWebhook } else { EventResult::Resolved };
        DeliveryEvent::Resolved { event: &event, webhooks: targets.len(), trace: trace.as_ref() }.emit(&self.metrics);
        self.attempt_all(event, targets, trace).await?;
        DeliveryEvent::EventSettled(result).emit(&self.metrics);
        Ok(())
    }

    fn resolve_targets(&self, event: &StepEvent) -> Result<Vec<Target>, StoreError> {
        let stored = self.store.campaign(&event.campaign_id)?;
        Ok(stored.map_or_else(Vec::new, |stored| resolve::resolve(&stored.campaign, event)))
    }

    /// Makes the first attempt for each target. A delivery that can't be settled does not stop the others.
    async fn attempt_all(
        &self,
        event: StepEvent,
        mut targets: Vec<Target>,
        trace: Option<TraceContext>,
    ) -> Result<(), DeliveryError> {
        let receipt = self.receipts.next();
        if targets.len() == 1 {
            return self
                .first_attempt(Box::new(Delivery::with_receipt(event, targets.remove(0), trace, receipt)))
                .await;
        }
        let deliveries = targets
            .into_iter()
            .map(|target| Box::new(Delivery::with_receipt(event.clone(), target, trace.clone(), receipt)));
        let attempts = join_all(deliveries.map(|delivery| self.first_attempt(delivery)));
        Box::pin(attempts).await.into_iter().collect()
    }

    async fn first_attempt(&self, delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let mut guard = self.metrics.ledger.begin(DeliverySource::Event);
        let result = self.attempt(delivery, None, &mut guard).await;
        finish_guard(guard, result)
    }

    /// Handles a message of the retries queue: one delivery that waits or is due, or several that waited together.
    pub async fn handle_retry(&self, message: Box<Message>) -> Result<(), DeliveryError> {
        // Decoding takes about as long as ten attempts if the message has a hundred deliveries.
        let slot = self.retry_slots.acquire().await;
        let mut waiting = match Delivery::decode_waiting(&message.body) {
            Ok(waiting) => waiting,
            Err(error) => {
                let violations = vec![Violation::new("$", format!("not a delivery: {error}"))];
                return Box::pin(self.dead_letter_malformed(message, violations)).await;
            }
        };
        drop(message);
        drop(slot);
        if waiting.len() == 1 {
            return self.process_waiting(Box::new(waiting.remove(0))).await;
        }
        let results = join_all(waiting.into_iter().map(|delivery| self.process_waiting(Box::new(delivery))));
        Box::pin(results).await.into_iter().collect()
    }

    async fn process_waiting(&self, delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let span = spans::resumed(&delivery);
        if span.is_disabled() {
            return self.process_waiting_delivery(delivery).await;
        }
        Box::pin(self.process_waiting_delivery(delivery).instrument(span)).await
    }

    async fn process_waiting_delivery(&self, mut delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let slot = self.retry_slots.acquire().await;
        if let Some(due) = delivery.due.filter(|due| next_delay_queue(*due, Utc::now()).is_some()) {
            // Not due yet: the delivery moves on to the next delay queue, in one message with others that wait as long.
            let (delay_queue, body) = encode_for_delay(&mut delivery, due)?;
            drop(slot);
            return Ok(self.delay_batcher.put(delay_queue, body).await?);
        }
        let mut guard = self.metrics.ledger.begin(DeliverySource::DelayQueue);
        let result = match self.current_target(&delivery) {
            Ok(Ok(target)) => {
                delivery.target = target;
                self.attempt(delivery, Some(slot), &mut guard).await
            }
            Ok(Err(reason)) => Box::pin(self.dead_letter(delivery, reason)).await,
            Err(error) => Err(error.into()),
        };
        finish_guard(guard, result)
    }

    /// Makes one attempt of a delivery if its endpoint can take a request now, and settles the delivery. A retry has a
    /// slot, which is free for another retry when the attempt has ended.
    async fn attempt(
        &self,
        mut delivery: Box<Delivery>,
        slot: Option<RetrySlot>,
        guard: &mut DeliveryGuard<'_>,
    ) -> Result<(), DeliveryError> {
        let source = if delivery.due.is_none() { Source::Event } else { Source::Retry };
        let Some(reservation) = self.memory_budget.reserve(&mut delivery.target.webhook) else {
            drop(slot);
            return Box::pin(self.wait_for_memory(delivery)).await;
        };
        let parking = || if self.publisher.is_up() { Parking::Possible } else { Parking::Blocked };
        let permit = loop {
            match self.endpoints.admit(&delivery.target.webhook, source, parking, jitter()).await {
                AdmissionOutcome::Admitted(permit) => break permit,
                AdmissionOutcome::Parked { delay, reason } => {
                    drop((reservation, slot));
                    return Box::pin(self.park(delivery, delay, reason)).await;
                }
                // The endpoint or the broker may have room again after a pause.
                AdmissionOutcome::Refused => tokio::time::sleep(PARK_RETRY_INTERVAL).await,
            }
        };
        if source == Source::Event {
            // A delivery that was parked is late because of its endpoint, so it is not counted.
            DeliveryEvent::FirstAttempt { event: &delivery.event, at: Utc::now() }.emit(&self.metrics);
        }
        // On the heap only while the request is in flight, so that the many deliveries that wait stay small.
        let result = Box::pin(self.attempt_once(&mut delivery, guard)).await;
        permit.finish(&result.send_result, result.duration, result.ended_at);
        drop(slot);
        let settlement = decide(
            &self.retry_policy.load().for_webhook(&delivery.target.webhook),
            &delivery,
            &result.outcome,
            result.ended_at,
        );
        DeliveryEvent::Attempted { delivery: &delivery, result: &result, settlement: &settlement, replay: None }
            .emit(&self.metrics);

        match settlement {
            Settlement::Delivered => Ok(()),
            Settlement::Retry { due } => {
                drop(reservation);
                Box::pin(self.schedule_retry(delivery, due)).await
            }
            Settlement::Dead(reason) => Box::pin(self.dead_letter(delivery, reason)).await,
        }
    }

    /// Parks a delivery whose webhook does not fit into memory. While the broker accepts no messages, the delivery
    /// waits here without the webhook's configuration, which holds the memory.
    async fn wait_for_memory(&self, mut delivery: Box<Delivery>) -> Result<(), DeliveryError> {
        let defaults = self.retry_policy.load_full();
        let retry_policy = defaults.for_webhook(&delivery.target.webhook);
        delivery.target = delivery.target.reference();
        while !self.publisher.is_up() {
            tokio::time::sleep(PARK_RETRY_INTERVAL).await;
        }
        let [shortest, longest] = MEMORY_PARK_TIME_RANGE;
        let delay = shortest + (longest - shortest).mul_f64(jitter());
        self.park_by_policy(&retry_policy, delivery, delay, ParkReason::Memory).await
    }

    /// Puts a delivery into a delay queue, from which it comes back when it is due. Returns when the broker has confirmed
    /// the message in which it waits, with others that wait as long.
    async fn schedule_retry(&self, mut delivery: Box<Delivery>, due: DateTime<Utc>) -> Result<(), DeliveryError> {
        let (delay_queue, body) = encode_for_delay(&mut delivery, due)?;
        self.delay_batcher.put(delay_queue, body).instrument(spans::publish()).await?;
        DeliveryEvent::RetryScheduled.emit(&self.metrics);
        Ok(())
    }

    /// Puts a delivery into a delay queue without an attempt, because its endpoint can't take a request now.
    async fn park(&self, delivery: Box<Delivery>, delay: Duration, reason: ParkReason) -> Result<(), DeliveryError> {
        let defaults = self.retry_policy.load_full();
        let retry_policy = defaults.for_webhook(&delivery.target.webhook);
        self.park_by_policy(&retry_policy, delivery, delay, reason).await
    }

    async fn park_by_policy(
        &self,
        retry_policy: &RetryPolicy,
        mut delivery: Box<Delivery>,
        delay: Duration,
        reason: ParkReason,
    ) -> Result<(), DeliveryError> {
        match park(retry_policy, &mut delivery, delay, Utc::now()) {
            Ok(due) => {
                let (delay_queue, body) = encode_for_delay(&mut delivery, due)?;
                self.delay_batcher.put(delay_queue, body).await?;
                DeliveryEvent::Parked { delivery: &delivery, reason, due }.emit(&self.metrics);
                Ok(())
            }
            Err(reason) => self.dead_letter(delivery, reason).await,
        }
    }

    /// Makes the only attempt that a replay makes of a delivery. The attempt is counted and logged like any other, but
    /// nothing is published.
    ///
    /// Returns `None` if the receiver answered 2xx, else why the delivery is dead again.
    pub(crate) async fn attempt_for_replay(
        &self,
        delivery: &mut Delivery,
        replay: &ReplayId,
    ) -> Option<DeadLetterReason> {
        // A replay has few requests in flight, so its deliveries are sent even if they do not fit into the budget.
        let _reservation = self.memory_budget.reserve(&mut delivery.target.webhook);
        let mut guard = self.metrics.ledger.begin_replayed();
        let span = spans::replayed(delivery, replay);
        let result = self.attempt_once(delivery, &mut guard).instrument(span).await;
        self.endpoints.record(&delivery.target.webhook, &result.send_result, result.ended_at);
        let reason = decide_once(&result.outcome);
        let settlement = reason.map_or(Settlement::Delivered, Settlement::Dead);
        DeliveryEvent::Attempted { delivery, result: &result, settlement: &settlement, replay: Some(replay) }
            .emit(&self.metrics);
        reason
    }

    async fn dead_letter(&self, delivery: Box<Delivery>, reason: DeadLetterReason) -> Result<(), DeliveryError> {
        self.publish_dead_letter(&DeadLetter::from_delivery(*delivery, reason, Utc::now())).await
    }

    /// Publishes a message until the broker confirms it. Returning the received message instead would send the request
    /// again.
    pub(crate) async fn publish(&self, message: OutboundMessage) -> Result<(), DeliveryError> {
        Ok(self.publisher.publish_with_retry(message).instrument(spans::publish()).await?)
    }

    /// The webhook of a waiting delivery as it is configured now, or why it can no longer be delivered.
    fn current_target(&self, delivery: &Delivery) -> Result<Result<Target, DeadLetterReason>, StoreError> {
        let stored = self.store.campaign(&delivery.event.campaign_id)?;
        let place = stored.as_ref().and_then(|stored| stored.campaign.place_of(&delivery.target.webhook.id));
        Ok(resolve::current_target(place))
    }
}

/// Records in the ledger whether a delivery was settled or its message is returned.
fn finish_guard(guard: DeliveryGuard<'_>, result: Result<(), DeliveryError>) -> Result<(), DeliveryError> {
    match &result {
        Ok(()) => guard.settled(),
        Err(error) => guard.requeued(error.requeue_cause()),
    }
    result
}

/// Encodes a delivery that waits until `due`, and returns the delay queue in which it waits.
fn encode_for_delay(delivery: &mut Delivery, due: DateTime<Utc>) -> Result<(DelayQueue, Vec<u8>), serde_json::Error> {
    delivery.wait_until(due);
    Ok((next_delay_queue(due, Utc::now()).unwrap_or(DelayQueue::SHORTEST), serde_json::to_vec(delivery)?))
}

/// A random number in 0..1.
fn jitter() -> f64 {
    fastrand::f64()
}

fn new_message(destination: Destination, body: Vec<u8>) -> OutboundMessage {
    OutboundMessage::new(destination, uuid::Uuid::now_v7().to_string(), body)
}
