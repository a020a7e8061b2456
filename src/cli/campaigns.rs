//! `waypost campaigns`: list, get, apply, delete. Its `graph` is in `graph.rs`, `restore` and `accept-empty` are in
//! `configuration.rs`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::client::{Api, Call, Server};
use super::configuration::{AcceptEmpty, Restore, warn_if_incomplete};
use super::confirm::{Confirmation, Decision};
use super::graph::Graph;
use super::json_stream;
use super::stdio::say;
use super::{CliError, sanitize};

#[derive(Subcommand)]
pub(super) enum Campaigns {
    /// List all campaigns
    List(List),
    /// Print a campaign's document
    Get(Get),
    /// Create or replace campaigns from files
    Apply(Apply),
    /// Delete a campaign; deliveries of it that wait for a retry become dead letters
    Delete(Delete),
    /// Append the campaigns of a worker's store to an incomplete campaigns log
    Restore(Restore),
    /// Accept an incomplete campaigns log: what it has now is all there is
    AcceptEmpty(AcceptEmpty),
    /// Draw a campaign: its sections, and where each menu entry leads
    Graph(Graph),
}

#[derive(Args)]
pub(super) struct List {
    /// As a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(super) struct Get {
    /// The campaign's id
    id: String,
    /// On one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
#[command(after_help = "Example:
  waypost campaigns delete 13010

The command asks first on a terminal. It deletes the version that it has asked about, and none that was stored since.")]
pub(super) struct Delete {
    /// The campaign's id
    id: String,
    /// Only where it still has this version
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    /// As JSON
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
    /// Only where the campaign still has this version; with one file
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    /// The documents as they are from now on, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Campaigns {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Get(get) => get.run().await,
            Self::Apply(apply) => apply.run().await,
            Self::Delete(delete) => delete.run().await,
            Self::Graph(graph) => graph.run().await,
            Self::Restore(restore) => restore.run().await,
            Self::AcceptEmpty(accept) => accept.run().await,
        }
    }
}

fn precondition(version: Option<String>) -> Vec<(&'static str, String)> {
    version.into_iter().map(|version| ("if-match", format!("\"{}\"", version.trim_matches('"')))).collect()
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let campaigns = all(&api).await?;
        warn_if_incomplete(&api).await;
        if self.json {
            say!("{}", Value::Array(campaigns));
            return Ok(());
        }
        if campaigns.is_empty() {
            say!("No campaigns yet: `waypost campaigns apply FILE` creates one.");
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["ID", "NAME", "SECTIONS", "WEBHOOKS", "VERSION"]);
        for campaign in campaigns {
            let text = |name: &str| campaign[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| campaign[name].to_string();
            table.add_row([text("id"), text("name"), number("sections"), number("webhooks"), number("version")]);
        }
        say!("{table}");
        Ok(())
    }
}

/// All pages of the list.
async fn all(api: &Api) -> Result<Vec<Value>, CliError> {
    let mut campaigns = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let query: Vec<(&str, &str)> = cursor.iter().map(|cursor| ("cursor", cursor.as_str())).collect();
        let mut page = api.call(Method::GET, &["campaigns"], &query, Call::default()).await?.json()?;
        if let Some(items) = page["items"].as_array_mut() {
            campaigns.append(items);
        }
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(campaigns);
        }
    }
}

impl Get {
    async fn run(self) -> Result<(), CliError> {
        let answer = self.server.api()?.call(Method::GET, &["campaigns", &self.id], &[], Call::default()).await?;
        let document = answer.json()?;
        if self.json {
            say!("{document}");
        } else {
            say!("{document:#}");
        }
        Ok(())
    }
}

impl Delete {
    async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let campaign = api.call(Method::GET, &["campaigns", &self.id], &[], Call::default()).await?;
        let extent = Extent::of_document(&campaign.json()?);
        if self.confirmation.decide(&extent.effect(&self.id)).await? == Decision::Report {
            if self.json {
                say!("{}", extent.json(&self.id));
            } else {
                say!("would {}", extent.effect(&self.id));
            }
            return Ok(());
        }
        // Another version may have been stored since.
        let version = self.if_match.or(campaign.etag);
        let call = Call { headers: precondition(version), body: None };
        api.call(Method::DELETE, &["campaigns", &self.id], &[], call).await?;
        if self.json {
            say!("{}", serde_json::json!({ "deleted": self.id }));
        } else {
            say!("campaign {} deleted", self.id);
        }
        Ok(())
    }
}

/// How much a campaign has that a deletion concerns.
#[derive(Debug, PartialEq, Eq)]
struct Extent {
    name: Option<String>,
    sections: usize,
    webhooks: usize,
}

impl Extent {
    fn of_document(document: &Value) -> Self {
        let sections = document["sections"].as_array().map(Vec::as_slice).unwrap_or_default();
        let entries = sections.iter().flat_map(|section| section["menu"].as_array().into_iter().flatten());
        let webhooks = sections.iter().chain(entries).filter(|node| node["webhook"].is_object()).count();
        let name = document["name"].as_str().filter(|name| !name.is_empty());
        Self { name: name.map(|name| sanitize::line(name, 60)), sections: sections.len(), webhooks }
    }

    /// `delete campaign 13010 “Streaming membership” with 3 sections and 4 webhooks`.
    fn effect(&self, id: &str) -> String {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" “{name}”"));
        let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        format!(
            "delete campaign {}{name} with {} and {}",
            sanitize::line(id, 128),
            counted(self.sections, "section"),
            counted(self.webhooks, "webhook")
        )
    }

    fn json(&self, id: &str) -> Value {
        serde_json::json!({ "dryRun": true, "campaignId": id, "sections": self.sections, "webhooks": self.webhooks })
    }
}

impl Apply {
    async fn run(self) -> Result<(), CliError> {
        if self.if_match.is_some() && self.files.len() > 1 {
            return Err(CliError::Usage("--if-match goes with one file".to_owned()));
        }
        let api = self.server.clone().api()?;
        let mut failures = Vec::new();
        for file in &self.files {
            if let Err(CliError::Failed(text) | CliError::Usage(text)) = self.apply(&api, file).await {
                failures.push(format!("{}: {text}", file.display()));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(CliError::Failed(failures.join("\n"))) }
    }

    /// A file may hold several documents, as one that was kept of a lost log does.
    async fn apply(&self, api: &Api, file: &Path) -> Result<(), CliError> {
        let bytes = json_stream::read(file)?;
        let documents = json_stream::split(&bytes).map_err(|error| CliError::new(format!("not JSON: {error}")))?;
        if documents.is_empty() {
            return Err(CliError::new("there is no document in it"));
        }
        for document in documents {
            self.put(api, document).await?;
        }
        Ok(())
    }

    async fn put(&self, api: &Api, document: &[u8]) -> Result<(), CliError> {
        // Only the id is needed here, for the address; the server tells everything else that is wrong.
        let value: Value =
            serde_json::from_slice(document).map_err(|error| CliError::new(format!("not JSON: {error}")))?;
        let id =
            value["id"].as_str().ok_or_else(|| CliError::new("$.id: a campaign's id is a string, and required"))?;
        let call = Call { headers: precondition(self.if_match.clone()), body: Some(document.to_vec()) };
        let answer = api.call(Method::PUT, &["campaigns", id], &[], call).await?;
        if self.json {
            say!("{}", answer.json()?);
            return Ok(());
        }
        let done = if answer.status == StatusCode::CREATED { "created" } else { "replaced" };
        say!("campaign {id} {done}, version {}", answer.etag.unwrap_or_default().trim_matches('"'));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deletion_says_how_much_it_concerns() {
        let document = json!({ "id": "13010", "name": "Streaming membership", "sections": [
            { "label": "Welcome Message", "menu": [{ "keyword": 1 }, { "keyword": 2, "webhook": { "url": "https://example.com/a" } }] },
            { "label": "Offers", "webhook": { "url": "https://example.com/b" } } ] });
        let extent = Extent::of_document(&document);
        assert_eq!(
            extent.effect("13010"),
            "delete campaign 13010 “Streaming membership” with 2 sections and 2 webhooks"
        );
        assert_eq!(
            Extent::of_document(&json!({ "sections": [{}] })).effect("c"),
            "delete campaign c with 1 section and 0 webhooks"
        );
        assert_eq!(extent.json("13010")["webhooks"], 2);
    }
}
