//! The account: what became of every event, from what the publishers, the receivers and the dead-letter stream have. A plain
//! function of the three.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::books::{Answered, Pages, Published};
use super::letters::Letter;
use super::load::{Errand, errands};

/// The account at the end of a drill.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Events the broker has confirmed.
    pub(crate) published: usize,
    /// Events whose confirm never came.
    pub(crate) unsure: usize,
    /// Of those, how many came all the same.
    pub(crate) unsure_but_came: usize,
    /// What the confirmed events had to reach: `delivered`, `dead` and `lost` together.
    pub(crate) errands: usize,
    /// A receiver said 2xx.
    pub(crate) delivered: usize,
    /// No receiver did, and it is in the dead-letter stream: how many, by reason.
    pub(crate) dead: BTreeMap<String, usize>,
    /// Neither.
    pub(crate) lost: Vec<Errand>,
    /// Requests, of whatever event.
    pub(crate) requests: usize,
    /// Requests that were answered with 2xx though one of the same errand had been before.
    pub(crate) duplicates: usize,
    /// Errands that were delivered, and are dead letters as well.
    pub(crate) delivered_and_dead: usize,
    /// Dead letters of errands that had one already.
    pub(crate) letters_doubled: usize,
    /// What must never be: an errand with two `webhook-id`s, two errands with one, something that was
    /// not published, a delivery given up before its time.
    pub(crate) contradictions: Vec<String>,
}

impl Account {
    /// Whether it is as it was promised.
    pub(crate) fn balances(&self) -> bool {
        self.lost.is_empty() && self.contradictions.is_empty()
    }
}

/// Draws it up.
pub(crate) fn draw_up(pages: &Pages, letters: &[Letter]) -> Account {
    let mut account = Account { requests: pages.receipts.len(), ..Account::default() };
    let mut ids = Ids::default();
    let mut delivered = BTreeSet::new();
    for receipt in &pages.receipts {
        ids.note(receipt.errand, &receipt.webhook_id, &mut account.contradictions);
        if receipt.answered == Answered::Accepted && !delivered.insert(receipt.errand) {
            account.duplicates += 1;
        }
    }
    let mut dead: BTreeMap<Errand, &str> = BTreeMap::new();
    for letter in letters {
        if let Some(id) = &letter.delivery_id {
            ids.note(letter.errand, id, &mut account.contradictions);
        }
        if !letter.is_due() {
            account.contradictions.push(format!("dead before its time: {letter:?}"));
        }
        if dead.insert(letter.errand, &letter.reason).is_some() {
            account.letters_doubled += 1;
        }
    }
    for errand in delivered.iter().chain(dead.keys()) {
        if !errands(errand.event).contains(errand) || !pages.published.contains_key(&errand.event) {
            account.contradictions.push(format!("{errand:?} came, and was not published"));
        }
    }
    account.delivered_and_dead = dead.keys().filter(|errand| delivered.contains(errand)).count();
    for (event, published) in &pages.published {
        let came = |errand: &Errand| delivered.contains(errand) || dead.contains_key(errand);
        if *published == Published::Unsure {
            account.unsure += 1;
            account.unsure_but_came += usize::from(errands(*event).iter().any(came));
            continue;
        }
        account.published += 1;
        for errand in errands(*event) {
            account.errands += 1;
            if delivered.contains(&errand) {
                account.delivered += 1;
            } else if let Some(reason) = dead.get(&errand) {
                *account.dead.entry((*reason).to_owned()).or_default() += 1;
            } else {
                account.lost.push(errand);
            }
        }
    }
    account
}

/// Which `webhook-id` belongs to which errand.
#[derive(Default)]
struct Ids<'a> {
    of_errand: HashMap<Errand, &'a str>,
    of_id: HashMap<&'a str, Errand>,
}

impl<'a> Ids<'a> {
    fn note(&mut self, errand: Errand, id: &'a str, contradictions: &mut Vec<String>) {
        let known = *self.of_errand.entry(errand).or_insert(id);
        if known != id {
            contradictions.push(format!("{errand:?} has two webhook-ids, {known} and {id}"));
        }
        let owner = *self.of_id.entry(id).or_insert(errand);
        if owner != errand {
            contradictions.push(format!("{owner:?} and {errand:?} have one webhook-id, {id}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::books::Receipt;
    use super::super::load::{ATTEMPTS, Hook};
    use super::*;

    fn receipt(event: u64, hook: Hook, webhook_id: &str, answered: Answered) -> Receipt {
        Receipt { errand: Errand { event, hook }, webhook_id: webhook_id.into(), at: Duration::ZERO, answered }
    }

    fn letter(event: u64, hook: Hook, delivery_id: Option<&str>) -> Letter {
        let delivery_id = delivery_id.map(str::to_owned);
        let (errand, reason) = (Errand { event, hook }, "exhausted".to_owned());
        let id = Some(format!("dl_{event}"));
        Letter { id, errand, delivery_id, reason, replayed: false, attempts: ATTEMPTS, status: Some(500) }
    }

    fn pages(published: &[(u64, Published)], receipts: Vec<Receipt>) -> Pages {
        Pages { published: published.iter().copied().collect(), receipts, ..Pages::default() }
    }

    #[test]
    fn every_errand_is_in_one_place() {
        let published = [(1, Published::Confirmed), (2, Published::Confirmed), (3, Published::Confirmed)];
        let receipts = vec![
            receipt(1, Hook::Section, "a", Answered::Refused),
            receipt(1, Hook::Section, "a", Answered::Accepted),
            receipt(2, Hook::Section, "b", Answered::Refused),
            receipt(3, Hook::Section, "c", Answered::Accepted),
        ];
        let account = draw_up(&pages(&published, receipts), &[letter(2, Hook::Section, Some("b"))]);
        assert_eq!((account.published, account.errands, account.delivered, account.requests), (3, 4, 2, 4));
        assert_eq!(account.dead, BTreeMap::from([("exhausted".to_owned(), 1)]));
        assert_eq!(account.lost, [Errand { event: 3, hook: Hook::Entry }]);
        assert_eq!(account.contradictions, Vec::<String>::new());
        assert!(!account.balances());
    }

    #[test]
    fn what_was_never_confirmed_may_come_or_not() {
        let published = [(1, Published::Unsure), (2, Published::Unsure)];
        let account = draw_up(&pages(&published, vec![receipt(1, Hook::Section, "a", Answered::Accepted)]), &[]);
        assert_eq!((account.unsure, account.unsure_but_came, account.errands), (2, 1, 0));
        assert!(account.balances());
    }

    #[test]
    fn doubles_are_counted_and_contradictions_told() {
        let published = [(1, Published::Confirmed), (2, Published::Confirmed)];
        let accepted = |event, id| receipt(event, Hook::Section, id, Answered::Accepted);
        let receipts = vec![accepted(1, "a"), accepted(1, "a"), accepted(2, "b")];
        let letters = [letter(1, Hook::Section, Some("a")), letter(1, Hook::Section, None)];
        let account = draw_up(&pages(&published, receipts), &letters);
        assert_eq!((account.duplicates, account.delivered_and_dead, account.letters_doubled), (1, 1, 1));
        assert!(account.balances());

        let soon = Letter { attempts: 3, ..letter(1, Hook::Section, None) };
        let contradictions = draw_up(&pages(&published, Vec::new()), &[soon]).contradictions;
        assert!(contradictions[0].contains("before its time"), "{contradictions:?}");
        let again = Letter { attempts: 1, replayed: true, ..letter(1, Hook::Section, None) };
        assert!(
            draw_up(&pages(&published, Vec::new()), &[again]).contradictions.is_empty(),
            "a replay makes one attempt"
        );

        let receipts = vec![accepted(1, "a"), accepted(1, "b"), accepted(2, "b"), accepted(4, "d")];
        let account = draw_up(&pages(&published, receipts), &[]);
        assert_eq!(account.contradictions.len(), 3, "{:?}", account.contradictions);
        assert!(!account.balances());
    }
}
