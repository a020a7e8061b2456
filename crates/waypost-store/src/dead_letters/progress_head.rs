//! The beginning of a stored replay, for scans of many replays.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::ids::ReplayId;
use waypost_core::replay::ReplayState;
use waypost_core::timestamp;

/// A [`ReplayProgress`](waypost_core::replay::ReplayProgress) without the letter ids, which can be many.
#[derive(Deserialize)]
pub(super) struct ProgressHead {
    pub(super) replay: ReplayHead,
    pub(super) left: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayHead {
    pub(super) id: ReplayId,
    pub(super) state: ReplayState,
    #[serde(default)]
    pub(super) filter: Option<LetterFilter>,
    #[serde(with = "timestamp::optional", default)]
    pub(super) ended_at: Option<DateTime<Utc>>,
}
