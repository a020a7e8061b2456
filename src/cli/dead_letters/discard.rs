//! `waypost dead-letters discard`. The server discards for a few seconds per request, so the command repeats the
//! request until none is left.

use chrono::{TimeDelta, Utc};
use clap::Args;
use reqwest::StatusCode;
use serde_json::{Value, json};
use waypost_core::timestamp;

use super::selection::{SelectedLetters, SelectionArgs};
use crate::cli::client::{Api, ApiError, DEAD_LETTERS, Server};
use crate::cli::confirm::{ConfirmOutcome, Confirmation};
use crate::cli::error::CliError;
use crate::cli::letter_filter::FilterQuery;
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
        let selected = self.selection.resolve(Utc::now())?;
        if self.because.is_none() && !self.confirmation.is_dry_run() && matches!(selected, SelectedLetters::Filter(_)) {
            return Err(CliError::Usage(
                "--because TEXT is required with a filter and with --all: say why these dead letters are discarded"
                    .to_owned(),
            ));
        }
        let api = self.server.api()?;
        let preview = preview(&api, &selected).await?;
        let total = preview["total"].as_u64().unwrap_or_default();
        let effect = effect(&preview);
        if total == 0 && !self.confirmation.is_dry_run() {
            return Err(CliError::new("no pending dead letter matches"));
        }
        if self.confirmation.decide(&effect).await? == ConfirmOutcome::Report {
            match self.json {
                true => out!("{preview}"),
                false => out!("would {effect}"),
            }
            return Ok(());
        }
        let mut body = limit_to_counted(selected, &preview).to_json();
        if let Some(because) = self.because {
            body.insert("because".to_owned(), because.into());
        }
        let discarded = discard(&api, &body.into(), total).await?;
        if self.json {
            out!("{}", json!({ "discarded": discarded }));
        } else {
            out!("discarded {}", sanitize::dead_letters(discarded));
        }
        Ok(())
    }
}

/// Counts what would be discarded. Changes nothing.
async fn preview(api: &Api, selected: &SelectedLetters) -> Result<Value, CliError> {
    let mut body = selected.to_json();
    body.insert("dryRun".to_owned(), true.into());
    api.post(&[DEAD_LETTERS, "discard"], Some(&body.into())).await?.json()
}

/// `discard 2,900 dead letters of campaign 13010, sent to 2 endpoints`.
fn effect(preview: &Value) -> String {
    let letters = sanitize::dead_letters(preview["total"].as_u64().unwrap_or_default());
    let campaigns = distinct(preview, "campaigns", "campaignId", "moreCampaigns").map(|campaigns| match campaigns {
        Distinct::One(campaign) => format!(" of campaign {campaign}"),
        Distinct::Many(count) => format!(" of {count} campaigns"),
    });
    let endpoints = distinct(preview, "endpoints", "endpoint", "moreEndpoints").map(|endpoints| match endpoints {
        Distinct::One(endpoint) => format!(", sent to {endpoint}"),
        Distinct::Many(count) => format!(", sent to {count} endpoints"),
    });
    format!("discard {letters}{}{}", campaigns.unwrap_or_default(), endpoints.unwrap_or_default())
}

enum Distinct {
    One(String),
    Many(u64),
}

/// The distinct values in a list of the preview. `more` names the count of values that the list leaves out.
fn distinct(preview: &Value, list: &str, name: &str, more: &str) -> Option<Distinct> {
    match preview[list].as_array().map(Vec::as_slice).unwrap_or_default() {
        [] => None,
        [one] => Some(Distinct::One(sanitize::field(&one[name], 100))),
        items => Some(Distinct::Many(items.len() as u64 + preview[more].as_u64().unwrap_or_default())),
    }
}

/// Excludes dead letters that are written after the count that the user confirmed.
fn limit_to_counted(selected: SelectedLetters, preview: &Value) -> SelectedLetters {
    match selected {
        SelectedLetters::Ids(ids) => SelectedLetters::Ids(ids),
        SelectedLetters::Filter(query) => SelectedLetters::Filter(until_newest(query, preview)),
    }
}

/// `until` is exclusive, and times have milliseconds. An `until` in the filter can be replaced, because it is later
/// than everything that was counted. The times are the server's, whose clock may differ from the local one.
fn until_newest(query: FilterQuery, preview: &Value) -> FilterQuery {
    let newest = preview["newest"].as_str().and_then(|newest| timestamp::parse(newest).ok());
    match newest.and_then(|newest| newest.checked_add_signed(TimeDelta::milliseconds(1))) {
        Some(end) => query.with("until", &timestamp::text(&end)),
        None => query,
    }
}

/// Returns how many were discarded. `total` is the length of the progress bar.
async fn discard(api: &Api, body: &Value, total: u64) -> Result<u64, CliError> {
    let bar = progress::bar(Some(total), "{bar:30} {human_pos}/{human_len} discarded  {eta} left");
    let (mut discarded, mut empty_rounds) = (0, 0);
    loop {
        let response = match api.post(&[DEAD_LETTERS, "discard"], Some(body)).await {
            Ok(response) => response.json()?,
            // Somebody else has replayed or discarded the rest in the meantime.
            Err(ApiError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) if discarded > 0 => break,
            Err(error) => return Err(with_discarded(error.into(), discarded)),
        };
        let count = response["discarded"].as_u64().unwrap_or_default();
        discarded += count;
        bar.set_position(discarded);
        if response["more"] != true {
            break;
        }
        empty_rounds = if count == 0 { empty_rounds + 1 } else { 0 };
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
    use chrono::DateTime;

    use super::*;
    use crate::cli::letter_filter::Filter;

    #[test]
    fn later_dead_letters_are_excluded() {
        let all = Filter::default().to_query(DateTime::UNIX_EPOCH).unwrap();
        let summary = json!({ "total": 3, "newest": "2026-11-22T03:04:05.678Z" });
        let bounded = until_newest(all.clone(), &summary);
        assert_eq!(bounded.to_json(), json!({ "until": "2026-11-22T03:04:05.679Z" }));
        let with_until = all.clone().with("label", "a").with("until", "2026-12-24T00:00:00.000Z");
        let bounded = until_newest(with_until, &summary);
        assert_eq!(bounded.to_json(), json!({ "label": "a", "until": "2026-11-22T03:04:05.679Z" }));
        assert_eq!(until_newest(all.clone(), &json!({ "newest": null })), all);
    }

    #[test]
    fn the_effect_names_count_campaigns_and_endpoints() {
        let mut preview = json!({ "total": 2900, "campaigns": [{ "campaignId": "13010", "count": 2900 }], "moreCampaigns": 0,
            "endpoints": [{ "endpoint": "https://a.example:443", "count": 2000 }, { "endpoint": "https://b.example:443", "count": 900 }],
            "moreEndpoints": 3 });
        assert_eq!(effect(&preview), "discard 2,900 dead letters of campaign 13010, sent to 5 endpoints");
        preview["endpoints"] = json!([{ "endpoint": "https://a.example:443", "count": 1 }]);
        preview["campaigns"] = json!([]);
        preview["total"] = 1.into();
        assert_eq!(effect(&preview), "discard 1 dead letter, sent to https://a.example:443");
        assert_eq!(effect(&json!({ "total": 3 })), "discard 3 dead letters");
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
