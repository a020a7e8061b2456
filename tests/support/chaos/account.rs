//! The account: what happened to every event, computed from the records of the publishers, the receivers and the
//! dead-letter stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dead_letters::DeadLetter;
use super::ledger::{LedgerEntries, PublishState, ReceiverAnswer};
use super::load::{ExpectedDelivery, expected_deliveries};

/// The account at the end of a drill.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Events that the broker confirmed.
    pub(crate) published: usize,
    /// Events that were published but never confirmed.
    pub(crate) unconfirmed: usize,
    /// Unconfirmed events that arrived nevertheless.
    pub(crate) unconfirmed_but_seen: usize,
    /// Deliveries expected from confirmed events: the sum of `delivered`, `dead` and `lost`.
    pub(crate) expected: usize,
    /// Deliveries that a receiver answered with 2xx.
    pub(crate) delivered: usize,
    /// Undelivered deliveries in the dead-letter stream, by reason.
    pub(crate) dead: BTreeMap<String, usize>,
    /// Deliveries that are neither delivered nor dead.
    pub(crate) lost: Vec<ExpectedDelivery>,
    /// All requests, also those of unconfirmed events.
    pub(crate) requests: usize,
    /// Requests answered with 2xx after an earlier request of the same delivery.
    pub(crate) duplicates: usize,
    /// Deliveries that succeeded and are also dead letters.
    pub(crate) delivered_and_dead: usize,
    /// Dead letters of deliveries that already had one.
    pub(crate) duplicate_letters: usize,
    /// Violated invariants: a delivery with two `webhook-id`s, two deliveries with one, a request that was not
    /// published, a delivery that was given up too early.
    pub(crate) contradictions: Vec<String>,
}

impl Account {
    /// Returns whether nothing was lost and no invariant was violated.
    pub(crate) fn is_balanced(&self) -> bool {
        self.lost.is_empty() && self.contradictions.is_empty()
    }
}

pub(crate) fn build_account(pages: &LedgerEntries, letters: &[DeadLetter]) -> Account {
    let mut account = Account { requests: pages.requests.len(), ..Account::default() };
    let mut ids = WebhookIds::default();
    let mut delivered = BTreeSet::new();
    for receipt in &pages.requests {
        ids.record(receipt.delivery, &receipt.webhook_id, &mut account.contradictions);
        if receipt.answer == ReceiverAnswer::Accepted && !delivered.insert(receipt.delivery) {
            account.duplicates += 1;
        }
    }
    let mut dead: BTreeMap<ExpectedDelivery, &str> = BTreeMap::new();
    for letter in letters {
        if let Some(id) = &letter.delivery_id {
            ids.record(letter.delivery, id, &mut account.contradictions);
        }
        if !letter.has_reached_its_end() {
            account.contradictions.push(format!("dead before its time: {letter:?}"));
        }
        if dead.insert(letter.delivery, &letter.reason).is_some() {
            account.duplicate_letters += 1;
        }
    }
    for delivery in delivered.iter().chain(dead.keys()) {
        if !expected_deliveries(delivery.event).contains(delivery) || !pages.published.contains_key(&delivery.event) {
            account.contradictions.push(format!("{delivery:?} came, and was not published"));
        }
    }
    account.delivered_and_dead = dead.keys().filter(|delivery| delivered.contains(delivery)).count();
    for (event, published) in &pages.published {
        let came = |delivery: &ExpectedDelivery| delivered.contains(delivery) || dead.contains_key(delivery);
        if *published == PublishState::Unconfirmed {
            account.unconfirmed += 1;
            account.unconfirmed_but_seen += usize::from(expected_deliveries(*event).iter().any(came));
            continue;
        }
        account.published += 1;
        for delivery in expected_deliveries(*event) {
            account.expected += 1;
            if delivered.contains(&delivery) {
                account.delivered += 1;
            } else if let Some(reason) = dead.get(&delivery) {
                *account.dead.entry((*reason).to_owned()).or_default() += 1;
            } else {
                account.lost.push(delivery);
            }
        }
    }
    account
}

/// The `webhook-id` of each delivery.
#[derive(Default)]
struct WebhookIds<'a> {
    by_delivery: HashMap<ExpectedDelivery, &'a str>,
    by_id: HashMap<&'a str, ExpectedDelivery>,
}

impl<'a> WebhookIds<'a> {
    fn record(&mut self, delivery: ExpectedDelivery, id: &'a str, contradictions: &mut Vec<String>) {
        let known = *self.by_delivery.entry(delivery).or_insert(id);
        if known != id {
            contradictions.push(format!("{delivery:?} has two webhook-ids, {known} and {id}"));
        }
        let owner = *self.by_id.entry(id).or_insert(delivery);
        if owner != delivery {
            contradictions.push(format!("{owner:?} and {delivery:?} have one webhook-id, {id}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ledger::ReceivedRequest;
    use super::super::load::{MAX_ATTEMPTS, WebhookKind};
    use super::*;

    fn receipt(event: u64, hook: WebhookKind, webhook_id: &str, answered: ReceiverAnswer) -> ReceivedRequest {
        ReceivedRequest {
            delivery: ExpectedDelivery { event, webhook: hook },
            webhook_id: webhook_id.into(),
            at: Duration::ZERO,
            answer: answered,
        }
    }

    fn letter(event: u64, hook: WebhookKind, delivery_id: Option<&str>) -> DeadLetter {
        let delivery_id = delivery_id.map(str::to_owned);
        let (delivery, reason) = (ExpectedDelivery { event, webhook: hook }, "exhausted".to_owned());
        let id = Some(format!("dl_{event}"));
        DeadLetter { id, delivery, delivery_id, reason, replayed: false, attempts: MAX_ATTEMPTS, status: Some(500) }
    }

    fn pages(published: &[(u64, PublishState)], receipts: Vec<ReceivedRequest>) -> LedgerEntries {
        LedgerEntries { published: published.iter().copied().collect(), requests: receipts, ..LedgerEntries::default() }
    }

    #[test]
    fn every_errand_is_in_one_place() {
        let published = [(1, PublishState::Confirmed), (2, PublishState::Confirmed), (3, PublishState::Confirmed)];
        let receipts = vec![
            receipt(1, WebhookKind::Section, "a", ReceiverAnswer::Rejected),
            receipt(1, WebhookKind::Section, "a", ReceiverAnswer::Accepted),
            receipt(2, WebhookKind::Section, "b", ReceiverAnswer::Rejected),
            receipt(3, WebhookKind::Section, "c", ReceiverAnswer::Accepted),
        ];
        let account = build_account(&pages(&published, receipts), &[letter(2, WebhookKind::Section, Some("b"))]);
        assert_eq!((account.published, account.expected, account.delivered, account.requests), (3, 4, 2, 4));
        assert_eq!(account.dead, BTreeMap::from([("exhausted".to_owned(), 1)]));
        assert_eq!(account.lost, [ExpectedDelivery { event: 3, webhook: WebhookKind::Entry }]);
        assert_eq!(account.contradictions, Vec::<String>::new());
        assert!(!account.is_balanced());
    }

    #[test]
    fn what_was_never_confirmed_may_come_or_not() {
        let published = [(1, PublishState::Unconfirmed), (2, PublishState::Unconfirmed)];
        let account = build_account(
            &pages(&published, vec![receipt(1, WebhookKind::Section, "a", ReceiverAnswer::Accepted)]),
            &[],
        );
        assert_eq!((account.unconfirmed, account.unconfirmed_but_seen, account.expected), (2, 1, 0));
        assert!(account.is_balanced());
    }

    #[test]
    fn doubles_are_counted_and_contradictions_told() {
        let published = [(1, PublishState::Confirmed), (2, PublishState::Confirmed)];
        let accepted = |event, id| receipt(event, WebhookKind::Section, id, ReceiverAnswer::Accepted);
        let receipts = vec![accepted(1, "a"), accepted(1, "a"), accepted(2, "b")];
        let letters = [letter(1, WebhookKind::Section, Some("a")), letter(1, WebhookKind::Section, None)];
        let account = build_account(&pages(&published, receipts), &letters);
        assert_eq!((account.duplicates, account.delivered_and_dead, account.duplicate_letters), (1, 1, 1));
        assert!(account.is_balanced());

        let soon = DeadLetter { attempts: 3, ..letter(1, WebhookKind::Section, None) };
        let contradictions = build_account(&pages(&published, Vec::new()), &[soon]).contradictions;
        assert!(contradictions[0].contains("before its time"), "{contradictions:?}");
        let again = DeadLetter { attempts: 1, replayed: true, ..letter(1, WebhookKind::Section, None) };
        assert!(
            build_account(&pages(&published, Vec::new()), &[again]).contradictions.is_empty(),
            "a replay makes one attempt"
        );

        let receipts = vec![accepted(1, "a"), accepted(1, "b"), accepted(2, "b"), accepted(4, "d")];
        let account = build_account(&pages(&published, receipts), &[]);
        assert_eq!(account.contradictions.len(), 3, "{:?}", account.contradictions);
        assert!(!account.is_balanced());
    }
}
