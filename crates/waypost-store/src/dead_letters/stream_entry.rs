//! A record of the dead-letter stream, and its effect on the view.

use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::removed::RemovedMessage;
use waypost_core::dead_letter_record::DeadLetterRecord;
use waypost_core::replay::{ReplayProgress, ReplayState};
use waypost_core::stream_position::StreamPosition;

/// A decoded record of the dead-letter stream.
#[derive(Debug, Clone)]
pub struct StreamEntry {
    pub position: StreamPosition,
    pub payload: Payload,
}

#[derive(Debug, Clone)]
pub enum Payload {
    Letter(Box<DeadLetter>),
    /// A message that the broker dead-lettered. Its letters are still to be written.
    Removed(Box<RemovedMessage>),
    /// A record about existing letters or a replay.
    Record(DeadLetterRecord),
    /// A record without a body or of another version.
    Ignored,
}

/// The effect of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordOutcome {
    /// The number of letters that changed their state.
    Letters(u64),
    /// The replay after the record.
    Replay(Box<ReplayProgress>),
    /// The current state of the replay does not allow the command. Nothing changed.
    Refused(ReplayState),
    /// The replay does not exist, or the record was ignored.
    NoEffect,
}
