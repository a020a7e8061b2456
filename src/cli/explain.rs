//! `waypost explain`: shows which webhooks a step event fires and why, and the requests that would be sent.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use reqwest::Method;
use serde_json::Value;

use super::client::{RequestParts, Server};
use super::error::CliError;
use super::event::Event;
use super::json_stream;
use super::sanitize;
use super::stdio::out;

#[derive(Args)]
pub(super) struct Explain {
    /// A step event as JSON; `-` is standard input. Without FILE the options below describe the event
    #[arg(value_name = "FILE", conflicts_with_all = Event::OPTIONS)]
    file: Option<PathBuf>,
    #[command(flatten)]
    event: Event,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Explain {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let event = match &self.file {
            None => self.event.to_json().to_string().into_bytes(),
            Some(file) => json_stream::read(file)?,
        };
        if json_stream::split(&event).is_ok_and(|events| events.len() > 1) {
            return Err(CliError::Usage("the file has several events. Pass a file with one event".to_owned()));
        }
        let parts = RequestParts { headers: Vec::new(), body: Some(event) };
        let explanation = self.server.api()?.request(Method::POST, &["explain"], &[], parts).await?.json()?;
        if self.json {
            out!("{explanation}");
        } else {
            out!("{}", render(&explanation));
        }
        Ok(())
    }
}

/// The section of the event, its menu entries, the webhooks, the requests, and the conclusion.
fn render(explanation: &Value) -> String {
    let list = |name: &str| explanation[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut parts = vec![heading(explanation)];
    if !list("entries").is_empty() {
        let mut table = table(["KEYWORD", "OPTION", "MATCHES", "WHY"]);
        for entry in list("entries") {
            table.add_row([
                field(entry, "keyword"),
                field(entry, "option"),
                yes_or_no(entry, "matches"),
                field(entry, "why"),
            ]);
        }
        parts.push(table.to_string());
    }
    if !list("webhooks").is_empty() {
        let mut table = table(["WEBHOOK", "AT", "KIND", "FIRES", "WHY"]);
        for webhook in list("webhooks") {
            let [id, path, kind, why] = ["webhookId", "path", "kind", "why"].map(|name| field(webhook, name));
            table.add_row([id, path, kind, yes_or_no(webhook, "fires"), why]);
        }
        parts.push(table.to_string());
    }
    for webhook in list("webhooks").iter().filter(|webhook| webhook["request"].is_object()) {
        parts.push(request(webhook));
    }
    parts.push(field(explanation, "why"));
    parts.join("\n\n")
}

fn heading(explanation: &Value) -> String {
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

/// The request of a webhook, byte for byte.
fn request(webhook: &Value) -> String {
    let request = &webhook["request"];
    let condition = if webhook["fires"] == true { "" } else { ", if it is enabled" };
    let mut text = format!(
        "Request of {}{condition}:\n  {} {}\n",
        field(webhook, "webhookId"),
        field(request, "method"),
        field(request, "url")
    );
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        let _ =
            writeln!(text, "  {}: {}", sanitize::inline(name), sanitize::inline(value.as_str().unwrap_or_default()));
    }
    let _ = write!(text, "\n  {}", field(request, "body"));
    text
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn yes_or_no(object: &Value, name: &str) -> String {
    if object[name] == true { "yes" } else { "no" }.to_owned()
}

fn field(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::Null => "–".to_owned(),
        Value::String(text) => sanitize::inline(text),
        other => other.to_string(),
    }
}
