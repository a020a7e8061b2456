//! Discards dead letters, or counts what a discard would concern.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::dead_letter_record::MAX_DISCARD_REASON_CHARS;
use waypost_core::ids::DeadLetterId;
use waypost_core::timestamp;

use super::summary::CampaignCount;
use crate::replays::EndpointCount;
use crate::unique_map::UniqueMap;

/// The parameters of a discard.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "DiscardOrder")]
pub struct DiscardRequest {
    /// The dead letters to discard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<DeadLetterId>>,
    /// Or a filter of the pending dead letters to discard.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<LetterFilter>")]
    pub filter: Option<UniqueMap>,
    /// Why they are discarded, for people who read it later. Required with a filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_DISCARD_REASON_CHARS))]
    pub because: Option<String>,
    /// Only count the dead letters, and change nothing. Needs no `because`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

impl From<&Selection> for DiscardRequest {
    fn from(selection: &Selection) -> Self {
        match selection {
            Selection::Ids(ids) => Self { ids: Some(ids.clone()), ..Self::default() },
            Selection::Filter(filter) => Self { filter: Some(filter.into()), ..Self::default() },
        }
    }
}

/// The result of a discard, or of its dry run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum DiscardResult {
    Discarded(DiscardResponse),
    Preview(DiscardPreview),
}

/// The result of a discard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Discarded")]
pub struct DiscardResponse {
    /// The number of dead letters discarded.
    pub discarded: u64,
    /// Whether there are more. If so, send the request again.
    pub more: bool,
}

/// The dead letters that a discard would concern. The greatest counts come first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscardPreview {
    /// The number of dead letters.
    pub total: u64,
    /// The oldest `deadAt`.
    #[serde(with = "timestamp::optional")]
    #[schemars(with = "Option<String>")]
    pub oldest: Option<DateTime<Utc>>,
    /// The newest `deadAt`. Send a later `until` to discard no dead letter that is written after this response.
    #[serde(with = "timestamp::optional")]
    #[schemars(with = "Option<String>")]
    pub newest: Option<DateTime<Utc>>,
    /// The campaigns with the most dead letters. Events that could not be read have no campaign.
    pub campaigns: Vec<CampaignCount>,
    /// The number of campaigns not listed.
    pub more_campaigns: usize,
    /// The endpoints with the most dead letters. Dead letters that were never sent have no endpoint.
    pub endpoints: Vec<EndpointCount>,
    /// The number of endpoints not listed.
    pub more_endpoints: usize,
}
