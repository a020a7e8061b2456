//! Where the rows of a block are: in sled while it is not over, and then in the archive, but for what changes of them.

use serde::{Deserialize, Serialize};

use super::archive::Segments;
use super::index_block::{Block, Change};
use super::location::SegmentLocation;
use super::segment_codec::decompress;
use super::{LetterView, key};
use crate::store::StoreError;

/// What sled has of a block.
#[derive(Debug, Serialize, Deserialize)]
enum StoredBlock<'a> {
    /// Its rows.
    Rows(#[serde(borrow)] &'a [u8]),
    /// Where they are, and what has changed since they were written there.
    Archived(SegmentLocation, Vec<Change>),
}

/// A block that was read.
pub(super) struct LoadedBlock {
    rows: Vec<u8>,
    archived: Option<(SegmentLocation, Vec<Change>)>,
}

impl LoadedBlock {
    /// Its rows as they are now.
    pub(super) fn block(&self) -> Result<Block<'_>, StoreError> {
        let block = Block::decode(&self.rows)?;
        Ok(match &self.archived {
            Some((place, changes)) => block.archived(place.clone(), changes),
            None => block,
        })
    }
}

/// What sled is to have of a block.
pub(super) fn stored(block: &Block<'_>) -> Result<Vec<u8>, StoreError> {
    Ok(match block.place() {
        Some(place) => postcard::to_stdvec(&StoredBlock::Archived(place.clone(), block.changes()))?,
        None => postcard::to_stdvec(&StoredBlock::Rows(&block.encode()?))?,
    })
}

impl LetterView {
    /// Whether the rows of a block are in sled.
    pub(super) fn has_rows(&self, number: u64) -> Result<bool, StoreError> {
        let Some(entry) = self.blocks.get(key(number))? else { return Ok(false) };
        Ok(matches!(postcard::from_bytes(&entry)?, StoredBlock::Rows(_)))
    }

    /// Reads a block; `None` where there is none.
    pub(super) fn load(&self, number: u64, volumes: &mut Segments<'_>) -> Result<Option<LoadedBlock>, StoreError> {
        let Some(entry) = self.blocks.get(key(number))? else { return Ok(None) };
        let (place, changes) = match postcard::from_bytes(&entry)? {
            StoredBlock::Rows(rows) => return Ok(Some(LoadedBlock { rows: decompress(rows)?, archived: None })),
            StoredBlock::Archived(place, changes) => (place, changes),
        };
        match volumes.read(number, &place) {
            Ok(rows) => Ok(Some(LoadedBlock { rows: decompress(&rows)?, archived: Some((place, changes)) })),
            // Forgotten since it was looked up.
            Err(_) if self.blocks.get(key(number))?.is_none_or(|now| now != entry) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
