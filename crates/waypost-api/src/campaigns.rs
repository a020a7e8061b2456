//! The list of campaigns. A single campaign is `waypost_core::campaign::Campaign`.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A campaign in the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignSummary {
    pub id: String,
    /// A name for people.
    pub name: Option<String>,
    /// The number of sections.
    pub sections: usize,
    /// The number of webhooks.
    pub webhooks: usize,
    /// Changes with every change of the campaign. Equals the `ETag`.
    pub version: u64,
    /// The name of the token that made the last change.
    pub changed_by: Option<String>,
    /// When the last change was made.
    pub changed_at: Option<DateTime<Utc>>,
}
