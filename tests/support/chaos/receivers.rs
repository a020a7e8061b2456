//! The customers' endpoints: each answers by the mood it is in, and writes down every request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::books::{Answered, Books, Receipt};
use super::chance::mixed;
use super::fault::Fault;
use super::load::{Errand, PATHS, campaign, number_in};
use crate::support::receiver::Request;
use crate::support::{Answer, Receiver};

/// In a bad mood, so many of ten requests get to feel it; the others are answered with 200.
const FELT_BY: u64 = 8;

/// A drop of a dripping answer comes so often; the whole answer takes longer than a webhook may.
const DRIP: Duration = Duration::from_millis(100);

/// An endpoint with its mood: a fault of the receivers' lane, or none.
pub(crate) struct Endpoint {
    receiver: Receiver,
    mood: Arc<Mutex<Option<Fault>>>,
}

impl Endpoint {
    /// Starts one that answers 200.
    pub(crate) fn start(seed: u64, books: &Arc<Books>) -> Self {
        let receiver = Receiver::start();
        let mood = Arc::<Mutex<Option<Fault>>>::default();
        for (path, hook) in PATHS {
            let (mood, books) = (Arc::clone(&mood), Arc::clone(books));
            receiver.answer_with(path, move |request, earlier| {
                let fault = *mood.lock().unwrap_or_else(PoisonError::into_inner);
                let chance = mixed(seed, earlier as u64);
                let (answer, answered) = answer(fault.filter(|_| chance % 10 < FELT_BY), chance / 10);
                note(&books, request, hook, answered);
                answer
            });
        }
        Self { receiver, mood }
    }

    /// From now on it is in this mood.
    pub(crate) fn set_mood(&self, mood: Option<Fault>) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// The campaign whose webhooks are here.
    pub(crate) fn campaign(&self, number: usize, edition: u64) -> serde_json::Value {
        campaign(number, edition, |path| self.receiver.url(path))
    }

    /// Gives the memory of requests free that are in the books.
    pub(crate) fn forget(&self) {
        self.receiver.forget();
    }
}

fn note(books: &Books, request: &Request, hook: super::load::Hook, answered: Answered) {
    let Some(event) = number_in(&String::from_utf8_lossy(&request.body)) else {
        return books.incident(&format!("a request of no event: {request:?}"));
    };
    let webhook_id = request.webhook_id().into();
    let receipt = Receipt { errand: Errand { event, hook }, webhook_id, at: books.now(), answered };
    books.pages().receipts.push(receipt);
}

/// The answer in a mood. What is begun with 200 counts as accepted, though the end of it may never come.
fn answer(mood: Option<Fault>, chance: u64) -> (Answer, Answered) {
    use Answered::{Accepted, Refused};
    // Dripping and endless answers say that all is well or that it is not, by turns.
    let (status, said) = if chance.is_multiple_of(2) { (200, Accepted) } else { (500, Refused) };
    match mood {
        Some(Fault::ReceiverFails) => (Answer::status(500), Refused),
        Some(Fault::ReceiverLimits) => (Answer::status(429).header("retry-after", "2"), Refused),
        Some(Fault::ReceiverGone) => (Answer::status(410), Refused),
        Some(Fault::ReceiverHangs) => (Answer::never(), Refused),
        Some(Fault::ReceiverResets) => (Answer::reset(), Refused),
        Some(Fault::ReceiverDrips) => (Answer::status(status).body(vec![b'.'; 100]).dripping(DRIP), said),
        Some(Fault::ReceiverNeverEnds) => (Answer::status(status).body(vec![b'.'; 4096]).endless(), said),
        _ => (Answer::ok(), Accepted),
    }
}
