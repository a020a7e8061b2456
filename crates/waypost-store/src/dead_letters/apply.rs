//! Changes the view: applies records of the stream, and deletes old letters.

use std::sync::PoisonError;

use waypost_core::ids::ReplayId;
use waypost_core::replay::Replay;
use waypost_core::replay::claims::ClaimStep;

use super::LetterView;
use super::keys::{block_of_claim_key, claims_prefix};
use super::location::blocks_of;
use super::progress_head::ProgressHead;
use super::stream_entry::{Payload, RecordOutcome, StreamEntry};
use super::view_transaction::ViewTransaction;
use crate::StoreError;

/// Letters claimed in one transaction.
const LETTERS_PER_CLAIM: usize = 2000;

/// Blocks released in one transaction.
const BLOCKS_PER_RELEASE: usize = 256;

impl LetterView {
    /// Applies records of the stream and sets the position. Returns the outcome of each record.
    ///
    /// All records are one transaction, except when a replay claims or releases letters: the records before it are
    /// written first, and its letters are written in several transactions. If the process ends in between, the record
    /// is applied again and continues.
    ///
    /// # Errors
    /// [`StoreError`]. The position is not set.
    pub fn apply(&self, entries: &[StreamEntry]) -> Result<Vec<RecordOutcome>, StoreError> {
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = ViewTransaction::new(self);
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut previous = None;
        for entry in entries {
            let mut outcome = transaction.apply(entry)?;
            if let Payload::Record(record) = &entry.payload
                && let Some(replay) = record.replay()
                && let Some(progress) = transaction.replay_progress(replay)?
            {
                match progress.next_claim_step() {
                    Some(ClaimStep::Claim) => {
                        let replay = progress.replay.clone();
                        transaction.commit(previous)?;
                        self.claim_all(&replay)?;
                        transaction = ViewTransaction::new(self);
                        outcome = transaction.finish_claiming(&replay.id)?;
                    }
                    Some(ClaimStep::Release) => {
                        transaction.commit(previous)?;
                        self.release_all(replay)?;
                        transaction = ViewTransaction::new(self);
                    }
                    None => {}
                }
            }
            previous = Some(&entry.position);
            outcomes.push(outcome);
        }
        transaction.commit(previous)?;
        Ok(outcomes)
    }

    /// Claims all letters that the replay selects.
    fn claim_all(&self, replay: &Replay) -> Result<(), StoreError> {
        let oldest_ms = replay.oldest_claimable_ms(self.retention);
        let claim = |letters: &mut dyn Iterator<Item = u64>| {
            let mut transaction = ViewTransaction::new(self);
            transaction.claim(&replay.id, letters, oldest_ms)?;
            transaction.commit(None)
        };
        for ids in replay.ids.iter().flat_map(|ids| ids.chunks(LETTERS_PER_CLAIM)) {
            claim(&mut ids.iter().filter_map(|id| self.offset_of(id)))?;
        }
        if let Some(filter) = &replay.filter {
            let mut next = Some(0);
            while let Some(start) = next {
                let page = self.find(&filter.or_pending(), start..u64::MAX, LETTERS_PER_CLAIM)?;
                claim(&mut page.letters.iter().map(|(offset, _)| *offset))?;
                next = page.next;
            }
        }
        Ok(())
    }

    /// Releases all letters that a replay has claimed and not sent.
    fn release_all(&self, replay: &ReplayId) -> Result<(), StoreError> {
        loop {
            let mut transaction = ViewTransaction::new(self);
            let keys = self.claims.scan_prefix(claims_prefix(replay)).keys().take(BLOCKS_PER_RELEASE);
            let blocks = keys.map(|key| key.map(|key| block_of_claim_key(&key))).collect::<Result<Vec<_>, _>>()?;
            if blocks.is_empty() {
                return Ok(());
            }
            for block in blocks {
                transaction.release(replay, block)?;
            }
            transaction.commit(None)?;
        }
    }

    /// Deletes blocks whose letters all became dead letters before `milliseconds` (since 1970), at most `max_blocks`,
    /// and replays that ended before. Returns the number of deleted letters.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_before(&self, milliseconds: i64, max_blocks: usize) -> Result<u64, StoreError> {
        let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let old_blocks: Vec<u64> = {
            let zones = self.zones();
            let old = zones.iter().filter(|(_, zone)| zone.is_before(milliseconds)).map(|(block, _)| *block);
            old.take(max_blocks).collect()
        };
        let mut transaction = ViewTransaction::new(self);
        let mut claiming = Vec::new();
        for entry in &self.replays {
            let head: ProgressHead = serde_json::from_slice(&entry?.1)?;
            if head.replay.ended_at.is_some_and(|ended| ended.timestamp_millis() < milliseconds) {
                transaction.delete_replay(&head.replay.id);
            } else if head.left > 0 {
                claiming.push(head.replay.id);
            }
        }
        let mut deleted = 0;
        for block in &old_blocks {
            deleted += transaction.delete_block(*block, &claiming)?;
        }
        transaction.commit(None)?;
        self.archive.delete_unused(&old_blocks)?;
        let zones = self.zones();
        self.ids_mut().drop_deleted(|offsets| zones.range(blocks_of(&offsets)).next().is_some());
        Ok(deleted)
    }
}
