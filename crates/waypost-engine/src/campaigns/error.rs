//! Why campaigns can't be read or changed.

use waypost_broker::stream_writer::AppendError;
use waypost_core::violation::Violation;
use waypost_store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    #[error("the document has {} errors", .0.len())]
    Invalid(Vec<Violation>),
    #[error("no such campaign")]
    NotFound,
    /// The campaign does not have the version, or the state, that the change requires.
    #[error("the campaign has changed since you read it: read it again, then repeat your change")]
    Precondition,
    /// The state of this worker or of the stream does not allow the operation.
    #[error("{0}")]
    Conflict(String),
    /// The stream could not be written or read in time.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for CampaignError {
    fn from(error: AppendError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl CampaignError {
    /// Another campaign, `owner`, has the webhook id. `path` is that of the webhook.
    pub(super) fn webhook_id_taken(path: &str, webhook_id: &str, owner: &str) -> Self {
        let message = format!(
            "`{webhook_id}` is the id of a webhook of campaign `{owner}`: leave `id` out, and Waypost assigns a new one"
        );
        Self::Invalid(vec![Violation::new(format!("{path}.id"), message)])
    }
}
