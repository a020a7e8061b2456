//! Discards of dead letters: selection, author and reason.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Answer;
use crate::support::dead_letters::{ids, text_field};
use crate::support::json::only_of;
use crate::test_app::TestApp;

const DISCARD: &str = "/v1/dead-letters/discard";

#[tokio::test]
async fn author_and_reason_of_a_discard_are_stored() {
    let app = TestApp::builder().tokens().start().await;
    app.create_dead_letters(3, 4).await;
    app.create_dead_letters(4, 3).await;
    let letters = ids(&app.waypost.letters("state=pending").await);
    let send = async |role: &str, order: &Value| app.send_as(role, Method::POST, DISCARD, Some(order)).await;
    let [first, second, third, .., last] = &letters[..] else { panic!("not seven letters: {letters:?}") };
    let by_ids = json!({ "ids": [first, second], "because": "the customer has left" });
    send("viewer", &by_ids).await.expect_problem(403);
    let reply = send("operator", &by_ids).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "discarded": 2, "more": false })));
    // All letters of this webhook are pending.
    let webhook = text_field(&app.waypost.letter(last).await, "webhookId").to_owned();
    let filter = json!({ "webhookId": webhook, "status": 410, "state": "pending" });
    let by_filter = json!({ "filter": filter, "because": "all of one webhook" });
    let reply = send("editor", &by_filter).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "discarded": 4, "more": false })));
    app.waypost.wait_for_letter_count("state=discarded", 6).await;
    assert_eq!(ids(&app.waypost.letters("state=pending").await), std::slice::from_ref(third));

    let other = app.start_second_worker().await;
    other.wait_for_letter_count("state=discarded", 6).await;
    for worker in [&app.waypost, &other] {
        let first = worker.letter(first).await;
        assert_eq!((text_field(&first, "state"), text_field(&first["discard"], "by")), ("discarded", "operator"));
        assert_eq!(text_field(&first["discard"], "because"), "the customer has left");
        assert_eq!(first["discard"].get("reason"), None, "{first:#}");
        assert!(text_field(&first["discard"], "at") >= text_field(&first, "deadAt"), "{first:#}");
        let last = worker.letter(last).await;
        assert_eq!(text_field(&last["discard"], "by"), "editor");
        assert_eq!(text_field(&last["discard"], "because"), "all of one webhook");
        assert!(
            last["request"].is_object() && last["attempts"].is_array(),
            "a discarded letter keeps its request and attempts: {last:#}"
        );
    }
    assert_eq!(app.receiver.requests().len(), 0);
}

#[tokio::test]
async fn an_invalid_request_discards_nothing() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 3).await;
    let letters = ids(&app.waypost.letters("").await);
    app.waypost.post(DISCARD, &json!({ "ids": [letters[0], "dl_unknown"] })).await.expect_problem(404);
    let refused = [
        json!({}),
        json!({ "because": "for no reason" }),
        json!({ "ids": letters, "reason": "a field of before" }),
        json!({ "ids": [letters[0]], "filter": { "reason": "gone" } }),
        json!({ "filter": { "reason": "malformed" }, "because": "none is" }),
        json!({ "filter": { "campaignId": "unknown" }, "because": "none has it" }),
        json!({ "filter": { "reason": "boredom" } }),
        json!({ "filter": { "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z" } }),
        json!({ "filter": { "colour": "red" } }),
        json!({ "filter": { "state": "replaying" } }),
        json!({ "filter": { "reason": "gone", "campaignId": null } }),
        // A filter requires a reason.
        json!({ "filter": {} }),
        json!({ "filter": { "reason": "gone" } }),
        json!({ "filter": { "reason": "gone" }, "because": null }),
        json!([letters, null, null]),
        json!([]),
    ];
    for order in refused {
        let reply = app.waypost.post(DISCARD, &order).await;
        assert_eq!(reply.status, 422, "{order}: {reply:?}");
        reply.expect_problem(422);
    }

    // The reason is stored with each letter, so its length is limited.
    for because in ["", " \n", &"x".repeat(501), &"x".repeat(900_000)] {
        let order = json!({ "ids": letters, "because": because });
        assert_eq!(app.waypost.post(DISCARD, &order).await.violation_paths(), ["$.because"], "{} bytes", because.len());
    }
    assert_eq!(
        app.waypost.post(DISCARD, &json!({ "filter": { "reason": "gone" } })).await.violation_paths(),
        ["$.because"]
    );
    app.waypost.wait_for_state_counts(&[("pending", 3)]).await;
    let schema = &app.waypost.get("/v1/openapi.json").await.json()["components"]["schemas"]["DiscardOrder"];
    let because = &schema["properties"]["because"];
    assert_eq!((&because["minLength"], &because["maxLength"]), (&json!(1), &json!(500)), "{because:#}");

    // A letter that is being replayed can't be discarded.
    app.receiver.reply("/agent", Answer::never());
    app.waypost.create_replay(&json!({ "ids": [letters[0]] })).await;
    app.waypost.wait_for_letter_count("state=replaying", 1).await;
    let detail = app.waypost.post(DISCARD, &json!({ "ids": letters })).await.expect_problem(409).detail;
    assert!(detail.contains(&letters[0]), "the problem does not name the letter: {detail}");
    app.waypost.wait_for_state_counts(&[("pending", 2), ("replaying", 1)]).await;

    // A filter skips that letter, and letters that are already discarded.
    let longest = "ü".repeat(500);
    assert_eq!(app.waypost.discard(&json!({ "filter": { "reason": "gone" }, "because": longest })).await, 2);
    app.waypost.wait_for_state_counts(&[("discarded", 2), ("replaying", 1)]).await;
    for (filter, words) in [
        (json!({ "reason": "gone" }), "matches no pending dead letter"),
        (json!({ "reason": "gone", "state": "pending" }), "matches no dead letter"),
    ] {
        let order = json!({ "filter": filter, "because": "once more" });
        let detail = app.waypost.post(DISCARD, &order).await.expect_problem(422).detail;
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn a_dry_run_counts_the_letters_to_discard() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 4).await;
    app.create_dead_letters(4, 3).await;
    let all = app.waypost.letters("").await;
    let letters = ids(&all);
    let endpoint = app.receiver.url("");
    let preview = async |order: &Value| {
        let reply = app.waypost.post(DISCARD, order).await;
        assert_eq!(reply.status, 200, "{order}: {reply:?}");
        reply.json()
    };
    // A dry run changes nothing, so it needs no reason.
    let by_filter = preview(&json!({ "filter": { "status": 410 }, "dryRun": true })).await;
    let times = || all.iter().map(|letter| text_field(letter, "deadAt"));
    let expected = json!({
        "total": 7, "oldest": times().min(), "newest": times().max(),
        "campaigns": [{ "campaignId": "13010", "count": 7 }], "moreCampaigns": 0,
        "endpoints": [{ "endpoint": endpoint.trim_end_matches('/'), "count": 7 }], "moreEndpoints": 0,
    });
    assert_eq!(by_filter, expected);
    let by_ids = preview(&json!({ "ids": letters[..2], "because": "a test", "dryRun": true })).await;
    assert_eq!((&by_ids["total"], &only_of(&by_ids["campaigns"])["count"]), (&json!(2), &json!(2)), "{by_ids:#}");
    let nothing = preview(&json!({ "filter": { "status": 404 }, "dryRun": true })).await;
    assert_eq!((&nothing["total"], &nothing["newest"]), (&json!(0), &json!(null)), "{nothing:#}");
    app.waypost.post(DISCARD, &json!({ "ids": ["dl_unknown"], "dryRun": true })).await.expect_problem(404);
    let discarded = json!({ "filter": { "state": "discarded" }, "dryRun": true });
    assert_eq!(app.waypost.post(DISCARD, &discarded).await.violation_paths(), ["$.filter.state"]);
    app.waypost.wait_for_state_counts(&[("pending", 7)]).await;
    assert_eq!(app.waypost.discard(&json!({ "ids": [letters[0]], "dryRun": false })).await, 1);
}
