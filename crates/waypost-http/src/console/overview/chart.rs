//! A bar chart of the last minutes with one bar for five seconds, and a text alternative.

use std::fmt::Write as _;
use std::time::Duration;

use waypost_engine::metrics::history::{CountsSample, HISTORY_LENGTH};
use waypost_engine::metrics::snapshot::Counts;

use super::window_stats::StatsWindow;
use crate::console::format;

const BAR_DURATION: Duration = Duration::from_secs(5);

const BAR_COUNT: u32 = (HISTORY_LENGTH.as_secs() / BAR_DURATION.as_secs()) as u32;

/// Units of the drawing.
const HEIGHT: f64 = 100.0;

/// Width of a bar including the gap, in units of the drawing.
const BAR_WIDTH: u32 = 5;

/// Smallest height of a bar with a rate above 0, so that it is visible.
const MIN_BAR_HEIGHT: f64 = 3.0;

pub(super) struct Chart {
    /// What the rate counts, for example `Delivered per second`.
    pub(super) title: &'static str,
    /// Fill pattern of the bars, part of CSS classes.
    pub(super) pattern: &'static str,
    /// SVG path of all bars.
    pub(super) bars: String,
    /// Rate at the upper edge of the chart.
    pub(super) top: String,
    /// Text alternative.
    pub(super) description: String,
}

impl Chart {
    /// In units of the drawing.
    pub(super) fn width(&self) -> u32 {
        BAR_COUNT * BAR_WIDTH
    }

    pub(super) fn new(
        title: &'static str,
        pattern: &'static str,
        samples: &[CountsSample],
        of: fn(&Counts) -> u64,
    ) -> Self {
        let rates = rates(samples, of);
        let maximum = rates.iter().flatten().copied().fold(0.0, f64::max);
        let top = round_up(maximum);
        let mut bars = String::new();
        for (index, rate) in rates.iter().enumerate() {
            let Some(rate) = rate.filter(|rate| *rate > 0.0) else { continue };
            let height = (rate / top * HEIGHT).max(MIN_BAR_HEIGHT);
            // Writing to a string can't fail.
            let _ = write!(bars, "M{} {HEIGHT}v-{height:.1}h4v{height:.1}z", index * BAR_WIDTH as usize);
        }
        Self { title, pattern, bars, top: format::rate(top), description: describe(title, &rates, maximum) }
    }
}

fn describe(title: &str, rates: &[Option<f64>], maximum: f64) -> String {
    let known: Vec<f64> = rates.iter().flatten().copied().collect();
    let Some(now) = known.last() else { return format!("{title}: nothing measured yet") };
    let average = known.iter().sum::<f64>() / known.len() as f64;
    format!(
        "{title} in the last five minutes: at most {}, on average {}, now {}",
        format::rate(maximum),
        format::rate(average),
        format::rate(*now)
    )
}

/// The rate of each bar, `None` without samples. The last bar is still in progress. Bars start at multiples of their
/// duration, so that a finished bar does not change.
fn rates(samples: &[CountsSample], of: fn(&Counts) -> u64) -> Vec<Option<f64>> {
    let Some(last) = samples.last() else { return vec![None; BAR_COUNT as usize] };
    let current = u32::try_from(last.at.as_secs() / BAR_DURATION.as_secs()).unwrap_or_default();
    let rate = |steps_ago: u32| {
        let step = current.checked_sub(steps_ago)?;
        let window = StatsWindow::between(samples, BAR_DURATION * step, BAR_DURATION * (step + 1))?;
        Some(window.rate(of))
    };
    (0..BAR_COUNT).rev().map(rate).collect()
}

/// The next of 1, 2, 5, 10, 20, 50 …
fn round_up(rate: f64) -> f64 {
    let steps = (0..).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
    steps.take(40).find(|step| *step >= rate).unwrap_or(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::overview::window_stats::tests::samples;

    #[test]
    fn each_bar_covers_five_seconds() {
        let samples = samples(&[(0, 0, 0), (5, 50, 0), (10, 50, 0), (15, 51, 0), (17, 55, 0)]);
        let rates = rates(&samples, Counts::delivered);
        assert_eq!(rates.len(), 60);
        assert_eq!(rates[55..], [None, Some(10.0), Some(0.0), Some(0.2), Some(2.0)].map(|rate| rate));
        let chart = Chart::new("Delivered per second", "solid", &samples, Counts::delivered);
        assert_eq!((chart.top.as_str(), chart.width()), ("10", 300));
        assert_eq!(chart.bars, "M280 100v-100.0h4v100.0zM290 100v-3.0h4v3.0zM295 100v-20.0h4v20.0z");
        assert_eq!(
            chart.description,
            "Delivered per second in the last five minutes: at most 10, on average 3.0, now 2.0"
        );
    }

    #[test]
    fn a_chart_without_counts_has_no_bars() {
        let empty = Chart::new("Failed per second", "hatched", &[], Counts::failed);
        assert_eq!((empty.bars.as_str(), empty.top.as_str()), ("", "1.0"));
        assert_eq!(empty.description, "Failed per second: nothing measured yet");
        let quiet = Chart::new("Failed per second", "hatched", &samples(&[(0, 1, 0), (9, 9, 0)]), Counts::failed);
        assert_eq!(quiet.bars, "");
    }

    #[test]
    fn the_upper_edge_is_a_round_number() {
        let edges = [0.0, 0.3, 1.0, 1.1, 4.0, 5.1, 99.0, 100.1, 4_000.0].map(round_up);
        assert_eq!(edges, [1.0, 1.0, 1.0, 2.0, 5.0, 10.0, 100.0, 200.0, 5_000.0]);
    }
}
