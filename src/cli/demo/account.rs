//! The account: what became of every event, from the outside. Delivered is what a receiver has answered with 200; dead
//! is what the dead-letter stream has; waiting is what the broker's queues hold; and nothing else may be left. Only of
//! events that fire no webhook nothing shows but the worker's own count.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::Scenario;
use super::receivers::Receiver;
use crate::cli::CliError;
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::reason::DeadLetterReason;

/// Filled while the demo runs.
#[derive(Default)]
pub(super) struct Account(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    /// Events the broker has confirmed.
    published: usize,
    /// Why each dead delivery died, by delivery id.
    dead: HashMap<String, DeadLetterReason>,
}

/// How far things are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) published: usize,
    pub(super) no_webhook: usize,
    pub(super) delivered: usize,
    pub(super) dead: usize,
}

impl Progress {
    pub(super) fn settled(self) -> usize {
        self.no_webhook + self.delivered + self.dead
    }
}

/// The account at the end.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Balance {
    pub(super) published: usize,
    pub(super) no_webhook: usize,
    pub(super) delivered: usize,
    pub(super) dead: BTreeMap<&'static str, usize>,
    pub(super) waiting: u64,
    /// Deliveries both accepted by a receiver and dead.
    pub(super) contradictions: usize,
    pub(super) attempts: u64,
    pub(super) receivers: Vec<Row>,
}

/// One receiver's part.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) behaviour: &'static str,
    pub(super) deliveries: usize,
    pub(super) attempts: u64,
    pub(super) accepted: usize,
    /// From the event's date to the first 200, in milliseconds.
    pub(super) p50_ms: Option<i64>,
    pub(super) p99_ms: Option<i64>,
}

impl Balance {
    /// Whether every published event is in exactly one place.
    pub(super) fn balances(&self) -> bool {
        let dead: usize = self.dead.values().sum();
        let settled = (self.no_webhook + self.delivered + dead) as u64;
        self.published as u64 == settled + self.waiting && self.contradictions == 0
    }
}

impl Account {
    pub(super) fn published(&self) {
        self.books().published += 1;
    }

    pub(super) fn dead(&self, letter: DeadLetter) {
        if let Some(delivery) = letter.delivery_id {
            self.books().dead.insert(delivery.as_str().to_owned(), letter.reason);
        }
    }

    pub(super) async fn progress(&self, receivers: &[Receiver], stage: &Scenario<'_>) -> Result<Progress, CliError> {
        let no_webhook = stage.no_webhook().await?;
        let books = self.books();
        let delivered = receivers.iter().map(|receiver| receiver.record().accepted().count()).sum();
        Ok(Progress { published: books.published, no_webhook, delivered, dead: books.dead.len() })
    }

    pub(super) async fn balance(&self, receivers: &[Receiver], stage: &Scenario<'_>) -> Result<Balance, CliError> {
        let waiting = stage.waiting().await?;
        let Progress { published, no_webhook, delivered, .. } = self.progress(receivers, stage).await?;
        let books = self.books();
        let mut dead = BTreeMap::new();
        for reason in books.dead.values() {
            *dead.entry(reason.as_str()).or_default() += 1;
        }
        let contradicts =
            |receiver: &Receiver| receiver.record().accepted().filter(|(id, _)| books.dead.contains_key(*id)).count();
        Ok(Balance {
            published,
            no_webhook,
            delivered,
            dead,
            waiting,
            contradictions: receivers.iter().map(contradicts).sum(),
            attempts: receivers.iter().map(|receiver| receiver.record().attempts).sum(),
            receivers: receivers.iter().map(row).collect(),
        })
    }

    fn books(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(receiver: &Receiver) -> Row {
    let record = receiver.record();
    let mut latencies: Vec<i64> = record.accepted().map(|(_, latency)| latency.num_milliseconds()).collect();
    latencies.sort_unstable();
    let percentile =
        |share: usize| latencies.get((latencies.len() * share / 100).min(latencies.len().saturating_sub(1)));
    Row {
        name: receiver.name,
        behaviour: receiver.behaviour.words(),
        deliveries: record.deliveries.len(),
        attempts: record.attempts,
        accepted: latencies.len(),
        p50_ms: percentile(50).copied(),
        p99_ms: percentile(99).copied(),
    }
}
