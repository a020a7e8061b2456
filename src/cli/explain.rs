//! `waypost explain`: shows which webhooks a step event fires and why, and the requests that would be sent.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use waypost_core::explain::{ExplainedWebhook, Explanation};
use waypost_core::request::RequestPreview;

use super::client::Server;
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
            None => self.event.to_event().json,
            Some(file) => json_stream::read(file)?,
        };
        if json_stream::split(&event).is_ok_and(|events| events.len() > 1) {
            return Err(CliError::Usage("the file has several events. Pass a file with one event".to_owned()));
        }
        let explanation = self.server.client()?.explain(event).await?;
        if self.json {
            out!("{explanation}");
        } else {
            out!("{}", render(&explanation.read()?));
        }
        Ok(())
    }
}

/// The section of the event, its menu entries, the webhooks, the requests, and the conclusion.
fn render(explanation: &Explanation) -> String {
    let mut parts = vec![heading(explanation)];
    if !explanation.entries.is_empty() {
        let mut table = table(["KEYWORD", "OPTION", "MATCHES", "WHY"]);
        for entry in &explanation.entries {
            let option = entry.option.as_deref().map_or_else(|| sanitize::EMPTY.to_owned(), sanitize::inline);
            let keyword = sanitize::inline(&entry.keyword.to_string());
            table.add_row([keyword, option, yes_or_no(entry.matches), sanitize::inline(&entry.why)]);
        }
        parts.push(table.to_string());
    }
    if !explanation.webhooks.is_empty() {
        let mut table = table(["WEBHOOK", "AT", "KIND", "FIRES", "WHY"]);
        for ExplainedWebhook { webhook_id, path, kind, fires, why, .. } in &explanation.webhooks {
            let [id, path, why] = [webhook_id.as_str(), path, why].map(sanitize::inline);
            table.add_row([id, path, kind.as_str().to_owned(), yes_or_no(*fires), why]);
        }
        parts.push(table.to_string());
    }
    for webhook in &explanation.webhooks {
        parts.extend(webhook.request.as_ref().map(|preview| request(webhook, preview)));
    }
    parts.push(sanitize::inline(&explanation.why));
    parts.join("\n\n")
}

fn heading(explanation: &Explanation) -> String {
    let mut text = format!("Event     {}", sanitize::inline(explanation.event.event_id.as_str()));
    // Writing to a string can't fail.
    let _ = match &explanation.campaign {
        None => write!(text, "\nCampaign  none"),
        Some(campaign) => {
            write!(text, "\nCampaign  {}, version {}", sanitize::inline(&campaign.id), campaign.version)
        }
    };
    let _ = match &explanation.section {
        None => write!(text, "\nSection   none"),
        Some(section) => write!(text, "\nSection   {} ({})", sanitize::inline(&section.label), section.kind.as_str()),
    };
    text
}

/// The request of a webhook, byte for byte.
fn request(webhook: &ExplainedWebhook, RequestPreview { method, url, headers, body }: &RequestPreview) -> String {
    let condition = if webhook.fires { "" } else { ", if it is enabled" };
    let [id, method, url] = [webhook.webhook_id.as_str(), method, url].map(sanitize::inline);
    let mut text = format!("Request of {id}{condition}:\n  {method} {url}\n");
    for (name, value) in headers {
        let [name, value] = [name.as_str(), value.as_str().unwrap_or_default()].map(sanitize::inline);
        let _ = writeln!(text, "  {name}: {value}");
    }
    let _ = write!(text, "\n  {}", sanitize::inline(body));
    text
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
