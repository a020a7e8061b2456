//! Writing the dead letters of deliveries, and of messages that no worker can deal with.

use chrono::Utc;
use tracing::Instrument as _;

use super::queue::Queue;
use super::{DeliveryError, Worker, close_account, delivery_log, new_outgoing};
use crate::broker::publisher::{Destination, PublishError};
use crate::broker::subscription::Message;
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::dead_letter::removed::{Removal, RemovedMessage};
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::violation::Violation;
use crate::metrics::ledger::Origin;
use crate::telemetry::spans;

impl Worker {
    /// Keeps a message that can't be read.
    pub(super) async fn dead_letter_malformed(
        &self,
        message: &Message,
        faults: Vec<Violation>,
    ) -> Result<(), DeliveryError> {
        let now = Utc::now();
        // Equal bodies are told apart by their receipts.
        let seen = self.receipts.next().to_string();
        let letter = DeadLetter::of_body(&message.body, faults, &seen, DeadLetterReason::Malformed, now);
        delivery_log::malformed(&letter, message);
        let letter = DeadLetter { message_id: message.message_id.clone(), trace: message.trace.clone(), ..letter };
        let letter = match &message.replay {
            Some(link) => letter.of_replay(link.clone()),
            None => letter,
        };
        self.publish_dead_letter(&letter).await
    }

    /// Dead-letters a message that was returned too often: one letter, or one for each delivery of a bundle.
    pub(super) async fn dead_letter_poison(&self, queue: Queue, message: &mut Message) -> Result<(), DeliveryError> {
        let (now, retries) = (Utc::now(), self.names.retries());
        let queue = match queue {
            Queue::Events => self.names.events(),
            Queue::Retries => retries.clone(),
        };
        let message = RemovedMessage {
            removal: Removal { queue, reason: DeadLetterReason::Poison, at: Some(now) },
            body: std::mem::take(&mut message.body),
            message_id: message.message_id.take(),
            trace: message.trace.take(),
            replay: message.replay.take(),
        };
        for letter in message.letters(&self.receipts.next(), &retries, now) {
            if letter.is_of_delivery() {
                let in_hand = self.metrics.account.take(Origin::Ladder);
                let kept = self.publish_dead_letter(&letter).await;
                if kept.is_ok() {
                    self.metrics.dead();
                }
                close_account(in_hand, kept)?;
            } else {
                self.publish_dead_letter(&letter).await?;
            }
        }
        Ok(())
    }

    /// Writes a dead letter.
    pub(crate) async fn publish_dead_letter(&self, letter: &DeadLetter) -> Result<(), DeliveryError> {
        let _memory = self.memory_budget.take_letter(letter).await;
        let exchange = Destination::Exchange { name: self.names.dead_letters(), routing_key: String::new() };
        let record = new_outgoing(exchange.clone(), serde_json::to_vec(letter)?);
        let published = self.letters.publish_until_applied(record).instrument(spans::publish()).await;
        let publishes = if let Err(PublishError::TooLarge { limit, .. }) = published {
            let record = new_outgoing(exchange, serde_json::to_vec(&letter.clone().shortened(limit))?);
            self.letters.publish_until_applied(record).instrument(spans::publish()).await?
        } else {
            published?
        };
        self.metrics.dead_letters_republished.inc_by(u64::from(publishes - 1));
        self.metrics.dead_letter(letter.reason);
        delivery_log::dead(letter);
        Ok(())
    }
}
