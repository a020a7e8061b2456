//! A change of a campaign, as a record of the campaigns stream.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use waypost_core::campaign::Campaign;
use waypost_core::campaign::diff::CampaignNode;

/// A record of the campaigns stream that puts or deletes a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub id: String,
    /// The version that the change replaces, `None` if it creates the campaign. If the current version is another one,
    /// the change has no effect.
    #[serde(rename = "expected")]
    pub expected_version: Option<u64>,
    /// `None` if the change is older than this field.
    #[serde(rename = "made", default, skip_serializing_if = "Option::is_none")]
    pub author: Option<ChangeAuthor>,
    /// The new campaign, `None` to delete it.
    pub campaign: Option<Campaign>,
}

/// The effect of a change, which is the same on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    Done {
        version: u64,
    },
    /// The change had no effect: the current version is not the expected one.
    Stale,
    /// The change had no effect: the campaign `owner` has a webhook with this id.
    WebhookTaken {
        webhook_id: String,
        owner: String,
    },
}

/// Who made a change, when, and to which parts of the campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeAuthor {
    /// The name of the token.
    pub by: String,
    /// When a worker accepted the change.
    pub at: DateTime<Utc>,
    /// The nodes that were changed.
    #[serde(rename = "places", default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<CampaignNode>,
}
