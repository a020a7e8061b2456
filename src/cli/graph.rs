//! `waypost campaigns graph`: a campaign as a picture.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use reqwest::Method;

use super::client::{Call, Server};
use super::stdio::print;
use super::{CliError, client, json_stream};
use crate::delivery::campaign::Campaign;
use crate::delivery::document;
use crate::delivery::egress::HttpUrls;
use crate::flow::{self, Health, Style};

#[derive(Args)]
pub(super) struct Graph {
    /// The campaign's id
    #[arg(required_unless_present = "file", value_parser = client::id)]
    id: Option<String>,
    /// A campaign document (JSON) to draw, without a server; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "id")]
    file: Option<PathBuf>,
    /// As an SVG image, or as a Mermaid flowchart
    #[arg(long, value_enum, default_value_t = Format::Svg)]
    format: Format,
    /// Where to write it [default: standard output]
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

impl Graph {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let graph = flow::graph(&self.campaign().await?);
        let picture = match self.format {
            // A picture that is kept says nothing of the health of a moment.
            Format::Svg => flow::svg(&flow::layout(graph), Style::Own, &|_| Health::Unknown, &|_| None),
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
                let api = self.server.clone().api()?;
                let answer = api.call(Method::GET, &["campaigns", id], &[], Call::default()).await?;
                serde_json::from_slice(&answer.body)
                    .map_err(|error| CliError::new(format!("the server's answer can't be read: {error}")))
            }
        }
    }
}

/// Whether plain `http` is allowed is for the server to say, when the document is applied.
fn from_file(file: &Path) -> Result<Campaign, CliError> {
    let named = |fault: &dyn Display| format!("{}: {fault}", file.display());
    let bytes = json_stream::read(file).map_err(|failure| match failure {
        CliError::Failed(text) | CliError::Usage(text) => CliError::Failed(named(&text)),
    })?;
    if json_stream::split(&bytes).is_ok_and(|documents| documents.len() > 1) {
        return Err(CliError::Usage(named(&"several documents; a picture is of one campaign")));
    }
    document::read(&bytes, HttpUrls::Allowed, None)
        .map_err(|faults| CliError::Failed(faults.iter().map(|fault| named(fault)).collect::<Vec<_>>().join("\n")))
}
