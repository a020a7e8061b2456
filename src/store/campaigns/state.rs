//! Whether the view holds the whole configuration, and what a record of the campaigns log means for that.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::record::{Control, Decision, DecisionKind, LogRecord, OpenRestores, Snapshot};
use super::{Change, StoredCampaign};
use crate::broker::stream_reader::StreamPosition;

/// What is known about the view of the campaigns log. A store of a version that did not keep it has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ViewState {
    /// The last record that was not a marker.
    pub last_record: Option<StreamPosition>,
    /// When the last change was accepted.
    pub last_change_at: Option<DateTime<Utc>>,
    /// The latest decision that the view contains.
    pub decision: Option<StreamPosition>,
    /// Why the view may lack campaigns.
    pub incomplete: Option<Incomplete>,
    /// What the view consists of.
    pub contents: Contents,
    /// The offset of the decision that accepted a log without its beginning, from which this view was read. `None` if the
    /// view has all changes. Of two views, the one with the smaller offset knows more.
    pub accepted_loss: Option<u64>,
    pub(super) restores: OpenRestores,
}

/// Why a view that was read from the log may lack campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Incomplete {
    /// The log has lost its beginning.
    BeginsLater {
        /// The offset of its first record.
        first: u64,
    },
    /// A worker has campaigns that the log does not have.
    HeldByWorker {
        /// How many.
        campaigns: u64,
    },
    /// The log has no change, but deliveries wait for a retry.
    DeliveriesWait {
        /// How many messages wait.
        messages: u64,
    },
}

/// What a view consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contents {
    /// The log, up to the view's position.
    #[default]
    Log,
    /// Campaigns that must be removed before the log is read again, from this snapshot if there is one.
    Outdated(Option<Snapshot>),
    /// A part of this snapshot, which is being loaded.
    Loading(Snapshot),
}

/// How the view came to the records that are applied now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// The view is being read from the log's first record, or from a snapshot.
    First,
    /// The view goes on at its position, after a time in which this worker did not follow the log.
    Position,
    /// The view is current or held, or was until a moment ago.
    Live,
}

/// What a record did to the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that somebody waits for.
    None,
    /// A change was applied, or was not.
    Changed(super::ChangeOutcome),
    /// A campaign of a restore was added, or was not.
    Restored {
        /// The campaign.
        id: String,
        /// Why it was not added.
        applied: super::ChangeOutcome,
    },
    /// The view may lack campaigns from now on.
    Held,
    /// The view is complete again.
    Completed,
    /// The log must be read again.
    ReadAgain,
}

/// What is written into the view.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write<'a> {
    Nothing,
    /// A change. If a base is given, a campaign that the view does not have is taken to have a version before it.
    Change(&'a Change, Option<u64>),
    /// A campaign that is added if there is none of its id.
    Merge(&'a StoredCampaign),
    /// A campaign of the snapshot that is being loaded, with its version.
    Load(&'a StoredCampaign),
    /// The end of the snapshot: the log is read on from its first record.
    Loaded(&'a StreamPosition),
}

impl ViewState {
    /// Whether the view holds all campaigns.
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_none() && self.contents == Contents::Log
    }

    /// The state of a view that is about to be read again.
    pub(super) fn read_again(decision: Option<StreamPosition>, snapshot: Option<Snapshot>) -> Self {
        let accepted_loss = snapshot.as_ref().and_then(|snapshot| snapshot.accepted_loss);
        let contents = snapshot.map_or(Contents::Log, Contents::Loading);
        Self { decision, contents, accepted_loss, ..Self::default() }
    }

    /// Takes in a record at `at`; `first` if it is the first one of a view that was empty. `None` is a record that can't be read.
    pub(super) fn follow<'a>(
        &mut self,
        at: &StreamPosition,
        record: Option<&'a LogRecord>,
        from: ReadFrom,
        begins: Begins,
    ) -> (Write<'a>, Effect) {
        if begins == Begins::Here && at.offset > 0 && self.incomplete.is_none() {
            self.incomplete = Some(Incomplete::BeginsLater { first: at.offset });
        }
        match record {
            None | Some(LogRecord::Marker) => (Write::Nothing, Effect::None),
            Some(LogRecord::Change(change)) => {
                self.last_record = Some(at.clone());
                self.last_change_at = change.made.as_ref().map(|made| made.at).or(self.last_change_at);
                let lost_before = match self.incomplete {
                    Some(Incomplete::BeginsLater { first }) => Some(first),
                    _ => None,
                };
                (Write::Change(change, lost_before), Effect::None)
            }
            Some(LogRecord::Control(control)) => {
                self.last_record = Some(at.clone());
                self.control(at, control, from)
            }
        }
    }

    fn control<'a>(&mut self, at: &StreamPosition, control: &'a Control, from: ReadFrom) -> (Write<'a>, Effect) {
        if let Some(decision) = self.restores.follow(at, control) {
            return (Write::Nothing, self.decide(decision, from));
        }
        match control {
            Control::Hold { campaigns, .. } if self.incomplete.is_none() => {
                self.incomplete = Some(Incomplete::HeldByWorker { campaigns: *campaigns });
                (Write::Nothing, Effect::Held)
            }
            Control::RestoredCampaign { restore, stored } if self.restores.merges(restore) => {
                (Write::Merge(stored), Effect::None)
            }
            _ => (Write::Nothing, Effect::None),
        }
    }

    fn decide(&mut self, Decision { at, kind }: Decision, from: ReadFrom) -> Effect {
        let incomplete = self.incomplete.take();
        let begins_later = matches!(incomplete, Some(Incomplete::BeginsLater { .. }));
        let is_new = self.decision.as_ref().is_none_or(|known| known.offset < at.offset);
        let offset = at.offset;
        if is_new {
            self.decision = Some(at);
        }
        match kind {
            DecisionKind::Load(snapshot) if incomplete.is_some() || self.accepted_loss > snapshot.accepted_loss => {
                self.contents = Contents::Outdated(Some(snapshot));
                Effect::ReadAgain
            }
            DecisionKind::Load(_) => Effect::None,
            DecisionKind::ReadLog if is_new && reads_again(from, begins_later) => {
                self.contents = Contents::Outdated(None);
                Effect::ReadAgain
            }
            DecisionKind::ReadLog => {
                if begins_later {
                    self.accepted_loss = Some(offset);
                }
                if incomplete.is_some() { Effect::Completed } else { Effect::None }
            }
        }
    }

    /// Takes in a record while `snapshot` is being loaded: changes come later, when the log is read on from its first record.
    pub(super) fn load<'a>(&mut self, snapshot: &'a Snapshot, record: Option<&'a LogRecord>) -> (Write<'a>, Effect) {
        let Some(LogRecord::Control(control)) = record else { return (Write::Nothing, Effect::None) };
        match &**control {
            Control::RestoredCampaign { restore, stored } if *restore == snapshot.restore => {
                (Write::Load(stored), Effect::None)
            }
            Control::RestoreFinished { restore, .. } if *restore == snapshot.restore => {
                self.contents = Contents::Log;
                self.last_record = Some(snapshot.at.clone());
                (Write::Loaded(&snapshot.at), Effect::ReadAgain)
            }
            _ => (Write::Nothing, Effect::None),
        }
    }
}

/// Whether a view must be read again from the log's first record because of a decision that it does not contain.
fn reads_again(from: ReadFrom, begins_later: bool) -> bool {
    match from {
        ReadFrom::First => false,
        // Other workers may have worked without what this view has, and changed campaigns since.
        ReadFrom::Position => true,
        // A log that had lost its beginning may have lost more by now. A view that lacks nothing is kept: workers that lack
        // something ask for a snapshot of it.
        ReadFrom::Live => begins_later,
    }
}

/// Where the log begins for a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// At the record that is applied now.
    Here,
    /// Before it.
    Before,
}

#[cfg(test)]
mod tests {
    use super::super::record::RestoreKind;
    use super::*;

    fn at(offset: u64) -> StreamPosition {
        StreamPosition { offset, message_id: format!("record-{offset}") }
    }

    fn accept() -> LogRecord {
        LogRecord::Control(Box::new(Control::AcceptEmpty { by: "editor".to_owned(), at: Utc::now() }))
    }

    fn follow(state: &mut ViewState, offset: u64, record: &LogRecord, from: ReadFrom) -> Effect {
        state.follow(&at(offset), Some(record), from, Begins::Before).1
    }

    /// A view whose log begins at offset 40.
    fn cut_off() -> ViewState {
        let mut state = ViewState::default();
        state.follow(&at(40), Some(&LogRecord::Marker), ReadFrom::First, Begins::Here);
        state
    }

    /// What a snapshot of a view that lacks `accepted_loss` does.
    fn snapshot(state: &mut ViewState, first: u64, accepted_loss: Option<u64>) -> Effect {
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
        follow(state, first, &LogRecord::Control(Box::new(started)), ReadFrom::Live);
        follow(state, first + 1, &LogRecord::Control(Box::new(finished)), ReadFrom::Live)
    }

    #[test]
    fn a_ready_view_is_kept_through_a_decision() {
        let mut ready = ViewState::default();
        assert_eq!(follow(&mut ready, 41, &accept(), ReadFrom::Live), Effect::None);
        assert!(ready.is_complete());
        assert_eq!(ready.accepted_loss, None);
        let mut stopped = ViewState::default();
        assert_eq!(follow(&mut stopped, 41, &accept(), ReadFrom::Position), Effect::ReadAgain);
        assert_eq!(stopped.contents, Contents::Outdated(None));
    }

    #[test]
    fn a_held_view_reads_again_what_the_log_has_now() {
        let mut held = cut_off();
        assert_eq!(follow(&mut held, 41, &accept(), ReadFrom::Live), Effect::ReadAgain);
    }

    #[test]
    fn a_view_that_lacks_changes_loads_a_snapshot_of_a_view_that_lacks_less() {
        let accepted = || {
            let mut state = cut_off();
            assert_eq!(follow(&mut state, 41, &accept(), ReadFrom::First), Effect::Completed);
            assert_eq!(state.accepted_loss, Some(41));
            state
        };
        for (accepted_loss, effect) in [
            (None, Effect::ReadAgain),
            (Some(7), Effect::ReadAgain),
            (Some(41), Effect::None),
            (Some(50), Effect::None),
        ] {
            assert_eq!(snapshot(&mut accepted(), 51, accepted_loss), effect, "{accepted_loss:?}");
            let mut whole = ViewState::default();
            assert_eq!(snapshot(&mut whole, 51, accepted_loss), Effect::None, "{accepted_loss:?}");
        }
        let mut state = accepted();
        snapshot(&mut state, 51, Some(7));
        let Contents::Outdated(loaded) = state.contents else { panic!("{state:?}") };
        let loading = ViewState::read_again(state.decision, loaded);
        assert_eq!(loading.accepted_loss, Some(7), "it lacks what the snapshot lacks");
    }
}
