//! The publisher's channels: one for everything that goes to queues, and one for each stream.
//!
//! RabbitMQ 3.10 numbers what a channel sends to a stream, and drops as a double what has a number it has seen. After the
//! stream's leader was lost, it sends what was unconfirmed to the next one under the *channel's* numbers, which run ahead
//! of the stream's own where the channel publishes to other places, too. From then on it drops what that channel sends to
//! the stream, and confirms it. On a channel that publishes to nothing else the two numbers are the same.

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};

use super::Destination;
use crate::broker::BrokerError;
use crate::broker::names::Names;

/// Channels of one connection, all with confirms.
pub(super) struct Channels {
    queues: Channel,
    /// By the name of the stream, which is that of the exchange before it as well.
    streams: [(String, Channel); 2],
}

impl Channels {
    /// Opens them.
    pub(super) async fn open(connection: &Connection, names: &Names) -> Result<Self, BrokerError> {
        let dead_letters = (names.dead_letters(), confirming(connection).await?);
        let campaigns = (names.campaigns(), confirming(connection).await?);
        Ok(Self { queues: confirming(connection).await?, streams: [dead_letters, campaigns] })
    }

    /// The channel for a destination.
    pub(super) fn channel_for(&self, to: &Destination) -> Channel {
        let (Destination::Queue(name) | Destination::Exchange { name, .. }) = to;
        let stream = self.streams.iter().find(|(stream, _)| stream == name);
        stream.map_or(&self.queues, |(_, channel)| channel).clone()
    }
}

async fn confirming(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
    confirms.map_err(BrokerError::lost("asking for confirms"))?;
    Ok(channel)
}
