//! `waypost replays`: list, show, follow, pause, resume, cancel.

pub(super) mod follow;
pub(super) mod labels;
mod list;
mod show;

use clap::{Args, Subcommand};

use super::CliError;
use super::client::{Server, id};
use super::confirm::{Confirmation, Decision};
use super::stdio::say;
use follow::OutputMode;

/// The name of the list in the API.
pub(super) const LIST: &str = "replays";

#[derive(Subcommand)]
pub(super) enum Replays {
    /// List replays, newest first
    List(list::List),
    /// Show a replay
    #[command(after_help = "Example:\n  waypost replays show rp_0198c7")]
    Show(One),
    /// Follow a replay to its end; Ctrl-C leaves it running
    #[command(after_help = "Example:
  waypost replays follow rp_0198c7

Exit code: 0 none failed (or left with Ctrl-C), 1 some failed, or it was stopped or cancelled.")]
    Follow(One),
    /// Pause a replay: requests under way are finished
    #[command(after_help = "Example:\n  waypost replays pause rp_0198c7")]
    Pause(One),
    /// Resume a replay that was paused
    #[command(after_help = "Example:\n  waypost replays resume rp_0198c7")]
    Resume(One),
    /// End a replay; what it has not sent is as it was before, mostly pending
    #[command(after_help = "Example:\n  waypost replays cancel rp_0198c7\n\nThe command asks first on a terminal.")]
    Cancel(Cancel),
}

#[derive(Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Args)]
pub(super) struct One {
    /// The replay's id
    #[arg(value_parser = id)]
    id: String,
    /// As JSON, on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Replays {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(one) => one.show().await,
            Self::Follow(one) => one.follow().await,
            Self::Pause(one) => one.change("pause").await,
            Self::Resume(one) => one.change("resume").await,
            Self::Cancel(cancel) => cancel.run().await,
        }
    }
}

impl One {
    async fn show(self) -> Result<(), CliError> {
        let replay = self.server.api()?.get(&[LIST, &self.id], &[]).await?;
        if self.json {
            say!("{replay}");
        } else {
            say!("{}", show::page(&replay));
        }
        Ok(())
    }

    async fn follow(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        // One that is not there, or a server that is not, is known at once.
        let replay = api.get(&[LIST, &self.id], &[]).await?;
        follow::follow(&api, replay, if self.json { OutputMode::Json } else { OutputMode::Text }).await
    }

    async fn change(self, change: &str) -> Result<(), CliError> {
        let replay = self.server.api()?.post(&[LIST, &self.id, change], None).await?.json()?;
        if self.json {
            say!("{replay}");
        } else {
            say!("{}\n{}", labels::standing(&replay), labels::commands(&replay));
        }
        Ok(())
    }
}

impl Cancel {
    async fn run(self) -> Result<(), CliError> {
        let replay = self.one.server.clone().api()?.get(&[LIST, &self.one.id], &[]).await?;
        // The server says why one that has ended can't be cancelled.
        if labels::stage(&replay) == labels::Stage::Ended {
            return self.one.change("cancel").await;
        }
        let effect = labels::cancellation(&replay);
        if self.confirmation.decide(&effect).await? == Decision::Proceed {
            return self.one.change("cancel").await;
        }
        if self.one.json {
            say!("{}", serde_json::json!({ "dryRun": true, "id": self.one.id, "unsent": labels::unsent(&replay) }));
        } else {
            say!("would {effect}");
        }
        Ok(())
    }
}
