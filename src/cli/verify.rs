//! `waypost verify`: checks that every delivery is accounted for, with the counts of all workers and the queues of the
//! broker.

mod account;

use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use reqwest::Url;
use serde_json::{Map, Value, json};
use waypost_api::client::Client;

use super::client::{Server, parse_address};
use super::error::CliError;
use super::sanitize;
use super::stdio::out;
use account::{AccountFinding, AccountReport};

/// Longer than the 5 s between two readings of the queues by a worker. A difference that disappears within this time is
/// a message in transit.
const RETRY_INTERVAL: Duration = Duration::from_secs(6);

/// A difference counts if it is there this many times in a row.
const ROUNDS: usize = 3;

/// How often the counts are read in each round. The most consistent reading counts, because the counts change
/// meanwhile.
const READINGS_PER_ROUND: usize = 5;

#[derive(Args)]
#[command(
    after_help = "Name every worker, because one worker may process a delivery that another has put into a delay queue:
  waypost verify --server http://worker-1:8080 --also http://worker-2:8080

The counts of a worker start at zero when it starts. A difference smaller than the number of deliveries in flight is not
reported: run the command again when there is less traffic. Up to a hundred deliveries that wait for their endpoint are one
message in a delay queue. Exit code: 0 every delivery is accounted for, 1 not, or unknown."
)]
pub(super) struct Verify {
    /// The address of another worker of the same prefix; may be repeated
    #[arg(long, value_name = "URL", value_parser = parse_address)]
    also: Vec<Url>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let first = self.server.client()?;
        let others: Vec<Client> = self.also.into_iter().map(|server| first.with_server(server)).collect();
        let workers: Vec<Client> = std::iter::once(first).chain(others).collect();
        let mut account = most_consistent(&workers).await?;
        let spinner = ProgressBar::new_spinner()
            .with_message("not all deliveries are accounted for yet, reading the metrics again");
        for _ in 1..ROUNDS {
            if account.findings().is_empty() {
                break;
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            tokio::time::sleep(RETRY_INTERVAL).await;
            account = most_consistent(&workers).await?.with_previous(&account);
        }
        spinner.finish_and_clear();
        let findings = account.findings();
        if self.json {
            let findings: Vec<String> = findings.iter().map(AccountFinding::to_string).collect();
            let counts: Map<String, Value> = account.named_counts().into_iter().collect();
            let note = account.note().map(|note| note.to_string());
            out!(
                "{}",
                json!({ "account": counts, "findings": findings, "note": note, "unknown": account.unknown_reason() })
            );
        } else {
            out!("{}", table(&account));
            if let Some(note) = account.note() {
                out!("\n{note}");
            }
        }
        if findings.is_empty()
            && let Some(reason) = account.unknown_reason()
        {
            return Err(CliError::Failed(format!("the account is incomplete: {reason}")));
        }
        match findings.as_slice() {
            [] if self.json => Ok(()),
            [] => {
                out!("\nAll deliveries are accounted for.");
                Ok(())
            }
            findings => {
                Err(CliError::Failed(findings.iter().map(AccountFinding::to_string).collect::<Vec<_>>().join("\n")))
            }
        }
    }
}

/// Reads the account several times and returns the most consistent one.
async fn most_consistent(workers: &[Client]) -> Result<AccountReport, CliError> {
    let mut best = read(workers).await?;
    for _ in 1..READINGS_PER_ROUND {
        let account = read(workers).await?;
        if account.is_more_consistent_than(&best) {
            best = account;
        }
    }
    Ok(best)
}

/// The account of all workers together.
async fn read(workers: &[Client]) -> Result<AccountReport, CliError> {
    let mut account = AccountReport::default();
    for worker in workers {
        account.add(&worker.metrics().await?);
    }
    Ok(account)
}

fn table(account: &AccountReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (label, count) in account.labelled_counts() {
        table.add_row([label.to_owned(), sanitize::count(count.try_into().unwrap_or_default())]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
