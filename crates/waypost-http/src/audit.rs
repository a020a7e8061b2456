//! The audit: a log line for each request that could change something, including refused requests.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use waypost_core::dead_letter::selection::Selection;
use waypost_core::replay::Replay;
use waypost_engine::dead_letters::DiscardOutcome;

use crate::principal::Principal;

/// The longest path that a line shows, so that a caller without a token can't flood the log.
const MAX_PATH_CHARS: usize = 400;

/// Writes its line when it is dropped. So there is a line even if the client disconnects before the response, when it
/// is unknown whether the change was made.
pub(super) struct AuditEntry {
    /// Method and path, such as `PUT /v1/campaigns/13010`.
    what: String,
    principal: Option<Principal>,
    status: Option<StatusCode>,
    about: Option<AuditDetail>,
}

/// Details of a request that its path does not show. A handler adds them to its response's extensions.
#[derive(Debug, Clone)]
pub(super) struct AuditDetail(pub(super) String);

impl AuditDetail {
    /// A replay that was created for selected dead letters.
    pub(super) fn created_replay(replay: &Replay, selection: &Selection) -> Self {
        Self(format!("{}: {} dead letters selected {}", replay.id, replay.total, describe(selection)))
    }

    /// A discard of selected dead letters.
    pub(super) fn discarded(outcome: DiscardOutcome, selection: &Selection, because: Option<&str>) -> Self {
        let because = because.unwrap_or("no reason given");
        Self(format!("{} dead letters selected {}: {because}", outcome.letters, describe(selection)))
    }

    /// A dry run for `letters` dead letters.
    pub(super) fn dry_run(letters: u64, selection: &Selection) -> Self {
        Self(format!("nothing: a dry run, for {letters} dead letters selected {}", describe(selection)))
    }
}

fn describe(selection: &Selection) -> String {
    match selection {
        Selection::Ids(ids) => format!("by {} ids", ids.len()),
        // A phone number must not be in the log.
        Selection::Filter(filter) => format!("by {}", serde_json::to_string(&filter.masked()).unwrap_or_default()),
    }
}

impl AuditEntry {
    pub(super) fn new(method: &Method, path: &str, principal: Option<&Principal>) -> Self {
        let path: String = path.chars().take(MAX_PATH_CHARS).collect();
        Self { what: format!("{method} {path}"), principal: principal.cloned(), status: None, about: None }
    }

    pub(super) fn finish(mut self, response: &Response) {
        self.status = Some(response.status());
        self.about = response.extensions().get().cloned();
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let (who, role) = self.principal.as_ref().map(|principal| (&*principal.name, principal.role.as_str())).unzip();
        let (what, status) = (&self.what, self.status.map(|status| status.as_u16()));
        let about = self.about.as_ref().map(|AuditDetail(about)| about);
        tracing::info!(target: "waypost::audit", who, role, what, status, about, "audit");
    }
}
