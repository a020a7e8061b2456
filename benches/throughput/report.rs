//! The results as Markdown tables and as JSON.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::Options;
use super::results::{Bound, ResultRow, Results, Target, TargetResult};
use super::workers::Worker;

/// The quantiles of delays to show.
const SHOWN_QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

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
            "{}, RabbitMQ {}. The broker, the publisher, the receiver and the worker share these cores; so the ratios of \
             one run count, not the absolute figures. Load of the machine: {} before, {} after.\n\
             Medians over the rounds (there were {rounds}), in which the workers took turns. A backlog of {} events, worked off for at most \
             {limit} s; then {seconds} s at half of Waypost's speed, from when an event is due to be published until the \
             receiver has it; publishing then takes its part of the cores, which is why half load is more than half of \
             what they can do. Where there are hanging endpoints, all figures are those of the healthy ones.",
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
    let mut titles = vec!["endpoints", "worker", "deliveries/s", "÷ bare loop", "CPU s per 10,000", "peak memory"];
    titles.push("half load");
    titles.extend(SHOWN_QUANTILES.map(|(name, _)| name));
    let cells = |row: &ResultRow| {
        let bare = figures.row(row.scenario, Worker::Bare).filter(|_| row.worker != Worker::Bare);
        let mut cells = vec![
            row.scenario.name(),
            row.worker.name().to_owned(),
            whole(row.per_second()),
            bare.map_or_else(String::new, |bare| format!("{:.2}", row.relative_to(bare))),
            format!("{:.2}", row.cpu_seconds()),
            format!("{:.0} MB", row.peak_memory() as f64 / 1e6),
        ];
        // Without Waypost the half load is unknown.
        if !row.delays.is_empty() {
            cells.push(format!("{}/s", whole(row.half_load)));
            cells.extend(SHOWN_QUANTILES.map(|(_, part)| milliseconds(row.delay(part), patience)));
        }
        cells
    };
    let mut rows: Vec<Vec<String>> = figures.rows.iter().map(cells).collect();
    if let Some(retries) = &figures.retries
        && let Some(quiet) = figures.rows.iter().rfind(|row| row.worker == Worker::Waypost && row.scenario.hanging == 0)
    {
        let what = format!("{}, beside {} due retries", quiet.scenario.name(), HumanCount(retries.published));
        let mut cells = vec![what, Worker::Waypost.name().to_owned()];
        cells.extend(std::iter::repeat_n(String::new(), 4));
        cells.push(format!("{}/s", whole(quiet.half_load)));
        cells.extend(SHOWN_QUANTILES.map(|(_, part)| milliseconds(retries.delay(part), patience)));
        rows.push(cells);
    }
    println!("{}\n", table(&titles, 2, rows));
    if let Some(retries) = &figures.retries {
        println!(
            "Of the due retries at least {} were delivered meanwhile, and at least {} still waited at the end.\n",
            HumanCount(retries.fewest_delivered()),
            HumanCount(u64::from(retries.fewest_left()))
        );
    }
    let duplicates: u64 = figures.rows.iter().map(ResultRow::duplicates).sum();
    if duplicates > 0 {
        println!("{} deliveries of the backlogs were duplicates.\n", HumanCount(duplicates));
    }
    let targets = figures.targets();
    println!("{}", table(&["target", "", "figure", ""], 1, targets.iter().map(target_cells)));
}

fn target_cells(target: &Target) -> Vec<String> {
    let bound = match target.bound {
        Bound::AtLeast(least) => format!("≥ {least}"),
        Bound::AtMost(most) => format!("≤ {most}"),
        Bound::MegabytesBelow(limit) => format!("< {limit}"),
    };
    let figure = target.figure.map_or_else(
        || "too few came".to_owned(),
        |figure| match target.bound {
            Bound::MegabytesBelow(_) => format!("{figure:.0}"),
            Bound::AtLeast(_) | Bound::AtMost(_) => format!("{figure:.2}"),
        },
    );
    vec![target.what.clone(), bound, figure, verdict(target).to_owned()]
}

fn verdict(target: &Target) -> &'static str {
    match target.verdict() {
        TargetResult::Pass => "PASS",
        TargetResult::Miss => "MISS",
    }
}

/// The results as one JSON document.
pub(crate) fn json(figures: &Results, circumstances: &RunInfo<'_>) -> Value {
    let milliseconds = |delay: Option<Duration>| delay.map(|delay| delay.as_secs_f64() * 1e3);
    let row = |row: &ResultRow| {
        json!({
            "healthy": row.scenario.healthy, "hanging": row.scenario.hanging, "worker": row.worker.name(),
            "deliveriesPerSecond": row.per_second(),
            "toBareLoop": figures.row(row.scenario, Worker::Bare).map(|bare| row.relative_to(bare)),
            "cpuSecondsPer10000": row.cpu_seconds(), "peakMemoryBytes": row.peak_memory(), "duplicates": row.duplicates(),
            "halfLoadPerSecond": row.half_load, "p50Ms": milliseconds(row.delay(0.5)),
            "p99Ms": milliseconds(row.delay(0.99)), "p999Ms": milliseconds(row.delay(0.999)),
            "rounds": row.worked.iter().map(|worked| worked.per_second).collect::<Vec<f64>>(),
        })
    };
    let target = |target: &Target| json!({ "what": target.what, "figure": target.figure, "verdict": verdict(target) });
    let retries = figures.retries.as_ref().map(|retries| {
        json!({ "published": retries.published, "fewestLeft": retries.fewest_left(), "fewestDelivered": retries.fewest_delivered(), "p50Ms": milliseconds(retries.delay(0.5)),
            "p99Ms": milliseconds(retries.delay(0.99)), "p999Ms": milliseconds(retries.delay(0.999)) })
    });
    json!({
        "machine": circumstances.machine, "rabbitmq": circumstances.rabbitmq,
        "load": [circumstances.load_before, circumstances.load_after],
        "rows": figures.rows.iter().map(row).collect::<Vec<Value>>(), "retries": retries,
        "targets": figures.targets().iter().map(target).collect::<Vec<Value>>(),
    })
}

/// A table. All columns except the first `words` are aligned to the right.
fn table(titles: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(titles);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(row);
    }
    table
}

/// `12.3 ms`, or that it exceeded `patience`.
fn milliseconds(delay: Option<Duration>, patience: Duration) -> String {
    match delay {
        Some(delay) => format!("{:.1} ms", delay.as_secs_f64() * 1e3),
        None => format!("> {} s", patience.as_secs()),
    }
}

/// `1,234`
fn whole(number: f64) -> String {
    HumanCount(number.round() as u64).to_string()
}
