//! Reads a RabbitMQ stream from the position at which the local view stopped.
//!
//! A position is an offset *and* the id of the message there. Reading starts at the position itself, so the reader
//! receives that record again. If the record differs or is missing, the stream is not the one that the view was built
//! from: it was deleted and declared again, or it has lost its last records. The view must then be rebuilt from the
//! beginning of the stream. For an offset after the end, RabbitMQ returns no error but waits.
//!
//! AMQP 0-9-1 does not report the end of a stream. So the reader appends a marker, which is a record without a body:
//! after reading the marker it has read all older records. If the broker accepts no messages, or if other programs read
//! the stream and would mistake a marker for a record, the reader reads the last chunk instead.

use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::Connection;
use waypost_core::TraceContext;
use waypost_core::ids::ReplayRef;
use waypost_core::stream_position::StreamPosition;

use super::BrokerError;
use super::acks::Acks;
use super::publisher::{Destination, OutboundMessage, Publisher};
use super::removal::Removals;
use super::subscription::{Message, StartAt, Subscription};

/// Records in flight. A record may be a document of 1 MiB, so this limits memory.
const PREFETCH: u16 = 100;

/// The record at the stored position arrives within this time if it exists. If the broker is slower, the view is rebuilt needlessly.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker that accepts messages confirms the marker within this time.
const MARKER_TIMEOUT: Duration = Duration::from_secs(3);

/// A stream that delivers nothing for this long counts as read to its end.
const QUIET_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct StreamRecord {
    pub position: StreamPosition,
    /// Empty for a marker.
    pub body: Vec<u8>,
    pub trace: Option<TraceContext>,
    /// `Some` if a replay published the record.
    pub replay: Option<ReplayRef>,
    /// Why the broker dead-lettered the message; `None` if a worker published the record.
    pub removals: Option<Removals>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamContinuity {
    /// It is the stream that the view was built from.
    Continued,
    /// It is another stream, or the view is new: the view must be cleared before the first record.
    Restarted,
}

/// How the reader finds the end of a stream.
#[derive(Clone, Copy)]
pub enum EndDetection<'a> {
    /// The publisher appends a record.
    ByMarker(&'a Publisher),
    /// Reads the last chunk until no more records arrive, which takes a second.
    ByLastChunk,
}

pub struct StreamReader {
    subscription: Subscription,
    acks: Acks,
    end: End,
}

/// The end of the stream when reading started.
#[derive(Clone)]
enum End {
    /// The record with this message id.
    Marker(String),
    Offset(u64),
    /// All records before the end have been read.
    Reached,
}

impl StreamReader {
    /// Starts reading `stream` after `position`, or from its beginning.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open(
        connection: &Connection,
        stream: &str,
        end_detection: EndDetection<'_>,
        position: Option<&StreamPosition>,
    ) -> Result<(Self, StreamContinuity), BrokerError> {
        let marker = match end_detection {
            EndDetection::ByMarker(publisher) => append_marker(publisher, stream).await,
            EndDetection::ByLastChunk => None,
        };
        let end = match marker {
            Some(message_id) => End::Marker(message_id),
            None => find_end_of_last_chunk(connection, stream).await?,
        };
        if let Some(position) = position {
            let start_at = StartAt::Offset(position.offset);
            let mut reader = Self::start(connection, stream, start_at, end.clone()).await?;
            let first = tokio::time::timeout(RECORD_TIMEOUT, reader.next()).await.ok().transpose()?;
            if first.is_some_and(|record| record.position == *position) {
                return Ok((reader, StreamContinuity::Continued));
            }
        }
        Ok((Self::start(connection, stream, StartAt::First, end).await?, StreamContinuity::Restarted))
    }

    async fn start(connection: &Connection, stream: &str, start_at: StartAt, end: End) -> Result<Self, BrokerError> {
        let subscription = Subscription::open_stream(connection, stream, PREFETCH, start_at).await?;
        Ok(Self { acks: subscription.acks(), subscription, end })
    }

    /// Waits for the next record.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn next(&mut self) -> Result<StreamRecord, BrokerError> {
        let message = self.subscription.next().await?;
        // On a stream an acknowledgement only requests more records. The view stores the position.
        self.acks.acknowledge(message.tag);
        let offset = message.offset.ok_or_else(|| BrokerError::ChannelFailed {
            operation: "reading a stream",
            error: "a message has no header x-stream-offset: the queue is not a stream".to_owned(),
        })?;
        let position = StreamPosition { offset, message_id: message.message_id.clone().unwrap_or_default() };
        if self.end.is_reached_at(&position) {
            self.end = End::Reached;
        }
        let Message { body, trace, replay, removals, .. } = message;
        Ok(StreamRecord { position, body, trace, replay, removals })
    }

    /// The next record if it has already arrived. Lets the caller apply many records in one batch.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub fn next_ready(&mut self) -> Result<Option<StreamRecord>, BrokerError> {
        self.next().now_or_never().transpose()
    }

    /// Whether all records that the stream had when reading started have been read.
    pub fn is_caught_up(&self) -> bool {
        matches!(self.end, End::Reached)
    }
}

impl End {
    fn is_reached_at(&self, position: &StreamPosition) -> bool {
        match self {
            Self::Marker(message_id) => position.message_id == *message_id,
            Self::Offset(offset) => position.offset >= *offset,
            Self::Reached => true,
        }
    }
}

/// Returns the message id of the marker; `None` if the broker does not accept it.
async fn append_marker(publisher: &Publisher, stream: &str) -> Option<String> {
    let message_id = uuid::Uuid::now_v7().to_string();
    let destination = Destination::Queue(stream.to_owned());
    let marker = OutboundMessage::new(destination, message_id.clone(), Vec::new());
    let published = tokio::time::timeout(MARKER_TIMEOUT, publisher.publish(marker)).await;
    published.is_ok_and(|published| published.is_ok()).then_some(message_id)
}

/// Reads the last chunk until no more records arrive.
async fn find_end_of_last_chunk(connection: &Connection, stream: &str) -> Result<End, BrokerError> {
    let mut reader = StreamReader::start(connection, stream, StartAt::Last, End::Reached).await?;
    let mut end = End::Reached;
    let read = async {
        while let Ok(record) = tokio::time::timeout(QUIET_TIME, reader.next()).await {
            end = End::Offset(record?.position.offset);
        }
        Ok::<(), BrokerError>(())
    };
    // If `read` does not end in time, other programs are publishing. The records that arrive then are newer than the start.
    tokio::time::timeout(RECORD_TIMEOUT, read).await.unwrap_or(Ok(()))?;
    Ok(end)
}
