//! The audit: a line of the log for each request that could change something, also for one that was refused.

use axum::http::{Method, StatusCode};
use axum::response::Response;

use super::principal::Principal;
use crate::delivery::dead_letter::selection::Selection;

/// The most of an address that a line shows: whoever has no token can't flood the log with long ones.
const MAX_PATH_CHARS: usize = 400;

/// A line that is yet to be written. It is when it is dropped: so also where the caller goes away before the answer,
/// and nobody can tell any more whether the change was made.
pub(super) struct AuditEntry {
    /// `PUT /v1/campaigns/13010`
    what: String,
    caller: Option<Principal>,
    status: Option<StatusCode>,
    about: Option<AuditDetail>,
}

/// What a request was about, where its address does not say it. A handler puts it into its response's extensions.
#[derive(Debug, Clone)]
pub(super) struct AuditDetail(pub(super) String);

/// Which dead letters were chosen, for [`AuditDetail`].
pub(super) fn chosen(choice: &Selection) -> String {
    match choice {
        Selection::Ids(ids) => format!("by {} ids", ids.len()),
        // A log is not the place for a phone number.
        Selection::Filter(filter) => format!("by {}", serde_json::to_string(&filter.masked()).unwrap_or_default()),
    }
}

impl AuditEntry {
    pub(super) fn new(method: &Method, path: &str, caller: Option<&Principal>) -> Self {
        let path: String = path.chars().take(MAX_PATH_CHARS).collect();
        Self { what: format!("{method} {path}"), caller: caller.cloned(), status: None, about: None }
    }

    /// Writes the line.
    pub(super) fn answered(mut self, response: &Response) {
        self.status = Some(response.status());
        self.about = response.extensions().get().cloned();
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let (who, role) = self.caller.as_ref().map(|caller| (&*caller.name, caller.role.as_str())).unzip();
        let (what, status) = (&self.what, self.status.map(|status| status.as_u16()));
        let about = self.about.as_ref().map(|AuditDetail(about)| about);
        tracing::info!(target: "waypost::audit", who, role, what, status, about, "audit");
    }
}
