//! What is written down while the drill runs: by the publishers, by the receivers, and by whoever injects faults. Nothing
//! in it comes from a worker.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::load::ExpectedDelivery;

/// What a publisher knows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishState {
    /// The broker has confirmed it: from now on it must not be lost.
    Confirmed,
    /// It was sent, and the confirm never came: it may have arrived or not.
    Unconfirmed,
}

/// What a receiver did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiverAnswer {
    /// It said 2xx.
    Accepted,
    /// Anything else.
    Rejected,
}

/// A request, as a receiver has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceivedRequest {
    pub(crate) delivery: ExpectedDelivery,
    pub(crate) webhook_id: Box<str>,
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) answer: ReceiverAnswer,
}

/// A fault that was injected: when it began, and when all was as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InjectedFault {
    pub(crate) fault: Fault,
    pub(crate) started_at: Duration,
    pub(crate) ended_at: Duration,
}

/// What an operator wanted done, and whether a worker said that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OperatorCommand {
    /// The campaign of a receiver was to become this edition, in the place of the version that was there. With the version it then
    /// had, if the change was confirmed.
    UpdateCampaign { receiver: usize, edition: u64, version: Option<u64> },
    /// These letters were to be sent again. With the replay's id, if it was accepted.
    Replay { letters: Vec<String>, id: Option<String> },
    /// This letter was to be discarded.
    Discard { letter: String, confirmed: bool },
}

/// The books.
#[derive(Debug)]
pub(crate) struct Ledger {
    started_at: Mutex<Instant>,
    entries: Mutex<LedgerEntries>,
}

/// All that is in them.
#[derive(Debug, Default, Clone)]
pub(crate) struct LedgerEntries {
    pub(crate) published: BTreeMap<u64, PublishState>,
    pub(crate) requests: Vec<ReceivedRequest>,
    pub(crate) faults: Vec<InjectedFault>,
    /// What is being done now: faults, and after them the settling.
    pub(crate) in_progress: Vec<String>,
    /// What an operator wanted done, in this order.
    pub(crate) commands: Vec<OperatorCommand>,
    /// What is worth telling, and no fault of anybody.
    pub(crate) notes: Vec<String>,
    /// What nobody had planned: a worker that ended by itself, a request of no event.
    pub(crate) incidents: Vec<String>,
}

impl Ledger {
    /// Empty ones, of a drill that begins now.
    pub(crate) fn new() -> Self {
        Self { started_at: Mutex::new(Instant::now()), entries: Mutex::default() }
    }

    /// The drill begins only now.
    pub(crate) fn restart_clock(&self) {
        *self.started_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn start_time(&self) -> Instant {
        *self.started_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start_time().elapsed()
    }

    /// A moment of the drill on the clock.
    pub(crate) fn instant_at(&self, moment: Duration) -> tokio::time::Instant {
        (self.start_time() + moment).into()
    }

    /// What is in them, to read or to write.
    pub(crate) fn lock_entries(&self) -> MutexGuard<'_, LedgerEntries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something, and says so meanwhile.
    pub(crate) async fn track<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.lock_entries().in_progress.push(what.to_owned());
        let done = work.await;
        let mut pages = self.lock_entries();
        if let Some(place) = pages.in_progress.iter().position(|in_progress| in_progress == what) {
            pages.in_progress.remove(place);
        }
        done
    }

    /// Writes down what nobody had planned.
    pub(crate) fn record_incident(&self, what: &str) {
        let what = self.with_elapsed(what);
        self.lock_entries().incidents.push(what);
    }

    /// Writes down what is worth telling.
    pub(crate) fn record_note(&self, what: &str) {
        let what = self.with_elapsed(what);
        self.lock_entries().notes.push(what);
    }

    fn with_elapsed(&self, what: &str) -> String {
        format!("{:.1} s: {what}", self.elapsed().as_secs_f64())
    }
}
