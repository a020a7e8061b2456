//! `waypost demo`.
use clap::Args;

use super::Failure;

#[derive(Args)]
pub(super) struct Demo {}

impl Demo {
    pub(super) async fn run(self) -> Result<(), Failure> {
        Ok(())
    }
}
