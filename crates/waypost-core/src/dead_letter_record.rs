//! Records in the dead-letter stream that change existing letters: discards, erasures and the progress of replays. All
//! nodes apply the records in the order of the stream, so all show the same states.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::dead_letter::filter::LetterFilter;
use super::dead_letter::history::OperatorAction;
use super::dead_letter::selection::Selection;
use super::ids::{DeadLetterId, ReplayId};
use super::replay::{Replay, ReplayCommand, ReplayOutcome};
use super::timestamp;
use super::violation::Violation;

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
    /// Serialized as `replayByIdentity` if [`LetterFilter::has_identity_conditions`] is true. Older workers skip such a
    /// record, because they would also replay letters that the filter excludes.
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

/// Checks the reason of a discard. Letters that a filter selects are discarded only with a reason.
///
/// # Errors
/// The violation.
pub fn check_discard_reason(reason: Option<&str>, selection: &Selection) -> Result<(), Violation> {
    let violation = |message: String| Err(Violation::new("$.because", message));
    let Some(reason) = reason else {
        return match selection {
            Selection::Filter(_) => violation("is required with a filter: give the reason of the discard".to_owned()),
            Selection::Ids(_) => Ok(()),
        };
    };
    if reason.trim().is_empty() {
        return violation("is empty: give the reason of the discard".to_owned());
    }
    let length = reason.chars().count();
    if length <= MAX_DISCARD_REASON_CHARS {
        return Ok(());
    }
    violation(format!("has {length} characters, and at most {MAX_DISCARD_REASON_CHARS} are allowed: shorten it"))
}

/// Erases the personal data of letters. Erased letters cannot be replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erase {
    pub ids: Vec<DeadLetterId>,
    #[serde(rename = "verdict")]
    pub action: OperatorAction,
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

/// All letters of a [removed message](super::dead_letter::removed::RemovedMessage) exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedMessageDone {
    /// The offset of the message in the stream.
    pub offset: u64,
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
            Self::Replay(replay) if replay.filter.as_ref().is_some_and(LetterFilter::has_identity_conditions) => {
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
    fn letters_of_a_filter_are_discarded_only_with_a_reason() {
        let ids = Selection::Ids(vec![DeadLetterId::new("dl_1")]);
        let filter = Selection::Filter(LetterFilter::default());
        let (longest, too_long) = ("ü".repeat(500), "ü".repeat(501));
        for (reason, selection, words) in [
            (None, &ids, None),
            (None, &filter, Some("is required with a filter")),
            (Some(""), &ids, Some("is empty")),
            (Some(" \n"), &filter, Some("is empty")),
            (Some("the customer has left"), &filter, None),
            (Some(longest.as_str()), &ids, None),
            (Some(too_long.as_str()), &ids, Some("has 501 characters, and at most 500 are allowed")),
        ] {
            match (check_discard_reason(reason, selection), words) {
                (Ok(()), None) => {}
                (Err(violation), Some(words)) if violation.path == "$.because" => {
                    assert!(violation.message.contains(words), "{violation}");
                }
                (checked, _) => panic!("{reason:?} {selection:?}: {checked:?}"),
            }
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
}
