//! Dead letters that somebody gives up for good: which, by whom and why, and for no other than was meant.

use reqwest::Method;
use serde_json::json;

use crate::stage::{Stage, bearer};
use crate::support::Answer;
use crate::support::letters::{ids, text};

const DISCARD: &str = "/v1/dead-letters/discard";

#[tokio::test]
async fn who_discarded_a_letter_and_why_is_kept() {
    let stage = Stage::set_guarded("discards").await;
    stage.bury(3, 4).await;
    stage.bury(4, 3).await;
    let letters = ids(&stage.waypost.letters("state=pending").await);
    let send = async |role: &str, order: &serde_json::Value| {
        stage.waypost.send_as(Some(&bearer(role)), Method::POST, DISCARD, Some(order)).await
    };
    let by_ids = json!({ "ids": letters[..2], "reason": "the customer has left" });
    send("viewer", &by_ids).await.problem(403);
    let reply = send("operator", &by_ids).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "discarded": 2, "more": false })));
    // Of the oldest, all are still pending: no reason need be given.
    let webhook = text(&stage.waypost.letter(&letters[6]).await, "webhookId").to_owned();
    let by_filter = json!({ "filter": { "webhookId": webhook, "status": 410, "state": "pending" } });
    let reply = send("editor", &by_filter).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "discarded": 4, "more": false })));
    stage.waypost.until_total("state=discarded", 6).await;
    assert_eq!(ids(&stage.waypost.letters("state=pending").await), [letters[2].clone()]);

    let second = stage.second().await;
    second.until_total("state=discarded", 6).await;
    for worker in [&stage.waypost, &second] {
        let first = worker.letter(&letters[0]).await;
        assert_eq!((text(&first, "state"), text(&first["discard"], "by")), ("discarded", "operator"));
        assert_eq!(text(&first["discard"], "reason"), "the customer has left");
        assert!(text(&first["discard"], "at") >= text(&first, "deadAt"), "{first:#}");
        let last = worker.letter(&letters[6]).await;
        assert_eq!(text(&last["discard"], "by"), "editor");
        assert!(last["discard"].get("reason").is_none_or(serde_json::Value::is_null), "{last:#}");
        assert!(last["request"].is_object() && last["attempts"].is_array(), "what it was is not lost: {last:#}");
    }
    assert_eq!(stage.receiver.requests().len(), 0);
}

#[tokio::test]
async fn an_order_that_is_wrong_discards_nothing() {
    let stage = Stage::set("discards", &[]).await;
    stage.bury(3, 3).await;
    let letters = ids(&stage.waypost.letters("").await);
    stage.waypost.post(DISCARD, &json!({ "ids": [letters[0], "dl_unknown"] })).await.problem(404);
    let refused = [
        json!({}),
        json!({ "reason": "for no reason" }),
        json!({ "ids": [letters[0]], "filter": { "reason": "gone" } }),
        json!({ "filter": { "reason": "malformed" } }),
        json!({ "filter": { "campaignId": "unknown" } }),
        json!({ "filter": { "reason": "boredom" } }),
        json!({ "filter": { "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z" } }),
        json!({ "filter": { "colour": "red" } }),
        json!({ "filter": { "state": "replaying" } }),
        json!({ "filter": { "reason": "gone", "campaignId": null } }),
        // Everything is given up for a reason only.
        json!({ "filter": {} }),
        json!([letters, null, null]),
        json!([]),
    ];
    for order in refused {
        let reply = stage.waypost.post(DISCARD, &order).await;
        assert_eq!(reply.status, 422, "{order}: {reply:?}");
        reply.problem(422);
    }

    // A reason is kept with each letter: so it is no document.
    for reason in ["", " \n", &"x".repeat(501), &"x".repeat(900_000)] {
        let order = json!({ "ids": letters, "reason": reason });
        assert_eq!(stage.waypost.post(DISCARD, &order).await.faults(), ["$.reason"], "{} bytes", reason.len());
    }
    stage.waypost.until_states(&[("pending", 3)]).await;
    let schema = &stage.waypost.get("/v1/openapi.json").await.json()["components"]["schemas"]["DiscardOrder"];
    let reason = &schema["properties"]["reason"];
    assert_eq!((&reason["minLength"], &reason["maxLength"]), (&json!(1), &json!(500)), "{reason:#}");

    // What is being sent is not given up meanwhile.
    stage.receiver.answer("/agent", Answer::never());
    stage.waypost.order_replay(&json!({ "ids": [letters[0]] })).await;
    stage.waypost.until_total("state=replaying", 1).await;
    let detail = stage.waypost.post(DISCARD, &json!({ "ids": letters })).await.problem(409);
    assert!(text(&detail, "detail").contains(&letters[0]), "which one is not told: {detail:#}");
    stage.waypost.until_states(&[("pending", 2), ("replaying", 1)]).await;

    // A filter passes it by, and what is discarded already is not discarded again.
    let longest = "ü".repeat(500);
    assert_eq!(stage.waypost.discard(&json!({ "filter": { "reason": "gone" }, "reason": longest })).await, 2);
    stage.waypost.until_states(&[("discarded", 2), ("replaying", 1)]).await;
    for (filter, words) in [
        (json!({ "reason": "gone" }), "matches no pending dead letter"),
        (json!({ "reason": "gone", "state": "pending" }), "matches no dead letter"),
    ] {
        let detail = stage.waypost.post(DISCARD, &json!({ "filter": filter })).await.problem(422);
        assert!(text(&detail, "detail").contains(words), "{detail:#}");
    }
}
