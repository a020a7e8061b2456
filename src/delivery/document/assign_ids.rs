//! Ids for the webhooks to which the document gives none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::campaign::{Campaign, MenuEntry, Section, Webhook};
use super::super::ids::WebhookId;

/// Stands in a webhook that has no id yet. No id is empty.
pub(super) fn none_yet() -> WebhookId {
    WebhookId::new("")
}

/// What makes a webhook the same over edits: its section's label and, in a menu, its keyword.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PlaceKey {
    label: String,
    keyword: Option<KeywordKey>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct KeywordKey {
    /// In lower case and without surrounding space: ids have been derived from it since before there were normal forms.
    written: String,
    /// Its normal form. A campaign from before there were normal forms may have two keywords with the same.
    form: String,
}

impl PlaceKey {
    fn new(label: &str, entry: Option<&MenuEntry>) -> Self {
        let keyword = entry.map(|entry| KeywordKey {
            written: entry.keyword.to_string().trim().to_lowercase(),
            form: entry.keyword.normal_form().into_text(),
        });
        Self { label: label.to_owned(), keyword }
    }

    /// The place for whoever writes its keyword in another way.
    fn form(&self) -> (&str, Option<&str>) {
        (&self.label, self.keyword.as_ref().map(|keyword| keyword.form.as_str()))
    }
}

/// Gives each webhook without an id the one it had in `previous`, or else a new one that no webhook has or had there:
/// what waits for a webhook must never be sent to another.
///
/// `elsewhere` tells the ids of other campaigns' webhooks.
pub(super) fn complete(campaign: &mut Campaign, previous: Option<&Campaign>, elsewhere: &dyn Fn(&WebhookId) -> bool) {
    let previous = previous.filter(|previous| previous.id == campaign.id);
    let had: Vec<(PlaceKey, WebhookId)> = previous
        .into_iter()
        .flat_map(Campaign::places)
        .map(|place| (PlaceKey::new(&place.section.label, place.entry), place.webhook.id.clone()))
        .collect();
    let as_written: HashMap<&PlaceKey, &WebhookId> = had.iter().map(|(place, id)| (place, id)).collect();
    // Of two with the same form the first, which is the one that events match.
    let by_form: HashMap<_, &WebhookId> = had.iter().rev().map(|(place, id)| (place.form(), id)).collect();
    let mut taken: HashSet<WebhookId> = campaign.places().map(|place| place.webhook.id.clone()).collect();
    let Campaign { id: campaign, sections, .. } = campaign;

    // All that are known keep their ids before any new one is made.
    let mut new = Vec::new();
    for (place, webhook) in sections.iter_mut().flat_map(places_without_id) {
        match as_written.get(&place).or_else(|| by_form.get(&place.form())) {
            Some(id) if taken.insert((*id).clone()) => webhook.id = (*id).clone(),
            _ => new.push((place, webhook)),
        }
    }
    taken.extend(had.iter().map(|(_, id)| id.clone()));
    for (PlaceKey { label, keyword }, webhook) in new {
        // The ids are without end, and not all can be taken.
        let written = keyword.as_ref().map(|keyword| keyword.written.as_str());
        let mut ids = (0..).map(|n| WebhookId::of_place(campaign, &label, written, n));
        if let Some(id) = ids.find(|id| !taken.contains(id) && !elsewhere(id)) {
            // The number 1.0 and the text "1.0" are written alike.
            taken.insert(id.clone());
            webhook.id = id;
        }
    }
}

fn places_without_id(section: &mut Section) -> Vec<(PlaceKey, &mut Webhook)> {
    let Section { label, menu, webhook, .. } = section;
    let own = webhook.iter_mut().map(|webhook| (PlaceKey::new(label, None), Arc::make_mut(webhook)));
    let of_menu = menu.iter_mut().filter_map(|entry| {
        let place = PlaceKey::new(label, Some(entry));
        Some((place, Arc::make_mut(entry.webhook.as_mut()?)))
    });
    own.chain(of_menu).filter(|(_, webhook)| webhook.id == none_yet()).collect()
}
