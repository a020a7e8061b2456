//! A naive implementation of the view: a list of letters and a map of replays, without an index.

use std::collections::{BTreeSet, HashMap};

use waypost_core::dead_letter::history::ReplayAttempt;

use super::*;
use crate::dead_letters::index_block::endpoint_of;

pub(super) struct NaiveView {
    retention: Duration,
    position: Option<StreamPosition>,
    /// Ordered by offset.
    letters: Vec<NaiveLetter>,
    replays: BTreeMap<ReplayId, NaiveReplay>,
    /// By offset.
    removed: BTreeMap<u64, RemovedMessage>,
}

struct NaiveLetter {
    offset: u64,
    /// The letter with its current state.
    letter: DeadLetter,
    replays: Vec<ReplayAttempt>,
    discard: Option<OperatorAction>,
    erased: Option<OperatorAction>,
    /// The replays that have recorded a result for the letter.
    recorded: BTreeSet<ReplayId>,
    claimed_by: Option<ReplayId>,
}

struct NaiveReplay {
    replay: Replay,
    updated_at: DateTime<Utc>,
}

/// A [`RecordOutcome`] without the progress of a replay.
#[derive(Debug, PartialEq)]
pub(super) enum NaiveOutcome {
    Letters(u64),
    Replay(Box<Replay>),
    Refused(ReplayState),
    NoEffect,
}

impl From<&RecordOutcome> for NaiveOutcome {
    fn from(outcome: &RecordOutcome) -> Self {
        match outcome {
            RecordOutcome::Letters(letters) => Self::Letters(*letters),
            RecordOutcome::Replay(progress) => Self::Replay(Box::new(progress.replay.clone())),
            RecordOutcome::Refused(state) => Self::Refused(*state),
            RecordOutcome::NoEffect => Self::NoEffect,
        }
    }
}

impl NaiveLetter {
    /// The state without a claim.
    fn unclaimed_state(&self) -> LetterState {
        let last_replay = self.replays.iter().map(|replay| replay.at).max();
        match (&self.discard, last_replay) {
            (None, None) => LetterState::Pending,
            (Some(discard), Some(replay)) if discard.at > replay => LetterState::Discarded,
            (Some(_), None) => LetterState::Discarded,
            (_, Some(_)) => LetterState::Replayed,
        }
    }

    fn release(&mut self) {
        self.claimed_by = None;
        self.letter.state = self.unclaimed_state();
    }

    fn attempt_mut(&mut self, replay: &ReplayId, at: DateTime<Utc>, outcome: ReplayOutcome) -> &mut ReplayAttempt {
        let replays = &mut self.replays;
        if !replays.iter().any(|attempt| attempt.replay_id == *replay) {
            replays.push(ReplayAttempt { replay_id: replay.clone(), at, outcome, dead_letter_id: None });
        }
        replays.iter_mut().find(|attempt| attempt.replay_id == *replay).expect("it exists")
    }
}

impl NaiveReplay {
    fn end(&mut self, state: ReplayState, at: DateTime<Utc>) {
        (self.replay.state, self.replay.ended_at) = (state, Some(at));
    }

    fn is_open(&self) -> bool {
        self.replay.ended_at.is_none()
    }

    fn judge(&mut self, left: usize, at: DateTime<Utc>) {
        if !self.is_open() {
            return;
        }
        self.updated_at = at;
        let Replay { delivered, requeued, failed, total, stop_on_failure_ratio, .. } = self.replay;
        let (judged, enough) = (delivered + failed, total.saturating_sub(requeued).min(20));
        let too_many = |ratio| failed > 0 && judged >= enough && failed as f64 >= ratio * judged as f64;
        if stop_on_failure_ratio.is_some_and(too_many) {
            self.end(ReplayState::Stopped, at);
        } else if left == 0 {
            self.end(ReplayState::Done, at);
        }
    }
}

impl NaiveView {
    pub(super) fn new(retention: Duration) -> Self {
        Self { retention, position: None, letters: Vec::new(), replays: BTreeMap::new(), removed: BTreeMap::new() }
    }

    fn letter_mut(&mut self, id: &DeadLetterId) -> Option<&mut NaiveLetter> {
        self.letters.iter_mut().find(|naive_letter| naive_letter.letter.id == *id)
    }

    fn claimed_letters(&self, replay: &ReplayId) -> Vec<&NaiveLetter> {
        self.letters.iter().filter(|naive_letter| naive_letter.claimed_by.as_ref() == Some(replay)).collect()
    }

    fn judge(&mut self, replay: &ReplayId, at: DateTime<Utc>) {
        let left = self.claimed_letters(replay).len();
        if let Some(naive_replay) = self.replays.get_mut(replay) {
            naive_replay.judge(left, at);
        }
    }

    /// Releases the unsent letters of an ended replay.
    fn release_if_ended(&mut self, replay: &ReplayId) {
        if self.replays.get(replay).is_some_and(|naive_replay| !naive_replay.is_open()) {
            let unsent =
                self.letters.iter_mut().filter(|naive_letter| naive_letter.claimed_by.as_ref() == Some(replay));
            unsent.for_each(NaiveLetter::release);
        }
    }

    pub(super) fn apply(&mut self, entry: &StreamEntry) -> NaiveOutcome {
        self.position = Some(entry.position.clone());
        let Payload::Record(record) = &entry.payload else {
            return match &entry.payload {
                Payload::Letter(letter) => self.add_letter(entry.position.offset, letter),
                Payload::Removed(message) => {
                    self.removed.insert(entry.position.offset, (**message).clone());
                    NaiveOutcome::NoEffect
                }
                _ => NaiveOutcome::NoEffect,
            };
        };
        match record {
            DeadLetterRecord::Replay(replay) => {
                if !self.replays.contains_key(&replay.id) {
                    self.create(replay);
                }
                NaiveOutcome::Replay(Box::new(self.replays[&replay.id].replay.clone()))
            }
            DeadLetterRecord::Discard(discard) => {
                let mut letters = 0;
                for id in &discard.ids {
                    if let Some(naive_letter) =
                        self.letter_mut(id).filter(|naive_letter| naive_letter.letter.state == LetterState::Pending)
                    {
                        naive_letter.letter.state = LetterState::Discarded;
                        naive_letter.discard = Some(discard.action.clone());
                        letters += 1;
                    }
                }
                NaiveOutcome::Letters(letters)
            }
            DeadLetterRecord::Erase(erase) => {
                let mut letters = 0;
                let mut phones = BTreeSet::new();
                for id in &erase.ids {
                    if let Some(naive_letter) =
                        self.letter_mut(id).filter(|naive_letter| naive_letter.claimed_by.is_none())
                    {
                        let event = naive_letter.letter.event.as_ref().filter(|_| naive_letter.erased.is_none());
                        phones.extend(event.map(|event| event.phone_number.clone()));
                        naive_letter.letter =
                            DeadLetter { state: LetterState::Discarded, ..naive_letter.letter.clone().erased() };
                        naive_letter.discard.get_or_insert_with(|| erase.action.clone());
                        naive_letter.erased = Some(erase.action.clone());
                        letters += 1;
                    }
                }
                for filter in self.replays.values_mut().filter_map(|naive_replay| naive_replay.replay.filter.as_mut()) {
                    if filter.phone_number.as_ref().is_some_and(|phone| phones.contains(phone)) {
                        *filter = filter.masked();
                    }
                }
                NaiveOutcome::Letters(letters)
            }
            DeadLetterRecord::Batch(batch) => self.record_sent(batch),
            DeadLetterRecord::Control(control) => {
                let Some(naive_replay) = self.replays.get_mut(&control.replay) else { return NaiveOutcome::NoEffect };
                match (control.command, naive_replay.replay.state) {
                    (ReplayCommand::Pause, ReplayState::Running) => naive_replay.replay.state = ReplayState::Paused,
                    (ReplayCommand::Resume, ReplayState::Paused) => naive_replay.replay.state = ReplayState::Running,
                    (ReplayCommand::Cancel, _) if naive_replay.is_open() => {
                        naive_replay.end(ReplayState::Cancelled, control.at)
                    }
                    (_, state) => return NaiveOutcome::Refused(state),
                }
                naive_replay.updated_at = control.at;
                let replay = naive_replay.replay.clone();
                self.release_if_ended(&replay.id);
                NaiveOutcome::Replay(Box::new(replay))
            }
            DeadLetterRecord::RemovedMessageDone(done) => {
                NaiveOutcome::Letters(u64::from(self.removed.remove(&done.offset).is_some()))
            }
        }
    }

    fn add_letter(&mut self, offset: u64, letter: &DeadLetter) -> NaiveOutcome {
        if self.letter_mut(&letter.id).is_some() {
            return NaiveOutcome::Letters(0);
        }
        self.letters.push(NaiveLetter {
            offset,
            letter: letter.clone(),
            replays: Vec::new(),
            discard: None,
            erased: None,
            recorded: BTreeSet::new(),
            claimed_by: None,
        });
        if let (Some(original), Some(replay)) = (&letter.replay_of, &letter.replay_id)
            && let Some(original) = self.letter_mut(original)
        {
            original.attempt_mut(replay, letter.dead_at, ReplayOutcome::Dead).dead_letter_id = Some(letter.id.clone());
            if let Some(action) = original.erased.clone() {
                let new = self.letters.last_mut().expect("it exists");
                new.letter = DeadLetter { state: LetterState::Discarded, ..new.letter.clone().erased() };
                (new.discard, new.erased) = (Some(action.clone()), Some(action));
            }
        }
        NaiveOutcome::Letters(1)
    }

    /// Adds a replay, which claims all letters that it selects.
    fn create(&mut self, replay: &Replay) {
        let mut claimed = 0;
        for naive_letter in &mut self.letters {
            let age = (replay.created_at - naive_letter.letter.dead_at).to_std().unwrap_or_default();
            let is_selected = match (&replay.filter, &replay.ids) {
                (Some(filter), _) => matches(&filter.or_pending(), naive_letter),
                (None, Some(ids)) => ids.contains(&naive_letter.letter.id),
                (None, None) => false,
            };
            if is_selected
                && naive_letter.claimed_by.is_none()
                && naive_letter.erased.is_none()
                && age <= self.retention
            {
                naive_letter.letter.state = LetterState::Replaying;
                naive_letter.claimed_by = Some(replay.id.clone());
                claimed += 1;
            }
        }
        let replay = Replay { total: claimed, ..replay.clone() };
        let mut naive_replay = NaiveReplay { updated_at: replay.created_at, replay };
        if claimed == 0 {
            naive_replay.end(ReplayState::Done, naive_replay.updated_at);
        }
        self.replays.insert(naive_replay.replay.id.clone(), naive_replay);
    }

    /// Records letters that the replay has claimed, and unclaimed letters without a result of this replay.
    fn record_sent(&mut self, batch: &ReplayBatch) -> NaiveOutcome {
        let mut letters = 0;
        for LetterResult { id, outcome } in &batch.sent {
            let is_countable = |naive_letter: &&mut NaiveLetter| match &naive_letter.claimed_by {
                Some(replay) => *replay == batch.replay,
                None => !naive_letter.recorded.contains(&batch.replay),
            };
            let Some(naive_letter) = self.letter_mut(id).filter(is_countable) else { continue };
            naive_letter.claimed_by = None;
            naive_letter.letter.state = LetterState::Replayed;
            naive_letter.recorded.insert(batch.replay.clone());
            let sent = naive_letter.attempt_mut(&batch.replay, batch.at, *outcome);
            (sent.at, sent.outcome) = (batch.at, *outcome);
            if let Some(NaiveReplay { replay, .. }) = self.replays.get_mut(&batch.replay) {
                replay.sent += 1;
                *match outcome {
                    ReplayOutcome::Delivered => &mut replay.delivered,
                    ReplayOutcome::Requeued => &mut replay.requeued,
                    ReplayOutcome::Dead => &mut replay.failed,
                } += 1;
            }
            letters += 1;
        }
        self.judge(&batch.replay, batch.at);
        self.release_if_ended(&batch.replay);
        NaiveOutcome::Letters(letters)
    }

    pub(super) fn delete_before(&mut self, milliseconds: i64, blocks: usize) -> u64 {
        let is_old = |time: DateTime<Utc>| time.timestamp_millis() < milliseconds;
        let ended = |naive_replay: &NaiveReplay| naive_replay.replay.ended_at.is_some_and(is_old);
        let ended_replays: Vec<ReplayId> =
            self.replays.iter().filter(|(_, naive_replay)| ended(naive_replay)).map(|(id, _)| id.clone()).collect();
        let young_blocks: BTreeSet<u64> = self
            .letters
            .iter()
            .filter(|naive_letter| !is_old(naive_letter.letter.dead_at))
            .map(|naive_letter| naive_letter.offset / 64)
            .collect();
        let all_blocks: BTreeSet<u64> = self.letters.iter().map(|naive_letter| naive_letter.offset / 64).collect();
        let old_blocks: Vec<u64> = all_blocks.difference(&young_blocks).copied().take(blocks).collect();
        let deleted: Vec<NaiveLetter> =
            self.letters.extract_if(.., |naive_letter| old_blocks.contains(&(naive_letter.offset / 64))).collect();
        for replay in deleted.iter().filter_map(|naive_letter| naive_letter.claimed_by.as_ref()) {
            let at = self.replays[replay].updated_at;
            self.judge(replay, at);
        }
        for id in ended_replays {
            self.replays.remove(&id);
        }
        deleted.len() as u64
    }

    /// Asserts that the view returns the same results.
    pub(super) fn compare(&self, log: &TestStream, queries: &[Query]) {
        let view = log.view();
        assert_eq!(view.position().expect("a position"), self.position);
        let in_state =
            |state| self.letters.iter().filter(|naive_letter| naive_letter.letter.state == state).count() as u64;
        assert_eq!(view.counts(), LetterState::ALL.map(in_state));
        for number in 0..=LETTERS {
            let id = DeadLetterId::new(format!("dl_{number}"));
            let naive_letter = self.letters.iter().find(|naive_letter| naive_letter.letter.id == id);
            assert_eq!(log.state(id.as_str()), naive_letter.map(|naive_letter| naive_letter.letter.state));
            let stored = view.letter(&id).expect("a letter");
            assert_eq!(
                stored.map(|stored| (stored.offset, stored.letter)),
                naive_letter.map(|naive_letter| (naive_letter.offset, naive_letter.letter.clone()))
            );
            if let Some(naive_letter) = naive_letter {
                let history = view.history(naive_letter.offset).expect("a history");
                assert_eq!(
                    (&history.replays, &history.discard, &history.erased),
                    (&naive_letter.replays, &naive_letter.discard, &naive_letter.erased)
                );
                for replay in (0..REPLAYS).map(|number| ReplayId::new(format!("rp_{number}"))) {
                    assert_eq!(history.is_recorded(&replay), naive_letter.recorded.contains(&replay));
                }
            }
        }
        let mut removed = view.removed_messages(7, usize::MAX, usize::MAX).expect("removed messages");
        removed.sort_by_key(|(offset, _)| *offset);
        assert!(removed.iter().map(|(offset, message)| (offset, message)).eq(&self.removed));
        self.compare_replays(log);
        for query in queries {
            self.compare_query(log, query);
        }
    }

    fn compare_replays(&self, log: &TestStream) {
        let view = log.view();
        let replays = view.replays(None, REPLAYS, |progress| progress).expect("replays");
        assert!(replays.iter().map(|progress| &progress.replay.id).eq(self.replays.keys().rev()));
        if let [newest, older @ ..] = &replays[..] {
            assert_eq!(view.replays(Some(&newest.replay.id), REPLAYS, |progress| progress).expect("replays"), older);
        }
        let mut claimed = BTreeSet::new();
        for progress in &replays {
            let naive_replay = &self.replays[&progress.replay.id];
            assert_eq!(progress.replay, naive_replay.replay);
            assert_eq!((progress.claims, progress.updated_at), (ClaimState::Complete, naive_replay.updated_at));
            assert!(!progress.has_letters_to_release());
            let letters = log.claimed(progress.replay.id.as_str());
            let expected = self.claimed_letters(&progress.replay.id);
            let offsets: Vec<u64> = letters.iter().map(|stored| stored.offset).collect();
            assert_eq!(offsets, expected.iter().map(|naive_letter| naive_letter.offset).collect::<Vec<_>>());
            let few = view.claimed_letters(&progress.replay.id, 2).expect("letters");
            assert_eq!(ids(&few), ids(&letters[..letters.len().min(2)]));
            assert_eq!(progress.left, letters.len() as u64);
            assert_eq!(
                progress.replay.sent,
                progress.replay.delivered + progress.replay.requeued + progress.replay.failed
            );
            for stored in letters {
                assert_eq!(stored.letter.state, LetterState::Replaying);
                assert!(claimed.insert(stored.offset), "two replays have claimed the letter");
            }
        }
        assert_eq!(claimed.len() as u64, view.counts()[LetterState::Replaying as usize]);
        let sendable = view.sendable_replays().expect("replays");
        assert!(sendable.iter().eq(replays.iter().filter(|progress| progress.replay.state == ReplayState::Running)));
        assert!(sendable.iter().all(|progress| progress.left > 0), "a running replay has letters to send");
    }

    fn compare_query(&self, log: &TestStream, query: &Query) {
        let Query { filter, limit, from, to } = query;
        let matching: Vec<&NaiveLetter> =
            self.letters.iter().filter(|naive_letter| matches(filter, naive_letter)).collect();

        let newest_first: Vec<&NaiveLetter> = matching.iter().rev().copied().collect();
        let pages = log.pages(filter, *limit, far_deadline());
        let mut expected: Vec<Vec<&NaiveLetter>> = newest_first.chunks(*limit).map(<[_]>::to_vec).collect();
        if expected.is_empty() {
            expected.push(Vec::new());
        }
        let offsets = |pages: &[LetterPage]| -> Vec<Vec<u64>> {
            pages.iter().map(|page| page.letters.iter().map(|stored| stored.offset).collect()).collect()
        };
        let expected: Vec<Vec<u64>> =
            expected.iter().map(|page| page.iter().map(|naive_letter| naive_letter.offset).collect()).collect();
        assert_eq!(offsets(&pages), expected);

        let mut counts = log.view().count(filter).expect("counts");
        assert_eq!(counts.total, matching.len() as u64);
        let times = || matching.iter().map(|naive_letter| naive_letter.letter.dead_at.timestamp_millis());
        assert_eq!(counts.span, times().min().zip(times().max()));
        assert_eq!(counts.states, count_by(&matching, |letter| Some(letter.state)));
        assert_eq!(counts.reasons, count_by(&matching, |letter| Some(letter.reason)));
        assert_eq!(counts.statuses, count_by(&matching, |letter| Some(letter.status)));
        assert_eq!(counts.campaigns, count_by(&matching, |letter| letter.campaign_id.clone()));
        for (webhook, count) in count_by(&matching, |letter| letter.webhook_id.clone()) {
            let campaigns = counts.webhooks.remove(webhook.as_str()).expect("a webhook");
            assert_eq!(campaigns.values().sum::<u64>(), count);
        }
        assert!(counts.webhooks.is_empty());
        let endpoint = |letter: &DeadLetter| letter.url.as_deref().map(endpoint_of).filter(|name| !name.is_empty());
        assert_eq!(counts.endpoints, count_by(&matching, endpoint));

        let within = matching.iter().filter(|naive_letter| (*from..*to).contains(&naive_letter.offset));
        let (mut within, mut next) = (within.collect::<Vec<_>>().into_iter().peekable(), Some(*from));
        while let Some(from) = next {
            let page = log.view().find(filter, from..*to, *limit).expect("letters");
            let expected: Vec<_> = within
                .by_ref()
                .take(*limit)
                .map(|naive_letter| (naive_letter.offset, naive_letter.letter.id.clone()))
                .collect();
            assert_eq!(page.letters, expected);
            assert_eq!(page.next, within.peek().map(|naive_letter| naive_letter.offset));
            next = page.next;
        }
    }
}

fn matches(filter: &LetterFilter, naive_letter: &NaiveLetter) -> bool {
    let LetterFilter { campaign_id, label, webhook_id, phone_number, event_id, delivery_id, endpoint, .. } = filter;
    let LetterFilter { reason, status, since, until, state, .. } = filter;
    let letter = &naive_letter.letter;
    // An erased letter is not found by the mask that it shows.
    let phone = letter.event.as_ref().map(|event| &event.phone_number).filter(|_| naive_letter.erased.is_none());
    (campaign_id.is_none() || *campaign_id == letter.campaign_id)
        && (label.is_none() || *label == letter.label)
        && (webhook_id.is_none() || *webhook_id == letter.webhook_id)
        && phone_number.as_ref().is_none_or(|phone_number| phone == Some(phone_number))
        && (event_id.is_none() || *event_id == letter.event_id)
        && (delivery_id.is_none() || *delivery_id == letter.delivery_id)
        && endpoint.as_ref().is_none_or(|endpoint| letter.url.as_deref().map(endpoint_of) == Some(endpoint.to_string()))
        && reason.is_none_or(|reason| reason == letter.reason)
        && (status.is_none() || *status == letter.status)
        && since.is_none_or(|since| letter.dead_at >= since)
        && until.is_none_or(|until| letter.dead_at < until)
        && state.is_none_or(|state| state == letter.state)
}

fn count_by<T: std::hash::Hash + Eq>(
    letters: &[&NaiveLetter],
    value: impl Fn(&DeadLetter) -> Option<T>,
) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    for value in letters.iter().filter_map(|naive_letter| value(&naive_letter.letter)) {
        *counts.entry(value).or_default() += 1;
    }
    counts
}
