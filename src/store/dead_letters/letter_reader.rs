//! Reading the letters themselves, which are in sled while their block is not over, and then in the archive.

use super::archive::Segments;
use super::index_block::IndexRow;
use super::location::{SegmentLocation, block_of, slot_of};
use super::segment_codec::Pack;
use super::{LetterView, MAX_BYTES, block_in, claims_of, key, number};
use crate::delivery::dead_letter::{DeadLetter, LetterState};
use crate::delivery::ids::{DeadLetterId, ReplayId};
use crate::store::StoreError;

/// A letter as the view has it.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// Its offset in the log.
    pub offset: u64,
    /// How long it is as JSON.
    pub bytes: usize,
    /// As it was written, but for its state.
    pub letter: DeadLetter,
}

/// Reads letters, one after the other: neighbours come out of the pack that was read last.
pub(super) struct LetterReader<'a> {
    view: &'a LetterView,
    volumes: Segments<'a>,
    last: Option<(u64, SegmentLocation, Pack)>,
}

impl<'a> LetterReader<'a> {
    pub(super) fn new(view: &'a LetterView) -> Self {
        Self { view, volumes: Segments::new(&view.archive), last: None }
    }

    /// The letter of a row.
    pub(super) fn letter(&mut self, offset: u64, row: &IndexRow<'_>) -> Result<Option<StoredLetter>, StoreError> {
        let kept = |json: &[u8]| {
            let mut letter: DeadLetter = serde_json::from_slice(json)?;
            letter.state = row.state;
            // An erased one was discarded, and is never pending or claimed again.
            if matches!(row.state, LetterState::Discarded | LetterState::Replayed)
                && self.view.fate(offset)?.erased.is_some()
            {
                letter = letter.erased();
            }
            Ok(StoredLetter { offset, bytes: json.len(), letter })
        };
        if !self.last.as_ref().is_some_and(|(block, place, _)| *block == block_of(offset) && place.has(offset)) {
            // In this order: a letter that leaves sled meanwhile has its place then.
            if let Some(json) = self.view.letters.get(key(offset))? {
                return kept(&json).map(Some);
            }
            self.last = self.pack_of(offset)?;
        }
        let json = self.last.as_ref().and_then(|(_, _, pack)| pack.letter(slot_of(offset)));
        json.map(kept).transpose()
    }

    /// The pack that has the letter at `offset`.
    fn pack_of(&mut self, offset: u64) -> Result<Option<(u64, SegmentLocation, Pack)>, StoreError> {
        let block = block_of(offset);
        let mut places = self.view.archive.places(block)?.into_iter();
        let Some(place) = places.find(|place| place.has(offset)) else { return Ok(None) };
        Ok(self.volumes.pack(block, &place)?.map(|pack| (block, place, pack)))
    }
}

impl LetterView {
    /// The letter with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn letter(&self, id: &DeadLetterId) -> Result<Option<StoredLetter>, StoreError> {
        let Some(offset) = self.offset_of(id) else { return Ok(None) };
        self.with_row(offset, |row| LetterReader::new(self).letter(offset, row))?.unwrap_or(Ok(None))
    }

    /// The first letters that a replay has claimed and not sent, at most `limit`; fewer where they are large.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn claimed(&self, replay: &ReplayId, limit: usize) -> Result<Vec<StoredLetter>, StoreError> {
        let mut reader = LetterReader::new(self);
        let mut volumes = Segments::new(&self.archive);
        let mut letters: Vec<StoredLetter> = Vec::new();
        let mut bytes = 0;
        for entry in self.claims.scan_prefix(claims_of(replay)) {
            let (key, claims) = entry?;
            let (block, claims) = (block_in(&key), number(&claims));
            let Some(loaded) = self.load(block, &mut volumes)? else { continue };
            for (offset, row) in loaded.block()?.rows(block).filter(|(offset, _)| claims >> slot_of(*offset) & 1 == 1) {
                if letters.len() == limit || bytes > MAX_BYTES {
                    return Ok(letters);
                }
                letters.extend(reader.letter(offset, row)?);
                bytes += letters.last().map_or(0, |last| last.bytes);
            }
        }
        Ok(letters)
    }
}
