//! The answer to a published event. The request is a step event, sent unchanged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use waypost_core::ids::EventId;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Accepted")]
pub struct PublishedEvent {
    /// The event's identity.
    pub event_id: EventId,
}
