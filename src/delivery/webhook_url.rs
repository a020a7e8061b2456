//! The URL of a webhook: read once, where it is configured, and not again for each request.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::endpoint::ReceiverKey;

/// A URL as it was written, and where it leads. Cheap to clone.
#[derive(Clone)]
pub struct WebhookUrl(Arc<Parts>);

struct Parts {
    written: String,
    /// None where it is no URL, which no document that was checked has.
    url: Option<Url>,
    place: ReceiverKey,
}

impl WebhookUrl {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0.written
    }

    /// As it is sent to; none where it can't be read.
    pub fn url(&self) -> Option<&Url> {
        self.0.url.as_ref()
    }

    /// Its endpoint and path.
    pub fn place(&self) -> &ReceiverKey {
        &self.0.place
    }
}

impl From<String> for WebhookUrl {
    fn from(written: String) -> Self {
        let (url, place) = (Url::parse(&written).ok(), ReceiverKey::of_url(&written));
        Self(Arc::new(Parts { written, url, place }))
    }
}

impl PartialEq for WebhookUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.written == other.0.written
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.written.fmt(f)
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.written.serialize(serializer)
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
    fn it_is_stored_as_it_was_written() {
        let written = "https://Example.com/hooks?b=1";
        let url = WebhookUrl::from(written.to_owned());
        assert_eq!((url.as_str(), url.url().map(Url::as_str)), (written, Some("https://example.com/hooks?b=1")));
        assert_eq!(url.place().path, "/hooks");
        let json = serde_json::to_string(&url).expect("JSON");
        assert_eq!(json, format!("{written:?}"));
        assert_eq!(serde_json::from_str::<WebhookUrl>(&json).expect("a URL"), url);
        assert!(WebhookUrl::from("no URL".to_owned()).url().is_none());
    }
}
