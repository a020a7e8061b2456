//! What happened to the view of campaigns, which decides how the stream is read.

use std::time::{Duration, Instant};

use waypost_store::state::ReadFrom;

/// A worker that was current within this time keeps its view through a decision, as a current worker does. A
/// reconnection does not make a view outdated.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What happened to the view since this process started.
#[derive(Debug, Default)]
pub(super) struct ViewHistory {
    /// When the view was last current, if it is not current now.
    pub(super) last_current_at: Option<Instant>,
    /// Whether the view is being rebuilt from the stream's first record, or from a snapshot.
    pub(super) is_rebuilding: bool,
}

impl ViewHistory {
    pub(super) fn read_from(&self) -> ReadFrom {
        if self.is_rebuilding {
            return ReadFrom::First;
        }
        match self.last_current_at {
            Some(last_current_at) if last_current_at.elapsed() < RECONNECT_TIMEOUT => ReadFrom::Live,
            _ => ReadFrom::Position,
        }
    }
}
