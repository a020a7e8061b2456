//! A message that shows whether events still reach their queue. AMQP 0-9-1 has no question for a binding: a `mandatory`
//! message that comes back says that there is none.
//!
//! The body is a valid step event of a campaign that nobody has. So a worker of an older version counts it as
//! `no_webhook`, and a consumer of somebody else can read it. A worker knows it by its exact bytes, acknowledges it, and
//! neither counts nor records it.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, Connection};

use super::BrokerError;
use super::names::Names;

/// The exact body of a probe.
const BODY: &[u8] =
    br#"{"campaignId":"waypost.probe","label":"waypost.probe","phoneNumber":"0","date":"1970-01-01T00:00:00.000Z"}"#;

/// The routing key of a probe.
const ROUTING_KEY: &str = "waypost.probe";

/// A broker that has not confirmed a probe within this time says nothing about its bindings.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a message of the events queue is a probe.
pub fn is_probe(body: &[u8]) -> bool {
    body == BODY
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// A queue has it.
    Routed,
    /// No queue is bound to the exchange of events.
    Returned,
    /// The broker refused it, as a full queue does, or did not answer in time.
    Unknown,
}

/// Publishes a probe as the platform publishes an event.
///
/// # Errors
/// [`BrokerError::ChannelFailed`]: the user may not, or the exchange is missing.
pub async fn publish(connection: &Connection, names: &Names) -> Result<Routing, BrokerError> {
    send(connection, &names.events(), ROUTING_KEY).await
}

/// Checks the right to write to the default exchange, which retries go through: publishes to a queue that does not exist.
///
/// # Errors
/// [`BrokerError::ChannelFailed`]: the user may not.
pub(super) async fn check_default_exchange(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    send(connection, "", &names.examination("probe")).await.map(drop)
}

/// On a channel of its own, as the broker closes one on which it refuses a message.
async fn send(connection: &Connection, exchange: &str, routing_key: &str) -> Result<Routing, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
    confirms.map_err(BrokerError::lost("asking for confirms"))?;
    // With several shards the message id says which of them gets it.
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id(uuid::Uuid::now_v7().to_string().into());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let sending =
        async { channel.basic_publish(exchange.into(), routing_key.into(), options, BODY, properties).await?.await };
    let routing = match tokio::time::timeout(CONFIRM_TIMEOUT, sending).await {
        Ok(confirmation) => match confirmation.map_err(BrokerError::lost("publishing (the right to write)"))? {
            Confirmation::Ack(None) => Routing::Routed,
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Routing::Returned,
            Confirmation::Nack(None) | Confirmation::NotRequested => Routing::Unknown,
        },
        Err(_) => Routing::Unknown,
    };
    // Where this fails the channel is gone already.
    let _ = tokio::time::timeout(CONFIRM_TIMEOUT, channel.close(200, "probed".into())).await;
    Ok(routing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::event;

    #[test]
    fn a_probe_is_an_event_that_every_worker_can_read() {
        let event = event::decode(BODY, None).expect("an event");
        assert_eq!(event.campaign_id, "waypost.probe");
        assert!(is_probe(BODY) && !is_probe(b"{}"));
    }
}
