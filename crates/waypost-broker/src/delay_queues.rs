//! Delay queues: how a delivery waits in the broker until it is due.
//!
//! There is one queue for each power of two seconds, with that time-to-live. When it expires, RabbitMQ
//! dead-letters the message to the retries queue. A delivery waits in the longest queue that fits into its remaining
//! time. If time remains then, it waits again in a shorter queue. The metrics call all delay queues together the
//! *ladder*.
//!
//! Each delay has a queue of its own because RabbitMQ expires messages only at the head of a queue: a long delay at the
//! head would hold up shorter ones.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The longest delay is 2^15 = 32768 s, about nine hours.
const MAX_EXPONENT: u32 = 15;

/// A delivery that is due within this time counts as due now. This covers the milliseconds that a hop takes, so that a
/// wait of exactly one queue is one hop.
const SLACK: Duration = Duration::from_millis(50);

/// Holds the exponent of the delay: 2^n seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayQueue(u32);

impl DelayQueue {
    /// One second.
    pub const SHORTEST: Self = Self(0);

    /// All delay queues, shortest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=MAX_EXPONENT).map(Self)
    }

    pub fn seconds(self) -> u32 {
        1 << self.0
    }

    pub fn milliseconds(self) -> u32 {
        self.seconds() * 1000
    }
}

/// The delay queue in which a delivery waits next; `None` if it is due now. The delivery is never due early. After the
/// last hop it is late by less than one second.
pub fn next_delay_queue(due: DateTime<Utc>, now: DateTime<Utc>) -> Option<DelayQueue> {
    let remaining = due.signed_duration_since(now).to_std().ok().filter(|remaining| *remaining > SLACK)?;
    let seconds = (remaining + SLACK).as_secs().max(1);
    Some(DelayQueue(seconds.ilog2().min(MAX_EXPONENT)))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_delay_queue_that_fits_is_chosen() {
        let now = DateTime::UNIX_EPOCH;
        for (remaining_ms, seconds) in [
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
            let delay_queue = next_delay_queue(now + TimeDelta::milliseconds(remaining_ms), now);
            assert_eq!(delay_queue.map(DelayQueue::seconds), seconds, "{remaining_ms} ms");
        }
    }

    proptest! {
        #[test]
        fn any_wait_ends_on_time_and_takes_few_hops(wait_ms in 0_i64..200_000_000, hop_ms in 0_i64..20) {
            let due = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(wait_ms);
            let mut now = DateTime::UNIX_EPOCH;
            let mut hops = 0;
            while let Some(delay_queue) = next_delay_queue(due, now) {
                now += TimeDelta::milliseconds(i64::from(delay_queue.milliseconds()) + hop_ms);
                hops += 1;
            }
            let late = now.signed_duration_since(due).num_milliseconds();
            prop_assert!(late >= -50, "early by {} ms", -late);
            prop_assert!(late <= 1_000 + hop_ms * hops, "late by {late} ms");
            prop_assert!(hops <= 24, "{hops} hops");
        }
    }
}
