//! What was counted of late: the counters are read once a second and kept for five minutes, so that rates are there at
//! once when somebody looks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::Metrics;
use super::snapshot::Counts;

/// How often the counters are read.
pub const STEP: Duration = Duration::from_secs(1);

/// How long what was read is kept.
pub const KEPT: Duration = Duration::from_secs(300);

/// The counters as they were at a time, which is since the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Duration,
    /// The counters.
    pub counts: Arc<Counts>,
}

/// The samples of late, the oldest first. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Kept>);

struct Kept {
    samples: RwLock<VecDeque<Sample>>,
    started: Instant,
    /// Told of each new sample.
    taken: watch::Sender<()>,
}

impl Default for History {
    fn default() -> Self {
        Self(Arc::new(Kept { samples: RwLock::default(), started: Instant::now(), taken: watch::Sender::new(()) }))
    }
}

impl History {
    /// Reads the counters over and over, for as long as this is polled.
    pub async fn keep(&self, metrics: &Metrics) -> Infallible {
        let mut ticks = tokio::time::interval(STEP);
        // Nothing is to be made up for: the times are kept with the samples.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.add(Sample { at: self.0.started.elapsed(), counts: Arc::new(metrics.counts()) });
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.samples.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = sample.at.saturating_sub(KEPT);
        while samples.front().is_some_and(|first| first.at < oldest) {
            samples.pop_front();
        }
        samples.push_back(sample);
        drop(samples);
        self.0.taken.send_replace(());
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.0.samples.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// For how long there has been something to count.
    pub fn age(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Tells of each new sample.
    pub fn news(&self) -> watch::Receiver<()> {
        self.0.taken.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_five_minutes_and_tells_of_each_sample() {
        let history = History::default();
        let news = history.news();
        for second in 0..1_000 {
            history.add(Sample { at: STEP * second, counts: Arc::default() });
        }
        assert!(news.has_changed().expect("a history"));
        let samples = history.samples();
        assert_eq!(samples.len(), 301, "both ends are there");
        assert_eq!((samples[0].at, samples[300].at), (STEP * 699, STEP * 999));
    }
}
