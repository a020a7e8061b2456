//! `waypost dead-letters`: list, show, summary, export, discard, replay.

mod discard;
pub(super) mod erase;
mod export;
pub(super) mod filter;
mod list;
mod preview;
mod replay;
mod request;
mod selection;
mod show;
mod summary;

use clap::Subcommand;

use super::CliError;

/// The name of the list in the API.
const LIST: &str = "dead-letters";

#[derive(Subcommand)]
pub(super) enum DeadLetters {
    /// List dead letters, newest first
    List(list::List),
    /// Show a dead letter: why, what was sent, every attempt, and what has become of it
    Show(show::Show),
    /// Count dead letters by reason, status, campaign, webhook and state
    Summary(summary::Summary),
    /// Write all that match as JSON, one a line
    Export(export::Export),
    /// Give dead letters up for good
    Discard(discard::Discard),
    /// Erase what dead letters tell of a person: `waypost erase` of before
    #[command(hide = true)]
    Erase(erase::Erase),
    /// Send dead letters again, and follow that to its end
    Replay(replay::Replay),
}

impl DeadLetters {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Summary(summary) => summary.run().await,
            Self::Export(export) => export.run().await,
            Self::Discard(discard) => discard.run().await,
            Self::Erase(erase) => erase.run().await,
            Self::Replay(replay) => replay.run().await,
        }
    }
}
