//! The console's pages of dead letters and replays, in a browser: found, understood, sent again, given up.

use serde_json::{Value, json};

use crate::stage::{LONG, Stage, campaign, chose};
use crate::support::browser::{
    Browser, Key, Thing, button, checkbox, choice, field, heading, link, radio, region, row, summary,
};
use crate::support::letters::text;
use crate::support::unique::free_port;
use crate::support::{Answer, Waypost, unique, until};

/// A stage whose roles have tokens, and a browser in which one of them has logged in.
async fn visited_by(role: &str) -> (Stage, Browser) {
    let stage = Stage::set_guarded("console-letters").await;
    let browser = Browser::at(&stage.waypost.url("")).await;
    log_in(&browser, role).await;
    (stage, browser)
}

async fn log_in(browser: &Browser, role: &str) {
    browser.open("/login?next=%2Fdead-letters").await;
    browser.type_into(&field("Token"), &format!("token-of-the-{role}")).await;
    browser.click(&button("Log in")).await;
    browser.until_shown(&heading("Dead letters")).await;
}

/// The part of the page that counts letters by something.
fn group(title: &str) -> Thing {
    region(title)
}

/// The tab of a state.
fn tab(state: &str) -> Thing {
    link(state).loosely().inside(region("States"))
}

/// Has a dead letter of 503 made, with all of its attempts.
async fn exhausted(stage: &Stage, event: &str) {
    let before = stage.waypost.total("status=503").await;
    let mut campaign = campaign(&stage.receiver);
    campaign["sections"][0]["menu"][3]["webhook"]["retry"] = json!({ "maxAttempts": 3 });
    stage.waypost.put_campaign(&campaign).await;
    stage.receiver.answer("/offers", Answer::status(503).body("the database is down"));
    stage.publish(&chose(4, event)).await;
    until("the letter", LONG, async || (stage.waypost.total("status=503").await > before).then_some(())).await;
    stage.receiver.answer("/offers", Answer::ok());
}

#[tokio::test]
async fn nothing_is_lost_where_there_are_none() {
    let (_stage, browser) = visited_by("viewer").await;
    browser.until_path("/dead-letters?state=pending").await;
    browser.until_text("No dead letters").await;
    browser.assert_sound().await;
    browser.click(&link("Replays")).await;
    browser.until_text("No replays yet").await;
    browser.assert_sound().await;
}

#[tokio::test]
async fn while_the_letters_are_being_read_the_page_says_so_and_comes_again() {
    // Nothing is there that could be read.
    let broker = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port());
    let waypost = Waypost::launch(&broker, &unique("console-building"), &[]);
    until("the listener", LONG, async || {
        reqwest::get(waypost.url("/healthz")).await.is_ok_and(|reply| reply.status().is_success()).then_some(())
    })
    .await;
    let browser = Browser::at(&waypost.url("")).await;
    browser.open("/dead-letters").await;
    browser.until_text("loading the dead letters from the broker: 0 dead letters so far").await;
    browser.assert_sound().await;
    let reply = waypost.get("/replays").await;
    assert_eq!((reply.status, reply.headers["refresh"].as_str()), (200, "2"), "{reply:?}");
}

#[tokio::test]
async fn counts_lead_to_what_they_count_and_filters_can_be_shared() {
    let (stage, browser) = visited_by("operator").await;
    stage.bury(3, 3).await;
    stage.bury(4, 2).await;
    exhausted(&stage, "e-503").await;
    browser.open("/dead-letters").await;
    browser.until_text("6 dead letters").await;
    browser.until_shown(&link("gone: 5").inside(group("Reason"))).await;
    browser.until_shown(&link("410: 5").inside(group("Last status"))).await;
    browser.until_shown(&link("13010: 6").inside(group("Campaign"))).await;
    browser.until_shown(&link("Welcome Message · 3: 3").inside(group("Webhook"))).await;
    browser.assert_sound().await;

    browser.click(&link("503: 1").inside(group("Last status"))).await;
    browser.until_path("/dead-letters?status=503&state=pending").await;
    browser.until_text("1 dead letter").await;
    browser.until_shown(&row("503 Service Unavailable").inside(region("Dead letters, newest first"))).await;
    browser.click(&link("Remove status 503")).await;
    browser.until_path("/dead-letters?state=pending").await;

    // Typed into the form, with a time as people say it: the address has the time itself.
    browser.click(&summary("Filter")).await;
    browser.type_into(&field("Since"), "2h").await;
    browser.choose(&choice("Reason"), "gone").await;
    browser.choose(&choice("State"), "any").await;
    browser.click(&button("Show")).await;
    browser.until_text("5 dead letters").await;
    let path = browser.path().await;
    assert!(path.starts_with("/dead-letters?reason=gone&since=20") && path.ends_with('Z'), "{path}");
    browser.assert_sound().await;

    // Of an endpoint, of a person, of an event.
    browser.open("/dead-letters").await;
    let endpoint = stage.receiver.url("");
    browser.click(&link(&format!("{endpoint}: 6")).inside(group("Endpoint"))).await;
    browser.until_text("6 dead letters").await;
    browser.until_shown(&link(&format!("Remove endpoint {endpoint}"))).await;
    browser.click(&summary("Filter")).await;
    assert_eq!(browser.value(&field("Endpoint")).await, endpoint);
    browser.type_into(&field("Phone number"), "+15550001").await;
    browser.type_into(&field("Event"), "e-503").await;
    browser.click(&button("Show")).await;
    browser.until_text("1 dead letter").await;
    browser.until_shown(&link("Remove phoneNumber +15550001")).await;
    browser.assert_sound().await;
    browser.click(&link("Remove eventId e-503")).await;
    browser.until_text("6 dead letters").await;
    browser.open("/dead-letters?endpoint=example.com&phoneNumber=%2B19995550000").await;
    browser.until_text("not an endpoint: write scheme, host and port").await;
    assert_eq!(browser.value(&field("Endpoint")).await, "example.com");
    browser.assert_sound().await;

    // A shared address says what is wrong with it, beside the field.
    browser.open("/dead-letters?status=5xx&label=Plans").await;
    browser.until_text("must be an HTTP status like 503").await;
    assert_eq!(browser.value(&field("Last status")).await, "5xx");
    assert_eq!(browser.value(&field("Label")).await, "Plans");
    assert_eq!(browser.attribute(&field("Last status"), "aria-invalid").await.as_deref(), Some("true"));
    browser.assert_sound().await;
    browser.open("/dead-letters?campaign=13010").await;
    browser.until_text("Unknown filter field campaign").await;

    browser.open("/dead-letters?label=Plans").await;
    browser.until_text("No dead letter matches").await;
    browser.open("/dead-letters?state=discarded").await;
    browser.until_shown(&heading("No discarded dead letter")).await;
    browser.assert_sound().await;
    browser.click(&tab("all")).await;
    browser.until_path("/dead-letters?state=").await;
    browser.until_text("6 dead letters").await;
    browser.assert_quiet().await;
}

#[tokio::test]
async fn the_list_goes_on_page_by_page() {
    let (stage, browser) = visited_by("viewer").await;
    stage.bury(4, 35).await;
    browser.open("/dead-letters?reason=gone").await;
    let letters = region("Dead letters, newest first");
    let rows = async || browser.names(&row("410 Gone").inside(letters.clone())).await.len();
    assert_eq!(rows().await, 30);
    browser.click(&link("Older")).await;
    browser.until_shown(&link("Newest")).await;
    assert_eq!(rows().await, 5);
    browser.until_gone(&link("Older")).await;
    browser.click(&link("Newest")).await;
    browser.until_path("/dead-letters?reason=gone").await;
    browser.assert_quiet().await;
}

#[tokio::test]
async fn a_letter_tells_what_was_sent_and_what_came_back() {
    let (stage, browser) = visited_by("operator").await;
    exhausted(&stage, "e-1").await;
    let id = text(&stage.waypost.letters("").await[0], "id").to_owned();
    browser.open("/dead-letters").await;
    browser.click(&link("503 Service Unavailable")).await;
    browser.until_path(&format!("/dead-letters/{id}")).await;
    browser.until_shown(&heading("503 Service Unavailable, exhausted pending")).await;
    browser.until_text("The limit for attempts or for their age was reached").await;
    browser.until_shown(&heading("3 attempts")).await;
    for words in ["the database is down", "Replay it when the endpoint works again", "x-api-key: ********"] {
        browser.until_text(words).await;
    }
    browser.until_text("\"eventId\": \"e-1\"").await;
    browser.assert_sound().await;
    browser.click(&link("e-1").inside(region("Delivery"))).await;
    browser.until_path("/dead-letters?eventId=e-1").await;
    browser.until_text("1 dead letter").await;
    browser.back().await;

    browser.click(&button("Explain this event")).await;
    // Not by an address, which histories and logs keep.
    browser.until_path("/explain").await;
    browser.until_text("Explain an event").await;
    browser.back().await;
    browser.click(&link("Webhook in the editor")).await;
    browser.until_path("/campaigns/13010/edit?label=Welcome+Message&keyword=4#webhook").await;
    browser.assert_quiet().await;

    browser.open("/dead-letters/dl_none").await;
    browser.until_text("There is no dead letter dl_none").await;
}

#[tokio::test]
async fn what_is_no_event_is_shown_as_it_came() {
    let (stage, browser) = visited_by("operator").await;
    stage.publish(&json!({ "campaignId": "13010", "date": "yesterday" })).await;
    until("the letter", LONG, async || (stage.waypost.total("reason=malformed").await == 1).then_some(())).await;
    browser.open("/dead-letters").await;
    browser.click(&link("malformed").inside(region("Dead letters, newest first"))).await;
    browser.until_text("$.date: ").await;
    browser.until_text("\"yesterday\"").await;
    browser.until_text("puts the original message back on the events queue").await;
    browser.assert_sound().await;
    browser.click(&button("Replay")).await;
    browser.until_text("1 dead letter would be sent again").await;
    browser.until_text(&format!("the queue {}.events", stage.prefix)).await;
    browser.assert_quiet().await;
}

#[tokio::test]
async fn letters_are_sent_again_after_a_dry_run() {
    let (stage, browser) = visited_by("operator").await;
    stage.bury(4, 30).await;
    browser.open("/dead-letters?status=410&state=pending").await;
    browser.click(&button("Replay all 30 pending that match")).await;
    browser.until_text("30 dead letters would be sent again").await;
    browser.until_text("Nothing has been sent yet").await;
    browser.until_text("\"source\": \"chatbot\"").await;
    browser.assert_sound().await;

    // The numbers are checked while they are typed, and say what they mean.
    browser.type_into(&field("Stop on failure ratio"), "7").await;
    browser.until_text("a ratio is a number from 0 to 1").await;
    browser.type_into(&field("Stop on failure ratio"), "0.5").await;
    browser.until_no_text("a ratio is a number from 0 to 1").await;
    browser.type_into(&field("Rate per second"), "5").await;
    browser.until_text("At this rate it takes about 6s").await;
    assert!(stage.receiver.requests().is_empty(), "a dry run sends nothing");

    browser.click(&button("Replay 30 dead letters")).await;
    browser.until_text("running").await;
    // It comes by itself, while the page stays.
    browser.until_text("/s").await;
    browser.until_text("in ").await;
    browser.assert_sound().await;
    browser.until_text("All dead letters were sent. None failed.").await;
    browser.until_text("30 of 30 sent").await;
    browser.until_gone(&button("Pause")).await;
    assert_eq!(stage.receiver.requests().len(), 30);
    browser.assert_sound().await;

    browser.click(&link("Replays").inside(region("Pages"))).await;
    browser.until_shown(&row("30 of 30")).await;
    browser.assert_sound().await;
    stage.waypost.until_states(&[("replayed", 30)]).await;
    let letter = text(&stage.waypost.letters("").await[0], "id").to_owned();
    browser.open(&format!("/dead-letters/{letter}")).await;
    browser.until_shown(&row("delivered")).await;
    browser.click(&link("rp_").loosely()).await;
    browser.until_text("30 of 30 sent").await;
}

#[tokio::test]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let (stage, browser) = visited_by("operator").await;
    stage.bury(4, 40).await;
    let id = stage.waypost.order_replay(&json!({ "filter": {}, "ratePerSecond": 4 })).await;
    browser.open(&format!("/replays/{id}")).await;
    browser.until_text("at most 4 per second").await;
    // By the keyboard alone.
    browser.tab_to(&button("Pause")).await;
    browser.press(Key::Enter).await;
    browser.until_shown(&button("Resume")).await;
    stage.waypost.until_replay(&id, "paused").await;
    browser.until_text("paused").await;
    browser.assert_sound().await;
    // The focus stays on the button, whatever it says by now.
    for (shown, state) in [("Pause", "running"), ("Resume", "paused")] {
        browser.press(Key::Enter).await;
        browser.until_shown(&button(shown)).await;
        stage.waypost.until_replay(&id, state).await;
    }

    browser.open("/").await;
    browser.until_text("one replay is paused").await;
    browser.open(&format!("/replays/{id}")).await;

    // Somebody else resumes it: the page learns of it.
    assert_eq!(stage.waypost.tell_replay(&id, "resume").await.status, 200);
    browser.until_shown(&button("Pause")).await;
    browser.click(&summary("Cancel")).await;
    browser.until_text("can't be resumed").await;
    browser.click(&button("End this replay")).await;
    browser.until_text("The replay was cancelled.").await;
    browser.until_text("not sent. Their state is unchanged.").await;
    browser.until_gone(&button("Pause")).await;
    let replay = stage.waypost.until_replay(&id, "cancelled").await;
    let left = replay["total"].as_u64().unwrap_or_default() - replay["sent"].as_u64().unwrap_or_default();
    browser.click(&link("Show the pending ones")).await;
    browser.until_text(&format!("{left} dead letters")).await;
    browser.assert_quiet().await;
}

#[tokio::test]
async fn what_fails_again_ends_a_replay_and_is_found() {
    let (stage, browser) = visited_by("operator").await;
    stage.bury(4, 25).await;
    stage.receiver.answer("/offers", Answer::status(500).body("still broken"));
    browser.open("/dead-letters/replay?status=410").await;
    browser.click(&button("Replay 25 dead letters")).await;
    browser.until_text("The replay stopped because of its failure ratio (0.5)").await;
    browser.until_text("5 dead letters not sent").await;
    browser.assert_sound().await;
    browser.click(&link("Dead letters that failed again are pending as new dead letters")).await;
    browser.until_text("20 dead letters").await;
    browser.until_shown(&link("500: 20").inside(group("Last status"))).await;
    browser.assert_quiet().await;
}

#[tokio::test]
async fn current_and_original_configuration_lead_elsewhere() {
    let (stage, browser) = visited_by("editor").await;
    stage.bury(3, 2).await;
    let mut campaign = campaign(&stage.receiver);
    campaign["sections"][0]["menu"][2]["webhook"]["enabled"] = Value::Bool(false);
    stage.waypost.put_campaign(&campaign).await;
    browser.open("/dead-letters").await;
    browser.click(&checkbox("Tick all on this page")).await;
    browser.click(&button("Replay ticked")).await;
    browser.until_text("2 selected dead letters").await;
    browser.until_text("None can be sent with this configuration").await;
    browser.until_text("webhook_disabled").await;
    browser.assert_sound().await;
    browser.click(&radio("Original")).await;
    browser.until_no_text("webhook_disabled").await;
    browser.click(&button("Replay 2 dead letters")).await;
    browser.until_text("All dead letters were sent. None failed.").await;
    browser.until_text("original: the webhooks as they were").await;
    assert_eq!(stage.receiver.requests().len(), 2);
    browser.assert_quiet().await;
}

#[tokio::test]
async fn letters_are_given_up_by_selection_by_filter_and_one_by_one() {
    let (stage, browser) = visited_by("operator").await;
    stage.bury(4, 6).await;
    let letters = stage.waypost.letters("").await;
    let tick = |index: usize| checkbox(&format!("Tick {}", text(&letters[index], "id")));
    browser.open("/dead-letters").await;

    // Nothing ticked is nothing done.
    browser.click(&button("Discard ticked")).await;
    browser.until_text("No dead letter is ticked").await;
    browser.assert_sound().await;

    browser.click(&tick(0)).await;
    browser.click(&tick(1)).await;
    browser.click(&button("Discard ticked")).await;
    browser.until_shown(&heading("Discard 2 dead letters?")).await;
    browser.assert_sound().await;
    browser.type_into(&field("Reason"), "  ").await;
    browser.click(&button("Discard 2 dead letters")).await;
    browser.until_text("Enter a reason. It is stored with each discarded dead letter.").await;
    // The field accepts no more than 500 characters of a person, but of a script.
    let fill = "document.getElementById('because').value = 'x'.repeat(501);";
    browser.script::<Value>(fill, Vec::new()).await;
    browser.click(&button("Discard 2 dead letters")).await;
    browser.until_text("has 501 characters, and at most 500 are allowed: shorten it").await;
    browser.type_into(&field("Reason"), "a test of ours").await;
    browser.click(&button("Discard 2 dead letters")).await;
    browser.until_text("Discarded 2 dead letters. 4 dead letters are still pending in total.").await;
    browser.assert_sound().await;
    stage.waypost.until_states(&[("pending", 4), ("discarded", 2)]).await;

    browser.open(&format!("/dead-letters/{}", text(&letters[2], "id"))).await;
    browser.click(&button("Discard")).await;
    browser.type_into(&field("Reason"), "the same").await;
    browser.click(&button("Discard 1 dead letter")).await;
    browser.until_text("Discarded 1 dead letter.").await;
    browser.open(&format!("/dead-letters/{}", text(&letters[2], "id"))).await;
    browser.until_text("by operator: the same").await;
    browser.until_gone(&button("Discard")).await;
    browser.assert_sound().await;

    browser.open("/dead-letters?status=410&state=pending").await;
    browser.click(&button("Discard all 3 pending that match")).await;
    browser.until_shown(&heading("Discard 3 dead letters?")).await;
    // What dies after the question is not meant by it.
    stage.bury(4, 1).await;
    browser.type_into(&field("Reason"), "the campaign is over").await;
    browser.click(&button("Discard 3 dead letters")).await;
    browser.until_text("Discarded 3 dead letters. 1 dead letter is still pending in total.").await;
    stage.waypost.until_states(&[("pending", 1), ("discarded", 6)]).await;
    browser.open("/dead-letters/discard?state=discarded").await;
    browser.until_text("Only pending dead letters can be discarded.").await;
    browser.assert_quiet().await;
}

#[tokio::test]
async fn a_viewer_looks_and_changes_nothing() {
    let (stage, browser) = visited_by("viewer").await;
    stage.bury(4, 2).await;
    let id = text(&stage.waypost.letters("").await[0], "id").to_owned();
    // Two, of which the second has to wait: there is something to pause.
    let order = json!({ "filter": { "reason": "gone" }, "ratePerSecond": 0.01 });
    let replay = stage.waypost.order_replay(&order).await;
    assert_eq!(stage.waypost.tell_replay(&replay, "pause").await.status, 200);
    let only = ["Log out".to_owned()];
    for path in ["/dead-letters?state=", &format!("/dead-letters/{id}"), &format!("/replays/{replay}"), "/replays"] {
        browser.open(path).await;
        browser.until_shown(&button("Log out")).await;
        let buttons = browser.names(&button("").loosely()).await;
        // These two change nothing.
        let asks = ["Show", "Explain this event"];
        let pressed: Vec<String> = buttons.into_iter().filter(|name| !asks.contains(&name.as_str())).collect();
        assert_eq!(pressed, only, "{path}");
        assert!(browser.names(&checkbox("").loosely()).await.is_empty(), "{path}");
        browser.assert_sound().await;
    }
    for path in ["/dead-letters/replay?status=410", "/dead-letters/discard?status=410"] {
        browser.open(path).await;
        browser.until_text("This page needs the role operator").await;
    }
}
