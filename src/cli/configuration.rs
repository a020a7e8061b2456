//! `waypost campaigns restore` and `accept-empty`: the two ways to repair an incomplete campaigns stream.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Api, Server};
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
        let api = self.server.api()?;
        let configuration = fetch(&api).await?;
        let campaigns_text = describe(&configuration);
        if self.dry_run {
            if self.json {
                out!("{configuration}");
            } else if configuration["canRestore"] == true {
                out!("This would append {campaigns_text} to the campaigns stream. {OTHER_WORKERS}.");
            } else {
                out!("{}", refusal(&configuration));
            }
            return Ok(());
        }
        if !self.json && configuration["canRestore"] == true {
            note!("appending {campaigns_text}. {OTHER_WORKERS}.");
        }
        let response = api.post(&["configuration", "restore"], None).await?.json()?;
        if self.json {
            out!("{}", json!({ "restored": response["campaigns"] }));
        } else {
            let count = campaigns(&response["campaigns"]);
            out!("{count} appended. Workers continue after they have read the stream: check with `waypost ready`.");
        }
        Ok(())
    }
}

impl AcceptEmpty {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let configuration = fetch(&api).await?;
        if configuration["state"] != "incomplete" {
            let refusal = if configuration["state"] == "reading" {
                "This worker is still reading the campaigns stream: try again when `waypost ready` answers."
            } else {
                "This worker does not hold its events: there is nothing to accept."
            };
            if !self.confirmation.is_dry_run() {
                return Err(CliError::Failed(refusal.to_owned()));
            }
            if self.json {
                out!("{}", json!({ "accepted": false, "campaigns": configuration["campaigns"] }));
            } else {
                out!("{refusal}");
            }
            return Ok(());
        }
        if !self.json {
            note!("{}", sanitize::lines(configuration["detail"].as_str().unwrap_or_default()));
        }
        if self.confirmation.decide(&effect(&configuration)).await? == ConfirmOutcome::Report {
            if self.json {
                out!("{configuration}");
            } else {
                out!("This would {}. Nothing was changed.", effect(&configuration));
            }
            return Ok(());
        }
        let response = api.post(&["configuration", "accept-empty"], None).await?.json()?;
        if self.json {
            out!("{}", json!({ "accepted": true, "campaigns": response["campaigns"] }));
        } else {
            out!(
                "The campaigns stream is accepted. Workers continue after they have read it: check with `waypost ready`."
            );
        }
        Ok(())
    }
}

/// Warns on standard error if the worker's list of campaigns may be incomplete.
pub(super) async fn warn_if_incomplete(api: &Api) {
    // Workers of earlier versions do not have this path.
    if let Ok(configuration) = fetch(api).await
        && configuration["state"] == "incomplete"
    {
        note!("{}", sanitize::lines(configuration["detail"].as_str().unwrap_or_default()));
    }
}

async fn fetch(api: &Api) -> Result<Value, CliError> {
    api.get(&["configuration"], &[]).await
}

/// The effect of accepting the stream, for this worker and the others.
fn effect(configuration: &Value) -> String {
    let count = campaigns(&configuration["campaigns"]);
    match configuration["reason"].as_str() {
        Some("logReplaced" | "logTrimmed") => {
            let campaigns_text = describe(configuration);
            format!("replace the {campaigns_text} of this worker by what the campaigns stream has. {OTHER_WORKERS}")
        }
        _ => format!("accept the campaigns stream as it is ({count} on this worker). {OTHER_WORKERS}"),
    }
}

/// `12 campaigns (last change 2026-11-30T03:00:00Z)`.
fn describe(configuration: &Value) -> String {
    let count = campaigns(&configuration["campaigns"]);
    match configuration["lastChangeAt"].as_str() {
        Some(_) => format!("{count} (last change {})", sanitize::time(&configuration["lastChangeAt"])),
        None => count,
    }
}

fn refusal(configuration: &Value) -> String {
    let count = campaigns(&configuration["campaigns"]);
    format!(
        "This worker ({count}) can't restore the campaigns stream: run the command against a worker that has all campaigns."
    )
}

fn campaigns(count: &Value) -> String {
    match count.as_u64() {
        Some(1) => "1 campaign".to_owned(),
        _ => format!("{} campaigns", sanitize::count(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effect_counts_the_campaigns() {
        let replaced =
            json!({ "state": "incomplete", "reason": "logReplaced", "campaigns": 1200, "lastChangeAt": null });
        let expected = "replace the 1,200 campaigns of this worker by what the campaigns stream has. Workers that hold their events or \
                        are stopped take over what the stream has then. Workers that are ready keep their campaigns";
        assert_eq!(effect(&replaced), expected);
        let later = json!({ "state": "incomplete", "reason": "logBeginsLater", "campaigns": 1 });
        let expected = "accept the campaigns stream as it is (1 campaign on this worker). Workers that hold their events or are stopped \
                        take over what the stream has then. Workers that are ready keep their campaigns";
        assert_eq!(effect(&later), expected);
    }
}
