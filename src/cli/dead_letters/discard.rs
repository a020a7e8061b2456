//! `waypost dead-letters discard`. The server takes as many as it can in a few seconds, and is asked again until it has
//! taken all.

use chrono::{TimeDelta, Utc};
use clap::Args;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::LIST;
use super::filter::FilterQuery;
use super::selection::{SelectedLetters, Selection};
use crate::cli::client::{Api, ApiError, Server};
use crate::cli::confirm::{Confirmation, Decision};
use crate::cli::stdio::say;
use crate::cli::{CliError, progress, sanitize};
use crate::delivery::timestamp;

/// After so many answers in a row that nothing was taken, and that there is more, something is wrong.
const ROUNDS_IN_VAIN: u32 = 20;

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters discard --campaign 13010 --until 30days --because 'the campaign is over'

The command says how many dead letters it concerns, and asks on a terminal. A filter takes pending letters only, and of
these only those there are when it asks. What is discarded can still be seen, and sent again by its id.")]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    selection: Selection,
    /// Why they are given up, in at most 500 characters; it is kept with them. Required with a filter and with --all
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    because: Option<String>,
    #[command(flatten)]
    confirmation: Confirmation,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Discard {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let selected = self.selection.selected(Utc::now())?;
        if self.because.is_none() && !self.confirmation.is_dry_run() && matches!(selected, SelectedLetters::Filter(_)) {
            return Err(CliError::Usage(
                "--because is required with a filter: say why these dead letters are given up".to_owned(),
            ));
        }
        let api = self.server.api()?;
        let preview = preview(&api, &selected).await?;
        let total = preview["total"].as_u64().unwrap_or_default();
        let effect = effect(&preview);
        if total == 0 && !self.confirmation.is_dry_run() {
            return Err(CliError::new("no pending dead letter matches"));
        }
        if self.confirmation.decide(&effect).await? == Decision::Report {
            match self.json {
                true => say!("{preview}"),
                false => say!("would {effect}"),
            }
            return Ok(());
        }
        let mut body = bounded(selected, &preview).document();
        if let Some(because) = self.because {
            body.insert("because".to_owned(), because.into());
        }
        let discarded = discard(&api, &body.into(), total).await?;
        if self.json {
            say!("{}", json!({ "discarded": discarded }));
        } else {
            say!("discarded {}", sanitize::dead_letters(discarded));
        }
        Ok(())
    }
}

/// How much it concerns, as the server counts it. Nothing is changed.
async fn preview(api: &Api, selected: &SelectedLetters) -> Result<Value, CliError> {
    let mut body = selected.document();
    body.insert("dryRun".to_owned(), true.into());
    api.post(&[LIST, "discard"], Some(&body.into())).await?.json()
}

/// `discard 2,900 dead letters of campaign 13010, sent to 2 endpoints`.
fn effect(preview: &Value) -> String {
    let letters = sanitize::dead_letters(preview["total"].as_u64().unwrap_or_default());
    let campaigns = kinds(preview, "campaigns", "campaignId", "moreCampaigns").map(|kinds| match kinds {
        Kinds::One(campaign) => format!(" of campaign {campaign}"),
        Kinds::Many(count) => format!(" of {count} campaigns"),
    });
    let endpoints = kinds(preview, "endpoints", "endpoint", "moreEndpoints").map(|kinds| match kinds {
        Kinds::One(endpoint) => format!(", sent to {endpoint}"),
        Kinds::Many(count) => format!(", sent to {count} endpoints"),
    });
    format!("discard {letters}{}{}", campaigns.unwrap_or_default(), endpoints.unwrap_or_default())
}

enum Kinds {
    One(String),
    Many(u64),
}

/// What the letters of a preview have in common, from one of its lists.
fn kinds(preview: &Value, list: &str, name: &str, more: &str) -> Option<Kinds> {
    match preview[list].as_array().map(Vec::as_slice).unwrap_or_default() {
        [] => None,
        [one] => Some(Kinds::One(sanitize::field(&one[name], 100))),
        some => Some(Kinds::Many(some.len() as u64 + preview[more].as_u64().unwrap_or_default())),
    }
}

/// What was counted, and no more: a letter that dies after the question was not meant.
fn bounded(selected: SelectedLetters, preview: &Value) -> SelectedLetters {
    match selected {
        SelectedLetters::Ids(ids) => SelectedLetters::Ids(ids),
        SelectedLetters::Filter(conditions) => SelectedLetters::Filter(until_newest(conditions, preview)),
    }
}

/// `until` is exclusive, and times have milliseconds. A given `until` is later than all that was counted. The server's times,
/// whose clock may differ from ours.
fn until_newest(conditions: FilterQuery, preview: &Value) -> FilterQuery {
    let newest = preview["newest"].as_str().and_then(|newest| timestamp::parse(newest).ok());
    match newest.and_then(|newest| newest.checked_add_signed(TimeDelta::milliseconds(1))) {
        Some(end) => conditions.with("until", &timestamp::text(&end)),
        None => conditions,
    }
}

/// How many there were.
async fn discard(api: &Api, body: &Value, total: u64) -> Result<u64, CliError> {
    let bar = progress::bar(Some(total), "{bar:30} {human_pos}/{human_len} discarded  {eta} left");
    let (mut discarded, mut in_vain) = (0, 0);
    loop {
        let answer = match api.post(&[LIST, "discard"], Some(body)).await {
            Ok(answer) => answer.json()?,
            // What was left has been replayed or discarded by others meanwhile.
            Err(ApiError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) if discarded > 0 => break,
            Err(unanswered) => return Err(incomplete(unanswered.into(), discarded)),
        };
        let taken = answer["discarded"].as_u64().unwrap_or_default();
        discarded += taken;
        bar.set_position(discarded);
        if answer["more"] != true {
            break;
        }
        in_vain = if taken == 0 { in_vain + 1 } else { 0 };
        if in_vain == ROUNDS_IN_VAIN {
            return Err(incomplete(CliError::new("the server says that there are more, but takes none"), discarded));
        }
    }
    bar.finish_and_clear();
    Ok(discarded)
}

fn incomplete(failure: CliError, discarded: u64) -> CliError {
    if discarded == 0 {
        return failure;
    }
    failure.and(&format!("{} were discarded before; the same command goes on", sanitize::dead_letters(discarded)))
}

#[cfg(test)]
mod tests {
    use super::super::filter::Filter;
    use super::*;
    use chrono::DateTime;

    #[test]
    fn what_dies_meanwhile_is_not_meant() {
        let all = Filter::default().conditions(DateTime::UNIX_EPOCH).unwrap();
        let summary = json!({ "total": 3, "newest": "2026-11-22T03:04:05.678Z" });
        let bounded = until_newest(all.clone(), &summary);
        assert_eq!(bounded.document(), json!({ "until": "2026-11-22T03:04:05.679Z" }));
        let given = all.clone().with("label", "a").with("until", "2026-12-24T00:00:00.000Z");
        let bounded = until_newest(given, &summary);
        assert_eq!(bounded.document(), json!({ "label": "a", "until": "2026-11-22T03:04:05.679Z" }));
        assert_eq!(until_newest(all.clone(), &json!({ "newest": null })), all);
    }

    #[test]
    fn the_question_says_how_much_it_concerns() {
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
    fn what_was_done_before_a_failure_is_told() {
        let text = |discarded| match incomplete(CliError::new("no answer"), discarded) {
            CliError::Failed(text) | CliError::Usage(text) => text,
        };
        assert_eq!(text(0), "no answer");
        assert_eq!(text(5000), "no answer\n5,000 dead letters were discarded before; the same command goes on");
    }
}
