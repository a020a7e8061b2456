//! `waypost explain`: for an event, what matches, what does not and why, and what would be sent.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use reqwest::Method;
use serde_json::Value;

use super::CliError;
use super::client::{Call, Server};
use super::event::Event;
use super::json_stream;
use super::stdio::say;

#[derive(Args)]
pub(super) struct Explain {
    /// An event as JSON; `-` is standard input. Without it the event is made from the options below
    #[arg(value_name = "FILE", conflicts_with_all = Event::ARGUMENTS)]
    file: Option<PathBuf>,
    #[command(flatten)]
    event: Event,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Explain {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let event = match &self.file {
            None => self.event.document().to_string().into_bytes(),
            Some(file) => json_stream::read(file)?,
        };
        if json_stream::split(&event).is_ok_and(|events| events.len() > 1) {
            return Err(CliError::Usage("one event at a time: the file has several".to_owned()));
        }
        let call = Call { headers: Vec::new(), body: Some(event) };
        let explanation = self.server.api()?.call(Method::POST, &["explain"], &[], call).await?.json()?;
        if self.json {
            say!("{explanation}");
        } else {
            say!("{}", text(&explanation));
        }
        Ok(())
    }
}

/// The explanation for people: where the event belongs, each entry, each webhook, the requests, and the upshot.
fn text(explanation: &Value) -> String {
    let list = |name: &str| explanation[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut parts = vec![place(explanation)];
    if !list("entries").is_empty() {
        let mut table = table(["KEYWORD", "OPTION", "MATCHES", "WHY"]);
        for entry in list("entries") {
            table.add_row([
                field(entry, "keyword"),
                field(entry, "option"),
                yes(entry, "matches"),
                field(entry, "why"),
            ]);
        }
        parts.push(table.to_string());
    }
    if !list("webhooks").is_empty() {
        let mut table = table(["WEBHOOK", "AT", "KIND", "FIRES", "WHY"]);
        for webhook in list("webhooks") {
            let [id, path, kind, why] = ["webhookId", "path", "kind", "why"].map(|name| field(webhook, name));
            table.add_row([id, path, kind, yes(webhook, "fires"), why]);
        }
        parts.push(table.to_string());
    }
    for webhook in list("webhooks").iter().filter(|webhook| webhook["request"].is_object()) {
        parts.push(request(webhook));
    }
    parts.push(field(explanation, "why"));
    parts.join("\n\n")
}

fn place(explanation: &Value) -> String {
    let (campaign, section) = (&explanation["campaign"], &explanation["section"]);
    let mut text = format!("Event     {}", field(&explanation["event"], "eventId"));
    // Writing to a string can't fail.
    let _ = match campaign {
        Value::Null => write!(text, "\nCampaign  none"),
        campaign => write!(text, "\nCampaign  {}, version {}", field(campaign, "id"), field(campaign, "version")),
    };
    let _ = match section {
        Value::Null => write!(text, "\nSection   none"),
        section => write!(text, "\nSection   {} ({})", field(section, "label"), field(section, "kind")),
    };
    text
}

/// What a webhook would be sent, as it goes over the wire.
fn request(webhook: &Value) -> String {
    let request = &webhook["request"];
    let would = if webhook["fires"] == true { "is sent" } else { "would be sent, were it enabled" };
    let mut text = format!(
        "What {} {would}:\n  {} {}\n",
        field(webhook, "webhookId"),
        field(request, "method"),
        field(request, "url")
    );
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "  {}: {}", shown(name), shown(value.as_str().unwrap_or_default()));
    }
    let _ = write!(text, "\n  {}", field(request, "body"));
    text
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn yes(of: &Value, name: &str) -> String {
    if of[name] == true { "yes" } else { "no" }.to_owned()
}

fn field(of: &Value, name: &str) -> String {
    match &of[name] {
        Value::Null => "–".to_owned(),
        Value::String(text) => shown(text),
        other => other.to_string(),
    }
}

/// Words from outside, without what would move the terminal's cursor.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}
