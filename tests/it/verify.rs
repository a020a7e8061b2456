//! `waypost verify` checks that every delivery is accounted for.

use serde_json::{Value, json};

use crate::support::{Amqp, Broker, Receiver, Waypost, unique, wait_until};
use crate::test_app::SLOW_TIMEOUT;

#[tokio::test]
async fn verify_accounts_for_deliveries_and_detects_a_purge() {
    let broker = Broker::shared().await;
    let (prefix, receiver) = (unique("verify"), Receiver::start());
    receiver.reply("/fails", 500);
    let settings = [("WAYPOST_RETRY__INITIAL_DELAY", "40s"), ("WAYPOST_RETRY__JITTER", "0")];
    let one = Waypost::start_with(&broker.url(), &prefix, &settings).await;
    let other = Waypost::start_with(&broker.url(), &prefix, &settings).await;
    let section = |label: &str, retry: Value| json!({ "label": label, "webhook": { "url": receiver.url(&format!("/{label}")), "retry": retry } });
    let sections =
        [section("works", json!({})), section("fails", json!({})), section("dies", json!({ "maxAttempts": 1 }))];
    receiver.reply("/dies", 400);
    one.put_campaign(&json!({ "id": "c", "sections": sections })).await;
    wait_until("the campaign on the other worker", SLOW_TIMEOUT, async || {
        (other.get("/v1/campaigns/c").await.status == 200).then_some(())
    })
    .await;
    let amqp = Amqp::connect(&broker.url()).await;
    let mut events = Vec::new();
    for (label, count) in [("works", 60), ("fails", 30), ("dies", 10), ("nowhere", 5)] {
        events.extend((0..count).map(|number| {
            json!({ "campaignId": "c", "label": label, "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
                "eventId": format!("{label}-{number}") })
        }));
    }
    amqp.publish_events(&prefix, &events).await;

    let also = other.url("");
    let verify = ["verify", "--json", "--also", &also];
    let account = wait_until("a complete account", SLOW_TIMEOUT, async || {
        let printed = one.cli(&verify).await;
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let account = serde_json::from_str::<Value>(&printed.stdout).expect("JSON")["account"].clone();
        (account["takenFromEvents"] == 100 && account["inHand"] == 0).then_some(account)
    })
    .await;
    let count = |name: &str| account[name].as_i64().unwrap_or_else(|| panic!("no {name} in {account:#}"));
    assert_eq!((count("delivered"), count("dead"), count("retried"), count("eventsNoWebhook")), (60, 10, 30, 5));
    assert_eq!((count("eventsResolved"), count("deadLetters"), count("givenBack")), (100, 10, 0));
    let printed = one.cli(&["verify", "--also", &also]).await;
    assert!(printed.stdout.contains("All deliveries are accounted for."), "{printed:?}");

    // 30 deliveries wait in the delay queue of 32 seconds, in a few messages, and an operator purges it.
    let rung = format!("{prefix}.delay.32");
    let put = "waypost_ladder_messages_total{movement=\"put\"}";
    let messages = one.metric(put).await + other.metric(put).await;
    assert!((1.0..30.0).contains(&messages), "{messages} messages");
    amqp.wait_for_depth(&rung, messages as u32).await;
    broker.ctl(&["purge_queue", &rung]).await;
    let printed = wait_until("the loss found", SLOW_TIMEOUT, async || {
        let printed = one.cli(&["verify", "--also", &also]).await;
        (printed.code == Some(1)).then_some(printed)
    })
    .await;
    let expected = format!("{messages} messages were put into the delay queues");
    assert!(printed.stderr.contains(&expected), "{printed:?}");
}
