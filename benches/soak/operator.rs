//! An operator: edits a campaign each second, and replays and discards dead letters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::Waypost;

const EDIT_INTERVAL: Duration = Duration::from_secs(1);

/// One of this number of edits is followed by a command for dead letters.
const EDITS_PER_COMMAND: u64 = 10;

/// One of this number of commands discards letters. The others replay letters.
const COMMANDS_PER_DISCARD: u64 = 4;

const LETTERS_PER_COMMAND: usize = 200;

/// The number of an operator's actions, by kind.
#[derive(Debug, Default)]
pub(crate) struct OperatorCounts {
    pub(crate) edits: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) discards: AtomicU64,
    /// For example because the letters expired in the meantime.
    pub(crate) refused: AtomicU64,
}

impl OperatorCounts {
    pub(crate) fn edits(&self) -> u64 {
        self.edits.load(Ordering::Relaxed)
    }
}

/// Gives commands until a time.
pub(crate) async fn operate(waypost: &Waypost, campaigns: &[Value], counts: &OperatorCounts, until: Instant) {
    let mut interval = tokio::time::interval(EDIT_INTERVAL);
    for number in 1_u64.. {
        interval.tick().await;
        if Instant::now() >= until {
            return;
        }
        let mut campaign = campaigns[usize::try_from(number).unwrap_or_default() % campaigns.len()].clone();
        campaign["name"] = Value::from(format!("Edition {number}"));
        waypost.put_campaign(&campaign).await;
        counts.edits.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(EDITS_PER_COMMAND) {
            change_letters(waypost, counts, number / EDITS_PER_COMMAND).await;
        }
    }
}

async fn change_letters(waypost: &Waypost, counts: &OperatorCounts, command: u64) {
    let page = waypost.get(&format!("/v1/dead-letters?state=pending&limit={LETTERS_PER_COMMAND}")).await.json();
    let items = page["items"].as_array().cloned().unwrap_or_default();
    let ids: Vec<&str> = items.iter().filter_map(|letter| letter["id"].as_str()).collect();
    if ids.is_empty() {
        return;
    }
    let (path, body, count) = if command.is_multiple_of(COMMANDS_PER_DISCARD) {
        ("/v1/dead-letters/discard", json!({ "ids": ids, "because": "the customer has left" }), &counts.discards)
    } else {
        ("/v1/replays", json!({ "ids": ids }), &counts.replays)
    };
    let reply = waypost.send(Method::POST, path, Some(&body)).await;
    let is_accepted = (200..300).contains(&reply.status);
    if is_accepted { count } else { &counts.refused }.fetch_add(1, Ordering::Relaxed);
}
