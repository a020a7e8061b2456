//! Tests of explanations.

use serde_json::{Value, json};

use super::*;
use crate::campaign::MASK;
use crate::document;
use crate::egress::HttpUrls;
use crate::event;

fn campaign(sections: Value) -> Campaign {
    let document = json!({ "id": "13010", "sections": sections }).to_string();
    document::read(document.as_bytes(), HttpUrls::Refused, None).expect("a valid document")
}

fn event(label: &str, keyword: Value, option: Value) -> StepEvent {
    let event = json!({ "campaignId": "13010", "label": label, "phoneNumber": "1", "date": "2024-06-18T23:26:14.206Z",
                        "keyword": keyword, "option": option, "eventId": "e" });
    event::decode(event.to_string().as_bytes(), None).expect("an event")
}

fn explained(campaign: &Campaign, event: StepEvent) -> Explanation {
    explain(event, Some((campaign, 7)), SecretVisibility::Masked, DateTime::UNIX_EPOCH)
}

/// The keyword, match and reason of each entry.
fn entries(explanation: &Explanation) -> Vec<(String, bool, &str)> {
    explanation.entries.iter().map(|entry| (entry.keyword.to_string(), entry.matches, entry.why.as_str())).collect()
}

#[test]
fn webhooks_that_fire_are_those_that_resolve_returns() {
    let campaign = document::tests::example();
    for label in ["Welcome Message", "Plans", "Offers", "offers", "none"] {
        for keyword in [json!(1), json!(3), json!(" 4 "), json!(4.0), json!(9), Value::Null] {
            for option in [json!("Survey"), json!("offers"), json!("none"), Value::Null] {
                let event = event(label, keyword.clone(), option);
                let fire = resolve::resolve(&campaign, &event);
                let explanation = explained(&campaign, event);
                let fires = explanation.webhooks.iter().filter(|webhook| webhook.fires);
                let fires: Vec<_> = fires.map(|webhook| (&webhook.webhook_id, webhook.kind)).collect();
                assert_eq!(fires, fire.iter().map(|to| (&to.webhook.id, to.kind)).collect::<Vec<_>>());
                let reasons = explanation.entries.iter().map(|entry| &entry.why);
                let mut reasons = reasons.chain(explanation.webhooks.iter().map(|webhook| &webhook.why));
                assert!(reasons.all(|why| !why.is_empty()) && !explanation.why.is_empty(), "{explanation:#?}");
            }
        }
    }
}

#[test]
fn webhooks_that_fire_have_a_request() {
    let campaign = document::tests::example();
    let explanation = explained(&campaign, event("Welcome Message", json!("4"), json!("Offers")));
    assert_eq!(explanation.campaign, Some(ExplainedCampaign { id: "13010".to_owned(), version: 7 }));
    assert_eq!(explanation.matched_by, Some(MatchedBy::Keyword));
    assert_eq!(explanation.why, "one webhook fires");
    let with_request: Vec<_> = explanation.webhooks.iter().filter(|webhook| webhook.request.is_some()).collect();
    let [webhook] = with_request[..] else { panic!("{with_request:#?}") };
    assert!(webhook.fires);
    assert_eq!(webhook.path, "$.sections[0].menu[3].webhook");
    assert_eq!(webhook.why, "fires: its menu entry matches by its keyword");
    let request = webhook.request.as_ref().expect("a request");
    assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://example.com/hooks/offers"));
    assert_eq!(request.headers["x-api-key"], MASK);
    assert!(request.body.ends_with(r#""option":"Offers","keyword":"4","source":"chatbot"}"#), "{}", request.body);
    let other = explanation.webhooks.iter().find(|other| !other.fires).expect("another");
    assert_eq!(other.why, "its menu entry does not match: the event's keyword is 4");
}

#[test]
fn entries_tell_why_they_match_or_not() {
    let menu = json!([
        { "keyword": 1, "option": "Plans", "webhook": { "url": "https://example.com/1" } },
        { "keyword": "b", "option": "plans " },
        { "keyword": "two words" } ]);
    let campaign = campaign(json!([{ "label": "a", "menu": menu }]));
    let (yes, no) = (true, false);
    let unknown_keyword = "the menu has no keyword 9 (it has 1, b, two words)";
    let by_text = format!("matches by its menu text, because {unknown_keyword}");
    let number = "keyword 1.0 is not 1: texts are compared character by character, ignoring only case, character \
                  encoding, invisible characters and surrounding space";
    let second = "has the event's menu text, but so does the entry with keyword 1, which comes first";
    for (keyword, option, expected) in [
        (
            json!("B"),
            json!("PLANS"),
            [
                (no, "has the event's menu text, but keyword b of another entry matches, and keywords take precedence"),
                (yes, "matches by its keyword"),
                (no, "the event's keyword is b"),
            ],
        ),
        (json!(9), json!("Plans"), [(yes, by_text.as_str()), (no, second), (no, "it has no menu text")]),
        (
            Value::Null,
            json!("Plans"),
            [
                (yes, "matches by its menu text, because the event has no keyword"),
                (no, second),
                (no, "it has no menu text"),
            ],
        ),
        (json!(9), Value::Null, [(no, unknown_keyword), (no, unknown_keyword), (no, unknown_keyword)]),
        (
            json!("1.0"),
            Value::Null,
            [
                (no, number),
                (no, "the menu has no keyword 1.0 (it has 1, b, two words)"),
                (no, "the menu has no keyword 1.0 (it has 1, b, two words)"),
            ],
        ),
        (Value::Null, Value::Null, [(no, "the event has neither keyword nor option"); 3]),
        (
            Value::Null,
            json!("Plan"),
            [
                (no, "its menu text `Plans` is not the event's `Plan`"),
                (no, "its menu text `plans ` is not the event's `Plan`"),
                (no, "it has no menu text"),
            ],
        ),
    ] {
        let explanation = explained(&campaign, event("a", keyword.clone(), option.clone()));
        let reasons: Vec<_> = entries(&explanation).into_iter().map(|(_, matches, why)| (matches, why)).collect();
        assert_eq!(reasons, expected, "{keyword} {option}");
    }
}

#[test]
fn the_result_tells_why_nothing_is_sent() {
    let webhook = |enabled: bool| json!({ "url": "https://example.com/", "enabled": enabled });
    let campaign = campaign(json!([
        { "label": "Empty" },
        { "label": "Menu", "menu": [{ "keyword": 1, "option": "Plans" }] },
        { "label": "Off", "webhook": webhook(false), "menu": [{ "keyword": 1, "webhook": webhook(false) }] },
        { "label": "Both", "webhook": webhook(false), "menu": [{ "keyword": 1, "webhook": webhook(true) }] },
    ]));
    for (label, keyword, option, why) in [
        ("Empty", json!(1), Value::Null, "nothing is sent: the section has no webhook"),
        (
            "Menu",
            json!(1),
            Value::Null,
            "nothing is sent: neither the section nor its menu entry with keyword 1 has a webhook",
        ),
        (
            "Menu",
            json!(2),
            Value::Null,
            "nothing is sent: the section has no webhook of its own, and the menu has no keyword 2 (it has 1)",
        ),
        (
            "Menu",
            Value::Null,
            json!("x"),
            "nothing is sent: the section has no webhook of its own, and the menu has no text `x` (it has `Plans`)",
        ),
        (
            "Menu",
            Value::Null,
            Value::Null,
            "nothing is sent: the section has no webhook of its own, and the event has neither keyword nor option",
        ),
        (
            "Off",
            json!(1),
            Value::Null,
            "nothing is sent: all matching webhooks are disabled. Set `enabled` to true to make them fire",
        ),
        ("Both", json!(1), Value::Null, "one webhook fires; one more would fire if it were enabled"),
        (
            "mENU ",
            json!(1),
            Value::Null,
            "the campaign has no section with the label `mENU `, but one with `Menu`: labels are compared exactly, \
             including case and spaces",
        ),
        (
            "None",
            json!(1),
            Value::Null,
            "the campaign has no section with the label `None`; it has: `Empty`, `Menu`, `Off`, `Both`",
        ),
    ] {
        let explanation = explained(&campaign, event(label, keyword, option));
        assert_eq!(explanation.why, why);
    }
    let disabled = explained(&campaign, event("Off", json!(1), Value::Null));
    assert!(disabled.webhooks.iter().all(|webhook| !webhook.fires && webhook.request.is_some()), "{disabled:#?}");
    assert!(disabled.webhooks.iter().all(|webhook| webhook.why == "disabled: set `enabled` to true to make it fire"));
    let other = explained(&campaign, event("Off", json!(2), Value::Null));
    let reasons = &other.webhooks[1].why;
    assert!(reasons.contains("does not match") && reasons.ends_with("it is also disabled"), "{reasons}");

    let unknown_campaign =
        explain(event("a", json!(1), Value::Null), None, SecretVisibility::Visible, DateTime::UNIX_EPOCH);
    assert_eq!(unknown_campaign.why, "there is no campaign `13010`: create it, or correct the event's `campaignId`");
}
