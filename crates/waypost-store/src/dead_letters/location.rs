//! Addresses of letters: the block of an offset, the slot in the block, and the location in a segment file.

use std::ops::Range;

use serde::{Deserialize, Serialize};

const OFFSETS_PER_BLOCK: u64 = 64;

pub(super) fn block_of(offset: u64) -> u64 {
    offset / OFFSETS_PER_BLOCK
}

pub(super) fn first_offset_of(block: u64) -> u64 {
    block * OFFSETS_PER_BLOCK
}

/// The blocks that contain the offsets of a range.
pub(super) fn blocks_of(offsets: &Range<u64>) -> Range<u64> {
    if offsets.is_empty() { 0..0 } else { block_of(offsets.start)..block_of(offsets.end - 1) + 1 }
}

/// The index of an offset in its block, from 0 to 63.
pub(super) fn slot_of(offset: u64) -> u8 {
    (offset % OFFSETS_PER_BLOCK) as u8
}

/// The location of data in its block's segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SegmentLocation {
    /// One bit per slot: the letters in this pack. 0 for index rows.
    pub(super) slots: u64,
    /// The position of the first byte in the file.
    pub(super) start: u64,
    /// In bytes.
    pub(super) length: u32,
    /// CRC-32 of the bytes.
    pub(super) checksum: u32,
}

impl SegmentLocation {
    /// Whether this pack has the letter at `offset`, which must be in the same block.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.slots >> slot_of(offset) & 1 == 1
    }
}
