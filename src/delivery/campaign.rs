//! Campaigns as they are configured: sections, menus, redirects and webhooks. The types are the document's own shape;
//! [`super::document`] makes them from JSON and refuses what is wrong.

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
use super::left_out;
use super::timestamp;
use super::webhook_url::WebhookUrl;
pub use parameters::ExtraParameters;

/// A chatbot flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Campaign {
    /// The `campaignId` of its events.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The Welcome Message and the interactions.
    pub sections: Vec<Section>,
}

/// The Welcome Message or an Interaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    /// Unique in its campaign; the `label` of its events.
    pub label: String,
    /// Which of the two.
    #[schemars(default = "left_out", extend("default" = "interaction"))]
    pub kind: SectionKind,
    /// What the user is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The choices offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub menu: Vec<MenuEntry>,
    /// Where the user goes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Fires on every event of the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Arc<Webhook>>,
}

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SectionKind {
    /// The one that opens the campaign; there is at most one.
    WelcomeMessage,
    /// Any other.
    Interaction,
}

/// One choice of a menu.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MenuEntry {
    /// What the user types; unique in its menu.
    pub keyword: Keyword,
    /// The menu text. A webhook redirect has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// Where the choice leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Fires when the choice is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Arc<Webhook>>,
}

/// Where the user goes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// What kind of place.
    #[serde(rename = "type")]
    pub kind: RedirectKind,
    /// A section's label or a campaign's name; a webhook redirect has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a redirect leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RedirectKind {
    /// A section of this campaign.
    Interaction,
    /// Another campaign.
    Campaign,
    /// The webhook beside it.
    Webhook,
}

/// A customer's endpoint, and what it is sent. Its `Debug` has no secrets.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Given by the system where the document has none; stable over edits.
    #[schemars(default = "left_out")]
    pub id: WebhookId,
    /// `https://host/path`, as it was written.
    pub url: WebhookUrl,
    /// A disabled webhook does not fire.
    #[schemars(default = "left_out", extend("default" = true))]
    pub enabled: bool,
    /// Extra parameters of the body, in order.
    #[serde(default, skip_serializing_if = "ExtraParameters::is_empty")]
    pub body: ExtraParameters,
    /// Custom headers, in order. Values are secrets.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: Map<String, Value>,
    /// The signing secret, `whsec_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Secrets that were replaced and still sign for a while, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_secrets: Vec<PreviousSecret>,
    /// The limit of one attempt, in milliseconds.
    #[schemars(default = "left_out", range(min = 1, max = 30_000), extend("default" = 15_000))]
    pub timeout_ms: u64,
    /// The most requests in flight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// The most requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Number>,
    /// What it does otherwise than the settings say.
    #[serde(default, skip_serializing_if = "RetryOverrides::is_empty")]
    pub retry: RetryOverrides,
}

/// What stands in the place of a header's value or a secret for who may not see it; refused where it is written back.
pub const MASK: &str = "********";

/// Whether the values of headers and secrets are shown to whoever looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As they are.
    Shown,
    /// As the [`MASK`].
    Masked,
}

impl Webhook {
    /// Takes out what only its receiver may know: the values of its headers, and its secret.
    pub fn mask(&mut self) {
        self.headers.values_mut().for_each(|value| *value = Value::String(MASK.to_owned()));
        self.secret = self.secret.as_ref().map(|_| MASK.to_owned());
        self.previous_secrets.iter_mut().for_each(|previous| previous.secret = MASK.to_owned());
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("place", self.url.place())
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A secret that was replaced, and still signs for a while.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviousSecret {
    /// `whsec_…`
    pub secret: String,
    /// It signs before this time.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub until: DateTime<Utc>,
}

/// A webhook's own retry policy: each value overrides the setting of its name, see [`super::retry::RetryPolicy`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryOverrides {
    /// In place of `retry.initialDelay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<TextDuration>,
    /// In place of `retry.multiplier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// In place of `retry.maxDelay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<TextDuration>,
    /// In place of `retry.jitter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// In place of `retry.maxAttempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// In place of `retry.maxAge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<TextDuration>,
    /// In place of `retry.permanentStatuses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent_statuses: Option<Vec<u16>>,
}

impl RetryOverrides {
    /// Whether nothing is overridden.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A webhook with what its place in the campaign says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The webhook.
    pub webhook: Arc<Webhook>,
    /// Whether the webhook is the redirect or lies under another.
    pub kind: WebhookKind,
    /// How much of the webhook is here.
    #[serde(default, skip_serializing_if = "Configuration::is_whole")]
    pub configuration: Configuration,
}

/// How much of its webhook a target has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Configuration {
    /// All of it; header values and secrets may be masked.
    #[default]
    Whole,
    /// Its id and URL: an attempt looks the rest up.
    Reference,
}

impl Configuration {
    fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

impl Target {
    /// Takes out what only the receiver may know. The extra parameters stay shared with the webhook.
    pub fn mask(&mut self) {
        Arc::make_mut(&mut self.webhook).mask();
    }

    /// The target of a delivery that waits: which webhook it is, and where the latest attempt went.
    #[must_use]
    pub fn reference(&self) -> Self {
        if self.configuration == Configuration::Reference {
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
        Self { webhook: Arc::new(webhook), kind: self.kind, configuration: Configuration::Reference }
    }
}

/// How a webhook stands to the redirect beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WebhookKind {
    /// The webhook is the redirect: it is not sent `option` and `keyword`.
    Redirect,
    /// Any other.
    Underlying,
}

impl WebhookKind {
    /// The kind of a webhook beside `redirect`.
    pub fn beside(redirect: Option<&Redirect>) -> Self {
        match redirect {
            Some(Redirect { kind: RedirectKind::Webhook, .. }) => Self::Redirect,
            _ => Self::Underlying,
        }
    }
}

/// Where in its campaign a webhook is attached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WebhookPlace<'a> {
    /// The section.
    pub section: &'a Section,
    /// The menu entry; none where the webhook is the section's own.
    pub entry: Option<&'a MenuEntry>,
    /// What is attached there.
    pub webhook: &'a Arc<Webhook>,
}

impl WebhookPlace<'_> {
    /// The webhook as the target of a delivery.
    pub fn target(&self) -> Target {
        let redirect = match self.entry {
            Some(entry) => entry.redirect.as_ref(),
            None => self.section.redirect.as_ref(),
        };
        Target {
            webhook: self.webhook.clone(),
            kind: WebhookKind::beside(redirect),
            configuration: Configuration::Whole,
        }
    }
}

impl Campaign {
    /// All webhooks: of each section its own first, then those of its menu.
    pub fn places(&self) -> impl Iterator<Item = WebhookPlace<'_>> {
        self.sections.iter().flat_map(|section| {
            let own = section.webhook.iter().map(move |webhook| WebhookPlace { section, entry: None, webhook });
            let menu = section.menu.iter().filter_map(move |entry| {
                entry.webhook.as_ref().map(|webhook| WebhookPlace { section, entry: Some(entry), webhook })
            });
            own.chain(menu)
        })
    }

    /// The JSON path of the webhook with this id; that of the document where it has none.
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

    /// The webhook with this id.
    pub fn place_of(&self, id: &WebhookId) -> Option<WebhookPlace<'_>> {
        self.places().find(|place| place.webhook.id == *id)
    }

    /// The campaign with `webhook` in the place of the one that has its id.
    pub fn with_webhook(&self, webhook: Webhook) -> Self {
        let mut campaign = self.clone();
        let id = webhook.id.clone();
        if let Some((slot, _)) = campaign.slot_of(&id) {
            *slot = Some(Arc::new(webhook));
        }
        campaign
    }

    /// The campaign without this webhook, and without the redirect that it is.
    pub fn without_webhook(&self, id: &WebhookId) -> Self {
        let mut campaign = self.clone();
        if let Some((slot, redirect)) = campaign.slot_of(id) {
            *slot = None;
            redirect.take_if(|redirect| redirect.kind == RedirectKind::Webhook);
        }
        campaign
    }

    /// All webhooks, to be changed.
    pub(super) fn webhooks_mut(&mut self) -> impl Iterator<Item = &mut Arc<Webhook>> {
        self.sections.iter_mut().flat_map(|section| {
            section.webhook.iter_mut().chain(section.menu.iter_mut().filter_map(|entry| entry.webhook.as_mut()))
        })
    }

    /// Where a webhook is kept, and the redirect beside it.
    fn slot_of(&mut self, id: &WebhookId) -> Option<(&mut Option<Arc<Webhook>>, &mut Option<Redirect>)> {
        let slots = self.sections.iter_mut().flat_map(|section| {
            let own = std::iter::once((&mut section.webhook, &mut section.redirect));
            own.chain(section.menu.iter_mut().map(|entry| (&mut entry.webhook, &mut entry.redirect)))
        });
        slots.into_iter().find(|(slot, _)| slot.as_ref().is_some_and(|webhook| webhook.id == *id))
    }
}
