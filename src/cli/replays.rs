//! `waypost replays`: lists, follows and controls replays.

pub(super) mod follow;
pub(super) mod labels;
mod list;
mod show;

use clap::{Args, Subcommand};
use waypost_core::replay::ReplayCommand;

use super::client::{Server, parse_id};
use super::confirm::{ConfirmOutcome, Confirmation};
use super::error::CliError;
use super::stdio::out;
use follow::OutputMode;

#[derive(Subcommand)]
pub(super) enum ReplaysCommand {
    /// List replays, newest first
    List(list::List),
    /// Show a replay
    #[command(after_help = "Example:\n  waypost replays show rp_0198c7")]
    Show(ReplayArgs),
    /// Follow a replay to its end; Ctrl-C leaves it running
    #[command(after_help = "Example:
  waypost replays follow rp_0198c7

Exit code: 0 all succeeded, or you left with Ctrl-C; 1 some failed, or the replay was stopped or cancelled.")]
    Follow(ReplayArgs),
    /// Pause a replay; requests in flight are finished
    #[command(after_help = "Example:\n  waypost replays pause rp_0198c7")]
    Pause(ReplayArgs),
    /// Resume a paused replay
    #[command(after_help = "Example:\n  waypost replays resume rp_0198c7")]
    Resume(ReplayArgs),
    /// Cancel a replay; dead letters that were not sent return to their previous state
    #[command(after_help = "Example:\n  waypost replays cancel rp_0198c7\n\nThe command asks first on a terminal.")]
    Cancel(Cancel),
}

#[derive(Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    replay: ReplayArgs,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Args)]
pub(super) struct ReplayArgs {
    /// The replay's id
    #[arg(value_parser = parse_id)]
    id: String,
    /// Print JSON on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl ReplaysCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(replay) => replay.show().await,
            Self::Follow(replay) => replay.follow().await,
            Self::Pause(replay) => replay.control(ReplayCommand::Pause).await,
            Self::Resume(replay) => replay.control(ReplayCommand::Resume).await,
            Self::Cancel(cancel) => cancel.run().await,
        }
    }
}

impl ReplayArgs {
    async fn show(self) -> Result<(), CliError> {
        let answer = self.server.client()?.replay(&self.id).await?;
        if self.json {
            out!("{answer}");
        } else {
            out!("{}", show::render(&answer.read()?));
        }
        Ok(())
    }

    async fn follow(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        // Fails at once if the replay or the server does not exist.
        let replay = client.replay(&self.id).await?;
        follow::follow(&client, replay, if self.json { OutputMode::Json } else { OutputMode::Text }).await
    }

    async fn control(self, command: ReplayCommand) -> Result<(), CliError> {
        let answer = self.server.client()?.control_replay(&self.id, command).await?;
        if self.json {
            out!("{answer}");
        } else {
            let replay = answer.read()?.replay;
            out!("{}\n{}", labels::status_line(&replay), labels::commands(&replay));
        }
        Ok(())
    }
}

impl Cancel {
    async fn run(self) -> Result<(), CliError> {
        let replay = self.replay.server.clone().client()?.replay(&self.replay.id).await?.read()?.replay;
        // The server refuses to cancel a replay that has ended, and says why.
        if !replay.state.is_open() {
            return self.replay.control(ReplayCommand::Cancel).await;
        }
        let effect = labels::cancel_effect(&replay);
        if self.confirmation.decide(&effect).await? == ConfirmOutcome::Proceed {
            return self.replay.control(ReplayCommand::Cancel).await;
        }
        if self.replay.json {
            out!("{}", serde_json::json!({ "dryRun": true, "id": self.replay.id, "unsent": labels::unsent(&replay) }));
        } else {
            out!("would {effect}");
        }
        Ok(())
    }
}
