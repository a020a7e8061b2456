//! The state of the campaigns view: whether it is complete, and how a record of the campaigns stream changes that.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use waypost_core::stream_position::StreamPosition;

use super::change::{Change, ChangeOutcome};
use super::record::{CampaignsRecord, Control, Decision, DecisionKind, OpenRestores, Snapshot};
use super::stored_campaign::StoredCampaign;

/// The state of the campaigns view. A store of an older version has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CampaignsViewState {
    /// The last record that was not a marker.
    pub last_record: Option<StreamPosition>,
    /// When the last change was accepted.
    pub last_change_at: Option<DateTime<Utc>>,
    /// The latest decision that was applied.
    pub decision: Option<StreamPosition>,
    pub incomplete: Option<Incomplete>,
    pub contents: Contents,
    /// The offset of the decision that accepted the stream without its beginning, if this view was read from such a
    /// stream. `None` if the view has all changes. Of two views, the one with the smaller offset has more changes.
    pub accepted_loss: Option<u64>,
    pub(super) restores: OpenRestores,
}

/// Why the view may lack campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Incomplete {
    /// The stream has lost its beginning.
    BeginsLater {
        /// The offset of its first record.
        first: u64,
    },
    /// A worker has campaigns that the stream does not have.
    HeldByWorker { campaigns: u64 },
    /// The stream has no change, but deliveries wait for a retry.
    DeliveriesWait { messages: u64 },
}

/// The source of the campaigns in the view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contents {
    /// The stream, up to the view's position.
    #[default]
    Log,
    /// Outdated campaigns. They must be removed before the stream is read again, starting at this snapshot if there is
    /// one.
    Outdated(Option<Snapshot>),
    /// A part of this snapshot. The rest is still to be loaded.
    Loading(Snapshot),
}

/// How the worker reached the record that is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// It reads the view from the stream's first record or from a snapshot.
    First,
    /// It continues at the view's position after it did not follow the stream for some time.
    Position,
    /// It follows the stream, apart from a short interruption.
    Live,
}

/// The effect of a record on the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordEffect {
    /// No effect that a caller waits for.
    None,
    /// A change was applied or rejected.
    Changed(ChangeOutcome),
    /// A campaign of a restore was added or rejected.
    Restored { id: String, outcome: ChangeOutcome },
    /// The view may lack campaigns from now on.
    Held,
    /// The view is complete again.
    Completed,
    /// The stream must be read again.
    ReadAgain,
}

impl RecordEffect {
    /// Whether the records after this one are read in the same way.
    pub(super) fn reads_on(&self) -> bool {
        match self {
            Self::None | Self::Changed(_) | Self::Restored { .. } => true,
            Self::Held | Self::Completed | Self::ReadAgain => false,
        }
    }
}

/// A write to the view.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write<'a> {
    Nothing,
    /// A change, and the offset before which the stream has lost records, if any. A campaign that the view does not
    /// have may have had a version before this offset.
    Change(&'a Change, Option<u64>),
    /// A campaign that is added if its id does not exist.
    Merge(&'a StoredCampaign),
    /// A campaign of the snapshot that is being loaded. It keeps its version.
    Load(&'a StoredCampaign),
    /// The end of the snapshot. Reading continues at this position, the snapshot's first record.
    Loaded(&'a StreamPosition),
}

impl CampaignsViewState {
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_none() && self.contents == Contents::Log
    }

    /// The state of a view that is about to be read again, from `snapshot` if there is one.
    pub(super) fn read_again(decision: Option<StreamPosition>, snapshot: Option<Snapshot>) -> Self {
        let accepted_loss = snapshot.as_ref().and_then(|snapshot| snapshot.accepted_loss);
        let contents = snapshot.map_or(Contents::Log, Contents::Loading);
        Self { decision, contents, accepted_loss, ..Self::default() }
    }

    /// Applies the record at `at`. `None` is an unreadable record.
    pub(super) fn follow<'a>(
        &mut self,
        at: &StreamPosition,
        record: Option<&'a CampaignsRecord>,
        from: ReadFrom,
        stream_start: StreamStart,
    ) -> (Write<'a>, RecordEffect) {
        if stream_start == StreamStart::Here && at.offset > 0 && self.incomplete.is_none() {
            self.incomplete = Some(Incomplete::BeginsLater { first: at.offset });
        }
        match record {
            None | Some(CampaignsRecord::Marker) => (Write::Nothing, RecordEffect::None),
            Some(CampaignsRecord::Change(change)) => {
                self.last_record = Some(at.clone());
                self.last_change_at = change.author.as_ref().map(|author| author.at).or(self.last_change_at);
                let lost_before = match self.incomplete {
                    Some(Incomplete::BeginsLater { first }) => Some(first),
                    _ => None,
                };
                (Write::Change(change, lost_before), RecordEffect::None)
            }
            Some(CampaignsRecord::Control(control)) => {
                self.last_record = Some(at.clone());
                self.control(at, control, from)
            }
        }
    }

    fn control<'a>(&mut self, at: &StreamPosition, control: &'a Control, from: ReadFrom) -> (Write<'a>, RecordEffect) {
        if let Some(decision) = self.restores.follow(at, control) {
            return (Write::Nothing, self.decide(decision, from));
        }
        match control {
            Control::Hold { campaigns, .. } if self.incomplete.is_none() => {
                self.incomplete = Some(Incomplete::HeldByWorker { campaigns: *campaigns });
                (Write::Nothing, RecordEffect::Held)
            }
            Control::RestoredCampaign { restore, stored } if self.restores.merges(restore) => {
                (Write::Merge(stored), RecordEffect::None)
            }
            _ => (Write::Nothing, RecordEffect::None),
        }
    }

    fn decide(&mut self, Decision { at, kind }: Decision, from: ReadFrom) -> RecordEffect {
        let incomplete = self.incomplete.take();
        let begins_later = matches!(incomplete, Some(Incomplete::BeginsLater { .. }));
        let is_new = self.decision.as_ref().is_none_or(|latest| latest.offset < at.offset);
        let offset = at.offset;
        if is_new {
            self.decision = Some(at);
        }
        match kind {
            DecisionKind::Load(snapshot) if incomplete.is_some() || self.accepted_loss > snapshot.accepted_loss => {
                self.contents = Contents::Outdated(Some(snapshot));
                RecordEffect::ReadAgain
            }
            DecisionKind::Load(_) => RecordEffect::None,
            DecisionKind::ReadLog if is_new && reads_again(from, begins_later) => {
                self.contents = Contents::Outdated(None);
                RecordEffect::ReadAgain
            }
            DecisionKind::ReadLog => {
                if begins_later {
                    self.accepted_loss = Some(offset);
                }
                if incomplete.is_some() { RecordEffect::Completed } else { RecordEffect::None }
            }
        }
    }

    /// Applies a record while `snapshot` is being loaded. Changes are skipped: they are applied when the stream is read
    /// again from the snapshot's first record.
    pub(super) fn load<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        record: Option<&'a CampaignsRecord>,
    ) -> (Write<'a>, RecordEffect) {
        let Some(CampaignsRecord::Control(control)) = record else { return (Write::Nothing, RecordEffect::None) };
        match &**control {
            Control::RestoredCampaign { restore, stored } if *restore == snapshot.restore => {
                (Write::Load(stored), RecordEffect::None)
            }
            Control::RestoreFinished { restore, .. } if *restore == snapshot.restore => {
                self.contents = Contents::Log;
                self.last_record = Some(snapshot.at.clone());
                (Write::Loaded(&snapshot.at), RecordEffect::ReadAgain)
            }
            _ => (Write::Nothing, RecordEffect::None),
        }
    }
}

/// Whether a new decision requires that the view is read again from the stream's first record.
fn reads_again(from: ReadFrom, begins_later: bool) -> bool {
    match from {
        ReadFrom::First => false,
        // Other workers may have run without campaigns that this view has, and may have changed campaigns since.
        ReadFrom::Position => true,
        // A stream that had lost its beginning may have lost more since. A complete view is kept: other workers ask for
        // a snapshot of it.
        ReadFrom::Live => begins_later,
    }
}

/// Where the stream starts for an empty or a filled view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamStart {
    /// At the record that is applied.
    Here,
    Earlier,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaigns::record::RestoreKind;

    fn at(offset: u64) -> StreamPosition {
        StreamPosition { offset, message_id: format!("record-{offset}") }
    }

    fn accept() -> CampaignsRecord {
        CampaignsRecord::Control(Box::new(Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() }))
    }

    fn follow(state: &mut CampaignsViewState, offset: u64, record: &CampaignsRecord, from: ReadFrom) -> RecordEffect {
        state.follow(&at(offset), Some(record), from, StreamStart::Earlier).1
    }

    /// A view whose stream starts at offset 40.
    fn truncated() -> CampaignsViewState {
        let mut state = CampaignsViewState::default();
        state.follow(&at(40), Some(&CampaignsRecord::Marker), ReadFrom::First, StreamStart::Here);
        state
    }

    /// Applies a snapshot that lacks `accepted_loss`, and returns the effect of its end.
    fn apply_snapshot(state: &mut CampaignsViewState, first: u64, accepted_loss: Option<u64>) -> RecordEffect {
        let (restore, kind, by) = ("r".to_owned(), RestoreKind::Snapshot, "editor".to_owned());
        let started = Control::RestoreStarted {
            restore: restore.clone(),
            kind,
            by,
            at: Utc::now(),
            accepted_loss,
            is_answer: true,
        };
        let finished = Control::RestoreFinished { restore, campaigns: 0, at: Utc::now() };
        follow(state, first, &CampaignsRecord::Control(Box::new(started)), ReadFrom::Live);
        follow(state, first + 1, &CampaignsRecord::Control(Box::new(finished)), ReadFrom::Live)
    }

    #[test]
    fn a_decision_keeps_a_complete_view_that_follows_the_log() {
        let mut ready = CampaignsViewState::default();
        assert_eq!(follow(&mut ready, 41, &accept(), ReadFrom::Live), RecordEffect::None);
        assert!(ready.is_complete());
        assert_eq!(ready.accepted_loss, None);
        let mut stopped = CampaignsViewState::default();
        assert_eq!(follow(&mut stopped, 41, &accept(), ReadFrom::Position), RecordEffect::ReadAgain);
        assert_eq!(stopped.contents, Contents::Outdated(None));
    }

    #[test]
    fn a_decision_makes_an_incomplete_view_read_the_log_again() {
        let mut held = truncated();
        assert_eq!(follow(&mut held, 41, &accept(), ReadFrom::Live), RecordEffect::ReadAgain);
    }

    #[test]
    fn a_view_loads_only_a_snapshot_that_lacks_less() {
        let accepted = || {
            let mut state = truncated();
            assert_eq!(follow(&mut state, 41, &accept(), ReadFrom::First), RecordEffect::Completed);
            assert_eq!(state.accepted_loss, Some(41));
            state
        };
        for (accepted_loss, effect) in [
            (None, RecordEffect::ReadAgain),
            (Some(7), RecordEffect::ReadAgain),
            (Some(41), RecordEffect::None),
            (Some(50), RecordEffect::None),
        ] {
            assert_eq!(apply_snapshot(&mut accepted(), 51, accepted_loss), effect, "{accepted_loss:?}");
            let mut complete = CampaignsViewState::default();
            assert_eq!(apply_snapshot(&mut complete, 51, accepted_loss), RecordEffect::None, "{accepted_loss:?}");
        }
        let mut state = accepted();
        apply_snapshot(&mut state, 51, Some(7));
        let Contents::Outdated(snapshot) = state.contents else { panic!("{state:?}") };
        let loading = CampaignsViewState::read_again(state.decision, snapshot);
        assert_eq!(loading.accepted_loss, Some(7), "the view lacks what the snapshot lacks");
    }
}
