//! Stores the index blocks: in sled until the block is complete, then in the archive. Later changes of archived rows
//! are in sled.

use serde::{Deserialize, Serialize};

use super::LetterView;
use super::archive::SegmentReader;
use super::index_block::{Block, RowChange};
use super::keys::to_key;
use super::location::SegmentLocation;
use super::segment_codec::decompress;
use crate::StoreError;

/// The value of a block in sled.
#[derive(Debug, Serialize, Deserialize)]
enum StoredBlock<'a> {
    Rows(#[serde(borrow)] &'a [u8]),
    /// The location of the rows, and the changes since they were archived.
    Archived(SegmentLocation, Vec<RowChange>),
}

/// The bytes of a block. [`decode`](Self::decode) borrows from them.
pub(super) struct LoadedBlock {
    rows: Vec<u8>,
    archived: Option<(SegmentLocation, Vec<RowChange>)>,
}

impl LoadedBlock {
    /// The current rows of the block.
    pub(super) fn decode(&self) -> Result<Block<'_>, StoreError> {
        let block = Block::decode(&self.rows)?;
        Ok(match &self.archived {
            Some((location, changes)) => block.archived_at(location.clone(), changes),
            None => block,
        })
    }
}

/// The value of a block for sled.
pub(super) fn encode_block(block: &Block<'_>) -> Result<Vec<u8>, StoreError> {
    Ok(match block.location() {
        Some(location) => postcard::to_stdvec(&StoredBlock::Archived(location.clone(), block.changes()))?,
        None => postcard::to_stdvec(&StoredBlock::Rows(&block.encode()?))?,
    })
}

impl LetterView {
    /// Whether the block exists and its rows are in sled.
    pub(super) fn has_rows_in_sled(&self, number: u64) -> Result<bool, StoreError> {
        let Some(entry) = self.blocks.get(to_key(number))? else { return Ok(false) };
        Ok(matches!(postcard::from_bytes(&entry)?, StoredBlock::Rows(_)))
    }

    /// Reads a block. `None` if the block does not exist.
    pub(super) fn load_block(
        &self,
        number: u64,
        segments: &mut SegmentReader<'_>,
    ) -> Result<Option<LoadedBlock>, StoreError> {
        let Some(entry) = self.blocks.get(to_key(number))? else { return Ok(None) };
        let (location, changes) = match postcard::from_bytes(&entry)? {
            StoredBlock::Rows(rows) => return Ok(Some(LoadedBlock { rows: decompress(rows)?, archived: None })),
            StoredBlock::Archived(location, changes) => (location, changes),
        };
        match segments.read(number, &location) {
            Ok(rows) => Ok(Some(LoadedBlock { rows: decompress(&rows)?, archived: Some((location, changes)) })),
            // The block was deleted after the lookup.
            Err(_) if self.blocks.get(to_key(number))?.is_none_or(|current| current != entry) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
