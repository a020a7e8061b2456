//! `waypost campaigns restore` and `accept-empty`: what an operator decides about an incomplete campaigns log.

use clap::Args;
use serde_json::{Value, json};

use super::CliError;
use super::client::{Api, Server};
use super::confirm::{Confirmation, Decision};
use super::sanitize;
use super::stdio::{say, tell};

/// What a decision about the campaigns log does to workers that the command does not run against.
const OTHER_WORKERS: &str = "Workers that hold their events or are stopped take over what the log has then. Workers that are ready \
                             keep their campaigns";

#[derive(Args)]
#[command(
    after_help = "Run it against a worker that is ready, or else against the worker whose store is the most recent: --dry-run says \
how many campaigns the worker has, and when the last change was made. A campaign that the log has already stays as it is there. \
Workers that are ready keep their campaigns. Workers that hold their events or are stopped take over what the log has. An \
interrupted restore has no effect; run it again."
)]
pub(super) struct Restore {
    /// Only say how much it concerns; change nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
#[command(
    after_help = "Workers that are ready keep their campaigns, and share them with the other workers. Workers that hold their events \
or are stopped take over what the log has: campaigns that only their store has are removed from it, and kept in a file beside the \
store. Run `waypost campaigns restore` instead if any worker has all campaigns."
)]
pub(super) struct AcceptEmpty {
    #[command(flatten)]
    confirmation: Confirmation,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let configuration = read(&api).await?;
        let found = describe(&configuration);
        if self.dry_run {
            if self.json {
                say!("{configuration}");
            } else if configuration["canRestore"] == true {
                say!("This would append {found} to the campaigns log. {OTHER_WORKERS}.");
            } else {
                say!("{}", refusal(&configuration));
            }
            return Ok(());
        }
        if !self.json && configuration["canRestore"] == true {
            tell!("appending {found}. {OTHER_WORKERS}.");
        }
        let answer = api.post(&["configuration", "restore"], None).await?.json()?;
        if self.json {
            say!("{}", json!({ "restored": answer["campaigns"] }));
        } else {
            let restored = campaigns(&answer["campaigns"]);
            say!("{restored} appended. Workers go on when they have read the log: `waypost ready` says when.");
        }
        Ok(())
    }
}

impl AcceptEmpty {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let configuration = read(&api).await?;
        if configuration["state"] != "incomplete" {
            let nothing = if configuration["state"] == "reading" {
                "This worker is still reading the campaigns log: try again when `waypost ready` answers."
            } else {
                "This worker does not hold its events: there is nothing to accept."
            };
            if !self.confirmation.is_dry_run() {
                return Err(CliError::Failed(nothing.to_owned()));
            }
            if self.json {
                say!("{}", json!({ "accepted": false, "campaigns": configuration["campaigns"] }));
            } else {
                say!("{nothing}");
            }
            return Ok(());
        }
        if !self.json {
            tell!("{}", sanitize::lines(configuration["detail"].as_str().unwrap_or_default()));
        }
        if self.confirmation.decide(&effect(&configuration)).await? == Decision::Report {
            if self.json {
                say!("{configuration}");
            } else {
                say!("This would {}. Nothing was changed.", effect(&configuration));
            }
            return Ok(());
        }
        let answer = api.post(&["configuration", "accept-empty"], None).await?.json()?;
        if self.json {
            say!("{}", json!({ "accepted": true, "campaigns": answer["campaigns"] }));
        } else {
            say!("The campaigns log is accepted. Workers go on when they have read it: `waypost ready` says when.");
        }
        Ok(())
    }
}

/// Says on standard error that a worker's list of campaigns may not be what the others work with.
pub(super) async fn warn_if_incomplete(api: &Api) {
    // A worker of an earlier version has no such address.
    if let Ok(configuration) = read(api).await
        && configuration["state"] == "incomplete"
    {
        tell!("{}", sanitize::lines(configuration["detail"].as_str().unwrap_or_default()));
    }
}

async fn read(api: &Api) -> Result<Value, CliError> {
    api.get(&["configuration"], &[]).await
}

/// What accepting the log does to the campaigns of this worker and of the others.
fn effect(configuration: &Value) -> String {
    let had = campaigns(&configuration["campaigns"]);
    match configuration["reason"].as_str() {
        Some("logReplaced" | "logTrimmed") => {
            let had = describe(configuration);
            format!("replace the {had} of this worker by what the campaigns log has. {OTHER_WORKERS}")
        }
        _ => format!("accept the campaigns log as it is ({had} on this worker). {OTHER_WORKERS}"),
    }
}

/// `12 campaigns, the last changed on 2026-11-30 03:00:00 UTC`.
fn describe(configuration: &Value) -> String {
    let had = campaigns(&configuration["campaigns"]);
    match configuration["lastChangeAt"].as_str() {
        Some(_) => format!("{had} (last change {})", sanitize::time(&configuration["lastChangeAt"])),
        None => had,
    }
}

fn refusal(configuration: &Value) -> String {
    let had = campaigns(&configuration["campaigns"]);
    format!(
        "This worker ({had}) can't restore the campaigns log: run the command against a worker that has all campaigns."
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
    fn the_effect_says_how_much_is_concerned() {
        let replaced =
            json!({ "state": "incomplete", "reason": "logReplaced", "campaigns": 1200, "lastChangeAt": null });
        let expected = "replace the 1,200 campaigns of this worker by what the campaigns log has. Workers that hold their events or \
                        are stopped take over what the log has then. Workers that are ready keep their campaigns";
        assert_eq!(effect(&replaced), expected);
        let later = json!({ "state": "incomplete", "reason": "logBeginsLater", "campaigns": 1 });
        let expected = "accept the campaigns log as it is (1 campaign on this worker). Workers that hold their events or are stopped \
                        take over what the log has then. Workers that are ready keep their campaigns";
        assert_eq!(effect(&later), expected);
    }
}
