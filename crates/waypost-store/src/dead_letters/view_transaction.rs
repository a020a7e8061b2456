//! Applies records of the dead-letter stream. The changes of a batch are collected in memory, then written in one
//! transaction together with the position.
//!
//! What a record changes is decided in `waypost-core`: `dead_letter::transitions` and `replay::claims`.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use sled::Batch;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional as _};
use waypost_core::dead_letter::history::{LetterHistory, OperatorAction};
use waypost_core::dead_letter::removed::RemovedMessage;
use waypost_core::dead_letter::{DeadLetter, LetterState};
use waypost_core::dead_letter_record::{
    DeadLetterRecord, Discard, Erase, RemovedMessageDone, ReplayBatch, ReplayControl,
};
use waypost_core::ids::{DeadLetterId, ReplayId};
use waypost_core::replay::claims::{ClaimCandidate, LetterClaim};
use waypost_core::replay::{Replay, ReplayProgress};
use waypost_core::stream_position::StreamPosition;

use super::LetterView;
use super::archive::SegmentReader;
use super::block_store::encode_block;
use super::index_block::{Block, IndexRow, Zone, fingerprint};
use super::keys::{POSITION_KEY, bit, claim_key, claimed_offsets, from_key, to_key};
use super::location::{SegmentLocation, block_of, first_offset_of};
use super::progress_head::ProgressHead;
use super::segment_codec::LARGE_LETTER_BYTES;
use super::stream_entry::{Payload, RecordOutcome, StreamEntry};
use crate::StoreError;

/// The new values of the entries that a batch of records changes. `None` deletes an entry.
pub(super) struct ViewTransaction<'a> {
    view: &'a LetterView,
    letters: BTreeMap<u64, Option<Vec<u8>>>,
    /// Block → locations of its archived letters.
    locations: BTreeMap<u64, Option<Vec<SegmentLocation>>>,
    blocks: BTreeMap<u64, Option<Block<'static>>>,
    /// New letters: fingerprint of the id → offset.
    ids: BTreeMap<u64, u64>,
    /// Deleted letters: fingerprint of the id, and offset.
    deleted: Vec<(u64, u64)>,
    histories: BTreeMap<u64, Option<LetterHistory>>,
    replays: BTreeMap<ReplayId, Option<ReplayProgress>>,
    /// Replay and block → one bit per slot.
    claims: BTreeMap<(ReplayId, u64), u64>,
    /// Offset → JSON of the removed message.
    removed: BTreeMap<u64, Option<Vec<u8>>>,
}

impl<'a> ViewTransaction<'a> {
    pub(super) fn new(view: &'a LetterView) -> Self {
        Self {
            view,
            letters: BTreeMap::new(),
            locations: BTreeMap::new(),
            blocks: BTreeMap::new(),
            ids: BTreeMap::new(),
            deleted: Vec::new(),
            histories: BTreeMap::new(),
            replays: BTreeMap::new(),
            claims: BTreeMap::new(),
            removed: BTreeMap::new(),
        }
    }

    pub(super) fn apply(&mut self, entry: &StreamEntry) -> Result<RecordOutcome, StoreError> {
        let offset = entry.position.offset;
        match &entry.payload {
            Payload::Letter(letter) => self.add_letter(offset, letter),
            Payload::Record(DeadLetterRecord::Discard(discard)) => self.discard(discard),
            Payload::Record(DeadLetterRecord::Erase(erase)) => self.erase(erase),
            Payload::Record(DeadLetterRecord::Replay(replay)) => self.create_replay(replay),
            Payload::Record(DeadLetterRecord::Batch(batch)) => self.record_sent(batch),
            Payload::Record(DeadLetterRecord::Control(control)) => self.control_replay(control),
            Payload::Removed(message) => self.add_removed_message(offset, message),
            Payload::Record(DeadLetterRecord::RemovedMessageDone(done)) => self.remove_done_message(done),
            Payload::Ignored => Ok(RecordOutcome::NoEffect),
        }
    }

    /// Adds a letter. A letter may be in the stream twice if a confirmation was lost. Only the first one is added.
    fn add_letter(&mut self, offset: u64, letter: &DeadLetter) -> Result<RecordOutcome, StoreError> {
        if self.offset_of(&letter.id).is_some() {
            return Ok(RecordOutcome::Letters(0));
        }
        self.letters.insert(offset, Some(serde_json::to_vec(letter)?));
        self.block(block_of(offset))?.push(IndexRow::from_letter(letter, offset));
        self.ids.insert(fingerprint(letter.id.as_str()), offset);
        if let (Some(original), Some(replay)) = (&letter.replay_of, &letter.replay_id)
            && let Some(original) = self.offset_of(original)
        {
            let history = self.history(original)?;
            let erasure = history.record_new_letter(replay, letter.dead_at, letter.id.clone()).cloned();
            if let Some(action) = erasure {
                self.erase_letter(offset, &action)?;
            }
        }
        Ok(RecordOutcome::Letters(1))
    }

    fn discard(&mut self, discard: &Discard) -> Result<RecordOutcome, StoreError> {
        let mut discarded = 0;
        for id in &discard.ids {
            if let Some(offset) = self.offset_if(id, LetterState::can_be_discarded)? {
                let state = self.history(offset)?.record_discard(&discard.action);
                self.set_state(offset, state)?;
                discarded += 1;
            }
        }
        Ok(RecordOutcome::Letters(discarded))
    }

    fn erase(&mut self, erase: &Erase) -> Result<RecordOutcome, StoreError> {
        let mut erased = 0;
        let mut phones = BTreeSet::new();
        for id in &erase.ids {
            if let Some(offset) = self.offset_if(id, LetterState::can_be_erased)? {
                phones.extend(self.erase_letter(offset, &erase.action)?);
                erased += 1;
            }
        }
        self.mask_replays(&phones)?;
        Ok(RecordOutcome::Letters(erased))
    }

    /// Erases the person in the row of a letter, and returns the fingerprint of the phone number that the row had.
    fn erase_letter(&mut self, offset: u64, action: &OperatorAction) -> Result<Option<u64>, StoreError> {
        let state = self.history(offset)?.record_erasure(action);
        self.set_state(offset, state)?;
        Ok(self.block(block_of(offset))?.row_mut(offset).and_then(IndexRow::erase_person))
    }

    /// Masks the phone numbers with these fingerprints in the filters of replays.
    fn mask_replays(&mut self, phones: &BTreeSet<u64>) -> Result<(), StoreError> {
        if phones.is_empty() {
            return Ok(());
        }
        let mut replays: BTreeSet<ReplayId> = self.replays.keys().cloned().collect();
        for entry in &self.view.replays {
            let ProgressHead { replay, .. } = serde_json::from_slice(&entry?.1)?;
            replays.extend(replay.filter.is_some_and(|filter| filter.phone_number.is_some()).then_some(replay.id));
        }
        let is_erased = |phone_number: &str| phones.contains(&fingerprint(phone_number));
        for replay in replays {
            self.update_replay(&replay, |progress| progress.replay.mask_person(is_erased))?;
        }
        Ok(())
    }

    /// Adds a replay without claims. It claims its letters after the records before it are written.
    fn create_replay(&mut self, replay: &Replay) -> Result<RecordOutcome, StoreError> {
        let existing = self.replay_progress(&replay.id)?.cloned();
        let progress = existing.unwrap_or_else(|| ReplayProgress::new(Replay { total: 0, ..replay.clone() }));
        self.replays.insert(replay.id.clone(), Some(progress.clone()));
        Ok(RecordOutcome::Replay(Box::new(progress)))
    }

    /// Claims the letters that [`ClaimCandidate::can_be_claimed`] allows.
    pub(super) fn claim(
        &mut self,
        replay: &ReplayId,
        letters: &mut dyn Iterator<Item = u64>,
        oldest_ms: i64,
    ) -> Result<(), StoreError> {
        let mut claimed = 0;
        for offset in letters {
            let Some(candidate) = self.claim_candidate(offset)? else { continue };
            if candidate.can_be_claimed(oldest_ms) {
                self.set_state(offset, LetterState::Replaying)?;
                *self.claims_in(replay, block_of(offset))? |= bit(offset);
                claimed += 1;
            }
        }
        self.update_replay(replay, |progress| progress.add_claimed(claimed))
    }

    fn claim_candidate(&mut self, offset: u64) -> Result<Option<ClaimCandidate>, StoreError> {
        let Some(row) = self.block(block_of(offset))?.row_mut(offset) else { return Ok(None) };
        let (state, dead_at_ms) = (row.state, row.dead_at);
        let is_erased = state.may_have_been_erased() && self.history(offset)?.is_erased();
        Ok(Some(ClaimCandidate { state, dead_at_ms, is_erased }))
    }

    /// Marks the claims of a replay as complete.
    pub(super) fn finish_claiming(&mut self, replay: &ReplayId) -> Result<RecordOutcome, StoreError> {
        self.update_replay(replay, ReplayProgress::finish_claiming)?;
        let progress = self.replay_progress(replay)?.cloned();
        Ok(progress.map_or(RecordOutcome::NoEffect, |progress| RecordOutcome::Replay(Box::new(progress))))
    }

    /// Records the results of sent letters, if [`LetterClaim::accepts_result`].
    fn record_sent(&mut self, batch: &ReplayBatch) -> Result<RecordOutcome, StoreError> {
        let mut recorded = 0;
        for sent in &batch.sent {
            let Some((offset, claim)) = self.take_claim(&batch.replay, &sent.id)? else { continue };
            let history = self.history(offset)?;
            if claim.accepts_result(history, &batch.replay) {
                let state = history.record_outcome(&batch.replay, batch.at, sent.outcome);
                self.set_state(offset, state)?;
                self.update_replay(&batch.replay, |progress| progress.record_result(sent.outcome, claim))?;
                recorded += 1;
            }
        }
        self.update_replay(&batch.replay, |progress| progress.evaluate(batch.at))?;
        Ok(RecordOutcome::Letters(recorded))
    }

    /// Releases the letters of a block that a replay has claimed. The transaction must
    /// not have changed their histories.
    pub(super) fn release(&mut self, replay: &ReplayId, block: u64) -> Result<(), StoreError> {
        let claims = std::mem::take(self.claims_in(replay, block)?);
        for offset in claimed_offsets(block, claims) {
            let state = self.view.history(offset)?.state_unclaimed();
            self.set_state(offset, state)?;
        }
        self.update_replay(replay, |progress| progress.record_released(u64::from(claims.count_ones())))
    }

    fn control_replay(&mut self, control: &ReplayControl) -> Result<RecordOutcome, StoreError> {
        let Some(progress) = self.replay_progress(&control.replay)? else { return Ok(RecordOutcome::NoEffect) };
        match progress.control(control.command, control.at) {
            Ok(()) => Ok(RecordOutcome::Replay(Box::new(progress.clone()))),
            Err(state) => Ok(RecordOutcome::Refused(state)),
        }
    }

    fn add_removed_message(&mut self, offset: u64, message: &RemovedMessage) -> Result<RecordOutcome, StoreError> {
        self.removed.insert(offset, Some(serde_json::to_vec(message)?));
        Ok(RecordOutcome::NoEffect)
    }

    fn remove_done_message(&mut self, done: &RemovedMessageDone) -> Result<RecordOutcome, StoreError> {
        let is_new = match self.removed.insert(done.offset, None) {
            Some(pending) => pending.is_some(),
            None => self.view.has_removed_message(done.offset)?,
        };
        Ok(RecordOutcome::Letters(u64::from(is_new)))
    }

    /// Deletes the letters of a block and returns their number. `claiming` are the replays that may have claimed them.
    pub(super) fn delete_block(&mut self, block: u64, claiming: &[ReplayId]) -> Result<u64, StoreError> {
        let rows = self.block(block)?.rows(block).map(|(offset, row)| (fingerprint(&row.id), offset));
        let rows: Vec<(u64, u64)> = rows.collect();
        for letter in self.view.letters.range(to_key(first_offset_of(block))..to_key(first_offset_of(block + 1))).keys()
        {
            self.letters.insert(from_key(&letter?), None);
        }
        self.locations.insert(block, None);
        self.histories.extend(rows.iter().map(|(_, offset)| (*offset, None)));
        self.deleted.extend(&rows);
        self.blocks.insert(block, None);
        for replay in claiming {
            let claims = std::mem::take(self.claims_in(replay, block)?);
            if claims != 0 {
                self.update_replay(replay, |progress| {
                    progress.record_released(u64::from(claims.count_ones()));
                    progress.evaluate(progress.updated_at);
                })?;
            }
        }
        Ok(rows.len() as u64)
    }

    pub(super) fn delete_replay(&mut self, id: &ReplayId) {
        self.replays.insert(id.clone(), None);
    }

    /// Archives the letters and rows of blocks that are complete at this position, and large letters immediately.
    fn archive_complete_blocks(&mut self, position: Option<&StreamPosition>) -> Result<(), StoreError> {
        let view = self.view;
        let open_block = position.map_or(0, |position| block_of(position.offset.saturating_add(1)));
        let mut letters: BTreeMap<u64, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
        let is_ready = |offset: &u64, letter: &mut Option<Vec<u8>>| {
            letter.as_ref().is_some_and(|json| block_of(*offset) < open_block || json.len() > LARGE_LETTER_BYTES)
        };
        for (offset, letter) in self.letters.extract_if(.., is_ready) {
            letters.entry(block_of(offset)).or_default().extend(letter.map(|json| (offset, json)));
        }
        for entry in view.letters.range(..to_key(first_offset_of(open_block))) {
            let (offset, json) = entry?;
            let offset = from_key(&offset);
            letters.entry(block_of(offset)).or_default().insert(offset, json.to_vec());
            self.letters.insert(offset, None);
        }
        let mut complete: BTreeSet<u64> = self.blocks.range(..open_block).map(|(number, _)| *number).collect();
        // Of the blocks in the view, at most the newest was not complete at the last position.
        let newest = view.zones().last_key_value().map(|(number, _)| *number);
        if let Some(newest) = newest.filter(|newest| *newest < open_block)
            && view.has_rows_in_sled(newest)?
        {
            complete.insert(newest);
        }
        for number in &complete {
            letters.entry(*number).or_default();
        }
        let mut previous = None;
        for (number, letters) in letters {
            let is_deleted = matches!(self.blocks.get(&number), Some(None));
            let archives_rows = complete.contains(&number) && !is_deleted && self.block(number)?.location().is_none();
            if letters.is_empty() && !archives_rows {
                continue;
            }
            let mut writer = view.archive.writer(number, previous)?;
            if !letters.is_empty() {
                let mut locations = view.archive.locations(number)?;
                locations.extend(writer.write_letters(&letters)?);
                self.locations.insert(number, Some(locations));
            }
            if archives_rows {
                let block = self.block(number)?;
                let location = writer.write(&block.encode()?)?;
                *block = std::mem::take(block).archived_at(location, &[]);
            }
            previous = Some(writer);
        }
        Ok(())
    }

    /// Archives complete blocks, writes all changes in one sled transaction, and updates the indexes in memory.
    pub(super) fn commit(mut self, position: Option<&StreamPosition>) -> Result<(), StoreError> {
        let view = self.view;
        self.archive_complete_blocks(position)?;
        let mut zones = Vec::with_capacity(self.blocks.len());
        let mut letters = Batch::default();
        for (offset, letter) in self.letters {
            put(&mut letters, &to_key(offset), letter);
        }
        let mut locations = Batch::default();
        for (block, value) in self.locations {
            put(&mut locations, &to_key(block), value.map(|value| postcard::to_stdvec(&value)).transpose()?);
        }
        let mut blocks = Batch::default();
        for (number, block) in self.blocks {
            zones.push((number, block.as_ref().map(Zone::from_block)));
            put(&mut blocks, &to_key(number), block.map(|block| encode_block(&block)).transpose()?);
        }
        let mut histories = Batch::default();
        for (offset, history) in self.histories {
            let history = history.filter(|history| *history != LetterHistory::default());
            put(&mut histories, &to_key(offset), history.map(|history| serde_json::to_vec(&history)).transpose()?);
        }
        let mut replays = Batch::default();
        for (id, progress) in self.replays {
            put(
                &mut replays,
                id.as_str().as_bytes(),
                progress.map(|progress| serde_json::to_vec(&progress)).transpose()?,
            );
        }
        let mut claims = Batch::default();
        for ((replay, block), bits) in self.claims {
            put(&mut claims, &claim_key(&replay, block), (bits != 0).then(|| to_key(bits).to_vec()));
        }
        let mut positions = Batch::default();
        if let Some(position) = position {
            positions.insert(POSITION_KEY, serde_json::to_vec(position)?);
        }
        let mut removed = Batch::default();
        for (offset, message) in self.removed {
            put(&mut removed, &to_key(offset), message);
        }
        let trees = [
            &view.letters,
            &view.archive.locations,
            &view.blocks,
            &view.histories,
            &view.replays,
            &view.claims,
            &view.removed,
            &view.positions,
        ];
        let batches = [letters, locations, blocks, histories, replays, claims, removed, positions];
        let result = trees[..].transaction(|trees| {
            for (tree, batch) in trees.iter().zip(&batches) {
                tree.apply_batch(batch)?;
            }
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        result.map_err(|error| match error {
            TransactionError::Storage(error) => StoreError::Sled(error),
            TransactionError::Abort(()) => StoreError::Damaged("a transaction was aborted unexpectedly".to_owned()),
        })?;
        let mut view_zones = view.zones_mut();
        for (number, zone) in zones {
            match zone {
                Some(zone) => view_zones.insert(number, zone),
                None => view_zones.remove(&number),
            };
        }
        // Insertion is fast in the order of offsets.
        let new_ids: BTreeMap<u64, u64> =
            self.ids.into_iter().map(|(fingerprint, offset)| (offset, fingerprint)).collect();
        let mut ids = view.ids_mut();
        self.deleted.into_iter().for_each(|(fingerprint, offset)| ids.remove(fingerprint, offset));
        new_ids.into_iter().for_each(|(offset, fingerprint)| ids.insert(fingerprint, offset));
        Ok(())
    }

    fn update_replay(&mut self, replay: &ReplayId, update: impl FnOnce(&mut ReplayProgress)) -> Result<(), StoreError> {
        if let Some(progress) = self.replay_progress(replay)? {
            update(progress);
        }
        Ok(())
    }

    /// The offset of the letter with this id, if `matches` holds for its state.
    fn offset_if(
        &mut self,
        id: &DeadLetterId,
        matches: impl Fn(LetterState) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let Some(offset) = self.offset_of(id) else { return Ok(None) };
        let row = self.block(block_of(offset))?.row_mut(offset);
        Ok(row.is_some_and(|row| matches(row.state)).then_some(offset))
    }

    /// Removes a letter from the claims of a replay. Returns its offset and the claim that it had. `None` if the letter
    /// does not exist.
    fn take_claim(&mut self, replay: &ReplayId, id: &DeadLetterId) -> Result<Option<(u64, LetterClaim)>, StoreError> {
        let Some(offset) = self.offset_of(id) else { return Ok(None) };
        let Some(state) = self.block(block_of(offset))?.row_mut(offset).map(|row| row.state) else { return Ok(None) };
        let claims = self.claims_in(replay, block_of(offset))?;
        let is_own = *claims & bit(offset) != 0;
        *claims &= !bit(offset);
        Ok(Some((offset, LetterClaim::new(is_own, state))))
    }

    fn set_state(&mut self, offset: u64, state: LetterState) -> Result<(), StoreError> {
        if let Some(row) = self.block(block_of(offset))?.row_mut(offset) {
            row.state = state;
        }
        Ok(())
    }

    fn offset_of(&self, id: &DeadLetterId) -> Option<u64> {
        self.ids.get(&fingerprint(id.as_str())).copied().or_else(|| self.view.offset_of(id))
    }

    // The following functions return an entry to be changed. The view's entry is copied on first access.

    fn block(&mut self, number: u64) -> Result<&mut Block<'static>, StoreError> {
        let view = self.view;
        let block = entry_mut(&mut self.blocks, number, || {
            let loaded = view.load_block(number, &mut SegmentReader::new(&view.archive))?;
            loaded.map(|loaded| Ok(loaded.decode()?.into_owned())).transpose()
        })?;
        Ok(block.get_or_insert_default())
    }

    fn history(&mut self, offset: u64) -> Result<&mut LetterHistory, StoreError> {
        let view = self.view;
        Ok(entry_mut(&mut self.histories, offset, || Ok(Some(view.history(offset)?)))?.get_or_insert_default())
    }

    pub(super) fn replay_progress(&mut self, id: &ReplayId) -> Result<Option<&mut ReplayProgress>, StoreError> {
        let view = self.view;
        Ok(entry_mut(&mut self.replays, id.clone(), || view.replay_progress(id))?.as_mut())
    }

    fn claims_in(&mut self, replay: &ReplayId, block: u64) -> Result<&mut u64, StoreError> {
        let tree = &self.view.claims;
        entry_mut(&mut self.claims, (replay.clone(), block), || {
            Ok(tree.get(claim_key(replay, block))?.map(|bits| from_key(&bits)).unwrap_or_default())
        })
    }
}

/// The entry at `key`. A missing entry is inserted from `load`.
fn entry_mut<K: Ord, V>(
    entries: &mut BTreeMap<K, V>,
    key: K,
    load: impl FnOnce() -> Result<V, StoreError>,
) -> Result<&mut V, StoreError> {
    match entries.entry(key) {
        btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
        btree_map::Entry::Vacant(entry) => Ok(entry.insert(load()?)),
    }
}

fn put(batch: &mut Batch, key: &[u8], value: Option<Vec<u8>>) {
    match value {
        Some(value) => batch.insert(key, value),
        None => batch.remove(key),
    }
}
