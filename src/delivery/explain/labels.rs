//! The sentences of an explanation, for whoever looks after a campaign.

use super::super::campaign::{Campaign, MenuEntry, WebhookPlace};
use super::super::event::{Keyword, StepEvent};
use super::super::normal_form::NormalForm;
use super::super::resolve::{MatchedBy, Step};
use super::ExplainedWebhook;

/// The most labels or keywords that a sentence lists.
const MOST_LISTED: usize = 20;

pub(super) fn no_campaign(event: &StepEvent) -> String {
    let id = &event.campaign_id;
    format!("there is no campaign `{id}`: create it, or mend the event's `campaignId`")
}

pub(super) fn no_section(campaign: &Campaign, event: &StepEvent) -> String {
    let label = &event.label;
    let labels = || campaign.sections.iter().map(|section| section.label.as_str());
    if labels().next().is_none() {
        return "the campaign has no sections".to_owned();
    }
    match labels().find(|known| squeezed(known) == squeezed(label)) {
        Some(known) => format!(
            "the campaign has no section with the label `{label}`, but one with `{known}`: labels are compared exactly, \
             case and space included"
        ),
        None => format!("the campaign has no section with the label `{label}`; it has: {}", quoted(labels())),
    }
}

/// Without what people overlook: case, and how much space there is.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<String>().to_lowercase()
}

/// Why an entry is the user's choice, or is not.
pub(super) fn entry(entry: &MenuEntry, step: &Step<'_>, event: &StepEvent) -> String {
    match (step.choice, &event.keyword) {
        (Some((chosen, MatchedBy::Keyword)), _) if std::ptr::eq(chosen, entry) => "matches by its keyword".to_owned(),
        (Some((chosen, MatchedBy::Option)), None) if std::ptr::eq(chosen, entry) => {
            "matches by its menu text, for the event has no keyword".to_owned()
        }
        (Some((chosen, MatchedBy::Option)), Some(typed)) if std::ptr::eq(chosen, entry) => {
            format!("matches by its menu text, for {}", unknown_keyword(typed, step))
        }
        (Some((chosen, MatchedBy::Keyword)), _) if has_option_of(entry, event) => {
            format!(
                "has the event's menu text, but the keyword counts first, and {} is another entry's",
                chosen.keyword
            )
        }
        (Some((chosen, MatchedBy::Keyword)), _) => format!("the event's keyword is {}", chosen.keyword),
        (Some((chosen, MatchedBy::Option)), _) if has_option_of(entry, event) => {
            format!("has the event's menu text, but so has keyword {}, which comes first", chosen.keyword)
        }
        (_, None) => no_option(entry, event).unwrap_or_else(|| "the event has neither keyword nor option".to_owned()),
        (Some(_), Some(_)) => {
            no_option(entry, event).unwrap_or_else(|| "neither its keyword nor its menu text is the event's".to_owned())
        }
        (None, Some(typed)) => {
            let by_keyword = nearly(entry, typed).unwrap_or_else(|| unknown_keyword(typed, step));
            match no_option(entry, event) {
                Some(by_option) => format!("{by_keyword}; {by_option}"),
                None => by_keyword,
            }
        }
    }
}

fn has_option_of(entry: &MenuEntry, event: &StepEvent) -> bool {
    match (&entry.option, &event.option) {
        (Some(one), Some(other)) => NormalForm::of_text(one) == NormalForm::of_text(other),
        _ => false,
    }
}

/// Why the event's option, if it has one, is not the entry's.
fn no_option(entry: &MenuEntry, event: &StepEvent) -> Option<String> {
    let chosen = event.option.as_ref()?;
    Some(match &entry.option {
        Some(own) => format!("its menu text `{own}` is not the event's `{chosen}`"),
        None => "it has no menu text".to_owned(),
    })
}

fn unknown_keyword(typed: &Keyword, step: &Step<'_>) -> String {
    let menu = &step.section.menu;
    format!("keyword {typed} is none of this menu's: {}", listed(menu.iter().map(|entry| entry.keyword.to_string())))
}

/// A keyword that would match if texts were numbers, or if the space within them did not count.
fn nearly(entry: &MenuEntry, typed: &Keyword) -> Option<String> {
    let (own, typed) = (entry.keyword.to_string(), typed.to_string());
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let same_number = number(&own).zip(number(&typed)).is_some_and(|(own, typed)| own == typed);
    let nearly = same_number || squeezed(&own) == squeezed(&typed);
    nearly.then(|| {
        format!(
            "keyword {typed} is not {own}: texts are compared character by character, ignoring only case, how a character is \
             encoded, invisible characters and the space around them"
        )
    })
}

/// Why a webhook fires, or does not.
pub(super) fn webhook(place: WebhookPlace<'_>, step: &Step<'_>, event: &StepEvent) -> String {
    let reached = place.entry.is_none_or(|entry| super::is_chosen(entry, step));
    match (place.entry, reached, place.webhook.enabled) {
        (None, _, true) => "fires on every event of its section".to_owned(),
        (Some(_), true, true) => match step.choice {
            Some((_, MatchedBy::Option)) => "fires: its menu entry matches by its menu text".to_owned(),
            _ => "fires: its menu entry matches by its keyword".to_owned(),
        },
        (_, true, false) => "disabled: set `enabled` to true, and it fires".to_owned(),
        (Some(entry), false, enabled) => {
            let why = self::entry(entry, step, event);
            let and_disabled = if enabled { "" } else { "; and it is disabled" };
            format!("its menu entry does not match: {why}{and_disabled}")
        }
        // Not reached there is always an entry.
        (None, false, _) => String::new(),
    }
}

/// What becomes of the event.
pub(super) fn result(step: &Step<'_>, event: &StepEvent, webhooks: &[ExplainedWebhook]) -> String {
    let count = |test: fn(&ExplainedWebhook) -> bool| webhooks.iter().filter(|webhook| test(webhook)).count();
    let disabled = count(|webhook| !webhook.enabled && webhook.request.is_some());
    let and_disabled = match disabled {
        0 => String::new(),
        1 => ", and one that is disabled would".to_owned(),
        several => format!(", and {several} that are disabled would"),
    };
    match count(|webhook| webhook.fires) {
        0 if disabled > 0 => "nothing is sent: what matches is disabled; set `enabled` to true".to_owned(),
        0 => format!("nothing is sent: {}", nothing(step, event)),
        1 => format!("one webhook fires{and_disabled}"),
        several => format!("{several} webhooks fire{and_disabled}"),
    }
}

/// Why no webhook was reached.
fn nothing(step: &Step<'_>, event: &StepEvent) -> String {
    let section = step.section;
    match (step.choice, &event.keyword, &event.option) {
        (Some((entry, _)), ..) => {
            format!(
                "the section has no webhook of its own, and neither has its menu entry with keyword {}",
                entry.keyword
            )
        }
        _ if section.menu.is_empty() => "the section has no webhook".to_owned(),
        (None, None, None) => {
            "the section has no webhook of its own, and the event has neither keyword nor option".to_owned()
        }
        (None, Some(typed), _) => {
            format!("the section has no webhook of its own, and {}", unknown_keyword(typed, step))
        }
        (None, None, Some(chosen)) => {
            let texts: Vec<&str> = section.menu.iter().filter_map(|entry| entry.option.as_deref()).collect();
            format!(
                "the section has no webhook of its own, and the menu text `{chosen}` is none of this menu's: {}",
                quoted(texts.into_iter())
            )
        }
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    listed(names.map(|name| format!("`{name}`")))
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let rest = names.len().saturating_sub(MOST_LISTED);
    let shown = names[..names.len() - rest].join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}
