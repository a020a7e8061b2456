//! The demo's account: the outcome of every event, observed from outside the worker. Delivered: a receiver has answered
//! with 200. Dead: the dead-letter stream has it. Waiting: it is in a queue of the broker. Only the number of events
//! that fire no webhook comes from the worker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::reason::DeadLetterReason;

use super::receivers::DemoReceiver;
use super::system::DemoSystem;
use crate::cli::error::CliError;

/// Filled while the demo runs.
#[derive(Default)]
pub(super) struct DemoLedger(Mutex<LedgerState>);

#[derive(Default)]
struct LedgerState {
    /// The number of events that the broker has confirmed.
    published: usize,
    /// The reasons by delivery id.
    dead: HashMap<String, DeadLetterReason>,
}

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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DemoReport {
    pub(super) published: usize,
    pub(super) no_webhook: usize,
    pub(super) delivered: usize,
    pub(super) dead: BTreeMap<&'static str, usize>,
    pub(super) waiting: u64,
    /// The number of deliveries that a receiver has accepted and that are dead as well.
    pub(super) contradictions: usize,
    pub(super) attempts: u64,
    pub(super) receivers: Vec<ReceiverReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReceiverReport {
    pub(super) name: &'static str,
    pub(super) behaviour: &'static str,
    pub(super) deliveries: usize,
    pub(super) attempts: u64,
    pub(super) accepted: usize,
    /// Latency in milliseconds, from the event's date to the first 200.
    pub(super) p50_ms: Option<i64>,
    pub(super) p99_ms: Option<i64>,
}

impl DemoReport {
    /// True if every published event has exactly one outcome.
    pub(super) fn is_balanced(&self) -> bool {
        let dead: usize = self.dead.values().sum();
        let settled = (self.no_webhook + self.delivered + dead) as u64;
        self.published as u64 == settled + self.waiting && self.contradictions == 0
    }
}

impl DemoLedger {
    pub(super) fn add_published(&self) {
        self.ledger().published += 1;
    }

    pub(super) fn add_dead_letter(&self, letter: DeadLetter) {
        if let Some(id) = letter.delivery_id {
            self.ledger().dead.insert(id.as_str().to_owned(), letter.reason);
        }
    }

    pub(super) async fn progress(
        &self,
        receivers: &[DemoReceiver],
        system: &DemoSystem<'_>,
    ) -> Result<Progress, CliError> {
        let no_webhook = system.no_webhook_count().await?;
        let ledger = self.ledger();
        let delivered = receivers.iter().map(|receiver| receiver.record().accepted().count()).sum();
        Ok(Progress { published: ledger.published, no_webhook, delivered, dead: ledger.dead.len() })
    }

    pub(super) async fn report(
        &self,
        receivers: &[DemoReceiver],
        system: &DemoSystem<'_>,
    ) -> Result<DemoReport, CliError> {
        let waiting = system.waiting_count().await?;
        let Progress { published, no_webhook, delivered, .. } = self.progress(receivers, system).await?;
        let ledger = self.ledger();
        let mut dead = BTreeMap::new();
        for reason in ledger.dead.values() {
            *dead.entry(reason.as_str()).or_default() += 1;
        }
        let contradictions = |receiver: &DemoReceiver| {
            receiver.record().accepted().filter(|(id, _)| ledger.dead.contains_key(*id)).count()
        };
        Ok(DemoReport {
            published,
            no_webhook,
            delivered,
            dead,
            waiting,
            contradictions: receivers.iter().map(contradictions).sum(),
            attempts: receivers.iter().map(|receiver| receiver.record().attempts).sum(),
            receivers: receivers.iter().map(row).collect(),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, LedgerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(receiver: &DemoReceiver) -> ReceiverReport {
    let record = receiver.record();
    let mut latencies: Vec<i64> = record.accepted().map(|(_, latency)| latency.num_milliseconds()).collect();
    latencies.sort_unstable();
    let percentile =
        |percent: usize| latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1)));
    ReceiverReport {
        name: receiver.name,
        behaviour: receiver.behaviour.label(),
        deliveries: record.deliveries.len(),
        attempts: record.attempts,
        accepted: latencies.len(),
        p50_ms: percentile(50).copied(),
        p99_ms: percentile(99).copied(),
    }
}
