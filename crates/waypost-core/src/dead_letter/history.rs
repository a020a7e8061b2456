//! What happened to a letter after it was written: its discard, its erasure and its replays.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LetterState;
use crate::ids::{DeadLetterId, ReplayId};
use crate::timestamp;

/// Who discarded or erased a letter, when and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Discard")]
pub struct OperatorAction {
    /// The name of the operator's token.
    pub by: String,
    /// The time of the action, in UTC.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// The reason that the operator gave. Called `reason` in records of earlier versions.
    #[serde(rename = "because", alias = "reason", default, skip_serializing_if = "Option::is_none")]
    pub operator_reason: Option<String>,
}

/// The result of sending a letter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// The receiver accepted the letter.
    Delivered,
    /// The letter failed again.
    Dead,
    /// An unreadable event was put back unchanged into the queue of events.
    Requeued,
}

impl ReplayOutcome {
    /// For metrics that must exist before their first count.
    pub const ALL: [Self; 3] = [Self::Delivered, Self::Dead, Self::Requeued];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Requeued => "requeued",
        }
    }
}

/// What happened to a letter after it was written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterHistory {
    /// Oldest first.
    pub replays: Vec<ReplayAttempt>,
    /// Replays whose outcome is recorded. For other replays, only the new letter is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recorded: Vec<ReplayId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<OperatorAction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<OperatorAction>,
}

/// One replay of a letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReplayOfDeadLetter")]
pub struct ReplayAttempt {
    /// The id, as in `GET /v1/replays/{id}`.
    pub replay_id: ReplayId,
    /// When the letter was sent.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// A requeued letter was put back on the events queue.
    pub outcome: ReplayOutcome,
    /// The new dead letter, if the replay failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<DeadLetterId>,
}

impl LetterHistory {
    /// The state of a letter that no replay has claimed. The latest action decides.
    pub fn state_unclaimed(&self) -> LetterState {
        let discarded_at = self.discard.as_ref().map(|discard| discard.at);
        let replayed_at = self.replays.iter().map(|replay| replay.at).max();
        match (discarded_at, replayed_at) {
            (None, None) => LetterState::Pending,
            (discarded_at, replayed_at) if discarded_at > replayed_at => LetterState::Discarded,
            _ => LetterState::Replayed,
        }
    }

    /// Records the outcome of a replay. Keeps the new letter if [`Self::record_new_letter`] has recorded it before.
    /// Returns the new state of the letter.
    pub fn record_outcome(&mut self, replay: &ReplayId, at: DateTime<Utc>, outcome: ReplayOutcome) -> LetterState {
        let entry = self.attempt(replay, at, outcome);
        (entry.at, entry.outcome) = (at, outcome);
        if !self.is_recorded(replay) {
            self.recorded.push(replay.clone());
        }
        LetterState::Replayed
    }

    /// Tells if the outcome of this replay is recorded.
    pub fn is_recorded(&self, replay: &ReplayId) -> bool {
        self.recorded.contains(replay)
    }

    /// Records that a replay failed and created a new letter. Returns the erasure that the new letter inherits: this
    /// letter may have been erased while it was in flight.
    pub fn record_new_letter(
        &mut self,
        replay: &ReplayId,
        at: DateTime<Utc>,
        letter: DeadLetterId,
    ) -> Option<&OperatorAction> {
        self.attempt(replay, at, ReplayOutcome::Dead).dead_letter_id = Some(letter);
        self.erased.as_ref()
    }

    fn attempt(&mut self, replay: &ReplayId, at: DateTime<Utc>, outcome: ReplayOutcome) -> &mut ReplayAttempt {
        let existing = self.replays.iter().position(|entry| entry.replay_id == *replay);
        let index = existing.unwrap_or_else(|| {
            self.replays.push(ReplayAttempt { replay_id: replay.clone(), at, outcome, dead_letter_id: None });
            self.replays.len() - 1
        });
        &mut self.replays[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_letter_and_the_outcome_may_come_in_any_order() {
        let (replay, at) = (ReplayId::new("rp_1"), DateTime::UNIX_EPOCH);
        let (mut one, mut other) = (LetterHistory::default(), LetterHistory::default());
        one.record_outcome(&replay, at, ReplayOutcome::Requeued);
        one.record_new_letter(&replay, at, DeadLetterId::new("dl_2"));
        other.record_new_letter(&replay, at, DeadLetterId::new("dl_2"));
        other.record_outcome(&replay, at, ReplayOutcome::Requeued);
        assert_eq!(one, other);
        assert_eq!(one.replays.len(), 1);
    }
}
