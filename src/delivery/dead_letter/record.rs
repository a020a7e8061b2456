//! What is written to the dead-letter log of letters that are there already: discards, and the course of replays. Every
//! node applies the log in its order, so all show the same states.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LetterState;
use super::filter::LetterFilter;
use crate::delivery::ids::{DeadLetterId, ReplayId};
use crate::delivery::replay::{Replay, ReplayCommand, ReplayOutcome};
use crate::delivery::timestamp;

/// The longest `because` of a discard, in characters. It is kept with each of the letters, and with each of the log's records
/// of them.
pub const MAX_BECAUSE_CHARS: usize = 500;

/// How every mark begins, and no letter does.
const PREFIX: &[u8] = b"{\"mark\":";

/// One record about letters that are there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeadLetterRecord {
    /// Letters were given up for good.
    Discard(Discard),
    /// What letters tell of a person was erased.
    Erase(Erase),
    /// A replay was created. It claims its letters where this is applied, and no other takes them from then on.
    ///
    /// It has the other name if [`LetterFilter::has_identity`] holds: an older worker leaves the record out then, and does not
    /// replay letters that the filter excludes.
    #[serde(alias = "replayByIdentity")]
    Replay(Box<Replay>),
    /// Letters of a replay were sent.
    Slice(ReplayBatch),
    /// A replay was paused, resumed or cancelled. Where it ends it gives back what it has not sent.
    Control(ReplayControl),
    /// All letters of a removed message are written. The first record of it counts.
    Rewritten(Rewritten),
}

/// Letters given up for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Discard {
    /// Which.
    pub ids: Vec<DeadLetterId>,
    /// By whom, when and why.
    pub verdict: OperatorAction,
}

/// Letters that tell nothing of a person any more. They can't be sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erase {
    /// Which.
    pub ids: Vec<DeadLetterId>,
    /// By whom and when.
    pub verdict: OperatorAction,
}

/// Who gave letters up, when and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Discard")]
pub struct OperatorAction {
    /// The name of the operator's token.
    pub by: String,
    /// When.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// Why, in the operator's words. Records of earlier versions call it `reason`.
    #[serde(alias = "reason", default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Letters that were sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayBatch {
    /// The replay.
    pub replay: ReplayId,
    /// Each letter's outcome.
    pub sent: Vec<LetterResult>,
    /// When the last of them was done.
    #[serde(with = "timestamp")]
    pub at: DateTime<Utc>,
}

/// A letter that was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterResult {
    /// Which.
    pub id: DeadLetterId,
    /// How it went.
    pub outcome: ReplayOutcome,
}

/// A replay was told what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayControl {
    /// The replay.
    pub replay: ReplayId,
    /// What.
    pub command: ReplayCommand,
    /// By whom: the name of the operator's token.
    pub by: String,
    /// When.
    #[serde(with = "timestamp")]
    pub at: DateTime<Utc>,
}

/// All letters of a [removed message](super::removed::RemovedMessage) are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewritten {
    /// The message's offset in the log.
    pub offset: u64,
}

/// What became of a letter after it was written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterHistory {
    /// Each time it was sent again, oldest first.
    pub replays: Vec<ReplayAttempt>,
    /// The replays that have told how it went. Of others only the new letter is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recorded: Vec<ReplayId>,
    /// Who gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<OperatorAction>,
    /// Who erased what it tells of a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<OperatorAction>,
}

/// One time a letter was sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ReplayOfDeadLetter")]
pub struct ReplayAttempt {
    /// By which replay.
    pub replay_id: ReplayId,
    /// When.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// How it went.
    pub outcome: ReplayOutcome,
    /// The new letter, where it failed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<DeadLetterId>,
}

impl LetterHistory {
    /// The state of a letter that no replay has: by what was done with it last.
    pub fn state_unclaimed(&self) -> LetterState {
        let discarded_at = self.discard.as_ref().map(|discard| discard.at);
        let replayed_at = self.replays.iter().map(|replay| replay.at).max();
        match (discarded_at, replayed_at) {
            (None, None) => LetterState::Pending,
            (discarded_at, replayed_at) if discarded_at > replayed_at => LetterState::Discarded,
            _ => LetterState::Replayed,
        }
    }

    /// A replay of the letter; what another record has said of the same one is kept.
    pub fn sent(&mut self, replay: &ReplayId, at: DateTime<Utc>, outcome: ReplayOutcome) {
        let known = self.known(replay, at, outcome);
        (known.at, known.outcome) = (at, outcome);
        if !self.is_recorded(replay) {
            self.recorded.push(replay.clone());
        }
    }

    /// Whether it is recorded how this replay went.
    pub fn is_recorded(&self, replay: &ReplayId) -> bool {
        self.recorded.contains(replay)
    }

    /// A replay of the letter ended in this new letter.
    pub fn dead_again(&mut self, replay: &ReplayId, at: DateTime<Utc>, letter: DeadLetterId) {
        self.known(replay, at, ReplayOutcome::Dead).dead_letter_id = Some(letter);
    }

    fn known(&mut self, replay: &ReplayId, at: DateTime<Utc>, outcome: ReplayOutcome) -> &mut ReplayAttempt {
        let known = self.replays.iter().position(|known| known.replay_id == *replay);
        let index = known.unwrap_or_else(|| {
            self.replays.push(ReplayAttempt { replay_id: replay.clone(), at, outcome, dead_letter_id: None });
            self.replays.len() - 1
        });
        &mut self.replays[index]
    }
}

#[derive(Serialize, Deserialize)]
struct Marked<M> {
    mark: M,
}

/// See [`DeadLetterRecord::Replay`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Renamed {
    ReplayByIdentity(Box<Replay>),
}

impl DeadLetterRecord {
    /// The replay that it is about.
    pub fn replay(&self) -> Option<&ReplayId> {
        match self {
            Self::Replay(replay) => Some(&replay.id),
            Self::Slice(slice) => Some(&slice.replay),
            Self::Control(control) => Some(&control.replay),
            Self::Discard(_) | Self::Erase(_) | Self::Rewritten(_) => None,
        }
    }

    /// The record's bytes.
    ///
    /// # Errors
    /// None that could happen: all keys are strings.
    pub fn encode(self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Replay(replay) if replay.filter.as_ref().is_some_and(LetterFilter::has_identity) => {
                serde_json::to_vec(&Marked { mark: Renamed::ReplayByIdentity(replay) })
            }
            mark => serde_json::to_vec(&Marked { mark }),
        }
    }

    /// Reads a record; `None` where it is a letter.
    ///
    /// # Errors
    /// A mark that can't be read: another version has written it.
    pub fn decode(record: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        if !record.starts_with(PREFIX) {
            return Ok(None);
        }
        serde_json::from_slice(record).map(|marked: Marked<Self>| Some(marked.mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_letters() {
        let mark = DeadLetterRecord::Rewritten(Rewritten { offset: 7 });
        let bytes = mark.clone().encode().expect("JSON");
        assert_eq!(DeadLetterRecord::decode(&bytes).expect("a mark"), Some(mark));
        assert_eq!(DeadLetterRecord::decode(br#"{"id":"dl_1","state":"pending"}"#).expect("a letter"), None);
        assert!(DeadLetterRecord::decode(br#"{"mark":{"unheardOf":{}}}"#).is_err());
    }

    /// It would ignore the condition that it does not know, and send every pending letter.
    #[test]
    fn an_older_worker_does_not_read_a_replay_whose_filter_it_does_not_know() {
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
            let mark = replay(filter);
            let bytes = mark.clone().encode().expect("JSON");
            assert!(bytes.starts_with(format!("{{\"mark\":{{\"{name}\":").as_bytes()), "{mark:?}");
            assert_eq!(DeadLetterRecord::decode(&bytes).expect("a mark"), Some(mark));
        }
    }

    #[test]
    fn a_discard_of_an_earlier_version_is_read() {
        let record = br#"{"mark":{"discard":{"ids":["dl_1"],"verdict":{"by":"ops","at":"2024-06-18T23:26:14Z","reason":"old"}}}}"#;
        let Some(DeadLetterRecord::Discard(discard)) = DeadLetterRecord::decode(record).expect("a mark") else {
            panic!("a discard")
        };
        assert_eq!(discard.verdict.because.as_deref(), Some("old"));
        let written = String::from_utf8(DeadLetterRecord::Discard(discard).encode().expect("JSON")).expect("text");
        assert!(written.contains(r#""because":"old""#) && !written.contains("reason"), "{written}");
    }

    #[test]
    fn a_new_letter_and_its_outcome_meet_in_either_order() {
        let (replay, at) = (ReplayId::new("rp_1"), DateTime::UNIX_EPOCH);
        let (mut one, mut other) = (LetterHistory::default(), LetterHistory::default());
        one.sent(&replay, at, ReplayOutcome::Requeued);
        one.dead_again(&replay, at, DeadLetterId::new("dl_2"));
        other.dead_again(&replay, at, DeadLetterId::new("dl_2"));
        other.sent(&replay, at, ReplayOutcome::Requeued);
        assert_eq!(one, other);
        assert_eq!(one.replays.len(), 1);
    }
}
