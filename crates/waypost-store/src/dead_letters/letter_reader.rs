//! Reads letters. Letters are in sled until their block is complete, then in the archive.

use waypost_core::dead_letter::DeadLetter;
use waypost_core::ids::{DeadLetterId, ReplayId};

use super::archive::SegmentReader;
use super::index_block::IndexRow;
use super::keys::{block_of_claim_key, claims_prefix, from_key, to_key};
use super::location::{SegmentLocation, block_of, slot_of};
use super::segment_codec::Pack;
use super::{LetterView, MAX_READ_BYTES};
use crate::StoreError;

#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// The letter's offset in the stream.
    pub offset: u64,
    /// The length of the letter's JSON.
    pub bytes: usize,
    /// The letter with its current state.
    pub letter: DeadLetter,
}

/// Reads letters and keeps the last pack, which has neighbouring letters.
pub(super) struct LetterReader<'a> {
    view: &'a LetterView,
    segments: SegmentReader<'a>,
    /// The block, location and contents of the last pack.
    last: Option<(u64, SegmentLocation, Pack)>,
}

impl<'a> LetterReader<'a> {
    pub(super) fn new(view: &'a LetterView) -> Self {
        Self { view, segments: SegmentReader::new(&view.archive), last: None }
    }

    pub(super) fn read(&mut self, offset: u64, row: &IndexRow<'_>) -> Result<Option<StoredLetter>, StoreError> {
        let decode = |json: &[u8]| {
            let mut letter: DeadLetter = serde_json::from_slice(json)?;
            letter.state = row.state;
            if row.state.may_have_been_erased() && self.view.history(offset)?.is_erased() {
                letter = letter.erased();
            }
            Ok(StoredLetter { offset, bytes: json.len(), letter })
        };
        if !self.last.as_ref().is_some_and(|(block, location, _)| *block == block_of(offset) && location.has(offset)) {
            // Look into sled first: a letter that leaves sled after this lookup has a location.
            if let Some(json) = self.view.letters.get(to_key(offset))? {
                return decode(&json).map(Some);
            }
            self.last = self.find_pack(offset)?;
        }
        let json = self.last.as_ref().and_then(|(_, _, pack)| pack.letter(slot_of(offset)));
        json.map(decode).transpose()
    }

    /// The block, location and contents of the pack that has the letter at `offset`.
    fn find_pack(&mut self, offset: u64) -> Result<Option<(u64, SegmentLocation, Pack)>, StoreError> {
        let block = block_of(offset);
        let mut locations = self.view.archive.locations(block)?.into_iter();
        let Some(location) = locations.find(|location| location.has(offset)) else { return Ok(None) };
        Ok(self.segments.read_pack(block, &location)?.map(|pack| (block, location, pack)))
    }
}

impl LetterView {
    /// # Errors
    /// [`StoreError`].
    pub fn letter(&self, id: &DeadLetterId) -> Result<Option<StoredLetter>, StoreError> {
        let Some(offset) = self.offset_of(id) else { return Ok(None) };
        self.with_row_at(offset, |row| LetterReader::new(self).read(offset, row))?.unwrap_or(Ok(None))
    }

    /// The first letters that a replay has claimed and not sent: at most `limit`, and fewer if they are large.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn claimed_letters(&self, replay: &ReplayId, limit: usize) -> Result<Vec<StoredLetter>, StoreError> {
        let mut reader = LetterReader::new(self);
        let mut segments = SegmentReader::new(&self.archive);
        let mut letters: Vec<StoredLetter> = Vec::new();
        let mut bytes = 0;
        for entry in self.claims.scan_prefix(claims_prefix(replay)) {
            let (key, claims) = entry?;
            let (block, claims) = (block_of_claim_key(&key), from_key(&claims));
            let Some(loaded) = self.load_block(block, &mut segments)? else { continue };
            for (offset, row) in loaded.decode()?.rows(block).filter(|(offset, _)| claims >> slot_of(*offset) & 1 == 1)
            {
                if letters.len() == limit || bytes > MAX_READ_BYTES {
                    return Ok(letters);
                }
                letters.extend(reader.read(offset, row)?);
                bytes += letters.last().map_or(0, |last| last.bytes);
            }
        }
        Ok(letters)
    }
}
