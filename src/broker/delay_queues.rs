//! The delay ladder: how a delivery waits in the broker for any length of time.
//!
//! There is one queue for each power of two seconds, each with that time-to-live, all dead-lettering to the retries
//! queue. A delivery that is due at a certain time waits on the largest rung that fits into the time left; when it
//! comes back early, on the next. One queue to a delay, because in a queue of mixed delays a long one at the head
//! holds up all behind it.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The highest rung: 2^15 = 32768 s, about nine hours.
const TOP: u32 = 15;

/// What is due this soon is due now: it absorbs the milliseconds a hop takes, so that a wait of exactly one rung is
/// one hop.
const SLACK: Duration = Duration::from_millis(50);

/// One step of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayTier(u32);

impl DelayTier {
    /// The shortest wait.
    pub const LOWEST: Self = Self(0);

    /// All rungs, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=TOP).map(Self)
    }

    /// How long a message stays on it, in seconds.
    pub fn seconds(self) -> u32 {
        1 << self.0
    }

    /// How long a message stays on it, in milliseconds, as RabbitMQ wants it.
    pub fn milliseconds(self) -> u32 {
        self.seconds() * 1000
    }
}

/// The rung for a delivery that is due at `due`; `None` where it is due now. Never early: the last hop may be late by
/// less than the lowest rung.
pub fn rung_until(due: DateTime<Utc>, now: DateTime<Utc>) -> Option<DelayTier> {
    let left = due.signed_duration_since(now).to_std().ok().filter(|left| *left > SLACK)?;
    let seconds = (left + SLACK).as_secs().max(1);
    Some(DelayTier(seconds.ilog2().min(TOP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    #[test]
    fn the_largest_rung_that_fits() {
        let now = DateTime::UNIX_EPOCH;
        for (left_ms, seconds) in [
            (-5_000, None),
            (0, None),
            (50, None),
            (51, Some(1)),
            (300, Some(1)),
            (1_000, Some(1)),
            (1_949, Some(1)),
            (1_950, Some(2)),
            (2_000, Some(2)),
            (3_999, Some(4)),
            (15_000, Some(8)),
            (32_768_000, Some(32_768)),
            (10_000_000_000, Some(32_768)),
        ] {
            let rung = rung_until(now + TimeDelta::milliseconds(left_ms), now);
            assert_eq!(rung.map(DelayTier::seconds), seconds, "{left_ms} ms");
        }
    }

    proptest! {
        /// Any wait ends, on time to about a second, in no more hops than there are rungs (and two).
        #[test]
        fn climbing_down_meets_the_due_time(wait_ms in 0_i64..200_000_000, hop_ms in 0_i64..20) {
            let due = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(wait_ms);
            let mut now = DateTime::UNIX_EPOCH;
            let mut hops = 0;
            while let Some(rung) = rung_until(due, now) {
                now += TimeDelta::milliseconds(i64::from(rung.milliseconds()) + hop_ms);
                hops += 1;
            }
            let late = now.signed_duration_since(due).num_milliseconds();
            prop_assert!(late >= -50, "early by {} ms", -late);
            prop_assert!(late <= 1_000 + hop_ms * hops, "late by {late} ms");
            prop_assert!(hops <= 24, "{hops} hops");
        }
    }
}
