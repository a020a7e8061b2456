//! The options that describe a step event, for `publish` and `explain`.

use clap::Args;
use serde_json::{Map, Value};
use waypost_core::timestamp;

/// The command that flattens this also has an argument `file`, which replaces these options.
#[derive(Args)]
pub(super) struct Event {
    /// The event's `campaignId`
    #[arg(long, value_name = "ID", required_unless_present = "file", requires_all = ["label", "phone"])]
    campaign: Option<String>,
    /// The section's label
    #[arg(long, allow_hyphen_values = true)]
    label: Option<String>,
    /// The event's `phoneNumber`
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: Option<String>,
    /// The event's date, RFC 3339 [default: now]
    #[arg(long)]
    date: Option<String>,
    /// The user's answer
    #[arg(long, allow_hyphen_values = true)]
    response: Option<String>,
    /// The menu text that the user chose
    #[arg(long, allow_hyphen_values = true)]
    option: Option<String>,
    /// The keyword that the user typed: sent as a number if it is one, else as text
    #[arg(long, allow_hyphen_values = true)]
    keyword: Option<String>,
    /// The event's identity, for de-duplication [default: a new UUID]
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
}

/// A step event as it is sent.
pub(super) struct EventBody {
    /// The `eventId`, which may be new.
    pub(super) id: String,
    pub(super) json: Vec<u8>,
}

impl Event {
    /// The options that conflict with `file`.
    pub(super) const OPTIONS: [&str; 8] =
        ["campaign", "label", "phone", "date", "response", "option", "keyword", "event_id"];

    pub(super) fn to_event(&self) -> EventBody {
        let mut event = Map::new();
        let text = |value: &Option<String>| value.clone().map(Value::String);
        let id = self.event_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let keyword = self.keyword.as_ref().map(|keyword| match serde_json::from_str(keyword) {
            Ok(number @ Value::Number(_)) => number,
            _ => Value::String(keyword.clone()),
        });
        let fields = [
            ("campaignId", text(&self.campaign)),
            ("label", text(&self.label)),
            ("phoneNumber", text(&self.phone)),
            ("date", Some(text(&self.date).unwrap_or_else(|| timestamp::text(&chrono::Utc::now()).into()))),
            ("response", text(&self.response)),
            ("option", text(&self.option)),
            ("keyword", keyword),
            ("eventId", Some(Value::String(id.clone()))),
        ];
        for (name, value) in fields {
            event.extend(value.map(|value| (name.to_owned(), value)));
        }
        EventBody { id, json: Value::Object(event).to_string().into_bytes() }
    }
}
