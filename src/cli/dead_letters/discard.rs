//! `waypost dead-letters discard`. The server takes as many as it can in a few seconds, and is asked again until it has
//! taken all.

use chrono::{TimeDelta, Utc};
use clap::Args;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::filter::Conditions;
use super::selection::{Selected, Selection};
use super::{LIST, summary};
use crate::cli::client::{Api, Server, Unanswered};
use crate::cli::output::say;
use crate::cli::{Failure, plain, progress};
use crate::delivery::timestamp;

/// After so many answers in a row that nothing was taken, and that there is more, something is wrong.
const ROUNDS_IN_VAIN: u32 = 20;

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters discard --campaign 13010 --until 30days --because 'the campaign is over'

A filter takes pending letters only, and of these only those there are when it begins. What is discarded can still be
seen, and sent again by its id.")]
pub(in crate::cli) struct Discard {
    #[command(flatten)]
    selection: Selection,
    /// Why they are given up, in at most 500 characters; it is kept with them. To give up all needs a reason
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, required_if_eq("all", "true"))]
    because: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Discard {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let selected = self.selection.selected(Utc::now())?;
        let api = self.server.api()?;
        let (selected, total) = bounded(&api, selected).await?;
        let mut body = selected.document();
        if let Some(because) = self.because {
            body.insert("reason".to_owned(), because.into());
        }
        let discarded = discard(&api, &body.into(), total).await?;
        if self.json {
            say!("{}", json!({ "discarded": discarded }));
        } else {
            say!("discarded {}", plain::dead_letters(discarded));
        }
        Ok(())
    }
}

/// What is there now, and how many that is: a letter that dies while this goes on was not meant.
async fn bounded(api: &Api, selected: Selected) -> Result<(Selected, u64), Failure> {
    match selected {
        Selected::Ids(ids) => {
            let total = ids.len() as u64;
            Ok((Selected::Ids(ids), total))
        }
        Selected::Filter(conditions) => {
            let summary = summary::read(api, &conditions.clone().or("state", "pending")).await?;
            let total = summary["total"].as_u64().unwrap_or_default();
            if total == 0 {
                return Err(Failure::of("no pending dead letter matches"));
            }
            Ok((Selected::Filter(until_newest(conditions, &summary)), total))
        }
    }
}

/// `until` is exclusive, and times have milliseconds. The server's times, whose clock may differ from ours.
fn until_newest(conditions: Conditions, summary: &Value) -> Conditions {
    let newest = summary["newest"].as_str().and_then(|newest| timestamp::parse(newest).ok());
    match newest.and_then(|newest| newest.checked_add_signed(TimeDelta::milliseconds(1))) {
        Some(end) => conditions.or("until", &timestamp::text(&end)),
        None => conditions,
    }
}

/// How many there were.
async fn discard(api: &Api, body: &Value, total: u64) -> Result<u64, Failure> {
    let bar = progress::bar(Some(total), "{bar:30} {human_pos}/{human_len} discarded  {eta} left");
    let (mut discarded, mut in_vain) = (0, 0);
    loop {
        let answer = match api.post(&[LIST, "discard"], Some(body)).await {
            Ok(answer) => answer.json()?,
            // What was left has been replayed or discarded by others meanwhile.
            Err(Unanswered::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. }) if discarded > 0 => break,
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
            return Err(incomplete(Failure::of("the server says that there are more, but takes none"), discarded));
        }
    }
    bar.finish_and_clear();
    Ok(discarded)
}

fn incomplete(failure: Failure, discarded: u64) -> Failure {
    if discarded == 0 {
        return failure;
    }
    failure.and(&format!("{} were discarded before; the same command goes on", plain::dead_letters(discarded)))
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
        let given = all.clone().or("until", "2026-11-21T00:00:00.000Z");
        assert_eq!(until_newest(given.clone(), &summary), given);
        assert_eq!(until_newest(all.clone(), &json!({ "newest": null })), all);
    }

    #[test]
    fn what_was_done_before_a_failure_is_told() {
        let text = |discarded| match incomplete(Failure::of("no answer"), discarded) {
            Failure::Failed(text) | Failure::Misused(text) => text,
        };
        assert_eq!(text(0), "no answer");
        assert_eq!(text(5000), "no answer\n5,000 dead letters were discarded before; the same command goes on");
    }
}
