//! Where the rows of a block are: in sled while it is not over, and then in the archive, but for what changes of them.

use serde::{Deserialize, Serialize};

use super::archive::Volumes;
use super::location::Place;
use super::pack::decompress;
use super::rows::{Block, Change};
use super::{LetterView, key};
use crate::store::StoreError;

/// What sled has of a block.
#[derive(Debug, Serialize, Deserialize)]
enum Stored<'a> {
    /// Its rows.
    Rows(#[serde(borrow)] &'a [u8]),
    /// Where they are, and what has changed since they were written there.
    Archived(Place, Vec<Change>),
}

/// A block that was read.
pub(super) struct Loaded {
    rows: Vec<u8>,
    archived: Option<(Place, Vec<Change>)>,
}

impl Loaded {
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
        Some(place) => postcard::to_stdvec(&Stored::Archived(place.clone(), block.changes()))?,
        None => postcard::to_stdvec(&Stored::Rows(&block.encode()?))?,
    })
}

impl LetterView {
    /// Whether the rows of a block are in sled.
    pub(super) fn has_rows(&self, number: u64) -> Result<bool, StoreError> {
        let Some(entry) = self.blocks.get(key(number))? else { return Ok(false) };
        Ok(matches!(postcard::from_bytes(&entry)?, Stored::Rows(_)))
    }

    /// Reads a block; `None` where there is none.
    pub(super) fn load(&self, number: u64, volumes: &mut Volumes<'_>) -> Result<Option<Loaded>, StoreError> {
        let Some(entry) = self.blocks.get(key(number))? else { return Ok(None) };
        let (place, changes) = match postcard::from_bytes(&entry)? {
            Stored::Rows(rows) => return Ok(Some(Loaded { rows: decompress(rows)?, archived: None })),
            Stored::Archived(place, changes) => (place, changes),
        };
        match volumes.read(number, &place) {
            Ok(rows) => Ok(Some(Loaded { rows: decompress(&rows)?, archived: Some((place, changes)) })),
            // Forgotten since it was looked up.
            Err(_) if self.blocks.get(key(number))?.is_none_or(|now| now != entry) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
