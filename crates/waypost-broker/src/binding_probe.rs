//! Publishes a probe: a message that shows whether events still reach their queue. AMQP 0-9-1 cannot query a binding,
//! but the broker returns a `mandatory` message if no queue is bound.
//!
//! The body is a valid step event of a campaign that does not exist. So a worker of an older version counts it as
//! `no_webhook`, and other consumers can parse it. A worker recognizes a probe by its exact bytes and acknowledges it
//! without counting or recording it.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, Connection};

use super::BrokerError;
use super::names::Names;

const BODY: &[u8] =
    br#"{"campaignId":"waypost.probe","label":"waypost.probe","phoneNumber":"0","date":"1970-01-01T00:00:00.000Z"}"#;

const ROUTING_KEY: &str = "waypost.probe";

/// Without a confirm within this time the result is unknown.
const PROBE_CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

pub fn is_probe(body: &[u8]) -> bool {
    body == BODY
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The probe is in a queue.
    Routed,
    /// No queue is bound to the exchange of events.
    Unroutable,
    /// The broker refused the probe, for example because a queue is full, or did not answer in time.
    Unknown,
}

/// Publishes a probe as the platform publishes an event.
///
/// # Errors
/// [`BrokerError::ChannelFailed`] if the user may not publish, or if the exchange is missing.
pub async fn publish(connection: &Connection, names: &Names) -> Result<ProbeOutcome, BrokerError> {
    send(connection, &names.events(), ROUTING_KEY).await
}

/// Checks the permission to write to the default exchange, which routes retries: publishes to a queue that does not
/// exist.
///
/// # Errors
/// [`BrokerError::ChannelFailed`] if the user may not publish.
pub(super) async fn check_default_exchange(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    send(connection, "", &names.temporary("probe")).await.map(drop)
}

/// Uses a channel of its own, because the broker closes a channel on which it refuses a message.
async fn send(connection: &Connection, exchange: &str, routing_key: &str) -> Result<ProbeOutcome, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
    confirms.map_err(BrokerError::channel_failed("selecting confirms"))?;
    // With several shards the message id selects the queue.
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id(uuid::Uuid::now_v7().to_string().into());
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let publish =
        async { channel.basic_publish(exchange.into(), routing_key.into(), options, BODY, properties).await?.await };
    let outcome = match tokio::time::timeout(PROBE_CONFIRM_TIMEOUT, publish).await {
        Ok(confirmation) => {
            match confirmation
                .map_err(BrokerError::channel_failed("publishing a probe (needs the write permission)"))?
            {
                Confirmation::Ack(None) => ProbeOutcome::Routed,
                Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => ProbeOutcome::Unroutable,
                Confirmation::Nack(None) | Confirmation::NotRequested => ProbeOutcome::Unknown,
            }
        }
        Err(_) => ProbeOutcome::Unknown,
    };
    // Closing fails if the broker has closed the channel already.
    let _ = tokio::time::timeout(PROBE_CONFIRM_TIMEOUT, channel.close(200, "probed".into())).await;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use waypost_core::event;

    use super::*;

    #[test]
    fn a_probe_is_a_valid_step_event() {
        let event = event::decode(BODY, None).expect("an event");
        assert_eq!(event.campaign_id, "waypost.probe");
        assert!(is_probe(BODY) && !is_probe(b"{}"));
    }
}
