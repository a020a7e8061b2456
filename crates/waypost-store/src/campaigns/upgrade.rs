//! Takes over the campaigns of a store of an earlier version of Waypost. The broker may have lost its copy.

use sled::{Batch, Db, Tree};

use super::index::IndexRow;
use super::row;
use super::stored_campaign::StoredCampaign;
use crate::StoreError;

/// The trees of format version 5: campaign id → JSON of the [`StoredCampaign`], and webhook id → campaign id.
const OLD_CAMPAIGNS: &str = "campaigns";
const OLD_WEBHOOKS: &str = "webhooks";

/// Campaigns written together.
const BATCH: usize = 500;

/// Writes the campaigns of format version 5 to the trees of this version. If the process ends meanwhile, the store has
/// the old version, and the next start repeats the upgrade.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn upgrade(db: &Db, campaigns: &Tree, index: &Tree) -> Result<(), StoreError> {
    let (mut rows, mut index_rows) = (Batch::default(), Batch::default());
    let old = db.open_tree(OLD_CAMPAIGNS)?;
    // An interrupted upgrade may have left rows.
    campaigns.clear()?;
    index.clear()?;
    for (number, entry) in old.iter().enumerate() {
        let (id, json) = entry?;
        let stored: StoredCampaign = serde_json::from_slice(&json)?;
        rows.insert(&id, row::encode(&stored)?);
        index_rows.insert(&id, postcard::to_stdvec(&IndexRow::from(&stored.campaign))?);
        if number % BATCH == BATCH - 1 {
            campaigns.apply_batch(std::mem::take(&mut rows))?;
            index.apply_batch(std::mem::take(&mut index_rows))?;
        }
    }
    campaigns.apply_batch(rows)?;
    index.apply_batch(index_rows)?;
    db.flush()?;
    Ok(())
}

/// Drops the trees of format version 5, after this version was written.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn drop_old_trees(db: &Db) -> Result<(), StoreError> {
    db.drop_tree(OLD_CAMPAIGNS)?;
    db.drop_tree(OLD_WEBHOOKS)?;
    Ok(())
}
