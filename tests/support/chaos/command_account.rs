//! What happened to the operator's commands, and whether workers show every dead letter. Computed from the commands,
//! the requests that receivers accepted, the dead-letter stream, and the final views of the workers.

use std::collections::{BTreeMap, BTreeSet};

use super::dead_letters::DeadLetter;
use super::ledger::{LedgerEntries, OperatorCommand, ReceiverAnswer};
use super::load::ExpectedDelivery;
use super::missing_letters::missing_letters;
use super::views::{LetterState, WorkerView};

/// The account of the operator's commands.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct CommandAccount {
    /// Confirmed changes of campaigns, and changes with an unknown result.
    pub(crate) changes: (usize, usize),
    /// Accepted replays, and replays with an unknown result.
    pub(crate) replays: (usize, usize),
    /// Confirmed discards, and discards with an unknown result.
    pub(crate) discards: (usize, usize),
    /// The number of letters by final state.
    pub(crate) states: BTreeMap<String, usize>,
    /// Violated invariants.
    pub(crate) contradictions: Vec<String>,
}

pub(crate) fn build_account(pages: &LedgerEntries, in_stream: &[DeadLetter], views: &[WorkerView]) -> CommandAccount {
    let mut account = CommandAccount::default();
    let Some(view) = views.first() else {
        account.contradictions.push("a worker did not show what it has".to_owned());
        return account;
    };
    for (worker, other) in views.iter().enumerate().skip(1) {
        if other != view {
            account
                .contradictions
                .push(format!("worker {worker} does not show what worker 0 shows: {}", first_difference(view, other)));
        }
    }
    account.contradictions.extend(missing_letters(in_stream, views));
    check_campaigns(pages, view, &mut account);
    check_letters(pages, view, &mut account);
    account
}

/// Describes the first difference of two views.
fn first_difference(one: &WorkerView, other: &WorkerView) -> String {
    if one.campaigns != other.campaigns {
        return format!("campaigns {:?} and {:?}", one.campaigns, other.campaigns);
    }
    if one.replays != other.replays {
        return format!("replays {:?} and {:?}", one.replays, other.replays);
    }
    let ids: BTreeSet<&String> = one.letters.keys().chain(other.letters.keys()).collect();
    let differing: Vec<&String> = ids.into_iter().filter(|id| one.letters.get(*id) != other.letters.get(*id)).collect();
    let first = differing.first().map(|id| (id, one.letters.get(*id), other.letters.get(*id)));
    format!("{} letters, the first {first:?}", differing.len())
}

/// Each confirmed change must be in the campaign or in one of its earlier versions. All parts of a campaign must have
/// the same edition.
fn check_campaigns(pages: &LedgerEntries, view: &WorkerView, account: &mut CommandAccount) {
    for (receiver, (version, edition)) in view.campaigns.iter().enumerate() {
        let Some(edition) = edition else {
            account.contradictions.push(format!("campaign {receiver} is of two editions"));
            continue;
        };
        let mut last_confirmed = (0, 0);
        let mut known = BTreeSet::from([0]);
        for order in &pages.commands {
            let OperatorCommand::UpdateCampaign { receiver: of, edition, version } = order else { continue };
            if *of != receiver {
                continue;
            }
            known.insert(*edition);
            match version {
                Some(version) => {
                    account.changes.0 += 1;
                    last_confirmed = last_confirmed.max((*version, *edition));
                }
                None => account.changes.1 += 1,
            }
        }
        if last_confirmed.0 > *version {
            account
                .contradictions
                .push(format!("campaign {receiver} is version {version}, and {last_confirmed:?} was confirmed"));
        } else if last_confirmed.0 == *version && last_confirmed.1 != *edition {
            account
                .contradictions
                .push(format!("campaign {receiver} is {edition} in the version of {last_confirmed:?}"));
        } else if !known.contains(edition) {
            account.contradictions.push(format!("campaign {receiver} is {edition}, which nobody wanted"));
        }
    }
}

/// Each letter must be in a state that a command asked for. A replayed letter must be accepted, or dead again as
/// another letter.
fn check_letters(pages: &LedgerEntries, view: &WorkerView, account: &mut CommandAccount) {
    let mut to_replay = BTreeSet::new();
    let mut to_discard = BTreeMap::new();
    // The operator selected these letters at a worker that had not read the discard yet. A discarded letter may be
    // replayed by its id.
    let mut replayed_after_discard = BTreeSet::new();
    for order in &pages.commands {
        match order {
            OperatorCommand::UpdateCampaign { .. } => {}
            OperatorCommand::Replay { letters, id } => {
                to_replay.extend(letters);
                replayed_after_discard.extend(letters.iter().filter(|letter| to_discard.contains_key(letter)));
                match id {
                    Some(id) => {
                        account.replays.0 += 1;
                        match view.replays.get(id).map(String::as_str) {
                            Some("done") => {}
                            state => account.contradictions.push(format!("replay {id} was accepted, and is {state:?}")),
                        }
                    }
                    None => account.replays.1 += 1,
                }
            }
            OperatorCommand::Discard { letter, confirmed } => {
                *to_discard.entry(letter).or_default() |= *confirmed;
                if *confirmed { account.discards.0 += 1 } else { account.discards.1 += 1 }
            }
        }
    }
    let accepted: BTreeSet<ExpectedDelivery> = pages
        .requests
        .iter()
        .filter(|receipt| receipt.answer == ReceiverAnswer::Accepted)
        .map(|receipt| receipt.delivery)
        .collect();
    let mut letters_of: BTreeMap<ExpectedDelivery, usize> = BTreeMap::new();
    for delivery in view.letters.values().filter_map(LetterState::delivery) {
        *letters_of.entry(delivery).or_default() += 1;
    }
    let came_to_an_end =
        |delivery: &ExpectedDelivery| accepted.contains(delivery) || letters_of.get(delivery) > Some(&1);
    for (id, letter) in &view.letters {
        *account.states.entry(letter.state.clone()).or_default() += 1;
        let wrong = match letter.state.as_str() {
            "pending" => false,
            "replayed" => {
                !to_replay.contains(id) || !letter.delivery().is_some_and(|delivery| came_to_an_end(&delivery))
            }
            "discarded" => !to_discard.contains_key(id),
            _ => true,
        };
        if wrong {
            account.contradictions.push(format!("letter {id} is {letter:?}, which nobody wanted or no receiver has"));
        }
    }
    for (letter, confirmed) in to_discard {
        let state = view.letters.get(letter).map(|letter| letter.state.as_str());
        let is_replayed = state == Some("replayed") && replayed_after_discard.contains(letter);
        if confirmed && state != Some("discarded") && !is_replayed {
            account.contradictions.push(format!("letter {letter} was discarded, and is {state:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::ReceivedRequest;
    use super::super::load::WebhookKind;
    use super::*;

    fn letter(state: &str) -> LetterState {
        LetterState { state: state.into(), reason: "gone".into(), event: Some(1), webhook: Some(WebhookKind::Section) }
    }

    fn view(version: u64, edition: Option<u64>, state: &str) -> WorkerView {
        WorkerView {
            campaigns: vec![(version, edition)],
            letters: BTreeMap::from([("a".to_owned(), letter(state))]),
            replays: BTreeMap::from([("r".to_owned(), "done".to_owned())]),
        }
    }

    fn contradictions(orders: &[OperatorCommand], views: &[WorkerView], accepted: bool) -> usize {
        let answered = if accepted { ReceiverAnswer::Accepted } else { ReceiverAnswer::Rejected };
        let delivery = ExpectedDelivery { event: 1, webhook: WebhookKind::Section };
        let receipt =
            ReceivedRequest { delivery, webhook_id: "w".into(), at: std::time::Duration::ZERO, answer: answered };
        let pages = LedgerEntries { commands: orders.to_vec(), requests: vec![receipt], ..LedgerEntries::default() };
        build_account(&pages, &[], views).contradictions.len()
    }

    #[test]
    fn a_confirmed_change_is_there_and_whole() {
        let change = |edition, version| OperatorCommand::UpdateCampaign { receiver: 0, edition, version };
        let orders = [change(1, Some(10)), change(2, None), change(3, Some(12))];
        let with = |version, edition| contradictions(&orders, &[view(version, edition, "pending")], true);
        assert_eq!(with(12, Some(3)), 0);
        assert_eq!(with(13, Some(2)), 0, "the change with an unknown result came last");
        assert_eq!(with(10, Some(1)), 1, "the last change is missing");
        assert_eq!(with(12, Some(1)), 1);
        assert_eq!(with(12, None), 1);
        assert_eq!(with(14, Some(9)), 1);
    }

    #[test]
    fn letters_are_as_somebody_wanted_them() {
        let replay = [OperatorCommand::Replay { letters: vec!["a".into()], id: Some("r".into()) }];
        let discard = |confirmed| [OperatorCommand::Discard { letter: "a".into(), confirmed }];
        let with =
            |orders: &[OperatorCommand], state, accepted| contradictions(orders, &[view(1, Some(0), state)], accepted);
        assert_eq!(with(&replay, "replayed", true), 0);
        assert_eq!(with(&replay, "replayed", false), 1);
        let mut again = view(1, Some(0), "replayed");
        again.letters.insert("b".to_owned(), letter("pending"));
        assert_eq!(contradictions(&replay, &[again], false), 0, "the replay failed and gave another letter");
        assert_eq!(with(&replay, "pending", false), 0, "it died again");
        assert_eq!(with(&replay, "replaying", false), 1);
        assert_eq!(with(&discard(true), "discarded", false), 0);
        assert_eq!(with(&discard(true), "pending", false), 1);
        assert_eq!(with(&discard(false), "pending", false), 0);
        assert_eq!(with(&[], "discarded", false), 1);
        let [discard, replay] = [discard(true), replay].map(|[order]| order);
        assert_eq!(with(&[discard.clone(), replay.clone()], "replayed", true), 0);
        assert_eq!(with(&[replay, discard], "replayed", true), 1);
    }

    #[test]
    fn all_workers_show_the_same() {
        let (one, other) = (view(1, Some(0), "pending"), view(2, Some(0), "pending"));
        assert_eq!(contradictions(&[], &[one.clone(), one.clone()], true), 0);
        assert_eq!(contradictions(&[], &[one, other], true), 1);
    }
}
