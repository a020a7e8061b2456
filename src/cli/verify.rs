//! `waypost verify`: reconciles what the workers took in hand with what became of it and with what waits in the broker, and prints
//! the account.

mod account;

use std::time::Duration;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::client::{Api, Server, address};
use super::stdio::say;
use super::{CliError, sanitize};
use account::{Account, Finding};

/// The workers read the queues' depths this often: a difference that is none any more by then was only on its way.
const LOOK_AGAIN: Duration = Duration::from_secs(6);

/// A difference that is there so many times in a row is one.
const LOOKS: usize = 3;

/// Each time the numbers are read so often: the clearest counts, of which the least was on its way meanwhile.
const READINGS: usize = 5;

#[derive(Args)]
#[command(after_help = "Name every worker, for what one puts on the ladder another may take from it:
  waypost verify --server http://worker-1:8080 --also http://worker-2:8080

The account is of what these workers have counted since each was started. A difference smaller than what is in hand shows when it
is quieter. What publishers had no confirm for was never taken, and is not in it. Up to a hundred deliveries that were put on the ladder for
their endpoint are one message there. Exit code 0: it adds up.")]
pub(super) struct Verify {
    /// The address of another worker of the same prefix; may be repeated
    #[arg(long, value_name = "URL", value_parser = address)]
    also: Vec<Url>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let first = self.server.api()?;
        let others: Vec<Api> = self.also.into_iter().map(|server| first.beside(server)).collect();
        let workers: Vec<Api> = std::iter::once(first).chain(others).collect();
        let mut account = taken(&workers).await?;
        let waiting = ProgressBar::new_spinner().with_message("looking again: the numbers do not add up yet");
        for _ in 1..LOOKS {
            if account.findings().is_empty() {
                break;
            }
            waiting.enable_steady_tick(Duration::from_millis(100));
            tokio::time::sleep(LOOK_AGAIN).await;
            account = taken(&workers).await?.after(&account);
        }
        waiting.finish_and_clear();
        let findings = account.findings();
        if self.json {
            let findings: Vec<String> = findings.iter().map(Finding::to_string).collect();
            let rows: Map<String, Value> = account.rows().into_iter().collect();
            let note = account.note().map(|note| note.to_string());
            say!("{}", json!({ "account": rows, "findings": findings, "note": note, "unknown": account.unknown() }));
        } else {
            say!("{}", table(&account));
            if let Some(note) = account.note() {
                say!("\n{note}");
            }
        }
        if findings.is_empty()
            && let Some(unknown) = account.unknown()
        {
            return Err(CliError::Failed(format!("whether it adds up is not known: {unknown}")));
        }
        match findings.as_slice() {
            [] if self.json => Ok(()),
            [] => {
                say!("\nIt adds up.");
                Ok(())
            }
            findings => Err(CliError::Failed(findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n"))),
        }
    }
}

/// The clearest account of several readings.
async fn taken(workers: &[Api]) -> Result<Account, CliError> {
    let mut clearest = read(workers).await?;
    for _ in 1..READINGS {
        let account = read(workers).await?;
        if account.is_clearer_than(&clearest) {
            clearest = account;
        }
    }
    Ok(clearest)
}

/// The account of all workers together.
async fn read(workers: &[Api]) -> Result<Account, CliError> {
    let mut account = Account::default();
    for worker in workers {
        account.add(&worker.metrics().await?);
    }
    Ok(account)
}

fn table(account: &Account) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (what, count) in account.described() {
        table.add_row([what.to_owned(), sanitize::count(&count.into())]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
