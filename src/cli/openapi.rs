//! `waypost openapi`: prints the OpenAPI description of the HTTP API.

use clap::Args;

use super::stdio::out;

#[derive(Args)]
pub(super) struct OpenApi {
    /// Print JSON on one line
    #[arg(long)]
    json: bool,
}

impl OpenApi {
    pub(super) fn run(self) {
        let document = waypost_http::openapi();
        if self.json {
            out!("{document}");
        } else {
            out!("{document:#}");
        }
    }
}
