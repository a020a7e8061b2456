//! The publisher's channels: one for all queues, and one for each stream.
//!
//! RabbitMQ 3.10 numbers the messages that a channel publishes to a stream, and drops a message with a known number as
//! a duplicate. When the stream's leader is lost, RabbitMQ sends unconfirmed messages to the next leader with the
//! *channel's* numbers. These are ahead of the stream's numbers if the channel also publishes elsewhere. From then on
//! RabbitMQ drops the messages of that channel and confirms them. On a channel that publishes to a single stream the
//! numbers are equal.

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};

use super::message::Destination;
use crate::BrokerError;
use crate::names::Names;

pub(super) struct Channels {
    queues: Channel,
    /// By the name of the stream. The exchange bound to the stream has the same name.
    streams: [(String, Channel); 2],
}

impl Channels {
    pub(super) async fn open(connection: &Connection, names: &Names) -> Result<Self, BrokerError> {
        let dead_letters = (names.dead_letters(), open_channel(connection).await?);
        let campaigns = (names.campaigns(), open_channel(connection).await?);
        Ok(Self { queues: open_channel(connection).await?, streams: [dead_letters, campaigns] })
    }

    pub(super) fn channel_for(&self, destination: &Destination) -> Channel {
        let (Destination::Queue(name) | Destination::Exchange { name, .. }) = destination;
        let stream = self.streams.iter().find(|(stream, _)| stream == name);
        stream.map_or(&self.queues, |(_, channel)| channel).clone()
    }
}

async fn open_channel(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
    confirms.map_err(BrokerError::channel_failed("selecting confirms"))?;
    Ok(channel)
}
