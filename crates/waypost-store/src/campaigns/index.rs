//! What can be found without reading a campaign: its id, its name, the owner of each webhook, and the keys that
//! encrypted its secrets. All of it is in memory. It is built from small rows when the store is opened.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use waypost_core::campaign::Campaign;
use waypost_core::secret_encryption;

/// The row of a campaign in the tree of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexRow {
    name: Option<String>,
    /// The ids of its webhooks.
    pub(super) webhooks: Vec<String>,
    /// The ids of the keys that encrypted its secrets.
    pub(super) keys: Vec<String>,
}

impl From<&Campaign> for IndexRow {
    fn from(campaign: &Campaign) -> Self {
        let mut keys: Vec<String> = secret_encryption::key_ids(campaign).map(str::to_owned).collect();
        keys.sort_unstable();
        keys.dedup();
        let webhooks = campaign.places().map(|place| place.webhook.id.to_string()).collect();
        Self { name: campaign.name.clone(), webhooks, keys }
    }
}

/// Stands for the id of a webhook in 16 bytes: a customer chooses ids of any length. It is a part of a cryptographic
/// hash, so no two ids have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct WebhookKey([u64; 2]);

impl WebhookKey {
    pub(super) fn new(webhook_id: &str) -> Self {
        let hash = Sha256::digest(webhook_id.as_bytes());
        let word = |start: usize| hash[start..start + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self([word(0), word(8)])
    }
}

#[derive(Default)]
pub(crate) struct CampaignIndex {
    /// By id.
    campaigns: BTreeMap<Arc<str>, SearchText>,
    /// The id of the campaign that has the webhook.
    owners: HashMap<WebhookKey, Arc<str>>,
    /// The number of campaigns with secrets that this key encrypted.
    keys: BTreeMap<String, u64>,
}

/// The lower-case text of id and name, one after the other.
struct SearchText {
    text: Box<str>,
    id_bytes: usize,
}

impl SearchText {
    fn new(id: &str, name: Option<&str>) -> Self {
        let id = id.to_lowercase();
        let id_bytes = id.len();
        let text = name.map_or_else(|| id.clone(), |name| id.clone() + &name.to_lowercase());
        Self { text: text.into(), id_bytes }
    }

    /// `needle` searches for a text in lower case.
    fn contains(&self, needle: &Finder<'_>) -> bool {
        let (id, name) = self.text.as_bytes().split_at(self.id_bytes);
        needle.find(id).is_some() || needle.find(name).is_some()
    }
}

impl CampaignIndex {
    pub(super) fn count(&self) -> u64 {
        self.campaigns.len() as u64
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.campaigns.contains_key(id)
    }

    /// The ids after `after` whose campaign's id or name contains `text`, ignoring case. All ids for an empty text.
    pub(super) fn search(&self, text: &str, after: Option<&str>, limit: usize) -> Vec<Arc<str>> {
        let needle = text.to_lowercase();
        // `str::contains` would prepare the search again for each campaign.
        let needle = Finder::new(&needle);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let campaigns = self.campaigns.range::<str, _>((from, Bound::Unbounded));
        let found = campaigns.filter(|(_, text)| text.contains(&needle));
        found.take(limit).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn owner(&self, webhook: WebhookKey) -> Option<&Arc<str>> {
        self.owners.get(&webhook)
    }

    /// The ids of all keys that encrypted a secret.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Adds a campaign that the index does not have.
    pub(super) fn insert(&mut self, id: &str, row: &IndexRow) {
        let id: Arc<str> = id.into();
        for webhook in &row.webhooks {
            self.owners.insert(WebhookKey::new(webhook), id.clone());
        }
        for key in &row.keys {
            *self.keys.entry(key.clone()).or_default() += 1;
        }
        let text = SearchText::new(&id, row.name.as_deref());
        self.campaigns.insert(id, text);
    }

    /// Removes a campaign that has this row.
    pub(super) fn remove(&mut self, id: &str, row: &IndexRow) {
        self.campaigns.remove(id);
        for webhook in &row.webhooks {
            self.owners.remove(&WebhookKey::new(webhook));
        }
        for key in &row.keys {
            if let Some(campaigns) = self.keys.get_mut(key) {
                *campaigns -= 1;
                if *campaigns == 0 {
                    self.keys.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: Option<&str>, webhooks: &[&str], keys: &[&str]) -> IndexRow {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        IndexRow { name: name.map(str::to_owned), webhooks: texts(webhooks), keys: texts(keys) }
    }

    #[test]
    fn a_search_finds_ids_and_names_in_any_case_and_pages_by_id() {
        let mut index = CampaignIndex::default();
        for (id, name) in [("b1", Some("Äpfel")), ("a1", None), ("C1", Some("Birnen")), ("d", Some("1x"))] {
            index.insert(id, &row(name, &[], &[]));
        }
        for (text, after, limit, expected) in [
            ("", None, 9, &["C1", "a1", "b1", "d"][..]),
            ("", None, 2, &["C1", "a1"]),
            ("", Some("a1"), 9, &["b1", "d"]),
            ("", Some("a2"), 1, &["b1"]),
            ("ÄPF", None, 9, &["b1"]),
            ("c1", None, 9, &["C1"]),
            ("1", Some("a1"), 9, &["b1", "d"]),
            // The end of an id and the beginning of a name are not one text.
            ("1b", None, 9, &[]),
            ("none", None, 9, &[]),
        ] {
            let found = index.search(text, after, limit);
            assert_eq!(found.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), expected, "{text} {after:?} {limit}");
        }
    }

    #[test]
    fn what_a_campaign_had_is_removed_with_it() {
        let mut index = CampaignIndex::default();
        let (a, b) = (row(None, &["wh_1", "wh_2"], &["k1", "k2"]), row(None, &["wh_3"], &["k2"]));
        index.insert("a", &a);
        index.insert("b", &b);
        let owner = |index: &CampaignIndex, webhook| index.owner(WebhookKey::new(webhook)).map(ToString::to_string);
        assert_eq!(owner(&index, "wh_2").as_deref(), Some("a"));
        index.remove("a", &a);
        assert_eq!((owner(&index, "wh_1"), owner(&index, "wh_2")), (None, None));
        assert_eq!(owner(&index, "wh_3").as_deref(), Some("b"));
        assert_eq!(index.keys().collect::<Vec<_>>(), ["k2"]);
        assert_eq!((index.count(), index.contains("a"), index.contains("b")), (1, false, true));
    }
}
