//! Personal data in dead letters are erased on every worker, permanently.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::amqp::Message;
use crate::support::{Amqp, Answer, Broker, Receiver, Waypost, unique, wait_until};
use crate::test_app::SLOW_TIMEOUT;

const PHONE: &str = "+5511999990000";
const OTHER: &str = "+5511999990001";

#[tokio::test]
async fn an_erased_person_is_in_no_letter() {
    let broker = Broker::shared().await;
    let (prefix, receiver) = (unique("erasure"), Receiver::start());
    receiver.reply_with("/", |request, _| {
        Answer::status(400).body(format!("nobody has {}", request.json()["phoneNumber"]))
    });
    let settings = [("WAYPOST_RETRY__MAX_ATTEMPTS", "1")];
    let waypost = Waypost::start_with(&broker.url(), &prefix, &settings).await;
    waypost
        .put_campaign(&json!({ "id": "c", "sections": [{ "label": "l", "webhook": { "url": receiver.url("/") } }] }))
        .await;
    let amqp = Amqp::connect(&broker.url()).await;
    let event = |phone: &str, id: &str| {
        json!({ "campaignId": "c", "label": "l", "phoneNumber": phone, "date": "2024-06-18T23:26:14Z", "eventId": id,
            "response": "my own words", "keyword": "typed" })
    };
    amqp.publish_events(&prefix, &[event(PHONE, "a"), event(PHONE, "b"), event(OTHER, "c")]).await;
    let unreadable = format!(r#"{{"campaignId":"c","phoneNumber":"{PHONE}""#);
    amqp.publish(&format!("{prefix}.events"), [Message::raw(unreadable.as_str())]).await;
    waypost.wait_for_metric("waypost_dead_letters{state=\"pending\"}", 4.0).await;

    // The index finds this person's letters only.
    let by_phone = ["dead-letters", "list", "--json", "--phone", PHONE];
    let found = async |waypost: &Waypost| {
        let printed = waypost.cli(&by_phone).await;
        let letters: Value = serde_json::from_str(&printed.stdout).unwrap_or_else(|_| panic!("{printed:?}"));
        letters.as_array().expect("a list").len()
    };
    assert_eq!(found(&waypost).await, 2);
    let erase = ["erase", "--phone", PHONE];
    let refused = waypost.cli(&erase).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    assert!(refused.stderr.contains("permanently erase the person's data from 3 dead letters"), "{refused:?}");
    let dry = waypost.cli(&[&erase[..], &["--dry-run"]].concat()).await;
    assert_eq!(
        (dry.code, dry.stdout.trim()),
        (Some(0), "would permanently erase the person's data from 3 dead letters"),
        "{dry:?}"
    );
    let letters = async |waypost: &Waypost| {
        let list = waypost.get("/v1/dead-letters").await.json()["items"].as_array().expect("a list").clone();
        let mut all = Vec::new();
        for letter in &list {
            let id = letter["id"].as_str().expect("an id");
            all.push(waypost.get(&format!("/v1/dead-letters/{id}")).await.json());
        }
        all
    };
    let before = letters(&waypost).await;
    assert_eq!(before.iter().filter(|letter| letter.to_string().contains(PHONE)).count(), 3);

    let erase = ["dead-letters", "erase", "--phone", PHONE, "--yes"];
    let done = waypost.cli(&erase).await;
    assert_eq!((done.code, done.stdout.trim()), (Some(0), "erased 3 dead letters"), "{done:?}");
    // A new worker reads the erasure from the log.
    let fresh = Waypost::start_with(&broker.url(), &prefix, &settings).await;
    wait_until("the letters on the other worker", SLOW_TIMEOUT, async || {
        (letters(&fresh).await.len() == 4).then_some(())
    })
    .await;
    for worker in [&waypost, &fresh] {
        assert_eq!(found(worker).await, 0, "a phone number finds an erased letter");
        let (erased, left): (Vec<Value>, Vec<Value>) =
            letters(worker).await.into_iter().partition(|letter| letter["state"] == "discarded");
        assert_eq!((erased.len(), left.len()), (3, 1));
        for letter in &erased {
            let text = letter.to_string();
            assert!(!text.contains(PHONE) && !text.contains("my own words") && !text.contains("typed"), "{text}");
        }
        assert!(left[0].to_string().contains(OTHER) && left[0].to_string().contains("my own words"));
    }
    // An erased letter can't be replayed by id or by filter.
    let ids: Vec<&Value> =
        before.iter().filter(|letter| letter.to_string().contains(PHONE)).map(|l| &l["id"]).collect();
    let requests = receiver.requests().len();
    let detail =
        waypost.send(Method::POST, "/v1/replays", Some(&json!({ "ids": ids }))).await.expect_problem(409).detail;
    assert!(detail.contains("was erased"), "{detail}");
    let by_filter = json!({ "filter": { "state": "discarded" } });
    let replay = waypost.send(Method::POST, "/v1/replays", Some(&by_filter)).await.json();
    let path = format!("/v1/replays/{}", replay["id"].as_str().unwrap_or_else(|| panic!("no id: {replay:#}")));
    wait_until("the replay's end", SLOW_TIMEOUT, async || {
        let replay = waypost.get(&path).await.json();
        (replay["state"] == "done").then(|| assert_eq!(replay["sent"], 0, "{replay:#}"))
    })
    .await;
    assert_eq!(receiver.requests().len(), requests);
    // Filtering by phone number leaves no number in the log.
    let by_phone = json!({ "filter": { "phoneNumber": OTHER } });
    let replay = waypost.send(Method::POST, "/v1/replays", Some(&by_phone)).await;
    assert_eq!(replay.status, 202, "{replay:?}");
    let dry = json!({ "filter": { "phoneNumber": OTHER }, "dryRun": true });
    let dry = waypost.send(Method::POST, "/v1/dead-letters/discard", Some(&dry)).await;
    assert_eq!(dry.status, 200, "{dry:?}");
    let lines = waypost.log_lines();
    assert!(lines.iter().any(|line| line.contains("selected by") && line.contains("********")), "{lines:#?}");
    for phone in [PHONE, OTHER] {
        assert!(!lines.iter().any(|line| line.contains(phone)), "the log contains the phone number");
    }
    let short = json!({ "phoneNumber": "1" });
    let short = waypost.send(Method::POST, "/v1/dead-letters/erase", Some(&short)).await;
    assert_eq!(short.violation_paths(), ["$.phoneNumber"]);
}
