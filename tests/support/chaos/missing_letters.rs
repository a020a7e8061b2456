//! Finds dead letters that are in the stream but that a worker does not show.

use std::collections::{BTreeMap, BTreeSet};

use super::dead_letters::DeadLetter;
use super::views::WorkerView;

/// The reasons of letters for messages that RabbitMQ removed from a queue.
const REMOVAL_REASONS: [&str; 4] = ["poison", "expired", "rejected", "maxlen"];

/// One line for each letter that is missing in a view.
pub(crate) fn missing_letters(letters: &[DeadLetter], views: &[WorkerView]) -> Vec<String> {
    let mut lacking: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (worker, view) in views.iter().enumerate() {
        for letter in missing_in_view(letters, view) {
            lacking.entry(letter).or_default().insert(worker);
        }
    }
    let line = |(letter, workers): (String, BTreeSet<usize>)| {
        format!("the stream has {letter}, and workers {workers:?} do not show it")
    };
    lacking.into_iter().map(line).collect()
}

fn missing_in_view(letters: &[DeadLetter], view: &WorkerView) -> Vec<String> {
    let is_of_removal = |reason: &str| REMOVAL_REASONS.contains(&reason);
    let removed = view.letters.values().filter(|letter| is_of_removal(&letter.reason));
    let removed_events: BTreeSet<u64> = removed.filter_map(|letter| letter.event).collect();
    let missing = letters.iter().filter_map(|letter| {
        let event = letter.delivery.event;
        match &letter.id {
            Some(id) => (!view.letters.contains_key(id)).then(|| format!("letter {id} ({:?})", letter.delivery)),
            // The id of such a letter depends on its offset, so letters are compared by event.
            None => (!removed_events.contains(&event)).then(|| format!("event {event}, removed by RabbitMQ")),
        }
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::super::load::{ExpectedDelivery, MAX_ATTEMPTS, WebhookKind};
    use super::super::views::LetterState;
    use super::*;

    fn letter(event: u64, id: Option<&str>) -> DeadLetter {
        DeadLetter {
            id: id.map(str::to_owned),
            delivery: ExpectedDelivery { event, webhook: WebhookKind::Section },
            delivery_id: None,
            reason: "exhausted".to_owned(),
            replayed: false,
            attempts: MAX_ATTEMPTS,
            status: Some(500),
        }
    }

    fn view(letters: &[(&str, u64, &str)]) -> WorkerView {
        let letters = letters.iter().map(|(id, event, reason)| {
            let (state, reason) = ("pending".to_owned(), (*reason).to_owned());
            ((*id).to_owned(), LetterState { state, reason, event: Some(*event), webhook: Some(WebhookKind::Section) })
        });
        WorkerView { letters: letters.collect(), ..WorkerView::default() }
    }

    #[test]
    fn each_letter_is_in_every_view() {
        let letters = [letter(1, Some("a")), letter(1, Some("a")), letter(2, Some("b"))];
        let (all, one) = (view(&[("a", 1, "exhausted"), ("b", 2, "gone")]), view(&[("b", 2, "gone")]));
        assert_eq!(missing_letters(&letters, &[all.clone(), all.clone()]), Vec::<String>::new());
        let lines = missing_letters(&letters, &[all, one, view(&[])]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("letter a ") && lines[0].contains("{1, 2}"), "{lines:?}");
        assert!(lines[1].contains("letter b ") && lines[1].contains("{2}"), "{lines:?}");
    }

    #[test]
    fn a_removed_message_has_a_letter_of_its_removal() {
        let removed = [letter(3, None), letter(3, None)];
        assert_eq!(missing_letters(&removed, &[view(&[("a", 3, "poison")])]), Vec::<String>::new());
        assert_eq!(missing_letters(&removed, &[view(&[("a", 4, "poison")])]).len(), 1, "another event");
        assert_eq!(
            missing_letters(&removed, &[view(&[("a", 3, "exhausted")])]).len(),
            1,
            "another delivery of the event"
        );
    }
}
