//! The console's overview, its endpoints, and the page that explains an event, in a browser.

use reqwest::Method;
use serde_json::{Value, json};

use crate::console_campaigns::log_in;
use crate::support::browser::{Key, button, field, heading, link, row, summary};
use crate::support::json::webhook_mut;
use crate::support::{Answer, Broker, Browser, Receiver, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, events_with_keyword, example_campaign, step_event};

const EVENT: &str = "Step event, as it is published";

/// Opens a browser at the app's worker, with a long timeout for busy machines.
async fn browser_at(app: &TestApp, path: &str) -> Browser {
    let mut browser = Browser::start(&app.waypost.url("")).await;
    browser.set_timeout(SLOW_TIMEOUT);
    browser.open(path).await;
    browser
}

async fn explain(browser: &Browser, event: &Value) {
    browser.type_into(&field(EVENT), &event.to_string()).await;
    browser.click(&button("Explain")).await;
}

#[tokio::test]
async fn numbers_update_while_events_are_delivered() {
    let app = TestApp::start().await;
    let browser = browser_at(&app, "/").await;
    browser.wait_for_text("All is well: consuming, with nothing to send in the last minute.").await;
    let version = app.waypost.metric("waypost_config_version").await;
    browser.wait_for_text(&format!("current, version {version}")).await;
    browser.assert_page_quality().await;

    browser.click(&summary("Counts per minute")).await;
    browser.tab_to(&link("All endpoints")).await;
    app.amqp.publish_events(&app.prefix, &events_with_keyword(50, 3)).await;
    browser.wait_for_text("All is well: 50 requests in the last minute, all answered with 2xx.").await;
    browser.wait_for_text("the last minute 50 0").await;
    browser.wait_for_text("received from events 50").await;
    browser.wait_for_text("The account is balanced").await;
    browser.wait_for_text("None failing: one endpoint used recently.").await;
    browser.wait_for_focus(&link("All endpoints")).await;

    app.receiver.reply("/offers", [503, 200]);
    app.publish(step_event().keyword(4).id("fails-once")).await;
    browser.wait_for_text("status_5xx 1").await;
    browser.wait_for_text("received from delay queues 1").await;

    app.create_dead_letters(5, 3).await;
    browser.wait_for_text("Attention: 3 dead letters are pending.").await;
    browser.wait_for_text("status_4xx 3").await;
    browser.assert_page_quality().await;
    let path = "/dead-letters?state=pending";
    assert_eq!(browser.attribute(&link("Dead letters pending"), "href").await.as_deref(), Some(path));

    // The page is complete without scripts.
    let headers = [("accept", "text/html")];
    let page = app.waypost.send_with(Method::GET, "/", &headers, String::new()).await;
    assert_eq!(page.status, 200);
    for text in ["3 dead letters are pending", "Delivered per second in the last five minutes: at most"] {
        assert!(page.body.contains(text), "no {text:?}: {}", page.body);
    }
}

#[tokio::test]
async fn lost_broker_and_lost_worker_are_shown() {
    let broker = Broker::private().await;
    let app = TestApp::builder().process().broker(&broker.url()).start().await;
    let browser = browser_at(&app, "/").await;
    browser.wait_for_text("All is well").await;
    browser.wait_for_text("Workers 1").await;
    broker.kill().await;
    browser.wait_for_text("Trouble: Not connected to the broker: ").await;
    browser.wait_for_text("Check that RabbitMQ is running and that this worker can reach it").await;
    browser.wait_for_text("ready for a worker –").await;
    browser.assert_page_quality().await;
    broker.start().await;
    browser.wait_for_text("All is well").await;

    let is_old =
        async || browser.script::<bool>("return document.querySelector('[data-stale]') !== null;", Vec::new()).await;
    // A suspended worker keeps its connections.
    app.waypost.suspend();
    wait_until("the page to be marked as stale", SLOW_TIMEOUT, async || is_old().await.then_some(())).await;
    app.waypost.resume();
    wait_until("the page to continue", SLOW_TIMEOUT, async || (!is_old().await).then_some(())).await;
    app.waypost.terminate();
    wait_until("the page to be marked as stale", SLOW_TIMEOUT, async || is_old().await.then_some(())).await;
}

#[tokio::test]
async fn an_open_breaker_shows_and_closes() {
    let app = TestApp::start().await;
    let hanging = Receiver::start();
    hanging.reply("/hangs", Answer::never());
    let origin = hanging.url("");
    let webhook = json!({ "url": hanging.url("/hangs"), "timeoutMs": 300 });
    app.waypost.put_campaign(&json!({ "id": "c", "sections": [{ "label": "hangs", "webhook": webhook }] })).await;
    let browser = browser_at(&app, "/endpoints").await;
    browser.wait_for_text("No endpoint is in use.").await;
    browser.assert_page_quality().await;

    app.amqp.publish_events(&app.prefix, &events_with_keyword(2, 3)).await;
    let event = |number: usize| {
        json!({ "campaignId": "c", "label": "hangs", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z",
            "eventId": format!("hangs-{number}") })
    };
    let events: Vec<Value> = (0..12).map(event).collect();
    app.amqp.publish_events(&app.prefix, &events).await;
    browser.wait_for_text("2 endpoints: 1 open, 0 half-open, 1 closed").await;
    browser.wait_for_text("sent as a probe. Any response other than 429 and 5xx closes the breaker").await;
    browser.wait_for_text("no response within the time limit").await;
    let rows = browser.names(&row("")).await;
    assert!(rows[1].starts_with(&format!("{origin} open 100 %")), "the worst endpoint is not first: {rows:?}");
    browser.click(&summary(&format!("One path of {origin}"))).await;
    browser.wait_for_text("/hangs").await;
    browser.assert_page_quality().await;

    browser.open("/").await;
    browser.wait_for_text("one endpoint takes no requests.").await;
    browser.wait_for_text(&format!("{origin} breaker open · 100 % failing")).await;
    browser.assert_page_quality().await;

    browser.open("/endpoints").await;
    browser.type_into(&field("Search endpoints by host"), "example.com").await;
    browser.click(&button("Search")).await;
    browser.wait_for_text("No recently used endpoint contains example.com in its name.").await;
    browser.click(&link("Show all")).await;
    browser.wait_for_text("2 endpoints").await;
    let port = origin.rsplit(':').next().expect("a port").to_owned();
    browser.type_into(&field("Search endpoints by host"), &port).await;
    browser.click(&button("Search")).await;
    browser.wait_for_text("one endpoint: ").await;
    browser.wait_for_path(&format!("/endpoints?q={port}")).await;
    hanging.reply("/hangs", 200);
    browser.wait_for_text("one endpoint: 0 open, 0 half-open, 1 closed").await;
    browser.assert_page_quality().await;
}

#[tokio::test]
async fn an_event_is_explained() {
    let app = TestApp::start().await;
    let browser = browser_at(&app, "/explain").await;
    browser.wait_for_text("Paste an event, or use the sample.").await;
    let sample = browser.value(&field(EVENT)).await;
    assert!(sample.contains("\"campaignId\": \"13010\""), "{sample}");
    browser.assert_page_quality().await;
    browser.tab_to(&button("Explain")).await;
    browser.press(Key::Enter).await;
    browser.wait_for_text("one webhook fires").await;

    // An event that fires a webhook.
    explain(&browser, &step_event().keyword(4).id("explained").json()).await;
    browser.wait_for_text("Welcome Message, entry 4 fires").await;
    browser.wait_for_focus(&heading("one webhook fires")).await;
    browser.wait_for_text("webhook-id: msg_").await;
    browser.wait_for_text("\"phoneNumber\":\"+15550001\"").await;
    browser.wait_for_text("fires: its menu entry matches by its keyword").await;
    browser.wait_for_text("Menu entry matched by its keyword").await;
    browser.wait_for_text("3 – no the event's keyword is 4").await;
    browser.assert_page_quality().await;
    assert!(app.receiver.requests().is_empty(), "explaining sent a request");

    // A shared link contains no personal data.
    browser.click(&link("Link to this explanation")).await;
    browser.wait_for_text("Welcome Message, entry 4 fires").await;
    let path = browser.path().await;
    assert!(path.starts_with("/explain?event=") && path.contains("%2B12025550100"), "{path}");
    assert!(!path.contains("15550001") && !path.contains("hello"), "{path}");
    browser.assert_page_quality().await;
    browser.click(&link("Welcome Message, entry 4")).await;
    browser.wait_for_path("/campaigns/13010/edit?label=Welcome+Message&keyword=4#webhook").await;

    // An event that fires no webhook.
    browser.open("/explain").await;
    explain(&browser, &step_event().keyword(9).id("nothing").json()).await;
    browser
        .wait_for_text("nothing is sent: the section has no webhook of its own, and the menu has no keyword 9")
        .await;
    browser.wait_for_text("Welcome Message, entry 4 its menu entry does not match").await;
    browser.assert_page_quality().await;

    // An invalid event.
    let faulty = json!({ "campaignId": "13010", "label": 7, "phoneNumber": "1", "date": "yesterday" });
    explain(&browser, &faulty).await;
    browser.wait_for_text("Not a step event: 2 errors").await;
    browser.wait_for_text("$.label").await;
    browser.wait_for_text("$.date not an RFC 3339 date").await;
    assert_eq!(browser.attribute(&field(EVENT), "aria-invalid").await.as_deref(), Some("true"));
    browser.wait_for_no_text("Webhooks that do not fire").await;
    browser.assert_page_quality().await;
    explain(&browser, &json!("text")).await;
    browser.wait_for_text("Not a step event: one error").await;
}

#[tokio::test]
async fn a_viewer_sees_everything_except_secrets() {
    let app = TestApp::builder().tokens().start().await;
    let mut whole = example_campaign(&app.receiver);
    webhook_mut(&mut whole, "Welcome Message", 4)["headers"] = json!({ "X-Api-Key": "the-key" });
    app.waypost.put_campaign(&whole).await;
    for (role, key) in [("viewer", "********"), ("editor", "the-key")] {
        let mut browser = Browser::start(&app.waypost.url("")).await;
        browser.set_timeout(SLOW_TIMEOUT);
        log_in(&browser, role, "/").await;
        browser.wait_for_text("All is well").await;
        browser.assert_page_quality().await;
        browser.click(&link("Explain")).await;
        explain(&browser, &step_event().keyword(4).id("seen").json()).await;
        browser.wait_for_text(&format!("x-api-key: {key}")).await;
        browser.click(&link("Endpoints")).await;
        browser.wait_for_text("No endpoint is in use.").await;
        browser.assert_page_quality().await;
    }
}
