//! The setup of most tests: a worker on the shared broker, a receiver, and the documented example campaign.

mod builder;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::Digest as _;

use self::builder::TestAppBuilder;
use crate::support::amqp::Record;
use crate::support::reply::Reply;
use crate::support::waypost::RunIn;
use crate::support::{Amqp, Answer, BrokerObjects, Message, Receiver, Waypost, unique, wait_until};

/// Retries within seconds. One second is the shortest delay of the delay queues.
pub(crate) const FAST_RETRIES: [(&str, &str); 3] =
    [("WAYPOST_RETRY__INITIAL_DELAY", "1s"), ("WAYPOST_RETRY__MULTIPLIER", "1"), ("WAYPOST_RETRY__JITTER", "0")];

/// More dead letters than this are copies of one, because a delivery needs a message, a request and a record.
const MAX_DELIVERED_LETTERS: usize = 1_000;

/// For slow operations on a busy machine.
pub(crate) const SLOW_TIMEOUT: Duration = Duration::from_secs(90);

/// All roles, from the fewest permissions to the most.
pub(crate) const ROLES: [&str; 3] = ["viewer", "operator", "editor"];

/// A worker, a receiver, and an AMQP client in the role of the platform.
pub(crate) struct TestApp {
    pub(crate) prefix: String,
    pub(crate) waypost: Waypost,
    pub(crate) receiver: Receiver,
    pub(crate) amqp: Amqp,
    broker_url: String,
    variables: Vec<(String, String)>,
    place: RunIn,
    // Dropped last, after the worker. `None` on a broker of the test.
    _objects: Option<BrokerObjects>,
}

impl TestApp {
    /// Starts a worker on the shared broker, with the example campaign.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    pub(crate) fn builder() -> TestAppBuilder {
        TestAppBuilder::new()
    }

    /// Starts a second worker with the same prefix and settings, and its own store.
    pub(crate) async fn start_second_worker(&self) -> Waypost {
        builder::start_worker(self.place, &self.broker_url, &self.prefix, &self.variables).await
    }

    /// Sends a request with a role's token. An empty role sends no token.
    pub(crate) async fn send_as(&self, role: &str, method: Method, path: &str, body: Option<&Value>) -> Reply {
        self.send_as_with(role, method, path, &[], body.map(Value::to_string).unwrap_or_default()).await
    }

    /// Like [`send_as`](Self::send_as), with headers and a body of any type.
    pub(crate) async fn send_as_with(
        &self,
        role: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Reply {
        let token = bearer_token(role);
        let mut headers = headers.to_vec();
        if !role.is_empty() {
            headers.push(("authorization", &token));
        }
        self.waypost.send_exactly(method, path, &headers, body).await
    }

    pub(crate) async fn get_as(&self, role: &str, path: &str) -> Reply {
        self.send_as(role, Method::GET, path, None).await
    }

    /// Stores a campaign, and returns the reply.
    pub(crate) async fn put_campaign(&self, campaign: &Value) -> Reply {
        self.waypost.put_campaign(campaign).await
    }

    /// Stores a campaign whose URLs the app's worker refuses, with another worker that allows them. This happens when
    /// settings change.
    pub(crate) async fn put_campaign_allowed_earlier(&self, campaign: &Value) {
        let settings = [("WAYPOST_EGRESS__ALLOW", "127.0.0.0/8,10.0.0.0/8")];
        let lenient = Waypost::start_in_thread(&self.broker_url, &self.prefix, &settings).await;
        let put = lenient.put_campaign(campaign).await;
        drop(lenient);
        let path = format!("/v1/campaigns/{}", campaign["id"].as_str().expect("an id"));
        wait_until("the campaign at the worker", SLOW_TIMEOUT, async || {
            (self.waypost.get(&path).await.headers.get("etag") == put.headers.get("etag")).then_some(())
        })
        .await;
    }

    pub(crate) async fn publish(&self, event: impl Into<StepEvent>) {
        self.amqp.publish_event(&self.prefix, &event.into().json()).await;
    }

    /// Waits for `count` dead letters, and returns them.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<Value> {
        let stream = format!("{}.dead-letters", self.prefix);
        let records = self.amqp.read_stream(&stream, |records| records.len() >= count).await;
        records.iter().map(Record::json).collect()
    }

    /// Creates `count` dead letters with the reason `gone` from events with a keyword (3, 4 or 5), and waits until all
    /// are in the view. After that, the receiver answers 200 and has no recorded requests.
    pub(crate) async fn create_dead_letters(&self, keyword: u32, count: usize) {
        let path = ["/agent", "/offers", "/survey"][keyword as usize - 3];
        self.receiver.reply(path, Answer::status(410).body("gone"));
        let before = self.waypost.count_letters("").await;
        let names = unique("buried");
        let delivered = if count > MAX_DELIVERED_LETTERS { 1 } else { count };
        let events: Vec<Value> = (0..delivered)
            .map(|number| step_event().keyword(keyword).id(&format!("{names}-{number}")).json())
            .collect();
        self.amqp.publish_events(&self.prefix, &events).await;
        self.receiver.expect(path).at_least(delivered).within(SLOW_TIMEOUT).await;
        self.copy_dead_letter(&format!("{names}-0"), count - delivered).await;
        let total = before + count as u64;
        wait_until("the letters in the view", SLOW_TIMEOUT, async || {
            (self.waypost.count_letters("").await >= total).then_some(())
        })
        .await;
        self.receiver.reply(path, 200);
        self.receiver.clear_requests();
    }

    /// Appends copies of an event's dead letter to the stream, each with new ids.
    async fn copy_dead_letter(&self, event_id: &str, copies: usize) {
        let stream = format!("{}.dead-letters", self.prefix);
        let is_original = |record: &Record| record.json()["eventId"] == event_id;
        let records = self.amqp.read_stream(&stream, |records| records.iter().any(is_original)).await;
        let original =
            records.iter().map(Record::json).find(|letter| letter["eventId"] == event_id).expect("the letter");
        let copy = |number: usize| {
            let mut copy = original.clone();
            for id in ["/id", "/deliveryId", "/eventId", "/event/eventId"] {
                let id = copy.pointer_mut(id).expect("an id");
                let text = id.as_str().expect("a text");
                // The new id has the same length.
                *id = format!("{}{number:05}", &text[..text.len() - 5]).into();
            }
            Message::raw(copy.to_string())
        };
        self.amqp.publish(&stream, (0..copies).map(copy)).await;
    }

    /// Makes the broker remove an event that reached its delivery limit. No worker may run.
    pub(crate) async fn create_poison_message(&self, event: &Value) {
        let (queue, stream) = (format!("{}.events", self.prefix), format!("{}.dead-letters", self.prefix));
        self.publish(event).await;
        let dead =
            |record: &Record| record.header("x-first-death-reason").is_some_and(|reason| reason == "delivery_limit");
        let dead = self.amqp.read_stream(&stream, |records| records.iter().any(dead));
        self.amqp.requeue_until(&queue, dead).await;
    }
}

/// The `Authorization` header with a role's token.
pub(crate) fn bearer_token(role: &str) -> String {
    format!("Bearer token-of-the-{role}")
}

/// The hash of a token in `http.tokens`.
pub(crate) fn sha256_hex(token: &str) -> String {
    sha2::Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value for `http.tokens` with a token for each role, named after the role.
pub(crate) fn token_settings() -> String {
    let token =
        |role: &str| json!({ "name": role, "role": role, "sha256": sha256_hex(&format!("token-of-the-{role}")) });
    Value::from(["viewer", "operator", "editor"].map(token).to_vec()).to_string()
}

/// The documented example campaign, with webhooks at the receiver's `/agent`, `/offers`, `/survey` and `/name`.
pub(crate) fn example_campaign(receiver: &Receiver) -> Value {
    json!({ "id": "13010", "name": "Streaming membership",
      "sections": [
        { "label": "Welcome Message", "kind": "welcomeMessage", "message": "Choose an option…",
          "menu": [
            { "keyword": 1, "option": "Plans", "redirect": { "type": "interaction", "to": "Plans" } },
            { "keyword": 2, "option": "Raffle", "redirect": { "type": "campaign", "to": "raffle-giveaway" } },
            { "keyword": 3, "redirect": { "type": "webhook" }, "webhook": { "url": receiver.url("/agent") } },
            { "keyword": 4, "option": "Offers", "redirect": { "type": "interaction", "to": "Offers" },
              "webhook": { "url": receiver.url("/offers"), "enabled": true,
                           "body": { "source": "chatbot" }, "headers": { "X-Api-Key": "…" } } },
            { "keyword": 5, "option": "Survey", "redirect": { "type": "campaign", "to": "web-polls" },
              "webhook": { "url": receiver.url("/survey") } } ] },
        { "label": "Plans", "kind": "interaction", "message": "1. One month  2. Six months  3. One year" },
        { "label": "Offers", "kind": "interaction", "message": "Your name?",
          "redirect": { "type": "webhook" }, "webhook": { "url": receiver.url("/name") } } ] })
}

/// A step event of the Welcome Message of [`example_campaign`]. Its id is unique, and no menu entry has its keyword.
pub(crate) fn step_event() -> StepEvent {
    StepEvent(json!({ "campaignId": "13010", "label": "Welcome Message", "phoneNumber": "+15550001",
            "date": "2024-06-18T20:26:14.206-03:00", "response": "hello", "keyword": 0, "eventId": unique("event") }))
}

/// A step event to publish.
pub(crate) struct StepEvent(Value);

impl StepEvent {
    pub(crate) fn keyword(mut self, keyword: impl Into<Value>) -> Self {
        self.0["keyword"] = keyword.into();
        self
    }

    pub(crate) fn id(mut self, id: &str) -> Self {
        self.0["eventId"] = id.into();
        self
    }

    pub(crate) fn json(self) -> Value {
        self.0
    }
}

impl From<&Value> for StepEvent {
    fn from(event: &Value) -> Self {
        Self(event.clone())
    }
}

/// `count` events of the Welcome Message with different ids.
pub(crate) fn events_with_keyword(count: usize, keyword: u32) -> Vec<Value> {
    (0..count).map(|number| step_event().keyword(keyword).id(&format!("event-{number}")).json()).collect()
}
