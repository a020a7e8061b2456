//! `waypost ready`: asks a worker if it consumes and makes progress. For health checks without a shell and curl.

use clap::Args;

use super::client::Server;
use super::error::CliError;
use super::stdio::out;

#[derive(Args)]
#[command(after_help = "Exit code: 0 the worker is ready, 1 it is not, and the error says why.")]
pub(super) struct Ready {
    #[command(flatten)]
    server: Server,
}

impl Ready {
    pub(super) async fn run(self) -> Result<(), CliError> {
        // The response has a line for each repair of the last ten minutes.
        out!("{}", self.server.client()?.ready().await?.trim_end());
        Ok(())
    }
}
