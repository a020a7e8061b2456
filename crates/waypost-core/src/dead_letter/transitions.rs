//! Decides what the state of a letter allows, and what discards and erasures change.
//!
//! A replay changes the state too: [`crate::replay::claims`] decides about its claims and results.

use super::LetterState;
use super::history::{LetterHistory, OperatorAction};

impl LetterState {
    pub fn can_be_discarded(self) -> bool {
        self == Self::Pending
    }

    /// A claimed letter is being sent, so it can't be erased.
    pub fn can_be_erased(self) -> bool {
        self != Self::Replaying
    }

    /// At most one replay claims a letter. An [erased](LetterHistory::is_erased) letter is never claimed.
    pub fn can_be_claimed(self) -> bool {
        self != Self::Replaying
    }

    /// Whether the history can have an erasure. For other states the history does not have to be read.
    ///
    /// An erased letter is `Replayed` if a replay that had released it reports its result later.
    pub fn may_have_been_erased(self) -> bool {
        matches!(self, Self::Discarded | Self::Replayed)
    }
}

impl LetterHistory {
    /// Records a discard. Returns the new state of the letter.
    pub fn record_discard(&mut self, action: &OperatorAction) -> LetterState {
        self.discard = Some(action.clone());
        LetterState::Discarded
    }

    /// Records an erasure, which also discards the letter. An earlier discard is kept. Returns the new state of the
    /// letter.
    pub fn record_erasure(&mut self, action: &OperatorAction) -> LetterState {
        self.discard.get_or_insert_with(|| action.clone());
        self.erased = Some(action.clone());
        LetterState::Discarded
    }

    pub fn is_erased(&self) -> bool {
        self.erased.is_some()
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;
    use crate::dead_letter::history::ReplayOutcome;
    use crate::ids::{DeadLetterId, ReplayId};

    fn second(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn action(by: &str, seconds: i64) -> OperatorAction {
        OperatorAction { by: by.to_owned(), at: second(seconds), operator_reason: None }
    }

    #[test]
    fn the_state_decides_what_is_allowed() {
        let table = [
            // state, discard, erase, claim, may have been erased
            (LetterState::Pending, true, true, true, false),
            (LetterState::Replaying, false, false, false, false),
            (LetterState::Replayed, false, true, true, true),
            (LetterState::Discarded, false, true, true, true),
        ];
        assert_eq!(table.map(|(state, ..)| state), LetterState::ALL);
        for (state, discard, erase, claim, may_have_been_erased) in table {
            assert_eq!(state.can_be_discarded(), discard, "discard {state:?}");
            assert_eq!(state.can_be_erased(), erase, "erase {state:?}");
            assert_eq!(state.can_be_claimed(), claim, "claim {state:?}");
            assert_eq!(state.may_have_been_erased(), may_have_been_erased, "history of {state:?}");
        }
    }

    /// Each history that a letter can have before an operator's action, by name.
    fn histories() -> [(&'static str, LetterHistory); 4] {
        let pending = LetterHistory::default();
        let mut discarded = pending.clone();
        let _ = discarded.record_discard(&action("ana", 1));
        let mut replayed = pending.clone();
        let _ = replayed.record_outcome(&ReplayId::new("rp_1"), second(2), ReplayOutcome::Delivered);
        let mut both = discarded.clone();
        let _ = both.record_outcome(&ReplayId::new("rp_1"), second(2), ReplayOutcome::Delivered);
        [("pending", pending), ("discarded", discarded), ("replayed", replayed), ("discarded and replayed", both)]
    }

    #[test]
    fn a_discard_replaces_an_earlier_discard() {
        for (name, mut history) in histories() {
            let replays = history.replays.clone();
            let state = history.record_discard(&action("bob", 3));
            assert_eq!(state, LetterState::Discarded, "{name}");
            assert_eq!(state, history.state_unclaimed(), "{name}: the state after a later claim is released");
            assert_eq!(history.discard, Some(action("bob", 3)), "{name}");
            assert!(!history.is_erased(), "{name}");
            assert_eq!(history.replays, replays, "{name}");
        }
    }

    #[test]
    fn an_erasure_keeps_the_discard_before_it() {
        for ((name, mut history), discarded_by) in histories().into_iter().zip(["bob", "ana", "bob", "ana"]) {
            let replays = history.replays.clone();
            assert!(!history.is_erased(), "{name}");
            let state = history.record_erasure(&action("bob", 3));
            assert_eq!(state, LetterState::Discarded, "{name}");
            assert!(state.may_have_been_erased(), "{name}: the erasure would not be seen");
            assert_eq!(history.discard.as_ref().map(|discard| discard.by.as_str()), Some(discarded_by), "{name}");
            assert_eq!(history.erased, Some(action("bob", 3)), "{name}");
            assert!(history.is_erased(), "{name}");
            assert_eq!(history.replays, replays, "{name}");
        }
    }

    #[test]
    fn a_second_erasure_replaces_the_first_but_not_the_discard() {
        let mut history = LetterHistory::default();
        let _ = history.record_erasure(&action("ana", 1));
        let _ = history.record_erasure(&action("bob", 2));
        assert_eq!((history.discard, history.erased), (Some(action("ana", 1)), Some(action("bob", 2))));
    }

    #[test]
    fn a_result_that_comes_after_the_erasure_does_not_hide_it() {
        let mut history = LetterHistory::default();
        let _ = history.record_erasure(&action("ana", 1));
        let state = history.record_outcome(&ReplayId::new("rp_1"), second(2), ReplayOutcome::Delivered);
        assert_eq!(state, LetterState::Replayed);
        assert!(state.may_have_been_erased() && history.is_erased());
    }

    #[test]
    fn a_new_letter_inherits_the_erasure_of_its_original() {
        let new_letter = |history: &mut LetterHistory| {
            history.record_new_letter(&ReplayId::new("rp_1"), second(2), DeadLetterId::new("dl_2")).cloned()
        };
        for (name, mut original) in histories() {
            assert_eq!(new_letter(&mut original), None, "{name}");
            let _ = original.record_erasure(&action("bob", 3));
            assert_eq!(new_letter(&mut original), Some(action("bob", 3)), "{name}, then erased");
        }
    }
}
