//! Control of replays: pause, resume, cancel, the stop after failures, conflicts with another replay, and invalid
//! requests.

use serde_json::json;
use waypost_core::replay::ReplayState;

use crate::support::dead_letters::{ids, text_field};
use crate::support::json::only_of;
use crate::support::{Answer, wait_until_stable};
use crate::test_app::TestApp;

/// The number of letters of a slow replay. At [`RATE`] they take much longer than the commands of a test.
const LETTERS: usize = 80;

/// In letters per second.
const RATE: usize = 8;

/// The number of equal polls that count as idle. They take longer than two requests at [`RATE`].
const STABLE_POLLS: usize = 25;

/// Starts a slow replay of [`LETTERS`], and waits until it has sent some.
async fn start_slow_replay(app: &TestApp) -> String {
    app.create_dead_letters(3, LETTERS).await;
    let order = json!({ "filter": { "reason": "gone" }, "ratePerSecond": RATE });
    let replay = app.waypost.create_replay(&order).await;
    app.receiver.expect_any().at_least(5).await;
    replay
}

/// The number of sent letters, and of the others.
fn sent_and_rest(sent: usize) -> (u32, u32) {
    assert!((5..LETTERS).contains(&sent), "{sent} were sent before the command");
    let number = |count: usize| u32::try_from(count).expect("a small number");
    (number(sent), number(LETTERS - sent))
}

/// Waits until the counters of a replay and the receiver do not change. Returns the number of requests.
async fn wait_until_idle(app: &TestApp, replay: &str, state: ReplayState) -> usize {
    let look = async || {
        let replay = app.waypost.replay(replay).await;
        assert_eq!(replay.state, state, "{replay:#?}");
        (app.receiver.requests().len(), replay)
    };
    let (requests, replay) = wait_until_stable("the replay", STABLE_POLLS, look).await;
    assert_eq!(replay.sent, requests as u64, "{replay:#?}");
    requests
}

#[tokio::test]
async fn a_paused_replay_sends_nothing_and_can_be_resumed() {
    let app = TestApp::builder().process().start().await;
    let replay = start_slow_replay(&app).await;
    let reply = app.waypost.control_replay(&replay, "pause").await;
    assert_eq!((reply.status, text_field(&reply.json(), "state")), (200, "paused"), "{reply:?}");
    let sent = wait_until_idle(&app, &replay, ReplayState::Paused).await;
    let (replayed, rest) = sent_and_rest(sent);
    app.waypost.wait_for_state_counts(&[("replaying", rest), ("replayed", replayed)]).await;
    assert_eq!(app.waypost.replay(&replay).await.ended_at, None);

    // A pause persists over a restart.
    app.waypost.kill().await;
    app.waypost.restart().await;
    app.waypost.wait_for_replay(&replay, ReplayState::Paused).await;
    assert_eq!(wait_until_idle(&app, &replay, ReplayState::Paused).await, sent);

    let reply = app.waypost.control_replay(&replay, "resume").await;
    assert_eq!((reply.status, text_field(&reply.json(), "state")), (200, "running"), "{reply:?}");
    let done = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    assert_eq!((done.sent, done.delivered), (LETTERS as u64, LETTERS as u64), "{done:#?}");
    app.waypost.wait_for_letter_count("state=replayed", LETTERS).await;
    let requests = app.receiver.requests_by_webhook_id();
    assert!(requests.len() == LETTERS && requests.values().all(|count| *count == 1), "{requests:?}");
}

#[tokio::test]
async fn a_cancelled_replay_releases_unsent_letters() {
    let app = TestApp::start().await;
    let replay = start_slow_replay(&app).await;
    let reply = app.waypost.control_replay(&replay, "cancel").await;
    assert_eq!((reply.status, text_field(&reply.json(), "state")), (200, "cancelled"), "{reply:?}");
    let sent = wait_until_idle(&app, &replay, ReplayState::Cancelled).await;
    let (replayed, pending) = sent_and_rest(sent);
    app.waypost.wait_for_state_counts(&[("pending", pending), ("replayed", replayed)]).await;
    assert!(app.waypost.replay(&replay).await.ended_at.is_some());
    for letter in app.waypost.letters("state=pending").await {
        assert_eq!(app.waypost.letter(text_field(&letter, "id")).await["replays"], json!([]));
    }

    let rest = app.waypost.create_replay(&json!({ "filter": { "reason": "gone" } })).await;
    assert_eq!(app.waypost.wait_for_replay(&rest, ReplayState::Done).await.delivered, (LETTERS - sent) as u64);
    assert!(app.receiver.requests_by_webhook_id().values().all(|count| *count == 1), "a delivery was sent twice");
}

#[tokio::test]
async fn a_command_that_does_not_fit_the_state_is_refused() {
    let app = TestApp::start().await;
    let replay = start_slow_replay(&app).await;
    let refused = async |replay: &str, what: &str| {
        let problem = app.waypost.control_replay(replay, what).await.expect_problem(409);
        assert!(problem.detail.contains(' '), "{problem:?}");
    };
    let control = async |replay: &str, what: &str| {
        let reply = app.waypost.control_replay(replay, what).await;
        assert_eq!(reply.status, 200, "{what}: {reply:?}");
    };
    refused(&replay, "resume").await;
    control(&replay, "pause").await;
    refused(&replay, "pause").await;
    control(&replay, "resume").await;
    refused(&replay, "resume").await;
    control(&replay, "pause").await;
    control(&replay, "cancel").await;
    for what in ["pause", "resume", "cancel"] {
        refused(&replay, what).await;
    }
    app.waypost.wait_for_letter_count("state=replaying", 0).await;
    let done = app.waypost.create_replay(&json!({ "filter": { "reason": "gone" } })).await;
    app.waypost.wait_for_replay(&done, ReplayState::Done).await;
    for what in ["pause", "resume", "cancel"] {
        refused(&done, what).await;
        app.waypost.control_replay("rp_unknown", what).await.expect_problem(404);
    }
    app.waypost.get("/v1/replays/rp_unknown").await.expect_problem(404);
}

#[tokio::test]
async fn a_replay_stops_with_many_failures() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 100).await;
    app.receiver.reply("/agent", 500);
    let order = json!({ "filter": { "status": 410 }, "stopOnFailureRatio": 0.5 });
    let id = app.waypost.create_replay(&order).await;
    let replay = app.waypost.wait_for_replay(&id, ReplayState::Stopped).await;
    let sent = wait_until_idle(&app, &id, ReplayState::Stopped).await;
    assert!((1..=20).contains(&sent), "{sent} were sent");
    assert_eq!((replay.failed, replay.stop_on_failure_ratio), (replay.sent, Some(0.5)), "{replay:#?}");
    assert!(replay.ended_at.is_some(), "{replay:#?}");
    // The unsent letters, and those that failed again.
    app.waypost.wait_for_letter_count("state=pending&status=410", 100 - sent).await;
    app.waypost.wait_for_letter_count("state=pending&status=500", sent).await;
    app.waypost.wait_for_letter_count("state=replayed", sent).await;
    for what in ["pause", "resume", "cancel"] {
        app.waypost.control_replay(&id, what).await.expect_problem(409);
    }
}

#[tokio::test]
async fn a_replay_continues_with_few_failures() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 100).await;
    // The failures are spread over the replay, so the failure ratio is never reached.
    app.receiver.reply_with("/agent", |_, earlier| Answer::status(if earlier % 10 == 3 { 500 } else { 200 }));
    let order = json!({ "filter": { "status": 410 }, "stopOnFailureRatio": 0.5 });
    let replay = app.waypost.create_replay(&order).await;
    let replay = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    assert_eq!((replay.sent, replay.failed), (100, 10), "{replay:#?}");
    app.waypost.wait_for_state_counts(&[("pending", 10), ("replayed", 100)]).await;
}

#[tokio::test]
async fn an_invalid_request_replays_nothing() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 2).await;
    let letters = ids(&app.waypost.letters("").await);
    let refused = [
        (json!({}), "$"),
        (json!({ "ids": letters, "filter": { "reason": "gone" } }), "$"),
        (json!({ "ids": letters, "ratePerSecond": 0 }), "$.ratePerSecond"),
        (json!({ "ids": letters, "ratePerSecond": -1 }), "$.ratePerSecond"),
        (json!({ "ids": letters, "stopOnFailureRatio": 2 }), "$.stopOnFailureRatio"),
        (json!({ "ids": letters, "stopOnFailureRatio": -0.1 }), "$.stopOnFailureRatio"),
        (json!({ "ids": letters, "config": "newest" }), "$.config"),
        (json!({ "filter": { "reason": "malformed" } }), "$.filter"),
        (json!({ "filter": { "campaignId": "unknown" } }), "$.filter"),
        (json!({ "filter": { "state": "replaying" } }), "$.filter"),
        (json!({ "filter": { "campaignId": null } }), "$.filter.campaignId"),
        (json!({ "filter": { "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z" } }), "$.filter"),
    ];
    for (order, path) in refused {
        let mut dry = order.clone();
        dry["dryRun"] = json!(true);
        for order in [order, dry] {
            let faults = app.waypost.post("/v1/replays", &order).await.violation_paths();
            assert!(faults.iter().any(|fault| fault.starts_with(path)), "{order}: {faults:?}");
        }
    }
    // An array is not an object, and a selection has exactly one condition.
    for order in [
        json!([letters, null, null, null, null, null]).to_string(),
        r#"{ "filter": { "status": 410, "status": 500 } }"#.to_owned(),
        r#"{ "filter": { "status": 410 }, "filter": { "status": 410 } }"#.to_owned(),
    ] {
        let headers = [("content-type", "application/json")];
        app.waypost.send_with(reqwest::Method::POST, "/v1/replays", &headers, order).await.violation_paths();
    }
    let problem =
        app.waypost.post("/v1/replays", &json!({ "ids": [letters[0], "dl_unknown"] })).await.expect_problem(404);
    assert!(problem.detail.contains("dl_unknown"), "the problem does not name the letter: {problem:?}");
    assert_eq!(app.waypost.get("/v1/replays").await.json()["items"], json!([]));
    assert_eq!(app.waypost.count_letters("state=pending").await, 2);
    assert_eq!(app.receiver.requests().len(), 0);
}

#[tokio::test]
async fn two_replays_never_claim_the_same_letter() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 30).await;
    let letters = ids(&app.waypost.letters("").await);
    let first = json!({ "filter": { "campaignId": "13010" }, "ratePerSecond": 0.1 });
    let first = app.waypost.create_replay(&first).await;

    // A few may already be sent.
    let problem = app.waypost.post("/v1/replays", &json!({ "ids": letters })).await.expect_problem(409);
    let detail = problem.detail;
    assert!(letters.iter().any(|letter| detail.contains(letter)), "the problem does not name the letter: {detail}");
    let same = json!({ "filter": { "campaignId": "13010" } });
    app.waypost.post("/v1/replays", &same).await.violation_paths();
    // The second replay takes all letters that are pending by then.
    app.create_dead_letters(5, 4).await;
    let second = app.waypost.create_replay(&same).await;
    assert_eq!(app.waypost.replay(&second).await.total, 4);
    app.waypost.control_replay(&first, "cancel").await;
    assert_eq!(app.waypost.wait_for_replay(&second, ReplayState::Done).await.delivered, 4);
    let surveys = app.receiver.requests().iter().filter(|request| request.path() == "/survey").count();
    assert_eq!(surveys, 4);
    assert!(app.receiver.requests_by_webhook_id().values().all(|count| *count == 1), "a delivery was sent twice");
}

#[tokio::test]
async fn the_list_of_replays_has_the_newest_first_and_pages() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 5).await;
    let mut ordered = Vec::new();
    for letter in ids(&app.waypost.letters("").await) {
        let replay = app.waypost.create_replay(&json!({ "ids": [letter] })).await;
        app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
        ordered.insert(0, replay);
    }
    let (mut seen, mut place) = (Vec::new(), String::new());
    loop {
        let page = app.waypost.get(&format!("/v1/replays?limit=2{place}")).await.json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 2, "{page:#}");
        for item in items {
            let path = format!("/v1/replays/{}", text_field(item, "id"));
            assert_eq!(item, &app.waypost.get(&path).await.json());
        }
        seen.extend(ids(items));
        let Some(cursor) = page["next"].as_str() else { break };
        place = format!("&cursor={cursor}");
    }
    assert_eq!(seen, ordered);
    for wrong in ["limit=0", "limit=1001", "limit=many", "cursor=garbage", "cursor=rp_", "cursor=rp_garbage", "page=2"]
    {
        let problem = app.waypost.get(&format!("/v1/replays?{wrong}")).await.expect_problem(400);
        assert!(problem.detail.contains(wrong.split('=').next().unwrap_or_default()), "{problem:?}");
    }
    // The list shows only the number of ids if there are many.
    app.create_dead_letters(4, 101).await;
    let many = ids(&app.waypost.letters("state=pending").await);
    for (count, is_listed) in [(100, true), (101, false)] {
        let named = json!(many[..count]);
        let id = app.waypost.create_replay(&json!({ "ids": named })).await;
        app.waypost.wait_for_replay(&id, ReplayState::Done).await;
        let whole = app.waypost.get(&format!("/v1/replays/{id}")).await.json();
        assert_eq!((&whole["ids"], &whole["idCount"]), (&named, &json!(count)));
        let page = app.waypost.get("/v1/replays?limit=1").await.json();
        let listed = only_of(&page["items"]);
        assert_eq!((text_field(listed, "id"), &listed["idCount"]), (&*id, &json!(count)));
        assert_eq!(listed.get("ids"), is_listed.then_some(&named));
    }
    let listed = app.waypost.cli(&["replays", "list"]).await;
    assert!(listed.stdout.contains("101 dead letters by id"), "{listed:?}");

    let second = app.start_second_worker().await;
    second.wait_for_replay(&ordered[0], ReplayState::Done).await;
    assert_eq!(second.get("/v1/replays").await.json(), app.waypost.get("/v1/replays").await.json());
}
