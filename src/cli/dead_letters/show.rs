//! `waypost dead-letters show`: the details of a dead letter, and what to do about it.

use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::Value;
use waypost_core::duration::approximate;
use waypost_core::reason::DeadLetterReason;
use waypost_core::timestamp;

use super::request;
use crate::cli::client::{DEAD_LETTERS, Server, parse_id};
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
        let letter = self.server.api()?.get(&[DEAD_LETTERS, &self.id], &[]).await?;
        if self.json {
            out!("{letter}");
        } else {
            out!("{}", render(&letter, Utc::now()));
        }
        Ok(())
    }
}

fn render(letter: &Value, now: DateTime<Utc>) -> String {
    let sections = [
        Some(header(letter, now)),
        fields(letter),
        unreadable(letter),
        (!letter["event"].is_null()).then(|| format!("Event\n{}", indent(&format!("{:#}", letter["event"])))),
        (!letter["request"].is_null())
            .then(|| format!("Request of the last attempt\n{}", request::render(&letter["request"], "  "))),
        attempts(letter),
        replays(letter),
        discard(letter),
        Some(next_step(letter)),
    ];
    let sections: Vec<String> = sections.into_iter().flatten().map(|section| section.trim_end().to_owned()).collect();
    sections.join("\n\n")
}

fn header(letter: &Value, now: DateTime<Utc>) -> String {
    let reason = letter["reason"].as_str().unwrap_or_default();
    let dead_at = sanitize::field(&letter["deadAt"], 40);
    let ago = timestamp::parse(&dead_at).ok().and_then(|dead_at| now.signed_duration_since(dead_at).to_std().ok());
    let ago = ago.map_or_else(String::new, |ago| format!(" ({} ago)", approximate(ago)));
    let (id, state) = (sanitize::field(&letter["id"], 64), sanitize::field(&letter["state"], 20));
    format!("{id}  {state}\n{}: {}\ndead letter since {dead_at}{ago}", sanitize::line(reason, 20), reason_text(reason))
}

fn reason_text(reason: &str) -> &'static str {
    let known = DeadLetterReason::ALL.into_iter().find(|known| known.as_str() == reason);
    known.map_or("this version of the command does not know this reason", DeadLetterReason::description)
}

fn fields(letter: &Value) -> Option<String> {
    let fields = [
        ("campaign", "campaignId"),
        ("label", "label"),
        ("webhook", "webhookId"),
        ("url", "url"),
        ("event id", "eventId"),
        ("webhook-id header", "deliveryId"),
        ("first attempt", "firstAttemptAt"),
        ("last status", "status"),
        ("last cause", "cause"),
        ("failed in replay", "replayId"),
        ("previously", "replayOf"),
    ];
    let present = fields.into_iter().filter(|(_, name)| !letter[name].is_null());
    let lines: Vec<String> =
        present.map(|(label, name)| format!("  {label:<18} {}", sanitize::field(&letter[name], usize::MAX))).collect();
    (!lines.is_empty()).then(|| format!("Delivery\n{}", lines.join("\n")))
}

/// The body of an unreadable message, and its errors.
fn unreadable(letter: &Value) -> Option<String> {
    let (title, body) = match (letter["body"].as_str(), letter["bodyBase64"].as_str()) {
        (Some(body), _) => ("Message", body),
        (None, Some(base64)) => ("Message in Base64 (it is not text)", base64),
        (None, None) => return None,
    };
    let line = |error: &Value| {
        format!("  {}: {}\n", sanitize::field(&error["path"], 200), sanitize::field(&error["message"], usize::MAX))
    };
    let errors: String = letter["errors"].as_array().into_iter().flatten().map(line).collect();
    let shown: String = body.chars().take(MAX_BODY_CHARS).collect();
    let cut_bytes = body.len() - shown.len();
    let rest = if cut_bytes > 0 { format!("\n  … {cut_bytes} more bytes: --json prints all") } else { String::new() };
    let errors = if errors.is_empty() { errors } else { format!("Errors\n{errors}\n") };
    Some(format!("{errors}{title}\n{}{rest}", indent(&shown)))
}

fn attempts(letter: &Value) -> Option<String> {
    let attempts = letter["attempts"].as_array().filter(|attempts| !attempts.is_empty())?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "AT", "TOOK", "RESULT", "ERROR, OR START OF THE RESPONSE"]);
    for (number, attempt) in (1..).zip(attempts) {
        let took = attempt["durationMs"].as_u64().map_or_else(|| sanitize::EMPTY.to_owned(), |ms| format!("{ms} ms"));
        let result = if attempt["status"].is_null() { &attempt["cause"] } else { &attempt["status"] };
        let detail = if attempt["error"].is_null() { &attempt["answer"] } else { &attempt["error"] };
        let at = sanitize::field(&attempt["at"], 40);
        table.add_row([number.to_string(), at, took, sanitize::field(result, 20), sanitize::field(detail, 100)]);
    }
    Some(format!("Attempts\n{}", table.trim_fmt()))
}

fn replays(letter: &Value) -> Option<String> {
    let replays = letter["replays"].as_array().filter(|replays| !replays.is_empty())?;
    let lines = replays.iter().map(|replay| {
        let outcome = match (replay["outcome"].as_str(), replay["deadLetterId"].as_str()) {
            (Some("dead"), Some(letter)) => format!("dead again, as {}", sanitize::line(letter, 64)),
            (Some("dead"), None) => "dead again".to_owned(),
            (Some("requeued"), _) => "returned to the events queue".to_owned(),
            _ => sanitize::field(&replay["outcome"], 20),
        };
        format!("  {}  {}  {outcome}", sanitize::field(&replay["at"], 40), sanitize::field(&replay["replayId"], 64))
    });
    Some(format!("Replays\n{}", lines.collect::<Vec<_>>().join("\n")))
}

fn discard(letter: &Value) -> Option<String> {
    let discard = Some(&letter["discard"]).filter(|discard| !discard.is_null())?;
    let by = discard["by"].as_str().map_or_else(String::new, |by| format!(" by {}", sanitize::line(by, 100)));
    let because =
        discard["because"].as_str().map_or_else(String::new, |text| format!(": {}", sanitize::line(text, 1000)));
    Some(format!("Discarded\n  {}{by}{because}", sanitize::field(&discard["at"], 40)))
}

fn next_step(letter: &Value) -> String {
    let id = sanitize::shell_word(letter["id"].as_str().unwrap_or_default());
    if !letter["erased"].is_null() {
        return "The personal data was erased, so this dead letter can't be sent again.".to_owned();
    }
    let advice = match (letter["state"].as_str(), letter["reason"].as_str()) {
        (Some("replaying"), _) => {
            return "A replay is sending it. Follow the replay:\n  waypost replays list".to_owned();
        }
        (_, Some("webhook_deleted")) => {
            "The webhook was deleted. Restore it (`waypost campaigns history` and `revert`), then send it again:"
        }
        (_, Some("webhook_disabled")) => "The webhook is disabled. Enable it, then send it again:",
        (Some("pending"), Some("expired" | "rejected" | "maxlen")) => {
            "The broker removed the message. Find out why, then send it again:"
        }
        (Some("pending"), Some("poison")) if letter["deliveryId"].is_null() => {
            "Return the message to the events queue:"
        }
        (Some("pending"), Some("malformed")) => {
            "The publisher must publish a corrected event. If the event was valid and Waypost has been fixed, return the message to \
             the events queue:"
        }
        (Some("replayed"), _) => "It has already been sent again. To repeat:",
        (Some("discarded"), _) => "It was discarded. To send it anyway:",
        _ => "To send it again:",
    };
    format!("{advice}\n  waypost dead-letters replay {id}")
}

fn indent(text: &str) -> String {
    sanitize::lines(text).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        timestamp::parse("2026-11-22T05:04:05Z").unwrap()
    }

    #[test]
    fn a_delivery_is_shown_with_attempts_and_replays() {
        let letter = json!({
            "id": "dl_1", "state": "replayed", "reason": "exhausted", "deadAt": "2026-11-22T03:01:05.678Z",
            "campaignId": "13010", "label": "Welcome Message", "webhookId": "wh_1", "deliveryId": "msg_1", "eventId": "e-1",
            "url": "https://example.com/hook", "status": 503, "cause": "status_5xx",
            "firstAttemptAt": "2026-11-21T03:00:00.000Z",
            "attempts": [
                { "at": "2026-11-21T03:00:00.000Z", "durationMs": 15000, "status": null, "cause": "timeout",
                  "error": "no response within 15000 ms", "answer": null },
                { "at": "2026-11-22T03:01:05.000Z", "durationMs": 12, "status": 503, "cause": "status_5xx", "error": null,
                  "answer": "down\nfor \u{1b}[31mmaintenance" } ],
            "event": { "campaignId": "13010", "label": "Welcome Message", "keyword": 4 },
            "request": { "method": "POST", "url": "https://example.com/hook", "headers": { "webhook-id": "msg_1" }, "body": "{\"keyword\":4}" },
            "replays": [ { "replayId": "rp_1", "at": "2026-11-22T04:00:00.000Z", "outcome": "dead", "deadLetterId": "dl_2" },
                         { "replayId": "rp_2", "at": "2026-11-22T04:30:00.000Z", "outcome": "delivered" } ] });
        let expected = "\
dl_1  replayed
exhausted: the limit for attempts or for their age was reached
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
    \"keyword\": 4
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
        let letter = json!({ "id": "dl_3", "state": "discarded", "reason": "malformed", "deadAt": "2026-11-22T05:04:00.000Z",
            "body": body, "errors": [ { "path": "$.date", "message": "not an RFC 3339 date" } ],
            "discard": { "by": "ops", "at": "2026-11-22T05:04:02.000Z", "because": "a test" } });
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
        let next = |state: &str, reason: &str| next_step(&json!({ "id": "dl_1", "state": state, "reason": reason }));
        assert_eq!(next("pending", "gone"), "To send it again:\n  waypost dead-letters replay dl_1");
        assert!(next("pending", "poison").starts_with("Return the message"));
        assert!(next("pending", "expired").starts_with("The broker removed the message"));
        assert!(next("pending", "malformed").starts_with("The publisher must publish"));
        assert!(next("pending", "webhook_deleted").starts_with("The webhook was deleted"));
        assert!(next("replaying", "webhook_deleted").ends_with("waypost replays list"));
    }
}
