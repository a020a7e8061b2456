//! `waypost campaigns graph`: draws a campaign as SVG or Mermaid.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use waypost_core::campaign::Campaign;
use waypost_core::document;
use waypost_core::egress::HttpUrls;
use waypost_core::flow::{self, Style, WebhookHealth};

use super::client::Server;
use super::error::CliError;
use super::stdio::print;
use super::{client, json_stream};

#[derive(Args)]
pub(super) struct GraphArgs {
    /// The campaign's id
    #[arg(required_unless_present = "file", value_parser = client::parse_id)]
    id: Option<String>,
    /// A campaign document (JSON) to draw, without a server; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "id")]
    file: Option<PathBuf>,
    /// An SVG image or a Mermaid flowchart
    #[arg(long, value_enum, default_value_t = Format::Svg)]
    format: Format,
    /// The file to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

#[derive(ValueEnum, Clone, Copy)]
enum Format {
    Svg,
    Mermaid,
}

impl GraphArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let graph = flow::graph(&self.campaign().await?);
        let picture = match self.format {
            // A saved picture would show outdated health.
            Format::Svg => flow::svg(&flow::layout(graph), Style::Standalone, &|_| WebhookHealth::Unknown, &|_| None),
            Format::Mermaid => flow::mermaid(&graph),
        };
        match &self.output {
            None => print(&picture),
            Some(file) => {
                std::fs::write(file, picture).map_err(|error| CliError::new(format!("{}: {error}", file.display())))?
            }
        }
        Ok(())
    }

    async fn campaign(&self) -> Result<Campaign, CliError> {
        match (&self.file, &self.id) {
            (Some(file), _) => from_file(file),
            (None, id) => {
                let id = id.as_deref().unwrap_or_default();
                Ok(self.server.clone().client()?.campaign(id).await?.answer.read()?)
            }
        }
    }
}

/// Accepts plain `http` URLs. The server checks them when the document is applied.
fn from_file(file: &Path) -> Result<Campaign, CliError> {
    let with_file = |error: &dyn Display| format!("{}: {error}", file.display());
    let bytes = json_stream::read(file).map_err(|error| match error {
        CliError::Failed(text) | CliError::Usage(text) => CliError::Failed(with_file(&text)),
    })?;
    if json_stream::split(&bytes).is_ok_and(|documents| documents.len() > 1) {
        return Err(CliError::Usage(with_file(&"the file has several documents. Pass a file with one campaign")));
    }
    document::read(&bytes, HttpUrls::Allowed, None)
        .map_err(|errors| CliError::Failed(errors.iter().map(|error| with_file(error)).collect::<Vec<_>>().join("\n")))
}
