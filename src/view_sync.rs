//! Following a log into the local view: how far that has come, whether it goes on, and why it ended.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::Connection;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::broker::stream_reader::StreamPosition;
use crate::broker::{BrokerError, queue_stats};
use crate::store::StoreError;

/// Time between two looks at the end of the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// Time to the first look of a session: one that ends sooner is no sign of life.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// A follower without a sign of life for this long is not well. Longer than a broker's restart takes.
const GRACE: Duration = Duration::from_secs(30);

/// A reader is given up that got nothing for this long while the log went on.
const STALL: Duration = Duration::from_secs(20);

/// Whether the view holds what the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncState {
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
    /// The reader got nothing for `STALL`, although the log goes on. RabbitMQ can fail to tell a reader of a new record; a
    /// new reader gets it.
    #[error("nothing was read from {log} for {} s, although it goes on", STALL.as_secs())]
    Stalled {
        /// The stream's name.
        log: String,
    },
}

/// Whether a log is read into the view as it grows. Cheap to clone.
///
/// A sign of life is a record applied, or a look that finds the view at the log's end. A connection alone is none: a
/// follower that connects again and again, or whose reader stands still, gives no sign.
#[derive(Clone)]
pub struct Follower(Arc<Mutex<SignsOfLife>>);

struct SignsOfLife {
    last: Instant,
    trouble: Option<String>,
}

/// A follower that has given no sign of life for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Since the last sign.
    pub lasts: Duration,
    /// What came in the way last; none if there is a connection.
    pub trouble: Option<String>,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {} s: ", self.lasts.as_secs())?;
        match &self.trouble {
            Some(trouble) => f.write_str(trouble),
            None => f.write_str("connected, but nothing is applied although the log goes on"),
        }
    }
}

impl Default for Follower {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(SignsOfLife { last: Instant::now(), trouble: None })))
    }
}

impl Follower {
    /// It lives.
    pub fn alive(&self) {
        *self.signs() = SignsOfLife { last: Instant::now(), trouble: None };
    }

    /// Its session ended.
    pub fn failed(&self, error: &FollowError) {
        self.signs().trouble = Some(error.to_string());
    }

    /// For how long it has been silent, if that is too long.
    pub fn silence(&self) -> Option<Silence> {
        let signs = self.signs();
        let lasts = signs.last.elapsed();
        (lasts > GRACE).then(|| Silence { lasts, trouble: signs.trouble.clone() })
    }

    fn signs(&self) -> std::sync::MutexGuard<'_, SignsOfLife> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The followers of a worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Followers {
    /// Of the campaigns log.
    pub campaigns: Follower,
    /// Of the log of dead letters, on whose connection replays run too.
    pub dead_letters: Follower,
}

/// Compares the view's position with the end of the log, over and over, and notes signs of life.
///
/// Runs in the task that applies the log: a batch that takes for ever holds it up as well, and then there is no sign.
///
/// # Errors
/// [`FollowError`] when the connection is lost, the view fails or the reader stalls.
pub async fn watch(
    follower: &Follower,
    connection: &Connection,
    log: &str,
    position: impl Fn() -> Result<Option<StreamPosition>, StoreError>,
) -> Result<Infallible, FollowError> {
    let offset = || Ok::<_, StoreError>(position()?.map(|position| position.offset));
    let mut before = offset()?;
    let mut behind_since = None;
    let mut ticks = interval_at(tokio::time::Instant::now() + FIRST_LOOK, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let end = match queue_stats::last_chunk(connection, log).await {
            Ok(end) => end,
            // Deliveries on this connection go on. If looks keep failing, there is no sign of life.
            Err(error) if connection.status().connected() => {
                tracing::debug!(log, %error, "end of the log not read");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let applied = offset()?;
        let at_end = match end {
            Some(end) => applied.is_some_and(|applied| applied >= end),
            None => applied.is_none(),
        };
        if at_end || applied != before {
            follower.alive();
            behind_since = None;
        } else if end.is_some() && behind_since.get_or_insert_with(Instant::now).elapsed() >= STALL {
            return Err(FollowError::Stalled { log: log.to_owned() });
        }
        before = applied;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_sign_whatever_connects_meanwhile() {
        let follower = Follower::default();
        assert_eq!(follower.silence(), None);
        let lost = FollowError::from(BrokerError::ChannelFailed { doing: "consuming", error: "cancelled".to_owned() });
        follower.failed(&lost);
        assert_eq!(follower.silence(), None, "one lost connection is nothing to report");
        follower.signs().last -= GRACE + Duration::from_secs(5);
        let silence = follower.silence().expect("silent for too long").to_string();
        assert_eq!(silence, "for 35 s: consuming: cancelled");
        follower.alive();
        assert_eq!(follower.silence(), None);
    }
}
