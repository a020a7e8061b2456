//! Renders the HTTP request to a receiver: the body with its key order and date format, and the headers.

mod body;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::campaign::{MASK, SecretVisibility, Webhook};
use super::webhook_url::WebhookUrl;
use super::{Delivery, signing};
pub use body::RequestBody;

/// The standard parameters of a body. Extra parameters of a webhook cannot have these names.
pub const STANDARD_PARAMETERS: [&str; 7] =
    ["campaignId", "label", "phoneNumber", "date", "response", "option", "keyword"];

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));
const CONTENT_TYPE_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A rendered `POST` request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub url: WebhookUrl,
    /// In the order in which they are sent, without `host` and other headers of the connection.
    pub headers: HeaderMap,
    pub body: RequestBody,
}

/// A request as shown to people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Request")]
pub struct RequestPreview {
    /// `POST`
    pub method: String,
    /// The webhook's URL.
    pub url: String,
    /// The headers in the order in which they are sent. The values of custom headers may be masked.
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: Map<String, Value>,
    /// The JSON body as text, byte for byte.
    pub body: String,
}

impl Request {
    pub fn preview(self, secrets: SecretVisibility) -> RequestPreview {
        let text = |value: &HeaderValue| match secrets {
            SecretVisibility::Masked if value.is_sensitive() => MASK.to_owned(),
            _ => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        let headers = self.headers.iter().map(|(name, value)| (name.to_string(), text(value).into())).collect();
        let body = String::from_utf8(self.body.contiguous().into_owned()).unwrap_or_default();
        RequestPreview { method: "POST".to_owned(), url: self.url.as_str().to_owned(), headers, body }
    }
}

/// Renders the request of an attempt that starts at `now`.
pub fn render(delivery: &Delivery, now: DateTime<Utc>) -> Request {
    let webhook = &delivery.target.webhook;
    let body = body::render(&delivery.event, &delivery.target);
    Request { url: webhook.url.clone(), headers: headers(delivery, webhook, &body, now), body }
}

fn headers(delivery: &Delivery, webhook: &Webhook, body: &RequestBody, now: DateTime<Utc>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8 + webhook.headers.len());
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_JSON);
    headers.insert(USER_AGENT, USER_AGENT_VALUE);
    insert(&mut headers, WEBHOOK_ID, delivery.id.as_str());
    insert(&mut headers, WEBHOOK_TIMESTAMP, &now.timestamp().to_string());
    // Without a secret there is no signature, and the parts of the body need not be joined.
    let secret = webhook.secret.as_ref();
    let signature = secret.and_then(|_| signing::signature(webhook, delivery.id.as_str(), &body.contiguous(), now));
    if let Some(Ok(mut signature)) = signature.as_deref().map(HeaderValue::from_str) {
        // A reader who sees body and signature could forge the request.
        signature.set_sensitive(true);
        headers.insert(WEBHOOK_SIGNATURE, signature);
    }
    if let Some(trace) = &delivery.trace {
        insert(&mut headers, TRACEPARENT, &trace.traceparent);
        if let Some(tracestate) = &trace.tracestate {
            insert(&mut headers, TRACESTATE, tracestate);
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

/// Omits an invalid value. Our own ids and numbers are always valid, but a value from the event may be invalid.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceContext;
    use crate::document;
    use crate::egress::HttpUrls;
    use crate::event;
    use crate::resolve::resolve;

    const CAMPAIGN: &[u8] = br#"{ "id": "13010", "sections": [ { "label": "Welcome Message", "menu": [
        { "keyword": 3, "redirect": { "type": "webhook" }, "webhook": { "id": "wh_3", "url": "https://example.com/agent" } },
        { "keyword": "Four", "option": "Offers", "redirect": { "type": "campaign", "to": "x" },
          "webhook": { "id": "wh_4", "url": "https://example.com/offers?a=1",
                       "body": { "zeta": 1.50, "alpha": { "b": [1e2, null], "a": "\u00e9\"" }, "big": 12345678901234567890 },
                       "headers": { "X-Api-Key": "secret", "Accept": "text/plain" } } } ] } ] }"#;

    fn render_event(event: &str) -> Request {
        let campaign = document::read(CAMPAIGN, HttpUrls::Refused, None).unwrap();
        let event = event::decode(event.as_bytes(), Some("event-1")).unwrap();
        let target = resolve(&campaign, &event).remove(0);
        let trace = TraceContext { traceparent: "00-1-2-01".to_owned(), tracestate: Some("a=b".to_owned()) };
        let now = DateTime::from_timestamp(1_718_753_174, 999_000_000).unwrap();
        render(&Delivery::new(event, target, Some(trace)), now)
    }

    fn body(event: &str) -> String {
        String::from_utf8(render_event(event).body.contiguous().into_owned()).unwrap()
    }

    #[test]
    fn an_underlying_webhook_receives_option_keyword_and_extra_parameters() {
        let event = r#"{"keyword":"Four","option":"Offers","response":"4","date":"2024-06-18T20:26:14.2065-03:00",
            "phoneNumber":"+1555","label":"Welcome Message","campaignId":"13010","unknown":true}"#;
        assert_eq!(
            body(event),
            "{\"campaignId\":\"13010\",\"label\":\"Welcome Message\",\"phoneNumber\":\"+1555\",\
             \"date\":\"2024-06-18T23:26:14.206Z\",\"response\":\"4\",\"option\":\"Offers\",\"keyword\":\"Four\",\
             \"zeta\":1.50,\"alpha\":{\"b\":[1e+2,null],\"a\":\"é\\\"\"},\"big\":12345678901234567890}"
        );
    }

    #[test]
    fn missing_fields_of_the_event_are_omitted() {
        let event = r#"{"campaignId":"13010","label":"Welcome Message","phoneNumber":"1","date":"2024-06-18T23:26:14Z","keyword":" four "}"#;
        let body = body(event);
        assert!(body.starts_with(
            "{\"campaignId\":\"13010\",\"label\":\"Welcome Message\",\"phoneNumber\":\"1\",\"date\":\"2024-06-18T23:26:14.000Z\",\"keyword\":\" four \",\"zeta\""
        ), "{body}");
    }

    #[test]
    fn a_redirect_webhook_does_not_receive_option_and_keyword() {
        let event = r#"{"campaignId":"13010","label":"Welcome Message","phoneNumber":"1","date":"2024-06-18T23:26:14.206Z",
            "response":"hello","option":"x","keyword":3}"#;
        assert_eq!(
            body(event),
            "{\"campaignId\":\"13010\",\"label\":\"Welcome Message\",\"phoneNumber\":\"1\",\
             \"date\":\"2024-06-18T23:26:14.206Z\",\"response\":\"hello\"}"
        );
    }

    #[test]
    fn headers_are_sent_in_order_and_masked_in_previews() {
        let event = r#"{"campaignId":"13010","label":"Welcome Message","phoneNumber":"1","date":"2024-06-18T23:26:14.206Z","keyword":"four"}"#;
        let request = render_event(event);
        assert_eq!(request.url.as_str(), "https://example.com/offers?a=1");
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let version = concat!("waypost/", env!("CARGO_PKG_VERSION"));
        let id =
            crate::ids::DeliveryId::derive(&crate::ids::EventId::new("event-1"), &crate::ids::WebhookId::new("wh_4"));
        assert_eq!(
            headers,
            [
                ("content-type", "application/json"),
                ("user-agent", version),
                ("webhook-id", id.as_str()),
                ("webhook-timestamp", "1718753174"),
                ("traceparent", "00-1-2-01"),
                ("tracestate", "a=b"),
                ("x-api-key", "secret"),
                ("accept", "text/plain"),
            ]
        );
        let header = |secrets| request.clone().preview(secrets).headers["x-api-key"].clone();
        assert_eq!(
            (header(SecretVisibility::Visible), header(SecretVisibility::Masked)),
            ("secret".into(), MASK.into())
        );
        let preview = request.clone().preview(SecretVisibility::Masked);
        assert_eq!((preview.headers["webhook-id"].as_str(), preview.headers.len()), (Some(id.as_str()), headers.len()));
        assert_eq!((&*preview.method, preview.body.as_bytes()), ("POST", &*request.body.contiguous()));
    }
}
