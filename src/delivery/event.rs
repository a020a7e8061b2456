//! The step event: what the platform publishes when a user reaches a step, and how its bytes are read.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Number, Value};

use super::fault::{Fault, type_name};
use super::identity::EventId;
use super::timestamp;

/// The largest body of an event, in bytes.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The longest campaign id, in characters.
pub const MAX_CAMPAIGN_ID_CHARS: usize = 128;

/// A user reached a step of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepEvent {
    /// The campaign.
    pub campaign_id: String,
    /// The section's label.
    pub label: String,
    /// The user's phone number.
    pub phone_number: String,
    /// When it happened.
    #[serde(with = "timestamp")]
    pub date: DateTime<Utc>,
    /// What the user answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// The menu text chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// The keyword typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<Keyword>,
    /// Identity for de-duplication.
    pub event_id: EventId,
}

/// A keyword: text or a number, whichever it was written as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Keyword {
    /// `"yes"`
    Text(String),
    /// `1`, digit for digit as it was written.
    Number(Number),
}

impl Keyword {
    /// Reads a keyword from JSON; `None` where the value is neither text nor a number.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => Some(Self::Number(number.clone())),
            _ => None,
        }
    }

    /// Keywords are compared as text, ignoring case and surrounding space.
    pub fn matches(&self, other: &Self) -> bool {
        comparable(&self.to_string()) == comparable(&other.to_string())
    }
}

/// The form in which keywords and menu texts are compared: without surrounding space, in lower case.
pub fn comparable(text: &str) -> String {
    text.trim().to_lowercase()
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

// By way of `Value`: serde's untagged enums can't read numbers of arbitrary precision.
impl<'de> Deserialize<'de> for Keyword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value)
            .ok_or_else(|| serde::de::Error::custom(format!("a keyword is a string or a number, not {}", type_name(&value))))
    }
}

/// The body as it is published: everything optional, so that faults can be told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    campaign_id: String,
    label: String,
    phone_number: String,
    date: String,
    response: Option<String>,
    option: Option<String>,
    keyword: Option<Keyword>,
    event_id: Option<String>,
}

/// Reads an event from the body of a message. `message_id` is the AMQP property, the event's identity where it names none.
///
/// # Errors
/// All faults of the body, each with its path.
pub fn decode(body: &[u8], message_id: Option<&str>) -> Result<StepEvent, Vec<Fault>> {
    if body.len() > MAX_EVENT_BYTES {
        let message = format!("{} bytes: an event has at most {MAX_EVENT_BYTES} bytes", body.len());
        return Err(vec![Fault::new("$", message)]);
    }
    let published: Published = match serde_json::from_slice(body) {
        Ok(published) => published,
        Err(error) => return Err(explain(body, &error)),
    };
    let faults = check(&published);
    if !faults.is_empty() {
        return Err(faults);
    }
    let date = timestamp::parse(&published.date).map_err(|_| vec![bad_date()])?;
    let event_id = match (published.event_id, message_id) {
        (Some(id), _) if !id.is_empty() => EventId::new(id),
        (_, Some(id)) if !id.is_empty() => EventId::new(id),
        _ => EventId::of_body(body),
    };
    Ok(StepEvent {
        campaign_id: published.campaign_id,
        label: published.label,
        phone_number: published.phone_number,
        date,
        response: published.response,
        option: published.option,
        keyword: published.keyword,
        event_id,
    })
}

fn bad_date() -> Fault {
    Fault::new("$.date", "not an RFC 3339 date; write it like 2024-06-18T23:26:14.206Z")
}

/// What the types do not say.
fn check(published: &Published) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !(1..=MAX_CAMPAIGN_ID_CHARS).contains(&published.campaign_id.chars().count()) {
        let message = format!("a campaign id has 1 to {MAX_CAMPAIGN_ID_CHARS} characters");
        faults.push(Fault::new("$.campaignId", message));
    }
    if timestamp::parse(&published.date).is_err() {
        faults.push(bad_date());
    }
    faults
}

/// Why a body could not be read: all its faults. Off the fast path, so it may read the body once more.
fn explain(body: &[u8], error: &serde_json::Error) -> Vec<Fault> {
    if let Err(utf8) = std::str::from_utf8(body) {
        return vec![Fault::new("$", format!("not UTF-8 from byte {} on", utf8.valid_up_to()))];
    }
    let object = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return vec![Fault::new("$", format!("an event is a JSON object, not {}", type_name(&other)))],
        Err(error) => return vec![Fault::new("$", format!("not JSON that can be read: {error}"))],
    };
    let mut faults = Vec::new();
    for name in ["campaignId", "label", "phoneNumber", "date"] {
        expect_text(&object, name, Presence::Required, &mut faults);
    }
    for name in ["response", "option", "eventId"] {
        expect_text(&object, name, Presence::Optional, &mut faults);
    }
    match object.get("keyword") {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => {}
        Some(other) => {
            faults.push(Fault::new("$.keyword", format!("a keyword is a string or a number, not {}", type_name(other))));
        }
    }
    if let Some(Value::String(date)) = object.get("date")
        && timestamp::parse(date).is_err()
    {
        faults.push(bad_date());
    }
    if faults.is_empty() {
        // What remains is what a map can't show, such as a field given twice.
        faults.push(Fault::new("$", error.to_string()));
    }
    faults
}

enum Presence {
    Required,
    Optional,
}

fn expect_text(object: &Map<String, Value>, name: &str, presence: Presence, faults: &mut Vec<Fault>) {
    let message = match (object.get(name), presence) {
        (Some(Value::String(_)), _) | (None | Some(Value::Null), Presence::Optional) => return,
        (None, Presence::Required) => "missing; it is required".to_owned(),
        (Some(other), _) => format!("expected a string, found {}", type_name(other)),
    };
    faults.push(Fault::new(format!("$.{name}"), message));
}
