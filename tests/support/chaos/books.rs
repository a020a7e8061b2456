//! What is written down while the drill runs: by the publishers, by the receivers, and by whoever injects faults. Nothing
//! in it comes from a worker.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::load::Errand;

/// What a publisher knows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// The broker has confirmed it: from now on it must not be lost.
    Confirmed,
    /// It was sent, and the confirm never came: it may have arrived or not.
    Unsure,
}

/// What a receiver did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// It said 2xx.
    Accepted,
    /// Anything else.
    Refused,
}

/// A request, as a receiver has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) errand: Errand,
    pub(crate) webhook_id: Box<str>,
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) answered: Answered,
}

/// A fault that was injected: when it began, and when all was as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) fault: Fault,
    pub(crate) begins: Duration,
    pub(crate) ends: Duration,
}

/// What an operator wanted done, and whether a worker said that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// The campaign of a receiver was to become this edition, in the place of the version that was there. With the version it then
    /// had, if the change was confirmed.
    Configure { receiver: usize, edition: u64, version: Option<u64> },
    /// These letters were to be sent again. With the replay's id, if it was accepted.
    Replay { letters: Vec<String>, id: Option<String> },
    /// This letter was to be discarded.
    Discard { letter: String, confirmed: bool },
}

/// The books.
#[derive(Debug)]
pub(crate) struct Books {
    beginning: Mutex<Instant>,
    pages: Mutex<Pages>,
}

/// All that is in them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pages {
    pub(crate) published: BTreeMap<u64, Published>,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) happened: Vec<Happened>,
    /// What is being done now: faults, and after them the settling.
    pub(crate) under_way: Vec<String>,
    /// What an operator wanted done, in this order.
    pub(crate) orders: Vec<Order>,
    /// What is worth telling, and no fault of anybody.
    pub(crate) remarks: Vec<String>,
    /// What nobody had planned: a worker that ended by itself, a request of no event.
    pub(crate) incidents: Vec<String>,
}

impl Books {
    /// Empty ones, of a drill that begins now.
    pub(crate) fn open() -> Self {
        Self { beginning: Mutex::new(Instant::now()), pages: Mutex::default() }
    }

    /// The drill begins only now.
    pub(crate) fn begin(&self) {
        *self.beginning.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn beginning(&self) -> Instant {
        *self.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since the beginning.
    pub(crate) fn now(&self) -> Duration {
        self.beginning().elapsed()
    }

    /// A moment of the drill on the clock.
    pub(crate) fn at(&self, moment: Duration) -> tokio::time::Instant {
        (self.beginning() + moment).into()
    }

    /// What is in them, to read or to write.
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something, and says so meanwhile.
    pub(crate) async fn doing<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.pages().under_way.push(what.to_owned());
        let done = work.await;
        let mut pages = self.pages();
        if let Some(place) = pages.under_way.iter().position(|under_way| under_way == what) {
            pages.under_way.remove(place);
        }
        done
    }

    /// Writes down what nobody had planned.
    pub(crate) fn incident(&self, what: &str) {
        let what = self.dated(what);
        self.pages().incidents.push(what);
    }

    /// Writes down what is worth telling.
    pub(crate) fn remark(&self, what: &str) {
        let what = self.dated(what);
        self.pages().remarks.push(what);
    }

    fn dated(&self, what: &str) -> String {
        format!("{:.1} s: {what}", self.now().as_secs_f64())
    }
}
