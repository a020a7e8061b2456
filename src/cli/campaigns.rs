//! `waypost campaigns`: `list`, `get`, `apply` and `delete`. The other subcommands are in `graph.rs` and
//! `configuration.rs`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use waypost_api::campaigns::CampaignSummary;
use waypost_api::client::{Client, ETag};
use waypost_core::campaign::Campaign;

use super::client::Server;
use super::configuration::{AcceptEmpty, Restore, warn_if_incomplete};
use super::confirm::{ConfirmOutcome, Confirmation};
use super::error::CliError;
use super::graph::GraphArgs;
use super::json_stream;
use super::sanitize;
use super::stdio::out;

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

impl List {
    async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let campaigns = client.campaigns().all().await?;
        warn_if_incomplete(&client).await;
        if self.json {
            out!("{}", json_stream::array(&campaigns)?);
            return Ok(());
        }
        if campaigns.is_empty() {
            out!("No campaigns yet: `waypost campaigns apply FILE` creates one.");
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["ID", "NAME", "SECTIONS", "WEBHOOKS", "VERSION"]);
        for campaign in campaigns {
            let CampaignSummary { id, name, sections, webhooks, version, .. } = campaign.read()?;
            let [sections, webhooks] = [sections, webhooks].map(|count| count.to_string());
            table.add_row([id, name.unwrap_or_default(), sections, webhooks, version.to_string()]);
        }
        out!("{table}");
        Ok(())
    }
}

impl Get {
    async fn run(self) -> Result<(), CliError> {
        let campaign = self.server.client()?.campaign(&self.id).await?.answer;
        if self.json {
            out!("{campaign}");
        } else {
            out!("{campaign:#}");
        }
        Ok(())
    }
}

impl Delete {
    async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let campaign = client.campaign(&self.id).await?;
        let size = CampaignSize::new(&campaign.answer.read()?);
        if self.confirmation.decide(&size.effect(&self.id)).await? == ConfirmOutcome::Report {
            if self.json {
                out!("{}", size.json(&self.id));
            } else {
                out!("would {}", size.effect(&self.id));
            }
            return Ok(());
        }
        // The campaign may have been changed after it was read.
        let version = self.if_match.as_deref().map(ETag::from_version).or(campaign.etag);
        client.delete_campaign(&self.id, version.as_ref()).await?;
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
    fn new(campaign: &Campaign) -> Self {
        let name = campaign.name.as_deref().filter(|name| !name.is_empty());
        Self {
            name: name.map(|name| sanitize::line(name, 60)),
            sections: campaign.sections.len(),
            webhooks: campaign.places().count(),
        }
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
        let client = self.server.clone().client()?;
        let mut errors = Vec::new();
        for file in &self.files {
            if let Err(CliError::Failed(text) | CliError::Usage(text)) = self.apply(&client, file).await {
                errors.push(format!("{}: {text}", file.display()));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(CliError::Failed(errors.join("\n"))) }
    }

    /// Applies all documents of a file. A backup of the campaigns has several.
    async fn apply(&self, client: &Client, file: &Path) -> Result<(), CliError> {
        let bytes = json_stream::read(file)?;
        let documents = json_stream::split(&bytes).map_err(|error| CliError::new(format!("not JSON: {error}")))?;
        if documents.is_empty() {
            return Err(CliError::new("the file has no document"));
        }
        for document in documents {
            self.put(client, document).await?;
        }
        Ok(())
    }

    async fn put(&self, client: &Client, document: &[u8]) -> Result<(), CliError> {
        let id = id_of(document)?;
        let if_match = self.if_match.as_deref().map(ETag::from_version);
        let response = client.put_campaign(&id, document.to_vec(), if_match.as_ref()).await?;
        if self.json {
            out!("{}", response.answer);
            return Ok(());
        }
        let action = if response.status == StatusCode::CREATED { "created" } else { "replaced" };
        out!("campaign {id} {action}, version {}", response.etag.as_ref().map_or("", ETag::version));
        Ok(())
    }
}

/// The id of a document, for the URL. The server checks everything else.
fn id_of(document: &[u8]) -> Result<String, CliError> {
    #[derive(Deserialize)]
    struct Document {
        id: String,
    }
    match serde_json::from_slice(document) {
        Ok(Document { id }) => Ok(id),
        Err(error) if error.is_data() => Err(CliError::new("$.id: required, a string")),
        Err(error) => Err(CliError::new(format!("not JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_effect_of_a_deletion_counts_sections_and_webhooks() {
        let size = |document: Value| CampaignSize::new(&serde_json::from_value(document).unwrap());
        let webhook = json!({ "id": "wh_1", "url": "https://example.com/a", "enabled": true, "timeoutMs": 1, "headers": { "a": "********" } });
        let document = json!({ "id": "13010", "name": "Streaming membership", "sections": [
            { "label": "Welcome Message", "kind": "welcomeMessage", "menu": [{ "keyword": 1 }, { "keyword": 2, "webhook": webhook }] },
            { "label": "Offers", "kind": "interaction", "webhook": webhook } ] });
        let named = size(document);
        assert_eq!(
            named.effect("13010"),
            "delete campaign 13010 “Streaming membership” with 2 sections and 2 webhooks"
        );
        assert_eq!(
            size(json!({ "id": "c", "sections": [{ "label": "a", "kind": "interaction" }] })).effect("c"),
            "delete campaign c with 1 section and 0 webhooks"
        );
        assert_eq!(named.json("13010")["webhooks"], 2);
    }

    #[test]
    fn a_document_has_an_id() {
        assert_eq!(id_of(br#"{"sections":[],"id":"c","n":1e400}"#).ok().as_deref(), Some("c"));
        for document in ["{}", "{\"id\":7}", "7", "nonsense"] {
            assert!(id_of(document.as_bytes()).is_err(), "{document}");
        }
    }
}
