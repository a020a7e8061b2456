//! `waypost dead-letters replay`: creates a replay and follows it. A worker executes the replay.

use chrono::Utc;
use clap::{Args, ValueEnum};
use waypost_api::client::ClientError;
use waypost_api::replays::CreateReplay;
use waypost_core::replay::ReplayConfig;

use super::preview;
use super::selection::SelectionArgs;
use crate::cli::client::Server;
use crate::cli::error::CliError;
use crate::cli::replays::follow::{self, OutputMode};
use crate::cli::replays::labels;
use crate::cli::stdio::{note, out};

#[derive(Args)]
#[command(after_help = "Examples:
  waypost dead-letters replay dl_SmIh-_Ia6sNZoOa2uxP8_NDq
  waypost dead-letters replay --campaign 13010 --since 2h --dry-run
  waypost dead-letters replay --campaign 13010 --since 2h --rate 20 --stop-on-failure-ratio 0.5

A filter selects pending dead letters unless --state says otherwise, and only those that exist when the replay is created.
Each gets one attempt, with its old webhook-id. If the attempt fails, there is a new dead letter. A worker executes the
replay: Ctrl-C, or the loss of this terminal, does not stop it.

Exit code: 0 all succeeded, or you left with Ctrl-C; 1 some failed, or the replay was stopped or cancelled.")]
pub(in crate::cli) struct Replay {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Send at most N a second
    #[arg(long, alias = "rate-per-second", value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Send to the webhooks as they are configured now, or as they were configured at the last attempt
    #[arg(long, value_enum, default_value_t = ConfigArg::Current)]
    config: ConfigArg,
    /// Stop once this part of the requests has failed, e.g. 0.5. The first 20 are sent before the others
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    stop_on_failure_ratio: Option<f64>,
    /// Show how many dead letters would be sent, to which endpoints, and some of the requests; send nothing
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Do not follow the replay
    #[arg(long)]
    detach: bool,
    /// Print the finished replay as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(ValueEnum, Clone, Copy)]
enum ConfigArg {
    Current,
    Original,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "write a number of requests a second, greater than 0".to_owned())
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a number between 0 and 1".to_owned())
}

impl Replay {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.clone().client()?;
        let (dry_run, detach, json) = (self.dry_run, self.detach, self.json);
        let request = self.request()?;
        if dry_run {
            let preview = client.preview_replay(&request).await?;
            match json {
                true => out!("{preview}"),
                false => out!("{}", preview::render(&preview.read()?)),
            }
            return Ok(());
        }
        let answer = client.create_replay(&request).await.map_err(|error| match error {
            ClientError::Unreachable { .. } => CliError::from(error).with_line(
                "The replay may have been created. Check with `waypost replays list` before you repeat the command",
            ),
            other => other.into(),
        })?;
        if detach && json {
            out!("{answer}");
            return Ok(());
        }
        let replay = answer.read()?.replay;
        match (detach, json) {
            (true, _) => out!("{}\n{}", labels::created(&replay), labels::commands(&replay)),
            (false, true) => {
                note!("{}", labels::created(&replay));
                follow::follow(&client, answer, OutputMode::Json).await?;
            }
            (false, false) => {
                out!("{}", labels::created(&replay));
                follow::follow(&client, answer, OutputMode::Text).await?;
            }
        }
        Ok(())
    }

    fn request(self) -> Result<CreateReplay, CliError> {
        let selection = self.selection.resolve(Utc::now())?;
        let config = match self.config {
            ConfigArg::Current => ReplayConfig::Current,
            ConfigArg::Original => ReplayConfig::Original,
        };
        Ok(CreateReplay {
            config: Some(config),
            rate_per_second: self.rate,
            stop_on_failure_ratio: self.stop_on_failure_ratio,
            ..CreateReplay::from(&selection)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json, to_value};

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        replay: Replay,
    }

    fn body(arguments: &[&str]) -> Result<Value, String> {
        let cli = TestCli::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        let request = cli.replay.request().map_err(|error| format!("{error:?}"))?;
        Ok(to_value(request).unwrap())
    }

    #[test]
    fn options_become_a_request_body() {
        assert_eq!(body(&["dl_1"]), Ok(json!({ "ids": ["dl_1"], "config": "current" })));
        let arguments = ["--campaign", "c", "--rate", "2.5", "--config", "original", "--stop-on-failure-ratio", "0"];
        assert_eq!(
            body(&arguments),
            Ok(json!({ "filter": { "campaignId": "c" }, "config": "original", "ratePerSecond": 2.5,
                "stopOnFailureRatio": 0.0 }))
        );
    }

    #[test]
    fn invalid_options_are_refused() {
        for arguments in [
            ["--rate", "0"],
            ["--rate", "-1"],
            ["--rate", "inf"],
            ["--rate", "fast"],
            ["--stop-on-failure-ratio", "1.1"],
            ["--stop-on-failure-ratio", "-0.1"],
            ["--stop-on-failure-ratio", "NaN"],
            ["--config", "old"],
            ["--dry-run", "--detach"],
        ] {
            assert!(body(&[&["dl_1"], &arguments[..]].concat()).is_err(), "{arguments:?}");
        }
    }
}
