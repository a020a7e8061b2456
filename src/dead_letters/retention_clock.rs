//! The time by which dead letters are old enough to be forgotten.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock that never runs ahead of the time that has passed since the start. If the system's clock jumps ahead for a minute,
/// the letters must still be there afterwards: what a view has forgotten it does not read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetentionClock {
    started: DateTime<Utc>,
    since: Instant,
}

impl RetentionClock {
    pub(super) fn start() -> Self {
        Self { started: Utc::now(), since: Instant::now() }
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        earlier(Utc::now(), self.started, self.since.elapsed())
    }
}

fn earlier(system: DateTime<Utc>, started: DateTime<Utc>, elapsed: Duration) -> DateTime<Utc> {
    let passed = TimeDelta::from_std(elapsed).unwrap_or(TimeDelta::MAX);
    system.min(started.checked_add_signed(passed).unwrap_or(DateTime::<Utc>::MAX_UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_ahead_makes_nothing_old() {
        let started = DateTime::UNIX_EPOCH;
        let hour = Duration::from_secs(3600);
        let after = |time: TimeDelta| started + time;
        assert_eq!(earlier(after(TimeDelta::days(31)), started, hour), after(TimeDelta::hours(1)));
        assert_eq!(earlier(after(TimeDelta::minutes(59)), started, hour), after(TimeDelta::minutes(59)));
        assert_eq!(earlier(started, started, Duration::MAX), started);
    }
}
