//! The load: campaigns like those of the documentation, each with a webhook at its own endpoint, and events that fire
//! it.

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::HumanCount;
use serde_json::{Map, Value, json};
use waypost_core::campaign::Target;
use waypost_core::document;
use waypost_core::egress::HttpUrls;
use waypost_core::outcome::Cause;
use waypost_core::{Attempt, Delivery, event, resolve, timestamp};

use super::receiver::{EndpointBehavior, Transport, WAITING};

/// One of this number of events goes to a hanging endpoint, if there are any.
const HANGING_EVERY: u64 = 10;

/// The number of endpoints, and how many of them hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) healthy: usize,
    pub(crate) hanging: usize,
    pub(crate) transport: Transport,
}

impl Scenario {
    /// `1,000 endpoints, 10 % hanging`: the percentage of events that go to hanging endpoints.
    pub(crate) fn name(self) -> String {
        let hang = if self.hanging == 0 { "" } else { ", 10 % hanging" };
        let tls = if self.transport == Transport::Plain { "" } else { ", TLS" };
        match self.healthy + self.hanging {
            1 | 2 => format!("1 endpoint{hang}{tls}"),
            more => format!("{} endpoints{hang}{tls}", HumanCount(more as u64)),
        }
    }

    /// Returns whether this scenario equals `other` except that some endpoints, or an additional one, hang.
    pub(crate) fn with_hanging_of(self, other: Self) -> bool {
        self.hanging > 0
            && other.hanging == 0
            && self.transport == other.transport
            && (self.healthy == other.healthy || self.healthy + self.hanging == other.healthy)
    }

    /// The endpoints, the healthy ones first.
    pub(crate) fn behaviors(self) -> Vec<EndpointBehavior> {
        let healthy = std::iter::repeat_n(EndpointBehavior::Healthy, self.healthy);
        healthy.chain(std::iter::repeat_n(EndpointBehavior::Hanging, self.hanging)).collect()
    }

    /// The endpoint of an event.
    fn endpoint_of(self, event: u64) -> usize {
        let (healthy, hanging) = (self.healthy as u64, self.hanging as u64);
        let endpoint = match hanging {
            0 => event % healthy,
            _ if event % HANGING_EVERY == HANGING_EVERY - 1 => healthy + event / HANGING_EVERY % hanging,
            _ => (event - event / HANGING_EVERY) % healthy,
        };
        usize::try_from(endpoint).expect("endpoints fit into memory")
    }

    /// The number of the first `events` events that go to healthy endpoints.
    pub(crate) fn healthy_among(self, events: u64) -> u64 {
        if self.hanging == 0 { events } else { events - events / HANGING_EVERY }
    }
}

/// The campaigns, one for each endpoint.
pub(crate) struct Load {
    scenario: Scenario,
    urls: Vec<String>,
    /// The webhook of each campaign.
    targets: Vec<Target>,
}

/// A step event in its published form.
pub(crate) struct Published {
    /// The routing key: the campaign's id.
    pub(crate) key: String,
    pub(crate) body: Vec<u8>,
}

impl Load {
    /// Creates campaigns for endpoints at these URLs.
    pub(crate) fn new(scenario: Scenario, urls: &[String]) -> Self {
        let targets = urls.iter().enumerate().map(|(number, url)| target(number, url)).collect();
        Self { scenario, urls: urls.to_vec(), targets }
    }

    pub(crate) fn campaigns(&self) -> impl Iterator<Item = Value> + '_ {
        self.urls.iter().enumerate().map(|(number, url)| campaign(number, url))
    }

    /// The webhooks by campaign, for the workers of `benches/peers`.
    pub(crate) fn webhooks(&self) -> Map<String, Value> {
        self.urls.iter().enumerate().map(|(number, url)| (campaign_id(number), webhook(url))).collect()
    }

    /// An event. Its `response` contains the event's number and a stamp for the receiver.
    pub(crate) fn event(&self, number: u64, stamp: u64) -> Published {
        let key = campaign_id(self.scenario.endpoint_of(number));
        let date = timestamp::text(&Utc::now());
        // Formatted as text, because at half load the publisher shares the processor with the worker.
        let body = format!(
            r#"{{"campaignId":"{key}","label":"Welcome Message","phoneNumber":"+1555{number:07}","date":"{date}","response":"{number} {stamp}","option":"Offers","keyword":4,"eventId":"event-{number}-{stamp}"}}"#
        );
        Published { key, body: body.into_bytes() }
    }

    /// A delivery in the form in which it waits: its last attempt was answered with 503, and it is due at a time.
    /// `attempts` of 0 means that it was parked before its first attempt.
    pub(crate) fn waiting(&self, number: u64, endpoint: usize, attempts: u32, due: DateTime<Utc>) -> Vec<u8> {
        let (id, began) = (campaign_id(endpoint), Utc::now() - TimeDelta::seconds(60));
        let event = json!({
            "campaignId": id, "label": "Welcome Message", "phoneNumber": format!("+1556{number:07}"),
            "date": timestamp::text(&began), "response": format!("{WAITING} {number}"),
            "option": "Offers", "keyword": 4, "eventId": format!("waiting-{number}"),
        });
        let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
        let mut delivery = Delivery::new(event, self.targets[endpoint].clone(), None);
        for attempt in 0..attempts {
            delivery.record(Attempt {
                at: began + TimeDelta::seconds(i64::from(attempt)),
                duration_ms: 3,
                status: Some(503),
                cause: Cause::Status5xx,
                error: None,
                answer: Some("maintenance".to_owned()),
            });
        }
        if attempts == 0 {
            delivery.parked_at = Some(began);
        }
        delivery.wait_until(due);
        serde_json::to_vec(&delivery).expect("a delivery is JSON")
    }
}

/// The webhook that the events of a campaign fire.
fn target(number: usize, url: &str) -> Target {
    let document = campaign(number, url).to_string();
    let campaign = document::read(document.as_bytes(), HttpUrls::Allowed, None).expect("a campaign");
    let event = json!({
        "campaignId": campaign_id(number), "label": "Welcome Message", "phoneNumber": "+15550000000",
        "date": "2024-06-18T23:26:14Z", "option": "Offers", "keyword": 4, "eventId": "event",
    });
    let event = event::decode(event.to_string().as_bytes(), None).expect("an event");
    resolve::resolve(&campaign, &event).remove(0)
}

fn campaign_id(number: usize) -> String {
    (13_000 + number).to_string()
}

fn webhook(url: &str) -> Value {
    json!({ "url": url, "body": { "source": "chatbot" }, "headers": { "X-Api-Key": "the-key-of-the-customer" } })
}

fn campaign(number: usize, url: &str) -> Value {
    let leads_to = |label: &str| json!({ "type": "interaction", "to": label });
    json!({ "id": campaign_id(number), "name": "Streaming membership", "sections": [
        { "label": "Welcome Message", "kind": "welcomeMessage", "message": "Choose an option", "menu": [
            { "keyword": 1, "option": "Plans", "redirect": leads_to("Plans") },
            { "keyword": 2, "option": "Raffle", "redirect": { "type": "campaign", "to": "raffle-giveaway" } },
            { "keyword": 3, "option": "Agent", "redirect": leads_to("Plans") },
            { "keyword": 4, "option": "Offers", "redirect": leads_to("Offers"), "webhook": webhook(url) },
            { "keyword": 5, "option": "Survey", "redirect": { "type": "campaign", "to": "web-polls" } } ] },
        { "label": "Plans", "message": "1. One month  2. Six months  3. One year" },
        { "label": "Offers", "message": "Your name?" } ] })
}
