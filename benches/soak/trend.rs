//! Samples of a worker and its broker over time, and how fast each quantity grows.

use std::time::Duration;

const MEGABYTE: f64 = 1e6;

/// A segment of the dead-letter stream. RabbitMQ deletes whole segments.
const SEGMENT_BYTES: f64 = 50.0 * MEGABYTE;

/// The state of the worker at a time since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) memory: u64,
    pub(crate) open_files: u64,
    pub(crate) threads: u64,
    pub(crate) in_hand: u64,
    pub(crate) store: u64,
    pub(crate) dead_letters: u64,
    /// It is not trimmed, so it grows with each edit.
    pub(crate) campaigns: u64,
    /// Edits of campaigns so far.
    pub(crate) edits: u64,
}

/// A quantity that must not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Memory,
    OpenFiles,
    Threads,
    InHand,
    Store,
    DeadLetters,
}

impl Quantity {
    pub(crate) const ALL: [Self; 6] =
        [Self::Memory, Self::OpenFiles, Self::Threads, Self::InHand, Self::Store, Self::DeadLetters];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "resident memory, MB",
            Self::OpenFiles => "open files",
            Self::Threads => "threads",
            Self::InHand => "deliveries in hand",
            Self::Store => "store, MB",
            Self::DeadLetters => "dead-letter stream, MB",
        }
    }

    /// In the unit of the name.
    pub(crate) fn value(self, sample: &Sample) -> f64 {
        match self {
            Self::Memory => sample.memory as f64 / MEGABYTE,
            Self::OpenFiles => sample.open_files as f64,
            Self::Threads => sample.threads as f64,
            Self::InHand => sample.in_hand as f64,
            Self::Store => sample.store as f64 / MEGABYTE,
            Self::DeadLetters => sample.dead_letters as f64 / MEGABYTE,
        }
    }

    /// The largest growth over the measured time that counts as flat, in the unit of the name.
    fn tolerance(self, mean: f64) -> f64 {
        match self {
            Self::Memory => (mean * 0.15).max(25.0),
            // An endpoint that comes back gets 64 connections, which stay open for half a minute.
            Self::OpenFiles => (mean * 0.5).max(600.0),
            Self::Threads => 2.0,
            Self::InHand => (mean * 0.5).max(200.0),
            // Both follow the segments, which come and go as a whole.
            Self::Store | Self::DeadLetters => SEGMENT_BYTES * 1.2 / MEGABYTE,
        }
    }
}

/// A straight line through samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trend {
    pub(crate) mean: f64,
    pub(crate) per_hour: f64,
    /// Over the time of the samples.
    pub(crate) growth: f64,
    pub(crate) tolerance: f64,
}

/// The trend of a quantity by least squares. `None` with fewer than two samples.
pub(crate) fn trend(quantity: Quantity, samples: &[Sample]) -> Option<Trend> {
    let (first, last) = (samples.first()?, samples.last()?);
    let hours = |sample: &Sample| sample.at.as_secs_f64() / 3600.0;
    let count = samples.len() as f64;
    let mean_hours = samples.iter().map(hours).sum::<f64>() / count;
    let mean = samples.iter().map(|sample| quantity.value(sample)).sum::<f64>() / count;
    let deviation = |sample: &Sample| hours(sample) - mean_hours;
    let covariance: f64 = samples.iter().map(|sample| deviation(sample) * (quantity.value(sample) - mean)).sum();
    let variance: f64 = samples.iter().map(|sample| deviation(sample).powi(2)).sum();
    let per_hour = (variance > 0.0).then(|| covariance / variance)?;
    let growth = per_hour * (hours(last) - hours(first));
    Some(Trend { mean, per_hour, growth, tolerance: quantity.tolerance(mean) })
}
