//! What never changes, in files beside sled: the letters, and of blocks that are over the rows.
//!
//! sled keeps a leaf in memory for as long as it has not counted its use, and it counts coarsely: thousands of leaves, each
//! with up to sixteen entries, are hundreds of megabytes. It gives no disk space back either. So it has only the *places*
//! of what is here. What is to be kept is appended to the file of its block's *volume*, and its place is written in the
//! transaction that takes it out of sled. What is appended and has no place is never read. A volume all of whose blocks
//! are forgotten is deleted.
//!
//! The system may lose what was appended last where the machine stops. So a volume is synced before the next one is begun,
//! and the last one is checked when the view is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sled::{Db, Tree};

use super::location::SegmentLocation;
use super::segment_codec::{self, Pack};
use super::{key, number};
use crate::store::StoreError;

/// Blocks to a volume: 16,384 offsets, a few megabytes where letters are of the usual size.
const VOLUME_BLOCKS: u64 = 256;

/// The files, and the places in them.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    folder: PathBuf,
    /// Block → the places of its letters.
    pub(super) places: Tree,
}

impl Archive {
    /// Opens the archive in a folder, and checks what may have been lost.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where something was.
    pub(super) fn open(db: &Db, folder: PathBuf) -> Result<Self, StoreError> {
        fs::create_dir_all(&folder)?;
        let archive = Self { folder, places: db.open_tree("letter-places")? };
        let mut known = BTreeSet::new();
        for key in archive.places.iter().keys() {
            known.insert(volume_of(number(&key?)));
        }
        let there = archive.volumes()?;
        // Of what was never known, or was forgotten while the process ended.
        for unknown in there.difference(&known) {
            fs::remove_file(archive.path(*unknown))?;
        }
        if let Some(missing) = known.difference(&there).next() {
            return Err(StoreError::Damaged(format!("{} is missing", archive.path(*missing).display())));
        }
        if let Some(newest) = known.last() {
            archive.check(*newest)?;
        }
        Ok(archive)
    }

    fn check(&self, volume: u64) -> Result<(), StoreError> {
        let mut volumes = Segments::new(self);
        for entry in self.places.range(key(volume * VOLUME_BLOCKS)..) {
            let (block, places) = entry?;
            for place in decode(&places)? {
                volumes.read(number(&block), &place)?;
            }
        }
        Ok(())
    }

    /// The places of a block's letters.
    pub(super) fn places(&self, block: u64) -> Result<Vec<SegmentLocation>, StoreError> {
        self.places.get(key(block))?.map_or(Ok(Vec::new()), |places| decode(&places))
    }

    /// The volume of a block, to append to it; after `last`, where something was appended before it.
    pub(super) fn append_to(&self, block: u64, last: Option<Segment>) -> Result<Segment, StoreError> {
        let number = volume_of(block);
        match last {
            Some(last) if last.number == number => return Ok(last),
            Some(last) => last.file.sync_data()?,
            None => {}
        }
        let file = self.open_to_append(number)?;
        let end = file.metadata()?.len();
        Ok(Segment { number, file, end })
    }

    /// Deletes the volumes of these blocks, which are forgotten, where no other block has letters there.
    pub(super) fn delete_unused(&self, blocks: &[u64]) -> Result<(), StoreError> {
        let volumes: BTreeSet<u64> = blocks.iter().map(|block| volume_of(*block)).collect();
        for volume in volumes {
            let first = volume * VOLUME_BLOCKS;
            if self.places.range(key(first)..key(first + VOLUME_BLOCKS)).next().transpose()?.is_none() {
                remove(&self.path(volume))?;
            }
        }
        Ok(())
    }

    /// Forgets all of it.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        self.places.clear()?;
        for volume in self.volumes()? {
            remove(&self.path(volume))?;
        }
        Ok(())
    }

    fn open_to_append(&self, volume: u64) -> io::Result<File> {
        let path = self.path(volume);
        match File::options().append(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        if let Some(previous) = self.volumes()?.last() {
            File::open(self.path(*previous))?.sync_data()?;
        }
        let file = File::options().append(true).create(true).open(&path)?;
        // So that the file itself is not lost.
        File::open(&self.folder)?.sync_all()?;
        Ok(file)
    }

    /// The volumes that have a file.
    fn volumes(&self) -> io::Result<BTreeSet<u64>> {
        let mut volumes = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            volumes.extend(name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok()));
        }
        Ok(volumes)
    }

    fn path(&self, volume: u64) -> PathBuf {
        self.folder.join(format!("{volume:016x}"))
    }
}

/// A volume that is appended to.
pub(super) struct Segment {
    number: u64,
    file: File,
    end: u64,
}

impl Segment {
    /// Writes letters of one block, by their offsets, as JSON; tells their places.
    pub(super) fn write_letters(
        &mut self,
        letters: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<Vec<SegmentLocation>, StoreError> {
        let packs = segment_codec::share_out(letters).into_iter().map(|letters| {
            let slots = letters.iter().fold(0, |slots, (slot, _)| slots | 1 << slot);
            Ok(SegmentLocation { slots, ..self.write(&segment_codec::encode(&letters)?)? })
        });
        packs.collect()
    }

    /// Writes bytes, and tells their place.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<SegmentLocation, StoreError> {
        self.file.write_all(bytes)?;
        // As long as a record of the log, at most.
        let length = bytes.len() as u32;
        let place = SegmentLocation { slots: 0, at: self.end, length, checksum: crc32fast::hash(bytes) };
        self.end += u64::from(length);
        Ok(place)
    }
}

/// Reads volumes; that which was read last is still open.
pub(super) struct Segments<'a> {
    archive: &'a Archive,
    last: Option<(u64, File)>,
}

impl<'a> Segments<'a> {
    pub(super) fn new(archive: &'a Archive) -> Self {
        Self { archive, last: None }
    }

    /// What is in this place of a block's volume.
    pub(super) fn read(&mut self, block: u64, place: &SegmentLocation) -> Result<Vec<u8>, StoreError> {
        let volume = volume_of(block);
        if let Some((number, mut file)) = self.last.take()
            && number == volume
            && let Ok(bytes) = self.read_from(&mut file, volume, place)
        {
            self.last = Some((volume, file));
            return Ok(bytes);
        }
        // Also where it was open: it may be another file by now.
        let mut file = File::open(self.archive.path(volume))?;
        let bytes = self.read_from(&mut file, volume, place)?;
        self.last = Some((volume, file));
        Ok(bytes)
    }

    fn read_from(&self, file: &mut File, volume: u64, place: &SegmentLocation) -> Result<Vec<u8>, StoreError> {
        let damaged = |why: &dyn std::fmt::Display| {
            StoreError::Damaged(format!("{}: {why}", self.archive.path(volume).display()))
        };
        file.seek(SeekFrom::Start(place.at))?;
        let mut bytes = vec![0; place.length as usize];
        file.read_exact(&mut bytes).map_err(|error| damaged(&error))?;
        if crc32fast::hash(&bytes) != place.checksum {
            return Err(damaged(&format_args!("not what was written there, from byte {} on", place.at)));
        }
        Ok(bytes)
    }

    /// The pack in this place; `None` where it is not there any more.
    pub(super) fn pack(&mut self, block: u64, place: &SegmentLocation) -> Result<Option<Pack>, StoreError> {
        match self.read(block, place) {
            Ok(bytes) => Pack::decode(&bytes).map(Some),
            // Forgotten since its place was looked up.
            Err(_) if !self.archive.places(block)?.contains(place) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn volume_of(block: u64) -> u64 {
    block / VOLUME_BLOCKS
}

fn decode(places: &[u8]) -> Result<Vec<SegmentLocation>, StoreError> {
    Ok(postcard::from_bytes(places)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
