//! The results as Markdown tables and as JSON.

use comfy_table::Table;
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::Options;
use super::common::table::{Bound, Target, table, target_table};
use super::run::SoakResults;
use super::trend::{Quantity, Sample, trend};

/// An edit is a record of a campaign of one kilobyte.
const MAX_BYTES_PER_EDIT: f64 = 16_384.0;

/// The number of rows of the table of samples.
const SHOWN_SAMPLES: usize = 12;

pub(crate) fn print(options: &Options, results: &SoakResults) {
    let Options { minutes, rate, endpoints, .. } = options;
    println!(
        "{}, RabbitMQ {}. {rate} events/s for {minutes} minutes, to {endpoints} endpoints of which four were away at a \
         time. Dead letters were kept for {} s.\n",
        results.machine,
        results.rabbitmq,
        options.retention().as_secs(),
    );
    println!("{}\n", samples(&results.samples));
    println!(
        "Events: {}, of which {} were delivered. Dead letters: {}, of which replays delivered {}. Duplicates: {}.\n\
         Edits of campaigns: {}. Replays: {}. Discards: {}. Commands that were refused: {}. \
         CPU of the worker: {:.0} s.\n",
        HumanCount(results.published),
        HumanCount(results.delivered),
        HumanCount(results.dead_letters),
        HumanCount(results.replayed),
        HumanCount(results.duplicates),
        HumanCount(results.samples.last().map_or(0, |sample| sample.edits)),
        results.replays,
        results.discards,
        results.refused,
        results.worker_cpu.as_secs_f64(),
    );
    println!("{}\n", trends(options, results));
    println!("{}", target_table(&targets(options, results)));
}

/// Some of the samples, from the first to the last.
fn samples(samples: &[Sample]) -> Table {
    let step = samples.len().div_ceil(SHOWN_SAMPLES).max(1);
    let row = |sample: &Sample| {
        let mut cells = vec![format!("{:.1}", sample.at.as_secs_f64() / 60.0)];
        cells.extend(Quantity::ALL.map(|quantity| format!("{:.0}", quantity.value(sample))));
        cells.push(format!("{:.1}", sample.campaigns as f64 / 1e6));
        cells
    };
    let mut titles = vec!["minute"];
    titles.extend(Quantity::ALL.map(Quantity::name));
    titles.push("campaigns stream, MB");
    table(&titles, 0, samples.iter().step_by(step).map(row))
}

/// The samples after everything has settled.
fn settled(options: &Options, results: &SoakResults) -> Vec<Sample> {
    results.samples.iter().filter(|sample| sample.at >= options.settling()).cloned().collect()
}

fn trends(options: &Options, results: &SoakResults) -> Table {
    let settled = settled(options, results);
    let row = |quantity: Quantity| {
        let trend = trend(quantity, &settled)?;
        Some(vec![
            quantity.name().to_owned(),
            format!("{:.1}", trend.mean),
            format!("{:+.1}", trend.per_hour),
            format!("{:+.1}", trend.growth),
        ])
    };
    let minutes = options.settling().as_secs_f64() / 60.0;
    let first = format!("after {minutes:.0} minutes");
    table(&[&first, "mean", "slope per hour", "growth"], 1, Quantity::ALL.into_iter().filter_map(row))
}

pub(crate) fn targets(options: &Options, results: &SoakResults) -> Vec<Target> {
    let settled = settled(options, results);
    let flat = |quantity: Quantity| {
        let trend = trend(quantity, &settled);
        Target {
            what: format!("growth of {}", quantity.name()),
            figure: trend.map(|trend| trend.growth),
            bound: Bound::AtMost(trend.map_or(0.0, |trend| trend.tolerance.round())),
        }
    };
    let mut targets: Vec<Target> = Quantity::ALL.into_iter().map(flat).collect();
    if let (Some(first), Some(last)) = (settled.first(), settled.last())
        && last.edits > first.edits
    {
        let bytes = last.campaigns.saturating_sub(first.campaigns) as f64;
        targets.push(Target {
            what: "bytes of the campaigns stream for each edit".to_owned(),
            figure: Some(bytes / (last.edits - first.edits) as f64),
            bound: Bound::AtMost(MAX_BYTES_PER_EDIT),
        });
    }
    targets.push(Target {
        what: "events neither delivered nor dead".to_owned(),
        figure: Some(results.unaccounted() as f64),
        bound: Bound::AtMost(0.0),
    });
    targets
}

/// The results as one JSON document.
pub(crate) fn json(options: &Options, results: &SoakResults) -> Value {
    let settled = settled(options, results);
    let sample = |sample: &Sample| {
        json!({ "seconds": sample.at.as_secs_f64(), "memoryBytes": sample.memory, "openFiles": sample.open_files,
            "threads": sample.threads, "deliveriesInHand": sample.in_hand, "storeBytes": sample.store,
            "deadLetterStreamBytes": sample.dead_letters, "campaignsStreamBytes": sample.campaigns,
            "edits": sample.edits })
    };
    let trend = |quantity: Quantity| {
        let trend = trend(quantity, &settled)?;
        Some(json!({ "what": quantity.name(), "mean": trend.mean, "perHour": trend.per_hour, "growth": trend.growth,
            "tolerance": trend.tolerance }))
    };
    json!({
        "machine": results.machine, "rabbitmq": results.rabbitmq,
        "published": results.published, "delivered": results.delivered, "deadLetters": results.dead_letters,
        "replayed": results.replayed, "duplicates": results.duplicates, "replays": results.replays,
        "discards": results.discards, "refused": results.refused,
        "workerCpuSeconds": results.worker_cpu.as_secs_f64(),
        "samples": results.samples.iter().map(sample).collect::<Vec<Value>>(),
        "trends": Quantity::ALL.into_iter().filter_map(trend).collect::<Vec<Value>>(),
        "targets": targets(options, results).iter().map(Target::json).collect::<Vec<Value>>(),
    })
}
