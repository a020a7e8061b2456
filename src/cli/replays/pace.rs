//! How fast a replay goes at present: over its last seconds, not since its beginning.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longer ago than this is not the present.
const WINDOW: Duration = Duration::from_secs(10);

/// What was sent when, oldest first.
#[derive(Default)]
pub(super) struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    pub(super) fn add(&mut self, now: Instant, sent: u64) {
        self.0.push_back((now, sent));
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// None before there is anything to compare.
    pub(super) fn per_second(&self) -> Option<f64> {
        let ((begin, before), (end, now)) = (self.0.front()?, self.0.back()?);
        let seconds = end.saturating_duration_since(*begin).as_secs_f64();
        // As a float: nobody sees the difference.
        (seconds > 0.0).then(|| now.saturating_sub(*before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(), None);
        pace.add(begin, 0);
        assert_eq!(pace.per_second(), None);
        pace.add(begin + Duration::from_secs(2), 200);
        assert_eq!(pace.per_second(), Some(100.0));
        for second in 3..=30 {
            pace.add(begin + Duration::from_secs(second), 200 + second);
        }
        assert_eq!(pace.per_second(), Some(1.0));
        assert!(pace.0.len() <= 12, "{}", pace.0.len());
    }
}
