//! Records of the campaigns stream: changes of campaigns, and decisions about an incomplete stream.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use waypost_core::stream_position::StreamPosition;

use super::change::Change;
use super::stored_campaign::StoredCampaign;

#[derive(Debug, Clone, PartialEq)]
pub enum CampaignsRecord {
    /// An empty record, appended to find the end of the stream.
    Marker,
    Change(Box<Change>),
    Control(Box<Control>),
}

/// A record about the campaigns stream itself.
///
/// A control record has no `id` at its top level, so that versions of Waypost without control records skip it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Control {
    /// A worker has campaigns, but the stream has no change. All workers hold their events until a decision.
    Hold {
        at: DateTime<Utc>,
        /// The number of campaigns that the worker has.
        campaigns: u64,
    },
    /// The campaigns of a worker follow.
    RestoreStarted {
        /// The id of the restore.
        restore: String,
        kind: RestoreKind,
        /// The name of the token.
        by: String,
        at: DateTime<Utc>,
        /// See [`CampaignsViewState::accepted_loss`](super::state::CampaignsViewState::accepted_loss) of the worker's view.
        #[serde(default)]
        accepted_loss: Option<u64>,
        /// Whether another worker asked for the restore. If not, an operator decided.
        #[serde(default)]
        is_answer: bool,
    },
    /// One campaign of a restore. Secrets stay encrypted.
    RestoredCampaign { restore: String, stored: Box<StoredCampaign> },
    /// All campaigns of the restore have been appended.
    RestoreFinished {
        restore: String,
        campaigns: u64,
        /// When the broker confirmed the last campaign.
        at: DateTime<Utc>,
    },
    /// A worker asks for a snapshot, because the stream has lost its beginning. A ready worker that lacks less appends
    /// one.
    SnapshotWanted {
        /// The accepted loss of the asking worker's view. `None` if that worker holds its events.
        accepted_loss: Option<u64>,
        at: DateTime<Utc>,
    },
    /// An operator accepted the stream as it is.
    AcceptEmpty {
        /// The name of the token.
        by: String,
        at: DateTime<Utc>,
    },
}

/// How workers apply a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestoreKind {
    /// The campaigns of this stream at the restore's first record, with their versions. A worker with a complete view
    /// ignores the snapshot, unless its view lacks more than the snapshot.
    Snapshot,
    /// Campaigns from another stream. All workers add the campaigns that the stream does not have. Their version is the
    /// record's offset.
    Merge,
}

/// A decision that makes an incomplete stream complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The position of the decision's last record.
    pub at: StreamPosition,
    pub kind: DecisionKind,
}

/// What workers do after a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecisionKind {
    /// Read the stream from its first record. A ready worker keeps its view.
    ReadLog,
    /// Load a snapshot and read the stream from there. A worker with a complete view does nothing, unless its view
    /// lacks more.
    Load(Snapshot),
}

impl Decision {
    /// Whether another worker asked for the decision. If not, an operator decided.
    pub fn is_answer(&self) -> bool {
        matches!(&self.kind, DecisionKind::Load(Snapshot { is_answer: true, .. }))
    }
}

/// A snapshot in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The id of its restore.
    pub restore: String,
    /// The position of its first record.
    pub at: StreamPosition,
    /// See [`CampaignsViewState::accepted_loss`](super::state::CampaignsViewState::accepted_loss).
    #[serde(default)]
    pub accepted_loss: Option<u64>,
    /// Whether another worker asked for the snapshot.
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

impl CampaignsRecord {
    /// Reads the body of a record.
    ///
    /// # Errors
    /// The body was not written by this version of Waypost.
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
    /// Processes the control record at `at`. Returns a decision if the record completes one.
    ///
    /// A restore whose first record was not read is ignored: some of its campaigns may be missing.
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

    /// Whether this restore is open and adds its campaigns to those of the stream.
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
    fn a_record_is_classified_by_its_body() {
        assert_eq!(CampaignsRecord::read(b"").expect("a marker"), CampaignsRecord::Marker);
        let change = br#"{"id":"c","expected":null,"campaign":null}"#;
        assert!(matches!(CampaignsRecord::read(change), Ok(CampaignsRecord::Change(_))));
        let snapshot_wanted = Control::SnapshotWanted { accepted_loss: None, at: Utc::now() };
        let hold = Control::Hold { at: Utc::now(), campaigns: 2 };
        for control in [started("r", RestoreKind::Merge), finished("r"), snapshot_wanted, hold] {
            let body = serde_json::to_vec(&control).expect("JSON");
            assert_eq!(
                CampaignsRecord::read(&body).expect("a control record"),
                CampaignsRecord::Control(Box::new(control))
            );
            // An older version skips the record.
            serde_json::from_slice::<Change>(&body).expect_err("not a change");
        }
        // Earlier versions wrote fewer fields.
        let earlier = br#"{"control":"restoreStarted","restore":"r","kind":"snapshot","by":"editor","at":"2026-11-30T03:00:00Z"}"#;
        let earlier = CampaignsRecord::read(earlier).expect("a control record");
        assert!(
            matches!(&earlier, CampaignsRecord::Control(control) if matches!(
                **control, Control::RestoreStarted { accepted_loss: None, is_answer: false, .. }
            )),
            "{earlier:?}"
        );
        CampaignsRecord::read(b"not JSON").expect_err("not a record");
        CampaignsRecord::read(br#"{"control":"of a later version"}"#).expect_err("not a record");
    }

    #[test]
    fn a_restore_decides_only_if_its_first_record_was_read() {
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
    fn accepting_the_log_ends_interrupted_restores() {
        let mut open = OpenRestores::default();
        assert_eq!(open.follow(&at(1), &started("killed", RestoreKind::Merge)), None);
        let accept = Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() };
        assert_eq!(open.follow(&at(2), &accept), Some(Decision { at: at(2), kind: DecisionKind::ReadLog }));
        assert_eq!(open.follow(&at(3), &finished("killed")), None);
    }
}
