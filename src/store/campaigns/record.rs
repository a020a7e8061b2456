//! Records of the campaigns log: changes, and what operators decided about an incomplete log.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Change, StoredCampaign};
use crate::broker::stream_reader::StreamPosition;

/// What a record of the campaigns log says.
#[derive(Debug, Clone, PartialEq)]
pub enum LogRecord {
    /// Nothing. It was appended to find the end of the log.
    Marker,
    /// A campaign was changed.
    Change(Box<Change>),
    /// Something about the log itself.
    Control(Box<Control>),
}

/// Something about the campaigns log itself.
///
/// A [`Change`] has an `id` at its top level and a control record has none: a version of Waypost that does not know
/// control records leaves them out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Control {
    /// A worker has campaigns, and found this log without any change. All workers hold their events until a decision.
    Hold {
        /// When the worker found that.
        at: DateTime<Utc>,
        /// How many campaigns the worker has.
        campaigns: u64,
    },
    /// The campaigns of a worker follow.
    RestoreStarted {
        /// The restore's id.
        restore: String,
        /// How workers apply it.
        kind: RestoreKind,
        /// The name of the token that allowed it.
        by: String,
        /// When the worker accepted it.
        at: DateTime<Utc>,
        /// What the worker's view lacks; see [`ViewState::accepted_loss`](super::state::ViewState::accepted_loss).
        #[serde(default)]
        accepted_loss: Option<u64>,
        /// Whether the worker appends its campaigns because it was asked to: no operator has decided for it.
        #[serde(default)]
        is_answer: bool,
    },
    /// One campaign of a restore, as the worker's store has it: secrets stay encrypted.
    RestoredCampaign {
        /// The restore's id.
        restore: String,
        /// The campaign.
        stored: Box<StoredCampaign>,
    },
    /// All campaigns of the restore have been appended.
    RestoreFinished {
        /// The restore's id.
        restore: String,
        /// How many campaigns it appended.
        campaigns: u64,
        /// When the last campaign was confirmed.
        at: DateTime<Utc>,
    },
    /// The log has lost its beginning. A worker that is ready and lacks less is asked to append a snapshot.
    SnapshotWanted {
        /// What the view of the worker that asks lacks; `None` if that worker holds its events.
        accepted_loss: Option<u64>,
        /// When the worker asked.
        at: DateTime<Utc>,
    },
    /// What the log has now is all there is.
    AcceptEmpty {
        /// The name of the token that allowed it.
        by: String,
        /// When the worker accepted it.
        at: DateTime<Utc>,
    },
}

/// How workers apply a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestoreKind {
    /// The state of this log at the restore's first record. Versions are those of this log. A complete worker ignores it,
    /// unless its view lacks more than that of the worker that appends it.
    Snapshot,
    /// Campaigns from another log. All workers add those that the log does not have; the version is the record's offset.
    Merge,
}

/// What ends an incomplete log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its last record.
    pub at: StreamPosition,
    /// What a worker does about it.
    pub kind: DecisionKind,
}

/// What a worker does about a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecisionKind {
    /// Read the log from its first record. A worker that is ready keeps its view.
    ReadLog,
    /// Load a snapshot, and read the log from there. A complete worker does nothing, unless its view lacks more.
    Load(Snapshot),
}

impl Decision {
    /// Whether a worker was asked for it by another worker: an operator has not decided.
    pub fn is_answer(&self) -> bool {
        matches!(&self.kind, DecisionKind::Load(Snapshot { is_answer: true, .. }))
    }
}

/// A snapshot in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The id of its restore.
    pub restore: String,
    /// Its first record.
    pub at: StreamPosition,
    /// What it lacks; see [`ViewState::accepted_loss`](super::state::ViewState::accepted_loss).
    #[serde(default)]
    pub accepted_loss: Option<u64>,
    /// Whether a worker appended it because another worker asked.
    #[serde(default)]
    pub is_answer: bool,
}

/// Restores that have started and not finished, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenRestores(BTreeMap<String, OpenRestore>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenRestore {
    kind: RestoreKind,
    at: StreamPosition,
    #[serde(default)]
    accepted_loss: Option<u64>,
    #[serde(default)]
    is_answer: bool,
}

impl LogRecord {
    /// Reads the body of a record.
    ///
    /// # Errors
    /// The body was written by another version of Waypost, or by somebody else.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        if body.is_empty() {
            return Ok(Self::Marker);
        }
        match serde_json::from_slice(body) {
            Ok(change) => Ok(Self::Change(Box::new(change))),
            Err(error) => {
                serde_json::from_slice(body).map(|control| Self::Control(Box::new(control))).map_err(|_| error)
            }
        }
    }
}

impl OpenRestores {
    /// Follows the restores over a control record at `at`. Gives back a decision if the record completes one.
    ///
    /// A restore whose first record was not read has no effect: campaigns may be missing from it.
    pub fn follow(&mut self, at: &StreamPosition, control: &Control) -> Option<Decision> {
        match control {
            Control::RestoreStarted { restore, kind, accepted_loss, is_answer, .. } => {
                let (kind, accepted_loss, is_answer) = (*kind, *accepted_loss, *is_answer);
                self.0.insert(restore.clone(), OpenRestore { kind, at: at.clone(), accepted_loss, is_answer });
                None
            }
            Control::RestoreFinished { restore, .. } => {
                let OpenRestore { kind, at: first, accepted_loss, is_answer } = self.0.remove(restore)?;
                let kind = match kind {
                    RestoreKind::Merge => DecisionKind::ReadLog,
                    RestoreKind::Snapshot => {
                        let restore = restore.clone();
                        DecisionKind::Load(Snapshot { restore, at: first, accepted_loss, is_answer })
                    }
                };
                Some(Decision { at: at.clone(), kind })
            }
            Control::AcceptEmpty { .. } => {
                self.0.clear();
                Some(Decision { at: at.clone(), kind: DecisionKind::ReadLog })
            }
            Control::Hold { .. } | Control::RestoredCampaign { .. } | Control::SnapshotWanted { .. } => None,
        }
    }

    /// Whether campaigns of this restore are added to those that the log has.
    pub(super) fn merges(&self, restore: &str) -> bool {
        self.0.get(restore).is_some_and(|open| open.kind == RestoreKind::Merge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> StreamPosition {
        StreamPosition { offset, message_id: format!("record-{offset}") }
    }

    fn started(restore: &str, kind: RestoreKind) -> Control {
        let (restore, by, at) = (restore.to_owned(), "editor".to_owned(), Utc::now());
        Control::RestoreStarted { restore, kind, by, at, accepted_loss: Some(3), is_answer: true }
    }

    fn finished(restore: &str) -> Control {
        Control::RestoreFinished { restore: restore.to_owned(), campaigns: 1, at: Utc::now() }
    }

    #[test]
    fn records_are_told_apart_by_their_bodies() {
        assert_eq!(LogRecord::read(b"").expect("a marker"), LogRecord::Marker);
        let change = br#"{"id":"c","expected":null,"campaign":null}"#;
        assert!(matches!(LogRecord::read(change), Ok(LogRecord::Change(_))));
        let wanted = Control::SnapshotWanted { accepted_loss: None, at: Utc::now() };
        let hold = Control::Hold { at: Utc::now(), campaigns: 2 };
        for control in [started("r", RestoreKind::Merge), finished("r"), wanted, hold] {
            let body = serde_json::to_vec(&control).expect("JSON");
            assert_eq!(LogRecord::read(&body).expect("a control record"), LogRecord::Control(Box::new(control)));
            // What an older version does with it: it leaves the record out.
            serde_json::from_slice::<Change>(&body).expect_err("not a change");
        }
        // Earlier versions wrote less.
        let earlier = br#"{"control":"restoreStarted","restore":"r","kind":"snapshot","by":"editor","at":"2026-11-30T03:00:00Z"}"#;
        let earlier = LogRecord::read(earlier).expect("a control record");
        assert!(
            matches!(&earlier, LogRecord::Control(control) if matches!(
                **control, Control::RestoreStarted { accepted_loss: None, is_answer: false, .. }
            )),
            "{earlier:?}"
        );
        LogRecord::read(b"not JSON").expect_err("not a record");
        LogRecord::read(br#"{"control":"of a later version"}"#).expect_err("not a record");
    }

    #[test]
    fn only_a_restore_that_was_read_from_its_first_record_decides() {
        let mut open = OpenRestores::default();
        assert_eq!(open.follow(&at(5), &finished("cut off")), None);
        assert_eq!(open.follow(&at(6), &started("one", RestoreKind::Merge)), None);
        assert_eq!(open.follow(&at(7), &started("two", RestoreKind::Snapshot)), None);
        assert!(open.merges("one") && !open.merges("two") && !open.merges("cut off"));
        let merged = Decision { at: at(8), kind: DecisionKind::ReadLog };
        assert_eq!(open.follow(&at(8), &finished("one")), Some(merged));
        let snapshot = Snapshot { restore: "two".to_owned(), at: at(7), accepted_loss: Some(3), is_answer: true };
        let loaded = Decision { at: at(9), kind: DecisionKind::Load(snapshot) };
        assert!(loaded.is_answer());
        assert_eq!(open.follow(&at(9), &finished("two")), Some(loaded));
        assert_eq!(open.follow(&at(10), &finished("two")), None, "a record that was published twice decides once");
    }

    #[test]
    fn accepting_the_log_ends_restores_that_were_interrupted() {
        let mut open = OpenRestores::default();
        assert_eq!(open.follow(&at(1), &started("killed", RestoreKind::Merge)), None);
        let accept = Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() };
        assert_eq!(open.follow(&at(2), &accept), Some(Decision { at: at(2), kind: DecisionKind::ReadLog }));
        assert_eq!(open.follow(&at(3), &finished("killed")), None);
    }
}
