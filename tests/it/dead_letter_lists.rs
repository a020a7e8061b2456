//! Lists of dead letters: filters, counts, pagination while letters arrive, and invalid queries.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::Message;
use crate::support::dead_letters::{ids, text_field};
use crate::support::json::{items_of, only, webhook_mut};
use crate::test_app::{TestApp, example_campaign, step_event};

/// Letters of two campaigns with all reasons. Some are discarded.
async fn start_with_mixed_letters() -> TestApp {
    let app = TestApp::builder().set("retry.permanentStatuses", "404,410,500").start().await;
    let mut first = example_campaign(&app.receiver);
    webhook_mut(&mut first, "Welcome Message", 5)["url"] = json!("http://10.255.255.1/never-dialled");
    let other =
        json!({ "id": "other", "sections": [ { "label": "Ask", "webhook": { "url": app.receiver.url("/other") } } ] });
    app.put_campaign_allowed_earlier(&first).await;
    app.waypost.put_campaign(&other).await;
    for (path, status) in [("/agent", 410), ("/offers", 404), ("/name", 410), ("/other", 500)] {
        app.receiver.reply(path, status);
    }
    let mut count = 0;
    for round in 0..2 {
        let of =
            |keyword: u32, number: u32| step_event().keyword(keyword).id(&format!("{round}-{keyword}-{number}")).json();
        let mut events: Vec<Value> = (0..3).map(|number| of(3, number)).collect();
        events.extend((0..2).map(|number| of(4, number)));
        events.push(of(5, 0));
        let mut elsewhere = of(0, 0);
        elsewhere["label"] = "Offers".into();
        events.push(elsewhere.clone());
        (elsewhere["campaignId"], elsewhere["label"]) = ("other".into(), "Ask".into());
        events.push(elsewhere);
        app.amqp.publish_events(&app.prefix, &events).await;
        app.amqp.publish(&format!("{}.events", app.prefix), [Message::raw("no event")]).await;
        count += events.len() + 1;
        app.waypost.wait_for_letters("", count).await;
    }
    assert_eq!(app.waypost.discard(&json!({ "filter": { "status": 404 }, "because": "no offers" })).await, 4);
    app.waypost.wait_for_letters("state=discarded", 4).await;
    app
}

/// Returns whether a letter matches a filter.
fn matches_filter(letter: &Value, (name, value): (&str, &str)) -> bool {
    match name {
        "since" => text_field(letter, "deadAt") >= value,
        "until" => text_field(letter, "deadAt") < value,
        "status" => letter["status"].as_u64() == value.parse().ok(),
        "phoneNumber" => letter["event"]["phoneNumber"] == value,
        "endpoint" => letter["url"].as_str().is_some_and(|url| url.starts_with(&format!("{value}/"))),
        _ => letter[name] == value,
    }
}

/// The number of letters by `kind`.
fn count_by(letters: &[Value], kind: impl Fn(&Value) -> Option<String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for kind in letters.iter().filter_map(kind) {
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// The counts of a summary. Asserts that the largest comes first.
#[track_caller]
fn summary_counts(summary: &Value, list: &str, key: &str) -> BTreeMap<String, u64> {
    let items = summary[list].as_array().unwrap_or_else(|| panic!("no {list}: {summary:#}"));
    let counts: Vec<u64> = items.iter().map(|item| item["count"].as_u64().expect("a count")).collect();
    assert!(counts.is_sorted_by(|one, next| one >= next), "{list} of {summary:#}");
    items.iter().map(|item| text_field(item, key).to_owned()).zip(counts).collect()
}

#[tokio::test]
async fn list_and_summary_apply_filters_equally() {
    let app = start_with_mixed_letters().await;
    let all = app.waypost.letters("").await;
    assert_eq!(all.len(), 18);
    // All letters of the second round come before those of the first. Letters with the same time are in the order of
    // the log.
    let second: Vec<&str> = all[..9].iter().map(|letter| text_field(letter, "deadAt")).collect();
    assert!(
        all[9..].iter().all(|letter| second.iter().all(|second| *second >= text_field(letter, "deadAt"))),
        "{all:#?}"
    );
    let (late, early) = (text_field(&all[4], "deadAt"), text_field(&all[13], "deadAt"));
    let webhook = all.iter().find(|letter| letter["status"] == 410).map(|letter| text_field(letter, "webhookId"));
    let webhook = webhook.expect("a letter with this status");
    let of = |name: &str| all.iter().find_map(|letter| letter[name].as_str()).expect("a letter that has it");
    let (event, delivery) = (of("eventId"), of("deliveryId"));
    let phone =
        text_field(&all.iter().find(|letter| !letter["event"].is_null()).expect("a delivery")["event"], "phoneNumber");
    let endpoint = app.receiver.url("");
    let endpoint = endpoint.trim_end_matches('/');
    let filters: Vec<Vec<(&str, &str)>> = vec![
        vec![("phoneNumber", phone)],
        vec![("phoneNumber", "+19995550000")],
        vec![("eventId", event)],
        vec![("deliveryId", delivery)],
        vec![("endpoint", endpoint)],
        vec![("endpoint", "http://10.255.255.1")],
        vec![("endpoint", endpoint), ("campaignId", "other"), ("state", "pending")],
        vec![("phoneNumber", phone), ("eventId", event), ("deliveryId", delivery)],
        vec![("eventId", "unknown")],
        vec![],
        vec![("campaignId", "13010")],
        vec![("campaignId", "other")],
        vec![("label", "Welcome Message")],
        vec![("webhookId", webhook)],
        vec![("reason", "malformed")],
        vec![("reason", "forbidden_address")],
        vec![("status", "404")],
        vec![("since", late)],
        vec![("until", late)],
        vec![("since", early), ("until", late)],
        vec![("state", "pending")],
        vec![("state", "discarded")],
        vec![("campaignId", "13010"), ("label", "Offers")],
        vec![("campaignId", "13010"), ("reason", "gone"), ("state", "pending"), ("since", early)],
        vec![("webhookId", webhook), ("status", "410"), ("until", late)],
        vec![("label", "Ask"), ("campaignId", "other"), ("status", "500"), ("reason", "gone"), ("state", "pending")],
        vec![("campaignId", "other"), ("status", "404")],
        vec![("campaignId", "unknown")],
    ];
    for filter in filters {
        let query: Vec<String> = filter
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace(' ', "%20").replace('+', "%2B")))
            .collect();
        let query = query.join("&");
        let expected: Vec<Value> =
            all.iter().filter(|letter| filter.iter().all(|part| matches_filter(letter, *part))).cloned().collect();
        assert_eq!(ids(&app.waypost.letters(&query).await), ids(&expected), "{query}");

        let summary = app.waypost.summary(&query).await;
        assert_eq!(summary["total"], json!(expected.len()), "{query}: {summary:#}");
        let times = || expected.iter().map(|letter| text_field(letter, "deadAt"));
        assert_eq!(summary["newest"], json!(times().max()), "{query}: {summary:#}");
        assert_eq!(summary["oldest"], json!(times().min()), "{query}: {summary:#}");
        let field = |name: &'static str| move |letter: &Value| letter[name].as_str().map(str::to_owned);
        let class = |letter: &Value| {
            Some(letter["status"].as_u64().map_or_else(|| "none".to_owned(), |status| format!("{}xx", status / 100)))
        };
        for (list, key, counts) in [
            ("states", "state", count_by(&expected, field("state"))),
            ("reasons", "reason", count_by(&expected, field("reason"))),
            ("statuses", "status", count_by(&expected, class)),
            ("campaigns", "campaignId", count_by(&expected, field("campaignId"))),
            ("webhooks", "webhookId", count_by(&expected, field("webhookId"))),
        ] {
            let mut reported = summary_counts(&summary, list, key);
            reported.retain(|_, count| *count > 0);
            assert_eq!(reported, counts, "{list} of {query}: {summary:#}");
        }
        for webhook in summary["webhooks"].as_array().expect("webhooks") {
            let letter = expected.iter().find(|letter| letter["webhookId"] == webhook["webhookId"]);
            assert_eq!(letter.map(|letter| &letter["campaignId"]), Some(&webhook["campaignId"]), "{summary:#}");
        }
    }
}

#[tokio::test]
async fn pages_are_complete_while_new_letters_arrive() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 13).await;
    app.create_dead_letters(4, 10).await;
    app.amqp.publish(&format!("{}.events", app.prefix), [Message::raw("no event")]).await;
    app.waypost.wait_for_letter_count("", 24).await;
    for (limit, filter) in [(10, ""), (10, "&reason=gone"), (3, "&status=410&campaignId=13010")] {
        let expected = ids(&app.waypost.letters(filter.trim_start_matches('&')).await);
        let query = format!("limit={limit}{filter}");
        let (mut seen, mut place) = (Vec::new(), String::new());
        loop {
            let page = app.waypost.letter_page(&format!("{query}{place}")).await;
            let items = ids(page["items"].as_array().expect("items"));
            assert!(items.len() <= limit, "{query}: {} letters on a page", items.len());
            seen.extend(items);
            let Some(cursor) = page["next"].as_str() else { break };
            place = format!("&cursor={cursor}");
            if seen.len() < 2 * limit {
                app.create_dead_letters(3, 2).await;
            }
        }
        assert_eq!(seen, expected, "{query}");
    }
}

#[tokio::test]
async fn an_invalid_query_is_refused_with_a_reason() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 3).await;
    let page = app.waypost.letter_page("limit=1&reason=gone").await;
    let cursor = text_field(&page, "next");
    let rest = app.waypost.letter_page(&format!("limit=2&reason=gone&cursor={cursor}")).await;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(2), "the page size may change between pages: {rest:#}");
    let (now, later) = ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z");
    let refused = [
        ("page=2".to_owned(), "page"),
        ("colour=red".to_owned(), "colour"),
        ("limit=0".to_owned(), "limit"),
        ("limit=1001".to_owned(), "limit"),
        ("limit=-1".to_owned(), "limit"),
        ("limit=many".to_owned(), "limit"),
        ("status=many".to_owned(), "status"),
        ("status=99999".to_owned(), "status"),
        ("reason=boredom".to_owned(), "reason"),
        ("state=asleep".to_owned(), "state"),
        ("phoneNumber=".to_owned(), "phoneNumber"),
        ("eventId=".to_owned(), "eventId"),
        ("deliveryId=".to_owned(), "deliveryId"),
        ("endpoint=example.com".to_owned(), "endpoint"),
        ("endpoint=https://example.com/hook".to_owned(), "endpoint"),
        ("since=yesterday".to_owned(), "since"),
        ("until=2026-01-01".to_owned(), "until"),
        (format!("since={later}&until={now}"), "since"),
        ("label=a&label=b".to_owned(), "label"),
        ("limit=1&limit=1".to_owned(), "limit"),
        (format!("cursor={cursor}&cursor={cursor}"), "cursor"),
        (format!("since={now}&until={now}"), "since"),
        ("cursor=garbage".to_owned(), "cursor"),
        ("cursor=%00%ff".to_owned(), "cursor"),
        (format!("cursor={cursor}"), "cursor"),
        (format!("reason=malformed&cursor={cursor}"), "cursor"),
        (format!("reason=gone&campaignId=13010&cursor={cursor}"), "cursor"),
        (format!("reason=gone&cursor={cursor}x"), "cursor"),
    ];
    for (query, word) in &refused {
        let problem = app.waypost.get(&format!("/v1/dead-letters?{query}")).await.expect_problem(400);
        let detail = &problem.detail;
        assert!(detail.contains(word) && detail.contains(' '), "{query}: {problem:?}");
        let of_lists = ["limit", "cursor"].iter().any(|name| query.contains(name));
        if !of_lists {
            let problem = app.waypost.get(&format!("/v1/dead-letters/summary?{query}")).await.expect_problem(400);
            assert!(problem.detail.contains(word), "{query}: {problem:?}");
        }
    }
    // A summary has no pages.
    for query in ["limit=10".to_owned(), format!("cursor={cursor}")] {
        app.waypost.get(&format!("/v1/dead-letters/summary?{query}")).await.expect_problem(400);
    }
    for unknown in ["dl_unknown", "unknown"] {
        app.waypost.get(&format!("/v1/dead-letters/{unknown}")).await.expect_problem(404);
    }
    // A URL written by hand may contain an unescaped plus sign.
    for plus in ["%2B", "+"] {
        assert_eq!(app.waypost.letters(&format!("since=2020-01-01T01:00:00{plus}01:00")).await.len(), 3);
    }
}

#[tokio::test]
async fn a_summary_shows_a_hundred_campaigns_and_counts_the_rest() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 1).await;
    // Copies of the letter as the product wrote it, with other ids.
    let letters = app.dead_letters(1).await;
    let letter = only(&letters);
    let id = text_field(letter, "id");
    let copies = (100..205).map(|number| {
        let mut copy = letter.clone();
        copy["id"] = format!("{}{number}", &id[..id.len() - 3]).into();
        for place in ["/campaignId", "/event/campaignId"] {
            *copy.pointer_mut(place).expect("a campaign") = format!("campaign-{number}").into();
        }
        for place in ["/webhookId", "/target/webhook/id"] {
            *copy.pointer_mut(place).expect("a webhook") = format!("wh_{number}").into();
        }
        Message::raw(copy.to_string()).id(&format!("copy-{number}"))
    });
    app.amqp.publish(&format!("{}.dead-letters", app.prefix), copies).await;
    app.create_dead_letters(3, 2).await;
    app.waypost.wait_for_letter_count("", 108).await;
    let summary = app.waypost.summary("").await;
    for (list, more, key) in [("campaigns", "moreCampaigns", "campaignId"), ("webhooks", "moreWebhooks", "webhookId")] {
        assert_eq!((summary_counts(&summary, list, key).len(), &summary[more]), (100, &json!(6)), "{summary:#}");
    }
    let largest = items_of(&summary["campaigns"]).first().expect("a campaign");
    assert_eq!((&largest["campaignId"], &largest["count"]), (&json!("13010"), &json!(3)));
    assert_eq!(app.waypost.count_letters("campaignId=campaign-150").await, 1);
}
