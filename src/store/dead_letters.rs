//! The view of the dead-letter log: every letter with its state, and the replays.
//!
//! [`index_block`] and `ids` are its index, [`search`] reads by filters, `draft` applies records of the log. What does not change any
//! more goes to the `archive`: of blocks that are over the rows, which `blocks` finds, and the letters themselves, `pack` by
//! `pack`, which come by `reading`.

mod archive;
mod block_store;
mod id_index;
pub mod index_block;
mod letter_reader;
mod location;
mod removed;
pub mod search;
mod segment_codec;
mod view_transaction;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sled::{Db, Tree};

use super::StoreError;
use crate::broker::stream_reader::StreamPosition;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::dead_letter::record::{DeadLetterRecord, LetterHistory};
use crate::delivery::dead_letter::removed::RemovedMessage;
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::ids::{DeadLetterId, ReplayId};
use crate::delivery::replay::{ClaimState, Replay, ReplayProgress, ReplayState};
use crate::delivery::timestamp;
use archive::{Archive, Segments};
use id_index::IdIndex;
use index_block::{Block, IndexRow, Zone, fingerprint};
pub use letter_reader::StoredLetter;
use location::{block_of, blocks_of, first_of};
use view_transaction::ViewTransaction;

/// The key of the dead-letter log's position.
const DEAD_LETTER_LOG: &[u8] = b"dead-letters";

/// Letters read at once are no more than these bytes, and one. Each replay at work and each list being read has as many.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Letters claimed in one transaction.
const LETTERS_AT_ONCE: usize = 2000;

/// Blocks of letters given back in one transaction.
const BLOCKS_AT_ONCE: usize = 256;

/// Replays that have not ended, from the oldest on, are looked for among so many of the newest.
const OPEN_AMONG: usize = 10_000;

/// The newest replays that people are told of unasked. Few: each may name thousands of letters, and is read for it.
const OF_LATE: usize = 20;

/// A record of the log, read.
#[derive(Debug, Clone)]
pub struct StreamEntry {
    /// Its place.
    pub position: StreamPosition,
    /// What it says.
    pub content: Payload,
}

/// What a record of the log says.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A letter.
    Letter(Box<DeadLetter>),
    /// A message that the broker put there: its letters are to be written.
    Removed(Box<RemovedMessage>),
    /// Something about letters that are there already.
    Mark(DeadLetterRecord),
    /// Nothing: a record without a body, or one of another version.
    Nothing,
}

/// What a record did.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordOutcome {
    /// So many letters changed their state.
    Letters(u64),
    /// The replay as it is now.
    Replay(Box<ReplayProgress>),
    /// The replay's state does not allow it; nothing was changed.
    Refused(ReplayState),
    /// There is no such replay, or nothing was said.
    Nothing,
}

/// A [`ReplayProgress`] without the ids of its letters, which can be many.
#[derive(Deserialize)]
struct JobHead {
    replay: ReplayHead,
    left: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplayHead {
    id: ReplayId,
    state: ReplayState,
    #[serde(default)]
    filter: Option<LetterFilter>,
    #[serde(with = "timestamp::optional", default)]
    ended_at: Option<DateTime<Utc>>,
}

/// Letters of each state, by the state's number.
pub type Counts = [u64; 4];

/// The view. Cheap to clone. One at a time writes. A search reads block by block: of a batch that is applied meanwhile it
/// may see a part.
#[derive(Clone)]
pub struct LetterView {
    /// Offset → the letter, as JSON, while its block is not over.
    letters: Tree,
    /// What does not change any more.
    archive: Archive,
    /// Block → its rows, or where they are.
    blocks: Tree,
    /// Offset → [`LetterHistory`], of letters that have one.
    fates: Tree,
    /// Replay's id → [`ReplayProgress`].
    jobs: Tree,
    /// Replay's id and block → a bit for each letter that it has claimed and not sent.
    claims: Tree,
    /// Offset → [`RemovedMessage`], until its letters are in the log.
    removed: Tree,
    positions: Tree,
    zones: Arc<RwLock<BTreeMap<u64, Zone>>>,
    /// Locked after the zones, where both are.
    ids: Arc<RwLock<IdIndex>>,
    writing: Arc<Mutex<()>>,
    /// How long letters are kept.
    retention: Duration,
}

impl LetterView {
    /// Opens the view in `db`, with the letters of blocks that are over in `folder`.
    pub(super) fn open(db: &Db, folder: PathBuf) -> Result<Self, StoreError> {
        let view = Self {
            letters: db.open_tree("letters")?,
            archive: Archive::open(db, folder)?,
            blocks: db.open_tree("letter-rows")?,
            fates: db.open_tree("letter-fates")?,
            jobs: db.open_tree("replays")?,
            claims: db.open_tree("replay-claims")?,
            removed: db.open_tree("removed-messages")?,
            positions: db.open_tree("positions")?,
            zones: Arc::default(),
            ids: Arc::default(),
            writing: Arc::default(),
            retention: Duration::MAX,
        };
        let (mut zones, mut ids) = (view.zones_mut(), view.ids_mut());
        let mut volumes = Segments::new(&view.archive);
        for key in view.blocks.iter().keys() {
            let number = number(&key?);
            let Some(loaded) = view.load(number, &mut volumes)? else { continue };
            let block = loaded.block()?;
            zones.insert(number, Zone::of_block(&block));
            ids.insert_all(number, &block);
        }
        drop((zones, ids));
        view.position()?;
        Ok(view)
    }

    /// The same view, whose letters are kept so long. A replay claims no older ones: how many of those are still there is
    /// another question on every node.
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// How far the view has come in its log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position(&self) -> Result<Option<StreamPosition>, StoreError> {
        Ok(self.positions.get(DEAD_LETTER_LOG)?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// Applies records of the log, and their position with them. Tells what each did.
    ///
    /// It is one transaction, but for a replay that claims or gives back letters: what is before it is written first, and
    /// its letters in several. Cut short there, its record is applied once more, and goes on where it had come to.
    ///
    /// # Errors
    /// [`StoreError`]; the position is not moved then.
    pub fn apply(&self, entries: &[StreamEntry]) -> Result<Vec<RecordOutcome>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = ViewTransaction::new(self);
        let mut all_applied = Vec::with_capacity(entries.len());
        let mut before = None;
        for entry in entries {
            let mut applied = draft.apply(entry)?;
            if let Payload::Mark(mark) = &entry.content
                && let Some(replay) = mark.replay()
                && let Some(job) = draft.job(replay)?
            {
                if job.claims == ClaimState::Unfinished {
                    let replay = job.replay.clone();
                    draft.commit(before)?;
                    self.claim_all(&replay)?;
                    draft = ViewTransaction::new(self);
                    applied = draft.all_claimed(&replay.id)?;
                } else if job.is_to_release() {
                    draft.commit(before)?;
                    self.release_all(replay)?;
                    draft = ViewTransaction::new(self);
                }
            }
            before = Some(&entry.position);
            all_applied.push(applied);
        }
        draft.commit(before)?;
        Ok(all_applied)
    }

    /// Claims all letters that there are for a replay.
    fn claim_all(&self, replay: &Replay) -> Result<(), StoreError> {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let oldest = replay.created_at.timestamp_millis().saturating_sub(retention);
        let claim = |letters: &mut dyn Iterator<Item = u64>| {
            let mut draft = ViewTransaction::new(self);
            draft.claim(&replay.id, letters, oldest)?;
            draft.commit(None)
        };
        for ids in replay.ids.iter().flat_map(|ids| ids.chunks(LETTERS_AT_ONCE)) {
            claim(&mut ids.iter().filter_map(|id| self.offset_of(id)))?;
        }
        if let Some(filter) = &replay.filter {
            let mut from = Some(0);
            while let Some(start) = from {
                let found = self.find(&filter.or_pending(), start..u64::MAX, LETTERS_AT_ONCE)?;
                claim(&mut found.letters.iter().map(|(offset, _)| *offset))?;
                from = found.next;
            }
        }
        Ok(())
    }

    /// Gives back all letters that a replay has not sent.
    fn release_all(&self, replay: &ReplayId) -> Result<(), StoreError> {
        loop {
            let mut draft = ViewTransaction::new(self);
            let claims = self.claims.scan_prefix(claims_of(replay)).keys().take(BLOCKS_AT_ONCE);
            let blocks = claims.map(|key| key.map(|key| block_in(&key))).collect::<Result<Vec<_>, _>>()?;
            if blocks.is_empty() {
                return Ok(());
            }
            for block in blocks {
                draft.release(replay, block)?;
            }
            draft.commit(None)?;
        }
    }

    /// Forgets the oldest letters, those given up before `milliseconds`, a block at a time and at most `blocks`; tells
    /// how many letters. And replays that ended before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_before(&self, milliseconds: i64, blocks: usize) -> Result<u64, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old: Vec<u64> = {
            let zones = self.zones();
            let old = zones.iter().filter(|(_, zone)| zone.is_before(milliseconds)).map(|(block, _)| *block);
            old.take(blocks).collect()
        };
        let mut draft = ViewTransaction::new(self);
        let mut claiming = Vec::new();
        for entry in &self.jobs {
            let job: JobHead = serde_json::from_slice(&entry?.1)?;
            if job.replay.ended_at.is_some_and(|ended| ended.timestamp_millis() < milliseconds) {
                draft.forget_job(&job.replay.id);
            } else if job.left > 0 {
                claiming.push(job.replay.id);
            }
        }
        let mut forgotten = 0;
        for block in &old {
            forgotten += draft.forget_block(*block, &claiming)?;
        }
        draft.commit(None)?;
        self.archive.delete_unused(&old)?;
        let zones = self.zones();
        self.ids_mut().drop_forgotten(|offsets| zones.range(blocks_of(&offsets)).next().is_some());
        Ok(forgotten)
    }

    /// Forgets everything, to read the log from its beginning.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clear(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // First the position: cut short after it, the log is read from its beginning all the same.
        self.positions.remove(DEAD_LETTER_LOG)?;
        for tree in [&self.letters, &self.blocks, &self.fates, &self.jobs, &self.claims, &self.removed] {
            tree.clear()?;
        }
        self.archive.clear()?;
        self.zones_mut().clear();
        *self.ids_mut() = IdIndex::default();
        Ok(())
    }

    /// Letters of each state.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for zone in self.zones().values() {
            for (count, states) in counts.iter_mut().zip(zone.states) {
                *count += u64::from(states);
            }
        }
        counts
    }

    /// The state of the letter with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn state(&self, id: &DeadLetterId) -> Result<Option<LetterState>, StoreError> {
        self.row(id, |row| row.state)
    }

    /// Whether what the letter told of a person was erased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_erased(&self, id: &DeadLetterId) -> Result<bool, StoreError> {
        self.offset_of(id).map_or(Ok(false), |offset| Ok(self.fate(offset)?.erased.is_some()))
    }

    /// What `read` makes of the row of the letter with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn row<T>(&self, id: &DeadLetterId, read: impl FnOnce(&IndexRow<'_>) -> T) -> Result<Option<T>, StoreError> {
        self.offset_of(id).map_or(Ok(None), |offset| self.with_row(offset, read))
    }

    /// What became of the letter at `offset`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fate(&self, offset: u64) -> Result<LetterHistory, StoreError> {
        Ok(self.fates.get(key(offset))?.as_deref().map(serde_json::from_slice).transpose()?.unwrap_or_default())
    }

    /// The replay with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn job(&self, id: &ReplayId) -> Result<Option<ReplayProgress>, StoreError> {
        Ok(self.jobs.get(id.as_str())?.as_deref().map(serde_json::from_slice).transpose()?)
    }

    /// The state of the replay with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replay_state(&self, id: &ReplayId) -> Result<Option<ReplayState>, StoreError> {
        let job: Option<JobHead> = self.jobs.get(id.as_str())?.as_deref().map(serde_json::from_slice).transpose()?;
        Ok(job.map(|job| job.replay.state))
    }

    /// What `shown` makes of replays, newest first, from before `before`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn jobs<T>(
        &self,
        before: Option<&ReplayId>,
        limit: usize,
        shown: impl Fn(ReplayProgress) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let to = before.map_or(Bound::Unbounded, |before| Bound::Excluded(before.as_str().as_bytes()));
        let newest_first = self.jobs.range::<&[u8], _>((Bound::Unbounded, to)).rev();
        newest_first.take(limit).map(|entry| Ok(shown(serde_json::from_slice(&entry?.1)?))).collect()
    }

    /// Replays that have letters to send.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn jobs_to_do(&self) -> Result<Vec<ReplayProgress>, StoreError> {
        let mut jobs = Vec::new();
        for entry in self.jobs.iter().values().rev().take(OPEN_AMONG) {
            let bytes = entry?;
            // Most have ended, and may have named thousands of letters.
            if serde_json::from_slice::<JobHead>(&bytes)?.replay.state == ReplayState::Running {
                jobs.push(serde_json::from_slice(&bytes)?);
            }
        }
        jobs.retain(|job: &ReplayProgress| job.next_slice().is_some());
        Ok(jobs)
    }

    /// How many of the newest replays are paused.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn paused_of_late(&self) -> Result<u64, StoreError> {
        let mut paused = 0;
        for entry in self.jobs.iter().values().rev().take(OF_LATE) {
            paused += u64::from(serde_json::from_slice::<JobHead>(&entry?)?.replay.state == ReplayState::Paused);
        }
        Ok(paused)
    }

    fn with_row<T>(&self, offset: u64, read: impl FnOnce(&IndexRow<'_>) -> T) -> Result<Option<T>, StoreError> {
        let number = block_of(offset);
        let Some(loaded) = self.load(number, &mut Segments::new(&self.archive))? else { return Ok(None) };
        let block = loaded.block()?;
        let found = block.rows(number).find(|(at, _)| *at == offset);
        Ok(found.map(|(_, row)| read(row)))
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

/// Numbers as keys, so that they sort.
fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn number(key: &[u8]) -> u64 {
    key.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// How the keys of a replay's claims begin.
fn claims_of(replay: &ReplayId) -> Vec<u8> {
    [replay.as_str().as_bytes(), b"\0"].concat()
}

/// The block at the end of a claims' key.
fn block_in(key: &[u8]) -> u64 {
    number(&key[key.len() - 8..])
}

/// The offsets of the letters of a block that are claimed: a bit for each.
fn offsets(block: u64, claims: u64) -> impl Iterator<Item = u64> {
    (0..u64::from(u64::BITS)).filter(move |bit| claims >> bit & 1 == 1).map(move |bit| first_of(block) + bit)
}

#[cfg(test)]
mod tests;
