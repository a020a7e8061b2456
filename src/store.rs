//! Each node's local view of the logs, in sled: the only room that touches it.
//!
//! A view, nothing more: it can be deleted at any time and is rebuilt from the logs. What a log record changes and the
//! record's position are written in one transaction, so that no record is applied twice or left out.

mod campaigns;
pub mod dead_letters;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quick_cache::sync::Cache;
use sled::{Db, Tree};

use crate::delivery::secret_encryption::{DecryptError, Keyring};
use campaigns::{CachedCampaign, CampaignWeighter};
pub use campaigns::{Change, ChangeAuthor, ChangeOutcome, StoredCampaign, record, state};
use dead_letters::LetterView;

/// The default would be a gigabyte.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// Campaigns kept parsed. At the largest (a document of 1 MiB) a few would fill this weight, counted in bytes.
const PARSED_BYTES: u64 = 32 * 1024 * 1024;

/// The layout of the trees; another one is rebuilt from the logs.
const FORMAT: &[u8] = b"5";

/// The store could not be read or written: nothing of the delivery in hand is settled.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder open.
    #[error("{0} is in use by another process: give each worker a store.path of its own")]
    InUse(PathBuf),
    /// The folder could not be used at all.
    #[error("{path} (store.path): {error}")]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// sled failed.
    #[error(
        "the local store (store.path) failed: {0}. Mend the disk, or delete the folder, which is rebuilt from the broker; then start again"
    )]
    Sled(#[from] sled::Error),
    /// A secret is sealed with a key that there is not.
    #[error("a secret of the campaign `{campaign}` is {unopened}")]
    Sealed {
        /// The campaign.
        campaign: String,
        /// Why it does not open.
        unopened: DecryptError,
    },
    /// What it holds could not be read.
    #[error("the local store is damaged: {0}")]
    Damaged(String),
}

impl From<std::io::Error> for StoreError {
    /// A file beside sled's: the remedy is the same.
    fn from(error: std::io::Error) -> Self {
        Self::Sled(error.into())
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<postcard::Error> for StoreError {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// The local view.
#[derive(Clone)]
pub struct Store {
    path: PathBuf,
    db: Db,
    /// Campaign id → [`StoredCampaign`].
    campaigns: Tree,
    /// Webhook id → campaign id.
    webhooks: Tree,
    /// Log → the position that the view has come to.
    positions: Tree,
    parsed: Arc<Cache<String, CachedCampaign, CampaignWeighter>>,
    /// Counts changes of the view. What was parsed at another generation is read again.
    generation: Arc<AtomicU64>,
    /// Opens the campaigns' secrets.
    keyring: Keyring,
    /// The view of the dead-letter log.
    pub letters: LetterView,
}

impl Store {
    /// Opens the view in a folder of `folder`, which itself may be a mount point. A view that does not open is moved
    /// aside and a new one begun.
    ///
    /// # Errors
    /// [`StoreError::InUse`], and [`StoreError::Unusable`] where not even an empty one can be made.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = &folder.join("view");
        let unusable = |error: String| StoreError::Unusable { path: path.to_owned(), error };
        // Phone numbers are in it, and secrets where there is no key. One that is there already is as its owner wants it.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| unusable(error.to_string()))?;
        let error = match Self::try_open(path) {
            Ok(store) => return Ok(store),
            Err(OpenError::InUse) => return Err(StoreError::InUse(path.to_owned())),
            Err(OpenError::Disk(error)) => return Err(unusable(error)),
            Err(OpenError::View(error)) => error,
        };
        let aside = beside(path, "damaged");
        std::fs::rename(path, &aside).map_err(|rename| unusable(format!("{error}; moving it aside: {rename}")))?;
        tracing::error!(
            path = %path.display(), aside = %aside.display(), %error,
            "the local store is damaged: moved aside, and rebuilt from the broker's logs"
        );
        Self::try_open(path).map_err(|broken| match broken {
            OpenError::InUse => StoreError::InUse(path.to_owned()),
            OpenError::Disk(error) | OpenError::View(error) => unusable(error),
        })
    }

    /// With the keys that open its secrets; all of them are tried now, for the first event needs them.
    ///
    /// # Errors
    /// [`StoreError::Sealed`].
    pub fn with_keyring(mut self, keyring: Keyring) -> Result<Self, StoreError> {
        self.keyring = keyring;
        self.check_keys()?;
        Ok(self)
    }

    fn try_open(path: &Path) -> Result<Self, OpenError> {
        // sled reports some damage by panicking.
        std::panic::catch_unwind(|| Self::open_and_check(path).map_err(OpenError::from))
            .unwrap_or_else(|_| Err(OpenError::View("sled panicked while opening it".to_owned())))
    }

    fn open_and_check(path: &Path) -> Result<Self, StoreError> {
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open()?;
        if db.get("format")?.as_deref() != Some(FORMAT) {
            // That of the format itself can't be dropped, and has nothing else.
            for tree in db.tree_names().into_iter().filter(|tree| *tree != db.name()) {
                db.drop_tree(tree)?;
            }
            db.insert("format", FORMAT)?;
        }
        let store = Self {
            path: path.to_owned(),
            campaigns: db.open_tree("campaigns")?,
            webhooks: db.open_tree("webhooks")?,
            letters: LetterView::open(&db, path.join("dead-letters"))?,
            positions: db.open_tree("positions")?,
            parsed: Arc::new(Cache::with_weighter(1024, PARSED_BYTES, CampaignWeighter)),
            generation: Arc::default(),
            keyring: Keyring::default(),
            db,
        };
        for entry in &store.campaigns {
            serde_json::from_slice::<StoredCampaign>(&entry?.1)?;
        }
        store.position()?;
        store.view_state()?;
        Ok(store)
    }

    /// The bytes of the view's folder, with views in it that were moved aside. What can't be looked at counts for nothing.
    pub fn bytes_on_disk(&self) -> u64 {
        self.path.parent().map_or(0, bytes_of)
    }

    /// The bytes that are free on the disk of the view's folder; none where that can't be told.
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(self.path.parent()?)
    }

    /// Writes what sled still has in memory.
    ///
    /// # Errors
    /// [`StoreError::Sled`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.db.flush_async().await?;
        Ok(())
    }
}

/// The bytes that are free on the disk of a folder; none where that can't be told: some file systems say nothing of their size.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok().filter(|disk| disk.f_blocks > 0)?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Why a view does not open.
enum OpenError {
    /// Another process has it.
    InUse,
    /// The disk is full or can't be written, which another folder on it does not mend.
    Disk(String),
    /// What is there can't be read.
    View(String),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let text = error.to_string();
        match error {
            // sled says it in words only.
            StoreError::Sled(_) if text.contains("could not acquire lock") => Self::InUse,
            StoreError::Sled(sled::Error::Io(error))
                if matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied) =>
            {
                Self::Disk(error.to_string())
            }
            _ => Self::View(text),
        }
    }
}

/// The bytes of all files in a folder, at any depth.
fn bytes_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    bytes.map(|(path, found)| if found.is_dir() { bytes_of(&path) } else { found.len() }).sum()
}

/// A free name beside `path`: `view.damaged-20240618T232614.206`.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}-{}", chrono::Utc::now().format("%Y%m%dT%H%M%S%.3f")));
    name.into()
}

#[cfg(test)]
mod tests;
