//! The URL of a webhook, parsed once when the campaign is loaded instead of for each request.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::endpoint::ReceiverKey;

/// The original text of a URL, and its parsed form. Cheap to clone.
#[derive(Clone)]
pub struct WebhookUrl(Arc<UrlParts>);

struct UrlParts {
    text: String,
    /// `None` if `text` is not a URL. A checked document has no such text.
    url: Option<Url>,
    receiver_key: ReceiverKey,
}

impl WebhookUrl {
    /// The original text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// `None` if the text is not a URL.
    pub fn url(&self) -> Option<&Url> {
        self.0.url.as_ref()
    }

    pub fn receiver_key(&self) -> &ReceiverKey {
        &self.0.receiver_key
    }
}

impl From<String> for WebhookUrl {
    fn from(text: String) -> Self {
        let (url, receiver_key) = (Url::parse(&text).ok(), ReceiverKey::from_url(&text));
        Self(Arc::new(UrlParts { text, url, receiver_key }))
    }
}

impl PartialEq for WebhookUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.text.fmt(f)
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl JsonSchema for WebhookUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        String::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_text_is_stored() {
        let text = "https://Example.com/hooks?b=1";
        let url = WebhookUrl::from(text.to_owned());
        assert_eq!((url.as_str(), url.url().map(Url::as_str)), (text, Some("https://example.com/hooks?b=1")));
        assert_eq!(url.receiver_key().path, "/hooks");
        let json = serde_json::to_string(&url).expect("JSON");
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<WebhookUrl>(&json).expect("a URL"), url);
        assert!(WebhookUrl::from("no URL".to_owned()).url().is_none());
    }
}
