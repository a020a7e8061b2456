//! Data that no longer changes, in files beside sled: letters, and the index rows of complete blocks.
//!
//! sled keeps thousands of leaves in memory, each with up to sixteen entries: with letters in sled, these were hundreds
//! of megabytes. sled does not free disk space either. So sled has only the *locations* of this data. The data is
//! appended to a *segment* file for the block. One transaction writes the location to sled and removes the data from
//! sled. Appended data without a location is never read. A segment is deleted when all its blocks are deleted.
//!
//! If the machine stops, the last appended data may be lost. So a segment is synced before the next segment is created,
//! and the last segment is checked when the view is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sled::{Db, Tree};

use super::keys::{from_key, to_key};
use super::location::SegmentLocation;
use super::segment_codec::{self, Pack};
use crate::StoreError;

/// Blocks per segment: 16,384 offsets, which is a few megabytes of letters of the usual size.
const BLOCKS_PER_SEGMENT: u64 = 256;

#[derive(Debug, Clone)]
pub(super) struct Archive {
    folder: PathBuf,
    /// Block → [`SegmentLocation`]s of its letters.
    pub(super) locations: Tree,
}

impl Archive {
    /// Opens the archive in a folder and checks the last segment.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if data was lost.
    pub(super) fn open(db: &Db, folder: PathBuf) -> Result<Self, StoreError> {
        fs::create_dir_all(&folder)?;
        let archive = Self { folder, locations: db.open_tree("letter-places")? };
        let mut used = BTreeSet::new();
        for key in archive.locations.iter().keys() {
            used.insert(segment_of(from_key(&key?)));
        }
        let existing = archive.segment_numbers()?;
        // Segments without a location, and segments that were not deleted because the process ended.
        for unused in existing.difference(&used) {
            fs::remove_file(archive.path(*unused))?;
        }
        if let Some(missing) = used.difference(&existing).next() {
            return Err(StoreError::Damaged(format!("the file {} is missing", archive.path(*missing).display())));
        }
        if let Some(last) = used.last() {
            archive.check(*last)?;
        }
        Ok(archive)
    }

    /// Reads all letters of a segment, which compares their checksums.
    fn check(&self, segment: u64) -> Result<(), StoreError> {
        let mut reader = SegmentReader::new(self);
        for entry in self.locations.range(to_key(segment * BLOCKS_PER_SEGMENT)..) {
            let (block, locations) = entry?;
            for location in decode_locations(&locations)? {
                reader.read(from_key(&block), &location)?;
            }
        }
        Ok(())
    }

    /// The locations of a block's letters.
    pub(super) fn locations(&self, block: u64) -> Result<Vec<SegmentLocation>, StoreError> {
        self.locations.get(to_key(block))?.map_or(Ok(Vec::new()), |locations| decode_locations(&locations))
    }

    /// A writer for the segment of a block. `previous` is the writer of the previous block, if any. Returns the same
    /// writer if the block is in the same segment, else syncs it.
    pub(super) fn writer(&self, block: u64, previous: Option<SegmentWriter>) -> Result<SegmentWriter, StoreError> {
        let number = segment_of(block);
        match previous {
            Some(previous) if previous.number == number => return Ok(previous),
            Some(previous) => previous.file.sync_data()?,
            None => {}
        }
        let file = self.open_to_append(number)?;
        let end = file.metadata()?.len();
        Ok(SegmentWriter { number, file, end })
    }

    /// Deletes the segments of deleted blocks, unless another block has letters there.
    pub(super) fn delete_unused(&self, deleted_blocks: &[u64]) -> Result<(), StoreError> {
        let segments: BTreeSet<u64> = deleted_blocks.iter().map(|block| segment_of(*block)).collect();
        for segment in segments {
            let first = segment * BLOCKS_PER_SEGMENT;
            let blocks = to_key(first)..to_key(first + BLOCKS_PER_SEGMENT);
            if self.locations.range(blocks).next().transpose()?.is_none() {
                remove_if_exists(&self.path(segment))?;
            }
        }
        Ok(())
    }

    pub(super) fn clear(&self) -> Result<(), StoreError> {
        self.locations.clear()?;
        for segment in self.segment_numbers()? {
            remove_if_exists(&self.path(segment))?;
        }
        Ok(())
    }

    fn open_to_append(&self, segment: u64) -> io::Result<File> {
        let path = self.path(segment);
        match File::options().append(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
        if let Some(previous) = self.segment_numbers()?.last() {
            File::open(self.path(*previous))?.sync_data()?;
        }
        let file = File::options().append(true).create(true).open(&path)?;
        // Sync the folder as well, so that the new file itself is not lost.
        File::open(&self.folder)?.sync_all()?;
        Ok(file)
    }

    /// The segments that have a file.
    fn segment_numbers(&self) -> io::Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
        }
        Ok(numbers)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:016x}"))
    }
}

/// Appends to a segment file.
pub(super) struct SegmentWriter {
    number: u64,
    file: File,
    /// The length of the file in bytes.
    end: u64,
}

impl SegmentWriter {
    /// Appends letters of one block, given as offset → JSON, and returns their locations.
    pub(super) fn write_letters(
        &mut self,
        letters: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<Vec<SegmentLocation>, StoreError> {
        let packs = segment_codec::split_into_packs(letters).into_iter().map(|letters| {
            let slots = letters.iter().fold(0, |slots, (slot, _)| slots | 1 << slot);
            Ok(SegmentLocation { slots, ..self.write(&segment_codec::encode(&letters)?)? })
        });
        packs.collect()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<SegmentLocation, StoreError> {
        self.file.write_all(bytes)?;
        // No longer than a record of the stream.
        let length = bytes.len() as u32;
        let location = SegmentLocation { slots: 0, start: self.end, length, checksum: crc32fast::hash(bytes) };
        self.end += u64::from(length);
        Ok(location)
    }
}

/// Reads segments. The last segment stays open.
pub(super) struct SegmentReader<'a> {
    archive: &'a Archive,
    last: Option<(u64, File)>,
}

impl<'a> SegmentReader<'a> {
    pub(super) fn new(archive: &'a Archive) -> Self {
        Self { archive, last: None }
    }

    pub(super) fn read(&mut self, block: u64, location: &SegmentLocation) -> Result<Vec<u8>, StoreError> {
        let segment = segment_of(block);
        if let Some((number, mut file)) = self.last.take()
            && number == segment
            && let Ok(bytes) = self.read_from(&mut file, segment, location)
        {
            self.last = Some((segment, file));
            return Ok(bytes);
        }
        // Reopen the file even if it was open: it may have been replaced.
        let mut file = File::open(self.archive.path(segment))?;
        let bytes = self.read_from(&mut file, segment, location)?;
        self.last = Some((segment, file));
        Ok(bytes)
    }

    fn read_from(&self, file: &mut File, segment: u64, location: &SegmentLocation) -> Result<Vec<u8>, StoreError> {
        let damaged = |reason: &dyn std::fmt::Display| {
            StoreError::Damaged(format!("{}: {reason}", self.archive.path(segment).display()))
        };
        file.seek(SeekFrom::Start(location.start))?;
        let mut bytes = vec![0; location.length as usize];
        file.read_exact(&mut bytes).map_err(|error| damaged(&error))?;
        if crc32fast::hash(&bytes) != location.checksum {
            return Err(damaged(&format_args!("wrong checksum of the data at byte {}", location.start)));
        }
        Ok(bytes)
    }

    /// Reads a pack. `None` if the pack was deleted after its location was looked up.
    pub(super) fn read_pack(&mut self, block: u64, location: &SegmentLocation) -> Result<Option<Pack>, StoreError> {
        match self.read(block, location) {
            Ok(bytes) => Pack::decode(&bytes).map(Some),
            Err(_) if !self.archive.locations(block)?.contains(location) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn segment_of(block: u64) -> u64 {
    block / BLOCKS_PER_SEGMENT
}

fn decode_locations(bytes: &[u8]) -> Result<Vec<SegmentLocation>, StoreError> {
    Ok(postcard::from_bytes(bytes)?)
}

fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
