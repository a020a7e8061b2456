//! Ids for the webhooks to which the document gives none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::campaign::{Campaign, MenuEntry, Section, Webhook};
use super::super::event::comparable;
use super::super::identity::WebhookId;

/// Stands in a webhook that has no id yet. No id is empty.
pub(super) fn none_yet() -> WebhookId {
    WebhookId::new("")
}

/// What makes a webhook the same over edits: its section's label and, in a menu, its keyword as keywords are compared.
type PlaceKey = (String, Option<String>);

/// Gives each webhook without an id the one it had in `previous`, or else a new one that no webhook has or had there:
/// what waits for a webhook must never be sent to another.
///
/// `elsewhere` tells the ids of other campaigns' webhooks.
pub(super) fn complete(campaign: &mut Campaign, previous: Option<&Campaign>, elsewhere: &dyn Fn(&WebhookId) -> bool) {
    let previous = previous.filter(|previous| previous.id == campaign.id);
    let had: HashMap<PlaceKey, WebhookId> = previous
        .into_iter()
        .flat_map(Campaign::places)
        .map(|place| (key(&place.section.label, place.entry), place.webhook.id.clone()))
        .collect();
    let mut taken: HashSet<WebhookId> = campaign.places().map(|place| place.webhook.id.clone()).collect();
    let Campaign { id: campaign, sections, .. } = campaign;

    // All that are known keep their ids before any new one is made.
    let mut new = Vec::new();
    for (place, webhook) in sections.iter_mut().flat_map(places_without_id) {
        match had.get(&place) {
            Some(id) if taken.insert(id.clone()) => webhook.id = id.clone(),
            _ => new.push((place, webhook)),
        }
    }
    taken.extend(had.into_values());
    for ((label, keyword), webhook) in new {
        // The ids are without end, and not all can be taken. No two places give the same.
        let mut ids = (0..).map(|n| WebhookId::of_place(campaign, &label, keyword.as_deref(), n));
        if let Some(id) = ids.find(|id| !taken.contains(id) && !elsewhere(id)) {
            webhook.id = id;
        }
    }
}

fn key(label: &str, entry: Option<&MenuEntry>) -> PlaceKey {
    (label.to_owned(), entry.map(|entry| comparable(&entry.keyword.to_string())))
}

fn places_without_id(section: &mut Section) -> Vec<(PlaceKey, &mut Webhook)> {
    let Section { label, menu, webhook, .. } = section;
    let own = webhook.iter_mut().map(|webhook| (key(label, None), Arc::make_mut(webhook)));
    let of_menu = menu.iter_mut().filter_map(|entry| {
        let place = key(label, Some(entry));
        Some((place, Arc::make_mut(entry.webhook.as_mut()?)))
    });
    own.chain(of_menu).filter(|(_, webhook)| webhook.id == none_yet()).collect()
}
