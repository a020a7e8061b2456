//! The final view of each worker: campaigns, dead letters and replays.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::load::{ExpectedDelivery, WEBHOOK_PATHS, WebhookKind, campaign_id, event_number, revision_of};
use super::setup::ChaosSetup;
use crate::support::Waypost;
use crate::support::wait::poll_until;

/// The views of all workers converge within this time.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// What one worker shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WorkerView {
    /// The version and edition of each receiver's campaign. The edition is `None` if its two places differ.
    pub(crate) campaigns: Vec<(u64, Option<u64>)>,
    /// By id.
    pub(crate) letters: BTreeMap<String, LetterState>,
    /// The states of all replays, by id.
    pub(crate) replays: BTreeMap<String, String>,
}

/// A dead letter as a worker shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LetterState {
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) event: Option<u64>,
    /// `None` if the letter has no delivery.
    pub(crate) webhook: Option<WebhookKind>,
}

impl LetterState {
    /// The delivery of the letter.
    pub(crate) fn delivery(&self) -> Option<ExpectedDelivery> {
        Some(ExpectedDelivery { event: self.event?, webhook: self.webhook? })
    }
}

impl WorkerView {
    /// Returns whether no replay is running.
    fn is_idle(&self) -> bool {
        self.replays.values().all(|state| state != "running")
            && self.letters.values().all(|letter| letter.state != "replaying")
    }
}

/// Reads the views once they are equal and idle, and `is_complete` holds. After the timeout, reads them as they are.
pub(crate) async fn read_when_equal(
    setup: &ChaosSetup,
    is_complete: impl Fn(&[WorkerView]) -> bool,
) -> Vec<WorkerView> {
    let mut views = Vec::new();
    let equal = async || {
        let read = join_all(setup.workers.iter().map(|worker| read_view(setup, worker))).await;
        // Tries again if a worker does not answer.
        views = read.into_iter().collect::<Option<Vec<WorkerView>>>()?;
        let is_equal = views.iter().all(|view| *view == views[0]);
        (is_equal && views[0].is_idle() && is_complete(&views)).then_some(())
    };
    let _ = poll_until(CONVERGENCE_TIMEOUT, equal).await;
    views
}

async fn read_view(setup: &ChaosSetup, worker: &Waypost) -> Option<WorkerView> {
    let mut campaigns = Vec::new();
    for receiver in 0..setup.receivers.len() {
        let reply = worker.get(&format!("/v1/campaigns/{}", campaign_id(receiver))).await;
        let version = reply.headers.get("etag")?.trim_matches('"').parse().ok()?;
        campaigns.push((version, revision_of(&reply.json())));
    }
    let letters = all_items(worker, "/v1/dead-letters").await?;
    let replays = all_items(worker, "/v1/replays").await?;
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    Some(WorkerView {
        campaigns,
        letters: letters.iter().map(|letter| (text(letter, "id"), letter_state(letter))).collect(),
        replays: replays.iter().map(|replay| (text(replay, "id"), text(replay, "state"))).collect(),
    })
}

/// All items of a list. `None` if a page is refused.
async fn all_items(worker: &Waypost, path: &str) -> Option<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = worker.get(&format!("{path}?limit=1000{cursor}")).await;
        if reply.status != 200 {
            return None;
        }
        let mut page = reply.json();
        items.append(page["items"].as_array_mut()?);
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(items),
        }
    }
}

fn letter_state(letter: &Value) -> LetterState {
    let text = |field: &str| letter[field].as_str().unwrap_or_default().to_owned();
    let hook = letter["url"].as_str().and_then(|url| WEBHOOK_PATHS.iter().find(|(path, _)| url.ends_with(path)));
    let event = letter["eventId"].as_str().and_then(|id| id.rsplit_once('-')?.1.parse().ok());
    let event = event.or_else(|| event_number(&letter.to_string()));
    LetterState { state: text("state"), reason: text("reason"), event, webhook: hook.map(|(_, hook)| *hook) }
}
