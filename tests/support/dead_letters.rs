//! Dead letters and replays over the API.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use waypost_api::dead_letters::discard::DiscardResponse;
use waypost_api::dead_letters::summary::DeadLetterSummary;
use waypost_api::replays::ReplayResponse;
use waypost_core::replay::{Replay, ReplayState};

use super::reply::Reply;
use super::wait::{DEFAULT_TIMEOUT, poll_until};
use super::waypost::Waypost;

impl Waypost {
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(body)).await
    }

    /// One page of the dead letters, with `items` and `next`.
    pub(crate) async fn letter_page(&self, query: &str) -> Value {
        let reply = self.get(&with_query("/v1/dead-letters", &[query])).await;
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        reply.json()
    }

    /// All dead letters that match a query, newest first, from all pages.
    pub(crate) async fn letters(&self, query: &str) -> Vec<Value> {
        let mut letters = Vec::new();
        let mut place = String::new();
        loop {
            let mut page = self.letter_page(&with_query("", &["limit=1000", query, &place])[1..]).await;
            letters.append(page["items"].as_array_mut().expect("items"));
            match page["next"].as_str() {
                Some(cursor) => place = format!("cursor={cursor}"),
                None => return letters,
            }
        }
    }

    /// The details of a dead letter.
    pub(crate) async fn letter(&self, id: &str) -> Value {
        let reply = self.get(&format!("/v1/dead-letters/{id}")).await;
        assert_eq!(reply.status, 200, "{id}: {reply:?}");
        reply.json()
    }

    /// The summary of the dead letters that match a query.
    pub(crate) async fn summary(&self, query: &str) -> Value {
        self.summary_reply(query).await.json()
    }

    async fn summary_reply(&self, query: &str) -> Reply {
        let reply = self.get(&with_query("/v1/dead-letters/summary", &[query])).await;
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        reply
    }

    /// The number of dead letters that match a query.
    pub(crate) async fn count_letters(&self, query: &str) -> u64 {
        self.summary_reply(query).await.read::<DeadLetterSummary>().total
    }

    /// Waits until `count` dead letters match a query, and returns them.
    pub(crate) async fn wait_for_letters(&self, query: &str, count: usize) -> Vec<Value> {
        self.wait_for_letter_count(query, count).await;
        self.letters(query).await
    }

    /// Like [`wait_for_letters`](Self::wait_for_letters), but cheaper, because it reads no letters.
    pub(crate) async fn wait_for_letter_count(&self, query: &str, count: usize) {
        let reached = async || (self.count_letters(query).await == count as u64).then_some(());
        if poll_until(DEFAULT_TIMEOUT, reached).await.is_none() {
            panic!("{count} letters do not match {query:?}: {:#}", self.summary(query).await);
        }
    }

    /// Discards dead letters and returns their number. Panics if the request is refused.
    pub(crate) async fn discard(&self, order: &Value) -> u64 {
        let reply = self.post("/v1/dead-letters/discard", order).await;
        assert_eq!(reply.status, 200, "{order}: {reply:?}");
        let DiscardResponse { discarded, more } = reply.read();
        assert!(!more, "not all letters were discarded: {order}");
        discarded
    }

    /// Creates a replay and returns its id. Panics if the request is refused.
    pub(crate) async fn create_replay(&self, order: &Value) -> String {
        let reply = self.post("/v1/replays", order).await;
        assert_eq!(reply.status, 202, "{order}: {reply:?}");
        reply.read::<ReplayResponse>().replay.id.to_string()
    }

    /// The current state of a replay.
    pub(crate) async fn replay(&self, id: &str) -> Replay {
        let reply = self.get(&format!("/v1/replays/{id}")).await;
        assert_eq!(reply.status, 200, "{id}: {reply:?}");
        reply.read::<ReplayResponse>().replay
    }

    /// Sends `pause`, `resume` or `cancel` to a replay.
    pub(crate) async fn control_replay(&self, id: &str, what: &str) -> Reply {
        self.send(Method::POST, &format!("/v1/replays/{id}/{what}"), None).await
    }

    /// Waits until a replay is in a state, and returns it.
    pub(crate) async fn wait_for_replay(&self, id: &str, state: ReplayState) -> Replay {
        self.wait_for_replay_within(DEFAULT_TIMEOUT, id, state).await
    }

    /// Like [`wait_for_replay`](Self::wait_for_replay), with a deadline. A worker that just started may not have read
    /// the replay yet.
    pub(crate) async fn wait_for_replay_within(&self, deadline: Duration, id: &str, state: ReplayState) -> Replay {
        let mut seen = None;
        let reached = async || {
            let reply = self.get(&format!("/v1/replays/{id}")).await;
            seen = Some(reply.body.clone());
            let replay = (reply.status == 200).then(|| reply.read::<ReplayResponse>().replay)?;
            (replay.state == state).then_some(replay)
        };
        match poll_until(deadline, reached).await {
            Some(replay) => replay,
            None => panic!("the replay did not become {}: {seen:?}", state.as_str()),
        }
    }

    /// Waits until `waypost_dead_letters` has these values by state, and 0 for all other states.
    pub(crate) async fn wait_for_state_counts(&self, numbers: &[(&str, u32)]) {
        let mut seen = Vec::new();
        let reached = async || {
            let metrics = self.metrics().await;
            seen.clear();
            for state in ["pending", "replaying", "replayed", "discarded"] {
                let number = metrics.get(&format!("waypost_dead_letters{{state=\"{state}\"}}"));
                seen.push((state, number.copied().unwrap_or_default()));
            }
            let wanted =
                |state: &str| numbers.iter().find(|(named, _)| *named == state).map_or(0, |(_, number)| *number);
            seen.iter().all(|(state, number)| *number == f64::from(wanted(state))).then_some(())
        };
        assert!(
            poll_until(DEFAULT_TIMEOUT, reached).await.is_some(),
            "waypost_dead_letters is {seen:?} and not {numbers:?}"
        );
    }
}

/// The ids of letters or replays, in order.
pub(crate) fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| text_field(item, "id").to_owned()).collect()
}

/// Panics if the field is not text.
#[track_caller]
pub(crate) fn text_field<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or_else(|| panic!("no text {field} in {item:#}"))
}

/// The value of a header of a request that the API shows. Ignores the case of the name.
pub(crate) fn header_value<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let headers = request["headers"].as_object().unwrap_or_else(|| panic!("no headers in {request:#}"));
    headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
}

/// Appends the non-empty parts as a query.
fn with_query(path: &str, parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { path.to_owned() } else { format!("{path}?{}", parts.join("&")) }
}
