//! The measurements of all rounds, and the conclusions.

use std::time::Duration;

use super::load::Scenario;
use super::measure::{Delays, PacedResult, WorkResult};
use super::workers::Worker;

/// The measurements of a worker in a scenario.
pub(crate) struct ResultRow {
    pub(crate) scenario: Scenario,
    pub(crate) worker: Worker,
    /// One for each round.
    pub(crate) worked: Vec<WorkResult>,
    /// One for each round, at half of Waypost's throughput.
    pub(crate) delays: Vec<Delays>,
    /// Events per second while the delays were measured.
    pub(crate) half_load: f64,
}

impl ResultRow {
    pub(crate) fn new(scenario: Scenario, worker: Worker) -> Self {
        Self { scenario, worker, worked: Vec::new(), delays: Vec::new(), half_load: 0.0 }
    }

    pub(crate) fn per_second(&self) -> f64 {
        median(self.worked.iter().map(|worked| worked.per_second))
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        median(self.worked.iter().map(|worked| worked.cpu_seconds))
    }

    /// The maximum of all rounds.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.worked.iter().map(|worked| worked.peak_memory).max().unwrap_or_default()
    }

    /// The sum of all rounds.
    pub(crate) fn duplicates(&self) -> u64 {
        self.worked.iter().map(|worked| worked.duplicates).sum()
    }

    /// The delay at a quantile. `None` if too few events arrived.
    pub(crate) fn delay(&self, part: f64) -> Option<Duration> {
        delay(&self.delays, part)
    }

    /// The throughput relative to another worker, as the median over the rounds.
    pub(crate) fn relative_to(&self, other: &Self) -> f64 {
        median(self.worked.iter().zip(&other.worked).map(|(own, other)| own.per_second / other.per_second))
    }
}

/// Fresh events during due retries.
pub(crate) struct Retries {
    pub(crate) published: u64,
    pub(crate) rounds: Vec<PacedResult>,
}

impl Retries {
    pub(crate) fn delay(&self, part: f64) -> Option<Duration> {
        delay(&self.delays(), part)
    }

    fn delays(&self) -> Vec<Delays> {
        self.rounds.iter().map(|round| round.delays.clone()).collect()
    }

    /// The lowest number that was still waiting at the end of a round.
    pub(crate) fn fewest_left(&self) -> u32 {
        self.rounds.iter().map(|round| round.retries_left).min().unwrap_or_default()
    }

    /// The lowest number that was delivered in a round.
    pub(crate) fn fewest_delivered(&self) -> u64 {
        self.rounds.iter().map(|round| round.retries_delivered).min().unwrap_or_default()
    }
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<ResultRow>,
    pub(crate) retries: Option<Retries>,
}

/// A performance target.
pub(crate) struct Target {
    pub(crate) what: String,
    /// `None` if too little was delivered to compute it.
    pub(crate) figure: Option<f64>,
    pub(crate) bound: Bound,
}

/// The bound of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    MegabytesBelow(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetResult {
    Pass,
    Miss,
}

impl Target {
    pub(crate) fn verdict(&self) -> TargetResult {
        let met = self.figure.is_some_and(|figure| match self.bound {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
            Bound::MegabytesBelow(limit) => figure < limit,
        });
        if met { TargetResult::Pass } else { TargetResult::Miss }
    }
}

impl Results {
    /// The row of a worker in a scenario, if both were run.
    pub(crate) fn row(&self, scenario: Scenario, worker: Worker) -> Option<&ResultRow> {
        self.rows.iter().find(|row| row.scenario == scenario && row.worker == worker)
    }

    /// All targets that the scenarios of this run can show.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut add = |what: String, figure, bound| targets.push(Target { what, figure, bound });
        let waypost = || self.rows.iter().filter(|row| row.worker == Worker::Waypost);
        for row in waypost().filter(|row| row.scenario.hanging == 0) {
            let of = row.scenario.name();
            if let Some(bare) = self.row(row.scenario, Worker::Bare) {
                let what = format!("{of}: Waypost's deliveries/s ÷ the bare loop's");
                add(what, Some(row.relative_to(bare)), Bound::AtLeast(0.9));
            }
            let Some(hanging) = waypost().find(|other| other.scenario.with_hanging_of(row.scenario)) else { continue };
            let what = format!("{of}: healthy deliveries/s with 10 % hanging ÷ without");
            add(what, Some(hanging.relative_to(row)), Bound::AtLeast(0.9));
            let what = format!("{of}: p99 of healthy ones with 10 % hanging ÷ without");
            add(what, late_beside(&hanging.delays, &row.delays, 0.99), Bound::AtMost(1.2));
        }
        if let Some(retries) = &self.retries
            && let Some(quiet) = waypost().rfind(|row| row.scenario.hanging == 0)
        {
            let what = format!("{}: p99 beside {} due retries ÷ without", quiet.scenario.name(), retries.published);
            add(what, late_beside(&retries.delays(), &quiet.delays, 0.99), Bound::AtMost(1.5));
        }
        if let Some(most) = waypost().map(ResultRow::peak_memory).max() {
            add("peak memory of Waypost, in MB".to_owned(), Some(most as f64 / 1e6), Bound::MegabytesBelow(150.0));
        }
        targets
    }
}

/// The delay relative to others, as the median over the rounds. `None` if too few events arrived.
fn late_beside(one: &[Delays], other: &[Delays], part: f64) -> Option<f64> {
    let seconds = |round: &Delays| round.part(part).map_or(f64::INFINITY, |delay| delay.as_secs_f64());
    let quotients = one.iter().zip(other).map(|(one, other)| seconds(one) / seconds(other));
    Some(median(quotients)).filter(|quotient| quotient.is_finite())
}

/// The median over the rounds. A round with too few events counts as the longest.
fn delay(rounds: &[Delays], part: f64) -> Option<Duration> {
    let mut delays: Vec<Option<Duration>> = rounds.iter().map(|round| round.part(part)).collect();
    delays.sort_by_key(|delay| delay.unwrap_or(Duration::MAX));
    delays.get(delays.len() / 2).copied().flatten()
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    match (figures.len(), figures.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 0 => (figures[middle - 1] + figures[middle]) / 2.0,
        (_, middle) => figures[middle],
    }
}
