//! What most tests begin with: a worker on the shared broker, a receiver, and the campaign of the seed document.

use serde_json::{Value, json};

use crate::support::{Amqp, Broker, Receiver, Waypost, unique};

/// Retries that are over in seconds; the delay ladder knows no shorter step than one.
pub(crate) const QUICK: [(&str, &str); 3] =
    [("WAYPOST_RETRY__INITIAL_DELAY", "1s"), ("WAYPOST_RETRY__MULTIPLIER", "1"), ("WAYPOST_RETRY__JITTER", "0")];

/// A worker, a receiver and an outside party.
pub(crate) struct Stage {
    pub(crate) prefix: String,
    pub(crate) waypost: Waypost,
    pub(crate) receiver: Receiver,
    pub(crate) amqp: Amqp,
}

impl Stage {
    /// On the shared broker, with the campaign in place.
    pub(crate) async fn set(name: &str, more: &[(&str, &str)]) -> Self {
        let broker = Broker::shared().await;
        Self::set_on(&broker.url(), name, more).await
    }

    /// On a broker of the test's own.
    pub(crate) async fn set_on(url: &str, name: &str, more: &[(&str, &str)]) -> Self {
        let prefix = unique(name);
        let environment: Vec<(&str, &str)> = QUICK.into_iter().chain(more.iter().copied()).collect();
        let waypost = Waypost::start_with(url, &prefix, &environment).await;
        let receiver = Receiver::start();
        waypost.put_campaign(&campaign(&receiver)).await;
        let amqp = Amqp::connect(url).await;
        Self { prefix, waypost, receiver, amqp }
    }

    pub(crate) async fn publish(&self, event: &Value) {
        self.amqp.publish_event(&self.prefix, event).await;
    }

    /// The dead letters, once there are `count` of them.
    pub(crate) async fn dead_letters(&self, count: usize) -> Vec<Value> {
        let stream = format!("{}.dead-letters", self.prefix);
        let records = self.amqp.read_stream(&stream, |records| records.len() >= count).await;
        records.iter().map(crate::support::amqp::Record::json).collect()
    }
}

/// The campaign of the seed document, with its webhooks at the receiver's `/agent`, `/offers`, `/survey` and `/name`.
pub(crate) fn campaign(receiver: &Receiver) -> Value {
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

/// An event of the Welcome Message.
pub(crate) fn chose(keyword: impl Into<Value>, event_id: &str) -> Value {
    json!({ "campaignId": "13010", "label": "Welcome Message", "phoneNumber": "+15550001",
            "date": "2024-06-18T20:26:14.206-03:00", "response": "hello", "keyword": keyword.into(), "eventId": event_id })
}

/// `count` events of the Welcome Message, each with an identity of its own.
pub(crate) fn many(count: usize, keyword: u32) -> Vec<Value> {
    (0..count).map(|number| chose(keyword, &format!("event-{number}"))).collect()
}
