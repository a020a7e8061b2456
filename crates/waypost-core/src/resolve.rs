//! Resolves an event to the webhooks of its campaign that it fires.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::campaign::{Campaign, MenuEntry, Section, Target, WebhookPlace};
use super::event::StepEvent;
use super::normal_form::NormalForm;
use super::reason::DeadLetterReason;

/// The step of a campaign that an event is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CampaignStep<'a> {
    /// The section with the event's label.
    pub section: &'a Section,
    /// The menu entry that the user chose, and the field that matched.
    pub choice: Option<(&'a MenuEntry, MatchedBy)>,
}

/// The field by which an event matched a menu entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MatchedBy {
    /// The keyword that the user typed.
    Keyword,
    /// The menu text that the user chose. The event has no keyword, or no entry has its keyword.
    Option,
}

/// The enabled webhooks of the event's step: the section's own webhook, then the webhook of the menu entry.
pub fn resolve(campaign: &Campaign, event: &StepEvent) -> Vec<Target> {
    let fires = |place: &WebhookPlace<'_>| place.webhook.enabled;
    step(campaign, event).iter().flat_map(CampaignStep::places).filter(fires).map(|place| place.target()).collect()
}

/// The current configuration of a waiting delivery's webhook.
///
/// # Errors
/// If the webhook was deleted or disabled.
pub fn current_target(place: Option<WebhookPlace<'_>>) -> Result<Target, DeadLetterReason> {
    match place {
        None => Err(DeadLetterReason::WebhookDeleted),
        Some(place) if !place.webhook.enabled => Err(DeadLetterReason::WebhookDisabled),
        Some(place) => Ok(place.target()),
    }
}

/// `None` if the campaign has no section with the event's label.
pub fn step<'a>(campaign: &'a Campaign, event: &StepEvent) -> Option<CampaignStep<'a>> {
    let section = campaign.sections.iter().find(|section| section.label == event.label)?;
    let by_keyword = || {
        let keyword = event.keyword.as_ref()?.normal_form();
        let entry = section.menu.iter().find(|entry| entry.keyword.normal_form() == keyword)?;
        Some((entry, MatchedBy::Keyword))
    };
    let by_option = || {
        let option = NormalForm::from_text(event.option.as_ref()?);
        let has_option =
            |entry: &&MenuEntry| entry.option.as_ref().is_some_and(|text| NormalForm::from_text(text) == option);
        let entry = section.menu.iter().find(has_option)?;
        Some((entry, MatchedBy::Option))
    };
    Some(CampaignStep { section, choice: by_keyword().or_else(by_option) })
}

impl<'a> CampaignStep<'a> {
    pub fn has_chosen(&self, entry: &MenuEntry) -> bool {
        self.choice.is_some_and(|(chosen, _)| std::ptr::eq(chosen, entry))
    }

    /// The webhooks of the step in the order in which they fire, including disabled webhooks.
    pub fn places(&self) -> impl Iterator<Item = WebhookPlace<'a>> + use<'a> {
        let section = self.section;
        let own = section.webhook.iter().map(move |webhook| WebhookPlace { section, entry: None, webhook });
        let from_menu = self.choice.and_then(|(entry, _)| {
            entry.webhook.as_ref().map(|webhook| WebhookPlace { section, entry: Some(entry), webhook })
        });
        own.chain(from_menu)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::campaign::WebhookKind;
    use crate::document;
    use crate::event::Keyword;
    use crate::ids::EventId;

    fn event(label: &str, keyword: Value, option: Option<&str>) -> StepEvent {
        StepEvent {
            campaign_id: "13010".to_owned(),
            label: label.to_owned(),
            phone_number: "5511999990000".to_owned(),
            date: chrono::DateTime::UNIX_EPOCH,
            response: None,
            option: option.map(str::to_owned),
            keyword: Keyword::from_json(&keyword),
            event_id: EventId::new("event-1"),
        }
    }

    /// The kinds of the webhooks that fire, and the last segments of their URLs.
    fn fired_webhooks(campaign: &Campaign, event: &StepEvent) -> Vec<(WebhookKind, String)> {
        let last_segment = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
        resolve(campaign, event)
            .into_iter()
            .map(|target| (target.kind, last_segment(target.webhook.url.as_str())))
            .collect()
    }

    #[test]
    fn the_example_campaign_is_resolved() {
        use WebhookKind::{Redirect, Underlying};
        let campaign = document::tests::example();
        let none = &[][..];
        for (label, keyword, option, expected) in [
            ("Welcome Message", json!(1), Some("Plans"), none),
            ("Welcome Message", json!(2), Some("Raffle"), none),
            ("Welcome Message", json!(3), None, &[(Redirect, "agent")]),
            ("Welcome Message", json!(4), Some("Offers"), &[(Underlying, "offers")]),
            ("Welcome Message", json!(5), Some("Survey"), &[(Underlying, "survey")]),
            // Keywords and options match by their normal forms.
            ("Welcome Message", json!(" 4 "), None, &[(Underlying, "offers")]),
            ("Welcome Message", json!("４\u{200b}"), None, &[(Underlying, "offers")]),
            ("Welcome Message", json!(4.0), None, &[(Underlying, "offers")]),
            ("Welcome Message", json!("4.0"), None, none),
            ("Welcome Message", Value::Null, Some(" oFFers "), &[(Underlying, "offers")]),
            ("Welcome Message", Value::Null, Some("Ｏffers\u{fe0f}"), &[(Underlying, "offers")]),
            // The option is used only if no entry has the keyword.
            ("Welcome Message", json!(4), Some("Survey"), &[(Underlying, "offers")]),
            ("Welcome Message", json!(1), Some("Survey"), none),
            ("Welcome Message", json!(9), Some("Survey"), &[(Underlying, "survey")]),
            ("Welcome Message", json!(9), Some("Nothing"), none),
            ("Welcome Message", Value::Null, None, none),
            // A section without a menu fires its own webhook for every choice.
            ("Offers", Value::Null, None, &[(Redirect, "name")]),
            ("Offers", json!(4), Some("Offers"), &[(Redirect, "name")]),
            ("Plans", json!(1), None, none),
            // Labels are compared exactly.
            ("offers", Value::Null, None, none),
            ("No such section", json!(4), None, none),
        ] {
            let event = event(label, keyword.clone(), option);
            let expected: Vec<_> = expected.iter().map(|(kind, end)| (*kind, (*end).to_owned())).collect();
            assert_eq!(fired_webhooks(&campaign, &event), expected, "{label} {keyword} {option:?}");
        }
    }

    #[test]
    fn the_webhooks_of_section_and_entry_fire_if_enabled() {
        for (own_enabled, entry_enabled) in [(true, true), (true, false), (false, true), (false, false)] {
            let document = json!({ "id": "13010", "sections": [{
                "label": "a",
                "webhook": { "url": "https://example.com/own", "enabled": own_enabled },
                "menu": [{
                    "keyword": "yes",
                    "redirect": { "type": "webhook" },
                    "webhook": { "url": "https://example.com/entry", "enabled": entry_enabled },
                }],
            }]});
            let campaign = document::read(document.to_string().as_bytes(), crate::egress::HttpUrls::Refused, None)
                .expect("a valid document");
            let all = [
                (WebhookKind::Underlying, "own".to_owned(), own_enabled),
                (WebhookKind::Redirect, "entry".to_owned(), entry_enabled),
            ];
            let expected: Vec<_> =
                all.into_iter().filter(|(.., enabled)| *enabled).map(|(kind, end, _)| (kind, end)).collect();
            assert_eq!(fired_webhooks(&campaign, &event("a", json!("YES"), None)), expected);
            let without_entry = fired_webhooks(&campaign, &event("a", json!("no"), None));
            assert_eq!(without_entry.len(), usize::from(own_enabled));
        }
    }

    #[test]
    fn a_step_has_the_field_that_matched() {
        let campaign = document::tests::example();
        for (keyword, option, expected) in [
            (json!(4), Some("Survey"), Some(MatchedBy::Keyword)),
            (json!(9), Some("Survey"), Some(MatchedBy::Option)),
            (Value::Null, Some("survey"), Some(MatchedBy::Option)),
            (json!(9), None, None),
        ] {
            let event = event("Welcome Message", keyword, option);
            let step = step(&campaign, &event).expect("a section");
            assert_eq!(step.section.label, "Welcome Message");
            assert_eq!(step.choice.map(|(_, matched_by)| matched_by), expected);
        }
    }
}
