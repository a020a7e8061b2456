//! Publishes the dead letters of deliveries, of malformed messages and of poison messages.

use chrono::Utc;
use tracing::Instrument as _;
use waypost_broker::publisher::{Destination, PublishError};
use waypost_broker::subscription::Message;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::removed::{Removal, RemovedMessage};
use waypost_core::reason::DeadLetterReason;
use waypost_core::violation::Violation;

use super::queue::ConsumedQueue;
use super::{DeliveryError, Worker, finish_guard, new_message};
use crate::delivery_event::DeliveryEvent;
use crate::metrics::ledger::DeliverySource;
use crate::spans;

impl Worker {
    pub(super) async fn dead_letter_malformed(
        &self,
        message: Box<Message>,
        violations: Vec<Violation>,
    ) -> Result<(), DeliveryError> {
        let now = Utc::now();
        // The receipt distinguishes messages with equal bodies.
        let receipt = self.receipts.next().to_string();
        let letter = DeadLetter::from_body(&message.body, violations, &receipt, DeadLetterReason::Malformed, now);
        let letter = DeadLetter { message_id: message.message_id, trace: message.trace, ..letter };
        let letter = match message.replay {
            Some(replay_ref) => letter.with_replay(replay_ref),
            None => letter,
        };
        DeliveryEvent::Malformed { letter: &letter, bytes: message.body.len() }.emit(&self.metrics);
        self.publish_dead_letter(&letter).await
    }

    /// Dead-letters a message that was requeued too often. Each delivery of a message becomes a dead letter.
    pub(super) async fn dead_letter_poison(
        &self,
        queue: ConsumedQueue,
        message: Box<Message>,
    ) -> Result<(), DeliveryError> {
        let (now, retries) = (Utc::now(), self.names.retries());
        let queue = match queue {
            ConsumedQueue::Events => self.names.events(),
            ConsumedQueue::Retries => retries.clone(),
        };
        let message = RemovedMessage {
            removal: Removal { queue, reason: DeadLetterReason::Poison, at: Some(now) },
            body: message.body,
            message_id: message.message_id,
            trace: message.trace,
            replay: message.replay,
        };
        for letter in message.letters(&self.receipts.next(), &retries, now) {
            if letter.is_delivery() {
                let guard = self.metrics.ledger.begin(DeliverySource::DelayQueue);
                finish_guard(guard, self.publish_dead_letter(&letter).await)?;
            } else {
                self.publish_dead_letter(&letter).await?;
            }
        }
        Ok(())
    }

    /// Publishes a dead letter until the stream has it. A letter that is too large for the broker is shortened.
    pub(crate) async fn publish_dead_letter(&self, letter: &DeadLetter) -> Result<(), DeliveryError> {
        let _memory = self.memory_budget.acquire_for_letter(letter).await;
        let exchange = Destination::Exchange { name: self.names.dead_letters(), routing_key: String::new() };
        let record = new_message(exchange.clone(), serde_json::to_vec(letter)?);
        let published = self.dead_letter_writer.publish_until_applied(record).instrument(spans::publish()).await;
        let publishes = if let Err(PublishError::TooLarge { limit, .. }) = published {
            let record = new_message(exchange, serde_json::to_vec(&letter.clone().shortened(limit))?);
            self.dead_letter_writer.publish_until_applied(record).instrument(spans::publish()).await?
        } else {
            published?
        };
        DeliveryEvent::DeadLetterWritten { letter, publishes }.emit(&self.metrics);
        Ok(())
    }
}
