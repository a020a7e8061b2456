//! The ledger: what publishers, receivers and the fault injector record during the drill. It contains nothing that a
//! worker reports.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::load::ExpectedDelivery;

/// What a publisher knows about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishState {
    /// The broker confirmed the event, so it must not be lost.
    Confirmed,
    /// The event was sent but never confirmed. It may or may not have arrived.
    Unconfirmed,
}

/// How a receiver answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiverAnswer {
    /// With 2xx.
    Accepted,
    /// With any other status, or without an answer.
    Rejected,
}

/// A request as the receiver recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceivedRequest {
    pub(crate) delivery: ExpectedDelivery,
    pub(crate) webhook_id: Box<str>,
    /// Time since the start of the drill.
    pub(crate) at: Duration,
    pub(crate) answer: ReceiverAnswer,
}

/// A fault with its start, and the time when the previous state was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InjectedFault {
    pub(crate) fault: Fault,
    pub(crate) started_at: Duration,
    pub(crate) ended_at: Duration,
}

/// A command of the operator, and whether a worker confirmed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OperatorCommand {
    /// Replace the campaign of a receiver by this edition. `version` is the new version if the change was confirmed.
    UpdateCampaign { receiver: usize, edition: u64, version: Option<u64> },
    /// Replay these letters. `id` is the replay's id if it was accepted.
    Replay { letters: Vec<String>, id: Option<String> },
    /// Discard this letter.
    Discard { letter: String, confirmed: bool },
}

#[derive(Debug)]
pub(crate) struct Ledger {
    started_at: Mutex<Instant>,
    entries: Mutex<LedgerEntries>,
}

/// The content of the ledger.
#[derive(Debug, Default, Clone)]
pub(crate) struct LedgerEntries {
    pub(crate) published: BTreeMap<u64, PublishState>,
    pub(crate) requests: Vec<ReceivedRequest>,
    pub(crate) faults: Vec<InjectedFault>,
    /// The current faults or, after them, the steps of the drain.
    pub(crate) in_progress: Vec<String>,
    /// The operator's commands, in order.
    pub(crate) commands: Vec<OperatorCommand>,
    /// Observations that are not failures.
    pub(crate) notes: Vec<String>,
    /// Unexpected events, such as a worker that exits or a request of no published event.
    pub(crate) incidents: Vec<String>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { started_at: Mutex::new(Instant::now()), entries: Mutex::default() }
    }

    /// Restarts the time of the ledger at 0.
    pub(crate) fn restart_clock(&self) {
        *self.started_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn start_time(&self) -> Instant {
        *self.started_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start of the drill.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start_time().elapsed()
    }

    /// Converts a time of the drill to an instant.
    pub(crate) fn instant_at(&self, moment: Duration) -> tokio::time::Instant {
        (self.start_time() + moment).into()
    }

    pub(crate) fn lock_entries(&self) -> MutexGuard<'_, LedgerEntries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists `what` as in progress while `work` runs.
    pub(crate) async fn track<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.lock_entries().in_progress.push(what.to_owned());
        let done = work.await;
        let mut pages = self.lock_entries();
        if let Some(place) = pages.in_progress.iter().position(|in_progress| in_progress == what) {
            pages.in_progress.remove(place);
        }
        done
    }

    /// Records an unexpected event.
    pub(crate) fn record_incident(&self, what: &str) {
        let what = self.with_elapsed(what);
        self.lock_entries().incidents.push(what);
    }

    /// Records an observation that is not a failure.
    pub(crate) fn record_note(&self, what: &str) {
        let what = self.with_elapsed(what);
        self.lock_entries().notes.push(what);
    }

    fn with_elapsed(&self, what: &str) -> String {
        format!("{:.1} s: {what}", self.elapsed().as_secs_f64())
    }
}
