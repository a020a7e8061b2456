//! A step event from options: what `publish` sends and `explain` asks about.

use clap::Args;
use serde_json::{Map, Value};

use crate::delivery::timestamp;

/// For a command that takes a `file` as well.
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
    /// RFC 3339 [default: now]
    #[arg(long)]
    date: Option<String>,
    /// What the user answered
    #[arg(long, allow_hyphen_values = true)]
    response: Option<String>,
    /// The menu text chosen
    #[arg(long, allow_hyphen_values = true)]
    option: Option<String>,
    /// The keyword typed: JSON where it is a number, else text
    #[arg(long, allow_hyphen_values = true)]
    keyword: Option<String>,
    /// Identity for de-duplication [default: a new one]
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
}

impl Event {
    /// What a file takes the place of.
    pub(super) const ARGUMENTS: [&str; 8] =
        ["campaign", "label", "phone", "date", "response", "option", "keyword", "event_id"];

    /// The event as it is published.
    pub(super) fn document(&self) -> Value {
        let mut event = Map::new();
        let text = |value: &Option<String>| value.clone().map(Value::String);
        let new_id = || uuid::Uuid::now_v7().to_string();
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
            ("eventId", Some(text(&self.event_id).unwrap_or_else(|| new_id().into()))),
        ];
        for (name, value) in fields {
            event.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::Object(event)
    }
}
