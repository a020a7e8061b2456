//! A view as one would write it first: a list of letters and a map of replays, looked through from end to end.

use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::delivery::dead_letter::record::ReplayAttempt;
use crate::store::dead_letters::index_block::endpoint_of;

/// The naive view.
pub(super) struct Naive {
    retention: Duration,
    position: Option<StreamPosition>,
    /// By their offsets.
    letters: Vec<Known>,
    jobs: BTreeMap<ReplayId, Course>,
    /// By their offsets.
    removed: BTreeMap<u64, RemovedMessage>,
}

/// A letter: its state and its time are those of now.
struct Known {
    offset: u64,
    letter: DeadLetter,
    replays: Vec<ReplayAttempt>,
    discard: Option<OperatorAction>,
    erased: Option<OperatorAction>,
    /// By the replays that have told how it went.
    recorded: BTreeSet<ReplayId>,
    claimed_by: Option<ReplayId>,
}

/// What is known of a replay.
struct Course {
    replay: Replay,
    updated_at: DateTime<Utc>,
}

/// What a record did.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    Letters(u64),
    Replay(Box<Replay>),
    Refused(ReplayState),
    Nothing,
}

impl From<&RecordOutcome> for Told {
    fn from(applied: &RecordOutcome) -> Self {
        match applied {
            RecordOutcome::Letters(letters) => Self::Letters(*letters),
            RecordOutcome::Replay(job) => Self::Replay(Box::new(job.replay.clone())),
            RecordOutcome::Refused(state) => Self::Refused(*state),
            RecordOutcome::Nothing => Self::Nothing,
        }
    }
}

impl Known {
    /// The state while no replay has it.
    fn unclaimed(&self) -> LetterState {
        let last_replay = self.replays.iter().map(|replay| replay.at).max();
        match (&self.discard, last_replay) {
            (None, None) => LetterState::Pending,
            (Some(discard), Some(replay)) if discard.at > replay => LetterState::Discarded,
            (Some(_), None) => LetterState::Discarded,
            (_, Some(_)) => LetterState::Replayed,
        }
    }

    fn give_back(&mut self) {
        self.claimed_by = None;
        self.letter.state = self.unclaimed();
    }

    fn replay(&mut self, replay: &ReplayId, at: DateTime<Utc>, outcome: ReplayOutcome) -> &mut ReplayAttempt {
        let replays = &mut self.replays;
        if !replays.iter().any(|known| known.replay_id == *replay) {
            replays.push(ReplayAttempt { replay_id: replay.clone(), at, outcome, dead_letter_id: None });
        }
        replays.iter_mut().find(|known| known.replay_id == *replay).expect("it is there")
    }
}

impl Course {
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

impl Naive {
    pub(super) fn new(retention: Duration) -> Self {
        Self { retention, position: None, letters: Vec::new(), jobs: BTreeMap::new(), removed: BTreeMap::new() }
    }

    fn known(&mut self, id: &DeadLetterId) -> Option<&mut Known> {
        self.letters.iter_mut().find(|known| known.letter.id == *id)
    }

    fn claimed_by(&self, replay: &ReplayId) -> Vec<&Known> {
        self.letters.iter().filter(|known| known.claimed_by.as_ref() == Some(replay)).collect()
    }

    fn judge(&mut self, replay: &ReplayId, at: DateTime<Utc>) {
        let left = self.claimed_by(replay).len();
        if let Some(course) = self.jobs.get_mut(replay) {
            course.judge(left, at);
        }
    }

    /// What an ended replay has not sent is given back.
    fn give_back_if_ended(&mut self, replay: &ReplayId) {
        if self.jobs.get(replay).is_some_and(|course| !course.is_open()) {
            let unsent = self.letters.iter_mut().filter(|known| known.claimed_by.as_ref() == Some(replay));
            unsent.for_each(Known::give_back);
        }
    }

    pub(super) fn apply(&mut self, entry: &StreamEntry) -> Told {
        self.position = Some(entry.position.clone());
        let Payload::Mark(mark) = &entry.content else {
            return match &entry.content {
                Payload::Letter(letter) => self.letter(entry.position.offset, letter),
                Payload::Removed(message) => {
                    self.removed.insert(entry.position.offset, (**message).clone());
                    Told::Nothing
                }
                _ => Told::Nothing,
            };
        };
        match mark {
            DeadLetterRecord::Replay(replay) => {
                if !self.jobs.contains_key(&replay.id) {
                    self.create(replay);
                }
                Told::Replay(Box::new(self.jobs[&replay.id].replay.clone()))
            }
            DeadLetterRecord::Discard(discard) => {
                let mut letters = 0;
                for id in &discard.ids {
                    if let Some(known) = self.known(id).filter(|known| known.letter.state == LetterState::Pending) {
                        known.letter.state = LetterState::Discarded;
                        known.discard = Some(discard.verdict.clone());
                        letters += 1;
                    }
                }
                Told::Letters(letters)
            }
            DeadLetterRecord::Erase(erase) => {
                let mut letters = 0;
                let mut phones = BTreeSet::new();
                for id in &erase.ids {
                    if let Some(known) = self.known(id).filter(|known| known.claimed_by.is_none()) {
                        let event = known.letter.event.as_ref().filter(|_| known.erased.is_none());
                        phones.extend(event.map(|event| event.phone_number.clone()));
                        known.letter = DeadLetter { state: LetterState::Discarded, ..known.letter.clone().erased() };
                        known.discard.get_or_insert_with(|| erase.verdict.clone());
                        known.erased = Some(erase.verdict.clone());
                        letters += 1;
                    }
                }
                for filter in self.jobs.values_mut().filter_map(|course| course.replay.filter.as_mut()) {
                    if filter.phone_number.as_ref().is_some_and(|phone| phones.contains(phone)) {
                        *filter = filter.masked();
                    }
                }
                Told::Letters(letters)
            }
            DeadLetterRecord::Slice(slice) => self.slice(slice),
            DeadLetterRecord::Control(control) => {
                let Some(course) = self.jobs.get_mut(&control.replay) else { return Told::Nothing };
                match (control.command, course.replay.state) {
                    (ReplayCommand::Pause, ReplayState::Running) => course.replay.state = ReplayState::Paused,
                    (ReplayCommand::Resume, ReplayState::Paused) => course.replay.state = ReplayState::Running,
                    (ReplayCommand::Cancel, _) if course.is_open() => course.end(ReplayState::Cancelled, control.at),
                    (_, state) => return Told::Refused(state),
                }
                course.updated_at = control.at;
                let replay = course.replay.clone();
                self.give_back_if_ended(&replay.id);
                Told::Replay(Box::new(replay))
            }
            DeadLetterRecord::Rewritten(rewritten) => {
                Told::Letters(u64::from(self.removed.remove(&rewritten.offset).is_some()))
            }
        }
    }

    fn letter(&mut self, offset: u64, letter: &DeadLetter) -> Told {
        if self.known(&letter.id).is_some() {
            return Told::Letters(0);
        }
        self.letters.push(Known {
            offset,
            letter: letter.clone(),
            replays: Vec::new(),
            discard: None,
            erased: None,
            recorded: BTreeSet::new(),
            claimed_by: None,
        });
        if let (Some(original), Some(replay)) = (&letter.replay_of, &letter.replay_id)
            && let Some(original) = self.known(original)
        {
            original.replay(replay, letter.dead_at, ReplayOutcome::Dead).dead_letter_id = Some(letter.id.clone());
            if let Some(verdict) = original.erased.clone() {
                let new = self.letters.last_mut().expect("it is there");
                new.letter = DeadLetter { state: LetterState::Discarded, ..new.letter.clone().erased() };
                (new.discard, new.erased) = (Some(verdict.clone()), Some(verdict));
            }
        }
        Told::Letters(1)
    }

    /// It claims all that it chooses now.
    fn create(&mut self, replay: &Replay) {
        let mut claimed = 0;
        for known in &mut self.letters {
            let age = (replay.created_at - known.letter.dead_at).to_std().unwrap_or_default();
            let is_chosen = match (&replay.filter, &replay.ids) {
                (Some(filter), _) => wants(&filter.or_pending(), known),
                (None, Some(ids)) => ids.contains(&known.letter.id),
                (None, None) => false,
            };
            if is_chosen && known.claimed_by.is_none() && known.erased.is_none() && age <= self.retention {
                known.letter.state = LetterState::Replaying;
                known.claimed_by = Some(replay.id.clone());
                claimed += 1;
            }
        }
        let replay = Replay { total: claimed, ..replay.clone() };
        let mut course = Course { updated_at: replay.created_at, replay };
        if claimed == 0 {
            course.end(ReplayState::Done, course.updated_at);
        }
        self.jobs.insert(course.replay.id.clone(), course);
    }

    /// Records each letter that the replay has claimed, and each that no replay has and of which it has told nothing yet.
    fn slice(&mut self, slice: &ReplayBatch) -> Told {
        let mut letters = 0;
        for LetterResult { id, outcome } in &slice.sent {
            let counts = |known: &&mut Known| match &known.claimed_by {
                Some(replay) => *replay == slice.replay,
                None => !known.recorded.contains(&slice.replay),
            };
            let Some(known) = self.known(id).filter(counts) else { continue };
            known.claimed_by = None;
            known.letter.state = LetterState::Replayed;
            known.recorded.insert(slice.replay.clone());
            let sent = known.replay(&slice.replay, slice.at, *outcome);
            (sent.at, sent.outcome) = (slice.at, *outcome);
            if let Some(Course { replay, .. }) = self.jobs.get_mut(&slice.replay) {
                replay.sent += 1;
                *match outcome {
                    ReplayOutcome::Delivered => &mut replay.delivered,
                    ReplayOutcome::Requeued => &mut replay.requeued,
                    ReplayOutcome::Dead => &mut replay.failed,
                } += 1;
            }
            letters += 1;
        }
        self.judge(&slice.replay, slice.at);
        self.give_back_if_ended(&slice.replay);
        Told::Letters(letters)
    }

    pub(super) fn forget_before(&mut self, milliseconds: i64, blocks: usize) -> u64 {
        let is_old = |time: DateTime<Utc>| time.timestamp_millis() < milliseconds;
        let ended = |course: &Course| course.replay.ended_at.is_some_and(is_old);
        let forgotten: Vec<ReplayId> =
            self.jobs.iter().filter(|(_, course)| ended(course)).map(|(id, _)| id.clone()).collect();
        let young: BTreeSet<u64> =
            self.letters.iter().filter(|known| !is_old(known.letter.dead_at)).map(|known| known.offset / 64).collect();
        let all: BTreeSet<u64> = self.letters.iter().map(|known| known.offset / 64).collect();
        let old: Vec<u64> = all.difference(&young).copied().take(blocks).collect();
        let gone: Vec<Known> = self.letters.extract_if(.., |known| old.contains(&(known.offset / 64))).collect();
        for replay in gone.iter().filter_map(|known| known.claimed_by.as_ref()) {
            let at = self.jobs[replay].updated_at;
            self.judge(replay, at);
        }
        for id in forgotten {
            self.jobs.remove(&id);
        }
        gone.len() as u64
    }

    /// Sees that the view shows the same.
    pub(super) fn compare(&self, log: &Log, questions: &[Question]) {
        let view = log.view();
        assert_eq!(view.position().expect("a position"), self.position);
        let in_state = |state| self.letters.iter().filter(|known| known.letter.state == state).count() as u64;
        assert_eq!(view.counts(), LetterState::ALL.map(in_state));
        for number in 0..=LETTERS {
            let id = DeadLetterId::new(format!("dl_{number}"));
            let known = self.letters.iter().find(|known| known.letter.id == id);
            assert_eq!(log.state(id.as_str()), known.map(|known| known.letter.state));
            let kept = view.letter(&id).expect("a letter");
            assert_eq!(
                kept.map(|kept| (kept.offset, kept.letter)),
                known.map(|known| (known.offset, known.letter.clone()))
            );
            if let Some(known) = known {
                let fate = view.fate(known.offset).expect("a fate");
                assert_eq!(
                    (&fate.replays, &fate.discard, &fate.erased),
                    (&known.replays, &known.discard, &known.erased)
                );
                for replay in (0..REPLAYS).map(|number| ReplayId::new(format!("rp_{number}"))) {
                    assert_eq!(fate.is_recorded(&replay), known.recorded.contains(&replay));
                }
            }
        }
        let mut removed = view.removed_messages(7, usize::MAX, usize::MAX).expect("removed messages");
        removed.sort_by_key(|(offset, _)| *offset);
        assert!(removed.iter().map(|(offset, message)| (offset, message)).eq(&self.removed));
        self.compare_jobs(log);
        for question in questions {
            self.ask(log, question);
        }
    }

    fn compare_jobs(&self, log: &Log) {
        let view = log.view();
        let jobs = view.jobs(None, REPLAYS, |job| job).expect("jobs");
        assert!(jobs.iter().map(|job| &job.replay.id).eq(self.jobs.keys().rev()));
        if let [newest, older @ ..] = &jobs[..] {
            assert_eq!(view.jobs(Some(&newest.replay.id), REPLAYS, |job| job).expect("jobs"), older);
        }
        let mut claimed = BTreeSet::new();
        for job in &jobs {
            let course = &self.jobs[&job.replay.id];
            assert_eq!(job.replay, course.replay);
            assert_eq!((job.claims, job.updated_at), (ClaimState::Made, course.updated_at));
            assert!(!job.is_to_release());
            let letters = log.claimed(job.replay.id.as_str());
            let expected = self.claimed_by(&job.replay.id);
            let offsets: Vec<u64> = letters.iter().map(|kept| kept.offset).collect();
            assert_eq!(offsets, expected.iter().map(|known| known.offset).collect::<Vec<_>>());
            let few = view.claimed(&job.replay.id, 2).expect("letters");
            assert_eq!(ids(&few), ids(&letters[..letters.len().min(2)]));
            assert_eq!(job.left, letters.len() as u64);
            assert_eq!(job.replay.sent, job.replay.delivered + job.replay.requeued + job.replay.failed);
            for kept in letters {
                assert_eq!(kept.letter.state, LetterState::Replaying);
                assert!(claimed.insert(kept.offset), "two replays have it");
            }
        }
        assert_eq!(claimed.len() as u64, view.counts()[LetterState::Replaying as usize]);
        let to_do = view.jobs_to_do().expect("jobs");
        assert!(to_do.iter().eq(jobs.iter().filter(|job| job.replay.state == ReplayState::Running)));
        assert!(to_do.iter().all(|job| job.left > 0), "a replay that has nothing to send runs on");
    }

    fn ask(&self, log: &Log, question: &Question) {
        let Question { filter, limit, from, to } = question;
        let wanted: Vec<&Known> = self.letters.iter().filter(|known| wants(filter, known)).collect();

        let newest_first: Vec<&Known> = wanted.iter().rev().copied().collect();
        let pages = log.pages(filter, *limit, far());
        let mut expected: Vec<Vec<&Known>> = newest_first.chunks(*limit).map(<[_]>::to_vec).collect();
        if expected.is_empty() {
            expected.push(Vec::new());
        }
        let offsets = |pages: &[LetterPage]| -> Vec<Vec<u64>> {
            pages.iter().map(|page| page.letters.iter().map(|kept| kept.offset).collect()).collect()
        };
        let expected: Vec<Vec<u64>> =
            expected.iter().map(|page| page.iter().map(|known| known.offset).collect()).collect();
        assert_eq!(offsets(&pages), expected);

        let mut tally = log.view().tally(filter).expect("a tally");
        assert_eq!(tally.total, wanted.len() as u64);
        let times = || wanted.iter().map(|known| known.letter.dead_at.timestamp_millis());
        assert_eq!(tally.span, times().min().zip(times().max()));
        assert_eq!(tally.states, counted(&wanted, |letter| Some(letter.state)));
        assert_eq!(tally.reasons, counted(&wanted, |letter| Some(letter.reason)));
        assert_eq!(tally.statuses, counted(&wanted, |letter| Some(letter.status)));
        assert_eq!(tally.campaigns, counted(&wanted, |letter| letter.campaign_id.clone()));
        for (webhook, count) in counted(&wanted, |letter| letter.webhook_id.clone()) {
            let campaigns = tally.webhooks.remove(webhook.as_str()).expect("a webhook");
            assert_eq!(campaigns.values().sum::<u64>(), count);
        }
        assert!(tally.webhooks.is_empty());
        let endpoint = |letter: &DeadLetter| letter.url.as_deref().map(endpoint_of).filter(|name| !name.is_empty());
        assert_eq!(tally.endpoints, counted(&wanted, endpoint));

        let within = wanted.iter().filter(|known| (*from..*to).contains(&known.offset));
        let (mut within, mut next) = (within.collect::<Vec<_>>().into_iter().peekable(), Some(*from));
        while let Some(from) = next {
            let found = log.view().find(filter, from..*to, *limit).expect("letters");
            let expected: Vec<_> =
                within.by_ref().take(*limit).map(|known| (known.offset, known.letter.id.clone())).collect();
            assert_eq!(found.letters, expected);
            assert_eq!(found.next, within.peek().map(|known| known.offset));
            next = found.next;
        }
    }
}

fn wants(filter: &LetterFilter, known: &Known) -> bool {
    let LetterFilter { campaign_id, label, webhook_id, phone_number, event_id, delivery_id, endpoint, .. } = filter;
    let LetterFilter { reason, status, since, until, state, .. } = filter;
    let letter = &known.letter;
    // An erased letter shows a mask, by which it is not found.
    let phone = letter.event.as_ref().map(|event| &event.phone_number).filter(|_| known.erased.is_none());
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

fn counted<T: std::hash::Hash + Eq>(letters: &[&Known], value: impl Fn(&DeadLetter) -> Option<T>) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    for value in letters.iter().filter_map(|known| value(&known.letter)) {
        *counts.entry(value).or_default() += 1;
    }
    counts
}
