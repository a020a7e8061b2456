//! `waypost openapi`: the description of the API, without a server.

use clap::Args;

use super::stdio::say;

#[derive(Args)]
pub(super) struct OpenApi {
    /// On one line
    #[arg(long)]
    json: bool,
}

impl OpenApi {
    pub(super) fn run(self) {
        let document = crate::http::openapi();
        if self.json {
            say!("{document}");
        } else {
            say!("{document:#}");
        }
    }
}
