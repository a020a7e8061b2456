//! Every answer is read as it was written, whatever numbers it has: from its text, and from a parsed value.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::history::{OperatorAction, ReplayAttempt};
use waypost_core::endpoint::EndpointStats;
use waypost_core::event::Keyword;
use waypost_core::ids::{DeadLetterId, ReplayId};
use waypost_core::replay::{Replay, ReplayOutcome};
use waypost_core::request::RequestPreview;
use waypost_core::timestamp;

use crate::dead_letters::{LetterResponse, LetterSummaryResponse};
use crate::endpoints::{EndpointResponse, ReceiverResponse};
use crate::field_error;
use crate::page::Page;
use crate::problem::ProblemDocument;
use crate::replays::{ReplayPreviewResponse, ReplayResponse, SampleRequest};
use crate::webhooks::WebhookResponse;

/// Numbers with more digits than any type of Rust, and numbers whose text would change if they were computed with.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("2.5".to_owned()),
        Just("1.50".to_owned()),
        Just("12345678901234567890".to_owned()),
        Just("123456789012345678901234567890123456789012345".to_owned()),
        "-?[1-9][0-9]{0,44}",
        "-?[1-9][0-9]{0,20}\\.[0-9]{1,20}",
        any::<i64>().prop_map(|number| number.to_string()),
    ]
}

/// A number that a type reads as `f64`.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.5), Just(2.5), Just(1e300), Just(0.1 + 0.2), Just(3.0), prop::num::f64::NORMAL]
}

fn keyword() -> impl Strategy<Value = Keyword> {
    prop_oneof![
        number().prop_map(|text| Keyword::Number(text.parse().expect("a number"))),
        ".{0,8}".prop_map(Keyword::Text),
    ]
}

fn optional<T: Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(value)
}

fn is_read_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(written: &T) -> Result<(), TestCaseError> {
    let text = serde_json::to_string(written).expect("JSON");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let from_text =
        serde_json::from_str::<T>(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    let from_value = field_error::deserialize::<T, _>(&value);
    let from_value = from_value.map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    for read in [from_text, from_value] {
        prop_assert_eq!(&read, written);
        prop_assert_eq!(serde_json::to_string(&read).expect("JSON"), text.clone());
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn preview() -> RequestPreview {
    RequestPreview {
        method: "POST".to_owned(),
        url: "https://example.com/hook".to_owned(),
        headers: [("x-api-key".to_owned(), "********".into())].into_iter().collect(),
        body: "{\"keyword\":1.50}".to_owned(),
    }
}

fn stats(failure_ratio: Option<f64>, latency_ms: Option<f64>) -> EndpointStats {
    let stats = json!({ "breaker": "half_open", "probeInMs": 12, "inFlight": 1, "waiting": 2, "allowed": 64, "parked": 3,
        "failureRatio": failure_ratio, "latencyMs": latency_ms,
        "lastError": { "at": "2026-11-22T03:04:05.678Z", "cause": "timeout", "status": null, "error": "no response" } });
    parse(&stats.to_string())
}

fn letter(keyword: &Keyword, is_delivery: bool) -> DeadLetter {
    let mut letter = json!({ "id": "dl_1", "state": "pending", "reason": "exhausted", "deadAt": "2026-11-22T03:04:05.678Z",
        "event": { "campaignId": "c", "label": "a", "phoneNumber": "1", "date": "2026-11-22T03:04:05.678Z", "keyword": keyword,
            "eventId": "e" },
        "trace": { "traceparent": "00-1-2-01" } });
    if is_delivery {
        letter["deliveryId"] = "msg_1".into();
        letter["status"] = 503.into();
        letter["attempts"] = json!([{ "at": "2026-11-22T03:04:05.678Z", "durationMs": 12, "status": 503, "cause": "status_5xx",
            "error": null, "answer": "down" }]);
    }
    parse(&letter.to_string())
}

proptest! {
    #[test]
    fn a_webhook_is_read_back(
        (extra, rate, multiplier) in (number(), number(), float()), keyword in optional(keyword())
    ) {
        let webhook = format!(
            r#"{{"id":"wh_1","url":"https://example.com/hook","enabled":true,"body":{{"zeta":{extra},"alpha":[{{"b":{extra}}}]}},
                "headers":{{"X-Api-Key":"k"}},"timeoutMs":15000,"rateLimit":{rate},"retry":{{"multiplier":{multiplier:?}}}}}"#
        );
        let (campaign_id, label) = ("c".to_owned(), "Welcome Message".to_owned());
        is_read_back(&WebhookResponse { webhook: parse(&webhook), campaign_id, label, keyword })?;
    }

    #[test]
    fn a_dead_letter_is_read_back(keyword in keyword(), is_delivery in any::<bool>(), has_history in any::<bool>()) {
        let summary = LetterSummaryResponse::from(letter(&keyword, is_delivery));
        is_read_back(&summary)?;
        is_read_back(&Page { items: vec![summary.clone()], next: Some("a".to_owned()) })?;
        let at = timestamp::parse("2026-11-22T04:00:00.000Z").expect("a time");
        let action = OperatorAction { by: "ops".to_owned(), at, operator_reason: Some("a test".to_owned()) };
        let replay = ReplayAttempt {
            replay_id: ReplayId::new("rp_1"),
            at,
            outcome: ReplayOutcome::Dead,
            dead_letter_id: Some(DeadLetterId::new("dl_2")),
        };
        is_read_back(&LetterResponse {
            summary,
            request: has_history.then(preview),
            replays: has_history.then_some(replay).into_iter().collect(),
            discard: has_history.then(|| action.clone()),
            erased: has_history.then_some(action),
        })?;
    }

    #[test]
    fn a_replay_is_read_back(rate in optional(float()), ratio in optional(float()), ids in optional(0_usize..3)) {
        let ids = ids.map(|count| vec!["dl_1"; count]);
        let replay = json!({ "id": "rp_1", "state": "running", "filter": { "status": 503, "since": "2026-11-22T03:04:05.678Z" },
            "ids": ids, "ratePerSecond": rate, "config": "current", "stopOnFailureRatio": ratio, "total": u64::MAX, "sent": 2,
            "delivered": 1, "requeued": 0, "failed": 1, "createdAt": "2026-11-22T03:04:05.678Z", "createdBy": "ops", "endedAt": null });
        let replay: Replay = parse(&replay.to_string());
        is_read_back(&ReplayResponse::with_all_ids(replay.clone()))?;
        is_read_back(&ReplayResponse { replay: Replay { ids: None, ..replay }, id_count: Some(101) })?;
    }

    #[test]
    fn an_endpoint_is_read_back(ratio in optional(float()), latency in optional(float())) {
        is_read_back(&EndpointResponse {
            endpoint: waypost_core::endpoint::Origin::parse("https://example.com").expect("an endpoint"),
            stats: stats(ratio, latency),
            receivers: vec![ReceiverResponse { path: "/hook".to_owned(), stats: stats(latency, ratio) }],
        })?;
    }
}

#[test]
fn a_preview_of_a_replay_is_read_back() {
    let sample = vec![SampleRequest { dead_letter_id: DeadLetterId::new("dl_1"), request: preview() }];
    let preview = ReplayPreviewResponse { total: 1, endpoints: Vec::new(), unsendable: Vec::new(), sample };
    is_read_back(&preview).expect("the same preview");
}

#[test]
fn an_error_names_the_field() {
    let text = r#"{"endpoint":"https://a.example:443","breaker":"melted"}"#;
    let error = serde_json::from_str::<EndpointResponse>(text).expect_err("an unknown state");
    assert!(error.to_string().starts_with("breaker: unknown variant `melted`"), "{error}");
    let error = serde_json::from_str::<EndpointResponse>("{}").expect_err("an incomplete endpoint");
    assert!(error.to_string().starts_with("missing field `breaker`"), "{error}");
}

/// A proxy's problem document may have a detail only.
#[test]
fn a_problem_of_another_program_is_read() {
    let problem: ProblemDocument = parse(r#"{"detail":"no upstream"}"#);
    assert_eq!((&*problem.detail, problem.status, problem.errors.len()), ("no upstream", 0, 0));
    assert!(serde_json::from_str::<ProblemDocument>(r#"{"message":"no upstream"}"#).is_err());
}
