//! `waypost dead-letters show`: all there is to know of one, and how to send it again.

use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::Value;

use super::{LIST, request};
use crate::cli::CliError;
use crate::cli::client::{Server, id};
use crate::cli::sanitize;
use crate::cli::stdio::say;
use crate::delivery::duration::rough;
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::timestamp;

/// So much of an unreadable body is shown; the whole is in the JSON.
const BODY_SHOWN: usize = 2000;

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters show dl_SmIh-_Ia6sNZoOa2uxP8_NDq")]
pub(in crate::cli) struct Show {
    /// The dead letter's id
    #[arg(value_parser = id)]
    id: String,
    /// As JSON, on one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Show {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let letter = self.server.api()?.get(&[LIST, &self.id], &[]).await?;
        if self.json {
            say!("{letter}");
        } else {
            say!("{}", page(&letter, Utc::now()));
        }
        Ok(())
    }
}

/// The page, its sections apart.
fn page(letter: &Value, now: DateTime<Utc>) -> String {
    let sections = [
        Some(head(letter, now)),
        facts(letter),
        unreadable(letter),
        (!letter["event"].is_null()).then(|| format!("Event\n{}", indented(&format!("{:#}", letter["event"])))),
        (!letter["request"].is_null())
            .then(|| format!("Request, as sent at the last attempt\n{}", request::text(&letter["request"], "  "))),
        attempts(letter),
        replays(letter),
        discard(letter),
        Some(what_next(letter)),
    ];
    let sections: Vec<String> = sections.into_iter().flatten().map(|section| section.trim_end().to_owned()).collect();
    sections.join("\n\n")
}

fn head(letter: &Value, now: DateTime<Utc>) -> String {
    let reason = letter["reason"].as_str().unwrap_or_default();
    let dead_at = sanitize::field(&letter["deadAt"], 40);
    let ago = timestamp::parse(&dead_at).ok().and_then(|dead_at| now.signed_duration_since(dead_at).to_std().ok());
    let ago = ago.map_or_else(String::new, |ago| format!(" ({} ago)", rough(ago)));
    let (id, state) = (sanitize::field(&letter["id"], 64), sanitize::field(&letter["state"], 20));
    format!("{id}  {state}\n{}: {}\ndead since {dead_at}{ago}", sanitize::line(reason, 20), in_words(reason))
}

fn in_words(reason: &str) -> &'static str {
    let known = DeadLetterReason::ALL.into_iter().find(|known| known.as_str() == reason);
    known.map_or("a reason this version does not know", DeadLetterReason::in_words)
}

fn facts(letter: &Value) -> Option<String> {
    let facts = [
        ("campaign", "campaignId"),
        ("label", "label"),
        ("webhook", "webhookId"),
        ("url", "url"),
        ("event id", "eventId"),
        ("webhook-id header", "deliveryId"),
        ("first attempt", "firstAttemptAt"),
        ("last status", "status"),
        ("last cause", "cause"),
        ("failed again in", "replayId"),
        ("and was before", "replayOf"),
    ];
    let given = facts.into_iter().filter(|(_, name)| !letter[name].is_null());
    let lines: Vec<String> =
        given.map(|(words, name)| format!("  {words:<18} {}", sanitize::field(&letter[name], usize::MAX))).collect();
    (!lines.is_empty()).then(|| format!("Delivery\n{}", lines.join("\n")))
}

/// What could not be read, and why.
fn unreadable(letter: &Value) -> Option<String> {
    let (words, body) = match (letter["body"].as_str(), letter["bodyBase64"].as_str()) {
        (Some(body), _) => ("Message, as it came", body),
        (None, Some(base64)) => ("Message, as it came, in Base64: it is no text", base64),
        (None, None) => return None,
    };
    let fault = |fault: &Value| {
        format!("  {}: {}\n", sanitize::field(&fault["path"], 200), sanitize::field(&fault["message"], usize::MAX))
    };
    let faults: String = letter["errors"].as_array().into_iter().flatten().map(fault).collect();
    let shown: String = body.chars().take(BODY_SHOWN).collect();
    let rest = body.len() - shown.len();
    let rest = if rest > 0 { format!("\n  … and {rest} bytes more: --json has them all") } else { String::new() };
    let faults = if faults.is_empty() { faults } else { format!("Faults\n{faults}\n") };
    Some(format!("{faults}{words}\n{}{rest}", indented(&shown)))
}

fn attempts(letter: &Value) -> Option<String> {
    let attempts = letter["attempts"].as_array().filter(|attempts| !attempts.is_empty())?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "",
        "AT",
        "TOOK",
        "RESULT",
        "FIRST BYTES OF THE ANSWER, OR THE ERROR",
    ]);
    for (number, attempt) in (1..).zip(attempts) {
        let took = attempt["durationMs"].as_u64().map_or_else(|| sanitize::NOTHING.to_owned(), |ms| format!("{ms} ms"));
        let result = if attempt["status"].is_null() { &attempt["cause"] } else { &attempt["status"] };
        let said = if attempt["error"].is_null() { &attempt["answer"] } else { &attempt["error"] };
        let at = sanitize::field(&attempt["at"], 40);
        table.add_row([number.to_string(), at, took, sanitize::field(result, 20), sanitize::field(said, 100)]);
    }
    Some(format!("Attempts\n{}", table.trim_fmt()))
}

fn replays(letter: &Value) -> Option<String> {
    let replays = letter["replays"].as_array().filter(|replays| !replays.is_empty())?;
    let lines = replays.iter().map(|replay| {
        let outcome = match (replay["outcome"].as_str(), replay["deadLetterId"].as_str()) {
            (Some("dead"), Some(letter)) => format!("dead again, as {}", sanitize::line(letter, 64)),
            (Some("dead"), None) => "dead again".to_owned(),
            (Some("requeued"), _) => "put back on the queue of events".to_owned(),
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

fn what_next(letter: &Value) -> String {
    let id = sanitize::shell_word(letter["id"].as_str().unwrap_or_default());
    if !letter["erased"].is_null() {
        return "What it told of a person was erased: it can't be sent again.".to_owned();
    }
    let again = match (letter["state"].as_str(), letter["reason"].as_str()) {
        (Some("replaying"), _) => {
            return "It is being sent again now; see how that goes:\n  waypost replays list".to_owned();
        }
        (_, Some("webhook_deleted")) => {
            "The webhook was deleted. Restore it (`waypost campaigns history` and `revert`), then send it again:"
        }
        (_, Some("webhook_disabled")) => "Enable the webhook, then send it again:",
        (Some("pending"), Some("expired" | "rejected" | "maxlen")) => {
            "The broker removed the message. Find out why, then send it again:"
        }
        (Some("pending"), Some("poison")) if letter["deliveryId"].is_null() => {
            "Put the message back on the queue of events:"
        }
        (Some("pending"), Some("malformed")) => {
            "Whoever published it has to publish it again, without its faults. Where it is Waypost that was wrong and is mended, put the \
             message back on the queue of events as it is:"
        }
        (Some("replayed"), _) => "It has been sent again already. Once more:",
        (Some("discarded"), _) => "It has been given up. Send it again all the same:",
        _ => "Send it again:",
    };
    format!("{again}\n  waypost dead-letters replay {id}")
}

fn indented(text: &str) -> String {
    sanitize::lines(text).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        timestamp::parse("2026-11-22T05:04:05Z").unwrap()
    }

    #[test]
    fn the_page_of_a_delivery() {
        let letter = json!({
            "id": "dl_1", "state": "replayed", "reason": "exhausted", "deadAt": "2026-11-22T03:01:05.678Z",
            "campaignId": "13010", "label": "Welcome Message", "webhookId": "wh_1", "deliveryId": "msg_1", "eventId": "e-1",
            "url": "https://example.com/hook", "status": 503, "cause": "status_5xx",
            "firstAttemptAt": "2026-11-21T03:00:00.000Z",
            "attempts": [
                { "at": "2026-11-21T03:00:00.000Z", "durationMs": 15000, "status": null, "cause": "timeout",
                  "error": "no answer within 15000 ms", "answer": null },
                { "at": "2026-11-22T03:01:05.000Z", "durationMs": 12, "status": 503, "cause": "status_5xx", "error": null,
                  "answer": "down\nfor \u{1b}[31mmaintenance" } ],
            "event": { "campaignId": "13010", "label": "Welcome Message", "keyword": 4 },
            "request": { "method": "POST", "url": "https://example.com/hook", "headers": { "webhook-id": "msg_1" }, "body": "{\"keyword\":4}" },
            "replays": [ { "replayId": "rp_1", "at": "2026-11-22T04:00:00.000Z", "outcome": "dead", "deadLetterId": "dl_2" },
                         { "replayId": "rp_2", "at": "2026-11-22T04:30:00.000Z", "outcome": "delivered" } ] });
        let expected = "\
dl_1  replayed
exhausted: the attempts, or the time for them, were used up
dead since 2026-11-22T03:01:05.678Z (2h 2m ago)

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

Request, as sent at the last attempt
  POST https://example.com/hook
  webhook-id: msg_1

  {\"keyword\":4}

Attempts
    AT                        TOOK      RESULT   FIRST BYTES OF THE ANSWER, OR THE ERROR
 1  2026-11-21T03:00:00.000Z  15000 ms  timeout  no answer within 15000 ms
 2  2026-11-22T03:01:05.000Z  12 ms     503      down for ·[31mmaintenance

Replays
  2026-11-22T04:00:00.000Z  rp_1  dead again, as dl_2
  2026-11-22T04:30:00.000Z  rp_2  delivered

It has been sent again already. Once more:
  waypost dead-letters replay dl_1";
        assert_eq!(page(&letter, now()), expected);
    }

    #[test]
    fn the_page_of_what_could_not_be_read() {
        let body = format!("{{\"date\":\"today\"{}", " ".repeat(BODY_SHOWN));
        let letter = json!({ "id": "dl_3", "state": "discarded", "reason": "malformed", "deadAt": "2026-11-22T05:04:00.000Z",
            "body": body, "errors": [ { "path": "$.date", "message": "not an RFC 3339 date" } ],
            "discard": { "by": "ops", "at": "2026-11-22T05:04:02.000Z", "because": "a test" } });
        let page = page(&letter, now());
        for text in [
            "dl_3  discarded\nmalformed: the message is no step event\ndead since 2026-11-22T05:04:00.000Z (5s ago)\n\nFaults\n",
            "  $.date: not an RFC 3339 date\n\nMessage, as it came\n  {\"date\":\"today\"",
            "… and 15 bytes more: --json has them all",
            "\n\nDiscarded\n  2026-11-22T05:04:02.000Z by ops: a test\n\n",
            "all the same:\n  waypost dead-letters replay dl_3",
        ] {
            assert!(page.contains(text), "no {text:?}: {page}");
        }
        assert!(!page.contains("Delivery"), "{page}");
    }

    #[test]
    fn what_to_do_next() {
        let next = |state: &str, reason: &str| what_next(&json!({ "id": "dl_1", "state": state, "reason": reason }));
        assert_eq!(next("pending", "gone"), "Send it again:\n  waypost dead-letters replay dl_1");
        assert!(next("pending", "poison").starts_with("Put the message back"));
        assert!(next("pending", "expired").starts_with("The broker removed the message"));
        assert!(next("pending", "malformed").starts_with("Whoever published it has to publish it again"));
        assert!(next("pending", "webhook_deleted").starts_with("The webhook was deleted"));
        assert!(next("replaying", "webhook_deleted").ends_with("waypost replays list"));
    }
}
