//! Filters dead letters by campaign, phone number, endpoint, reason, time and more. All conditions must hold.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LetterState;
use crate::campaign::MASK;
use crate::endpoint::Origin;
use crate::ids::{DeliveryId, EventId, WebhookId};
use crate::reason::DeadLetterReason;
use crate::timestamp;
use crate::violation::{Violation, type_name};

/// Conditions on dead letters. An absent condition matches all letters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterFilter", deny_unknown_fields)]
pub struct LetterFilter {
    /// The exact id of the campaign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The exact label of the section, case-sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The exact id of the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<WebhookId>,
    /// The exact phone number of the event. Erased letters have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// The exact id of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// The exact id of the delivery, which is the value of the header `webhook-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// The endpoint of the last attempt: scheme, host and port. The default port may be omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Origin>,
    /// Why the delivery or the event became a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadLetterReason>,
    /// The HTTP status of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// It became a dead letter at this time or later.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub since: Option<DateTime<Utc>>,
    /// It became a dead letter before this time.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub until: Option<DateTime<Utc>>,
    /// Without a state, lists show letters in any state, and replays and discards select pending letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LetterState>,
}

impl LetterFilter {
    /// The names of all fields in the API.
    pub const FIELDS: [&str; 12] = [
        "campaignId",
        "label",
        "webhookId",
        "phoneNumber",
        "eventId",
        "deliveryId",
        "endpoint",
        "reason",
        "status",
        "since",
        "until",
        "state",
    ];

    /// The fields that are the same for the new letter of a failed replay. Its endpoint may differ.
    pub const STABLE_FIELDS: [&str; 6] = ["campaignId", "label", "webhookId", "phoneNumber", "eventId", "deliveryId"];

    /// Reads a filter from the fields of a query, where all values are strings, or of a JSON object. `path` is the path
    /// of the fields: `$.filter`, or empty.
    ///
    /// # Errors
    /// All violations.
    pub fn read(fields: impl IntoIterator<Item = (String, Value)>, path: &str) -> Result<Self, Vec<Violation>> {
        let mut filter = Self::default();
        let mut violations = Vec::new();
        for (name, value) in fields {
            if let Err(message) = filter.set(&name, &value) {
                violations.push(Violation::new(field_path(path, &name), message));
            }
        }
        if let (Some(since), Some(until)) = (filter.since, filter.until)
            && since >= until
        {
            violations.push(Violation::new(field_path(path, "until"), "is not later than `since`: give a later time"));
        }
        if violations.is_empty() { Ok(filter) } else { Err(violations) }
    }

    /// The present fields with their texts. [`Self::read`] reads them again.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        // Serialization can't fail: all keys are strings.
        let values = serde_json::to_value(self).unwrap_or_default();
        let text = |name: &'static str| match &values[name] {
            Value::String(text) => Some((name, text.clone())),
            Value::Number(number) => Some((name, number.to_string())),
            _ => None,
        };
        Self::FIELDS.into_iter().filter_map(text).collect()
    }

    /// Adds the condition that letters are pending, if the filter has no state.
    #[must_use]
    pub fn or_pending(&self) -> Self {
        Self { state: self.state.or(Some(LetterState::Pending)), ..self.clone() }
    }

    /// Excludes letters that are newer than `newest`. `until` is exclusive, and times have milliseconds.
    #[must_use]
    pub fn up_to(&self, newest: DateTime<Utc>) -> Self {
        let end = newest.checked_add_signed(TimeDelta::milliseconds(1));
        Self { until: self.until.into_iter().chain(end).min(), ..self.clone() }
    }

    /// Masks the phone number, for logs.
    #[must_use]
    pub fn masked(&self) -> Self {
        Self { phone_number: self.phone_number.as_ref().map(|_| MASK.to_owned()), ..self.clone() }
    }

    /// Whether the filter selects by person, event, delivery or endpoint. Version 0.1 ignores these conditions, and would
    /// select more letters.
    pub fn has_identity_conditions(&self) -> bool {
        self.phone_number.is_some() || self.event_id.is_some() || self.delivery_id.is_some() || self.endpoint.is_some()
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            // Null is probably a missing variable of a program, not a wish for all letters.
            name if value.is_null() && Self::FIELDS.contains(&name) => {
                return Err("is null: give it a value, or remove it to select all".to_owned());
            }
            "campaignId" => self.campaign_id = Some(id(value)?.to_owned()),
            "label" => self.label = Some(text(value)?.to_owned()),
            "webhookId" => self.webhook_id = Some(WebhookId::new(id(value)?)),
            "phoneNumber" => self.phone_number = Some(id(value)?.to_owned()),
            "eventId" => self.event_id = Some(EventId::new(id(value)?)),
            "deliveryId" => self.delivery_id = Some(DeliveryId::new(id(value)?)),
            "endpoint" => self.endpoint = Some(Origin::parse(id(value)?)?),
            "reason" => self.reason = Some(one_of(text(value)?, &DeadLetterReason::ALL, DeadLetterReason::as_str)?),
            "status" => self.status = Some(status(value)?),
            "since" => self.since = Some(time(value)?),
            "until" => self.until = Some(time(value)?),
            "state" => self.state = Some(one_of(text(value)?, &LetterState::ALL, LetterState::as_str)?),
            _ => return Err(format!("unknown field: a filter has {}", Self::FIELDS.join(", "))),
        }
        Ok(())
    }
}

fn field_path(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, found {}", type_name(value)))
}

fn id(value: &Value) -> Result<&str, String> {
    // An empty text is probably an unset variable of a script.
    Some(text(value)?)
        .filter(|id| !id.is_empty())
        .ok_or_else(|| "is empty: give it a value, or remove it to select all".to_owned())
}

fn one_of<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let names = || all.iter().map(|value| name(*value)).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|value| name(*value) == text).ok_or_else(|| format!("must be one of {}", names()))
}

fn status(value: &Value) -> Result<u16, String> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    number.filter(|status| (100..=999).contains(status)).ok_or_else(|| "must be an HTTP status like 503".to_owned())
}

fn time(value: &Value) -> Result<DateTime<Utc>, String> {
    timestamp::parse(text(value)?)
        .map_err(|_| "not an RFC 3339 date: write it like 2024-06-18T23:26:14.206Z".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: &[(&str, Value)]) -> Result<LetterFilter, Vec<Violation>> {
        LetterFilter::read(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())), "$.filter")
    }

    #[test]
    fn letters_that_are_newer_are_excluded() {
        let time = |text: &str| timestamp::parse(text).expect("a time");
        let newest = time("2026-11-30T12:00:00.500Z");
        for (until, expected) in [
            (None, "2026-11-30T12:00:00.501Z"),
            (Some("2026-11-30T12:00:00.400Z"), "2026-11-30T12:00:00.400Z"),
            (Some("2026-11-30T13:00:00.000Z"), "2026-11-30T12:00:00.501Z"),
        ] {
            let filter = LetterFilter { until: until.map(time), status: Some(503), ..LetterFilter::default() };
            let expected = LetterFilter { until: Some(time(expected)), ..filter.clone() };
            assert_eq!(filter.up_to(newest), expected, "{until:?}");
        }
        assert_eq!(LetterFilter::default().up_to(DateTime::<Utc>::MAX_UTC).until, None);
    }

    #[test]
    fn every_field_is_read_and_written_back() {
        let fields = json!({
            "campaignId": "13010", "label": "Offers", "webhookId": "wh_1", "phoneNumber": "+5511999990000", "eventId": "e-1",
            "deliveryId": "msg_1", "endpoint": "https://example.com", "reason": "forbidden_address", "status": 503,
            "since": "2024-06-18T20:26:14-03:00", "until": "2024-06-18T23:26:15.000Z", "state": "pending",
        });
        let object = fields.as_object().expect("an object");
        assert!(LetterFilter::FIELDS.iter().eq(object.keys()));
        let filter = LetterFilter::read(object.clone(), "").expect("a filter");
        let written = serde_json::to_value(&filter).expect("JSON");
        assert_eq!(written["since"], "2024-06-18T23:26:14.000Z");
        assert_eq!(written["endpoint"], "https://example.com:443");
        assert_eq!(serde_json::from_value::<LetterFilter>(written).expect("a filter"), filter);
        // All values of a query are strings.
        assert_eq!(read(&[("status", json!("503"))]).expect("a filter").status, Some(503));
        let texts = filter.fields().into_iter().map(|(name, text)| (name.to_owned(), text.into()));
        assert_eq!(LetterFilter::read(texts, ""), Ok(filter));
    }

    #[test]
    fn all_violations_are_returned_at_once() {
        let violations = read(&[
            ("campaignId", json!(1)),
            ("reason", json!("because")),
            ("status", json!("5xx")),
            ("since", json!("yesterday")),
            ("colour", json!("red")),
            ("webhookId", json!(null)),
            ("phoneNumber", json!("")),
            ("endpoint", json!("example.com")),
        ])
        .expect_err("a violation");
        let paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "$.filter.campaignId",
                "$.filter.reason",
                "$.filter.status",
                "$.filter.since",
                "$.filter.colour",
                "$.filter.webhookId",
                "$.filter.phoneNumber",
                "$.filter.endpoint",
            ]
        );
        assert!(violations[1].message.contains("malformed, poison, expired"), "{}", violations[1]);
    }

    #[test]
    fn an_endpoint_is_normalised() {
        let endpoint = |text: &str| {
            read(&[("endpoint", json!(text))]).map(|filter| filter.endpoint.map(|endpoint| endpoint.to_string()))
        };
        for (text, normal) in [
            ("https://example.com:443", "https://example.com:443"),
            ("https://example.com", "https://example.com:443"),
            ("HTTPS://Example.COM/", "https://example.com:443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]", "http://[::1]:80"),
            ("https://münchen.example", "https://xn--mnchen-3ya.example:443"),
        ] {
            assert_eq!(endpoint(text), Ok(Some(normal.to_owned())), "{text}");
        }
        for text in [
            "example.com:443",
            "ftp://example.com",
            "https://",
            "https://example.com/hook",
            "https://a:b@example.com",
            "https://example.com?a",
        ] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_of_earlier_versions_are_read() {
        let filter: LetterFilter =
            serde_json::from_value(json!({ "campaignId": "c", "state": "pending" })).expect("a filter");
        assert_eq!(
            filter,
            LetterFilter {
                campaign_id: Some("c".to_owned()),
                state: Some(LetterState::Pending),
                ..LetterFilter::default()
            }
        );
    }

    #[test]
    fn a_masked_filter_has_no_phone_number() {
        let filter = read(&[("phoneNumber", json!("+5511999990000")), ("label", json!("a"))]).expect("a filter");
        let written = serde_json::to_string(&filter.masked()).expect("JSON");
        assert_eq!(written, r#"{"label":"a","phoneNumber":"********"}"#);
        assert_eq!(serde_json::to_string(&LetterFilter::default().masked()).expect("JSON"), "{}");
    }

    #[test]
    fn until_must_be_later_than_since() {
        for until in ["2024-06-18T23:26:14Z", "2024-06-18T23:26:13Z"] {
            let violations =
                read(&[("since", json!("2024-06-18T23:26:14Z")), ("until", json!(until))]).expect_err("a violation");
            assert_eq!(violations[0].path, "$.filter.until");
        }
    }
}
