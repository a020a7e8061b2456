//! Counts of dead letters.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use waypost_core::dead_letter::LetterState;
use waypost_core::ids::WebhookId;
use waypost_core::reason::DeadLetterReason;
use waypost_core::timestamp;

/// Counts of dead letters. The greatest counts come first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterSummary {
    /// The number of dead letters that match.
    pub total: u64,
    /// The oldest `deadAt`.
    #[serde(with = "timestamp::optional")]
    #[schemars(with = "Option<String>")]
    pub oldest: Option<DateTime<Utc>>,
    /// The newest `deadAt`.
    #[serde(with = "timestamp::optional")]
    #[schemars(with = "Option<String>")]
    pub newest: Option<DateTime<Utc>>,
    pub states: Vec<StateCount>,
    pub reasons: Vec<ReasonCount>,
    /// By the class of the last attempt's status; `none` if there was no response.
    pub statuses: Vec<StatusCount>,
    /// The campaigns with the most dead letters.
    pub campaigns: Vec<CampaignCount>,
    /// The number of campaigns not listed.
    pub more_campaigns: usize,
    /// The webhooks with the most dead letters.
    pub webhooks: Vec<WebhookCount>,
    /// The number of webhooks not listed.
    pub more_webhooks: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateCount {
    pub state: LetterState,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReasonCount {
    pub reason: DeadLetterReason,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusCount {
    /// `5xx`, or `none`
    pub status: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignCount {
    pub campaign_id: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCount {
    pub webhook_id: WebhookId,
    pub campaign_id: String,
    pub count: u64,
}
