//! The results as Markdown tables and as JSON.

use std::time::Duration;

use comfy_table::Table;
use indicatif::HumanCount;
use serde_json::{Value, json};

use super::Options;
use super::common::delays::{Delays, late_beside};
use super::common::table::{Bound, Target, milliseconds, table, target_table, whole};
use super::run::{OutageResults, PATIENCE, Rest, Sample};

const MIN_PER_SECOND: f64 = 10_000.0;

pub(crate) fn print(options: &Options, results: &OutageResults) {
    let Options { endpoints, parked, due_within, rate, .. } = options;
    println!(
        "{}, RabbitMQ {}. Broker, publisher, receiver and worker share these cores.\n\
         {} deliveries waited for {endpoints} endpoints: {:.0} % were parked, the others waited between two attempts. \
         They were due within {due_within} s after the endpoints had come back. \
         {rate} fresh events/s went to other endpoints meanwhile.\n",
        results.machine,
        results.rabbitmq,
        HumanCount(results.published),
        parked * 100.0,
    );
    println!("{}\n", timeline(&results.returned.samples));
    println!("{}\n", delays(results));
    println!(
        "Delivered within {:.0} s: {}, which is {}/s. Published in {:.1} s. Duplicates: {}. Peak memory: {:.0} MB.",
        results.returned.took.as_secs_f64(),
        HumanCount(results.returned.delivered),
        whole(results.returned.per_second()),
        results.publishing.as_secs_f64(),
        HumanCount(results.duplicates),
        results.peak_memory as f64 / 1e6,
    );
    let Rest { delivered, took, left } = results.rest;
    if delivered > 0 || left > 0 {
        println!(
            "Without fresh events, {} more were delivered in {:.1} s, which is {}/s. Left at the end: {}.",
            HumanCount(delivered),
            took.as_secs_f64(),
            whole(delivered as f64 / took.as_secs_f64().max(0.001)),
            HumanCount(left),
        );
    }
    println!("\n{}", target_table(&targets(results)));
}

/// The share of a core and the rate in each interval.
fn timeline(samples: &[Sample]) -> Table {
    let mut before = Sample::start();
    let row = |sample: &Sample| {
        let seconds = (sample.at - before.at).as_secs_f64();
        let core = |now: Duration, before: Duration| format!("{:.0} %", (now - before).as_secs_f64() / seconds * 100.0);
        let cells = vec![
            format!("{:.0} s", sample.at.as_secs_f64()),
            whole((sample.delivered - before.delivered) as f64 / seconds),
            HumanCount(sample.delivered).to_string(),
            HumanCount(sample.delayed).to_string(),
            HumanCount(sample.due).to_string(),
            core(sample.worker_cpu, before.worker_cpu),
            core(sample.broker_cpu, before.broker_cpu),
        ];
        before = sample.clone();
        cells
    };
    let titles = [
        "since the return",
        "deliveries/s",
        "delivered",
        "messages delayed",
        "messages due",
        "worker's CPU",
        "broker's CPU",
    ];
    table(&titles, 0, samples.iter().map(row).collect::<Vec<_>>())
}

fn delays(results: &OutageResults) -> Table {
    let row = |what: &str, delays: &Option<Delays>| {
        let delays = delays.as_ref()?;
        let mut cells = vec![what.to_owned()];
        cells.extend([0.5, 0.99, 0.999].map(|part| milliseconds(delays.part(part), PATIENCE)));
        Some(cells)
    };
    let rows = [row("nothing waits", &results.quiet), row("after the return", &results.meanwhile)];
    table(&["fresh events", "p50", "p99", "p99.9"], 1, rows.into_iter().flatten())
}

fn targets(results: &OutageResults) -> Vec<Target> {
    let mut targets = vec![Target {
        what: "deliveries/s after the endpoints have come back".to_owned(),
        figure: Some(results.returned.per_second()),
        bound: Bound::AtLeast(MIN_PER_SECOND),
    }];
    if let (Some(quiet), Some(meanwhile)) = (&results.quiet, &results.meanwhile) {
        let figure = late_beside(std::slice::from_ref(meanwhile), std::slice::from_ref(quiet), 0.99);
        let what = "p99 of fresh events meanwhile ÷ without".to_owned();
        targets.push(Target { what, figure, bound: Bound::AtMost(1.5) });
    }
    targets
}

/// The results as one JSON document.
pub(crate) fn json(results: &OutageResults) -> Value {
    let p99 = |delays: &Option<Delays>| Some(delays.as_ref()?.part(0.99)?.as_secs_f64() * 1e3);
    let sample = |sample: &Sample| {
        json!({ "seconds": sample.at.as_secs_f64(), "delivered": sample.delivered, "delayedMessages": sample.delayed,
            "dueMessages": sample.due, "workerCpuSeconds": sample.worker_cpu.as_secs_f64(),
            "brokerCpuSeconds": sample.broker_cpu.as_secs_f64() })
    };
    let Rest { delivered, took, left } = results.rest;
    json!({
        "machine": results.machine, "rabbitmq": results.rabbitmq, "waited": results.published,
        "delivered": results.returned.delivered, "deliveriesPerSecond": results.returned.per_second(),
        "samples": results.returned.samples.iter().map(sample).collect::<Vec<Value>>(),
        "freshP99Ms": p99(&results.quiet), "freshP99MsMeanwhile": p99(&results.meanwhile),
        "rest": { "delivered": delivered, "seconds": took.as_secs_f64(), "left": left },
        "duplicates": results.duplicates, "peakMemoryBytes": results.peak_memory,
        "targets": targets(results).iter().map(Target::json).collect::<Vec<Value>>(),
    })
}
