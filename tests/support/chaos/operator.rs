//! An operator, who changes campaigns, replays dead letters and discards some while everything else goes wrong, and writes down what the
//! workers said.

use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::books::Order;
use super::chance::Chance;
use super::load::campaign_id;
use super::scene::Scene;

/// Between two orders.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// A worker answers within 10 s, if only that it does not know.
const TIMEOUT: Duration = Duration::from_secs(12);

/// Letters in one replay, at most.
const LETTERS: usize = 20;

/// Which part of the drill's chance is the operator's: no lane has this number.
const PART: u64 = 1_000;

pub(crate) struct Operator<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) until: Duration,
    chance: Chance,
    client: Client,
    edition: u64,
}

impl<'a> Operator<'a> {
    pub(crate) fn new(scene: &'a Scene, seed: u64, until: Duration) -> Self {
        // A worker in a proxy's shadow may hang: no answer is one, too.
        let client = Client::builder().no_proxy().timeout(TIMEOUT).build().expect("an HTTP client");
        Self { scene, until, chance: Chance::of(seed, PART), client, edition: 0 }
    }

    /// Gives one order after the other, each to any worker.
    pub(crate) async fn run(mut self) {
        let books = &self.scene.books;
        while books.now() < self.until {
            sleep(self.chance.between(PAUSE.0, PAUSE.1)).await;
            let worker = self.chance.below(self.scene.workers.len());
            let order = match self.chance.below(3) {
                0 => self.configure(worker).await,
                1 => self.replay(worker).await,
                _ => self.discard(worker).await,
            };
            books.pages().orders.extend(order);
        }
    }

    /// Changes a campaign, on top of the version that the worker has.
    async fn configure(&mut self, worker: usize) -> Option<Order> {
        let receiver = self.chance.below(self.scene.endpoints.len());
        let url = self.url(worker, &format!("/v1/campaigns/{}", campaign_id(receiver)));
        let version = answer(self.client.get(&url)).await?.version?;
        self.edition += 1;
        let edition = self.edition;
        let campaign = self.scene.endpoints[receiver].campaign(receiver, edition);
        let change = self.client.put(&url).header("if-match", format!("\"{version}\"")).json(&campaign);
        match answer(change).await {
            // The worker had an older version than there is: nothing was changed.
            Some(Answer { status: 412, .. }) => None,
            Some(Answer { status: 200, version, .. }) => Some(Order::Configure { receiver, edition, version }),
            _ => Some(Order::Configure { receiver, edition, version: None }),
        }
    }

    async fn replay(&mut self, worker: usize) -> Option<Order> {
        let mut letters = self.pending(worker).await?;
        letters.truncate(1 + self.chance.below(LETTERS));
        let order = self.client.post(self.url(worker, "/v1/replays")).json(&json!({ "ids": letters }));
        match answer(order).await {
            Some(Answer { status: 202, body, .. }) => {
                Some(Order::Replay { letters, id: Some(body["id"].as_str()?.to_owned()) })
            }
            Some(Answer { status: 400..=499, .. }) => None,
            _ => Some(Order::Replay { letters, id: None }),
        }
    }

    async fn discard(&mut self, worker: usize) -> Option<Order> {
        let letters = self.pending(worker).await?;
        let letter = letters[self.chance.below(letters.len())].clone();
        let order = json!({ "ids": [letter], "because": "the customer has left" });
        match answer(self.client.post(self.url(worker, "/v1/dead-letters/discard")).json(&order)).await {
            // None, if somebody has claimed it meanwhile.
            Some(Answer { status: 200, body, .. }) => {
                (body["discarded"] == 1).then_some(Order::Discard { letter, confirmed: true })
            }
            Some(Answer { status: 400..=499, .. }) => None,
            _ => Some(Order::Discard { letter, confirmed: false }),
        }
    }

    /// Letters that nobody has dealt with, as a worker has them; `None` if there is none. Those that could not be read stay as they are:
    /// sent again they would only die again.
    async fn pending(&mut self, worker: usize) -> Option<Vec<String>> {
        // Most are of a receiver that was gone for a while.
        let reason = if self.chance.below(4) > 0 { "gone" } else { "exhausted" };
        let url = self.url(worker, &format!("/v1/dead-letters?state=pending&limit=100&reason={reason}"));
        let page = answer(self.client.get(&url)).await?;
        let ids = page.body["items"].as_array()?.iter().filter_map(|letter| letter["id"].as_str());
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        self.chance.shuffle(&mut ids);
        (!ids.is_empty()).then_some(ids)
    }

    fn url(&self, worker: usize, path: &str) -> String {
        self.scene.workers[worker].url(path)
    }
}

struct Answer {
    status: u16,
    /// Of the campaign that it is about.
    version: Option<u64>,
    body: Value,
}

/// `None` if no answer came.
async fn answer(request: RequestBuilder) -> Option<Answer> {
    let reply = request.send().await.ok()?;
    let status = reply.status().as_u16();
    let version = reply.headers().get("etag").and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
    Some(Answer { status, version, body: reply.json().await.unwrap_or_default() })
}
