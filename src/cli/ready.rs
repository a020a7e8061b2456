//! `waypost ready`: whether a worker consumes and makes progress, for health checks where there is no shell and no curl.

use clap::Args;

use super::CliError;
use super::client::Server;
use super::stdio::say;

#[derive(Args)]
#[command(after_help = "Exit code 0: it is ready. 1: it is not, and why.")]
pub(super) struct Ready {
    #[command(flatten)]
    server: Server,
}

impl Ready {
    pub(super) async fn run(self) -> Result<(), CliError> {
        // Then a line for each repair of the last ten minutes.
        say!("{}", self.server.api()?.ready().await?.trim_end());
        Ok(())
    }
}
