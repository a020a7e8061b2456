//! The local store of a worker: views of the campaigns stream and of the dead-letter stream, in sled. No other module
//! uses sled.
//!
//! The store is a cache. It can be deleted at any time and is rebuilt from the streams. The changes of a stream record
//! and the record's position are written in one transaction, so that no record is applied twice or skipped.

mod campaigns;
pub mod dead_letters;
mod error;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use quick_cache::sync::Cache;
use sled::{Db, Tree};
use waypost_core::secret_encryption::Keyring;

use campaigns::{CachedCampaign, CampaignIndex, CampaignWeighter};
pub use campaigns::{CampaignsEntry, Change, ChangeAuthor, ChangeOutcome, StoredCampaign, record, state};
use dead_letters::LetterView;
pub use error::StoreError;

/// sled's page cache. In memory its pages are two to three times as large. sled's default is 1 GiB.
const PAGE_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The cache of parsed campaigns. A few campaigns of the largest size (a document of 1 MiB) fill it.
const CAMPAIGN_CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// The expected number of cached campaigns. It is not a limit.
const CAMPAIGN_CACHE_ITEMS: usize = 1024;

/// The version of the trees' layout. A store with another version is emptied and rebuilt from the streams.
const FORMAT_VERSION: &[u8] = b"6";

/// The version before. Its campaigns are taken over, and its dead letters have the same layout.
const PREVIOUS_FORMAT_VERSION: &[u8] = b"5";

/// The key of the description of a damage that was found while the store was open.
const DAMAGE_KEY: &str = "damaged";

#[derive(Clone)]
pub struct Store {
    path: PathBuf,
    db: Db,
    /// Campaign id → [`StoredCampaign`].
    campaigns: Tree,
    /// Campaign id → what [`CampaignIndex`] knows of it.
    campaign_index: Tree,
    /// Stream → the position of the last record that was applied.
    positions: Tree,
    campaign_cache: Arc<Cache<String, CachedCampaign, CampaignWeighter>>,
    index: Arc<RwLock<CampaignIndex>>,
    /// Counts changes of the view.
    generation: Arc<AtomicU64>,
    /// Locked while campaigns are written.
    write_lock: Arc<Mutex<()>>,
    /// Decrypts the secrets of campaigns.
    keyring: Keyring,
    pub letters: LetterView,
}

impl Store {
    /// Opens the store in the subfolder `view` of `folder`, which itself may be a mount point. A damaged store is moved
    /// aside and replaced by an empty one.
    ///
    /// # Errors
    /// [`StoreError::InUse`], and [`StoreError::Unusable`] if not even an empty store can be created.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = &folder.join("view");
        let unusable = |error: String| StoreError::Unusable { path: path.to_owned(), error };
        // The store contains phone numbers, and plain secrets if there is no key. The mode of an existing folder is
        // kept.
        let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|error| unusable(error.to_string()))?;
        let error = match Self::try_open(path) {
            Ok(store) => return Ok(store),
            Err(OpenError::InUse) => return Err(StoreError::InUse(path.to_owned())),
            Err(OpenError::Disk(error)) => return Err(unusable(error)),
            Err(OpenError::Damaged(error)) => error,
        };
        let renamed_to = sibling_path(path, "damaged");
        std::fs::rename(path, &renamed_to)
            .map_err(|rename_error| unusable(format!("{error}. Moving the folder aside failed: {rename_error}")))?;
        tracing::error!(
            path = %path.display(), renamed_to = %renamed_to.display(), %error,
            "damaged local store renamed, rebuilding from the broker"
        );
        Self::try_open(path).map_err(|error| match error {
            OpenError::InUse => StoreError::InUse(path.to_owned()),
            OpenError::Disk(error) | OpenError::Damaged(error) => unusable(error),
        })
    }

    /// Sets the keys and checks that no key is missing before the first event.
    ///
    /// # Errors
    /// [`StoreError::Undecryptable`].
    pub fn with_keyring(mut self, keyring: Keyring) -> Result<Self, StoreError> {
        self.keyring = keyring;
        self.check_keys()?;
        Ok(self)
    }

    fn try_open(path: &Path) -> Result<Self, OpenError> {
        // sled reports some damage by panicking.
        std::panic::catch_unwind(|| Self::open_and_check(path).map_err(OpenError::from))
            .unwrap_or_else(|_| Err(OpenError::Damaged("sled panicked while opening the store".to_owned())))
    }

    fn open_and_check(path: &Path) -> Result<Self, StoreError> {
        let db = sled::Config::new().path(path).cache_capacity(PAGE_CACHE_BYTES).open()?;
        if let Some(damage) = db.get(DAMAGE_KEY)? {
            return Err(StoreError::Damaged(String::from_utf8_lossy(&damage).into_owned()));
        }
        let format = db.get("format")?;
        if ![Some(FORMAT_VERSION), Some(PREVIOUS_FORMAT_VERSION)].contains(&format.as_deref()) {
            // The default tree, which has the format version, cannot be dropped. It has nothing else.
            for tree in db.tree_names().into_iter().filter(|tree| *tree != db.name()) {
                db.drop_tree(tree)?;
            }
            db.insert("format", FORMAT_VERSION)?;
        }
        let (campaigns, campaign_index) = (db.open_tree("campaign-rows")?, db.open_tree("campaign-index")?);
        if format.as_deref() == Some(PREVIOUS_FORMAT_VERSION) {
            campaigns::upgrade(&db, &campaigns, &campaign_index)?;
            db.insert("format", FORMAT_VERSION)?;
        }
        campaigns::drop_old_trees(&db)?;
        let store = Self {
            path: path.to_owned(),
            index: Arc::new(RwLock::new(campaigns::load_index(&campaign_index)?)),
            campaigns,
            campaign_index,
            letters: LetterView::open(&db, path.join("dead-letters"))?,
            positions: db.open_tree("positions")?,
            campaign_cache: Arc::new(Cache::with_weighter(
                CAMPAIGN_CACHE_ITEMS,
                CAMPAIGN_CACHE_BYTES,
                CampaignWeighter,
            )),
            generation: Arc::default(),
            write_lock: Arc::default(),
            keyring: Keyring::default(),
            db,
        };
        store.position()?;
        store.view_state()?;
        Ok(store)
    }

    pub async fn flush(&self) -> Result<(), StoreError> {
        self.db.flush_async().await?;
        Ok(())
    }
}

/// The free bytes on the disk of a folder. `None` if unknown: some file systems do not report their size.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stats = rustix::fs::statvfs(folder).ok().filter(|stats| stats.f_blocks > 0)?;
    Some(stats.f_bavail.saturating_mul(stats.f_frsize))
}

enum OpenError {
    InUse,
    /// The disk is full or read-only. An empty store would fail as well.
    Disk(String),
    /// The files are damaged.
    Damaged(String),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let text = error.to_string();
        match error {
            // sled has no error kind for this.
            StoreError::Sled(_) if text.contains("could not acquire lock") => Self::InUse,
            StoreError::Sled(sled::Error::Io(error))
                if matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied) =>
            {
                Self::Disk(error.to_string())
            }
            _ => Self::Damaged(text),
        }
    }
}

/// The size of all files in a folder, at any depth. Unreadable files are not counted.
pub fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    files.map(|(path, metadata)| if metadata.is_dir() { folder_bytes(&path) } else { metadata.len() }).sum()
}

/// A new path beside `path`: `view.damaged-20240618T232614.206`.
fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}-{}", chrono::Utc::now().format("%Y%m%dT%H%M%S%.3f")));
    name.into()
}

#[cfg(test)]
mod tests;
