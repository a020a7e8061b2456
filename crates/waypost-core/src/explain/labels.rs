//! The sentences of an explanation, for the editors of a campaign.

use crate::campaign::{Campaign, MenuEntry, WebhookPlace};
use crate::event::{Keyword, StepEvent};
use crate::normal_form::NormalForm;
use crate::resolve::{CampaignStep, MatchedBy};

/// Maximum number of labels or keywords in a sentence.
const MAX_LISTED: usize = 20;

pub(super) fn no_campaign(event: &StepEvent) -> String {
    let id = &event.campaign_id;
    format!("there is no campaign `{id}`: create it, or correct the event's `campaignId`")
}

pub(super) fn no_section(campaign: &Campaign, event: &StepEvent) -> String {
    let label = &event.label;
    let labels = || campaign.sections.iter().map(|section| section.label.as_str());
    if labels().next().is_none() {
        return "the campaign has no sections".to_owned();
    }
    match labels().find(|known| normalize(known) == normalize(label)) {
        Some(known) => format!(
            "the campaign has no section with the label `{label}`, but one with `{known}`: labels are compared \
             exactly, including case and spaces"
        ),
        None => format!("the campaign has no section with the label `{label}`; it has: {}", quoted_list(labels())),
    }
}

/// Removes the differences that people overlook: case and spaces.
fn normalize(text: &str) -> String {
    text.split_whitespace().collect::<String>().to_lowercase()
}

/// Why an entry matches the event, or why not.
pub(super) fn entry(entry: &MenuEntry, step: &CampaignStep<'_>, event: &StepEvent) -> String {
    match (step.choice, &event.keyword) {
        (Some((selected, MatchedBy::Keyword)), _) if std::ptr::eq(selected, entry) => {
            "matches by its keyword".to_owned()
        }
        (Some((selected, MatchedBy::Option)), None) if std::ptr::eq(selected, entry) => {
            "matches by its menu text, because the event has no keyword".to_owned()
        }
        (Some((selected, MatchedBy::Option)), Some(keyword)) if std::ptr::eq(selected, entry) => {
            format!("matches by its menu text, because {}", unknown_keyword(keyword, step))
        }
        (Some((selected, MatchedBy::Keyword)), _) if option_matches(entry, event) => {
            format!(
                "has the event's menu text, but keyword {} of another entry matches, and keywords take precedence",
                selected.keyword
            )
        }
        (Some((selected, MatchedBy::Keyword)), _) => format!("the event's keyword is {}", selected.keyword),
        (Some((selected, MatchedBy::Option)), _) if option_matches(entry, event) => {
            format!(
                "has the event's menu text, but so does the entry with keyword {}, which comes first",
                selected.keyword
            )
        }
        (_, None) => {
            option_mismatch(entry, event).unwrap_or_else(|| "the event has neither keyword nor option".to_owned())
        }
        (Some(_), Some(_)) => option_mismatch(entry, event)
            .unwrap_or_else(|| "neither its keyword nor its menu text matches the event".to_owned()),
        (None, Some(keyword)) => {
            let by_keyword = near_miss(entry, keyword).unwrap_or_else(|| unknown_keyword(keyword, step));
            match option_mismatch(entry, event) {
                Some(by_option) => format!("{by_keyword}; {by_option}"),
                None => by_keyword,
            }
        }
    }
}

fn option_matches(entry: &MenuEntry, event: &StepEvent) -> bool {
    match (&entry.option, &event.option) {
        (Some(one), Some(other)) => NormalForm::from_text(one) == NormalForm::from_text(other),
        _ => false,
    }
}

/// Why the event's option does not match the entry. `None` if the event has no option.
fn option_mismatch(entry: &MenuEntry, event: &StepEvent) -> Option<String> {
    let selected = event.option.as_ref()?;
    Some(match &entry.option {
        Some(text) => format!("its menu text `{text}` is not the event's `{selected}`"),
        None => "it has no menu text".to_owned(),
    })
}

fn unknown_keyword(keyword: &Keyword, step: &CampaignStep<'_>) -> String {
    let menu = &step.section.menu;
    format!(
        "the menu has no keyword {keyword} (it has {})",
        limited_list(menu.iter().map(|entry| entry.keyword.to_string()))
    )
}

/// Explains a keyword that looks like the entry's keyword but is a different text.
fn near_miss(entry: &MenuEntry, keyword: &Keyword) -> Option<String> {
    let (own, keyword) = (entry.keyword.to_string(), keyword.to_string());
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let same_number = number(&own).zip(number(&keyword)).is_some_and(|(own, keyword)| own == keyword);
    let is_near_miss = same_number || normalize(&own) == normalize(&keyword);
    is_near_miss.then(|| {
        format!(
            "keyword {keyword} is not {own}: texts are compared character by character, ignoring only case, character \
             encoding, invisible characters and surrounding space"
        )
    })
}

/// Why a webhook fires, or why not.
pub(super) fn webhook(place: WebhookPlace<'_>, step: &CampaignStep<'_>, event: &StepEvent) -> String {
    let is_reached = place.entry.is_none_or(|entry| step.has_chosen(entry));
    match (place.entry, is_reached, place.webhook.enabled) {
        (None, _, true) => "fires on every event of its section".to_owned(),
        (Some(_), true, true) => match step.choice {
            Some((_, MatchedBy::Option)) => "fires: its menu entry matches by its menu text".to_owned(),
            _ => "fires: its menu entry matches by its keyword".to_owned(),
        },
        (_, true, false) => "disabled: set `enabled` to true to make it fire".to_owned(),
        (Some(entry), false, enabled) => {
            let reason = self::entry(entry, step, event);
            let disabled_note = if enabled { "" } else { "; it is also disabled" };
            format!("its menu entry does not match: {reason}{disabled_note}")
        }
        // Impossible: without an entry, `is_reached` is true.
        (None, false, _) => String::new(),
    }
}

/// The webhooks that the event matches.
#[derive(Debug, Clone, Copy)]
pub(super) struct WebhookCounts {
    pub(super) firing: usize,
    /// Would fire if they were enabled.
    pub(super) disabled: usize,
}

/// What happens to the event.
pub(super) fn result(step: &CampaignStep<'_>, event: &StepEvent, webhooks: WebhookCounts) -> String {
    let WebhookCounts { firing, disabled } = webhooks;
    let disabled_note = match disabled {
        0 => String::new(),
        1 => "; one more would fire if it were enabled".to_owned(),
        number => format!("; {number} more would fire if they were enabled"),
    };
    match firing {
        0 if disabled > 0 => {
            "nothing is sent: all matching webhooks are disabled. Set `enabled` to true to make them fire".to_owned()
        }
        0 => format!("nothing is sent: {}", no_match_reason(step, event)),
        1 => format!("one webhook fires{disabled_note}"),
        number => format!("{number} webhooks fire{disabled_note}"),
    }
}

/// Why no webhook matches.
fn no_match_reason(step: &CampaignStep<'_>, event: &StepEvent) -> String {
    let section = step.section;
    match (step.choice, &event.keyword, &event.option) {
        (Some((entry, _)), ..) => {
            format!("neither the section nor its menu entry with keyword {} has a webhook", entry.keyword)
        }
        _ if section.menu.is_empty() => "the section has no webhook".to_owned(),
        (None, None, None) => {
            "the section has no webhook of its own, and the event has neither keyword nor option".to_owned()
        }
        (None, Some(keyword), _) => {
            format!("the section has no webhook of its own, and {}", unknown_keyword(keyword, step))
        }
        (None, None, Some(selected)) => {
            let texts: Vec<&str> = section.menu.iter().filter_map(|entry| entry.option.as_deref()).collect();
            format!(
                "the section has no webhook of its own, and the menu has no text `{selected}` (it has {})",
                quoted_list(texts.into_iter())
            )
        }
    }
}

fn quoted_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    limited_list(names.map(|name| format!("`{name}`")))
}

fn limited_list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let rest = names.len().saturating_sub(MAX_LISTED);
    let list = names[..names.len() - rest].join(", ");
    if rest == 0 { list } else { format!("{list} and {rest} more") }
}
