//! The output of the demo: progress on standard error, the account on standard output.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use waypost_broker::names::Names;

use super::account::{DemoLedger, DemoReport};
use super::receivers::DemoReceiver;
use super::script::CAMPAIGN_ID;
use super::system::DemoSystem;
use crate::cli::error::CliError;
use crate::cli::stdio::out;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How often a progress line is printed if standard error is not a terminal.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn opening(api: &str, receivers: &[DemoReceiver], events: u32) {
    out!("A worker at {api}, a campaign with four webhooks, and a receiver for each:");
    for receiver in receivers {
        out!("  {:<7} {}", receiver.name, receiver.behaviour.label());
    }
    out!("{events} users walk through the campaign now. Failed deliveries are retried after about 1, 2 and 4 s.\n");
}

/// Shows the progress until every event is settled.
pub(super) async fn progress(
    ledger: &DemoLedger,
    receivers: &[DemoReceiver],
    events: u32,
    system: &DemoSystem<'_>,
) -> Result<(), CliError> {
    let is_terminal = std::io::stderr().is_terminal();
    let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} settled  {elapsed}  {msg}");
    let bar = ProgressBar::with_draw_target(Some(u64::from(events)), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut last_report = Instant::now();
    loop {
        let progress = ledger.progress(receivers, system).await?;
        let in_flight = progress.published.saturating_sub(progress.settled());
        let message = format!(
            "published {} · no webhook {} · delivered {} · dead {} · in flight {in_flight}",
            progress.published, progress.no_webhook, progress.delivered, progress.dead
        );
        bar.set_position(progress.settled() as u64);
        bar.set_message(message.clone());
        let done = progress.published == events as usize && in_flight == 0;
        if !is_terminal && (done || last_report.elapsed() > REPORT_INTERVAL) {
            last_report = Instant::now();
            eprintln!("{message}");
        }
        if done {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

pub(super) fn account(demo_report: &DemoReport, receivers: &[DemoReceiver]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["RECEIVER", "BEHAVIOUR", "DELIVERIES", "ATTEMPTS", "DELIVERED", "P50", "P99"]);
    for row in &demo_report.receivers {
        let ms = |value: Option<i64>| value.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
        let (deliveries, attempts, accepted) = (row.deliveries, row.attempts, row.accepted);
        table.add_row([
            row.name.to_owned(),
            row.behaviour.to_owned(),
            deliveries.to_string(),
            attempts.to_string(),
            accepted.to_string(),
            ms(row.p50_ms),
            ms(row.p99_ms),
        ]);
    }
    for column in 2..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    out!("{table}\nP50 and P99: the time from the event's date to the receiver's 200, with the wait for retries.\n");

    let line = |label: &str, count: u64| out!("  {label:<42} {count:>8}");
    out!("Account");
    line("published, and confirmed by the broker", demo_report.published as u64);
    line("no webhook configured for the step", demo_report.no_webhook as u64);
    line("delivered (answered with 200)", demo_report.delivered as u64);
    for (reason, count) in &demo_report.dead {
        line(&format!("dead: {reason}"), *count as u64);
    }
    line("waiting in the broker's queues", demo_report.waiting);
    line("attempts made", demo_report.attempts);
    if demo_report.is_balanced() {
        out!("  published = no webhook + delivered + dead + waiting: all deliveries are accounted for.\n");
    } else {
        out!(
            "  NOT ALL DELIVERIES ARE ACCOUNTED FOR ({} deliveries both delivered and dead).\n",
            demo_report.contradictions
        );
    }
    if let Some(sample) =
        receivers.iter().find(|receiver| receiver.name == "offers").and_then(|offers| offers.record().sample.clone())
    {
        out!("A request to the receiver `offers`:\n\n{sample}\n");
    }
}

pub(super) fn json(demo_report: &DemoReport) {
    match serde_json::to_string(demo_report) {
        Ok(text) => out!("{text}"),
        Err(error) => eprintln!("error: {error}"),
    }
}

pub(super) fn addresses(api: &str, names: &Names, receivers: &[DemoReceiver]) {
    out!("Still running. Stop with Ctrl-C:");
    out!("  API and metrics   {api}  ({api}/metrics)");
    out!("  exchange          {}  (routing key: the campaign's id, {CAMPAIGN_ID})", names.events());
    for receiver in receivers {
        out!("  receiver {:<8} {}", receiver.name, receiver.url());
    }
    out!(
        "\n  waypost publish --server {api} --campaign {CAMPAIGN_ID} --label 'Welcome Message' --phone +15550001 --keyword 3"
    );
    out!("  waypost campaigns get {CAMPAIGN_ID} --server {api}");
}
