//! Applying records of the dead-letter log: what a batch of them changes is drafted in memory, and then written in one
//! transaction with their position.

use std::collections::{BTreeMap, BTreeSet};

use sled::Batch;
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional as _};

use super::archive::Segments;
use super::block_store::stored;
use super::location::SegmentLocation;
use super::segment_codec::LARGE_BYTES;
use super::{
    Block, DEAD_LETTER_LOG, IndexRow, JobHead, LetterView, Payload, RecordOutcome, StreamEntry, Zone, block_of,
    claims_of, fingerprint, first_of, key, number, offsets,
};
use crate::broker::stream_reader::StreamPosition;
use crate::delivery::dead_letter::record::{
    DeadLetterRecord, Discard, Erase, LetterHistory, ReplayBatch, ReplayControl, Rewritten,
};
use crate::delivery::dead_letter::removed::RemovedMessage;
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::ids::{DeadLetterId, ReplayId};
use crate::delivery::replay::{Replay, ReplayProgress};
use crate::store::StoreError;

/// What a batch of records changes: entries as they will be, `None` where there will be none.
pub(super) struct ViewTransaction<'a> {
    view: &'a LetterView,
    letters: BTreeMap<u64, Option<Vec<u8>>>,
    /// Of letters in the archive, by block.
    places: BTreeMap<u64, Option<Vec<SegmentLocation>>>,
    blocks: BTreeMap<u64, Option<Block<'static>>>,
    /// Of new letters: the id's fingerprint, and the offset.
    ids: BTreeMap<u64, u64>,
    /// Of forgotten letters, so too.
    forgotten: Vec<(u64, u64)>,
    fates: BTreeMap<u64, Option<LetterHistory>>,
    jobs: BTreeMap<ReplayId, Option<ReplayProgress>>,
    /// By replay and block.
    claims: BTreeMap<(ReplayId, u64), u64>,
    /// Removed messages, by their offsets.
    removed: BTreeMap<u64, Option<Vec<u8>>>,
}

impl<'a> ViewTransaction<'a> {
    pub(super) fn new(view: &'a LetterView) -> Self {
        Self {
            view,
            letters: BTreeMap::new(),
            places: BTreeMap::new(),
            blocks: BTreeMap::new(),
            ids: BTreeMap::new(),
            forgotten: Vec::new(),
            fates: BTreeMap::new(),
            jobs: BTreeMap::new(),
            claims: BTreeMap::new(),
            removed: BTreeMap::new(),
        }
    }

    pub(super) fn apply(&mut self, entry: &StreamEntry) -> Result<RecordOutcome, StoreError> {
        let offset = entry.position.offset;
        match &entry.content {
            Payload::Letter(letter) => self.letter(offset, letter),
            Payload::Mark(DeadLetterRecord::Discard(discard)) => self.discard(discard),
            Payload::Mark(DeadLetterRecord::Erase(erase)) => self.erase(erase),
            Payload::Mark(DeadLetterRecord::Replay(replay)) => self.create(replay),
            Payload::Mark(DeadLetterRecord::Slice(slice)) => self.slice(slice),
            Payload::Mark(DeadLetterRecord::Control(control)) => self.control(control),
            Payload::Removed(message) => self.removed(offset, message),
            Payload::Mark(DeadLetterRecord::Rewritten(rewritten)) => self.rewritten(rewritten),
            Payload::Nothing => Ok(RecordOutcome::Nothing),
        }
    }

    /// A letter may be written twice, where an acknowledgement was lost: the first one counts.
    fn letter(&mut self, offset: u64, letter: &DeadLetter) -> Result<RecordOutcome, StoreError> {
        if self.offset_of(&letter.id).is_some() {
            return Ok(RecordOutcome::Letters(0));
        }
        self.letters.insert(offset, Some(serde_json::to_vec(letter)?));
        self.block(block_of(offset))?.push(IndexRow::from_letter(letter, offset));
        self.ids.insert(fingerprint(letter.id.as_str()), offset);
        if let (Some(original), Some(replay)) = (&letter.replay_of, &letter.replay_id)
            && let Some(original) = self.offset_of(original)
        {
            let fate = self.fate(original)?;
            fate.dead_again(replay, letter.dead_at, letter.id.clone());
            if let Some(verdict) = fate.erased.clone() {
                // It was under way when that was erased.
                self.set_state(offset, LetterState::Discarded)?;
                self.erase_person(offset)?;
                let fate = self.fate(offset)?;
                (fate.discard, fate.erased) = (Some(verdict.clone()), Some(verdict));
            }
        }
        Ok(RecordOutcome::Letters(1))
    }

    fn discard(&mut self, discard: &Discard) -> Result<RecordOutcome, StoreError> {
        let mut discarded = 0;
        for id in &discard.ids {
            if let Some(offset) = self.offset_in(id, |state| state == LetterState::Pending)? {
                self.set_state(offset, LetterState::Discarded)?;
                self.fate(offset)?.discard = Some(discard.verdict.clone());
                discarded += 1;
            }
        }
        Ok(RecordOutcome::Letters(discarded))
    }

    /// One that is being replayed is left: it is being sent.
    fn erase(&mut self, erase: &Erase) -> Result<RecordOutcome, StoreError> {
        let mut erased = 0;
        let mut phones = BTreeSet::new();
        for id in &erase.ids {
            if let Some(offset) = self.offset_in(id, |state| state != LetterState::Replaying)? {
                self.set_state(offset, LetterState::Discarded)?;
                phones.extend(self.erase_person(offset)?);
                let fate = self.fate(offset)?;
                // Who had given it up before, did.
                fate.discard.get_or_insert_with(|| erase.verdict.clone());
                fate.erased = Some(erase.verdict.clone());
                erased += 1;
            }
        }
        self.mask_replays(&phones)?;
        Ok(RecordOutcome::Letters(erased))
    }

    /// A replay whose filter names an erased person shows the phone number no more.
    fn mask_replays(&mut self, phones: &BTreeSet<u64>) -> Result<(), StoreError> {
        if phones.is_empty() {
            return Ok(());
        }
        let mut replays: BTreeSet<ReplayId> = self.jobs.keys().cloned().collect();
        for entry in &self.view.jobs {
            let JobHead { replay, .. } = serde_json::from_slice(&entry?.1)?;
            replays.extend(replay.filter.is_some_and(|filter| filter.phone_number.is_some()).then_some(replay.id));
        }
        let is_erased = |phone_number: &String| phones.contains(&fingerprint(phone_number));
        for replay in replays {
            let filter = self.job(&replay)?.and_then(|job| job.replay.filter.as_mut());
            if let Some(filter) = filter.filter(|filter| filter.phone_number.as_ref().is_some_and(is_erased)) {
                *filter = filter.masked();
            }
        }
        Ok(())
    }

    /// Whether nothing is left of it that could be sent.
    fn is_erased(&mut self, offset: u64) -> Result<bool, StoreError> {
        let is_ended = |state| matches!(state, LetterState::Discarded | LetterState::Replayed);
        let row = self.block(block_of(offset))?.row_mut(offset);
        Ok(row.is_some_and(|row| is_ended(row.state)) && self.fate(offset)?.erased.is_some())
    }

    /// What it claims is found when all before it is written.
    fn create(&mut self, replay: &Replay) -> Result<RecordOutcome, StoreError> {
        let known = self.job(&replay.id)?.cloned();
        let job = known.unwrap_or_else(|| ReplayProgress::new(Replay { total: 0, ..replay.clone() }));
        self.jobs.insert(replay.id.clone(), Some(job.clone()));
        Ok(RecordOutcome::Replay(Box::new(job)))
    }

    /// Claims letters for a replay, none that died before `oldest`. One that another replay has stays there.
    pub(super) fn claim(
        &mut self,
        replay: &ReplayId,
        letters: &mut dyn Iterator<Item = u64>,
        oldest: i64,
    ) -> Result<(), StoreError> {
        let mut claimed = 0;
        for offset in letters {
            if self.is_erased(offset)? {
                continue;
            }
            let row = self.block(block_of(offset))?.row_mut(offset);
            if let Some(row) = row.filter(|row| row.state != LetterState::Replaying && row.dead_at >= oldest) {
                row.state = LetterState::Replaying;
                *self.claims_in(replay, block_of(offset))? |= bit(offset);
                claimed += 1;
            }
        }
        self.change(replay, |job| job.claimed(claimed))
    }

    /// All that there is for a replay is claimed.
    pub(super) fn all_claimed(&mut self, replay: &ReplayId) -> Result<RecordOutcome, StoreError> {
        self.change(replay, ReplayProgress::all_claimed)?;
        let job = self.job(replay)?.cloned();
        Ok(job.map_or(RecordOutcome::Nothing, |job| RecordOutcome::Replay(Box::new(job))))
    }

    /// A letter that was recorded already, by whoever sent it too, is not counted again. One that was given back while it
    /// was being sent is.
    fn slice(&mut self, slice: &ReplayBatch) -> Result<RecordOutcome, StoreError> {
        let mut recorded = 0;
        for sent in &slice.sent {
            let offset = if let Some(claimed) = self.take_claim(&slice.replay, &sent.id)? {
                self.change(&slice.replay, |job| job.sent(sent.outcome))?;
                claimed
            } else {
                let given_back = self.offset_in(&sent.id, |state| state != LetterState::Replaying)?;
                let Some(given_back) = given_back else { continue };
                if self.fate(given_back)?.is_recorded(&slice.replay) {
                    continue;
                }
                self.change(&slice.replay, |job| job.sent_unclaimed(sent.outcome))?;
                given_back
            };
            self.set_state(offset, LetterState::Replayed)?;
            self.fate(offset)?.sent(&slice.replay, slice.at, sent.outcome);
            recorded += 1;
        }
        self.change(&slice.replay, |job| job.judge(slice.at))?;
        Ok(RecordOutcome::Letters(recorded))
    }

    /// Gives back what a replay has claimed in a block, in a draft that has nothing else.
    pub(super) fn release(&mut self, replay: &ReplayId, block: u64) -> Result<(), StoreError> {
        let claims = std::mem::take(self.claims_in(replay, block)?);
        for offset in offsets(block, claims) {
            let state = self.view.fate(offset)?.state_unclaimed();
            self.set_state(offset, state)?;
        }
        self.change(replay, |job| job.released(u64::from(claims.count_ones())))
    }

    fn control(&mut self, control: &ReplayControl) -> Result<RecordOutcome, StoreError> {
        let Some(job) = self.job(&control.replay)? else { return Ok(RecordOutcome::Nothing) };
        match job.control(control.command, control.at) {
            Ok(()) => Ok(RecordOutcome::Replay(Box::new(job.clone()))),
            Err(state) => Ok(RecordOutcome::Refused(state)),
        }
    }

    fn removed(&mut self, offset: u64, message: &RemovedMessage) -> Result<RecordOutcome, StoreError> {
        self.removed.insert(offset, Some(serde_json::to_vec(message)?));
        Ok(RecordOutcome::Nothing)
    }

    fn rewritten(&mut self, rewritten: &Rewritten) -> Result<RecordOutcome, StoreError> {
        let is_new = match self.removed.insert(rewritten.offset, None) {
            Some(drafted) => drafted.is_some(),
            None => self.view.has_removed_message(rewritten.offset)?,
        };
        Ok(RecordOutcome::Letters(u64::from(is_new)))
    }

    /// Forgets a block's letters, and tells how many. `claiming` are the replays that may have some of them.
    pub(super) fn forget_block(&mut self, block: u64, claiming: &[ReplayId]) -> Result<u64, StoreError> {
        let rows = self.block(block)?.rows(block).map(|(offset, row)| (fingerprint(&row.id), offset));
        let rows: Vec<(u64, u64)> = rows.collect();
        for letter in self.view.letters.range(key(first_of(block))..key(first_of(block + 1))).keys() {
            self.letters.insert(number(&letter?), None);
        }
        self.places.insert(block, None);
        self.fates.extend(rows.iter().map(|(_, offset)| (*offset, None)));
        self.forgotten.extend(&rows);
        self.blocks.insert(block, None);
        for replay in claiming {
            let claims = std::mem::take(self.claims_in(replay, block)?);
            if claims != 0 {
                self.change(replay, |job| {
                    job.released(u64::from(claims.count_ones()));
                    job.judge(job.updated_at);
                })?;
            }
        }
        Ok(rows.len() as u64)
    }

    pub(super) fn forget_job(&mut self, id: &ReplayId) {
        self.jobs.insert(id.clone(), None);
    }

    /// Writes to the archive what blocks have that are over at this position, and large letters at once.
    fn archive(&mut self, position: Option<&StreamPosition>) -> Result<(), StoreError> {
        let view = self.view;
        let open = position.map_or(0, |position| block_of(position.offset.saturating_add(1)));
        let mut letters: BTreeMap<u64, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
        let is_ready = |offset: &u64, letter: &mut Option<Vec<u8>>| {
            letter.as_ref().is_some_and(|json| block_of(*offset) < open || json.len() > LARGE_BYTES)
        };
        for (offset, letter) in self.letters.extract_if(.., is_ready) {
            letters.entry(block_of(offset)).or_default().extend(letter.map(|json| (offset, json)));
        }
        for entry in view.letters.range(..key(first_of(open))) {
            let (offset, json) = entry?;
            let offset = number(&offset);
            letters.entry(block_of(offset)).or_default().insert(offset, json.to_vec());
            self.letters.insert(offset, None);
        }
        let mut over: BTreeSet<u64> = self.blocks.range(..open).map(|(number, _)| *number).collect();
        // Of blocks that were not over at the last position there is one at most, the newest.
        let newest = view.zones().last_key_value().map(|(number, _)| *number);
        if let Some(newest) = newest.filter(|newest| *newest < open)
            && view.has_rows(newest)?
        {
            over.insert(newest);
        }
        for number in &over {
            letters.entry(*number).or_default();
        }
        let mut last = None;
        for (number, letters) in letters {
            let is_forgotten = matches!(self.blocks.get(&number), Some(None));
            let is_over = over.contains(&number) && !is_forgotten && self.block(number)?.place().is_none();
            if letters.is_empty() && !is_over {
                continue;
            }
            let mut volume = view.archive.append_to(number, last)?;
            if !letters.is_empty() {
                let mut places = view.archive.places(number)?;
                places.extend(volume.write_letters(&letters)?);
                self.places.insert(number, Some(places));
            }
            if is_over {
                let block = self.block(number)?;
                let place = volume.write(&block.encode()?)?;
                *block = std::mem::take(block).archived(place, &[]);
            }
            last = Some(volume);
        }
        Ok(())
    }

    /// Writes it all.
    pub(super) fn commit(mut self, position: Option<&StreamPosition>) -> Result<(), StoreError> {
        let view = self.view;
        self.archive(position)?;
        let mut zones = Vec::with_capacity(self.blocks.len());
        let mut letters = Batch::default();
        for (offset, letter) in self.letters {
            put(&mut letters, &key(offset), letter);
        }
        let mut places = Batch::default();
        for (block, of_letters) in self.places {
            put(&mut places, &key(block), of_letters.map(|places| postcard::to_stdvec(&places)).transpose()?);
        }
        let mut blocks = Batch::default();
        for (number, block) in self.blocks {
            zones.push((number, block.as_ref().map(Zone::of_block)));
            put(&mut blocks, &key(number), block.map(|block| stored(&block)).transpose()?);
        }
        let mut fates = Batch::default();
        for (offset, fate) in self.fates {
            let fate = fate.filter(|fate| *fate != LetterHistory::default());
            put(&mut fates, &key(offset), fate.map(|fate| serde_json::to_vec(&fate)).transpose()?);
        }
        let mut jobs = Batch::default();
        for (id, job) in self.jobs {
            put(&mut jobs, id.as_str().as_bytes(), job.map(|job| serde_json::to_vec(&job)).transpose()?);
        }
        let mut claims = Batch::default();
        for ((replay, block), bits) in self.claims {
            put(&mut claims, &claim_key(&replay, block), (bits != 0).then(|| key(bits).to_vec()));
        }
        let mut positions = Batch::default();
        if let Some(position) = position {
            positions.insert(DEAD_LETTER_LOG, serde_json::to_vec(position)?);
        }
        let mut removed = Batch::default();
        for (offset, message) in self.removed {
            put(&mut removed, &key(offset), message);
        }
        let trees = [
            &view.letters,
            &view.archive.places,
            &view.blocks,
            &view.fates,
            &view.jobs,
            &view.claims,
            &view.removed,
            &view.positions,
        ];
        let batches = [letters, places, blocks, fates, jobs, claims, removed, positions];
        let written = trees[..].transaction(|trees| {
            for (tree, batch) in trees.iter().zip(&batches) {
                tree.apply_batch(batch)?;
            }
            Ok::<(), ConflictableTransactionError<()>>(())
        });
        written.map_err(|error| match error {
            TransactionError::Storage(error) => StoreError::Sled(error),
            TransactionError::Abort(()) => StoreError::Damaged("a transaction that does not abort aborted".to_owned()),
        })?;
        let mut known = view.zones_mut();
        for (number, zone) in zones {
            match zone {
                Some(zone) => known.insert(number, zone),
                None => known.remove(&number),
            };
        }
        // In the order of the log, in which they are added fast.
        let new: BTreeMap<u64, u64> = self.ids.into_iter().map(|(fingerprint, offset)| (offset, fingerprint)).collect();
        let mut ids = view.ids_mut();
        self.forgotten.into_iter().for_each(|(fingerprint, offset)| ids.remove(fingerprint, offset));
        new.into_iter().for_each(|(offset, fingerprint)| ids.insert(fingerprint, offset));
        Ok(())
    }

    fn change(&mut self, replay: &ReplayId, change: impl FnOnce(&mut ReplayProgress)) -> Result<(), StoreError> {
        if let Some(job) = self.job(replay)? {
            change(job);
        }
        Ok(())
    }

    /// The letter with this id, where it is in such a state.
    fn offset_in(&mut self, id: &DeadLetterId, fits: impl Fn(LetterState) -> bool) -> Result<Option<u64>, StoreError> {
        let Some(offset) = self.offset_of(id) else { return Ok(None) };
        let row = self.block(block_of(offset))?.row_mut(offset);
        Ok(row.is_some_and(|row| fits(row.state)).then_some(offset))
    }

    /// Takes a letter out of those that a replay has claimed; `None` where it is not among them.
    fn take_claim(&mut self, replay: &ReplayId, id: &DeadLetterId) -> Result<Option<u64>, StoreError> {
        let Some(offset) = self.offset_of(id) else { return Ok(None) };
        let bits = self.claims_in(replay, block_of(offset))?;
        let claimed = *bits & bit(offset) != 0;
        *bits &= !bit(offset);
        Ok(claimed.then_some(offset))
    }

    fn set_state(&mut self, offset: u64, state: LetterState) -> Result<(), StoreError> {
        if let Some(row) = self.block(block_of(offset))?.row_mut(offset) {
            row.state = state;
        }
        Ok(())
    }

    fn erase_person(&mut self, offset: u64) -> Result<Option<u64>, StoreError> {
        Ok(self.block(block_of(offset))?.row_mut(offset).and_then(IndexRow::erase_person))
    }

    fn offset_of(&self, id: &DeadLetterId) -> Option<u64> {
        self.ids.get(&fingerprint(id.as_str())).copied().or_else(|| self.view.offset_of(id))
    }

    // What follows gives what is drafted, or drafts what the view has.

    fn block(&mut self, number: u64) -> Result<&mut Block<'static>, StoreError> {
        let view = self.view;
        let drafted = drafted(&mut self.blocks, number, || {
            let loaded = view.load(number, &mut Segments::new(&view.archive))?;
            loaded.map(|loaded| Ok(loaded.block()?.into_owned())).transpose()
        })?;
        Ok(drafted.get_or_insert_default())
    }

    fn fate(&mut self, offset: u64) -> Result<&mut LetterHistory, StoreError> {
        let view = self.view;
        Ok(drafted(&mut self.fates, offset, || Ok(Some(view.fate(offset)?)))?.get_or_insert_default())
    }

    pub(super) fn job(&mut self, id: &ReplayId) -> Result<Option<&mut ReplayProgress>, StoreError> {
        let view = self.view;
        Ok(drafted(&mut self.jobs, id.clone(), || view.job(id))?.as_mut())
    }

    fn claims_in(&mut self, replay: &ReplayId, block: u64) -> Result<&mut u64, StoreError> {
        let tree = &self.view.claims;
        drafted(&mut self.claims, (replay.clone(), block), || {
            Ok(tree.get(claim_key(replay, block))?.map(|bits| number(&bits)).unwrap_or_default())
        })
    }
}

/// The entry that is drafted at `key`, or else the one to begin with.
fn drafted<K: Ord, V>(
    draft: &mut BTreeMap<K, V>,
    key: K,
    begin: impl FnOnce() -> Result<V, StoreError>,
) -> Result<&mut V, StoreError> {
    use std::collections::btree_map::Entry;
    match draft.entry(key) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(begin()?)),
    }
}

fn put(batch: &mut Batch, key: &[u8], value: Option<Vec<u8>>) {
    match value {
        Some(value) => batch.insert(key, value),
        None => batch.remove(key),
    }
}

fn bit(offset: u64) -> u64 {
    1 << (offset % u64::from(u64::BITS))
}

pub(super) fn claim_key(replay: &ReplayId, block: u64) -> Vec<u8> {
    [claims_of(replay), key(block).to_vec()].concat()
}
