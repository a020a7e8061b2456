//! Whether the view holds the whole configuration, and what a record of the campaigns log means for that.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::record::{Control, Decision, DecisionKind, LogRecord, OpenRestores, Snapshot};
use super::{Change, StoredCampaign};
use crate::broker::log::Position;

/// What is known about the view of the campaigns log. A store of a version that did not keep it has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ViewState {
    /// The last record that was not a marker.
    pub last_record: Option<Position>,
    /// When the last change was accepted.
    pub last_change_at: Option<DateTime<Utc>>,
    /// The latest decision that the view contains.
    pub decision: Option<Position>,
    /// Why the view may lack campaigns.
    pub incomplete: Option<Incomplete>,
    /// What the view consists of.
    pub contents: Contents,
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

/// Where the current connection began to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the log's first record.
    First,
    /// At the view's position.
    Position,
}

/// What a record did to the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that somebody waits for.
    None,
    /// A change was applied, or was not.
    Changed(super::Applied),
    /// A campaign of a restore was added, or was not.
    Restored {
        /// The campaign.
        id: String,
        /// Why it was not added.
        applied: super::Applied,
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
    Loaded(&'a Position),
}

impl ViewState {
    /// Whether the view holds all campaigns.
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_none() && self.contents == Contents::Log
    }

    /// The state of a view that is about to be read again.
    pub(super) fn read_again(decision: Option<Position>, snapshot: Option<Snapshot>) -> Self {
        let contents = snapshot.map_or(Contents::Log, Contents::Loading);
        Self { decision, contents, ..Self::default() }
    }

    /// Takes in a record at `at`; `first` if it is the first one of a view that was empty. `None` is a record that can't be read.
    pub(super) fn follow<'a>(
        &mut self,
        at: &Position,
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

    fn control<'a>(&mut self, at: &Position, control: &'a Control, from: ReadFrom) -> (Write<'a>, Effect) {
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
        let was_incomplete = self.incomplete.take().is_some();
        let is_new = self.decision.as_ref().is_none_or(|known| known.offset < at.offset);
        if is_new {
            self.decision = Some(at);
        }
        match kind {
            DecisionKind::Load(snapshot) if was_incomplete => {
                self.contents = Contents::Outdated(Some(snapshot));
                Effect::ReadAgain
            }
            // Workers have read different parts of the log. From its first record all read the same.
            DecisionKind::ReadLog if is_new && from == ReadFrom::Position => {
                self.contents = Contents::Outdated(None);
                Effect::ReadAgain
            }
            DecisionKind::Load(_) | DecisionKind::ReadLog if was_incomplete => Effect::Completed,
            DecisionKind::Load(_) | DecisionKind::ReadLog => Effect::None,
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

/// Where the log begins for a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// At the record that is applied now.
    Here,
    /// Before it.
    Before,
}
