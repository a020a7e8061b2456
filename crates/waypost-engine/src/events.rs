//! Publishes step events for publishers that do not use AMQP.

use std::time::Duration;

use waypost_broker::names::Names;
use waypost_broker::publisher::{Destination, OutboundMessage, PublishError, Publisher};
use waypost_core::TraceContext;
use waypost_core::event::StepEvent;
use waypost_core::violation::Violation;

/// Time for the broker to confirm an event. After a timeout the event may still be delivered, so the caller repeats it
/// with the same `eventId`.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes to the events exchange, as the platform does by AMQP. Cheap to clone.
#[derive(Clone)]
pub struct EventPublisher {
    publisher: Publisher,
    names: Names,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishEventError {
    /// AMQP can't carry the event.
    #[error("{0}")]
    Invalid(Violation),
    #[error(
        "the broker has not confirmed the event within {} s: send it again, with the same eventId",
        CONFIRM_TIMEOUT.as_secs()
    )]
    Unconfirmed,
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl EventPublisher {
    pub fn new(publisher: Publisher, names: Names) -> Self {
        Self { publisher, names }
    }

    /// Publishes `body`, from which `event` was decoded, and waits for the broker's confirm.
    pub async fn publish(
        &self,
        event: &StepEvent,
        body: Vec<u8>,
        trace: Option<TraceContext>,
    ) -> Result<(), PublishEventError> {
        let routing_key = event.routing_key().map_err(PublishEventError::Invalid)?.to_owned();
        let message = OutboundMessage {
            to: Destination::Exchange { name: self.names.events(), routing_key },
            message_id: event.message_id().map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned),
            body,
            trace,
            replay: None,
        };
        match tokio::time::timeout(CONFIRM_TIMEOUT, self.publisher.publish(message)).await {
            Ok(published) => Ok(published?),
            Err(_) => Err(PublishEventError::Unconfirmed),
        }
    }
}
