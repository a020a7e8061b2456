//! Replays of dead letters: create, preview and show.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::ids::DeadLetterId;
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::{Replay, ReplayConfig};
use waypost_core::request::RequestPreview;

use crate::flattened::read_twice;
use crate::unique_map::UniqueMap;

/// The list shows the ids of a replay only up to this number.
const MAX_LISTED_IDS: usize = 100;

/// A replay and its progress.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Replay")]
pub struct ReplayResponse {
    #[serde(flatten)]
    pub replay: Replay,
    /// The number of `ids`, if the replay has ids. The list of replays omits `ids` if there are more than 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_count: Option<usize>,
}

impl ReplayResponse {
    pub fn with_all_ids(replay: Replay) -> Self {
        Self { id_count: replay.ids.as_ref().map(Vec::len), replay }
    }

    /// Omits `ids` if there are more than 100.
    pub fn for_list(replay: Replay) -> Self {
        let mut response = Self::with_all_ids(replay);
        response.replay.ids.take_if(|ids| ids.len() > MAX_LISTED_IDS);
        response
    }
}

impl<'de> Deserialize<'de> for ReplayResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Own {
            id_count: Option<usize>,
        }
        let (replay, Own { id_count }) = read_twice(deserializer)?;
        Ok(Self { replay, id_count })
    }
}

/// The parameters of a new replay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ReplayOrder")]
pub struct CreateReplay {
    /// The dead letters to send, in any state except `replaying`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<DeadLetterId>>,
    /// Or a filter of the dead letters to send. Without a state, the filter selects pending dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<LetterFilter>")]
    pub filter: Option<UniqueMap>,
    /// Maximum number of dead letters sent per second. No limit if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// Only show a preview, and send nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Whether to send to the webhooks as they are now, or as they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ReplayConfig>,
    /// Stop if this share of the latest dead letters has failed, from 0 to 1. The first 20 are sent and judged
    /// separately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_on_failure_ratio: Option<f64>,
}

impl From<&Selection> for CreateReplay {
    fn from(selection: &Selection) -> Self {
        match selection {
            Selection::Ids(ids) => Self { ids: Some(ids.clone()), ..Self::default() },
            Selection::Filter(filter) => Self { filter: Some(filter.into()), ..Self::default() },
        }
    }
}

/// The result of a dry run. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReplayForecast")]
pub struct ReplayPreviewResponse {
    /// The number of dead letters selected.
    pub total: u64,
    /// The number of dead letters by endpoint, the greatest first.
    pub endpoints: Vec<EndpointCount>,
    /// The number of dead letters that would fail without a request, by reason.
    pub unsendable: Vec<UnsendableCount>,
    /// At most five requests: the oldest for each endpoint first, then others. Values of headers are masked below
    /// `editor`.
    pub sample: Vec<SampleRequest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointCount {
    /// Scheme, host and port.
    pub endpoint: String,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnsendableCount {
    pub reason: DeadLetterReason,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleRequest {
    pub dead_letter_id: DeadLetterId,
    #[serde(flatten)]
    pub request: RequestPreview,
}

impl<'de> Deserialize<'de> for SampleRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Own {
            dead_letter_id: DeadLetterId,
        }
        let (request, Own { dead_letter_id }) = read_twice(deserializer)?;
        Ok(Self { dead_letter_id, request })
    }
}
