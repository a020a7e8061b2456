//! Records in the dead-letter stream that change existing letters: discards, erasures and the progress of replays. All
//! nodes apply the records in the order of the stream, so all show the same states.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LetterState;
use super::filter::LetterFilter;
use crate::ids::{DeadLetterId, ReplayId};
use crate::replay::{Replay, ReplayCommand, ReplayOutcome};
use crate::timestamp;

/// The reason of a discard is stored with each letter and in each record, so it must be short.
pub const MAX_DISCARD_REASON_CHARS: usize = 500;

/// The first bytes of every record. Letters never begin with them.
const PREFIX: &[u8] = b"{\"mark\":";

/// A record about existing letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeadLetterRecord {
    /// Letters were discarded.
    Discard(Discard),
    /// The personal data of letters was erased.
    Erase(Erase),
    /// A replay was created. It claims its letters when the record is applied.
    ///
    /// Serialized as `replayByIdentity` if [`LetterFilter::has_identity`] is true. Older workers skip such a record,
    /// because they would also replay letters that the filter excludes.
    #[serde(alias = "replayByIdentity")]
    Replay(Box<Replay>),
    /// A replay has sent letters.
    #[serde(rename = "slice")]
    Batch(ReplayBatch),
    /// A replay was paused, resumed or cancelled. A cancelled replay releases the letters that it has not sent.
    Control(ReplayControl),
    /// All letters of a removed message exist. Repeated records are ignored.
    #[serde(rename = "rewritten")]
    RemovedMessageDone(RemovedMessageDone),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Discard {
    pub ids: Vec<DeadLetterId>,
    #[serde(rename = "verdict")]
    pub action: OperatorAction,
}

/// Erases the personal data of letters. Erased letters cannot be replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erase {
    pub ids: Vec<DeadLetterId>,
    #[serde(rename = "verdict")]
    pub action: OperatorAction,
}

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayBatch {
    pub replay: ReplayId,
    pub sent: Vec<LetterResult>,
    /// The time of the last letter.
    #[serde(with = "timestamp")]
    pub at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterResult {
    pub id: DeadLetterId,
    pub outcome: ReplayOutcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayControl {
    pub replay: ReplayId,
    pub command: ReplayCommand,
    /// The name of the operator's token.
    pub by: String,
    #[serde(with = "timestamp")]
    pub at: DateTime<Utc>,
}

/// All letters of a [removed message](super::removed::RemovedMessage) exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedMessageDone {
    /// The offset of the message in the stream.
    pub offset: u64,
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

#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    #[serde(rename = "mark")]
    record: M,
}

/// See [`DeadLetterRecord::Replay`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum RenamedRecord {
    ReplayByIdentity(Box<Replay>),
}

impl DeadLetterRecord {
    pub fn replay(&self) -> Option<&ReplayId> {
        match self {
            Self::Replay(replay) => Some(&replay.id),
            Self::Batch(batch) => Some(&batch.replay),
            Self::Control(control) => Some(&control.replay),
            Self::Discard(_) | Self::Erase(_) | Self::RemovedMessageDone(_) => None,
        }
    }

    /// # Errors
    /// Never, because all keys are strings.
    pub fn encode(self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Replay(replay)
                if replay.filter.as_ref().is_some_and(LetterFilter::has_conditions_unknown_before_2026_11_30) =>
            {
                serde_json::to_vec(&Envelope { record: RenamedRecord::ReplayByIdentity(replay) })
            }
            record => serde_json::to_vec(&Envelope { record }),
        }
    }

    /// Decodes a record. `None` if the bytes are a letter.
    ///
    /// # Errors
    /// The record was written by another version and cannot be read.
    pub fn decode(record: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        if !record.starts_with(PREFIX) {
            return Ok(None);
        }
        serde_json::from_slice(record).map(|envelope: Envelope<Self>| Some(envelope.record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_distinguished_from_letters() {
        let record = DeadLetterRecord::RemovedMessageDone(RemovedMessageDone { offset: 7 });
        let bytes = record.clone().encode().expect("JSON");
        assert_eq!(DeadLetterRecord::decode(&bytes).expect("a record"), Some(record));
        assert_eq!(DeadLetterRecord::decode(br#"{"id":"dl_1","state":"pending"}"#).expect("a letter"), None);
        assert!(DeadLetterRecord::decode(br#"{"mark":{"unheardOf":{}}}"#).is_err());
    }

    /// Older workers would ignore the unknown condition and send every pending letter.
    #[test]
    fn older_workers_do_not_read_replays_with_filters_they_do_not_know() {
        let replay = |filter: serde_json::Value| {
            let replay = serde_json::json!({ "id": "rp_1", "state": "running", "filter": filter, "config": "current", "total": 0,
                "sent": 0, "delivered": 0, "failed": 0, "createdAt": "2024-06-18T23:26:14Z", "createdBy": "ops" });
            DeadLetterRecord::Replay(Box::new(serde_json::from_value(replay).expect("a replay")))
        };
        for (filter, name) in [
            (serde_json::json!({ "phoneNumber": "+5511999990000" }), "replayByIdentity"),
            (serde_json::json!({ "eventId": "e-1", "label": "a" }), "replayByIdentity"),
            (serde_json::json!({ "deliveryId": "msg_1" }), "replayByIdentity"),
            (serde_json::json!({ "endpoint": "https://example.com:443" }), "replayByIdentity"),
            (serde_json::json!({ "label": "a" }), "replay"),
        ] {
            let record = replay(filter);
            let bytes = record.clone().encode().expect("JSON");
            assert!(bytes.starts_with(format!("{{\"mark\":{{\"{name}\":").as_bytes()), "{record:?}");
            assert_eq!(DeadLetterRecord::decode(&bytes).expect("a record"), Some(record));
        }
    }

    #[test]
    fn discards_of_earlier_versions_are_read() {
        let record = br#"{"mark":{"discard":{"ids":["dl_1"],"verdict":{"by":"ops","at":"2024-06-18T23:26:14Z","reason":"old"}}}}"#;
        let Some(DeadLetterRecord::Discard(discard)) = DeadLetterRecord::decode(record).expect("a record") else {
            panic!("a discard")
        };
        assert_eq!(discard.action.operator_reason.as_deref(), Some("old"));
        let written = String::from_utf8(DeadLetterRecord::Discard(discard).encode().expect("JSON")).expect("text");
        assert!(written.contains(r#""because":"old""#) && !written.contains("reason"), "{written}");
    }

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
