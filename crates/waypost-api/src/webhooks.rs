//! Single webhooks: read, replace, rotate the secret, test.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use waypost_core::campaign::Webhook;
use waypost_core::duration::TextDuration;
use waypost_core::event::Keyword;
use waypost_core::request::RequestPreview;
use waypost_core::{Attempt, omitted_default};

use crate::flattened::read_twice;
use crate::unique_map::UniqueMap;

/// A webhook and its place in the campaign.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LocatedWebhook")]
pub struct WebhookResponse {
    #[serde(flatten)]
    pub webhook: Webhook,
    /// The id of the campaign that contains the webhook.
    #[schemars(default = "omitted_default")]
    pub campaign_id: String,
    /// The label of its section.
    #[schemars(default = "omitted_default")]
    pub label: String,
    /// The keyword of its menu entry; absent if the webhook is the section's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyword: Option<Keyword>,
}

impl<'de> Deserialize<'de> for WebhookResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Place {
            campaign_id: String,
            label: String,
            keyword: Option<Keyword>,
        }
        let (webhook, Place { campaign_id, label, keyword }) = read_twice(deserializer)?;
        Ok(Self { webhook, campaign_id, label, keyword })
    }
}

/// The parameters of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WebhookTest")]
pub struct TestRequest {
    /// A step event or a part of one. Missing fields get sample values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub event: Option<UniqueMap>,
}

/// The parameters of a rotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SecretRotation")]
pub struct RotationRequest {
    /// How long the old secret still signs: 24h if absent, at most 30d. Use `0s` if the old secret has leaked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<TextDuration>,
}

/// The result of a test request, which is not retried and creates no dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TestedWebhook")]
pub struct WebhookTestResult {
    /// The request sent. Values of headers are masked below `editor`.
    pub request: RequestPreview,
    /// The result of the request.
    pub response: Attempt,
}
