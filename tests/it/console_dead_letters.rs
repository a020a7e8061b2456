//! The console's pages of dead letters and replays in a browser.

use serde_json::{Value, json};
use waypost_core::replay::ReplayState;

use crate::support::browser::{
    Browser, Key, Locator, button, checkbox, choice, field, heading, link, radio, region, row, summary,
};
use crate::support::dead_letters::{ids, text_field};
use crate::support::json::{newest, webhook_mut};
use crate::support::unique::free_port;
use crate::support::{Answer, Waypost, unique, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, example_campaign, step_event};

/// An app with a token for each role, and a browser that is logged in with one of the roles.
async fn start_logged_in(role: &str) -> (TestApp, Browser) {
    let app = TestApp::builder().tokens().start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    log_in(&browser, role).await;
    (app, browser)
}

async fn log_in(browser: &Browser, role: &str) {
    browser.open("/login?next=%2Fdead-letters").await;
    browser.type_into(&field("Token"), &format!("token-of-the-{role}")).await;
    browser.click(&button("Log in")).await;
    browser.wait_for(&heading("Dead letters")).await;
}

/// The part of the page with counts by something.
fn group(title: &str) -> Locator {
    region(title)
}

/// The tab of a state.
fn tab(state: &str) -> Locator {
    link(state).with_partial_name().inside(region("States"))
}

/// Creates a dead letter of a delivery whose attempts all ended in 503.
async fn create_exhausted_letter(app: &TestApp, event: &str) {
    let before = app.waypost.count_letters("status=503").await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 4)["retry"] = json!({ "maxAttempts": 3 });
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/offers", Answer::status(503).body("the database is down"));
    app.publish(step_event().keyword(4).id(event)).await;
    wait_until("the letter", SLOW_TIMEOUT, async || {
        (app.waypost.count_letters("status=503").await > before).then_some(())
    })
    .await;
    app.receiver.reply("/offers", 200);
}

#[tokio::test]
async fn an_empty_list_says_so() {
    let (_stage, browser) = start_logged_in("viewer").await;
    browser.wait_for_path("/dead-letters?state=pending").await;
    browser.wait_for_text("No dead letters").await;
    browser.assert_page_quality().await;
    browser.click(&link("Replays")).await;
    browser.wait_for_text("No replays yet").await;
    browser.assert_page_quality().await;
}

#[tokio::test]
async fn the_page_reloads_while_letters_are_loading() {
    // No broker runs there, so there is nothing to read.
    let broker = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port());
    let waypost = Waypost::launch(&broker, &unique("console-building"), &[]);
    wait_until("the listener", SLOW_TIMEOUT, async || {
        reqwest::get(waypost.url("/healthz")).await.is_ok_and(|reply| reply.status().is_success()).then_some(())
    })
    .await;
    let browser = Browser::start(&waypost.url("")).await;
    browser.open("/dead-letters").await;
    browser.wait_for_text("loading the dead letters from the broker: 0 dead letters so far").await;
    browser.assert_page_quality().await;
    let reply = waypost.get("/replays").await;
    assert_eq!((reply.status, reply.headers["refresh"].as_str()), (200, "2"), "{reply:?}");
}

#[tokio::test]
async fn counts_link_to_filters_and_filters_are_in_the_url() {
    let (app, browser) = start_logged_in("operator").await;
    app.create_dead_letters(3, 3).await;
    app.create_dead_letters(4, 2).await;
    create_exhausted_letter(&app, "e-503").await;
    browser.open("/dead-letters").await;
    browser.wait_for_text("6 dead letters").await;
    browser.wait_for(&link("gone: 5").inside(group("Reason"))).await;
    browser.wait_for(&link("410: 5").inside(group("Last status"))).await;
    browser.wait_for(&link("13010: 6").inside(group("Campaign"))).await;
    browser.wait_for(&link("Welcome Message · 3: 3").inside(group("Webhook"))).await;
    browser.assert_page_quality().await;

    browser.click(&link("503: 1").inside(group("Last status"))).await;
    browser.wait_for_path("/dead-letters?status=503&state=pending").await;
    browser.wait_for_text("1 dead letter").await;
    browser.wait_for(&row("503 Service Unavailable").inside(region("Dead letters, newest first"))).await;
    browser.click(&link("Remove status 503")).await;
    browser.wait_for_path("/dead-letters?state=pending").await;

    // The form accepts a relative time. The URL contains the absolute time.
    browser.click(&summary("Filter")).await;
    browser.type_into(&field("Since"), "2h").await;
    browser.choose(&choice("Reason"), "gone").await;
    browser.choose(&choice("State"), "any").await;
    browser.click(&button("Show")).await;
    browser.wait_for_text("5 dead letters").await;
    let path = browser.path().await;
    assert!(path.starts_with("/dead-letters?reason=gone&since=20") && path.ends_with('Z'), "{path}");
    browser.assert_page_quality().await;

    // Filters by endpoint, phone number and event.
    browser.open("/dead-letters").await;
    let endpoint = app.receiver.url("");
    browser.click(&link(&format!("{endpoint}: 6")).inside(group("Endpoint"))).await;
    browser.wait_for_text("6 dead letters").await;
    browser.wait_for(&link(&format!("Remove endpoint {endpoint}"))).await;
    browser.click(&summary("Filter")).await;
    assert_eq!(browser.value(&field("Endpoint")).await, endpoint);
    browser.type_into(&field("Phone number"), "+15550001").await;
    browser.type_into(&field("Event"), "e-503").await;
    browser.click(&button("Show")).await;
    browser.wait_for_text("1 dead letter").await;
    browser.wait_for(&link("Remove phoneNumber +15550001")).await;
    browser.assert_page_quality().await;
    browser.click(&link("Remove eventId e-503")).await;
    browser.wait_for_text("6 dead letters").await;
    browser.open("/dead-letters?endpoint=example.com&phoneNumber=%2B19995550000").await;
    browser.wait_for_text("not an endpoint: write scheme, host and port").await;
    assert_eq!(browser.value(&field("Endpoint")).await, "example.com");
    browser.assert_page_quality().await;

    // A URL with invalid parameters shows the errors beside the fields.
    browser.open("/dead-letters?status=5xx&label=Plans").await;
    browser.wait_for_text("must be an HTTP status like 503").await;
    assert_eq!(browser.value(&field("Last status")).await, "5xx");
    assert_eq!(browser.value(&field("Label")).await, "Plans");
    assert_eq!(browser.attribute(&field("Last status"), "aria-invalid").await.as_deref(), Some("true"));
    browser.assert_page_quality().await;
    browser.open("/dead-letters?campaign=13010").await;
    browser.wait_for_text("Unknown filter field campaign").await;

    browser.open("/dead-letters?label=Plans").await;
    browser.wait_for_text("No dead letter matches").await;
    browser.open("/dead-letters?state=discarded").await;
    browser.wait_for(&heading("No discarded dead letter")).await;
    browser.assert_page_quality().await;
    browser.click(&tab("all")).await;
    browser.wait_for_path("/dead-letters?state=").await;
    browser.wait_for_text("6 dead letters").await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages() {
    let (app, browser) = start_logged_in("viewer").await;
    app.create_dead_letters(4, 35).await;
    browser.open("/dead-letters?reason=gone").await;
    let letters = region("Dead letters, newest first");
    let rows = async || browser.names(&row("410 Gone").inside(letters.clone())).await.len();
    assert_eq!(rows().await, 30);
    browser.click(&link("Older")).await;
    browser.wait_for(&link("Newest")).await;
    assert_eq!(rows().await, 5);
    browser.wait_until_gone(&link("Older")).await;
    browser.click(&link("Newest")).await;
    browser.wait_for_path("/dead-letters?reason=gone").await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn a_letter_shows_request_and_answer() {
    let (app, browser) = start_logged_in("operator").await;
    create_exhausted_letter(&app, "e-1").await;
    let id = text_field(newest(&app.waypost.letters("").await), "id").to_owned();
    browser.open("/dead-letters").await;
    browser.click(&link("503 Service Unavailable")).await;
    browser.wait_for_path(&format!("/dead-letters/{id}")).await;
    browser.wait_for(&heading("503 Service Unavailable, exhausted pending")).await;
    browser.wait_for_text("The delivery reached its limit of attempts or of age").await;
    browser.wait_for(&heading("3 attempts")).await;
    for words in ["the database is down", "Replay it when the endpoint works again", "x-api-key: ********"] {
        browser.wait_for_text(words).await;
    }
    browser.wait_for_text("\"eventId\": \"e-1\"").await;
    browser.assert_page_quality().await;
    browser.click(&link("e-1").inside(region("Delivery"))).await;
    browser.wait_for_path("/dead-letters?eventId=e-1").await;
    browser.wait_for_text("1 dead letter").await;
    browser.back().await;

    browser.click(&button("Explain this event")).await;
    // The form is posted, because URLs end up in histories and logs.
    browser.wait_for_path("/explain").await;
    browser.wait_for_text("Explain an event").await;
    browser.back().await;
    browser.click(&link("Webhook in the editor")).await;
    browser.wait_for_path("/campaigns/13010/edit?label=Welcome+Message&keyword=4#webhook").await;
    browser.assert_no_console_errors().await;

    browser.open("/dead-letters/dl_none").await;
    browser.wait_for_text("There is no dead letter dl_none").await;
}

#[tokio::test]
async fn a_malformed_message_is_shown_unchanged() {
    let (app, browser) = start_logged_in("operator").await;
    app.publish(&json!({ "campaignId": "13010", "date": "yesterday" })).await;
    wait_until("the letter", SLOW_TIMEOUT, async || {
        (app.waypost.count_letters("reason=malformed").await == 1).then_some(())
    })
    .await;
    browser.open("/dead-letters").await;
    browser.click(&link("malformed").inside(region("Dead letters, newest first"))).await;
    browser.wait_for_text("$.date: ").await;
    browser.wait_for_text("\"yesterday\"").await;
    browser.wait_for_text("puts the original message back on the events queue").await;
    browser.assert_page_quality().await;
    browser.click(&button("Replay")).await;
    browser.wait_for_text("1 dead letter would be sent again").await;
    browser.wait_for_text(&format!("the queue {}.events", app.prefix)).await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn letters_are_replayed_after_a_preview() {
    let (app, browser) = start_logged_in("operator").await;
    app.create_dead_letters(4, 30).await;
    browser.open("/dead-letters?status=410&state=pending").await;
    browser.click(&button("Replay all 30 pending that match")).await;
    browser.wait_for_text("30 dead letters would be sent again").await;
    browser.wait_for_text("Nothing has been sent yet").await;
    browser.wait_for_text("\"source\": \"chatbot\"").await;
    browser.assert_page_quality().await;

    // Numbers are validated while typing, with a description of their effect.
    browser.type_into(&field("Stop on failure ratio"), "7").await;
    browser.wait_for_text("a ratio is a number from 0 to 1").await;
    browser.type_into(&field("Stop on failure ratio"), "0.5").await;
    browser.wait_for_no_text("a ratio is a number from 0 to 1").await;
    browser.type_into(&field("Rate per second"), "5").await;
    browser.wait_for_text("At this rate it takes about 6s").await;
    assert!(app.receiver.requests().is_empty(), "a dry run sends nothing");

    browser.click(&button("Replay 30 dead letters")).await;
    browser.wait_for_text("running").await;
    // The page updates without a reload.
    browser.wait_for_text("/s").await;
    browser.wait_for_text("in ").await;
    browser.assert_page_quality().await;
    browser.wait_for_text("All dead letters were sent. None failed.").await;
    browser.wait_for_text("30 of 30 sent").await;
    browser.wait_until_gone(&button("Pause")).await;
    assert_eq!(app.receiver.requests().len(), 30);
    browser.assert_page_quality().await;

    browser.click(&link("Replays").inside(region("Pages"))).await;
    browser.wait_for(&row("30 of 30")).await;
    browser.assert_page_quality().await;
    app.waypost.wait_for_state_counts(&[("replayed", 30)]).await;
    let letter = text_field(newest(&app.waypost.letters("").await), "id").to_owned();
    browser.open(&format!("/dead-letters/{letter}")).await;
    browser.wait_for(&row("delivered")).await;
    browser.click(&link("rp_").with_partial_name()).await;
    browser.wait_for_text("30 of 30 sent").await;
}

#[tokio::test]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let (app, browser) = start_logged_in("operator").await;
    app.create_dead_letters(4, 40).await;
    // Forty letters take longer than this test, however slow the browser is.
    let id = app.waypost.create_replay(&json!({ "filter": {}, "ratePerSecond": 0.2 })).await;
    browser.open(&format!("/replays/{id}")).await;
    browser.wait_for_text("at most 0.2 per second").await;
    // With the keyboard only.
    browser.tab_to(&button("Pause")).await;
    browser.press(Key::Enter).await;
    browser.wait_for(&button("Resume")).await;
    app.waypost.wait_for_replay(&id, ReplayState::Paused).await;
    browser.wait_for_text("paused").await;
    browser.assert_page_quality().await;
    // The button keeps the focus when its label changes.
    for (shown, state) in [("Pause", ReplayState::Running), ("Resume", ReplayState::Paused)] {
        browser.press(Key::Enter).await;
        browser.wait_for(&button(shown)).await;
        app.waypost.wait_for_replay(&id, state).await;
    }

    browser.open("/").await;
    browser.wait_for_text("one replay is paused").await;
    browser.open(&format!("/replays/{id}")).await;

    // The page shows that another client resumed the replay.
    assert_eq!(app.waypost.control_replay(&id, "resume").await.status, 200);
    browser.wait_for(&button("Pause")).await;
    browser.click(&summary("Cancel")).await;
    browser.wait_for_text("can't be resumed").await;
    browser.click(&button("End this replay")).await;
    browser.wait_for_text("The replay was cancelled.").await;
    browser.wait_for_text("not sent. Their state is unchanged.").await;
    browser.wait_until_gone(&button("Pause")).await;
    let replay = app.waypost.wait_for_replay(&id, ReplayState::Cancelled).await;
    let left = replay.total - replay.sent;
    browser.click(&link("Show the pending ones")).await;
    browser.wait_for_text(&format!("{left} dead letters")).await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn a_failing_replay_stops_and_links_its_letters() {
    let (app, browser) = start_logged_in("operator").await;
    app.create_dead_letters(4, 25).await;
    app.receiver.reply("/offers", Answer::status(500).body("still broken"));
    browser.open("/dead-letters/replay?status=410").await;
    browser.click(&button("Replay 25 dead letters")).await;
    browser.wait_for_text("The replay stopped because of its failure ratio (0.5)").await;
    browser.wait_for_text("5 dead letters not sent").await;
    browser.assert_page_quality().await;
    browser.click(&link("Dead letters that failed again are pending as new dead letters")).await;
    browser.wait_for_text("20 dead letters").await;
    browser.wait_for(&link("500: 20").inside(group("Last status"))).await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn current_and_original_configuration_show_different_requests() {
    let (app, browser) = start_logged_in("editor").await;
    app.create_dead_letters(3, 2).await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 3)["enabled"] = Value::Bool(false);
    app.waypost.put_campaign(&campaign).await;
    browser.open("/dead-letters").await;
    browser.click(&checkbox("Tick all on this page")).await;
    browser.click(&button("Replay ticked")).await;
    browser.wait_for_text("2 selected dead letters").await;
    browser.wait_for_text("None can be sent with this configuration").await;
    browser.wait_for_text("webhook_disabled").await;
    browser.assert_page_quality().await;
    browser.click(&radio("Original")).await;
    browser.wait_for_no_text("webhook_disabled").await;
    browser.click(&button("Replay 2 dead letters")).await;
    browser.wait_for_text("All dead letters were sent. None failed.").await;
    browser.wait_for_text("original: the webhooks as they were").await;
    assert_eq!(app.receiver.requests().len(), 2);
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn letters_are_discarded_by_selection_filter_and_singly() {
    let (app, browser) = start_logged_in("operator").await;
    app.create_dead_letters(4, 6).await;
    let letters = ids(&app.waypost.letters("").await);
    let [first, second, third, ..] = &letters[..] else { panic!("not six letters: {letters:?}") };
    let tick = |id: &str| checkbox(&format!("Tick {id}"));
    browser.open("/dead-letters").await;

    // Without a selection, nothing is discarded.
    browser.click(&button("Discard ticked")).await;
    browser.wait_for_text("No dead letter is ticked").await;
    browser.assert_page_quality().await;

    browser.click(&tick(first)).await;
    browser.click(&tick(second)).await;
    browser.click(&button("Discard ticked")).await;
    browser.wait_for(&heading("Discard 2 dead letters?")).await;
    browser.assert_page_quality().await;
    browser.type_into(&field("Reason"), "  ").await;
    browser.click(&button("Discard 2 dead letters")).await;
    browser.wait_for_text("Enter a reason. It is stored with each discarded dead letter.").await;
    // The field limits typed input to 500 characters, but not a script.
    let fill = "document.getElementById('because').value = 'x'.repeat(501);";
    browser.script::<Value>(fill, Vec::new()).await;
    browser.click(&button("Discard 2 dead letters")).await;
    browser.wait_for_text("has 501 characters, and at most 500 are allowed: shorten it").await;
    browser.type_into(&field("Reason"), "a test of ours").await;
    browser.click(&button("Discard 2 dead letters")).await;
    browser.wait_for_text("Discarded 2 dead letters. 4 dead letters are still pending in total.").await;
    browser.assert_page_quality().await;
    app.waypost.wait_for_state_counts(&[("pending", 4), ("discarded", 2)]).await;

    browser.open(&format!("/dead-letters/{third}")).await;
    browser.click(&button("Discard")).await;
    browser.type_into(&field("Reason"), "the same").await;
    browser.click(&button("Discard 1 dead letter")).await;
    browser.wait_for_text("Discarded 1 dead letter.").await;
    browser.open(&format!("/dead-letters/{third}")).await;
    browser.wait_for_text("by operator: the same").await;
    browser.wait_until_gone(&button("Discard")).await;
    browser.assert_page_quality().await;

    browser.open("/dead-letters?status=410&state=pending").await;
    browser.click(&button("Discard all 3 pending that match")).await;
    browser.wait_for(&heading("Discard 3 dead letters?")).await;
    // A letter that is created after the question is not discarded.
    app.create_dead_letters(4, 1).await;
    browser.type_into(&field("Reason"), "the campaign is over").await;
    browser.click(&button("Discard 3 dead letters")).await;
    browser.wait_for_text("Discarded 3 dead letters. 1 dead letter is still pending in total.").await;
    app.waypost.wait_for_state_counts(&[("pending", 1), ("discarded", 6)]).await;
    browser.open("/dead-letters/discard?state=discarded").await;
    browser.wait_for_text("Only pending dead letters can be discarded.").await;
    browser.assert_no_console_errors().await;
}

#[tokio::test]
async fn a_viewer_cannot_change_dead_letters() {
    let (app, browser) = start_logged_in("viewer").await;
    app.create_dead_letters(4, 2).await;
    let id = text_field(newest(&app.waypost.letters("").await), "id").to_owned();
    // The second letter has to wait, so there is a replay to pause.
    let order = json!({ "filter": { "reason": "gone" }, "ratePerSecond": 0.01 });
    let replay = app.waypost.create_replay(&order).await;
    assert_eq!(app.waypost.control_replay(&replay, "pause").await.status, 200);
    let only = ["Log out".to_owned()];
    for path in ["/dead-letters?state=", &format!("/dead-letters/{id}"), &format!("/replays/{replay}"), "/replays"] {
        browser.open(path).await;
        browser.wait_for(&button("Log out")).await;
        let buttons = browser.names(&button("").with_partial_name()).await;
        // These two change nothing.
        let asks = ["Show", "Explain this event"];
        let pressed: Vec<String> = buttons.into_iter().filter(|name| !asks.contains(&name.as_str())).collect();
        assert_eq!(pressed, only, "{path}");
        assert!(browser.names(&checkbox("").with_partial_name()).await.is_empty(), "{path}");
        browser.assert_page_quality().await;
    }
    for path in ["/dead-letters/replay?status=410", "/dead-letters/discard?status=410"] {
        browser.open(path).await;
        browser.wait_for_text("This page needs the role operator").await;
    }
}
