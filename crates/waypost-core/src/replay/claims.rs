//! Decides which letters a replay claims, when it releases them, and which of its results count.
//!
//! Every worker applies the same records, so every worker must claim and release the same letters.

use std::time::Duration;

use super::{ClaimState, Replay, ReplayId, ReplayOutcome, ReplayProgress};
use crate::dead_letter::LetterState;
use crate::dead_letter::history::LetterHistory;

/// What the view does with the letters of a replay before it applies the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimStep {
    /// Claims all letters that the replay selects.
    Claim,
    /// Releases all letters that the replay has claimed and not sent.
    Release,
}

/// A letter that a replay selects, with the facts that decide if the replay claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimCandidate {
    pub state: LetterState,
    /// In milliseconds since 1970.
    pub dead_at_ms: i64,
    pub is_erased: bool,
}

/// Who claims a letter when the result of a replay is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterClaim {
    /// The replay that has the result.
    Own,
    /// No replay. The replay that has the result may have released the letter while it was in flight.
    Unclaimed,
    Another,
}

impl Replay {
    /// The time of the oldest letters that the replay claims, in milliseconds since 1970. Workers delete older letters
    /// at different times, so only some workers could claim them.
    pub fn oldest_claimable_ms(&self, retention: Duration) -> i64 {
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        self.created_at.timestamp_millis().saturating_sub(retention)
    }
}

impl ClaimCandidate {
    /// `oldest_ms` is [`Replay::oldest_claimable_ms`].
    pub fn can_be_claimed(&self, oldest_ms: i64) -> bool {
        self.state.can_be_claimed() && !self.is_erased && self.dead_at_ms >= oldest_ms
    }
}

impl LetterClaim {
    /// The claim of a letter in `state`. `is_own` is true if the replay that has the result claims the letter.
    pub fn new(is_own: bool, state: LetterState) -> Self {
        match (is_own, state) {
            (true, _) => Self::Own,
            (false, LetterState::Replaying) => Self::Another,
            (false, LetterState::Pending | LetterState::Replayed | LetterState::Discarded) => Self::Unclaimed,
        }
    }

    /// Whether a result of `replay` counts. The first result counts even if the letter was released meanwhile, because
    /// it was sent.
    pub fn accepts_result(self, history: &LetterHistory, replay: &ReplayId) -> bool {
        match self {
            Self::Own => true,
            Self::Unclaimed => !history.is_recorded(replay),
            Self::Another => false,
        }
    }
}

impl ReplayProgress {
    /// `None` if the claims of the replay are as its state demands.
    pub fn next_claim_step(&self) -> Option<ClaimStep> {
        if self.claims == ClaimState::Incomplete {
            Some(ClaimStep::Claim)
        } else if self.has_letters_to_release() {
            Some(ClaimStep::Release)
        } else {
            None
        }
    }

    /// Whether the replay has ended and still claims letters.
    pub fn has_letters_to_release(&self) -> bool {
        !self.replay.state.is_open() && self.left > 0
    }

    /// Records a result that [`LetterClaim::accepts_result`] accepts. Only a claimed letter is one of the unsent letters.
    pub fn record_result(&mut self, outcome: ReplayOutcome, claim: LetterClaim) {
        if claim == LetterClaim::Own {
            self.left = self.left.saturating_sub(1);
        }
        self.count_result(outcome);
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;
    use crate::ids::DeadLetterId;
    use crate::replay::ReplayCommand;
    use crate::replay::tests::example_replay;

    fn replay() -> Replay {
        Replay { created_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(100), ..example_replay() }
    }

    /// The progress of a replay that has claimed this number of letters.
    fn progress(claimed: u64) -> ReplayProgress {
        let mut progress = ReplayProgress::new(replay());
        progress.add_claimed(claimed);
        progress.finish_claiming();
        progress
    }

    #[test]
    fn a_replay_claims_letters_up_to_the_retention_before_its_creation() {
        for (retention, oldest_ms) in [
            (Duration::ZERO, 100_000),
            (Duration::from_secs(10), 90_000),
            (Duration::from_secs(1000), -900_000),
            (Duration::MAX, i64::MIN + 100_001),
        ] {
            assert_eq!(replay().oldest_claimable_ms(retention), oldest_ms, "{retention:?}");
        }
        let before_1970 = Replay { created_at: DateTime::UNIX_EPOCH - TimeDelta::seconds(100), ..replay() };
        assert_eq!(before_1970.oldest_claimable_ms(Duration::MAX), i64::MIN);
    }

    #[test]
    fn a_letter_is_claimed_unless_it_is_claimed_erased_or_too_old() {
        let oldest_ms = 90_000;
        let candidate = |state, is_erased, dead_at_ms| ClaimCandidate { state, dead_at_ms, is_erased };
        for (candidate, expected) in [
            (candidate(LetterState::Pending, false, 90_000), true),
            (candidate(LetterState::Pending, false, 89_999), false),
            (candidate(LetterState::Replaying, false, 90_000), false),
            (candidate(LetterState::Replayed, false, 90_000), true),
            (candidate(LetterState::Replayed, true, 90_000), false),
            (candidate(LetterState::Replayed, false, 89_999), false),
            (candidate(LetterState::Discarded, false, i64::MAX), true),
            (candidate(LetterState::Discarded, true, i64::MAX), false),
        ] {
            assert_eq!(candidate.can_be_claimed(oldest_ms), expected, "{candidate:?}");
        }
        assert!(candidate(LetterState::Pending, false, i64::MIN).can_be_claimed(i64::MIN));
    }

    #[test]
    fn the_claim_of_a_letter_follows_from_its_state() {
        for state in LetterState::ALL {
            let expected = if state == LetterState::Replaying { LetterClaim::Another } else { LetterClaim::Unclaimed };
            assert_eq!(LetterClaim::new(false, state), expected, "{state:?}");
            assert_eq!(LetterClaim::new(true, state), LetterClaim::Own, "{state:?}");
        }
    }

    #[test]
    fn a_result_counts_once_and_not_for_the_letter_of_another_replay() {
        let (own, other) = (ReplayId::new("rp_1"), ReplayId::new("rp_2"));
        let record = |replay: &ReplayId| {
            let mut history = LetterHistory::default();
            let _ = history.record_outcome(replay, DateTime::UNIX_EPOCH, ReplayOutcome::Delivered);
            history
        };
        let mut new_letter = LetterHistory::default();
        let _ = new_letter.record_new_letter(&own, DateTime::UNIX_EPOCH, DeadLetterId::new("dl_2"));
        for (name, history, own_counts, unclaimed_counts) in [
            ("nothing", LetterHistory::default(), true, true),
            ("a result of another replay", record(&other), true, true),
            ("only the new letter of a failure", new_letter, true, true),
            ("a result of this replay", record(&own), true, false),
        ] {
            assert_eq!(LetterClaim::Own.accepts_result(&history, &own), own_counts, "{name}");
            assert_eq!(LetterClaim::Unclaimed.accepts_result(&history, &own), unclaimed_counts, "{name}");
            assert!(!LetterClaim::Another.accepts_result(&history, &own), "{name}");
        }
    }

    #[test]
    fn a_result_of_an_unclaimed_letter_leaves_the_number_of_unsent_letters() {
        for (claim, left) in [(LetterClaim::Own, 4), (LetterClaim::Unclaimed, 5)] {
            for outcome in ReplayOutcome::ALL {
                let mut progress = progress(5);
                progress.record_result(outcome, claim);
                assert_eq!((progress.left, progress.replay.total, progress.replay.sent), (left, 5, 1), "{claim:?}");
                let Replay { delivered, requeued, failed, .. } = progress.replay;
                let counts = ReplayOutcome::ALL.map(|counted| u64::from(counted == outcome));
                assert_eq!([delivered, failed, requeued], counts, "{outcome:?}");
            }
        }
        let mut without_letters = progress(0);
        without_letters.record_result(ReplayOutcome::Delivered, LetterClaim::Own);
        assert_eq!(without_letters.left, 0);
    }

    #[test]
    fn letters_are_claimed_first_and_released_after_the_end() {
        let created = ReplayProgress::new(replay());
        assert_eq!(created.next_claim_step(), Some(ClaimStep::Claim));
        // A worker that ended while it claimed continues, even if a later record has cancelled the replay.
        let mut interrupted = created.clone();
        interrupted.add_claimed(5);
        assert_eq!(interrupted.next_claim_step(), Some(ClaimStep::Claim));
        interrupted.control(ReplayCommand::Cancel, DateTime::UNIX_EPOCH).expect("the replay is running");
        assert_eq!(interrupted.next_claim_step(), Some(ClaimStep::Claim));

        for (command, step) in
            [(None, None), (Some(ReplayCommand::Pause), None), (Some(ReplayCommand::Cancel), Some(ClaimStep::Release))]
        {
            let mut progress = progress(5);
            if let Some(command) = command {
                progress.control(command, DateTime::UNIX_EPOCH).expect("the replay is running");
            }
            assert_eq!(progress.next_claim_step(), step, "{command:?}");
            progress.record_released(5);
            assert_eq!(progress.next_claim_step(), None, "{command:?}, without letters");
        }
        assert_eq!(progress(0).next_claim_step(), None, "done, without letters");
    }
}
