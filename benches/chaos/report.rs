//! The report, as Markdown tables.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::support::chaos::account::Account;
use super::support::chaos::command_account::CommandAccount;
use super::support::chaos::fault::Fault;
use super::support::chaos::stall_metrics;
use super::support::chaos::{ChaosResult, ChaosRun, ControlStreamResult, DrainResult, ScheduleMode};
use super::support::network::Delay;

/// The maximum number of problems to print of each kind.
const SHOWN: usize = 20;

pub(crate) fn print(drill: &ChaosRun, version: &str, findings: &ChaosResult) {
    let ChaosRun { seed, duration, mode, nodes, workers, publishers, receivers, events_per_second, tls, .. } = drill;
    println!(
        "RabbitMQ {version}, seed {seed}, {:.1} minutes: {nodes} nodes, {workers} workers{}, {publishers} publishers, \
         {receivers} receivers, {events_per_second} events/s; faults {}.\n",
        duration.as_secs_f64() / 60.0,
        if *tls { " (TLS)" } else { "" },
        match mode {
            ScheduleMode::Concurrent => "of several kinds at once",
            ScheduleMode::Sequential => "one at a time",
        }
    );
    println!("{}\n", account(&findings.account));
    println!("{}\n", orders(&findings.commands));
    println!("{}\n", faults(findings));
    let gap = stall_metrics::longest_gap(&findings.entries, *duration);
    println!("Longest time without any delivery: {}.", seconds(gap));
    match &findings.drained {
        DrainResult::Drained { after } => println!("All work was finished {} after the last fault.", seconds(*after)),
        DrainResult::TimedOut { left, left_by_new_leaders, .. } => println!(
            "NOT DRAINED: {left}. {}",
            match left_by_new_leaders.as_str() {
                "" => "New leaders of the queues finished it: RabbitMQ held the messages for channels that had ended."
                    .to_owned(),
                left => format!("Left with new leaders of the queues: {left}."),
            }
        ),
    }
    let ControlStreamResult { confirmed, lost } = &findings.control_stream;
    println!(
        "Control stream (not used by Waypost): {confirmed} records confirmed, of which RabbitMQ lost {}.",
        lost.len()
    );
    let excluded: Vec<&str> = findings.excluded.iter().map(|fault| fault.name()).collect();
    if !excluded.is_empty() {
        println!("Skipped (excluded, or without root or libfaketime): {}.", excluded.join(", "));
    }
    match findings.delay {
        Some(Delay::Netem) => println!("Delayed packets: 100 ms by netem."),
        Some(Delay::NarrowLink) => {
            println!("Delayed packets: a link of 1 Mbit/s with a queue of 400 ms, because the kernel has no netem.")
        }
        None => {}
    }
    show("Remark", findings.entries.notes.iter().cloned());
    show("LOST", findings.account.lost.iter().map(|delivery| format!("{delivery:?}")));
    show("CONTRADICTION", findings.account.contradictions.iter().cloned());
    show("CONTRADICTION", findings.commands.contradictions.iter().cloned());
    show("INCIDENT", findings.entries.incidents.iter().cloned());
}

fn account(account: &Account) -> Table {
    let mut rows = vec![
        ["events published (confirmed)".to_owned(), account.published.to_string()],
        ["events unsure (no confirm came)".to_owned(), account.unconfirmed.to_string()],
        ["… of which came all the same".to_owned(), account.unconfirmed_but_seen.to_string()],
        ["deliveries owed for the confirmed".to_owned(), account.expected.to_string()],
        ["… delivered".to_owned(), account.delivered.to_string()],
    ];
    rows.extend(account.dead.iter().map(|(reason, count)| [format!("… dead: {reason}"), count.to_string()]));
    rows.extend([
        ["… LOST".to_owned(), account.lost.len().to_string()],
        ["requests to receivers".to_owned(), account.requests.to_string()],
        ["duplicates (accepted more than once)".to_owned(), account.duplicates.to_string()],
        ["delivered, and a dead letter as well".to_owned(), account.delivered_and_dead.to_string()],
        ["dead letters written twice".to_owned(), account.duplicate_letters.to_string()],
        ["contradictions".to_owned(), account.contradictions.len().to_string()],
    ]);
    table(&["account", ""], rows)
}

fn orders(orders: &CommandAccount) -> Table {
    let pair = |what: &str, (known, unknown): (usize, usize)| [what.to_owned(), format!("{known} + {unknown}")];
    let mut rows = vec![
        pair("changes of campaigns (confirmed + unsure)", orders.changes),
        pair("replays (accepted + unsure)", orders.replays),
        pair("discards (confirmed + unsure)", orders.discards),
    ];
    rows.extend(orders.states.iter().map(|(state, count)| [format!("dead letters {state}"), count.to_string()]));
    rows.push(["contradictions".to_owned(), orders.contradictions.len().to_string()]);
    table(&["orders given meanwhile", ""], rows)
}

fn faults(findings: &ChaosResult) -> Table {
    let effects = stall_metrics::fault_effects(&findings.entries);
    let row = |(fault, effect): (&Fault, &stall_metrics::FaultEffect)| {
        [fault.name().to_owned(), effect.count.to_string(), seconds(effect.longest_stall)]
    };
    table(&["fault", "times", "longest stall of deliveries"], effects.iter().map(row))
}

fn table<const COLUMNS: usize>(titles: &[&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(titles.to_vec()).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn show(what: &str, all: impl ExactSizeIterator<Item = String>) {
    let more = all.len().saturating_sub(SHOWN);
    for one in all.take(SHOWN) {
        println!("{what}: {one}");
    }
    if more > 0 {
        println!("{what}: and {more} more");
    }
}
