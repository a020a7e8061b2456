//! Supervises how a local view follows its stream: whether the view is current, whether it stalls, and why following
//! ended.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::Connection;
use tokio::time::{MissedTickBehavior, interval_at};
use waypost_broker::{BrokerError, queue_stats};
use waypost_core::stream_position::StreamPosition;
use waypost_store::StoreError;

/// Time between two comparisons of the view with the end of the stream.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Time from the start of a session to its first comparison. A session that ends sooner makes no progress.
const FIRST_CHECK_DELAY: Duration = Duration::from_secs(5);

/// A follower without progress for this long is stalled. Longer than a broker's restart takes.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A reader that gets nothing for this long, although the stream has new records, is replaced.
const READER_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether the view has all records of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncState {
    /// Records are missing. An event resolved now could miss its webhook.
    CatchingUp,
    /// All records that the stream had when reading started have been applied.
    Current,
}

/// Why following the stream ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// RabbitMQ can fail to notify a reader of a new record. A new reader gets the record.
    #[error("nothing was read from {log} for {} s, although the stream has new records", READER_TIMEOUT.as_secs())]
    Stalled {
        /// The name of the stream.
        log: String,
    },
}

/// Tracks whether a stream is applied to the view as the stream grows. Cheap to clone.
///
/// Progress is a record applied, or a comparison that finds the view at the stream's end. A connection alone is no
/// progress.
#[derive(Clone)]
pub struct Follower(Arc<Mutex<FollowerState>>);

struct FollowerState {
    last_progress: Instant,
    last_error: Option<String>,
}

/// A follower has made no progress for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerStall {
    /// Time since the last progress.
    pub duration: Duration,
    /// The last error. `None` if the follower is connected.
    pub error: Option<String>,
}

impl fmt::Display for FollowerStall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {} s: ", self.duration.as_secs())?;
        match &self.error {
            Some(error) => f.write_str(error),
            None => f.write_str("connected, but no record is applied although the stream has new records"),
        }
    }
}

impl Default for Follower {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(FollowerState { last_progress: Instant::now(), last_error: None })))
    }
}

impl Follower {
    pub fn record_progress(&self) {
        *self.state() = FollowerState { last_progress: Instant::now(), last_error: None };
    }

    pub fn record_error(&self, error: &FollowError) {
        self.state().last_error = Some(error.to_string());
    }

    /// `None` if there was progress recently.
    pub fn stall(&self) -> Option<FollowerStall> {
        let state = self.state();
        let duration = state.last_progress.elapsed();
        (duration > STALL_TIMEOUT).then(|| FollowerStall { duration, error: state.last_error.clone() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, FollowerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The followers of a worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Followers {
    pub campaigns: Follower,
    /// Replays run on the same connection.
    pub dead_letters: Follower,
}

/// Compares the view's position with the end of the stream periodically, and records progress.
///
/// Runs in the task that applies the stream, so a batch that hangs stops the progress too.
///
/// # Errors
/// [`FollowError`] if the connection is lost, the view fails or the reader stalls.
pub async fn watch(
    follower: &Follower,
    connection: &Connection,
    log: &str,
    position: impl Fn() -> Result<Option<StreamPosition>, StoreError>,
) -> Result<Infallible, FollowError> {
    let offset = || Ok::<_, StoreError>(position()?.map(|position| position.offset));
    let mut previous = offset()?;
    let mut behind_since = None;
    let mut ticks = interval_at(tokio::time::Instant::now() + FIRST_CHECK_DELAY, CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let end = match queue_stats::last_chunk_offset(connection, log).await {
            Ok(end) => end,
            // Deliveries on this connection continue. Repeated failures show as a stall.
            Err(error) if connection.status().connected() => {
                tracing::debug!(log, %error, "end of the stream not read");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let current = offset()?;
        let at_end = match end {
            Some(end) => current.is_some_and(|current| current >= end),
            None => current.is_none(),
        };
        if at_end || current != previous {
            follower.record_progress();
            behind_since = None;
        } else if end.is_some() && behind_since.get_or_insert_with(Instant::now).elapsed() >= READER_TIMEOUT {
            return Err(FollowError::Stalled { log: log.to_owned() });
        }
        previous = current;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_measured_from_the_last_progress_whatever_connects_meanwhile() {
        let follower = Follower::default();
        assert_eq!(follower.stall(), None);
        let error =
            FollowError::from(BrokerError::ChannelFailed { operation: "consuming", error: "cancelled".to_owned() });
        follower.record_error(&error);
        assert_eq!(follower.stall(), None, "one lost connection is nothing to report");
        follower.state().last_progress -= STALL_TIMEOUT + Duration::from_secs(5);
        let stall = follower.stall().expect("silent for too long").to_string();
        assert_eq!(stall, "for 35 s: consuming: cancelled");
        follower.record_progress();
        assert_eq!(follower.stall(), None);
    }
}
