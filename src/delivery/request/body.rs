//! The JSON body of a request. A webhook with large extra parameters has one copy of them, however many requests are in flight.

use std::borrow::Cow;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::delivery::campaign::{Target, WebhookKind};
use crate::delivery::event::StepEvent;
use crate::delivery::timestamp;

/// Extra parameters of at least these bytes are shared. Smaller ones are copied: one part is cheaper to send than two.
const MIN_SHARED_BYTES: usize = 16 * 1024;

/// The bytes of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestBody {
    /// Of this request alone.
    own: Bytes,
    /// The end of the body, which other requests of the same webhook share; often empty.
    shared: Bytes,
}

impl RequestBody {
    /// Both parts, in their order. The second may be empty.
    pub fn into_parts(self) -> [Bytes; 2] {
        [self.own, self.shared]
    }

    /// All bytes in a row; a copy if they are in two parts.
    pub fn contiguous(&self) -> Cow<'_, [u8]> {
        if self.shared.is_empty() { Cow::Borrowed(&self.own) } else { Cow::Owned([&*self.own, &*self.shared].concat()) }
    }
}

impl From<Vec<u8>> for RequestBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self { own: bytes.into(), shared: Bytes::new() }
    }
}

/// Renders the body of a request for `event`.
pub(super) fn render(event: &StepEvent, target: &Target) -> RequestBody {
    let parameters = &target.webhook.body;
    let is_shared = parameters.len() >= MIN_SHARED_BYTES;
    let mut bytes = Vec::with_capacity(512 + if is_shared { 0 } else { parameters.len() });
    // Writing JSON to memory can't fail: all keys are strings, and no value's serialization reports errors.
    if serde_json::to_writer(&mut bytes, &OwnParameters { event, kind: target.kind }).is_err() {
        return Vec::new().into();
    }
    if parameters.is_empty() {
        return bytes.into();
    }
    // In place of the closing brace.
    bytes.pop();
    bytes.push(b',');
    let fields = parameters.fields();
    if is_shared {
        return RequestBody { own: bytes.into(), shared: fields };
    }
    bytes.extend_from_slice(&fields);
    bytes.into()
}

/// The event's part of a body: its keys in their order.
struct OwnParameters<'a> {
    event: &'a StepEvent,
    kind: WebhookKind,
}

impl Serialize for OwnParameters<'_> {
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
    use crate::delivery::document;
    use crate::delivery::egress::HttpUrls;
    use crate::delivery::event;

    /// Bodies of two events, for a webhook with an extra parameter of `length` characters.
    fn bodies(length: usize) -> [RequestBody; 2] {
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
    fn large_parameters_are_one_text_and_the_body_is_the_same() {
        for length in [1, MIN_SHARED_BYTES, 900_000] {
            let [one, two] = bodies(length);
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
