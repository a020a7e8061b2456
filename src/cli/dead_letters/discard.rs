//! `waypost dead-letters discard`. The server discards for a few seconds per request, so the command repeats the
//! request until none is left.

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use reqwest::StatusCode;
use serde_json::json;
use waypost_api::client::{Client, ClientError};
use waypost_api::dead_letters::discard::{DiscardPreview, DiscardRequest};
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::dead_letter::selection::Selection;

use super::selection::SelectionArgs;
use crate::cli::client::Server;
use crate::cli::confirm::{ConfirmOutcome, Confirmation};
use crate::cli::error::CliError;
use crate::cli::stdio::out;
use crate::cli::{progress, sanitize};

/// After this many responses in a row that discarded nothing although more are left, the command fails.
const MAX_EMPTY_ROUNDS: u32 = 20;

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters discard --campaign 13010 --until 30days --because 'the campaign is over'

The command says how many dead letters it concerns, and asks on a terminal. A filter selects only pending dead letters
that exist when the command asks. Discarded dead letters stay visible, and can be replayed by id.")]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The reason, at most 500 characters, stored with the dead letters. Required with a filter and with --all
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    because: Option<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Discard {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let selection = self.selection.resolve(Utc::now())?;
        if self.because.is_none() && !self.confirmation.is_dry_run() && matches!(selection, Selection::Filter(_)) {
            return Err(CliError::Usage(
                "--because TEXT is required with a filter and with --all: say why these dead letters are discarded"
                    .to_owned(),
            ));
        }
        let client = self.server.client()?;
        let answer = client.preview_discard(&DiscardRequest::from(&selection)).await?;
        let preview = answer.read()?;
        let effect = effect(&preview);
        if preview.total == 0 && !self.confirmation.is_dry_run() {
            return Err(CliError::new("no pending dead letter matches"));
        }
        if self.confirmation.decide(&effect).await? == ConfirmOutcome::Report {
            match self.json {
                true => out!("{answer}"),
                false => out!("would {effect}"),
            }
            return Ok(());
        }
        let selection = limit_to_counted(selection, &preview);
        let request = DiscardRequest { because: self.because, ..DiscardRequest::from(&selection) };
        let discarded = discard(&client, &request, preview.total).await?;
        if self.json {
            out!("{}", json!({ "discarded": discarded }));
        } else {
            out!("discarded {}", sanitize::dead_letters(discarded));
        }
        Ok(())
    }
}

/// `discard 2,900 dead letters of campaign 13010, sent to 2 endpoints`.
fn effect(preview: &DiscardPreview) -> String {
    let letters = sanitize::dead_letters(preview.total);
    let campaigns = match &*preview.campaigns {
        [] => String::new(),
        [one] => format!(" of campaign {}", sanitize::text(&*one.campaign_id, 100)),
        campaigns => format!(" of {} campaigns", campaigns.len() + preview.more_campaigns),
    };
    let endpoints = match &*preview.endpoints {
        [] => String::new(),
        [one] => format!(", sent to {}", sanitize::text(&*one.endpoint, 100)),
        endpoints => format!(", sent to {} endpoints", endpoints.len() + preview.more_endpoints),
    };
    format!("discard {letters}{campaigns}{endpoints}")
}

/// Excludes dead letters that are written after the count that the user confirmed.
fn limit_to_counted(selection: Selection, preview: &DiscardPreview) -> Selection {
    match selection {
        Selection::Ids(ids) => Selection::Ids(ids),
        Selection::Filter(filter) => Selection::Filter(until_newest(filter, preview.newest)),
    }
}

/// `until` is exclusive, and times have milliseconds. An `until` in the filter can be replaced, because it is later
/// than everything that was counted. The times are the server's, whose clock may differ from the local one.
fn until_newest(filter: LetterFilter, newest: Option<DateTime<Utc>>) -> LetterFilter {
    match newest.and_then(|newest| newest.checked_add_signed(TimeDelta::milliseconds(1))) {
        Some(end) => LetterFilter { until: Some(end), ..filter },
        None => filter,
    }
}

/// Returns how many were discarded. `total` is the length of the progress bar.
async fn discard(client: &Client, request: &DiscardRequest, total: u64) -> Result<u64, CliError> {
    let bar = progress::bar(Some(total), "{bar:30} {human_pos}/{human_len} discarded  {eta} left");
    let (mut discarded, mut empty_rounds) = (0, 0);
    loop {
        let response = match client.discard(request).await {
            Ok(answer) => answer.read()?,
            // Somebody else has replayed or discarded the rest in the meantime.
            Err(ClientError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) if discarded > 0 => break,
            Err(error) => return Err(with_discarded(error.into(), discarded)),
        };
        discarded += response.discarded;
        bar.set_position(discarded);
        if !response.more {
            break;
        }
        empty_rounds = if response.discarded == 0 { empty_rounds + 1 } else { 0 };
        if empty_rounds == MAX_EMPTY_ROUNDS {
            let error =
                CliError::new("the server reports more dead letters, but discards none. See the log of the worker");
            return Err(with_discarded(error, discarded));
        }
    }
    bar.finish_and_clear();
    Ok(discarded)
}

fn with_discarded(error: CliError, discarded: u64) -> CliError {
    if discarded == 0 {
        return error;
    }
    error.with_line(&format!(
        "{} were discarded before the error. Run the same command again to continue",
        sanitize::dead_letters(discarded)
    ))
}

#[cfg(test)]
mod tests {
    use waypost_api::dead_letters::summary::CampaignCount;
    use waypost_api::replays::EndpointCount;
    use waypost_core::timestamp;

    use super::*;

    #[test]
    fn later_dead_letters_are_excluded() {
        let at = |text: &str| timestamp::parse(text).unwrap();
        let (newest, end) = (at("2026-11-22T03:04:05.678Z"), at("2026-11-22T03:04:05.679Z"));
        let all = LetterFilter::default();
        assert_eq!(
            until_newest(all.clone(), Some(newest)),
            LetterFilter { until: Some(end), ..LetterFilter::default() }
        );
        let until = |until| LetterFilter { label: Some("a".to_owned()), until, ..LetterFilter::default() };
        let with_until = until(Some(at("2026-12-24T00:00:00.000Z")));
        assert_eq!(until_newest(with_until, Some(newest)), until(Some(end)));
        assert_eq!(until_newest(all.clone(), None), all);
    }

    #[test]
    fn the_effect_names_count_campaigns_and_endpoints() {
        let endpoint = |endpoint: &str, count| EndpointCount { endpoint: endpoint.to_owned(), count };
        let preview = DiscardPreview {
            total: 2900,
            oldest: None,
            newest: None,
            campaigns: vec![CampaignCount { campaign_id: "13010".to_owned(), count: 2900 }],
            more_campaigns: 0,
            endpoints: vec![endpoint("https://a.example:443", 2000), endpoint("https://b.example:443", 900)],
            more_endpoints: 3,
        };
        assert_eq!(effect(&preview), "discard 2,900 dead letters of campaign 13010, sent to 5 endpoints");
        let one = vec![endpoint("https://a.example:443", 1)];
        let one = DiscardPreview { total: 1, campaigns: Vec::new(), endpoints: one, more_endpoints: 0, ..preview };
        assert_eq!(effect(&one), "discard 1 dead letter, sent to https://a.example:443");
        let none = DiscardPreview { total: 3, endpoints: Vec::new(), ..one };
        assert_eq!(effect(&none), "discard 3 dead letters");
    }

    #[test]
    fn an_error_reports_what_was_discarded_before() {
        let text = |discarded| match with_discarded(CliError::new("no response"), discarded) {
            CliError::Failed(text) | CliError::Usage(text) => text,
        };
        assert_eq!(text(0), "no response");
        assert_eq!(
            text(5000),
            "no response\n5,000 dead letters were discarded before the error. Run the same command again to continue"
        );
    }
}
