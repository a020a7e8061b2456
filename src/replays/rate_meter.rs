//! How fast a replay goes at present: over its last seconds, not since its beginning.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Longer ago than this is not the present.
const WINDOW: Duration = Duration::from_secs(10);

/// What was sent when, oldest first.
#[derive(Debug, Default)]
pub struct RateMeter(VecDeque<(Instant, u64)>);

impl RateMeter {
    /// So many were sent by now.
    pub fn add(&mut self, now: Instant, sent: u64) {
        self.0.push_back((now, sent));
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// None before there is anything to compare.
    pub fn per_second(&self) -> Option<f64> {
        let ((begin, before), (end, now)) = (self.0.front()?, self.0.back()?);
        let seconds = end.saturating_duration_since(*begin).as_secs_f64();
        // As a float: nobody sees the difference.
        (seconds > 0.0).then(|| now.saturating_sub(*before) as f64 / seconds)
    }

    /// How long so many more take at this pace; none where they would take for ever.
    pub fn time_for(&self, letters: u64) -> Option<Duration> {
        // As floats: what is lost of a number this large is no second.
        let left = Duration::try_from_secs_f64((letters as f64 / self.per_second()?).ceil()).ok()?;
        Some(Duration::from_secs(left.as_secs()))
    }
}

/// A number as people read it: one place after the point where it is small.
pub fn decimal(number: f64) -> String {
    let places = usize::from(number < 10.0);
    let text = format!("{number:.places$}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let begin = Instant::now();
        let mut pace = RateMeter::default();
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

    #[test]
    fn the_rest_takes_as_long_as_it_takes_at_this_pace() {
        let begin = Instant::now();
        let mut pace = RateMeter::default();
        assert_eq!(pace.time_for(10), None);
        pace.add(begin, 0);
        pace.add(begin + Duration::from_secs(2), 40);
        assert_eq!(pace.time_for(880), Some(Duration::from_secs(44)));
        let mut stuck = RateMeter::default();
        stuck.add(begin, 7);
        stuck.add(begin + Duration::from_secs(2), 7);
        assert_eq!((stuck.per_second(), stuck.time_for(1)), (Some(0.0), None));
    }

    #[test]
    fn numbers() {
        let numbers = [0.0, 0.25, 1.0, 2.5, 2.96, 10.4].map(decimal);
        assert_eq!(numbers, ["0", "0.2", "1", "2.5", "3", "10"]);
    }
}
