//! The measurements of all rounds, and the conclusions.

use std::time::Duration;

use super::common::delays::{Delays, late_beside, median, median_delay};
use super::common::load::Scenario;
use super::common::receiver::Transport;
use super::common::table::{Bound, Target};
use super::measure::{PacedResult, ReconnectResult, WorkResult};
use super::workers::Worker;

/// The CPU time of a delivery to one endpoint.
const MAX_CPU_MICROS: f64 = 24.0;

/// The lowest throughput relative to other workers. The one relative to HTTP by hand is an aim.
fn speed_targets(transport: Transport) -> &'static [(Worker, f64)] {
    match transport {
        Transport::Plain => {
            &[(Worker::Bare, 1.0), (Worker::SameClient, 0.8), (Worker::ByHand, 0.6), (Worker::Node, 2.0)]
        }
        Transport::Tls => &[(Worker::SameClient, 0.8)],
    }
}

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

    /// The part of the time in which the receiver was busy, from 0 to 1.
    pub(crate) fn receiver_load(&self) -> f64 {
        median(self.worked.iter().map(|worked| worked.receiver_load))
    }

    /// The sum of all rounds.
    pub(crate) fn duplicates(&self) -> u64 {
        self.worked.iter().map(|worked| worked.duplicates).sum()
    }

    /// The delay at a quantile. `None` if too few events arrived.
    pub(crate) fn delay(&self, part: f64) -> Option<Duration> {
        median_delay(&self.delays, part)
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
        median_delay(&self.delays(), part)
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

/// The handshakes after all endpoints have closed their connections.
pub(crate) struct Reconnects {
    pub(crate) scenario: Scenario,
    pub(crate) worker: Worker,
    pub(crate) rounds: Vec<ReconnectResult>,
}

impl Reconnects {
    pub(crate) fn per_second(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.per_second))
    }

    /// The part of the handshakes that resumed a session, from 0 to 1.
    pub(crate) fn resumed(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.handshakes.resumed as f64 / round.handshakes.total() as f64))
    }
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<ResultRow>,
    pub(crate) retries: Option<Retries>,
    pub(crate) reconnects: Vec<Reconnects>,
}

impl Results {
    /// The row of a worker in a scenario, if both were run.
    pub(crate) fn row(&self, scenario: Scenario, worker: Worker) -> Option<&ResultRow> {
        self.rows.iter().find(|row| row.scenario == scenario && row.worker == worker)
    }

    /// The measurement without retries that the one beside retries is compared with.
    pub(crate) fn beside_retries(&self) -> Option<&ResultRow> {
        let is_quiet = |row: &&ResultRow| row.scenario.hanging == 0 && row.scenario.transport == Transport::Plain;
        self.rows.iter().filter(|row| row.worker == Worker::Waypost).rfind(is_quiet)
    }

    /// All targets that the scenarios of this run can show.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut add = |what: String, figure, bound| targets.push(Target { what, figure, bound });
        let waypost = || self.rows.iter().filter(|row| row.worker == Worker::Waypost);
        for row in waypost().filter(|row| row.scenario.hanging == 0) {
            let of = row.scenario.name();
            for (worker, least) in speed_targets(row.scenario.transport) {
                if let Some(other) = self.row(row.scenario, *worker) {
                    let what = format!("{of}: Waypost's deliveries/s ÷ {}", worker.name());
                    add(what, Some(row.relative_to(other)), Bound::AtLeast(*least));
                }
            }
            if row.scenario.healthy == 1 && row.scenario.transport == Transport::Plain {
                let what = format!("{of}: CPU of Waypost for a delivery, in µs");
                add(what, Some(row.cpu_seconds() * 1e6 / 10_000.0), Bound::AtMost(MAX_CPU_MICROS));
            }
            let Some(hanging) = waypost().find(|other| other.scenario.with_hanging_of(row.scenario)) else { continue };
            let what = format!("{of}: healthy deliveries/s with 10 % hanging ÷ without");
            add(what, Some(hanging.relative_to(row)), Bound::AtLeast(0.95));
            let what = format!("{of}: p99 of healthy ones with 10 % hanging ÷ without");
            add(what, late_beside(&hanging.delays, &row.delays, 0.99), Bound::AtMost(1.2));
        }
        if let Some(retries) = &self.retries
            && let Some(quiet) = self.beside_retries()
        {
            let what = format!("{}: p99 beside {} due retries ÷ without", quiet.scenario.name(), retries.published);
            add(what, late_beside(&retries.delays(), &quiet.delays, 0.99), Bound::AtMost(1.5));
        }
        for reconnect in self.reconnects.iter().filter(|reconnect| reconnect.worker == Worker::Waypost) {
            let what =
                format!("{}: resumed handshakes ÷ all, after all connections were closed", reconnect.scenario.name());
            add(what, Some(reconnect.resumed()), Bound::AtLeast(0.9));
        }
        if let Some(most) = waypost().map(ResultRow::peak_memory).max() {
            add("peak memory of Waypost, in MB".to_owned(), Some(most as f64 / 1e6), Bound::Below(150.0));
        }
        targets
    }
}
