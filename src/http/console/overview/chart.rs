//! A chart of the last minutes: a bar for each five seconds, and the same in words.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::format;
use super::window_stats::StatsWindow;
use crate::metrics::history::{KEPT, Sample};
use crate::metrics::snapshot::Counts;

/// The time of one bar.
const STEP: Duration = Duration::from_secs(5);

/// How many bars there are.
const BARS: u32 = (KEPT.as_secs() / STEP.as_secs()) as u32;

/// The height of the picture, in its own units; a bar is five wide with its gap.
const HEIGHT: f64 = 100.0;

/// What is not nothing can be seen.
const LEAST: f64 = 3.0;

/// A chart as it is drawn.
pub(super) struct Chart {
    /// What is counted, a second.
    pub(super) title: &'static str,
    /// Which pattern its bars have.
    pub(super) kind: &'static str,
    /// The outlines of all bars.
    pub(super) bars: String,
    /// The rate at the upper edge.
    pub(super) top: String,
    /// The chart in words.
    pub(super) words: String,
}

impl Chart {
    /// The width of the picture, in its own units.
    pub(super) fn width(&self) -> u32 {
        BARS * 5
    }

    /// The chart of a counter.
    pub(super) fn new(title: &'static str, kind: &'static str, samples: &[Sample], of: fn(&Counts) -> u64) -> Self {
        let rates = rates(samples, of);
        let greatest = rates.iter().flatten().copied().fold(0.0, f64::max);
        let top = rounded_up(greatest);
        let mut bars = String::new();
        for (index, rate) in rates.iter().enumerate() {
            let Some(rate) = rate.filter(|rate| *rate > 0.0) else { continue };
            let height = (rate / top * HEIGHT).max(LEAST);
            // Writing to a string can't fail.
            let _ = write!(bars, "M{} {HEIGHT}v-{height:.1}h4v{height:.1}z", index * 5);
        }
        Self { title, kind, bars, top: format::rate(top), words: words(title, &rates, greatest) }
    }
}

fn words(title: &str, rates: &[Option<f64>], greatest: f64) -> String {
    let known: Vec<f64> = rates.iter().flatten().copied().collect();
    let Some(now) = known.last() else { return format!("{title}: nothing measured yet") };
    let average = known.iter().sum::<f64>() / known.len() as f64;
    format!(
        "{title} in the last five minutes: at most {}, on average {}, now {}",
        format::rate(greatest),
        format::rate(average),
        format::rate(*now)
    )
}

/// The rate of each step, the last one under way; none where nothing was measured. Steps begin at multiples of their length,
/// so that a bar stays what it is.
fn rates(samples: &[Sample], of: fn(&Counts) -> u64) -> Vec<Option<f64>> {
    let Some(last) = samples.last() else { return vec![None; BARS as usize] };
    let current = u32::try_from(last.at.as_secs() / STEP.as_secs()).unwrap_or_default();
    let rate = |back: u32| {
        let step = current.checked_sub(back)?;
        let span = StatsWindow::between(samples, STEP * step, STEP * (step + 1))?;
        Some(span.rate(of))
    };
    (0..BARS).rev().map(rate).collect()
}

/// The next of 1, 2, 5, 10, 20, 50 …
fn rounded_up(rate: f64) -> f64 {
    let steps = (0..).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
    steps.take(40).find(|step| *step >= rate).unwrap_or(rate)
}

#[cfg(test)]
mod tests {
    use super::super::window_stats::tests::samples;
    use super::*;

    #[test]
    fn a_bar_for_each_five_seconds() {
        let samples = samples(&[(0, 0, 0), (5, 50, 0), (10, 50, 0), (15, 51, 0), (17, 55, 0)]);
        let rates = rates(&samples, Counts::delivered);
        assert_eq!(rates.len(), 60);
        assert_eq!(rates[55..], [None, Some(10.0), Some(0.0), Some(0.2), Some(2.0)].map(|rate| rate));
        let chart = Chart::new("Delivered a second", "solid", &samples, Counts::delivered);
        assert_eq!((chart.top.as_str(), chart.width()), ("10", 300));
        assert_eq!(chart.bars, "M280 100v-100.0h4v100.0zM290 100v-3.0h4v3.0zM295 100v-20.0h4v20.0z");
        assert_eq!(chart.words, "Delivered a second in the last five minutes: at most 10, on average 3.0, now 2.0");
    }

    #[test]
    fn nothing_is_drawn_where_nothing_is() {
        let empty = Chart::new("Failed a second", "hatched", &[], Counts::failed);
        assert_eq!((empty.bars.as_str(), empty.top.as_str()), ("", "1.0"));
        assert_eq!(empty.words, "Failed a second: nothing measured yet");
        let quiet = Chart::new("Failed a second", "hatched", &samples(&[(0, 1, 0), (9, 9, 0)]), Counts::failed);
        assert_eq!(quiet.bars, "");
    }

    #[test]
    fn the_upper_edge_is_a_round_number() {
        let edges = [0.0, 0.3, 1.0, 1.1, 4.0, 5.1, 99.0, 100.1, 4_000.0].map(rounded_up);
        assert_eq!(edges, [1.0, 1.0, 1.0, 2.0, 5.0, 10.0, 100.0, 200.0, 5_000.0]);
    }
}
