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

#[derive(Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List dead letters, newest first
    List(list::List),
    /// Show a dead letter: its reason, its request, every attempt, and its replays
    Show(show::Show),
    /// Count dead letters by reason, status, campaign, webhook and state
    Summary(summary::Summary),
    /// Write all matching dead letters as JSON, one on each line
    Export(export::Export),
    /// Discard dead letters: they no longer wait for a replay
    Discard(discard::Discard),
    /// Same as `waypost erase`
    #[command(hide = true)]
    Erase(erase::Erase),
    /// Send dead letters again, and follow the replay to its end
    Replay(replay::Replay),
}

impl DeadLettersCommand {
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
