//! Resolving: which webhooks of a campaign an event fires.

use schemars::JsonSchema;
use serde::Serialize;

use super::campaign::{Campaign, MenuEntry, Section, Target, WebhookPlace};
use super::event::StepEvent;
use super::normal_form::NormalForm;
use super::reason::DeadLetterReason;

/// Where in a campaign an event happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step<'a> {
    /// The section with the event's label.
    pub section: &'a Section,
    /// The menu entry the user chose, and how it is known.
    pub choice: Option<(&'a MenuEntry, MatchedBy)>,
}

/// By which of its fields an event matched a menu entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MatchedBy {
    /// The keyword typed.
    Keyword,
    /// The menu text chosen: the event has no keyword, or one that no entry has.
    Option,
}

/// The webhooks that fire for `event`, an event of `campaign`: the section's own, then the menu entry's.
pub fn resolve(campaign: &Campaign, event: &StepEvent) -> Vec<Target> {
    let fires = |place: &WebhookPlace<'_>| place.webhook.enabled;
    step(campaign, event).iter().flat_map(Step::places).filter(fires).map(|place| place.target()).collect()
}

/// The webhook of a delivery that has waited, as it is configured now.
///
/// # Errors
/// Why there is none to send to.
pub fn current(place: Option<WebhookPlace<'_>>) -> Result<Target, DeadLetterReason> {
    match place {
        None => Err(DeadLetterReason::WebhookDeleted),
        Some(place) if !place.webhook.enabled => Err(DeadLetterReason::WebhookDisabled),
        Some(place) => Ok(place.target()),
    }
}

/// The step of `campaign` that `event` is about, if the campaign has it.
pub fn step<'a>(campaign: &'a Campaign, event: &StepEvent) -> Option<Step<'a>> {
    let section = campaign.sections.iter().find(|section| section.label == event.label)?;
    let by_keyword = || {
        let typed = event.keyword.as_ref()?.normal_form();
        let entry = section.menu.iter().find(|entry| entry.keyword.normal_form() == typed)?;
        Some((entry, MatchedBy::Keyword))
    };
    let by_option = || {
        let chosen = NormalForm::of_text(event.option.as_ref()?);
        let has_it =
            |entry: &&MenuEntry| entry.option.as_ref().is_some_and(|option| NormalForm::of_text(option) == chosen);
        let entry = section.menu.iter().find(has_it)?;
        Some((entry, MatchedBy::Option))
    };
    Some(Step { section, choice: by_keyword().or_else(by_option) })
}

impl<'a> Step<'a> {
    /// The webhooks attached to the step, enabled or not, in the order in which they fire.
    pub fn places(&self) -> impl Iterator<Item = WebhookPlace<'a>> + use<'a> {
        let section = self.section;
        let own = section.webhook.iter().map(move |webhook| WebhookPlace { section, entry: None, webhook });
        let chosen = self.choice.and_then(|(entry, _)| {
            entry.webhook.as_ref().map(|webhook| WebhookPlace { section, entry: Some(entry), webhook })
        });
        own.chain(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::campaign::WebhookKind;
    use crate::delivery::document;
    use crate::delivery::event::Keyword;
    use crate::delivery::ids::EventId;
    use serde_json::{Value, json};

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

    /// What fires, as the kinds and the last part of the URLs.
    fn fired(campaign: &Campaign, event: &StepEvent) -> Vec<(WebhookKind, String)> {
        let last = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
        resolve(campaign, event).into_iter().map(|target| (target.kind, last(target.webhook.url.as_str()))).collect()
    }

    #[test]
    fn the_five_menu_entries_of_the_example() {
        use WebhookKind::{Redirect, Underlying};
        let campaign = document::tests::example();
        let none = &[][..];
        for (label, keyword, option, expected) in [
            ("Welcome Message", json!(1), Some("Plans"), none),
            ("Welcome Message", json!(2), Some("Raffle"), none),
            ("Welcome Message", json!(3), None, &[(Redirect, "agent")]),
            ("Welcome Message", json!(4), Some("Offers"), &[(Underlying, "offers")]),
            ("Welcome Message", json!(5), Some("Survey"), &[(Underlying, "survey")]),
            // By their normal forms.
            ("Welcome Message", json!(" 4 "), None, &[(Underlying, "offers")]),
            ("Welcome Message", json!("４\u{200b}"), None, &[(Underlying, "offers")]),
            ("Welcome Message", json!(4.0), None, &[(Underlying, "offers")]),
            ("Welcome Message", json!("4.0"), None, none),
            ("Welcome Message", Value::Null, Some(" oFFers "), &[(Underlying, "offers")]),
            ("Welcome Message", Value::Null, Some("Ｏffers\u{fe0f}"), &[(Underlying, "offers")]),
            // The keyword decides; the option only where no entry has the keyword.
            ("Welcome Message", json!(4), Some("Survey"), &[(Underlying, "offers")]),
            ("Welcome Message", json!(1), Some("Survey"), none),
            ("Welcome Message", json!(9), Some("Survey"), &[(Underlying, "survey")]),
            ("Welcome Message", json!(9), Some("Nothing"), none),
            ("Welcome Message", Value::Null, None, none),
            // A section without a menu: its own webhook, whatever was chosen.
            ("Offers", Value::Null, None, &[(Redirect, "name")]),
            ("Offers", json!(4), Some("Offers"), &[(Redirect, "name")]),
            ("Plans", json!(1), None, none),
            // Labels are compared exactly.
            ("offers", Value::Null, None, none),
            ("No such section", json!(4), None, none),
        ] {
            let event = event(label, keyword.clone(), option);
            let expected: Vec<_> = expected.iter().map(|(kind, end)| (*kind, (*end).to_owned())).collect();
            assert_eq!(fired(&campaign, &event), expected, "{label} {keyword} {option:?}");
        }
    }

    #[test]
    fn a_sections_own_webhook_and_the_entrys_fire_if_they_are_enabled() {
        for (own, of_entry) in [(true, true), (true, false), (false, true), (false, false)] {
            let document = json!({ "id": "13010", "sections": [{
                "label": "a",
                "webhook": { "url": "https://example.com/own", "enabled": own },
                "menu": [{
                    "keyword": "yes",
                    "redirect": { "type": "webhook" },
                    "webhook": { "url": "https://example.com/entry", "enabled": of_entry },
                }],
            }]});
            let campaign =
                document::read(document.to_string().as_bytes(), crate::delivery::egress::HttpUrls::Refused, None)
                    .expect("a valid document");
            let all = [
                (WebhookKind::Underlying, "own".to_owned(), own),
                (WebhookKind::Redirect, "entry".to_owned(), of_entry),
            ];
            let expected: Vec<_> =
                all.into_iter().filter(|(.., enabled)| *enabled).map(|(kind, end, _)| (kind, end)).collect();
            assert_eq!(fired(&campaign, &event("a", json!("YES"), None)), expected);
            let alone = fired(&campaign, &event("a", json!("no"), None));
            assert_eq!(alone.len(), usize::from(own));
        }
    }

    #[test]
    fn a_step_says_how_its_entry_was_found() {
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
            assert_eq!(step.choice.map(|(_, by)| by), expected);
        }
    }
}
