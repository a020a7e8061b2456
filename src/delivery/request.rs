//! The request a receiver gets, byte for byte: key order, date form, headers.

use chrono::{DateTime, Utc};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::campaign::{Target, Webhook, WebhookKind};
use super::event::StepEvent;
use super::{Delivery, timestamp};

/// The parameters every body has; a webhook's extra parameters can't use their names.
pub const STANDARD_PARAMETERS: [&str; 7] = [
    "campaignId",
    "label",
    "phoneNumber",
    "date",
    "response",
    "option",
    "keyword",
];

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const WAYPOST: HeaderValue =
    HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request, ready to be sent: always a `POST`.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// All headers but those of the connection, in the order in which they are sent.
    pub headers: HeaderMap,
    /// The JSON body.
    pub body: Vec<u8>,
}

/// Renders the request of an attempt that begins `now`.
pub fn render(delivery: &Delivery, now: DateTime<Utc>) -> Request {
    let webhook = &delivery.target.webhook;
    Request {
        url: webhook.url.clone(),
        headers: headers(delivery, webhook, now),
        body: body(&delivery.event, &delivery.target),
    }
}

fn headers(delivery: &Delivery, webhook: &Webhook, now: DateTime<Utc>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8 + webhook.headers.len());
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(USER_AGENT, WAYPOST);
    // Our own ids and numbers are always valid; what came with the event may not be, and is then left out.
    let mut insert = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    insert(WEBHOOK_ID, delivery.id.as_str());
    insert(WEBHOOK_TIMESTAMP, &now.timestamp().to_string());
    // `webhook-signature` has its place here: it covers the id, the timestamp and the body.
    if let Some(trace) = &delivery.trace {
        insert(TRACEPARENT, &trace.traceparent);
        if let Some(tracestate) = &trace.tracestate {
            insert(TRACESTATE, tracestate);
        }
    }
    for (name, value) in &webhook.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(mut value)) = (name, value) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

fn body(event: &StepEvent, target: &Target) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    // Writing JSON to memory can't fail: all keys are strings, and no value's serialization reports errors.
    if serde_json::to_writer(&mut bytes, &Payload { event, target }).is_err() {
        bytes.clear();
    }
    bytes
}

/// The body's keys in their order.
struct Payload<'a> {
    event: &'a StepEvent,
    target: &'a Target,
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("campaignId", &event.campaign_id)?;
        map.serialize_entry("label", &event.label)?;
        map.serialize_entry("phoneNumber", &event.phone_number)?;
        map.serialize_entry("date", &timestamp::text(&event.date))?;
        if let Some(response) = &event.response {
            map.serialize_entry("response", response)?;
        }
        if self.target.kind == WebhookKind::Underlying {
            if let Some(option) = &event.option {
                map.serialize_entry("option", option)?;
            }
            if let Some(keyword) = &event.keyword {
                map.serialize_entry("keyword", keyword)?;
            }
        }
        for (name, value) in &self.target.webhook.body {
            map.serialize_entry::<str, Value>(name, value)?;
        }
        map.end()
    }
}
