//! The delays of events.

use std::time::Duration;

/// The delays from when an event was due to be published until a healthy endpoint received it.
#[derive(Debug, Clone)]
pub(crate) struct Delays {
    /// In microseconds, in ascending order.
    received: Vec<u32>,
    /// The number of events for healthy endpoints.
    wanted: u64,
}

impl Delays {
    /// `received` is in microseconds, in any order.
    pub(crate) fn new(mut received: Vec<u32>, wanted: u64) -> Self {
        received.sort_unstable();
        Self { received, wanted }
    }

    /// The delay at a quantile. `None` if too few events arrived.
    pub(crate) fn part(&self, part: f64) -> Option<Duration> {
        let place = (self.wanted as f64 * part).ceil() as usize;
        let micros = self.received.get(place.saturating_sub(1))?;
        Some(Duration::from_micros(u64::from(*micros)))
    }
}

/// The delay relative to others, as the median over the rounds. `None` if too few events arrived.
pub(crate) fn late_beside(one: &[Delays], other: &[Delays], part: f64) -> Option<f64> {
    let seconds = |round: &Delays| round.part(part).map_or(f64::INFINITY, |delay| delay.as_secs_f64());
    let quotients = one.iter().zip(other).map(|(one, other)| seconds(one) / seconds(other));
    Some(median(quotients)).filter(|quotient| quotient.is_finite())
}

/// The median over the rounds. A round with too few events counts as the longest.
pub(crate) fn median_delay(rounds: &[Delays], part: f64) -> Option<Duration> {
    let mut delays: Vec<Option<Duration>> = rounds.iter().map(|round| round.part(part)).collect();
    delays.sort_by_key(|delay| delay.unwrap_or(Duration::MAX));
    delays.get(delays.len() / 2).copied().flatten()
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    match (figures.len(), figures.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 0 => (figures[middle - 1] + figures[middle]) / 2.0,
        (_, middle) => figures[middle],
    }
}
