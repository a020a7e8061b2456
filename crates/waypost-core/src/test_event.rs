//! A synthetic step event to test a webhook.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::campaign::WebhookPlace;
use super::event::{self, StepEvent};
use super::timestamp;
use super::violation::Violation;

/// In a range reserved for fictional use.
pub const PHONE_NUMBER: &str = "+12025550100";

/// An event of a user who reached the step at `place`. The fields in `overrides` replace the generated fields. `unique`
/// makes the event id unique.
///
/// # Errors
/// The violations in `overrides`, with paths below `$.event`.
pub fn test_event(
    overrides: Map<String, Value>,
    campaign: &str,
    place: &WebhookPlace<'_>,
    now: DateTime<Utc>,
    unique: &str,
) -> Result<StepEvent, Vec<Violation>> {
    let mut event = Map::new();
    let mut add = |name: &str, value: Value| event.insert(name.to_owned(), value);
    add("campaignId", campaign.into());
    add("label", place.section.label.as_str().into());
    add("phoneNumber", PHONE_NUMBER.into());
    add("date", timestamp::text(&now).into());
    match place.entry {
        Some(entry) => {
            add("response", entry.keyword.to_string().into());
            add("option", entry.option.as_deref().into());
            add("keyword", entry.keyword.to_json());
        }
        None => {
            add("response", "test".into());
        }
    }
    add("eventId", format!("test-{unique}").into());
    event.extend(overrides);
    let body = Value::Object(event).to_string();
    event::decode(body.as_bytes(), None).map_err(|violations| violations.into_iter().map(below_event).collect())
}

fn below_event(violation: Violation) -> Violation {
    Violation { path: violation.path.replacen('$', "$.event", 1), ..violation }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::tests::example;

    fn create(keyword: Option<&str>, overrides: Value) -> Result<StepEvent, Vec<Violation>> {
        let campaign = example();
        let has_keyword =
            |place: &WebhookPlace<'_>| place.entry.map(|entry| entry.keyword.to_string()).as_deref() == keyword;
        let place = campaign.places().find(has_keyword).expect("a place");
        let overrides = overrides.as_object().cloned().expect("an object");
        test_event(overrides, &campaign.id, &place, DateTime::UNIX_EPOCH, "1")
    }

    #[test]
    fn missing_fields_are_generated() {
        let generated = create(Some("4"), json!({})).expect("an event");
        let (label, option) = (generated.label.as_str(), generated.option.as_deref());
        assert_eq!((label, option, generated.event_id.as_str()), ("Welcome Message", Some("Offers"), "test-1"));
        assert_eq!(generated.keyword.map(|keyword| keyword.to_json()), Some(json!(4)));
        let overridden =
            create(Some("4"), json!({ "option": null, "keyword": "four", "phoneNumber": "7" })).expect("an event");
        assert_eq!((overridden.option, overridden.phone_number.as_str()), (None, "7"));
        assert_eq!(overridden.keyword.map(|keyword| keyword.to_json()), Some(json!("four")));
        let of_section = create(None, json!({})).expect("an event");
        assert_eq!(
            (of_section.label.as_str(), of_section.keyword, of_section.response.as_deref()),
            ("Offers", None, Some("test"))
        );
    }

    #[test]
    fn invalid_overrides_are_refused() {
        let violations = create(None, json!({ "date": "today", "keyword": [] })).expect_err("it was accepted");
        let paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, ["$.event.date", "$.event.keyword"]);
    }
}
