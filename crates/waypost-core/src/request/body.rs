//! Renders the JSON body of a request. All requests of a webhook share one copy of large extra parameters.

use std::borrow::Cow;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::campaign::{Target, WebhookKind};
use crate::event::StepEvent;
use crate::timestamp;

/// Smaller parameters are copied, because a body of one part is cheaper to send.
const MIN_SHARED_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub struct RequestBody {
    /// The part of this request only.
    own: Bytes,
    /// The end of the body, shared by the requests of the webhook. Often empty.
    shared: Bytes,
}

impl RequestBody {
    /// The parts in order. The second part may be empty.
    pub fn into_parts(self) -> [Bytes; 2] {
        [self.own, self.shared]
    }

    /// The whole body. Copies it if it has two parts.
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        if self.shared.is_empty() { Cow::Borrowed(&self.own) } else { Cow::Owned([&*self.own, &*self.shared].concat()) }
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self { own: bytes.into(), shared: Bytes::new() }
    }
}

pub(super) fn render(event: &StepEvent, target: &Target) -> RequestBody {
    let parameters = &target.webhook.body;
    let shares_parameters = parameters.len() >= MIN_SHARED_BYTES;
    let mut bytes = Vec::with_capacity(512 + if shares_parameters { 0 } else { parameters.len() });
    // Cannot fail: all keys are strings, and no value returns an error.
    if serde_json::to_writer(&mut bytes, &EventParameters { event, kind: target.kind }).is_err() {
        return Vec::new().into();
    }
    if parameters.is_empty() {
        return bytes.into();
    }
    // Replace the closing brace.
    bytes.pop();
    bytes.push(b',');
    let fields = parameters.fields();
    if shares_parameters {
        return RequestBody { own: bytes.into(), shared: fields };
    }
    bytes.extend_from_slice(&fields);
    bytes.into()
}

/// The standard parameters, in the order of the contract.
struct EventParameters<'a> {
    event: &'a StepEvent,
    kind: WebhookKind,
}

impl Serialize for EventParameters<'_> {
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
        if self.kind == WebhookKind::Underlying {
            if let Some(option) = &event.option {
                map.serialize_entry("option", option)?;
            }
            if let Some(keyword) = &event.keyword {
                map.serialize_entry("keyword", keyword)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document;
    use crate::egress::HttpUrls;
    use crate::event;

    /// The bodies of two events for a webhook with an extra parameter of `length` characters.
    fn render_two(length: usize) -> [RequestBody; 2] {
        let webhook = json!({ "url": "https://example.com/", "body": { "a": "x".repeat(length), "b": 1 } });
        let document = json!({ "id": "1", "sections": [{ "label": "s", "webhook": webhook }] }).to_string();
        let campaign = document::read(document.as_bytes(), HttpUrls::Refused, None).expect("a campaign");
        let target = campaign.places().next().expect("a webhook").target();
        ["one", "two"].map(|response| {
            let event = json!({ "campaignId": "1", "label": "s", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
                "response": response });
            render(&event::decode(event.to_string().as_bytes(), None).expect("an event"), &target)
        })
    }

    #[test]
    fn large_parameters_are_shared_between_bodies() {
        for length in [1, MIN_SHARED_BYTES, 900_000] {
            let [one, two] = render_two(length);
            let text = String::from_utf8(one.contiguous().into_owned()).expect("text");
            let expected = format!(
                r#"{{"campaignId":"1","label":"s","phoneNumber":"1","date":"2024-06-18T23:26:14.000Z","response":"one","a":"{}","b":1}}"#,
                "x".repeat(length)
            );
            assert!(text == expected, "{text:.200}");
            assert_eq!(one.shared.len() > length, length >= MIN_SHARED_BYTES);
            assert_eq!(one.shared.as_ptr(), two.shared.as_ptr());
            assert!(one.own.len() < 1024);
        }
    }
}
