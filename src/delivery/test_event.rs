//! A step event to try a webhook with, where nobody has reached the step.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::campaign::WebhookPlace;
use super::event::{self, StepEvent};
use super::timestamp;
use super::violation::Violation;

/// Of a range that belongs to nobody.
pub const PHONE_NUMBER: &str = "+12025550100";

/// The event of a user who has reached the step of `place`, with what was `given` in place of what is made up. `unique`
/// tells one sample from the next.
///
/// # Errors
/// The faults of what was given, with paths below `$.event`.
pub fn test_event(
    given: Map<String, Value>,
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
    event.extend(given);
    let body = Value::Object(event).to_string();
    event::decode(body.as_bytes(), None).map_err(|faults| faults.into_iter().map(within_event).collect())
}

fn within_event(fault: Violation) -> Violation {
    Violation { path: fault.path.replacen('$', "$.event", 1), ..fault }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::delivery::document::tests::example;

    fn sample(keyword: Option<&str>, given: Value) -> Result<StepEvent, Vec<Violation>> {
        let campaign = example();
        let of = |place: &WebhookPlace<'_>| place.entry.map(|entry| entry.keyword.to_string()).as_deref() == keyword;
        let place = campaign.places().find(of).expect("a place");
        let given = given.as_object().cloned().expect("an object");
        test_event(given, &campaign.id, &place, DateTime::UNIX_EPOCH, "1")
    }

    #[test]
    fn what_is_left_out_is_made_up() {
        let made_up = sample(Some("4"), json!({})).expect("an event");
        let (label, option) = (made_up.label.as_str(), made_up.option.as_deref());
        assert_eq!((label, option, made_up.event_id.as_str()), ("Welcome Message", Some("Offers"), "test-1"));
        assert_eq!(made_up.keyword.map(|keyword| keyword.to_json()), Some(json!(4)));
        let given =
            sample(Some("4"), json!({ "option": null, "keyword": "four", "phoneNumber": "7" })).expect("an event");
        assert_eq!((given.option, given.phone_number.as_str()), (None, "7"));
        assert_eq!(given.keyword.map(|keyword| keyword.to_json()), Some(json!("four")));
        let own = sample(None, json!({})).expect("an event");
        assert_eq!((own.label.as_str(), own.keyword, own.response.as_deref()), ("Offers", None, Some("test")));
    }

    #[test]
    fn what_was_given_may_have_faults() {
        let faults = sample(None, json!({ "date": "today", "keyword": [] })).expect_err("it was taken");
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["$.event.date", "$.event.keyword"]);
    }
}
