//! The console's campaign pages: the documented example is built in a browser, drawn and fired. Errors and conflicts
//! keep the input.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::test_app::{TestApp, sha256_hex, step_event, token_settings};
use crate::support::browser::{Browser, Key, button, checkbox, choice, field, link, region, row, summary};
use crate::support::json::{self, entry, entry_mut, find_by, items_of, only_of, section, section_mut};
use crate::support::receiver::Request;
use crate::support::{Answer, Broker, DEFAULT_TIMEOUT, Receiver, Waypost, unique, wait_until};

/// Starts a worker without campaigns, and a browser at its console.
async fn empty_console() -> (String, Waypost, Browser) {
    let (broker, prefix) = (Broker::shared().await, unique("console"));
    let waypost = Waypost::start_in_thread(&broker.url(), &prefix, &[]).await;
    let browser = Browser::start(&waypost.url("")).await;
    (prefix, waypost, browser)
}

/// A search finds campaigns by id and name, on all pages.
#[tokio::test]
async fn a_search_goes_from_page_to_page() {
    let (_, waypost, browser) = empty_console().await;
    for n in 0..110 {
        let name = if n % 2 == 0 { "Even number" } else { "Odd number" };
        waypost.put_campaign(&json!({ "id": format!("c-{n:03}"), "name": name, "sections": [] })).await;
    }
    let ids = "return [...document.querySelectorAll('tbody td code')].map((id) => id.textContent);";
    browser.open("/campaigns?q=EVEN").await;
    browser.wait_for(&link("More")).await;
    let mut found: Vec<String> = browser.script(ids, Vec::new()).await;
    assert_eq!(found.len(), 50, "{found:?}");
    browser.click(&link("More")).await;
    browser.wait_for_text("c-100").await;
    assert!(browser.names(&link("More")).await.is_empty());
    found.extend(browser.script::<Vec<String>>(ids, Vec::new()).await);
    let even: Vec<String> = (0..110).step_by(2).map(|n| format!("c-{n:03}")).collect();
    assert_eq!(found, even);
    browser.open("/campaigns?q=C-10").await;
    browser.wait_for_text("c-109").await;
    let found: Vec<String> = browser.script(ids, Vec::new()).await;
    assert_eq!(found, (100..110).map(|n| format!("c-{n}")).collect::<Vec<_>>());
}

/// Adds an entry to the menu of the Welcome Message with the keyboard.
async fn add_entry(browser: &Browser, keyword: &str, option: &str, kind: &str, to: &str, webhook: Option<&str>) {
    browser.tab_to(&link("Add menu entry to Welcome Message")).await;
    browser.press(Key::Enter).await;
    browser.tab_to(&field("Keyword")).await;
    browser.type_keys(keyword).await;
    browser.tab_to(&choice("Redirect Type")).await;
    // A single key, because a slow browser treats later keys as a new search in the list.
    browser.type_keys(&kind[..1]).await;
    if kind == "Webhook" {
        browser.wait_for_text("The webhook is the redirect.").await;
        for unavailable in ["Menu Text", "Redirect To"] {
            assert!(browser.attribute(&field(unavailable), "disabled").await.is_some(), "{unavailable} is available");
        }
    } else {
        let hint = if kind == "Interaction" { "The label of a section" } else { "another campaign" };
        browser.wait_for_text(hint).await;
        browser.tab_to(&field("Menu Text")).await;
        browser.type_keys(option).await;
        // The field offers suggestions, so its role is combobox.
        browser.tab_to(&choice("Redirect To")).await;
        browser.type_keys(to).await;
        if webhook.is_some() {
            browser.tab_to(&checkbox("Send a webhook when this entry is chosen")).await;
            browser.type_keys(" ").await;
        }
    }
    if let Some(url) = webhook {
        browser.tab_to(&field("URL")).await;
        browser.type_keys(url).await;
    }
    browser.tab_to(&button("Save")).await;
    browser.press(Key::Enter).await;
    browser.wait_for_text(&format!("Saved: Welcome Message, entry {keyword}")).await;
}

async fn add_section(browser: &Browser, label: &str) {
    browser.tab_to(&link("Add section")).await;
    browser.press(Key::Enter).await;
    browser.tab_to(&field("Label")).await;
    browser.type_keys(label).await;
    browser.tab_to(&button("Save")).await;
    browser.press(Key::Enter).await;
    browser.wait_for_text(&format!("Saved: {label}")).await;
}

/// The example is built with the keyboard only, fires its webhooks, and is drawn as documented.
#[tokio::test]
async fn the_example_campaign_can_be_built_by_keyboard() {
    let (prefix, waypost, browser) = empty_console().await;
    let receiver = Receiver::start();
    browser.open("/campaigns").await;
    browser.wait_for_text("There is no campaign yet").await;
    browser.tab_to(&link("Create the first one")).await;
    browser.press(Key::Enter).await;
    browser.wait_for_focus(&field("Id")).await;
    browser.type_keys("13010").await;
    browser.tab_to(&field("Name")).await;
    browser.type_keys("Streaming membership").await;
    browser.press(Key::Enter).await;
    browser.wait_for_text("No menu.").await;
    add_section(&browser, "Plans").await;
    add_section(&browser, "Offers").await;
    add_entry(&browser, "1", "Plans", "Interaction", "Plans", None).await;
    add_entry(&browser, "2", "Raffle Giveaway", "Campaign", "raffle-giveaway", None).await;
    add_entry(&browser, "3", "", "Webhook", "", Some(&receiver.url("/agent"))).await;
    add_entry(&browser, "4", "Offers", "Interaction", "Offers", Some(&receiver.url("/offers"))).await;
    add_entry(&browser, "5", "Survey", "Campaign", "web-polls", Some(&receiver.url("/survey"))).await;

    for (entry, mark) in [
        ("raffle-giveaway", None),
        ("Edit entry 3", Some("Webhook as the redirect")),
        ("Edit entry 4", Some("Webhook under the redirect")),
        ("Edit entry 5", Some("Webhook under the redirect")),
    ] {
        let marks = browser.names(&link("Webhook").with_partial_name().inside(row(entry))).await;
        match mark {
            None => assert!(marks.is_empty(), "{entry}: {marks:?}"),
            Some(words) => assert!(marks.len() == 1 && marks[0].starts_with(words), "{entry}: {marks:?}"),
        }
    }
    browser.assert_page_quality().await;

    let amqp = crate::support::Amqp::connect(&Broker::shared().await.url()).await;
    let options = ["Plans", "Raffle Giveaway", "", "Offers", "Survey"];
    let events = (1..).zip(options).map(|(keyword, option)| {
        let mut event = step_event().keyword(keyword).id(&format!("{prefix}-{keyword}")).json();
        event["option"] = json!(option);
        event
    });
    let events: Vec<Value> = events.collect();
    amqp.publish_events(&prefix, &events).await;
    let requests = receiver.expect_any().at_least(3).await;
    let of = |path: &str| -> Vec<&Request> { requests.iter().filter(|request| request.path() == path).collect() };
    let [agent, offers, survey] = ["/agent", "/offers", "/survey"].map(|path| {
        let requests = of(path);
        assert_eq!(requests.len(), 1, "{path}");
        requests[0].json()
    });
    assert!(agent.get("option").is_none() && agent.get("keyword").is_none(), "{agent}");
    assert_eq!((&offers["option"], &offers["keyword"]), (&json!("Offers"), &json!(4)));
    assert_eq!((&survey["option"], &survey["keyword"]), (&json!("Survey"), &json!(5)));
    waypost.wait_for_metric("waypost_events_total{result=\"no_webhook\"}", 2.0).await;

    browser.click(&link("Flow")).await;
    browser.wait_for_text("Click a part to open its editor").await;
    let arrows = "return [...document.querySelectorAll('.flow .arrows .arrow')].map((arrow) => { \
        const line = getComputedStyle(arrow.querySelector('.line')); \
        return [[...arrow.classList].join(' '), line.stroke, line.strokeDasharray]; });";
    let arrows: Vec<(String, String, String)> = browser.script(arrows, Vec::new()).await;
    let of = |kind: &str| arrows.iter().filter(|(classes, _, _)| classes.split(' ').any(|class| class == kind)).count();
    assert_eq!((of("interaction"), of("campaign"), of("webhook")), (2, 2, 3), "{arrows:?}");
    for (classes, stroke, dashes) in &arrows {
        let [red, green, blue] = rgb(stroke);
        match classes {
            kind if kind.contains("interaction") => {
                assert!(blue > red + 60 && blue > green + 60 && dashes == "none", "{stroke}");
            }
            kind if kind.contains("campaign") => assert!(red > green + 60 && red > blue + 60 && dashes != "none"),
            _ => assert!(red.max(green).max(blue) < 60 && dashes != "none", "{stroke}"),
        }
    }
    browser.assert_page_quality().await;
    browser.click(&link("Larger")).await;
    browser.wait_for_text("150 %").await;
    browser.click(&link("4 Offers").with_partial_name().inside(region("Picture of the flow"))).await;
    browser.wait_for(&button("Save")).await;
    assert_eq!(browser.value(&field("Menu Text")).await, "Offers");
}

/// Parses `rgb(29, 95, 209)`.
fn rgb(color: &str) -> [i32; 3] {
    let numbers = color.trim_start_matches("rgb(").trim_end_matches(')').split(", ");
    let numbers: Vec<i32> = numbers.map(|number| number.parse().unwrap_or_else(|_| panic!("{color}"))).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{color}"))
}

/// The choice and the check of earlier input run concurrently.
#[tokio::test]
async fn a_choice_takes_effect_while_the_form_is_checked() {
    let app = TestApp::start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns/13010/edit?label=Welcome+Message&new=entry").await;
    browser.wait_for_text("Choose a redirect type first.").await;
    // Longer than the debounce of the check.
    browser.delay_responses(Duration::from_millis(800)).await;
    let type_and_choose = "
        const [keyword, redirect] = [document.getElementById('keyword'), document.getElementById('redirect')];
        keyword.value = '9';
        keyword.dispatchEvent(new Event('input', { bubbles: true }));
        redirect.value = 'campaign';
        redirect.dispatchEvent(new Event('change', { bubbles: true }));";
    browser.script::<Value>(type_and_choose, Vec::new()).await;
    browser.wait_for_text("another campaign").await;
}

/// The editor checks input while typing, shows the request, adds, edits and deletes headers, and sends a test.
#[tokio::test]
async fn a_webhook_is_edited_checked_and_tested() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", Answer::status(202).body("thank you"));
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns?q=STREAM").await;
    browser.click(&link("Streaming membership")).await;
    browser.click(&link("Webhook under the redirect").with_partial_name().inside(row("Edit entry 4"))).await;
    browser.wait_for_text(r#""source": "chatbot""#).await;
    browser.assert_page_quality().await;

    browser.type_into(&field("Body"), r#"{"source": "chatbot", "date": 1}"#).await;
    browser.wait_for_text("date: every request already has this parameter").await;
    assert_eq!(browser.attribute(&field("Body"), "aria-invalid").await.as_deref(), Some("true"));
    browser.type_into(&field("Body"), r#"{"source": "#).await;
    browser.wait_for_text("not valid JSON").await;
    browser.type_into(&field("Body"), r#"{"source": "web", "n": 1.50}"#).await;
    browser.wait_for_text(r#""n": 1.50"#).await;
    browser.type_into(&field("URL"), "https://10.0.0.7/hook").await;
    browser.wait_for_text("10.0.0.7").await;
    browser.wait_for(&field("URL")).await;
    browser.type_into(&field("Body"), "{").await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Not saved: 2 errors").await;
    browser.wait_for_focus(&field("URL")).await;
    browser.assert_page_quality().await;
    browser.type_into(&field("Body"), r#"{"source": "web", "n": 1.50}"#).await;
    browser.type_into(&field("URL"), &app.receiver.url("/offers")).await;

    browser.click(&button("Edit header X-Api-Key")).await;
    browser.type_into(&field("Value of header 1"), "s3cret").await;
    browser.wait_for_text("x-api-key: s3cret").await;
    browser.click(&button("Add header")).await;
    browser.wait_for_focus(&field("Key of header 2")).await;
    browser.type_keys("Content-Type").await;
    browser.press(Key::Tab).await;
    browser.type_keys("text/plain").await;
    browser.wait_for_text("this header is reserved").await;
    browser.click(&button("Delete header 2")).await;
    browser.wait_until_gone(&field("Key of header 2")).await;

    browser.click(&button("Send test")).await;
    browser.wait_for_text("thank you").await;
    browser.wait_for_text("202").await;
    let sent = app.receiver.requests();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].header("x-api-key"), Some("s3cret"));
    assert_eq!(sent[0].json()["source"], "web");
    browser.assert_page_quality().await;

    browser.click(&field("URL")).await;
    browser.press(Key::Enter).await;
    browser.wait_for_text("Saved: Welcome Message, entry 4").await;
    let stored = app.waypost.get("/v1/campaigns/13010").await.json();
    let webhook = json::webhook(&stored, "Welcome Message", 4);
    assert_eq!(webhook["body"].to_string(), r#"{"source":"web","n":1.50}"#);
    assert_eq!(webhook["headers"], json!({ "X-Api-Key": "s3cret" }));
}

/// The second editor sees the change of the first and decides. A change elsewhere in the campaign is no conflict.
#[tokio::test]
async fn an_edit_conflict_shows_the_other_change() {
    let mut tokens: Value = serde_json::from_str(&token_settings()).expect("JSON");
    let mut second = find_by(items_of(&tokens), "role", "editor").clone();
    (second["name"], second["sha256"]) = (json!("second"), json!(sha256_hex("token-of-a-second-editor")));
    tokens.as_array_mut().expect("tokens").push(second);
    let app = TestApp::builder().set("http.tokens", tokens).start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    log_in(&browser, "editor", "/campaigns/13010/edit?label=Welcome+Message&keyword=4").await;
    browser.wait_for(&button("Save")).await;
    let mut campaign = app.waypost.get("/v1/campaigns/13010").await.json();
    section_mut(&mut campaign, "Plans")["message"] = json!("Three plans");
    app.waypost.put_campaign(&campaign).await;
    browser.type_into(&field("Menu Text"), "Offers of the day").await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved: Welcome Message, entry 4").await;

    browser.open("/campaigns/13010/edit?label=Welcome+Message&keyword=4").await;
    browser.wait_for(&button("Save")).await;
    let mut campaign = app.waypost.get("/v1/campaigns/13010").await.json();
    assert_eq!(section(&campaign, "Plans")["message"], "Three plans");
    entry_mut(&mut campaign, "Welcome Message", 4)["option"] = json!("Best offers");
    app.waypost.put_campaign(&campaign).await;
    // Another client then changes another part of the campaign, which is not attributed to the first editor.
    section_mut(&mut campaign, "Plans")["message"] = json!("Four plans");
    let path = "/v1/campaigns/13010";
    let put = app.waypost.send_as(Some("Bearer token-of-a-second-editor"), Method::PUT, path, Some(&campaign)).await;
    assert_eq!(put.status, 200, "{put:?}");
    browser.type_into(&field("Menu Text"), "My offers").await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Not saved: changed by another user").await;
    browser.wait_for_text("editor changed this place").await;
    let text = browser.text().await;
    for words in ["Menu Text Offers of the day Best offers My offers", "load the current values"] {
        assert!(text.contains(words), "{words} is not in: {text}");
    }
    browser.assert_page_quality().await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved: Welcome Message, entry 4").await;
    let stored = app.waypost.get("/v1/campaigns/13010").await.json();
    assert_eq!(entry(&stored, "Welcome Message", 4)["option"], "My offers");
}

/// Campaigns, sections and entries are deleted after a confirmation. A deletion that would break a reference is refused
/// with the reason.
#[tokio::test]
async fn sections_and_entries_are_renamed_and_deleted() {
    let app = TestApp::start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns/13010").await;
    browser.click(&summary("Delete entry 2")).await;
    browser.click(&button("Delete entry 2")).await;
    browser.wait_until_gone(&row("raffle-giveaway")).await;

    browser.click(&summary("Delete Plans")).await;
    browser.click(&button("Delete Plans")).await;
    browser.wait_for_text("no section of this campaign has the label `Plans`").await;
    browser.wait_for_text("Not changed").await;
    assert!(
        browser.take_console_errors().await.iter().any(|error| error.contains("422")),
        "the page is no answer to a refusal"
    );
    browser.open("/campaigns/13010/edit?label=Plans").await;
    browser.type_into(&field("Label"), "Prices").await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved: Prices").await;
    let stored = app.waypost.get("/v1/campaigns/13010").await.json();
    assert_eq!(entry(&stored, "Welcome Message", 1)["redirect"]["to"], "Prices", "redirects follow");

    browser.click(&summary("Rename")).await;
    browser.type_into(&field("Name"), "Memberships").await;
    browser.click(&button("Save")).await;
    browser.wait_for(&crate::support::browser::heading("Memberships")).await;
    browser.click(&summary("Delete campaign")).await;
    browser.click(&button("Delete Memberships permanently")).await;
    browser.wait_for_text("There is no campaign yet").await;
    assert_eq!(app.waypost.get("/v1/campaigns/13010").await.status, 404);
    browser.assert_page_quality().await;
}

/// The editor creates a secret, and a new secret while the old one still signs.
#[tokio::test]
async fn a_signing_secret_is_created_and_rotated() {
    let app = TestApp::start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns/13010/edit?label=Welcome+Message&keyword=4").await;
    browser.click(&summary("Signing, limits and retries")).await;
    browser.click(&button("Generate a secret")).await;
    browser.wait_for_text("webhook-signature: v1,").await;
    let first = browser.value(&field("Signing secret")).await;
    assert!(first.starts_with("whsec_"), "{first}");
    browser.click(&button("Generate a new secret")).await;
    let webhook = wait_until("the secret that was replaced", DEFAULT_TIMEOUT, async || {
        let stored = app.waypost.get("/v1/campaigns/13010").await.json();
        let webhook = json::webhook(&stored, "Welcome Message", 4).clone();
        webhook["previousSecrets"].is_array().then_some(webhook)
    })
    .await;
    assert_eq!(only_of(&webhook["previousSecrets"])["secret"], first.as_str());
    // Saving the form keeps fields that it does not show.
    browser.open("/campaigns/13010/edit?label=Welcome+Message&keyword=4").await;
    browser.type_into(&field("Menu Text"), "Signed offers").await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved:").await;
    let saved = app.waypost.get("/v1/campaigns/13010").await.json();
    assert_eq!(json::webhook(&saved, "Welcome Message", 4), &webhook);
}

/// Changing the type of a redirect keeps the input.
#[tokio::test]
async fn switching_redirect_types_keeps_the_input() {
    let app = TestApp::start().await;
    let before = app.waypost.get("/v1/campaigns/13010").await.json();
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns/13010/edit?label=Welcome+Message&keyword=4").await;
    browser.choose(&choice("Redirect Type"), "Webhook").await;
    browser.wait_for_text("The webhook is the redirect.").await;
    browser.choose(&choice("Redirect Type"), "Interaction").await;
    browser.wait_for_text("The label of a section").await;
    assert_eq!(browser.value(&choice("Redirect To")).await, "Offers");
    browser.click(&checkbox("Send a webhook when this entry is chosen")).await;
    browser.wait_until_gone(&field("URL")).await;
    browser.click(&checkbox("Send a webhook when this entry is chosen")).await;
    browser.wait_for(&field("URL")).await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved: Welcome Message, entry 4").await;
    let after = app.waypost.get("/v1/campaigns/13010").await.json();
    assert_eq!(entry(&after, "Welcome Message", 4), entry(&before, "Welcome Message", 4));
}

/// Webhooks of sections are edited like webhooks of entries, as the redirect or in addition to another redirect.
#[tokio::test]
async fn the_webhooks_of_sections_are_edited() {
    let app = TestApp::start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns/13010/edit?label=Offers").await;
    browser.wait_for_text("The webhook is the redirect.").await;
    browser.type_into(&field("URL"), &app.receiver.url("/renamed")).await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved: Offers").await;
    browser.open("/campaigns/13010/edit?label=Welcome+Message").await;
    browser.click(&checkbox("Send a webhook at every event of this section")).await;
    browser.type_into(&field("URL"), &app.receiver.url("/every")).await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("Saved: Welcome Message").await;
    let stored = app.waypost.get("/v1/campaigns/13010").await.json();
    assert_eq!(json::webhook(&stored, "Offers", None)["url"], app.receiver.url("/renamed"));
    assert_eq!(json::webhook(&stored, "Welcome Message", None)["url"], app.receiver.url("/every"));
    browser.resize(360).await;
    browser
        .wait_for(
            &link("Webhook under the redirect")
                .with_partial_name()
                .inside(region("Welcome Message").with_partial_name()),
        )
        .await;
    browser.assert_page_quality().await;
}

/// Input is kept if the session has expired or the edited object is gone.
#[tokio::test]
async fn refused_input_stays_in_the_form() {
    let app = TestApp::start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    browser.open("/campaigns/13010/edit?label=Plans").await;
    browser.type_into(&field("Message"), "Many words").await;
    let mut campaign = app.waypost.get("/v1/campaigns/13010").await.json();
    section_mut(&mut campaign, "Plans")["label"] = json!("Prices");
    entry_mut(&mut campaign, "Welcome Message", 1)["redirect"]["to"] = json!("Prices");
    app.waypost.put_campaign(&campaign).await;
    browser.click(&button("Save")).await;
    browser.wait_for_text("This place was deleted or renamed").await;
    assert_eq!(browser.value(&field("Message")).await, "Many words");
    app.waypost.send(Method::DELETE, "/v1/campaigns/13010", None).await;
    browser.type_into(&field("Message"), "Many words more").await;
    browser.wait_for_text("no such campaign").await;
    assert_eq!(browser.value(&field("Message")).await, "Many words more");
}

/// A viewer sees everything except secrets, and can't change anything.
#[tokio::test]
async fn a_viewer_sees_campaigns_without_edit_buttons() {
    let app = TestApp::builder().tokens().start().await;
    let browser = Browser::start(&app.waypost.url("")).await;
    log_in(&browser, "viewer", "/campaigns/13010").await;
    browser.wait_for_text("Streaming membership").await;
    for absent in ["Add section", "Edit entry 4 of Welcome Message"] {
        assert!(browser.names(&link(absent)).await.is_empty(), "{absent}");
    }
    browser.assert_page_quality().await;
    browser.open("/campaigns/13010/edit?label=Welcome+Message&keyword=4").await;
    browser.wait_for_text("x-api-key: ********").await;
    assert!(
        browser
            .names(&button("").with_partial_name())
            .await
            .iter()
            .all(|name| !["Save", "Send test"].contains(&&**name))
    );
    browser.assert_page_quality().await;
}

/// Logs in and continues to `address`.
pub(crate) async fn log_in(browser: &Browser, role: &str, address: &str) {
    browser.open(address).await;
    browser.type_into(&field("Token"), &format!("token-of-the-{role}")).await;
    browser.click(&button("Log in")).await;
    browser.wait_for_path(address).await;
}
