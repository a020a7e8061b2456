//! `waypost campaigns`: `list`, `get`, `apply` and `delete`. The other subcommands are in `graph.rs` and
//! `configuration.rs`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::client::{Api, RequestParts, Server};
use super::configuration::{AcceptEmpty, Restore, warn_if_incomplete};
use super::confirm::{ConfirmOutcome, Confirmation};
use super::graph::GraphArgs;
use super::json_stream;
use super::paginate::Pages;
use super::stdio::out;
use super::{CliError, sanitize};

#[derive(Subcommand)]
pub(super) enum CampaignsCommand {
    /// List all campaigns
    List(List),
    /// Print a campaign's document
    Get(Get),
    /// Create or replace campaigns from files
    Apply(Apply),
    /// Delete a campaign; its deliveries that wait for a retry become dead letters
    Delete(Delete),
    /// Append the campaigns of a worker's store to an incomplete campaigns stream
    Restore(Restore),
    /// Accept an incomplete campaigns stream as complete
    AcceptEmpty(AcceptEmpty),
    /// Draw a campaign: its sections, and the target of each menu entry
    Graph(GraphArgs),
}

#[derive(Args)]
pub(super) struct List {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(super) struct Get {
    /// The campaign's id
    id: String,
    /// Print JSON on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
#[command(after_help = "Example:
  waypost campaigns delete 13010

The command asks first on a terminal. It fails if the campaign changes before the deletion.")]
pub(super) struct Delete {
    /// The campaign's id
    id: String,
    /// Delete only if the campaign still has this version
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(super) struct Apply {
    /// Campaign documents (JSON); `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Apply only if the campaign still has this version; allowed with one file
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    /// Print the stored documents as JSON, one on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl CampaignsCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Get(get) => get.run().await,
            Self::Apply(apply) => apply.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::Graph(graph) => graph.run().await,
            Self::Restore(restore) => restore.run().await,
            Self::AcceptEmpty(accept_empty) => accept_empty.run().await,
        }
    }
}

fn if_match_header(version: Option<String>) -> Vec<(&'static str, String)> {
    version.into_iter().map(|version| ("if-match", format!("\"{}\"", version.trim_matches('"')))).collect()
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let campaigns = Pages::new(&api, "campaigns", Vec::new()).take(usize::MAX).await?;
        warn_if_incomplete(&api).await;
        if self.json {
            out!("{}", Value::Array(campaigns));
            return Ok(());
        }
        if campaigns.is_empty() {
            out!("No campaigns yet: `waypost campaigns apply FILE` creates one.");
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["ID", "NAME", "SECTIONS", "WEBHOOKS", "VERSION"]);
        for campaign in campaigns {
            let text = |name: &str| campaign[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| campaign[name].to_string();
            table.add_row([text("id"), text("name"), number("sections"), number("webhooks"), number("version")]);
        }
        out!("{table}");
        Ok(())
    }
}

impl Get {
    async fn run(self) -> Result<(), CliError> {
        let response =
            self.server.api()?.request(Method::GET, &["campaigns", &self.id], &[], RequestParts::default()).await?;
        let document = response.json()?;
        if self.json {
            out!("{document}");
        } else {
            out!("{document:#}");
        }
        Ok(())
    }
}

impl Delete {
    async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let campaign = api.request(Method::GET, &["campaigns", &self.id], &[], RequestParts::default()).await?;
        let size = CampaignSize::from_document(&campaign.json()?);
        if self.confirmation.decide(&size.effect(&self.id)).await? == ConfirmOutcome::Report {
            if self.json {
                out!("{}", size.json(&self.id));
            } else {
                out!("would {}", size.effect(&self.id));
            }
            return Ok(());
        }
        // The campaign may have been changed after it was read.
        let version = self.if_match.or(campaign.etag);
        let parts = RequestParts { headers: if_match_header(version), body: None };
        api.request(Method::DELETE, &["campaigns", &self.id], &[], parts).await?;
        if self.json {
            out!("{}", serde_json::json!({ "deleted": self.id }));
        } else {
            out!("campaign {} deleted", self.id);
        }
        Ok(())
    }
}

/// What a deletion removes.
#[derive(Debug, PartialEq, Eq)]
struct CampaignSize {
    name: Option<String>,
    sections: usize,
    webhooks: usize,
}

impl CampaignSize {
    fn from_document(document: &Value) -> Self {
        let sections = document["sections"].as_array().map(Vec::as_slice).unwrap_or_default();
        let entries = sections.iter().flat_map(|section| section["menu"].as_array().into_iter().flatten());
        let webhooks = sections.iter().chain(entries).filter(|node| node["webhook"].is_object()).count();
        let name = document["name"].as_str().filter(|name| !name.is_empty());
        Self { name: name.map(|name| sanitize::line(name, 60)), sections: sections.len(), webhooks }
    }

    /// `delete campaign 13010 “Streaming membership” with 3 sections and 4 webhooks`.
    fn effect(&self, id: &str) -> String {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" “{name}”"));
        let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        format!(
            "delete campaign {}{name} with {} and {}",
            sanitize::line(id, 128),
            plural(self.sections, "section"),
            plural(self.webhooks, "webhook")
        )
    }

    fn json(&self, id: &str) -> Value {
        serde_json::json!({ "dryRun": true, "campaignId": id, "sections": self.sections, "webhooks": self.webhooks })
    }
}

impl Apply {
    async fn run(self) -> Result<(), CliError> {
        if self.if_match.is_some() && self.files.len() > 1 {
            return Err(CliError::Usage("--if-match is allowed with one file only".to_owned()));
        }
        let api = self.server.clone().api()?;
        let mut errors = Vec::new();
        for file in &self.files {
            if let Err(CliError::Failed(text) | CliError::Usage(text)) = self.apply(&api, file).await {
                errors.push(format!("{}: {text}", file.display()));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(CliError::Failed(errors.join("\n"))) }
    }

    /// Applies all documents of a file. A backup of the campaigns has several.
    async fn apply(&self, api: &Api, file: &Path) -> Result<(), CliError> {
        let bytes = json_stream::read(file)?;
        let documents = json_stream::split(&bytes).map_err(|error| CliError::new(format!("not JSON: {error}")))?;
        if documents.is_empty() {
            return Err(CliError::new("the file has no document"));
        }
        for document in documents {
            self.put(api, document).await?;
        }
        Ok(())
    }

    async fn put(&self, api: &Api, document: &[u8]) -> Result<(), CliError> {
        // Reads only the id, for the URL. The server checks everything else.
        let value: Value =
            serde_json::from_slice(document).map_err(|error| CliError::new(format!("not JSON: {error}")))?;
        let id = value["id"].as_str().ok_or_else(|| CliError::new("$.id: required, a string"))?;
        let parts = RequestParts { headers: if_match_header(self.if_match.clone()), body: Some(document.to_vec()) };
        let response = api.request(Method::PUT, &["campaigns", id], &[], parts).await?;
        if self.json {
            out!("{}", response.json()?);
            return Ok(());
        }
        let action = if response.status == StatusCode::CREATED { "created" } else { "replaced" };
        out!("campaign {id} {action}, version {}", response.etag.unwrap_or_default().trim_matches('"'));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_effect_of_a_deletion_counts_sections_and_webhooks() {
        let document = json!({ "id": "13010", "name": "Streaming membership", "sections": [
            { "label": "Welcome Message", "menu": [{ "keyword": 1 }, { "keyword": 2, "webhook": { "url": "https://example.com/a" } }] },
            { "label": "Offers", "webhook": { "url": "https://example.com/b" } } ] });
        let size = CampaignSize::from_document(&document);
        assert_eq!(size.effect("13010"), "delete campaign 13010 “Streaming membership” with 2 sections and 2 webhooks");
        assert_eq!(
            CampaignSize::from_document(&json!({ "sections": [{}] })).effect("c"),
            "delete campaign c with 1 section and 0 webhooks"
        );
        assert_eq!(size.json("13010")["webhooks"], 2);
    }
}
