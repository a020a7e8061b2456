//! An operator who changes campaigns, replays dead letters and discards some during the drill, and records the workers'
//! answers.

use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::ledger::OperatorCommand;
use super::load::campaign_id;
use super::rng::Rng;
use super::setup::ChaosSetup;

/// The pause between two commands.
const COMMAND_INTERVAL_RANGE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// A worker answers within 10 s, even if it does not know the result.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

const MAX_LETTERS_PER_REPLAY: usize = 20;

/// The operator's own sequence of random numbers. No lane uses this number.
const RNG_PART: u64 = 1_000;

pub(crate) struct Operator<'a> {
    pub(crate) setup: &'a ChaosSetup,
    pub(crate) until: Duration,
    rng: Rng,
    client: Client,
    revision: u64,
}

impl<'a> Operator<'a> {
    pub(crate) fn new(setup: &'a ChaosSetup, seed: u64, until: Duration) -> Self {
        // A worker behind a stalled proxy may hang. Then the result is unknown.
        let client = Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build().expect("an HTTP client");
        Self { setup, until, rng: Rng::for_part(seed, RNG_PART), client, revision: 0 }
    }

    /// Sends commands one after the other, each to a random worker.
    pub(crate) async fn run(mut self) {
        let ledger = &self.setup.ledger;
        while ledger.elapsed() < self.until {
            sleep(self.rng.between(COMMAND_INTERVAL_RANGE.0, COMMAND_INTERVAL_RANGE.1)).await;
            let worker = self.rng.below(self.setup.workers.len());
            let order = match self.rng.below(3) {
                0 => self.update_campaign(worker).await,
                1 => self.replay(worker).await,
                _ => self.discard(worker).await,
            };
            ledger.lock_entries().commands.extend(order);
        }
    }

    /// Changes the version of a campaign that the worker has.
    async fn update_campaign(&mut self, worker: usize) -> Option<OperatorCommand> {
        let receiver = self.rng.below(self.setup.receivers.len());
        let url = self.url(worker, &format!("/v1/campaigns/{}", campaign_id(receiver)));
        let version = send(self.client.get(&url)).await?.version?;
        self.revision += 1;
        let edition = self.revision;
        let campaign = self.setup.receivers[receiver].campaign(receiver, edition);
        let change = self.client.put(&url).header("if-match", format!("\"{version}\"")).json(&campaign);
        match send(change).await {
            // The worker had an outdated version, so nothing changed.
            Some(HttpAnswer { status: 412, .. }) => None,
            Some(HttpAnswer { status: 200, version, .. }) => {
                Some(OperatorCommand::UpdateCampaign { receiver, edition, version })
            }
            _ => Some(OperatorCommand::UpdateCampaign { receiver, edition, version: None }),
        }
    }

    async fn replay(&mut self, worker: usize) -> Option<OperatorCommand> {
        let mut letters = self.pending_letters(worker).await?;
        letters.truncate(1 + self.rng.below(MAX_LETTERS_PER_REPLAY));
        let order = self.client.post(self.url(worker, "/v1/replays")).json(&json!({ "ids": letters }));
        match send(order).await {
            Some(HttpAnswer { status: 202, body, .. }) => {
                Some(OperatorCommand::Replay { letters, id: Some(body["id"].as_str()?.to_owned()) })
            }
            Some(HttpAnswer { status: 400..=499, .. }) => None,
            _ => Some(OperatorCommand::Replay { letters, id: None }),
        }
    }

    async fn discard(&mut self, worker: usize) -> Option<OperatorCommand> {
        let letters = self.pending_letters(worker).await?;
        let letter = letters[self.rng.below(letters.len())].clone();
        let order = json!({ "ids": [letter], "because": "the customer has left" });
        match send(self.client.post(self.url(worker, "/v1/dead-letters/discard")).json(&order)).await {
            // `None` if another command claimed the letter first.
            Some(HttpAnswer { status: 200, body, .. }) => {
                (body["discarded"] == 1).then_some(OperatorCommand::Discard { letter, confirmed: true })
            }
            Some(HttpAnswer { status: 400..=499, .. }) => None,
            _ => Some(OperatorCommand::Discard { letter, confirmed: false }),
        }
    }

    /// Pending letters that a worker lists; `None` if there are none. Excludes malformed events, because replaying them
    /// fails again.
    async fn pending_letters(&mut self, worker: usize) -> Option<Vec<String>> {
        // Most letters belong to a receiver that answered 410 for a while.
        let reason = if self.rng.below(4) > 0 { "gone" } else { "exhausted" };
        let url = self.url(worker, &format!("/v1/dead-letters?state=pending&limit=100&reason={reason}"));
        let page = send(self.client.get(&url)).await?;
        let ids = page.body["items"].as_array()?.iter().filter_map(|letter| letter["id"].as_str());
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        self.rng.shuffle(&mut ids);
        (!ids.is_empty()).then_some(ids)
    }

    fn url(&self, worker: usize, path: &str) -> String {
        self.setup.workers[worker].url(path)
    }
}

struct HttpAnswer {
    status: u16,
    /// The version of the campaign.
    version: Option<u64>,
    body: Value,
}

/// `None` if no answer came.
async fn send(request: RequestBuilder) -> Option<HttpAnswer> {
    let reply = request.send().await.ok()?;
    let status = reply.status().as_u16();
    let version = reply.headers().get("etag").and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
    Some(HttpAnswer { status, version, body: reply.json().await.unwrap_or_default() })
}
