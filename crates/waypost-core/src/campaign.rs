//! The configuration of a campaign: sections, menus, redirects and webhooks. The types have the structure of the
//! campaign document. [`super::document`] parses and validates that document.

pub mod diff;
mod parameters;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::duration::TextDuration;
use super::event::Keyword;
use super::ids::WebhookId;
use super::schema_default::omitted_default;
use super::timestamp;
use super::webhook_url::WebhookUrl;
pub use parameters::ExtraParameters;

/// A chatbot flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Campaign {
    /// The `campaignId` of its events.
    pub id: String,
    /// The name shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The Welcome Message and the interactions.
    pub sections: Vec<Section>,
}

/// The Welcome Message or an Interaction of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    /// Unique in the campaign. The section's events have the same `label`.
    pub label: String,
    /// The Welcome Message or an interaction. An interaction if absent.
    #[schemars(default = "omitted_default", extend("default" = "interaction"))]
    pub kind: SectionKind,
    /// The text shown to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The choices offered to the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub menu: Vec<MenuEntry>,
    /// Leads to a section, another campaign or a webhook. Absent if nothing follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Fires on every event of the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Arc<Webhook>>,
}

/// Whether a section opens the campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SectionKind {
    /// The section that opens the campaign. A campaign has at most one.
    WelcomeMessage,
    /// Any other section.
    Interaction,
}

impl SectionKind {
    /// The name in campaign documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WelcomeMessage => "welcomeMessage",
            Self::Interaction => "interaction",
        }
    }
}

/// One choice of a menu.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MenuEntry {
    /// What the user types. Unique in the menu.
    pub keyword: Keyword,
    /// The menu text. Not allowed with a webhook redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// Leads to a section, another campaign or a webhook. Absent if nothing follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Fires when the user makes this choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Arc<Webhook>>,
}

/// Leads from a section or a menu entry to what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// `to` names a section for `interaction`, and a campaign for `campaign`.
    #[serde(rename = "type")]
    pub kind: RedirectKind,
    /// The label of a section, or a campaign. Not allowed with a webhook redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// The target of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RedirectKind {
    /// A section of this campaign.
    Interaction,
    /// Another campaign.
    Campaign,
    /// The webhook of the same section or menu entry.
    Webhook,
}

/// A customer's endpoint, and the requests sent to it.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Assigned by Waypost if the document has none, and kept when the campaign changes.
    #[schemars(default = "omitted_default")]
    pub id: WebhookId,
    /// `https://host/path`
    pub url: WebhookUrl,
    /// A disabled webhook does not fire.
    #[schemars(default = "omitted_default", extend("default" = true))]
    pub enabled: bool,
    /// Extra parameters of the body, in the order in which they are sent.
    #[serde(default, skip_serializing_if = "ExtraParameters::is_empty")]
    pub body: ExtraParameters,
    /// Custom headers, in the order in which they are sent. The values are secrets.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: Map<String, Value>,
    /// The signing secret, `whsec_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Replaced secrets that still sign requests until they expire, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_secrets: Vec<PreviousSecret>,
    /// The time limit of one attempt, in milliseconds.
    #[schemars(default = "omitted_default", range(min = 1, max = 30_000), extend("default" = 15_000))]
    pub timeout_ms: u64,
    /// Maximum number of requests in flight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Maximum number of requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Number>,
    /// Overrides of the retry settings.
    #[serde(default, skip_serializing_if = "RetryOverrides::is_empty")]
    pub retry: RetryOverrides,
}

/// Replaces header values and secrets for readers without permission. A document that contains it is refused.
pub const MASK: &str = "********";

/// Whether header values and signing secrets are visible to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretVisibility {
    Visible,
    /// Replaced by [`MASK`].
    Masked,
}

impl Webhook {
    /// Replaces header values and signing secrets by [`MASK`].
    pub fn mask(&mut self) {
        self.headers.values_mut().for_each(|value| *value = Value::String(MASK.to_owned()));
        self.secret = self.secret.as_ref().map(|_| MASK.to_owned());
        self.previous_secrets.iter_mut().for_each(|previous| previous.secret = MASK.to_owned());
    }
}

// Without secrets, so that they never get into a log.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("receiver", self.url.receiver_key())
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A replaced secret that still signs requests until it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousSecret {
    /// `whsec_…`
    pub secret: String,
    /// When the secret expires.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub until: DateTime<Utc>,
}

/// The retry policy of one webhook. Each value overrides the setting with the same name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryOverrides {
    /// Overrides `retry.initialDelay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<TextDuration>,
    /// Overrides `retry.multiplier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// Overrides `retry.maxDelay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<TextDuration>,
    /// Overrides `retry.jitter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// Overrides `retry.maxAttempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Overrides `retry.maxAge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<TextDuration>,
    /// Overrides `retry.permanentStatuses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent_statuses: Option<Vec<u16>>,
}

impl RetryOverrides {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The webhook of a delivery, and its relation to the redirect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub webhook: Arc<Webhook>,
    /// Whether the webhook is the redirect.
    pub kind: WebhookKind,
    /// How much of the webhook is stored here.
    #[serde(default, skip_serializing_if = "TargetContent::is_full")]
    pub configuration: TargetContent,
}

/// How much of the webhook a target contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TargetContent {
    /// Everything. Header values and secrets may be masked.
    #[default]
    #[serde(rename = "whole")]
    Full,
    /// Only id and URL. The next attempt looks up the rest.
    Reference,
}

impl TargetContent {
    fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

impl Target {
    /// Masks the webhook's secrets. The extra parameters are still shared with the original webhook.
    pub fn mask(&mut self) {
        Arc::make_mut(&mut self.webhook).mask();
    }

    /// The target of a waiting delivery: the webhook's id, and the URL of the latest attempt.
    #[must_use]
    pub fn reference(&self) -> Self {
        if self.configuration == TargetContent::Reference {
            return self.clone();
        }
        let webhook = Webhook {
            id: self.webhook.id.clone(),
            url: self.webhook.url.clone(),
            enabled: self.webhook.enabled,
            timeout_ms: self.webhook.timeout_ms,
            body: ExtraParameters::default(),
            headers: Map::new(),
            secret: None,
            previous_secrets: Vec::new(),
            max_concurrency: None,
            rate_limit: None,
            retry: RetryOverrides::default(),
        };
        Self { webhook: Arc::new(webhook), kind: self.kind, configuration: TargetContent::Reference }
    }
}

/// The relation of a webhook to the redirect of its section or menu entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WebhookKind {
    /// The webhook is the redirect. Its requests have no `option` and `keyword`.
    Redirect,
    /// Any other webhook.
    Underlying,
}

impl WebhookKind {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Underlying => "underlying",
        }
    }

    pub fn from_redirect(redirect: Option<&Redirect>) -> Self {
        match redirect {
            Some(Redirect { kind: RedirectKind::Webhook, .. }) => Self::Redirect,
            _ => Self::Underlying,
        }
    }
}

/// A webhook with the section or menu entry that it is attached to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WebhookPlace<'a> {
    pub section: &'a Section,
    /// `None` if the webhook is the section's own.
    pub entry: Option<&'a MenuEntry>,
    pub webhook: &'a Arc<Webhook>,
}

impl WebhookPlace<'_> {
    pub fn target(&self) -> Target {
        let redirect = match self.entry {
            Some(entry) => entry.redirect.as_ref(),
            None => self.section.redirect.as_ref(),
        };
        Target {
            webhook: self.webhook.clone(),
            kind: WebhookKind::from_redirect(redirect),
            configuration: TargetContent::Full,
        }
    }
}

impl Campaign {
    /// The name, or the id if the campaign has no name.
    pub fn display_name(&self) -> &str {
        self.name.as_deref().filter(|name| !name.trim().is_empty()).unwrap_or(&self.id)
    }

    /// All webhooks in document order. The own webhook of a section precedes the webhooks of its menu.
    pub fn places(&self) -> impl Iterator<Item = WebhookPlace<'_>> {
        self.sections.iter().flat_map(|section| {
            let own = section.webhook.iter().map(move |webhook| WebhookPlace { section, entry: None, webhook });
            let menu = section.menu.iter().filter_map(move |entry| {
                entry.webhook.as_ref().map(|webhook| WebhookPlace { section, entry: Some(entry), webhook })
            });
            own.chain(menu)
        })
    }

    /// The JSON path of the webhook with this id, or `$` if there is none.
    pub fn path_of(&self, id: &str) -> String {
        for (i, section) in self.sections.iter().enumerate() {
            let has_id =
                |webhook: &Option<Arc<Webhook>>| webhook.as_ref().is_some_and(|webhook| webhook.id.as_str() == id);
            if has_id(&section.webhook) {
                return format!("$.sections[{i}].webhook");
            }
            if let Some(j) = section.menu.iter().position(|entry| has_id(&entry.webhook)) {
                return format!("$.sections[{i}].menu[{j}].webhook");
            }
        }
        "$".to_owned()
    }

    pub fn place_of(&self, id: &WebhookId) -> Option<WebhookPlace<'_>> {
        self.places().find(|place| place.webhook.id == *id)
    }

    /// The campaign in which `webhook` replaces the webhook with the same id.
    pub fn with_webhook(&self, webhook: Webhook) -> Self {
        let mut campaign = self.clone();
        let id = webhook.id.clone();
        if let Some((slot, _)) = campaign.slot_of(&id) {
            *slot = Some(Arc::new(webhook));
        }
        campaign
    }

    /// The campaign without this webhook. If the webhook is a redirect, the redirect is removed too.
    pub fn without_webhook(&self, id: &WebhookId) -> Self {
        let mut campaign = self.clone();
        if let Some((slot, redirect)) = campaign.slot_of(id) {
            *slot = None;
            redirect.take_if(|redirect| redirect.kind == RedirectKind::Webhook);
        }
        campaign
    }

    pub(super) fn webhooks_mut(&mut self) -> impl Iterator<Item = &mut Arc<Webhook>> {
        self.sections.iter_mut().flat_map(|section| {
            section.webhook.iter_mut().chain(section.menu.iter_mut().filter_map(|entry| entry.webhook.as_mut()))
        })
    }

    /// The fields that hold the webhook and its redirect.
    fn slot_of(&mut self, id: &WebhookId) -> Option<(&mut Option<Arc<Webhook>>, &mut Option<Redirect>)> {
        let slots = self.sections.iter_mut().flat_map(|section| {
            let own = std::iter::once((&mut section.webhook, &mut section.redirect));
            own.chain(section.menu.iter_mut().map(|entry| (&mut entry.webhook, &mut entry.redirect)))
        });
        slots.into_iter().find(|(slot, _)| slot.as_ref().is_some_and(|webhook| webhook.id == *id))
    }
}
