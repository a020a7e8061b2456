//! The view of the dead-letter stream: all letters with their states, and the replays.
//!
//! `apply` and `view_transaction` apply records of the stream. [`index_block`] and `id_index` are the index, and [`search`] finds
//! letters by filters. The letters and index rows of a complete block (64 offsets) move from sled to the files of the
//! `archive`: `segment_codec` encodes letters for it, `block_store` reads and writes index rows, and `letter_reader`
//! reads letters.

mod apply;
mod archive;
mod block_store;
mod id_index;
pub mod index_block;
mod keys;
mod letter_reader;
mod location;
mod progress_head;
mod removed;
pub mod search;
mod segment_codec;
mod stream_entry;
mod view_transaction;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use sled::{Db, Tree};
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::history::LetterHistory;
use waypost_core::ids::{DeadLetterId, ReplayId};
use waypost_core::replay::{ReplayProgress, ReplayState};
use waypost_core::stream_position::StreamPosition;

use super::StoreError;
use archive::{Archive, SegmentReader};
use id_index::IdIndex;
use index_block::{IndexRow, Zone, fingerprint};
use keys::{POSITION_KEY, from_key, to_key};
pub use letter_reader::StoredLetter;
use location::block_of;
use progress_head::ProgressHead;
pub use stream_entry::{Payload, RecordOutcome, StreamEntry};

/// A read ends after the letter that exceeds this many bytes of JSON. Each running replay and each list request needs
/// as much memory.
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// Running replays are searched among this many of the newest replays.
const MAX_SCANNED_REPLAYS: usize = 10_000;

/// Paused replays are counted among this many of the newest replays. Each replay is read, and may have thousands of
/// ids.
const RECENT_REPLAYS: usize = 20;

/// The number of letters in each state, indexed by [`LetterState`].
pub type StateCounts = [u64; 4];

/// The view of the dead-letter stream. Cheap to clone. Writes are serialized. A search reads one block at a time, so it
/// may see a part of a batch that is applied at the same time.
#[derive(Clone)]
pub struct LetterView {
    /// Offset → JSON of the letter, until its block is complete.
    letters: Tree,
    archive: Archive,
    /// Block → index rows or their location.
    blocks: Tree,
    /// Offset → [`LetterHistory`], if not empty.
    histories: Tree,
    /// Replay id → [`ReplayProgress`].
    replays: Tree,
    /// Replay id and block → one bit per slot: the letters that the replay has claimed and not sent.
    claims: Tree,
    /// Offset → [`RemovedMessage`](waypost_core::dead_letter::removed::RemovedMessage), until its letters are in the stream.
    removed: Tree,
    positions: Tree,
    /// Block → summary.
    zones: Arc<RwLock<BTreeMap<u64, Zone>>>,
    /// Lock order: zones, then ids.
    ids: Arc<RwLock<IdIndex>>,
    write_lock: Arc<Mutex<()>>,
    retention: Duration,
}

impl LetterView {
    /// Opens the view in `db`, with the archive in `folder`.
    pub(super) fn open(db: &Db, folder: PathBuf) -> Result<Self, StoreError> {
        let view = Self {
            letters: db.open_tree("letters")?,
            archive: Archive::open(db, folder)?,
            blocks: db.open_tree("letter-rows")?,
            histories: db.open_tree("letter-fates")?,
            replays: db.open_tree("replays")?,
            claims: db.open_tree("replay-claims")?,
            removed: db.open_tree("removed-messages")?,
            positions: db.open_tree("positions")?,
            zones: Arc::default(),
            ids: Arc::default(),
            write_lock: Arc::default(),
            retention: Duration::MAX,
        };
        let (mut zones, mut ids) = (view.zones_mut(), view.ids_mut());
        let mut segments = SegmentReader::new(&view.archive);
        for key in view.blocks.iter().keys() {
            let number = from_key(&key?);
            let Some(loaded) = view.load_block(number, &mut segments)? else { continue };
            let block = loaded.decode()?;
            zones.insert(number, Zone::from_block(&block));
            ids.insert_all(number, &block);
        }
        drop((zones, ids));
        view.position()?;
        Ok(view)
    }

    /// Sets how long letters are kept. A replay does not claim older letters (see
    /// [`Replay::oldest_claimable_ms`](waypost_core::replay::Replay::oldest_claimable_ms)).
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// The position of the last record that was applied.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self) -> Result<Option<StreamPosition>, StoreError> {
        Ok(self.positions.get(POSITION_KEY)?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// Deletes everything, so that the stream is read from its beginning.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear(&self) -> Result<(), StoreError> {
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Remove the position first: if the process ends in between, the stream is still read from its beginning.
        self.positions.remove(POSITION_KEY)?;
        for tree in [&self.letters, &self.blocks, &self.histories, &self.replays, &self.claims, &self.removed] {
            tree.clear()?;
        }
        self.archive.clear()?;
        self.zones_mut().clear();
        *self.ids_mut() = IdIndex::default();
        Ok(())
    }

    pub fn counts(&self) -> StateCounts {
        let mut counts = StateCounts::default();
        for zone in self.zones().values() {
            for (count, letters) in counts.iter_mut().zip(zone.states) {
                *count += u64::from(letters);
            }
        }
        counts
    }

    /// # Errors
    /// [`StoreError`].
    pub fn state(&self, id: &DeadLetterId) -> Result<Option<LetterState>, StoreError> {
        self.with_row(id, |row| row.state)
    }

    /// Whether the personal data of the letter was erased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_erased(&self, id: &DeadLetterId) -> Result<bool, StoreError> {
        self.offset_of(id).map_or(Ok(false), |offset| Ok(self.history(offset)?.is_erased()))
    }

    /// Applies `read` to the row of the letter with this id. `None` if the letter does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn with_row<T>(
        &self,
        id: &DeadLetterId,
        read: impl FnOnce(&IndexRow<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        self.offset_of(id).map_or(Ok(None), |offset| self.with_row_at(offset, read))
    }

    /// # Errors
    /// [`StoreError`].
    pub fn history(&self, offset: u64) -> Result<LetterHistory, StoreError> {
        Ok(self.histories.get(to_key(offset))?.as_deref().map(serde_json::from_slice).transpose()?.unwrap_or_default())
    }

    /// # Errors
    /// [`StoreError`].
    pub fn replay_progress(&self, id: &ReplayId) -> Result<Option<ReplayProgress>, StoreError> {
        Ok(self.replays.get(id.as_str())?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// # Errors
    /// [`StoreError`].
    pub fn replay_state(&self, id: &ReplayId) -> Result<Option<ReplayState>, StoreError> {
        let head: Option<ProgressHead> =
            self.replays.get(id.as_str())?.as_deref().map(serde_json::from_slice).transpose()?;
        Ok(head.map(|head| head.replay.state))
    }

    /// Maps the newest `limit` replays before the id `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replays<T>(
        &self,
        before: Option<&ReplayId>,
        limit: usize,
        map: impl Fn(ReplayProgress) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let end = before.map_or(Bound::Unbounded, |before| Bound::Excluded(before.as_str().as_bytes()));
        let newest_first = self.replays.range::<&[u8], _>((Bound::Unbounded, end)).rev();
        newest_first.take(limit).map(|entry| Ok(map(serde_json::from_slice(&entry?.1)?))).collect()
    }

    /// Replays that have letters to send, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sendable_replays(&self) -> Result<Vec<ReplayProgress>, StoreError> {
        let mut replays = Vec::new();
        for entry in self.replays.iter().values().rev().take(MAX_SCANNED_REPLAYS) {
            let bytes = entry?;
            // Parse only the head first: most replays have ended, and they may have thousands of ids.
            if serde_json::from_slice::<ProgressHead>(&bytes)?.replay.state == ReplayState::Running {
                replays.push(serde_json::from_slice(&bytes)?);
            }
        }
        replays.retain(|progress: &ReplayProgress| progress.next_batch_size().is_some());
        Ok(replays)
    }

    /// The number of paused replays among the newest 20.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_recently_paused(&self) -> Result<u64, StoreError> {
        let mut paused = 0;
        for entry in self.replays.iter().values().rev().take(RECENT_REPLAYS) {
            paused += u64::from(serde_json::from_slice::<ProgressHead>(&entry?)?.replay.state == ReplayState::Paused);
        }
        Ok(paused)
    }

    fn with_row_at<T>(&self, offset: u64, read: impl FnOnce(&IndexRow<'_>) -> T) -> Result<Option<T>, StoreError> {
        let number = block_of(offset);
        let Some(loaded) = self.load_block(number, &mut SegmentReader::new(&self.archive))? else { return Ok(None) };
        let block = loaded.decode()?;
        let row = block.rows(number).find(|(row_offset, _)| *row_offset == offset);
        Ok(row.map(|(_, row)| read(row)))
    }

    fn offset_of(&self, id: &DeadLetterId) -> Option<u64> {
        let zones = self.zones();
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        ids.find(fingerprint(id.as_str()), |offset| zones.contains_key(&block_of(offset)))
    }

    fn zones(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Zone>> {
        self.zones.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn zones_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Zone>> {
        self.zones.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids_mut(&self) -> RwLockWriteGuard<'_, IdIndex> {
        self.ids.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
