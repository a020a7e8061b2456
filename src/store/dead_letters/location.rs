//! Where a letter is: its block, its slot in the block, and its place in a file.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Offsets to a block.
const WIDTH: u64 = 64;

/// The block of an offset.
pub(super) fn block_of(offset: u64) -> u64 {
    offset / WIDTH
}

/// The first offset of a block.
pub(super) fn first_of(block: u64) -> u64 {
    block * WIDTH
}

/// The blocks of a range of offsets.
pub(super) fn blocks_of(offsets: &Range<u64>) -> Range<u64> {
    if offsets.is_empty() { 0..0 } else { block_of(offsets.start)..block_of(offsets.end - 1) + 1 }
}

/// The index of an offset in its block.
pub(super) fn slot_of(offset: u64) -> u8 {
    (offset % WIDTH) as u8
}

/// Where something lies in its block's volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SegmentLocation {
    /// A bit for each letter that is there.
    pub(super) slots: u64,
    /// Its first byte.
    pub(super) at: u64,
    /// Its length in bytes.
    pub(super) length: u32,
    pub(super) checksum: u32,
}

impl SegmentLocation {
    /// Whether the letter at `offset` is there, where the block is that of this place.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.slots >> slot_of(offset) & 1 == 1
    }
}
