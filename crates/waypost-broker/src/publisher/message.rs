//! A message to publish, and its destination.

use std::fmt;

use waypost_core::TraceContext;
use waypost_core::ids::ReplayRef;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A queue or a stream, through the default exchange.
    Queue(String),
    Exchange {
        name: String,
        routing_key: String,
    },
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Exchange { name, routing_key } => write!(f, "exchange {name} with routing key `{routing_key}`"),
        }
    }
}

/// A message to publish. It is persistent, and publishing fails if no queue receives it.
#[derive(Debug, Clone)]
pub struct OutboundMessage {
    pub to: Destination,
    /// Unique among the messages in flight.
    pub message_id: String,
    /// JSON.
    pub body: Vec<u8>,
    /// Sent as the headers `traceparent` and `tracestate`.
    pub trace: Option<TraceContext>,
    /// For a replayed dead letter. Sent as headers of Waypost.
    pub replay: Option<ReplayRef>,
}

impl OutboundMessage {
    /// A message without a trace context that is not a replay.
    pub fn new(to: Destination, message_id: String, body: Vec<u8>) -> Self {
        Self { to, message_id, body, trace: None, replay: None }
    }
}
