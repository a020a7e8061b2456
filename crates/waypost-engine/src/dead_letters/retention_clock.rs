//! The clock that decides if a dead letter is older than the retention.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock that does not follow forward jumps of the system clock. A view does not read removed letters again, so a
/// jump must not remove any.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetentionClock {
    started_at: DateTime<Utc>,
    start: Instant,
}

impl RetentionClock {
    pub(super) fn start() -> Self {
        Self { started_at: Utc::now(), start: Instant::now() }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        limit_to_elapsed(Utc::now(), self.started_at, self.start.elapsed())
    }
}

/// The system time, but at most the start plus the elapsed time.
fn limit_to_elapsed(system: DateTime<Utc>, started_at: DateTime<Utc>, elapsed: Duration) -> DateTime<Utc> {
    let elapsed = TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX);
    system.min(started_at.checked_add_signed(elapsed).unwrap_or(DateTime::<Utc>::MAX_UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_jump_of_the_system_clock_is_ignored() {
        let started_at = DateTime::UNIX_EPOCH;
        let hour = Duration::from_secs(3600);
        let after = |time: TimeDelta| started_at + time;
        assert_eq!(limit_to_elapsed(after(TimeDelta::days(31)), started_at, hour), after(TimeDelta::hours(1)));
        assert_eq!(limit_to_elapsed(after(TimeDelta::minutes(59)), started_at, hour), after(TimeDelta::minutes(59)));
        assert_eq!(limit_to_elapsed(started_at, started_at, Duration::MAX), started_at);
    }
}
