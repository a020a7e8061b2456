//! The error of the store.

use std::path::PathBuf;

use waypost_core::secret_encryption::DecryptError;

/// The store could not be read or written. The message in flight must not be acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0} is in use by another process: give each worker its own store.path")]
    InUse(PathBuf),
    /// Not even an empty store can be created in the folder.
    #[error("{path} (store.path): {error}")]
    Unusable { path: PathBuf, error: String },
    #[error(
        "the local store (store.path) failed: {0}. Repair the disk, or delete the folder, which is rebuilt from the \
         broker. Then restart"
    )]
    Sled(#[from] sled::Error),
    #[error("a secret of the campaign `{campaign}` is {error}")]
    Undecryptable { campaign: String, error: DecryptError },
    #[error("the local store is damaged: {0}")]
    Damaged(String),
}

impl From<std::io::Error> for StoreError {
    /// An error of a file beside sled's files. The message gives the same advice.
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
