//! Recent samples of the counters, from which the console shows rates. The counters are read once a second and kept for
//! five minutes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::Metrics;
use super::snapshot::Counts;

pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Older samples are dropped.
pub const HISTORY_LENGTH: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq)]
pub struct CountsSample {
    /// Time since the history was created.
    pub at: Duration,
    pub counts: Arc<Counts>,
}

/// The recent samples. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<HistoryState>);

struct HistoryState {
    /// Oldest first.
    samples: RwLock<VecDeque<CountsSample>>,
    started: Instant,
    /// Notified of each new sample.
    sample_added: watch::Sender<()>,
}

impl Default for History {
    fn default() -> Self {
        Self(Arc::new(HistoryState {
            samples: RwLock::default(),
            started: Instant::now(),
            sample_added: watch::Sender::new(()),
        }))
    }
}

impl History {
    /// Takes a sample every [`SAMPLE_INTERVAL`] for as long as the future is polled.
    pub async fn record(&self, metrics: &Metrics) -> Infallible {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        // Each sample has its time, so missed ticks need not be made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.add(CountsSample { at: self.0.started.elapsed(), counts: Arc::new(metrics.counts()) });
        }
    }

    fn add(&self, sample: CountsSample) {
        let mut samples = self.0.samples.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = sample.at.saturating_sub(HISTORY_LENGTH);
        while samples.front().is_some_and(|first| first.at < oldest) {
            samples.pop_front();
        }
        samples.push_back(sample);
        drop(samples);
        self.0.sample_added.send_replace(());
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> Vec<CountsSample> {
        self.0.samples.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub fn age(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Changes with each new sample.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.sample_added.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_five_minutes_are_kept_and_announced() {
        let history = History::default();
        let updates = history.subscribe();
        for second in 0..1_000 {
            history.add(CountsSample { at: SAMPLE_INTERVAL * second, counts: Arc::default() });
        }
        assert!(updates.has_changed().expect("a history"));
        let samples = history.samples();
        assert_eq!(samples.len(), 301, "both ends are kept");
        assert_eq!((samples[0].at, samples[300].at), (SAMPLE_INTERVAL * 699, SAMPLE_INTERVAL * 999));
    }
}
