//! Reading a log: a RabbitMQ stream, from where the local view left off.
//!
//! A position is an offset *and* the message id found there. Reading goes on at the position itself, so that its
//! record is seen again: where it is another one, or none, the log is not the one the view was built from (it was
//! deleted and made anew, or has lost its tail), and the view must be rebuilt from the log's beginning. Asked for an
//! offset past its end, a stream just waits.

use std::time::{Duration, Instant};

use lapin::Connection;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use super::acks::Acks;
use super::consumer::{From, Subscription};
use super::publisher::{Destination, Outgoing, Publisher};

/// Records in hand at once. A record may be a document of a megabyte, so not more of them.
const WINDOW: u16 = 100;

/// An existing record arrives within this time. Taking a slow broker for a lost record costs a needless rebuild.
const PATIENCE: Duration = Duration::from_secs(5);

/// A log from which nothing comes in this time is empty, or as good as that.
const PATIENCE_WITH_EMPTY: Duration = Duration::from_secs(1);

/// No two records of a chunk are this far apart, where the broker is near.
const CHUNK_PAUSE: Duration = Duration::from_millis(200);

/// A record of a log.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its place.
    pub position: Position,
    /// Its bytes. The record that was only written so that the log has an end to be found is empty.
    pub body: Vec<u8>,
}

/// A place in a log, and proof that it is the same log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The stream's offset.
    pub offset: u64,
    /// The id of the message there.
    pub message_id: String,
}

/// How a view can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// The log is the one the view was built from.
    Continued,
    /// It is not: the view must be cleared before the first record.
    Restarted,
}

/// A log being read.
pub struct LogReader {
    subscription: Subscription,
    acks: Acks,
    /// The last offset there was at the start.
    end: u64,
}

impl LogReader {
    /// Starts reading `stream` after `position`, or from its beginning.
    ///
    /// # Errors
    /// [`BrokerError::Lost`].
    pub async fn open(
        connection: &Connection,
        publisher: &Publisher,
        stream: &str,
        position: Option<&Position>,
    ) -> Result<(Self, Continuity), BrokerError> {
        let end = end_of(connection, publisher, stream).await?;
        if let Some(position) = position {
            let mut reader = Self::start(connection, stream, From::Offset(position.offset), end).await?;
            let found = tokio::time::timeout(PATIENCE, reader.next()).await.ok().transpose()?;
            if found.is_some_and(|record| record.position == *position) {
                return Ok((reader, Continuity::Continued));
            }
        }
        Ok((Self::start(connection, stream, From::First, end).await?, Continuity::Restarted))
    }

    async fn start(connection: &Connection, stream: &str, from: From, end: u64) -> Result<Self, BrokerError> {
        let subscription = Subscription::open_stream(connection, stream, WINDOW, from).await?;
        Ok(Self { acks: subscription.acks(), subscription, end })
    }

    /// The next record.
    ///
    /// # Errors
    /// [`BrokerError::Lost`].
    pub async fn next(&mut self) -> Result<Record, BrokerError> {
        let message = self.subscription.next().await?;
        // On a stream an acknowledgement only asks for more: the position is kept by the view.
        self.acks.acknowledge(message.tag);
        let offset = message.offset.ok_or_else(|| BrokerError::Lost {
            doing: "reading a log",
            error: "a record has no x-stream-offset: the queue is no stream".to_owned(),
        })?;
        let position = Position { offset, message_id: message.message_id.unwrap_or_default() };
        Ok(Record { position, body: message.body })
    }

    /// Whether a view that has come to `position` holds what the log held when reading started.
    pub fn is_current(&self, position: Option<&Position>) -> bool {
        position.is_some_and(|position| position.offset >= self.end)
    }
}

/// The last offset there is. An empty log has none, and is given a record.
async fn end_of(connection: &Connection, publisher: &Publisher, stream: &str) -> Result<u64, BrokerError> {
    let began = Instant::now();
    let mut last = LogReader::start(connection, stream, From::Last, 0).await?;
    // It took a few round trips to come here: a pause as long is longer than any within a chunk.
    let pause = CHUNK_PAUSE.max(began.elapsed());
    let mut record = match tokio::time::timeout(PATIENCE_WITH_EMPTY, last.next()).await {
        Ok(record) => record?,
        Err(_) => {
            let genesis = Outgoing {
                to: Destination::Queue(stream.to_owned()),
                message_id: uuid::Uuid::now_v7().to_string(),
                body: Vec::new(),
                trace: None,
            };
            let published = publisher.publish(genesis).await;
            published.map_err(|error| BrokerError::Lost { doing: "opening a log", error: error.to_string() })?;
            last.next().await?
        }
    };
    // Reading starts at the first record of the last chunk; the others of the chunk come in one go with it.
    while let Ok(next) = tokio::time::timeout(pause, last.next()).await {
        record = next?;
    }
    Ok(record.position.offset)
}
