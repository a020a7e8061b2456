//! Explaining an event over HTTP and on the command line.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::cli_process::CliProcess;
use crate::support::json::{only, webhook_mut};
use crate::test_app::{TestApp, example_campaign, step_event};

/// The webhooks of an explanation that have a request.
fn with_request(explanation: &Value) -> Vec<&Value> {
    let webhooks = explanation["webhooks"].as_array().expect("webhooks");
    webhooks.iter().filter(|webhook| webhook["request"].is_object()).collect()
}

#[tokio::test]
async fn explained_requests_match_sent_requests() {
    let app = TestApp::start().await;
    let event = step_event().keyword(4).id("explained").json();
    let reply = app.waypost.send(Method::POST, "/v1/explain", Some(&event)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let explanation = reply.json();
    assert_eq!(explanation["matchedBy"], "keyword", "{explanation:#}");
    assert_eq!(
        explanation["section"],
        json!({ "label": "Welcome Message", "kind": "welcomeMessage", "matches": true })
    );
    let matches: Vec<&Value> =
        explanation["entries"].as_array().expect("entries").iter().map(|entry| &entry["matches"]).collect();
    assert_eq!(matches, [false, false, false, true, false]);
    let [webhook] = with_request(&explanation)[..] else { panic!("{explanation:#}") };
    assert_eq!(
        (&webhook["fires"], &webhook["kind"], &webhook["keyword"]),
        (&json!(true), &json!("underlying"), &json!(4))
    );
    assert!(app.receiver.requests().is_empty(), "explaining sent a request");

    app.publish(&event).await;
    let sent = app.receiver.expect_any().at_least(1).await;
    let request = &webhook["request"];
    assert_eq!(request["body"].as_str().expect("a body").as_bytes(), &sent[0].body[..]);
    assert_eq!(request["url"], app.receiver.url("/offers"));
    assert_eq!(request["headers"]["webhook-id"], sent[0].webhook_id());
}

#[tokio::test]
async fn headers_are_shown_to_an_editor_only() {
    let app = TestApp::builder().tokens().without_campaign().start().await;
    let mut whole = example_campaign(&app.receiver);
    webhook_mut(&mut whole, "Welcome Message", 4)["headers"] = json!({ "X-Api-Key": "the-key" });
    app.put_campaign(&whole).await;
    for (role, key) in [("viewer", "********"), ("operator", "********"), ("editor", "the-key")] {
        let reply = app.send_as(role, Method::POST, "/v1/explain", Some(&step_event().keyword(4).id("e").json())).await;
        let explanation = reply.json();
        assert_eq!(only(&with_request(&explanation))["request"]["headers"]["x-api-key"], key, "{role}");
        assert!(role == "editor" || !reply.body.contains("the-key"), "{role}: {}", reply.body);
    }
    let refused = app.send_as("viewer", Method::POST, "/v1/explain", Some(&json!({ "keyword": [] }))).await;
    let paths = refused.expect_problem(422).paths;
    assert_eq!(paths, ["$.campaignId", "$.label", "$.phoneNumber", "$.date", "$.keyword"]);
}

#[tokio::test]
async fn the_text_output_gives_advice() {
    let app = TestApp::start().await;
    let cli = async |arguments: &[&str]| app.waypost.cli(&[&["explain", "--phone", "1"], arguments].concat()).await;

    let printed =
        cli(&["--campaign", "13010", "--label", "Welcome Message", "--keyword", "9", "--option", "offers"]).await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    for text in [
        "Welcome Message (welcomeMessage)",
        "matches by its menu text, because the menu has no keyword 9 (it has 1, 2, 3, 4, 5)",
        "$.sections[0].menu[3].webhook",
        "webhook-id: msg_",
        "\"source\":\"chatbot\"",
        "one webhook fires",
    ] {
        assert!(printed.stdout.contains(text), "no {text:?}: {}", printed.stdout);
    }

    for (arguments, text) in [
        (["--campaign", "13011", "--label", "Offers"], "there is no campaign `13011`"),
        (["--campaign", "13010", "--label", "OFFERS "], "one with `Offers`"),
        (["--campaign", "13010", "--label", "x"], "it has: `Welcome Message`, `Plans`, `Offers`"),
        (["--campaign", "13010", "--label", "Plans"], "the section has no webhook"),
    ] {
        let printed = cli(&arguments).await;
        assert_eq!(printed.code, Some(0), "{printed:#?}");
        assert!(printed.stdout.contains(text), "no {text:?}: {}", printed.stdout);
        let json = cli(&[&arguments[..], &["--json"]].concat()).await;
        let json: Value = serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:#?}"));
        assert!(json["why"].as_str().expect("a sentence").contains(text), "{json:#}");
    }
}

#[tokio::test]
async fn an_event_may_come_from_a_file() {
    let app = TestApp::start().await;
    let server = app.waypost.url("");
    let run = async |arguments: &[&str], input: &str| {
        let environment = [("WAYPOST_SERVER", server.as_str())];
        CliProcess::start(Path::new("."), &environment, &[&["explain"], arguments].concat(), input.as_bytes())
            .wait_for_exit()
            .await
    };
    let event = format!("{:#}", step_event().keyword(3).id("e").json());
    let printed = run(&["-", "--json"], &event).await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let explanation: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!(explanation["event"]["eventId"], "e", "{explanation:#}");

    for (arguments, input, code, said) in [
        (&["-"][..], format!("{event}{event}"), 2, "several events"),
        (&["-"], "{}".to_owned(), 1, "$.campaignId: missing"),
        (&["-"], "nonsense".to_owned(), 1, "not valid JSON"),
        (&["no-such-file.json"], String::new(), 1, "No such file"),
        (&["-", "--label", "x"], String::new(), 2, "cannot be used with"),
        (&[], String::new(), 2, "--campaign"),
    ] {
        let printed = run(arguments, &input).await;
        assert_eq!(printed.code, Some(code), "{arguments:?}: {printed:#?}");
        assert!(printed.stderr.contains(said), "{arguments:?}: {printed:#?}");
    }
}
