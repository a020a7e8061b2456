//! Measures the current rate of a replay, over its last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// Samples of the total number of letters sent, oldest first.
#[derive(Debug, Default)]
pub struct RateMeter(VecDeque<(Instant, u64)>);

impl RateMeter {
    /// Adds a sample: `sent` is the total so far.
    pub fn add(&mut self, now: Instant, sent: u64) {
        self.0.push_back((now, sent));
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// `None` before there are two samples.
    pub fn per_second(&self) -> Option<f64> {
        let ((start, sent_before), (end, sent)) = (self.0.front()?, self.0.back()?);
        let seconds = end.saturating_duration_since(*start).as_secs_f64();
        (seconds > 0.0).then(|| sent.saturating_sub(*sent_before) as f64 / seconds)
    }

    /// The time to send `letters` more at the current rate, in whole seconds. `None` if the rate is unknown or 0.
    pub fn time_for(&self, letters: u64) -> Option<Duration> {
        let time = Duration::try_from_secs_f64((letters as f64 / self.per_second()?).ceil()).ok()?;
        Some(Duration::from_secs(time.as_secs()))
    }
}

/// Formats a number for people: one decimal place if the number is below 10.
pub fn decimal(number: f64) -> String {
    let decimals = usize::from(number < 10.0);
    let text = format!("{number:.decimals$}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_measured_over_the_last_seconds() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        assert_eq!(meter.per_second(), None);
        meter.add(start, 0);
        assert_eq!(meter.per_second(), None);
        meter.add(start + Duration::from_secs(2), 200);
        assert_eq!(meter.per_second(), Some(100.0));
        for second in 3..=30 {
            meter.add(start + Duration::from_secs(second), 200 + second);
        }
        assert_eq!(meter.per_second(), Some(1.0));
        assert!(meter.0.len() <= 12, "{}", meter.0.len());
    }

    #[test]
    fn the_remaining_time_follows_from_the_current_rate() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        assert_eq!(meter.time_for(10), None);
        meter.add(start, 0);
        meter.add(start + Duration::from_secs(2), 40);
        assert_eq!(meter.time_for(880), Some(Duration::from_secs(44)));
        let mut stuck = RateMeter::default();
        stuck.add(start, 7);
        stuck.add(start + Duration::from_secs(2), 7);
        assert_eq!((stuck.per_second(), stuck.time_for(1)), (Some(0.0), None));
    }

    #[test]
    fn small_numbers_have_one_decimal_place() {
        let numbers = [0.0, 0.25, 1.0, 2.5, 2.96, 10.4].map(decimal);
        assert_eq!(numbers, ["0", "0.2", "1", "2.5", "3", "10"]);
    }
}
