//! Assigns ids to webhooks that have no id in the document.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::campaign::{Campaign, MenuEntry, Section, Webhook};
use crate::ids::WebhookId;

/// The placeholder for a webhook without an id. A valid id is never empty.
pub(super) fn unassigned() -> WebhookId {
    WebhookId::new("")
}

/// Identifies a webhook across edits: by the label of its section and, in a menu, by the keyword.
#[derive(Clone, PartialEq, Eq, Hash)]
struct WebhookKey {
    label: String,
    keyword: Option<KeywordForms>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct KeywordForms {
    /// In lower case, without surrounding space. Ids are derived from this form, because it is older than the normal
    /// form.
    written: String,
    /// Old campaigns may have two keywords with the same normal form.
    normal_form: String,
}

impl WebhookKey {
    fn new(label: &str, entry: Option<&MenuEntry>) -> Self {
        let keyword = entry.map(|entry| KeywordForms {
            written: entry.keyword.to_string().trim().to_lowercase(),
            normal_form: entry.keyword.normal_form().into_text(),
        });
        Self { label: label.to_owned(), keyword }
    }

    /// The key with the keyword in normal form, for keywords that are now written differently.
    fn with_normal_form(&self) -> (&str, Option<&str>) {
        (&self.label, self.keyword.as_ref().map(|keyword| keyword.normal_form.as_str()))
    }
}

/// Gives each webhook without an id the id that it has in `previous`, or else a new id. A new id must not be in use now
/// or in `previous`, because waiting deliveries must never be sent to another webhook.
///
/// `is_used_elsewhere` tells if a webhook of another campaign has an id.
pub fn assign_ids(
    campaign: &mut Campaign,
    previous: Option<&Campaign>,
    is_used_elsewhere: &dyn Fn(&WebhookId) -> bool,
) {
    let previous = previous.filter(|previous| previous.id == campaign.id);
    let previous_ids: Vec<(WebhookKey, WebhookId)> = previous
        .into_iter()
        .flat_map(Campaign::places)
        .map(|place| (WebhookKey::new(&place.section.label, place.entry), place.webhook.id.clone()))
        .collect();
    let by_written: HashMap<&WebhookKey, &WebhookId> = previous_ids.iter().map(|(key, id)| (key, id)).collect();
    // If two keys have the same normal form, the first wins, as it does when events are matched.
    let by_normal_form: HashMap<_, &WebhookId> =
        previous_ids.iter().rev().map(|(key, id)| (key.with_normal_form(), id)).collect();
    let mut used: HashSet<WebhookId> = campaign.places().map(|place| place.webhook.id.clone()).collect();
    let Campaign { id: campaign, sections, .. } = campaign;

    // First the webhooks that keep their ids, so that no new id is equal to one of these.
    let mut new_webhooks = Vec::new();
    for (key, webhook) in sections.iter_mut().flat_map(webhooks_without_id) {
        match by_written.get(&key).or_else(|| by_normal_form.get(&key.with_normal_form())) {
            Some(id) if used.insert((*id).clone()) => webhook.id = (*id).clone(),
            _ => new_webhooks.push((key, webhook)),
        }
    }
    used.extend(previous_ids.iter().map(|(_, id)| id.clone()));
    for (WebhookKey { label, keyword }, webhook) in new_webhooks {
        // There are infinitely many candidates, so one of them is free.
        let written = keyword.as_ref().map(|keyword| keyword.written.as_str());
        let mut ids = (0..).map(|n| WebhookId::derive(campaign, &label, written, n));
        if let Some(id) = ids.find(|id| !used.contains(id) && !is_used_elsewhere(id)) {
            // The number 1.0 and the text "1.0" have the same written form, so another candidate is needed.
            used.insert(id.clone());
            webhook.id = id;
        }
    }
}

fn webhooks_without_id(section: &mut Section) -> Vec<(WebhookKey, &mut Webhook)> {
    let Section { label, menu, webhook, .. } = section;
    let own = webhook.iter_mut().map(|webhook| (WebhookKey::new(label, None), Arc::make_mut(webhook)));
    let in_menu = menu.iter_mut().filter_map(|entry| {
        let key = WebhookKey::new(label, Some(entry));
        Some((key, Arc::make_mut(entry.webhook.as_mut()?)))
    });
    own.chain(in_menu).filter(|(_, webhook)| webhook.id == unassigned()).collect()
}
