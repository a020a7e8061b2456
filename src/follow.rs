//! Following a log into the local view: how far that has come, and why it ended.

use crate::broker::BrokerError;
use crate::store::StoreError;

/// Whether the view holds what the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Currency {
    /// Still reading: an event resolved now could miss its webhook, and a dead letter is not there yet.
    CatchingUp,
    /// What the log held when reading started has been applied.
    Current,
}

/// Why following the log ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The broker was lost.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The view failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
