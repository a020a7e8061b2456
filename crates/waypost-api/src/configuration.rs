//! Whether a worker has all campaigns, and an operator's decision about an incomplete campaigns stream.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use waypost_core::timestamp;

/// The state of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Configuration")]
pub struct ConfigurationResponse {
    /// Whether this worker has all campaigns.
    pub state: ConfigurationState,
    /// Why campaigns may be missing, for programs: `logReplaced`, `logTrimmed`, `logBeginsLater`, `heldByWorker` or
    /// `deliveriesWait`.
    pub reason: Option<String>,
    /// Why campaigns may be missing, and what to do.
    pub detail: Option<String>,
    /// How many campaigns this worker's store has.
    pub campaigns: u64,
    /// When the latest change that the store has was accepted; null if that is not known.
    #[serde(with = "timestamp::optional")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub last_change_at: Option<DateTime<Utc>>,
    /// Whether the campaigns stream can be restored from this worker.
    pub can_restore: bool,
}

/// Whether a worker has all campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ConfigurationState {
    /// It has all campaigns.
    Current,
    /// It is reading the campaigns stream.
    Reading,
    /// Campaigns may be missing: events are held until an operator decides.
    Incomplete,
}

/// The result of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ConfigurationDecision")]
pub struct DecisionResponse {
    /// How many campaigns were appended, or were in the store of this worker when the stream was accepted.
    pub campaigns: u64,
}
