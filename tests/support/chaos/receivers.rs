//! The customers' endpoints: each answers by the mood it is in, and writes down every request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use super::ledger::{Ledger, ReceivedRequest, ReceiverAnswer};
use super::load::{ExpectedDelivery, WEBHOOK_PATHS, campaign, event_number};
use super::rng::mix;
use crate::support::receiver::Request;
use crate::support::{Answer, Receiver};

/// In a bad mood, so many of ten requests get to feel it; the others are answered with 200.
const AFFECTED_OF_TEN: u64 = 8;

/// A drop of a dripping answer comes so often; the whole answer takes longer than a webhook may.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(100);

/// An endpoint with its mood: a fault of the receivers' lane, or none.
pub(crate) struct FaultyReceiver {
    receiver: Receiver,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl FaultyReceiver {
    /// Starts one that answers 200.
    pub(crate) fn start(seed: u64, ledger: &Arc<Ledger>) -> Self {
        let receiver = Receiver::start();
        let fault = Arc::<Mutex<Option<Fault>>>::default();
        for (path, hook) in WEBHOOK_PATHS {
            let (fault, ledger) = (Arc::clone(&fault), Arc::clone(ledger));
            receiver.reply_with(path, move |request, earlier| {
                let fault = *fault.lock().unwrap_or_else(PoisonError::into_inner);
                let random = mix(seed, earlier as u64);
                let (answer, answered) =
                    answer_with_fault(fault.filter(|_| random % 10 < AFFECTED_OF_TEN), random / 10);
                record_request(&ledger, request, hook, answered);
                answer
            });
        }
        Self { receiver, fault }
    }

    /// From now on it is in this mood.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The campaign whose webhooks are here.
    pub(crate) fn campaign(&self, number: usize, edition: u64) -> serde_json::Value {
        campaign(number, edition, |path| self.receiver.url(path))
    }

    /// Gives the memory of requests free that are in the books.
    pub(crate) fn clear_requests(&self) {
        self.receiver.clear_requests();
    }
}

fn record_request(ledger: &Ledger, request: &Request, hook: super::load::WebhookKind, answered: ReceiverAnswer) {
    let Some(event) = event_number(&String::from_utf8_lossy(&request.body)) else {
        return ledger.record_incident(&format!("a request of no event: {request:?}"));
    };
    let webhook_id = request.webhook_id().into();
    let receipt = ReceivedRequest {
        delivery: ExpectedDelivery { event, webhook: hook },
        webhook_id,
        at: ledger.elapsed(),
        answer: answered,
    };
    ledger.lock_entries().requests.push(receipt);
}

/// The answer in a mood. What is begun with 200 counts as accepted, though the end of it may never come.
fn answer_with_fault(fault: Option<Fault>, random: u64) -> (Answer, ReceiverAnswer) {
    use ReceiverAnswer::{Accepted, Rejected};
    // Dripping and endless answers say that all is well or that it is not, by turns.
    let (status, said) = if random.is_multiple_of(2) { (200, Accepted) } else { (500, Rejected) };
    match fault {
        Some(Fault::ReceiverFails) => (Answer::status(500), Rejected),
        Some(Fault::ReceiverRateLimits) => (Answer::status(429).header("retry-after", "2"), Rejected),
        Some(Fault::ReceiverGone) => (Answer::status(410), Rejected),
        Some(Fault::ReceiverHangs) => (Answer::never(), Rejected),
        Some(Fault::ReceiverResets) => (Answer::reset(), Rejected),
        Some(Fault::ReceiverTrickles) => {
            (Answer::status(status).body(vec![b'.'; 100]).trickling(TRICKLE_INTERVAL), said)
        }
        Some(Fault::ReceiverNeverEnds) => (Answer::status(status).body(vec![b'.'; 4096]).endless(), said),
        _ => (Answer::ok(), Accepted),
    }
}
