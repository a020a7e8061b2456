//! The response of a discard's dry run.

use waypost_api::dead_letters::discard::DiscardPreview;
use waypost_api::replays::EndpointCount;
use waypost_store::dead_letters::search::LetterCounts;

use super::summary::{MAX_LISTED, first_campaigns, time};
use crate::counts::by_count;

pub(super) fn to_response(counts: LetterCounts) -> DiscardPreview {
    let (campaigns, endpoints) = (by_count(counts.campaigns), by_count(counts.endpoints));
    DiscardPreview {
        total: counts.total,
        oldest: counts.span.and_then(|(oldest, _)| time(oldest)),
        newest: counts.span.and_then(|(_, newest)| time(newest)),
        more_campaigns: campaigns.len().saturating_sub(MAX_LISTED),
        campaigns: first_campaigns(campaigns),
        more_endpoints: endpoints.len().saturating_sub(MAX_LISTED),
        endpoints: endpoints
            .into_iter()
            .take(MAX_LISTED)
            .map(|(endpoint, count)| EndpointCount { endpoint, count })
            .collect(),
    }
}
