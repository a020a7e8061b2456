//! Publishing events on the command line.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{CliSandbox, assert_exit, campaign, parse_json, start_worker};
use crate::support::Receiver;

#[tokio::test]
async fn an_event_is_published_from_arguments_with_its_keyword_as_it_was_typed() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let event = ["publish", "--campaign", "c", "--label", "Ask", "--phone", "+15550001"];
    let typed = [("4", json!(4)), ("agent", json!("agent")), ("007", json!("007"))];
    for (number, (keyword, as_json)) in (1..).zip(&typed) {
        let more = ["--keyword", keyword, "--response", "yes", "--option", "o", "--date", "2024-06-18T20:26:14-03:00"];
        let printed = shell.run_against(&waypost, &[&event[..], &more[..]].concat(), "").await;
        assert_exit(&printed, 0, &[]);
        assert!(printed.stdout.starts_with("published event "), "{printed:#?}");
        let requests = receiver.expect_any().times(number).await;
        let body = requests[number - 1].json();
        let expected = json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "+15550001",
            "date": "2024-06-18T23:26:14.000Z", "response": "yes", "option": "o", "keyword": as_json });
        assert_eq!(body, expected);
    }

    // An event id that was given is kept. Otherwise each run generates a new one.
    let with_id = [&event[..], &["--keyword", "4", "--event-id", "e-1", "--json"]].concat();
    for _ in 0..2 {
        let printed = shell.run_against(&waypost, &with_id, "").await;
        assert_exit(&printed, 0, &[]);
        assert_eq!(parse_json(&printed.stdout)["eventId"], "e-1");
    }
    let requests = receiver.expect_any().times(5).await;
    assert_eq!(requests[3].webhook_id(), requests[4].webhook_id());
    let ids: BTreeSet<&str> = requests.iter().map(crate::support::receiver::Request::webhook_id).collect();
    assert_eq!(ids.len(), 4);

    let refused = shell.run_against(&waypost, &[&event[..], &["--date", "yesterday"]].concat(), "").await;
    assert_exit(&refused, 1, &["$.date: "]);
}

/// Three valid events with lines in between.
fn ndjson_with(between: [&[u8]; 2]) -> Vec<u8> {
    let event = |id: &str| {
        json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "1", "date": "2024-06-18T20:26:14Z", "keyword": 4, "eventId": id })
            .to_string()
            .into_bytes()
    };
    [event("one"), between[0].to_owned(), event("two"), between[1].to_owned(), event("three")].join(&b'\n')
}

#[tokio::test]
async fn events_are_published_from_a_file() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    // Empty lines are ignored, and the last line needs no newline.
    let file = shell.file("events.ndjson", ndjson_with([b"", b"  \r"]));
    let printed = shell.run_against(&waypost, &["publish", &file], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(printed.stdout, "published 3 events\n");
    assert_eq!(printed.stderr, "", "without a terminal there is no progress to draw");
    let requests = receiver.expect_any().times(3).await;
    assert_eq!(requests[0].json()["keyword"], json!(4));

    let printed = shell.run_against(&waypost, &["publish", "--json", &shell.file("none.ndjson", "")], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(parse_json(&printed.stdout), json!({ "published": 0, "refused": 0 }));
    assert_exit(&shell.run_against(&waypost, &["publish", "missing.ndjson"], "").await, 1, &["missing.ndjson"]);
}

#[tokio::test]
async fn a_bad_line_does_not_keep_the_others_from_being_published() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let no_date = json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "1", "date": "today" }).to_string();
    let input = ndjson_with([b"not JSON", no_date.as_bytes()]);
    let file = shell.file("events.ndjson", &input);
    for (source, input) in [(file.as_str(), b"".as_slice()), ("-", &input)] {
        let printed = shell.run_against(&waypost, &["publish", source], input).await;
        assert_exit(&printed, 1, &["2 events were not published", "line 2: ", "line 4: ", "$.date: "]);
        assert_eq!(printed.stdout, "published 3 events\n", "{source}");
    }
    receiver.expect_any().times(6).await;
    let printed = shell.run_against(&waypost, &["publish", "--json", "-"], &input).await;
    assert_exit(&printed, 1, &["line 2: "]);
    assert_eq!(parse_json(&printed.stdout), json!({ "published": 3, "refused": 2 }));
    receiver.expect_any().times(9).await;
    let by_id: BTreeMap<String, usize> = receiver.requests_by_webhook_id();
    assert_eq!(by_id.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{by_id:?}");
}

#[tokio::test]
async fn events_may_be_printed_over_several_lines() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let event = |date: &str, id: &str| {
        let event =
            json!({ "campaignId": "c", "label": "Ask", "phoneNumber": "1", "date": date, "keyword": 4, "eventId": id });
        format!("{event:#}\n")
    };
    let one = shell.file("one.json", event("2024-06-18T23:26:14Z", "e-1"));
    let printed = shell.run_against(&waypost, &["publish", &one], "").await;
    assert_exit(&printed, 0, &[]);
    assert_eq!(printed.stdout, "published 1 events\n");
    let input = [event("2024-06-18T23:26:14Z", "e-2"), event("today", "e-3")].concat();
    let printed = shell.run_against(&waypost, &["publish", "-"], &input).await;
    assert_exit(&printed, 1, &["1 events were not published", "event 2: ", "$.date: "]);
    receiver.expect_any().times(2).await;
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_reported_as_invalid() {
    let (waypost, shell, receiver) = (start_worker().await, CliSandbox::new(), Receiver::start());
    waypost.put_campaign(&campaign("c", &receiver.url("/hook"))).await;
    let printed = shell.run_against(&waypost, &["publish", "-"], ndjson_with([b"\xff\xfe", b""])).await;
    assert_exit(&printed, 1, &["line 2: "]);
    assert_eq!(printed.stdout, "published 3 events\n");
    receiver.expect_any().times(3).await;
}
