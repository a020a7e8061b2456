//! A place in a stream.

use serde::{Deserialize, Serialize};

/// A position in a stream. The message id shows whether it is still the same stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamPosition {
    pub offset: u64,
    /// The id of the message at the offset.
    pub message_id: String,
}
