//! Choosing dead letters: by campaign, webhook, reason, time and so on, all of which have to hold.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::State;
use crate::delivery::fault::{Fault, type_name};
use crate::delivery::identity::WebhookId;
use crate::delivery::reason::Reason;
use crate::delivery::timestamp;

/// Which dead letters; what is absent holds for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DeadLetterFilter", deny_unknown_fields)]
pub struct Filter {
    /// Of this campaign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// Of the section with this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of this webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<WebhookId>,
    /// Given up for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Whose last attempt was answered with this HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Given up then or later.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub since: Option<DateTime<Utc>>,
    /// Given up before.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub until: Option<DateTime<Utc>>,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

impl Filter {
    /// The names of all fields, as the API takes them.
    pub const FIELDS: [&str; 8] = ["campaignId", "label", "webhookId", "reason", "status", "since", "until", "state"];

    /// Of these, those that hold for a letter also when it was sent again and is dead again.
    pub const LASTING: [&str; 3] = ["campaignId", "label", "webhookId"];

    /// Reads a filter from its fields: of a query, where all are text, or of a JSON object. `path` is where they are,
    /// `$.filter` or nothing.
    ///
    /// # Errors
    /// All faults at once.
    pub fn read(fields: impl IntoIterator<Item = (String, Value)>, path: &str) -> Result<Self, Vec<Fault>> {
        let mut filter = Self::default();
        let mut faults = Vec::new();
        for (name, value) in fields {
            if let Err(message) = filter.set(&name, &value) {
                faults.push(Fault::new(place(path, &name), message));
            }
        }
        if let (Some(since), Some(until)) = (filter.since, filter.until)
            && since >= until
        {
            faults.push(Fault::new(place(path, "until"), "not later than `since`: nothing lies between"));
        }
        if faults.is_empty() { Ok(filter) } else { Err(faults) }
    }

    /// The filter, with the pending letters where it names no state.
    #[must_use]
    pub fn or_pending(&self) -> Self {
        Self { state: self.state.or(Some(State::Pending)), ..self.clone() }
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            // A program that has lost what it looks for does not mean all.
            name if value.is_null() && Self::FIELDS.contains(&name) => {
                return Err("is null: give it a value, or leave it out, which means all".to_owned());
            }
            "campaignId" => self.campaign_id = Some(id(value)?.to_owned()),
            "label" => self.label = Some(text(value)?.to_owned()),
            "webhookId" => self.webhook_id = Some(WebhookId::new(id(value)?)),
            "reason" => self.reason = Some(one_of(text(value)?, &Reason::ALL, Reason::as_str)?),
            "status" => self.status = Some(status(value)?),
            "since" => self.since = Some(time(value)?),
            "until" => self.until = Some(time(value)?),
            "state" => self.state = Some(one_of(text(value)?, &State::ALL, State::as_str)?),
            _ => return Err(format!("no such field: a filter has {}", Self::FIELDS.join(", "))),
        }
        Ok(())
    }
}

fn place(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, found {}", type_name(value)))
}

fn id(value: &Value) -> Result<&str, String> {
    // An empty one, as an unset variable of a script makes, would choose what belongs to none.
    Some(text(value)?).filter(|id| !id.is_empty()).ok_or_else(|| "is empty; leave it out for all".to_owned())
}

fn one_of<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let names = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| format!("is one of {}", names()))
}

fn status(value: &Value) -> Result<u16, String> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    number.filter(|status| (100..=999).contains(status)).ok_or_else(|| "an HTTP status is a number like 503".to_owned())
}

fn time(value: &Value) -> Result<DateTime<Utc>, String> {
    timestamp::parse(text(value)?)
        .map_err(|_| "not an RFC 3339 date; write it like 2024-06-18T23:26:14.206Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: &[(&str, Value)]) -> Result<Filter, Vec<Fault>> {
        Filter::read(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())), "$.filter")
    }

    #[test]
    fn every_field_is_read_and_written_back() {
        let fields = json!({
            "campaignId": "13010", "label": "Offers", "webhookId": "wh_1", "reason": "forbidden_address", "status": 503,
            "since": "2024-06-18T20:26:14-03:00", "until": "2024-06-18T23:26:15.000Z", "state": "pending",
        });
        let object = fields.as_object().expect("an object");
        assert!(Filter::FIELDS.iter().eq(object.keys()));
        let filter = Filter::read(object.clone(), "").expect("a filter");
        let written = serde_json::to_value(&filter).expect("JSON");
        assert_eq!(written["since"], "2024-06-18T23:26:14.000Z");
        assert_eq!(serde_json::from_value::<Filter>(written).expect("a filter"), filter);
        // A query has only text.
        assert_eq!(read(&[("status", json!("503"))]).expect("a filter").status, Some(503));
    }

    #[test]
    fn all_faults_at_once() {
        let faults = read(&[
            ("campaignId", json!(1)),
            ("reason", json!("because")),
            ("status", json!("5xx")),
            ("since", json!("yesterday")),
            ("colour", json!("red")),
            ("webhookId", json!(null)),
        ])
        .expect_err("a filter");
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "$.filter.campaignId",
                "$.filter.reason",
                "$.filter.status",
                "$.filter.since",
                "$.filter.colour",
                "$.filter.webhookId"
            ]
        );
        assert!(faults[1].message.contains("malformed, poison, gone"), "{}", faults[1]);
    }

    #[test]
    fn a_window_that_ends_before_it_begins() {
        for until in ["2024-06-18T23:26:14Z", "2024-06-18T23:26:13Z"] {
            let faults =
                read(&[("since", json!("2024-06-18T23:26:14Z")), ("until", json!(until))]).expect_err("a filter");
            assert_eq!(faults[0].path, "$.filter.until");
        }
    }
}
