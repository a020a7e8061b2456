//! Counts, rates and percentiles between two samples of the counters.

use std::sync::Arc;
use std::time::Duration;

use waypost_core::outcome::Cause;
use waypost_engine::metrics::history::CountsSample;
use waypost_engine::metrics::snapshot::{Counts, HistogramSnapshot, Quantile};

pub(super) struct StatsWindow {
    from: Arc<Counts>,
    to: Arc<Counts>,
    seconds: f64,
}

impl StatsWindow {
    /// The last `duration`, or as much of it as there are samples. `None` with fewer than two samples.
    pub(super) fn last(samples: &[CountsSample], duration: Duration) -> Option<Self> {
        let last = samples.last()?;
        Self::between(samples, last.at.saturating_sub(duration), last.at)
    }

    /// Between two times, as far as there are samples. `None` if there is no sample in between.
    pub(super) fn between(samples: &[CountsSample], from: Duration, to: Duration) -> Option<Self> {
        let at = |time: Duration| samples.partition_point(|sample| sample.at <= time).checked_sub(1);
        let (begin, end) = (at(from).unwrap_or_default(), at(to)?);
        (end > begin).then(|| Self {
            from: samples[begin].counts.clone(),
            to: samples[end].counts.clone(),
            seconds: (samples[end].at - samples[begin].at).as_secs_f64(),
        })
    }

    /// The increase of a counter.
    pub(super) fn count(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        of(&self.to).saturating_sub(of(&self.from))
    }

    /// The increase of a counter per second.
    pub(super) fn rate(&self, of: impl Fn(&Counts) -> u64) -> f64 {
        self.count(of) as f64 / self.seconds
    }

    /// The increase of a histogram.
    pub(super) fn values(&self, of: impl Fn(&Counts) -> &HistogramSnapshot) -> HistogramSnapshot {
        of(&self.to).since(of(&self.from))
    }

    /// Causes of failed requests, most frequent first.
    pub(super) fn causes(&self) -> Vec<(Cause, u64)> {
        let failures = Cause::ALL.into_iter().filter(|cause| *cause != Cause::Ok);
        let counted = failures.map(|cause| (cause, self.count(|counts| counts.attempts[cause as usize])));
        let mut causes: Vec<(Cause, u64)> = counted.filter(|(_, count)| *count > 0).collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        causes
    }
}

pub(super) struct Percentiles {
    pub(super) p50: Quantile,
    pub(super) p95: Quantile,
    pub(super) p99: Quantile,
}

impl Percentiles {
    /// `None` if the histogram is empty.
    pub(super) fn from_histogram(values: &HistogramSnapshot) -> Option<Self> {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| values.quantile(share));
        Some(Self { p50: p50?, p95: p95?, p99: p99? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Samples from tuples of the second and the total delivered and failed requests.
    pub(in crate::console::overview) fn samples(counts: &[(u64, u64, u64)]) -> Vec<CountsSample> {
        let sample = |(second, delivered, failed): &(u64, u64, u64)| {
            let mut counts = Counts::default();
            counts.attempts[Cause::Ok as usize] = *delivered;
            counts.attempts[Cause::Timeout as usize] = *failed;
            CountsSample { at: Duration::from_secs(*second), counts: Arc::new(counts) }
        };
        counts.iter().map(sample).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let samples = samples(&[(0, 0, 0), (10, 50, 1), (12, 90, 1), (20, 90, 7)]);
        let last = |duration| StatsWindow::last(&samples, seconds(duration)).expect("a window");
        assert_eq!((last(8).count(Counts::delivered), last(8).rate(Counts::failed)), (0, 0.75));
        // Between two samples the older one counts, and the time since then.
        assert_eq!(last(9).rate(Counts::delivered), 4.0);
        assert_eq!(last(3_600).rate(Counts::delivered), 4.5, "as far as there are samples");
        let early = StatsWindow::between(&samples, seconds(0), seconds(11)).expect("a window");
        assert_eq!(early.rate(Counts::delivered), 5.0);
    }

    #[test]
    fn there_is_no_window_without_samples() {
        let none = |samples: &[CountsSample]| StatsWindow::last(samples, seconds(60)).is_none();
        assert!(none(&[]) && none(&samples(&[(0, 0, 0)])));
        let late = samples(&[(100, 1, 1), (101, 2, 2)]);
        assert!(StatsWindow::between(&late, seconds(0), seconds(99)).is_none(), "before the first sample");
        assert!(StatsWindow::between(&late, seconds(101), seconds(110)).is_none(), "after the last");
        assert!(Percentiles::from_histogram(&HistogramSnapshot::default()).is_none());
    }

    #[test]
    fn causes_are_sorted_by_frequency() {
        let mut samples = samples(&[(0, 0, 5), (1, 9, 8)]);
        let mut counts = Counts::clone(&samples[1].counts);
        counts.attempts[Cause::Dns as usize] = 70;
        samples[1].counts = Arc::new(counts);
        let window = StatsWindow::last(&samples, seconds(60)).expect("a window");
        assert_eq!(window.causes(), [(Cause::Dns, 70), (Cause::Timeout, 3)]);
    }
}
