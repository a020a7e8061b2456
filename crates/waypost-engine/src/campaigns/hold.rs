//! The status of the campaigns stream, and the reason why a worker holds its events: campaigns may be missing from the
//! stream.

use std::fmt;

use waypost_store::state::Incomplete;

/// How the view and the campaigns stream relate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamStatus {
    /// The view follows the stream.
    Following,
    /// The view does not continue in the stream, or must be read again. No change is accepted while the stream is read.
    Comparing,
    /// Campaigns may be missing. An operator must decide.
    Incomplete(Hold),
}

/// Events are held until an operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The name of the campaigns stream.
    pub log: String,
    pub reason: HoldReason,
}

/// Why campaigns may be missing. `first` is the offset of the stream's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// The view was read from another stream, or from records that the stream no longer has.
    StreamReplaced { first: u64 },
    /// The stream has lost records that this worker has not read. `read_to` is the offset of the last record it has
    /// read.
    StreamTrimmed { first: u64, read_to: u64 },
    /// The view was read from an incomplete stream.
    View(Incomplete),
}

impl HoldReason {
    /// Whether the view was complete before. Such a view can restore the stream.
    pub fn keeps_campaigns(self) -> bool {
        matches!(self, Self::StreamReplaced { .. } | Self::StreamTrimmed { .. })
    }

    /// Whether the stream has lost its beginning. A ready worker may have changes that a new reader does not find.
    pub(super) fn lacks_beginning(self) -> bool {
        match self {
            Self::StreamReplaced { first } => first > 0,
            Self::StreamTrimmed { .. } | Self::View(Incomplete::BeginsLater { .. }) => true,
            Self::View(Incomplete::HeldByWorker { .. } | Incomplete::DeliveriesWait { .. }) => false,
        }
    }

    /// The `reason` of `GET /v1/configuration`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StreamReplaced { .. } => "logReplaced",
            Self::StreamTrimmed { .. } => "logTrimmed",
            Self::View(Incomplete::BeginsLater { .. }) => "logBeginsLater",
            Self::View(Incomplete::HeldByWorker { .. }) => "heldByWorker",
            Self::View(Incomplete::DeliveriesWait { .. }) => "deliveriesWait",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = &self.log;
        write!(f, "events are held because campaigns may be missing: ")?;
        match self.reason {
            HoldReason::StreamReplaced { .. } => {
                write!(f, "the stream {log} does not have the records that this worker's campaigns came from")
            }
            HoldReason::StreamTrimmed { first, read_to } => write!(
                f,
                "the stream {log} begins at offset {first}, and this worker has read it up to offset {read_to} only"
            ),
            HoldReason::View(Incomplete::BeginsLater { first }) => write!(
                f,
                "the stream {log} begins at offset {first}, and this worker's store does not have the changes before"
            ),
            HoldReason::View(Incomplete::HeldByWorker { campaigns }) => {
                write!(f, "the stream {log} is new, and another worker has campaigns that are not in it ({campaigns})")
            }
            HoldReason::View(Incomplete::DeliveriesWait { messages }) => {
                write!(f, "the stream {log} has no campaign, but deliveries wait for a retry ({messages} messages)")
            }
        }?;
        write!(
            f,
            ". Run `waypost campaigns restore` against a worker that has all campaigns. If there is none, run `waypost campaigns \
             accept-empty`. See docs/runbooks/WaypostConfigurationIncomplete.md"
        )
    }
}
