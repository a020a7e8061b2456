//! `waypost campaigns restore` and `accept-empty`: the two ways to repair an incomplete campaigns stream.

use clap::Args;
use serde_json::json;
use waypost_api::client::Client;
use waypost_api::configuration::{ConfigurationResponse, ConfigurationState};

use super::client::Server;
use super::confirm::{ConfirmOutcome, Confirmation};
use super::error::CliError;
use super::sanitize;
use super::stdio::{note, out};

/// The effect of a decision on the other workers.
const OTHER_WORKERS: &str = "Workers that hold their events or are stopped take over what the stream has then. Workers that are ready \
                             keep their campaigns";

#[derive(Args)]
#[command(
    after_help = "Run it against a worker that is ready, or else against the worker whose store is the most recent: --dry-run says \
how many campaigns the worker has, and when the last change was made. A campaign that the stream has already stays as it is there. \
Workers that are ready keep their campaigns. Workers that hold their events or are stopped take over what the stream has. An \
interrupted restore has no effect; run it again."
)]
pub(super) struct Restore {
    /// Only report what would be restored; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
#[command(
    after_help = "Workers that are ready keep their campaigns, and share them with the other workers. Workers that hold their events \
or are stopped take over what the stream has: campaigns that only their store has are removed from it, and kept in a file beside the \
store. Run `waypost campaigns restore` instead if any worker has all campaigns."
)]
pub(super) struct AcceptEmpty {
    #[command(flatten)]
    confirmation: Confirmation,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let answer = client.configuration().await?;
        if self.json && self.dry_run {
            out!("{answer}");
            return Ok(());
        }
        if !self.json {
            let configuration = answer.read()?;
            let campaigns_text = describe(&configuration);
            match (self.dry_run, configuration.can_restore) {
                (true, true) => {
                    out!("This would append {campaigns_text} to the campaigns stream. {OTHER_WORKERS}.");
                }
                (true, false) => out!("{}", refusal(&configuration)),
                (false, true) => note!("appending {campaigns_text}. {OTHER_WORKERS}."),
                (false, false) => {}
            }
        }
        if self.dry_run {
            return Ok(());
        }
        let restored = client.restore_configuration().await?.read()?.campaigns;
        if self.json {
            out!("{}", json!({ "restored": restored }));
        } else {
            let count = campaigns(restored);
            out!("{count} appended. Workers continue after they have read the stream: check with `waypost ready`.");
        }
        Ok(())
    }
}

impl AcceptEmpty {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let answer = client.configuration().await?;
        let configuration = answer.read()?;
        if configuration.state != ConfigurationState::Incomplete {
            let refusal = if configuration.state == ConfigurationState::Reading {
                "This worker is still reading the campaigns stream: try again when `waypost ready` answers."
            } else {
                "This worker does not hold its events: there is nothing to accept."
            };
            if !self.confirmation.is_dry_run() {
                return Err(CliError::Failed(refusal.to_owned()));
            }
            if self.json {
                out!("{}", json!({ "accepted": false, "campaigns": configuration.campaigns }));
            } else {
                out!("{refusal}");
            }
            return Ok(());
        }
        if !self.json {
            note!("{}", sanitize::lines(configuration.detail.as_deref().unwrap_or_default()));
        }
        if self.confirmation.decide(&effect(&configuration)).await? == ConfirmOutcome::Report {
            if self.json {
                out!("{answer}");
            } else {
                out!("This would {}. Nothing was changed.", effect(&configuration));
            }
            return Ok(());
        }
        let accepted = client.accept_empty_configuration().await?.read()?;
        if self.json {
            out!("{}", json!({ "accepted": true, "campaigns": accepted.campaigns }));
        } else {
            out!(
                "The campaigns stream is accepted. Workers continue after they have read it: check with `waypost ready`."
            );
        }
        Ok(())
    }
}

/// Warns on standard error if the worker's list of campaigns may be incomplete.
pub(super) async fn warn_if_incomplete(client: &Client) {
    // Workers of earlier versions do not have this path, and those of later versions may have other states.
    if let Ok(answer) = client.configuration().await
        && let Ok(configuration) = answer.read()
        && configuration.state == ConfigurationState::Incomplete
    {
        note!("{}", sanitize::lines(configuration.detail.as_deref().unwrap_or_default()));
    }
}

/// The effect of accepting the stream, for this worker and the others.
fn effect(configuration: &ConfigurationResponse) -> String {
    let count = campaigns(configuration.campaigns);
    match configuration.reason.as_deref() {
        Some("logReplaced" | "logTrimmed") => {
            let campaigns_text = describe(configuration);
            format!("replace the {campaigns_text} of this worker by what the campaigns stream has. {OTHER_WORKERS}")
        }
        _ => format!("accept the campaigns stream as it is ({count} on this worker). {OTHER_WORKERS}"),
    }
}

/// `12 campaigns (last change 2026-11-30T03:00:00Z)`.
fn describe(configuration: &ConfigurationResponse) -> String {
    let count = campaigns(configuration.campaigns);
    match &configuration.last_change_at {
        Some(at) => format!("{count} (last change {})", sanitize::time(at)),
        None => count,
    }
}

fn refusal(configuration: &ConfigurationResponse) -> String {
    let count = campaigns(configuration.campaigns);
    format!(
        "This worker ({count}) can't restore the campaigns stream: run the command against a worker that has all campaigns."
    )
}

fn campaigns(count: u64) -> String {
    match count {
        1 => "1 campaign".to_owned(),
        count => format!("{} campaigns", sanitize::count(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effect_counts_the_campaigns() {
        let replaced = ConfigurationResponse {
            state: ConfigurationState::Incomplete,
            reason: Some("logReplaced".to_owned()),
            detail: None,
            campaigns: 1200,
            last_change_at: None,
            can_restore: false,
        };
        let expected = "replace the 1,200 campaigns of this worker by what the campaigns stream has. Workers that hold their events or \
                        are stopped take over what the stream has then. Workers that are ready keep their campaigns";
        assert_eq!(effect(&replaced), expected);
        let later = ConfigurationResponse { reason: Some("logBeginsLater".to_owned()), campaigns: 1, ..replaced };
        let expected = "accept the campaigns stream as it is (1 campaign on this worker). Workers that hold their events or are stopped \
                        take over what the stream has then. Workers that are ready keep their campaigns";
        assert_eq!(effect(&later), expected);
    }
}
