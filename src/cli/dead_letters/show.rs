//! `waypost dead-letters show`: the details of a dead letter, and what to do about it.

use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::{Table, presets};
use waypost_api::dead_letters::LetterResponse;
use waypost_core::Attempt;
use waypost_core::dead_letter::history::{OperatorAction, ReplayAttempt};
use waypost_core::dead_letter::{DeadLetter, LetterState};
use waypost_core::duration::approximate;
use waypost_core::ids::{DeadLetterId, DeliveryId, EventId, ReplayId, WebhookId};
use waypost_core::outcome::Cause;
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::ReplayOutcome;
use waypost_core::timestamp;
use waypost_core::violation::Violation;

use super::request;
use crate::cli::client::{Server, parse_id};
use crate::cli::error::CliError;
use crate::cli::sanitize;
use crate::cli::stdio::out;

/// Longer bodies are cut. The JSON output has the whole body.
const MAX_BODY_CHARS: usize = 2000;

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters show dl_SmIh-_Ia6sNZoOa2uxP8_NDq")]
pub(in crate::cli) struct Show {
    /// The dead letter's id
    #[arg(value_parser = parse_id)]
    id: String,
    /// Print JSON on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let answer = self.server.client()?.dead_letter(&self.id).await?;
        if self.json {
            out!("{answer}");
        } else {
            out!("{}", render(&answer.read()?, Utc::now()));
        }
        Ok(())
    }
}

fn render(response: &LetterResponse, now: DateTime<Utc>) -> String {
    let LetterResponse { summary, request, replays, discard, .. } = response;
    let letter = &summary.letter;
    let request = request.as_ref().map(|request| request::render(request, "  "));
    let sections = [
        Some(header(letter, now)),
        fields(letter),
        unreadable(letter),
        event(letter),
        request.map(|request| format!("Request of the last attempt\n{request}")),
        attempts(&letter.attempts),
        replay_attempts(replays),
        discard.as_ref().map(discarded),
        Some(next_step(response)),
    ];
    let sections: Vec<String> = sections.into_iter().flatten().map(|section| section.trim_end().to_owned()).collect();
    sections.join("\n\n")
}

fn header(letter: &DeadLetter, now: DateTime<Utc>) -> String {
    let ago = now.signed_duration_since(letter.dead_at).to_std().ok();
    let ago = ago.map_or_else(String::new, |ago| format!(" ({} ago)", approximate(ago)));
    let (id, state) = (sanitize::text(letter.id.as_str(), 64), letter.state.as_str());
    let (reason, description) = (letter.reason.as_str(), letter.reason.description());
    format!("{id}  {state}\n{reason}: {description}\ndead letter since {}{ago}", timestamp::text(&letter.dead_at))
}

fn fields(letter: &DeadLetter) -> Option<String> {
    let first_attempt_at = letter.first_attempt_at.as_ref().map(timestamp::text);
    let status = letter.status.map(|status| status.to_string());
    let fields = [
        ("campaign", letter.campaign_id.as_deref()),
        ("label", letter.label.as_deref()),
        ("webhook", letter.webhook_id.as_ref().map(WebhookId::as_str)),
        ("url", letter.url.as_deref()),
        ("event id", letter.event_id.as_ref().map(EventId::as_str)),
        ("webhook-id header", letter.delivery_id.as_ref().map(DeliveryId::as_str)),
        ("first attempt", first_attempt_at.as_deref()),
        ("last status", status.as_deref()),
        ("last cause", letter.cause.map(Cause::as_str)),
        ("failed in replay", letter.replay_id.as_ref().map(ReplayId::as_str)),
        ("previously", letter.replay_of.as_ref().map(DeadLetterId::as_str)),
    ];
    let line = |(label, value): (&str, Option<&str>)| {
        value.map(|value| format!("  {label:<18} {}", sanitize::text(value, usize::MAX)))
    };
    let lines: Vec<String> = fields.into_iter().filter_map(line).collect();
    (!lines.is_empty()).then(|| format!("Delivery\n{}", lines.join("\n")))
}

/// The body of an unreadable message, and its errors.
fn unreadable(letter: &DeadLetter) -> Option<String> {
    let (title, body) = match (&letter.body, &letter.body_base64) {
        (Some(body), _) => ("Message", body),
        (None, Some(base64)) => ("Message in Base64 (it is not text)", base64),
        (None, None) => return None,
    };
    let line = |error: &Violation| {
        format!("  {}: {}\n", sanitize::text(&*error.path, 200), sanitize::text(&*error.message, usize::MAX))
    };
    let errors: String = letter.errors.iter().map(line).collect();
    let shown: String = body.chars().take(MAX_BODY_CHARS).collect();
    let cut_bytes = body.len() - shown.len();
    let rest = if cut_bytes > 0 { format!("\n  … {cut_bytes} more bytes: --json prints all") } else { String::new() };
    let errors = if errors.is_empty() { errors } else { format!("Errors\n{errors}\n") };
    Some(format!("{errors}{title}\n{}{rest}", indent(&shown)))
}

fn event(letter: &DeadLetter) -> Option<String> {
    let event = serde_json::to_string_pretty(letter.event.as_ref()?).ok()?;
    Some(format!("Event\n{}", indent(&event)))
}

fn attempts(attempts: &[Attempt]) -> Option<String> {
    if attempts.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "AT", "TOOK", "RESULT", "ERROR, OR START OF THE RESPONSE"]);
    for (number, attempt) in (1..).zip(attempts) {
        let result = attempt.status.map_or_else(|| attempt.cause.as_str().to_owned(), |status| status.to_string());
        let detail = sanitize::text(attempt.error.as_deref().or(attempt.answer.as_deref()), 100);
        let (at, took) = (timestamp::text(&attempt.at), format!("{} ms", attempt.duration_ms));
        table.add_row([number.to_string(), at, took, result, detail]);
    }
    Some(format!("Attempts\n{}", table.trim_fmt()))
}

fn replay_attempts(replays: &[ReplayAttempt]) -> Option<String> {
    let line = |ReplayAttempt { replay_id, at, outcome, dead_letter_id }: &ReplayAttempt| {
        let outcome = match (outcome, dead_letter_id) {
            (ReplayOutcome::Dead, Some(letter)) => format!("dead again, as {}", sanitize::line(letter.as_str(), 64)),
            (ReplayOutcome::Dead, None) => "dead again".to_owned(),
            (ReplayOutcome::Requeued, _) => "returned to the events queue".to_owned(),
            (ReplayOutcome::Delivered, _) => outcome.as_str().to_owned(),
        };
        format!("  {}  {}  {outcome}", timestamp::text(at), sanitize::text(replay_id.as_str(), 64))
    };
    let lines: Vec<String> = replays.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("Replays\n{}", lines.join("\n")))
}

fn discarded(OperatorAction { by, at, operator_reason }: &OperatorAction) -> String {
    let because = operator_reason.as_ref().map_or_else(String::new, |text| format!(": {}", sanitize::line(text, 1000)));
    format!("Discarded\n  {} by {}{because}", timestamp::text(at), sanitize::line(by, 100))
}

fn next_step(LetterResponse { summary, erased, .. }: &LetterResponse) -> String {
    use DeadLetterReason::{Expired, Malformed, Maxlen, Poison, Rejected, WebhookDeleted, WebhookDisabled};
    let letter = &summary.letter;
    if erased.is_some() {
        return "The personal data was erased, so this dead letter can't be sent again.".to_owned();
    }
    let advice = match (letter.state, letter.reason) {
        (LetterState::Replaying, _) => {
            return "A replay is sending it. Follow the replay:\n  waypost replays list".to_owned();
        }
        (_, WebhookDeleted) => {
            "The webhook was deleted. Add it to its campaign again, with the same id (`waypost campaigns get` and `apply`). Then \
             send the dead letter again:"
        }
        (_, WebhookDisabled) => "The webhook is disabled. Enable it, then send it again:",
        (LetterState::Pending, Expired | Rejected | Maxlen) => {
            "The broker removed the message. Find out why, then send it again:"
        }
        (LetterState::Pending, Poison) if !letter.is_delivery() => "Return the message to the events queue:",
        (LetterState::Pending, Malformed) => {
            "The publisher must publish a corrected event. If the event was valid and Waypost has been fixed, return the message to \
             the events queue:"
        }
        (LetterState::Replayed, _) => "It has already been sent again. To repeat:",
        (LetterState::Discarded, _) => "It was discarded. To send it anyway:",
        (LetterState::Pending, _) => "To send it again:",
    };
    format!("{advice}\n  waypost dead-letters replay {}", sanitize::shell_word(letter.id.as_str()))
}

fn indent(text: &str) -> String {
    sanitize::lines(text).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn response(json: serde_json::Value) -> LetterResponse {
        serde_json::from_value(json).unwrap()
    }

    fn now() -> DateTime<Utc> {
        timestamp::parse("2026-11-22T05:04:05Z").unwrap()
    }

    #[test]
    fn a_delivery_is_shown_with_attempts_and_replays() {
        let letter = response(json!({
            "id": "dl_1", "state": "replayed", "reason": "exhausted", "deadAt": "2026-11-22T03:01:05.678Z",
            "campaignId": "13010", "label": "Welcome Message", "webhookId": "wh_1", "deliveryId": "msg_1", "eventId": "e-1",
            "url": "https://example.com/hook", "status": 503, "cause": "status_5xx",
            "firstAttemptAt": "2026-11-21T03:00:00.000Z",
            "attempts": [
                { "at": "2026-11-21T03:00:00.000Z", "durationMs": 15000, "status": null, "cause": "timeout",
                  "error": "no response within 15000 ms", "answer": null },
                { "at": "2026-11-22T03:01:05.000Z", "durationMs": 12, "status": 503, "cause": "status_5xx", "error": null,
                  "answer": "down\nfor \u{1b}[31mmaintenance" } ],
            "event": { "campaignId": "13010", "label": "Welcome Message", "phoneNumber": "+1", "date": "2026-11-21T03:00:00.000Z",
                "keyword": 4, "eventId": "e-1" },
            "request": { "method": "POST", "url": "https://example.com/hook", "headers": { "webhook-id": "msg_1" }, "body": "{\"keyword\":4}" },
            "replays": [ { "replayId": "rp_1", "at": "2026-11-22T04:00:00.000Z", "outcome": "dead", "deadLetterId": "dl_2" },
                         { "replayId": "rp_2", "at": "2026-11-22T04:30:00.000Z", "outcome": "delivered" } ] }));
        let expected = "\
dl_1  replayed
exhausted: the delivery reached its limit of attempts or of age
dead letter since 2026-11-22T03:01:05.678Z (2h 2m ago)

Delivery
  campaign           13010
  label              Welcome Message
  webhook            wh_1
  url                https://example.com/hook
  event id           e-1
  webhook-id header  msg_1
  first attempt      2026-11-21T03:00:00.000Z
  last status        503
  last cause         status_5xx

Event
  {
    \"campaignId\": \"13010\",
    \"label\": \"Welcome Message\",
    \"phoneNumber\": \"+1\",
    \"date\": \"2026-11-21T03:00:00.000Z\",
    \"keyword\": 4,
    \"eventId\": \"e-1\"
  }

Request of the last attempt
  POST https://example.com/hook
  webhook-id: msg_1

  {\"keyword\":4}

Attempts
    AT                        TOOK      RESULT   ERROR, OR START OF THE RESPONSE
 1  2026-11-21T03:00:00.000Z  15000 ms  timeout  no response within 15000 ms
 2  2026-11-22T03:01:05.000Z  12 ms     503      down for ·[31mmaintenance

Replays
  2026-11-22T04:00:00.000Z  rp_1  dead again, as dl_2
  2026-11-22T04:30:00.000Z  rp_2  delivered

It has already been sent again. To repeat:
  waypost dead-letters replay dl_1";
        assert_eq!(render(&letter, now()), expected);
    }

    #[test]
    fn an_unreadable_message_is_shown_with_its_errors() {
        let body = format!("{{\"date\":\"today\"{}", " ".repeat(MAX_BODY_CHARS));
        let letter = response(
            json!({ "id": "dl_3", "state": "discarded", "reason": "malformed", "deadAt": "2026-11-22T05:04:00.000Z",
            "body": body, "errors": [ { "path": "$.date", "message": "not an RFC 3339 date" } ],
            "discard": { "by": "ops", "at": "2026-11-22T05:04:02.000Z", "because": "a test" }, "replays": [] }),
        );
        let page = render(&letter, now());
        for text in [
            "dl_3  discarded\nmalformed: the message is not a step event\ndead letter since 2026-11-22T05:04:00.000Z (5s ago)\n\nErrors\n",
            "  $.date: not an RFC 3339 date\n\nMessage\n  {\"date\":\"today\"",
            "… 15 more bytes: --json prints all",
            "\n\nDiscarded\n  2026-11-22T05:04:02.000Z by ops: a test\n\n",
            "To send it anyway:\n  waypost dead-letters replay dl_3",
        ] {
            assert!(page.contains(text), "no {text:?}: {page}");
        }
        assert!(!page.contains("Delivery"), "{page}");
    }

    #[test]
    fn the_next_step_depends_on_state_and_reason() {
        let next = |state: &str, reason: &str| {
            let dead_at = "2026-11-22T05:04:00.000Z";
            let letter = json!({ "id": "dl_1", "state": state, "reason": reason, "deadAt": dead_at, "replays": [] });
            next_step(&response(letter))
        };
        assert_eq!(next("pending", "gone"), "To send it again:\n  waypost dead-letters replay dl_1");
        assert!(next("pending", "poison").starts_with("Return the message"));
        assert!(next("pending", "expired").starts_with("The broker removed the message"));
        assert!(next("pending", "malformed").starts_with("The publisher must publish"));
        assert!(next("pending", "webhook_deleted").starts_with("The webhook was deleted"));
        assert!(next("replaying", "webhook_deleted").ends_with("waypost replays list"));
    }
}
