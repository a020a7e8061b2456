//! The customers' endpoints. Each answers according to its current fault, and records every request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use super::ledger::{Ledger, ReceivedRequest, ReceiverAnswer};
use super::load::{ExpectedDelivery, WEBHOOK_PATHS, campaign, event_number};
use super::rng::mix;
use crate::support::receiver::Request;
use crate::support::{Answer, Receiver};

/// A fault affects this number of ten requests. The others are answered with 200.
const AFFECTED_OF_TEN: u64 = 8;

/// The pause between two bytes of a trickling answer. The whole answer takes longer than a webhook's timeout.
const TRICKLE_INTERVAL: Duration = Duration::from_millis(100);

/// An endpoint with a fault of the receivers' lanes, or none.
pub(crate) struct FaultyReceiver {
    receiver: Receiver,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl FaultyReceiver {
    /// Starts a receiver that answers 200.
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

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The campaign whose webhooks are at this receiver.
    pub(crate) fn campaign(&self, number: usize, edition: u64) -> serde_json::Value {
        campaign(number, edition, |path| self.receiver.url(path))
    }

    /// Frees the memory of requests that the ledger has recorded.
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

/// The answer under a fault. An answer that starts with 200 counts as accepted, even if it never ends.
fn answer_with_fault(fault: Option<Fault>, random: u64) -> (Answer, ReceiverAnswer) {
    use ReceiverAnswer::{Accepted, Rejected};
    // Trickling and endless answers are 200 or 500 at random.
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
