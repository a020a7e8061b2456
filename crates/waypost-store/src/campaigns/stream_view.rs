//! Applies records of the campaigns stream to the view. The changes of many records, the position of the last record
//! and the view's state are written in one transaction.

use std::sync::PoisonError;

use serde::Serialize;
use sled::transaction::{ConflictableTransactionError, TransactionError};
use waypost_core::stream_position::StreamPosition;

use super::index::CampaignIndex;
use super::record::{CampaignsRecord, Snapshot};
use super::row;
use super::state::{CampaignsViewState, Contents, Incomplete, ReadFrom, RecordEffect, StreamStart, Write};
use super::stored_campaign::StoredCampaign;
use super::view_transaction::ViewTransaction;
use crate::{Store, StoreError};

/// The key of the campaigns stream's position.
pub(super) const POSITION: &[u8] = b"campaigns";

/// The key of the [`CampaignsViewState`].
pub(super) const STATE: &[u8] = b"campaigns.state";

/// A record of the campaigns stream with its position.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignsEntry {
    pub position: StreamPosition,
    /// `None` is an unreadable record.
    pub record: Option<CampaignsRecord>,
}

impl Store {
    /// The position of the last campaigns stream record that was applied.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self) -> Result<Option<StreamPosition>, StoreError> {
        Ok(self.positions.get(POSITION)?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// # Errors
    /// [`StoreError`].
    pub fn view_state(&self) -> Result<CampaignsViewState, StoreError> {
        let state = self.positions.get(STATE)?.as_deref().map(serde_json::from_slice).transpose()?;
        Ok(state.unwrap_or_default())
    }

    /// Applies records of the campaigns stream in one transaction, and returns their effects.
    ///
    /// Stops after a record that changes how the stream must be read ([`RecordEffect::Held`],
    /// [`RecordEffect::Completed`] or [`RecordEffect::ReadAgain`]). The records after it have no effect, and must be
    /// applied again if they are still to be applied.
    ///
    /// # Errors
    /// [`StoreError`]. Nothing was applied.
    pub fn apply(&self, entries: &[CampaignsEntry], from: ReadFrom) -> Result<Vec<RecordEffect>, StoreError> {
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.view_state()?;
        let mut last = self.position()?;
        let mut state = before.clone();
        let mut transaction = ViewTransaction::new(self);
        let mut effects = Vec::with_capacity(entries.len());
        for CampaignsEntry { position, record } in entries {
            let record = record.as_ref();
            let contents = state.contents.clone();
            let (write, mut effect) = match &contents {
                Contents::Loading(snapshot) => state.load(snapshot, record),
                Contents::Log | Contents::Outdated(_) => {
                    let start = if last.is_some() { StreamStart::Earlier } else { StreamStart::Here };
                    state.follow(position, record, from, start)
                }
            };
            last = Some(position.clone());
            match write {
                Write::Nothing => {}
                Write::Loaded(first) => last = Some(first.clone()),
                Write::Change(change, lost_before) => {
                    effect = RecordEffect::Changed(transaction.change(change, lost_before, position.offset)?);
                }
                Write::Merge(stored) => {
                    let outcome = transaction.merge(stored, position.offset);
                    effect = RecordEffect::Restored { id: stored.campaign.id.clone(), outcome };
                }
                Write::Load(stored) => transaction.insert(stored.clone()),
            }
            let reads_on = effect.reads_on();
            effects.push(effect);
            if !reads_on {
                break;
            }
        }
        if let Some(last) = &last {
            transaction.commit(last, Some(&state).filter(|state| **state != before))?;
        }
        Ok(effects)
    }

    /// Marks the view as incomplete for a reason that is not in the stream, or as complete.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_incomplete(&self, incomplete: Option<Incomplete>) -> Result<(), StoreError> {
        self.set_state(&CampaignsViewState { incomplete, ..self.view_state()? })
    }

    /// Sets the last record that is not a marker.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_last_record(&self, position: &StreamPosition) -> Result<(), StoreError> {
        self.set_state(&CampaignsViewState { last_record: Some(position.clone()), ..self.view_state()? })
    }

    fn set_state(&self, state: &CampaignsViewState) -> Result<(), StoreError> {
        self.positions.insert(STATE, serde_json::to_vec(state)?)?;
        Ok(())
    }

    /// Moves back to an earlier position. The view must have applied only markers after it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rewind(&self, position: &StreamPosition) -> Result<(), StoreError> {
        self.positions.insert(POSITION, serde_json::to_vec(position)?)?;
        Ok(())
    }

    /// Marks the view as outdated by the decision at `decision`. The next reader of the stream clears the view and
    /// starts at `snapshot`, or else at the stream's first record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn mark_outdated(&self, decision: StreamPosition, snapshot: Option<Snapshot>) -> Result<(), StoreError> {
        let contents = Contents::Outdated(snapshot);
        self.set_state(&CampaignsViewState { decision: Some(decision), contents, ..self.view_state()? })
    }

    /// Clears an outdated view, so that the stream can be read again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear_outdated(
        &self,
        decision: Option<StreamPosition>,
        snapshot: Option<Snapshot>,
    ) -> Result<(), StoreError> {
        let state = CampaignsViewState::read_again(decision, snapshot.clone());
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        // If the process ends here, the view is outdated or has no position. Both are cleared at the next connection.
        self.campaigns.clear()?;
        self.campaign_index.clear()?;
        *self.index_mut() = CampaignIndex::default();
        self.campaign_cache.clear();
        self.count_change();
        let result = self.positions.transaction(|positions| {
            match &snapshot {
                Some(snapshot) => positions.insert(POSITION, json(&snapshot.at)?)?,
                None => positions.remove(POSITION)?,
            };
            positions.insert(STATE, json(&state)?)?;
            Ok(())
        });
        result.map_err(store_error)
    }

    pub fn has_campaigns(&self) -> bool {
        self.count_campaigns() > 0
    }

    pub fn count_campaigns(&self) -> u64 {
        self.index().count()
    }

    /// The first campaign after the id `after`. Secrets stay encrypted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stored_campaign_after(&self, after: Option<&str>) -> Result<Option<StoredCampaign>, StoreError> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes()));
        let next = self.campaigns.range::<&[u8], _>((from, Bound::Unbounded)).next().transpose()?;
        next.map(|(_, stored)| self.note_damage(row::decode(&stored))).transpose()
    }
}

type Abort = ConflictableTransactionError<serde_json::Error>;

pub(super) fn store_error(error: TransactionError<serde_json::Error>) -> StoreError {
    match error {
        TransactionError::Abort(error) => error.into(),
        TransactionError::Storage(error) => StoreError::Sled(error),
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Abort> {
    serde_json::to_vec(value).map_err(ConflictableTransactionError::Abort)
}
