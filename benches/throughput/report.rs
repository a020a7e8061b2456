//! The results as Markdown tables and as JSON.

use std::time::Duration;

use comfy_table::Table;
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::Options;
use super::common::receiver::Transport;
use super::common::table::{Target, milliseconds, table, target_table, whole};
use super::results::{Reconnects, ResultRow, Results};
use super::workers::Worker;

/// The quantiles of delays to show.
const SHOWN_QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The columns with the throughput relative to another worker.
const COMPARED_WITH: [(&str, Worker); 3] =
    [("÷ reqwest", Worker::Bare), ("÷ same client", Worker::SameClient), ("÷ by hand", Worker::ByHand)];

/// The conditions of the run.
pub(crate) struct RunInfo<'a> {
    pub(crate) machine: String,
    pub(crate) rabbitmq: String,
    pub(crate) load_before: String,
    pub(crate) load_after: String,
    pub(crate) options: &'a Options,
}

impl RunInfo<'_> {
    fn sentences(&self) -> String {
        let Options { rounds, events, seconds, limit, .. } = self.options;
        format!(
            "{}, RabbitMQ {}. Broker, publisher, receiver and worker share these cores, so the ratios of one run count \
             and not the absolute figures. Load of the machine: {} before, {} after.\n\
             Rounds: {rounds}, in which the workers took turns. The figures are medians. \
             A backlog of {} events was processed for at most {limit} s. \
             Then delays were measured for {seconds} s at half of Waypost's speed, from when an event is due to be \
             published until the receiver has it. Publishing uses the same cores, so half load is more than half of \
             their capacity. In scenarios with hanging endpoints, all figures are those of the healthy endpoints. \
             The receiver is one thread: its column shows how much of a core it used.",
            self.machine,
            self.rabbitmq,
            self.load_before,
            self.load_after,
            HumanCount(*events),
        )
    }
}

/// Prints the results as tables.
pub(crate) fn print(figures: &Results, circumstances: &RunInfo<'_>) {
    println!("{}\n", circumstances.sentences());
    let patience = circumstances.options.patience();
    let mut titles = vec!["endpoints", "worker", "deliveries/s"];
    titles.extend(COMPARED_WITH.map(|(title, _)| title));
    titles.extend(["CPU s per 10,000", "peak memory", "receiver", "half load"]);
    titles.extend(SHOWN_QUANTILES.map(|(name, _)| name));
    let cells = |row: &ResultRow| {
        let mut cells = vec![row.scenario.name(), row.worker.name().to_owned(), whole(row.per_second())];
        cells.extend(COMPARED_WITH.map(|(_, worker)| {
            let other = figures.row(row.scenario, worker).filter(|_| row.worker != worker);
            other.map_or_else(String::new, |other| format!("{:.2}", row.relative_to(other)))
        }));
        cells.extend([
            format!("{:.2}", row.cpu_seconds()),
            format!("{:.0} MB", row.peak_memory() as f64 / 1e6),
            format!("{:.0} %", row.receiver_load() * 100.0),
        ]);
        // Without Waypost the half load is unknown.
        if !row.delays.is_empty() {
            cells.push(format!("{}/s", whole(row.half_load)));
            cells.extend(SHOWN_QUANTILES.map(|(_, part)| milliseconds(row.delay(part), patience)));
        }
        cells
    };
    let mut rows: Vec<Vec<String>> = figures.rows.iter().map(cells).collect();
    if let Some(retries) = &figures.retries
        && let Some(quiet) = figures.beside_retries()
    {
        let what = format!("{}, beside {} due retries", quiet.scenario.name(), HumanCount(retries.published));
        let mut cells = vec![what, Worker::Waypost.name().to_owned()];
        cells.extend(std::iter::repeat_n(String::new(), titles.len() - 3 - SHOWN_QUANTILES.len()));
        cells.push(format!("{}/s", whole(quiet.half_load)));
        cells.extend(SHOWN_QUANTILES.map(|(_, part)| milliseconds(retries.delay(part), patience)));
        rows.push(cells);
    }
    println!("{}\n", table(&titles, 2, rows));
    if let Some(retries) = &figures.retries {
        println!(
            "At least {} of the due retries were delivered during the measurement, and at least {} were still waiting \
             at the end.\n",
            HumanCount(retries.fewest_delivered()),
            HumanCount(u64::from(retries.fewest_left()))
        );
    }
    let duplicates: u64 = figures.rows.iter().map(ResultRow::duplicates).sum();
    if duplicates > 0 {
        println!("{} deliveries of the backlogs were duplicates.\n", HumanCount(duplicates));
    }
    if !figures.reconnects.is_empty() {
        println!("{}\n", reconnects(&figures.reconnects));
    }
    println!("{}", target_table(&figures.targets()));
}

/// The handshakes after all endpoints have closed their connections.
fn reconnects(all: &[Reconnects]) -> Table {
    let row = |reconnect: &Reconnects| {
        vec![
            reconnect.scenario.name(),
            reconnect.worker.name().to_owned(),
            whole(reconnect.per_second()),
            format!("{:.0} %", reconnect.resumed() * 100.0),
        ]
    };
    table(&["all connections closed", "worker", "handshakes/s", "resumed"], 2, all.iter().map(row))
}

/// The results as one JSON document.
pub(crate) fn json(figures: &Results, circumstances: &RunInfo<'_>) -> Value {
    let milliseconds = |delay: Option<Duration>| delay.map(|delay| delay.as_secs_f64() * 1e3);
    let row = |row: &ResultRow| {
        json!({
            "healthy": row.scenario.healthy, "hanging": row.scenario.hanging, "worker": row.worker.name(),
            "tls": row.scenario.transport == Transport::Tls, "receiverLoad": row.receiver_load(),
            "deliveriesPerSecond": row.per_second(),
            "toBareLoop": figures.row(row.scenario, Worker::Bare).map(|bare| row.relative_to(bare)),
            "toSameClient": figures.row(row.scenario, Worker::SameClient).map(|bare| row.relative_to(bare)),
            "toByHand": figures.row(row.scenario, Worker::ByHand).map(|bare| row.relative_to(bare)),
            "cpuSecondsPer10000": row.cpu_seconds(), "peakMemoryBytes": row.peak_memory(), "duplicates": row.duplicates(),
            "halfLoadPerSecond": row.half_load, "p50Ms": milliseconds(row.delay(0.5)),
            "p99Ms": milliseconds(row.delay(0.99)), "p999Ms": milliseconds(row.delay(0.999)),
            "rounds": row.worked.iter().map(|worked| worked.per_second).collect::<Vec<f64>>(),
        })
    };
    let reconnect = |reconnect: &Reconnects| json!({ "worker": reconnect.worker.name(), "handshakesPerSecond": reconnect.per_second(), "resumed": reconnect.resumed() });
    let retries = figures.retries.as_ref().map(|retries| {
        json!({ "published": retries.published, "fewestLeft": retries.fewest_left(), "fewestDelivered": retries.fewest_delivered(), "p50Ms": milliseconds(retries.delay(0.5)),
            "p99Ms": milliseconds(retries.delay(0.99)), "p999Ms": milliseconds(retries.delay(0.999)) })
    });
    json!({
        "machine": circumstances.machine, "rabbitmq": circumstances.rabbitmq,
        "load": [circumstances.load_before, circumstances.load_after],
        "rows": figures.rows.iter().map(row).collect::<Vec<Value>>(), "retries": retries,
        "reconnects": figures.reconnects.iter().map(reconnect).collect::<Vec<Value>>(),
        "targets": figures.targets().iter().map(Target::json).collect::<Vec<Value>>(),
    })
}
