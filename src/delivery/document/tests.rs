//! The document's rules, node by node; those of the webhook are in `webhook/tests.rs`.

mod round_trip;

use serde_json::json;

use super::*;
use crate::delivery::campaign::{RetryOverrides, WebhookKind};
use crate::delivery::ids::WebhookId;

/// The example of the specification.
const EXAMPLE: &str = r#"
{ "id": "13010", "name": "Streaming membership",
  "sections": [
    { "label": "Welcome Message", "kind": "welcomeMessage", "message": "Choose an option…",
      "menu": [
        { "keyword": 1, "option": "Plans",  "redirect": { "type": "interaction", "to": "Plans" } },
        { "keyword": 2, "option": "Raffle", "redirect": { "type": "campaign", "to": "raffle-giveaway" } },
        { "keyword": 3, "redirect": { "type": "webhook" }, "webhook": { "url": "https://example.com/hooks/agent" } },
        { "keyword": 4, "option": "Offers", "redirect": { "type": "interaction", "to": "Offers" },
          "webhook": { "url": "https://example.com/hooks/offers", "enabled": true,
                       "body": { "source": "chatbot" }, "headers": { "X-Api-Key": "…" } } },
        { "keyword": 5, "option": "Survey", "redirect": { "type": "campaign", "to": "web-polls" },
          "webhook": { "url": "https://example.com/hooks/survey" } } ] },
    { "label": "Plans", "kind": "interaction", "message": "1. One month  2. Six months  3. One year" },
    { "label": "Offers", "kind": "interaction", "message": "Your name?",
      "redirect": { "type": "webhook" }, "webhook": { "url": "https://example.com/hooks/name" } } ] }"#;

pub(crate) fn example() -> Campaign {
    accepted(EXAMPLE)
}

fn accepted(text: &str) -> Campaign {
    applied(text, None)
}

/// A document, applied where `previous` was configured.
fn applied(text: &str, previous: Option<&Campaign>) -> Campaign {
    read(text.as_bytes(), HttpUrls::Refused, previous).unwrap_or_else(|faults| panic!("refused: {faults:#?}"))
}

/// The faults of a document, as (path, message).
pub(super) fn refused(text: &str) -> Vec<(String, String)> {
    let faults = read(text.as_bytes(), HttpUrls::Refused, None).expect_err("the document was accepted");
    faults.into_iter().map(|fault| (fault.path, fault.message)).collect()
}

/// Checks that `text` has exactly the faults `expected`: of each the path, and words of the message.
pub(super) fn assert_refused(text: &str, expected: &[(&str, &str)]) {
    let faults = refused(text);
    let paths: Vec<_> = faults.iter().map(|(path, _)| path.as_str()).collect();
    let expected_paths: Vec<_> = expected.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, expected_paths, "{text:.300}\n{faults:#?}");
    for ((_, message), (path, words)) in faults.iter().zip(expected) {
        assert!(message.contains(words), "{text:.300}\n{path}: {message}\nhas not: {words}");
    }
}

#[test]
fn the_example_is_accepted() {
    let campaign = example();
    let kinds: Vec<_> = campaign.places().map(|place| (place.target().kind, place.webhook.url.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (WebhookKind::Redirect, "https://example.com/hooks/agent"),
            (WebhookKind::Underlying, "https://example.com/hooks/offers"),
            (WebhookKind::Underlying, "https://example.com/hooks/survey"),
            (WebhookKind::Redirect, "https://example.com/hooks/name"),
        ]
    );
    let offers = campaign.places().nth(1).expect("the second webhook").webhook;
    assert!(offers.enabled);
    assert_eq!(offers.timeout_ms, 15_000);
    assert_eq!(offers.body.to_value()["source"], "chatbot");
    assert_eq!(offers.headers["X-Api-Key"], "…");
    assert_eq!(offers.retry, RetryOverrides::default());
    assert_eq!(campaign.sections[0].kind, SectionKind::WelcomeMessage);
    assert_eq!(campaign.sections[0].menu[0].keyword, Keyword::Number(1.into()));
}

#[test]
fn null_is_absent_and_a_section_is_an_interaction_unless_it_says_otherwise() {
    let sparse = accepted(r#"{"id": "1", "sections": [{"label": "a", "menu": [{"keyword": "yes"}]}]}"#);
    let nulls = accepted(
        r#"{"id": "1", "name": null, "sections": [{"label": "a", "kind": null, "message": null, "redirect": null,
            "webhook": null, "menu": [{"keyword": "yes", "option": null, "redirect": null, "webhook": null}]}]}"#,
    );
    assert_eq!(sparse, nulls);
    assert_eq!(sparse.sections[0].kind, SectionKind::Interaction);
    assert_eq!(accepted(r#"{"id": "1", "sections": []}"#).sections, []);
}

#[test]
fn what_is_no_document() {
    let large = format!(r#"{{"id": "1", "sections": []}}{}"#, " ".repeat(MAX_DOCUMENT_BYTES));
    let deep = "[".repeat(10_000);
    for (text, words) in [
        (" \n", "empty"),
        ("\u{feff}{}", "byte order mark"),
        ("{", "not JSON"),
        (r#"{"id": "1", "sections": []} x"#, "not JSON"),
        (&deep, "not JSON"),
        ("null", "found null"),
        ("[]", "found an array"),
        (&large, "at most 1048576 bytes"),
    ] {
        assert_refused(text, &[("$", words)]);
    }
    let faults = read(b"{\"id\": \"\xff\"}", HttpUrls::Refused, None).expect_err("not UTF-8");
    assert_eq!(faults[0].path, "$");
    assert!(faults[0].message.contains("not UTF-8 from byte 8 on"));
    let fits = format!("{EXAMPLE}{}", " ".repeat(MAX_DOCUMENT_BYTES - EXAMPLE.len()));
    assert_eq!(accepted(&fits), example());
}

#[test]
fn campaigns_that_are_refused() {
    let long = format!(r#"{{"id": "{}", "sections": []}}"#, "é".repeat(129));
    accepted(&long.replacen('é', "", 1));
    for (text, path, words) in [
        (r#"{"sections": []}"#, "$.id", "missing; it is required"),
        (r#"{"id": null, "sections": []}"#, "$.id", "missing"),
        (r#"{"id": 13010, "sections": []}"#, "$.id", "expected a string, found a number"),
        (r#"{"id": "", "sections": []}"#, "$.id", "1 to 128 characters"),
        (&long, "$.id", "1 to 128 characters"),
        (r#"{"id": "1"}"#, "$.sections", "missing"),
        (r#"{"id": "1", "sections": {}}"#, "$.sections", "expected an array, found an object"),
        (r#"{"id": "1", "sections": [], "name": 7}"#, "$.name", "expected a string"),
        (r#"{"id": "1", "sections": [null]}"#, "$.sections[0]", "expected a section (an object), found null"),
        (r#"{"id": "1", "sections": [], "section": []}"#, "$.section", "did you mean `sections`?"),
        (r#"{"id": "1", "sections": [], "Name": "x"}"#, "$.Name", "did you mean `name`?"),
        (r#"{"id": "1", "sections": [], "x y": 1}"#, r#"$["x y"]"#, "a campaign has `id`, `name` and `sections`"),
        (r#"{"id": "1", "id": "1", "sections": []}"#, "$.id", "given twice"),
    ] {
        assert_refused(text, &[(path, words)]);
    }
}

#[test]
fn sections_that_are_refused() {
    // Each stands after a Welcome Message.
    for (section, path, words) in [
        (r#"{}"#, ".label", "missing"),
        (r#"{"label": 5}"#, ".label", "expected a string"),
        (r#"{"label": " "}"#, ".label", "must not be empty"),
        (r#"{"label": "Welcome"}"#, ".label", "the same label as $.sections[0].label"),
        (r#"{"label": "a", "kind": "menu"}"#, ".kind", "one of `welcomeMessage` and `interaction`"),
        (r#"{"label": "a", "kind": 1}"#, ".kind", "expected a string"),
        (r#"{"label": "a", "kind": "welcomeMessage"}"#, ".kind", "second Welcome Message beside $.sections[0].kind"),
        (r#"{"label": "a", "message": []}"#, ".message", "expected a string"),
        (r#"{"label": "a", "menu": {}}"#, ".menu", "expected an array"),
        (r#"{"label": "a", "webhook": "https://example.com/"}"#, ".webhook", "expected a webhook (an object)"),
        (r#"{"label": "a", "redirect": {"type": "webhook"}}"#, ".webhook", "missing; a redirect of type `webhook`"),
        (r#"{"label": "a", "lable": "a"}"#, ".lable", "did you mean `label`?"),
        (r#"{"label": "a", "keyword": 1}"#, ".keyword", "a section has `label`, `kind`"),
        (r#"{"label": "a", "menu": [], "menu": []}"#, ".menu", "given twice"),
    ] {
        let text =
            format!(r#"{{"id": "1", "sections": [{{"label": "Welcome", "kind": "welcomeMessage"}}, {section}]}}"#);
        assert_refused(&text, &[(&format!("$.sections[1]{path}"), words)]);
    }
}

#[test]
fn menu_entries_that_are_refused() {
    // Each stands after the keywords 1 and "Yes".
    for (entry, path, words) in [
        ("7", "", "expected a menu entry (an object), found a number"),
        (r#"{}"#, ".keyword", "missing"),
        (r#"{"keyword": true}"#, ".keyword", "expected a string or a number, found a boolean"),
        (r#"{"keyword": " "}"#, ".keyword", "can't be empty"),
        (r#"{"keyword": 1}"#, ".keyword", "the same keyword as $.sections[0].menu[0].keyword"),
        (r#"{"keyword": " 1 "}"#, ".keyword", "the same keyword as $.sections[0].menu[0].keyword"),
        (r#"{"keyword": 1.0}"#, ".keyword", "the same keyword as $.sections[0].menu[0].keyword"),
        (r#"{"keyword": 10e-1}"#, ".keyword", "the same keyword as $.sections[0].menu[0].keyword"),
        (r#"{"keyword": "１"}"#, ".keyword", "the same keyword as $.sections[0].menu[0].keyword"),
        (r#"{"keyword": "\u200b"}"#, ".keyword", "can't be empty"),
        (r#"{"keyword": "ye\u00adｓ"}"#, ".keyword", "the same keyword as $.sections[0].menu[1].keyword"),
        (r#"{"keyword": "yES"}"#, ".keyword", "the same keyword as $.sections[0].menu[1].keyword"),
        (r#"{"keyword": 3, "option": 3}"#, ".option", "expected a string"),
        (r#"{"keyword": 3, "options": "x"}"#, ".options", "did you mean `option`?"),
        (r#"{"keyword": 3, "redirect": "Plans"}"#, ".redirect", "expected a redirect (an object)"),
        (r#"{"keyword": 3, "redirect": {}}"#, ".redirect.type", "missing"),
        (r#"{"keyword": 3, "redirect": {"type": "Webhook"}}"#, ".redirect.type", "`campaign` and `webhook`"),
        (r#"{"keyword": 3, "redirect": {"to": "Plans"}}"#, ".redirect.type", "missing"),
        (r#"{"keyword": 3, "redirect": {"type": "interaction"}}"#, ".redirect.to", "missing; name the section's label"),
        (r#"{"keyword": 3, "redirect": {"type": "campaign", "to": null}}"#, ".redirect.to", "missing"),
        (r#"{"keyword": 3, "redirect": {"type": "campaign", "to": ""}}"#, ".redirect.to", "must not be empty"),
        (r#"{"keyword": 3, "redirect": {"type": "campaign", "to": 9}}"#, ".redirect.to", "expected a string"),
        (r#"{"keyword": 3, "redirect": {"type": "interaction", "to": ""}}"#, ".redirect.to", "must not be empty"),
        (r#"{"keyword": 3, "redirect": {"type": "interaction", "to": "plans"}}"#, ".redirect.to", "no section of this"),
        (r#"{"keyword": 3, "redirect": {"type": "webhook"}}"#, ".webhook", "missing; a redirect of type `webhook`"),
        (
            r#"{"keyword": 3, "redirect": {"type": "webhook", "to": "x"}, "webhook": {"url": "https://a.b/"}}"#,
            ".redirect.to",
            "remove `to`",
        ),
        (
            r#"{"keyword": 3, "redirect": {"type": "webhook"}, "option": "x", "webhook": {"url": "https://a.b/"}}"#,
            ".option",
            "remove `option`",
        ),
        (
            r#"{"keyword": 3, "redirect": {"type": "campaign", "to": "x", "if": 1}}"#,
            ".redirect.if",
            "has `type` and `to`",
        ),
    ] {
        let text = format!(
            r#"{{"id": "1", "sections": [{{"label": "Plans", "menu": [{{"keyword": 1}}, {{"keyword": "Yes"}}, {entry}]}}]}}"#
        );
        assert_refused(&text, &[(&format!("$.sections[0].menu[2]{path}"), words)]);
    }
    // What a redirect of an unknown type leads to is still looked at.
    assert_refused(
        r#"{"id": "1", "sections": [{"label": "a", "redirect": {"type": "x", "to": 5}}]}"#,
        &[("$.sections[0].redirect.type", "must be one of"), ("$.sections[0].redirect.to", "expected a string")],
    );
    // Another menu has keywords of its own.
    accepted(
        r#"{"id": "1", "sections": [{"label": "a", "menu": [{"keyword": 1}]},
                 {"label": "b", "menu": [{"keyword": 1}]}]}"#,
    );
}

#[test]
fn all_faults_at_once() {
    let text = r#"
    { "name": 1, "sections": [
        { "label": "a", "kind": "welcomeMessage",
          "menu": [
            { "keyword": 1, "redirect": { "type": "webhook", "to": "a" }, "option": "x" },
            { "keyword": "1", "redirect": { "type": "interaction", "to": "c" },
              "webhook": { "url": "http://user:key@example.com/#top", "header": {}, "timeoutMs": 0,
                           "body": { "date": 1, "label": 2 }, "headers": { "Host": "x", "x-a": "\n", "X-A": "ok" } } } ] },
        { "label": "a", "kind": "welcomeMessage", "webhook": { "retry": { "jitter": 2 } } } ] }"#;
    assert_refused(
        text,
        &[
            ("$.id", "missing"),
            ("$.name", "expected a string"),
            ("$.sections[0].menu[0].redirect.to", "remove `to`"),
            ("$.sections[0].menu[0].webhook", "missing"),
            ("$.sections[0].menu[0].option", "remove `option`"),
            ("$.sections[0].menu[1].keyword", "the same keyword"),
            ("$.sections[0].menu[1].redirect.to", "no section"),
            ("$.sections[0].menu[1].webhook.header", "did you mean `headers`?"),
            ("$.sections[0].menu[1].webhook.url", "use https://host/path"),
            ("$.sections[0].menu[1].webhook.url", "credentials"),
            ("$.sections[0].menu[1].webhook.url", "fragment"),
            ("$.sections[0].menu[1].webhook.body.date", "choose another name"),
            ("$.sections[0].menu[1].webhook.body.label", "choose another name"),
            ("$.sections[0].menu[1].webhook.headers.Host", "reserved"),
            (r#"$.sections[0].menu[1].webhook.headers["x-a"]"#, "header value"),
            (r#"$.sections[0].menu[1].webhook.headers["X-A"]"#, "the same header"),
            ("$.sections[0].menu[1].webhook.timeoutMs", "from 1 to 30000"),
            ("$.sections[1].label", "the same label"),
            ("$.sections[1].kind", "second Welcome Message"),
            ("$.sections[1].webhook.url", "missing"),
            ("$.sections[1].webhook.retry.jitter", "from 0 to 1"),
        ],
    );
}

/// A small document must not become an answer of a hundred megabytes.
#[test]
fn the_list_of_faults_has_a_limit() {
    let items = vec!["1"; 100_000].join(",");
    let faults = refused(&format!(r#"{{"id": "1", "sections": [{items}]}}"#));
    assert_eq!(faults.len(), json_cursor::MAX_FAULTS + 1);
    let (path, message) = faults.last().expect("faults");
    assert_eq!(path, "$");
    assert!(message.starts_with("99000 more faults"), "{message}");

    let long = "x".repeat(500_000);
    for text in [
        format!(r#"{{"id": "1", "sections": [], "{long}": 1}}"#),
        format!(
            r#"{{"id": "1", "sections": [{{"label": "a", "redirect": {{"type": "interaction", "to": "{long}"}}}}]}}"#
        ),
        format!(r#"{{"id": "1", "{long}": {{"a": 1, "a": 2}}, "sections": []}}"#),
    ] {
        for (path, message) in refused(&text) {
            assert!(path.len() + message.len() < 400, "{path:.500} {message:.500}");
        }
    }
    // A path has all the names above it, and each of these is shown as 480 bytes.
    let [open, close] = [format!(r#"{{"{}":"#, r"\u0001".repeat(80)), "}".to_owned()].map(|part| part.repeat(100));
    let faults = refused(&format!("{open}{{{}}}{close}", vec![r#""a":1"#; 100_000].join(",")));
    let bytes: usize = faults.iter().map(|(path, message)| path.len() + message.len()).sum();
    assert!(bytes < json_cursor::MAX_FAULT_BYTES + 100_000, "{} faults of {bytes} bytes", faults.len());
}

/// Two sections, the webhooks of the first with the ids given (`None`: without), in a menu of keywords "a", "b", …
fn with_ids(ids: &[Option<&str>]) -> String {
    let entries = ids.iter().zip('a'..).map(|(id, keyword)| {
        let mut webhook = json!({ "url": "https://example.com/" });
        if let Some(id) = id {
            webhook["id"] = json!(id);
        }
        json!({ "keyword": keyword, "webhook": webhook })
    });
    let menu: Vec<_> = entries.collect();
    json!({ "id": "1", "sections": [{ "label": "s", "menu": menu }] }).to_string()
}

fn ids(campaign: &Campaign) -> Vec<String> {
    campaign.places().map(|place| place.webhook.id.to_string()).collect()
}

#[test]
fn ids_stay_when_a_document_is_applied_again() {
    let first = example();
    let given = ids(&first);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 4, "{given:?}");
    assert!(given.iter().all(|id| id.starts_with("wh_")));
    assert_eq!(example(), first, "the ids come from the document alone");
    assert_eq!(applied(EXAMPLE, Some(&first)), first);

    let edited = EXAMPLE
        .replace("https://example.com/hooks/agent", "https://example.org/")
        .replace(r#"{ "keyword": 3, "redirect""#, r#"{ "keyword": " 3 ", "redirect""#);
    assert_eq!(ids(&applied(&edited, Some(&first))), given);

    let mut reordered: Value = serde_json::from_str(EXAMPLE).expect("JSON");
    reordered["sections"].as_array_mut().expect("sections").reverse();
    let reordered = applied(&reordered.to_string(), Some(&first));
    assert_eq!(ids(&reordered), [&given[3], &given[0], &given[1], &given[2]].map(String::clone));
}

/// A campaign with these keywords in a menu, each with a webhook: as it may have been stored before there were normal forms.
fn stored(keywords: &[Value]) -> Campaign {
    let ids: Vec<String> = (0..keywords.len()).map(|number| format!("wh_{number}")).collect();
    let ids: Vec<Option<&str>> = ids.iter().map(|id| Some(id.as_str())).collect();
    let mut campaign = accepted(&with_ids(&ids));
    for (entry, keyword) in campaign.sections[0].menu.iter_mut().zip(keywords) {
        entry.keyword = Keyword::from_json(keyword).expect("a keyword");
    }
    campaign
}

/// A document with these keywords in a menu, each with a webhook without an id.
fn with_keywords(keywords: &[Value]) -> String {
    let entry = |keyword: &Value| json!({ "keyword": keyword, "webhook": { "url": "https://example.com/" } });
    let menu: Vec<_> = keywords.iter().map(entry).collect();
    json!({ "id": "1", "sections": [{ "label": "s", "menu": menu }] }).to_string()
}

#[test]
fn a_stored_campaign_with_two_keywords_that_are_the_same_is_read_and_its_webhooks_keep_their_ids() {
    let before = stored(&[json!(1.0), json!("１"), json!(1), json!("b")]);
    let kept = serde_json::to_vec(&before).expect("JSON");
    assert_eq!(serde_json::from_slice::<Campaign>(&kept).expect("a campaign"), before);
    // A document has one of them; whichever that is, it is the same webhook as before.
    for (keyword, id) in [(json!(1.0), "wh_0"), (json!("１"), "wh_1"), (json!(1), "wh_2"), (json!("1"), "wh_2")] {
        let after = applied(&with_keywords(&[keyword.clone(), json!("B")]), Some(&before));
        assert_eq!(ids(&after), [id, "wh_3"], "{keyword}");
    }
    // Written in another way: that of the first, which is the one that events match.
    assert_eq!(ids(&applied(&with_keywords(&[json!("①")]), Some(&before))), ["wh_0"]);
    let paths: Vec<_> =
        refused(&with_keywords(&[json!(1), json!("１"), json!(1.0)])).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["$.sections[0].menu[1].keyword", "$.sections[0].menu[2].keyword"]);
}

/// Ids are derived from what was written, as they were before there were normal forms.
#[test]
fn ids_of_places_stay_as_they_were() {
    let derived = |keyword: &str| WebhookId::of_place("1", "s", Some(keyword), 0).to_string();
    for (keyword, written) in
        [(json!(" Yes"), "yes"), (json!(1.0), "1.0"), (json!("１"), "１"), (json!("Größe"), "größe")]
    {
        assert_eq!(ids(&accepted(&with_keywords(&[keyword]))), [derived(written)]);
    }
    let alike = ids(&accepted(&with_keywords(&[json!(1.0), json!("1.0")])));
    assert_eq!(alike[0], derived("1.0"));
    assert_ne!(alike[0], alike[1], "written alike, and not the same");
    let again = applied(
        &with_keywords(&[json!("1.0"), json!(1.0)]),
        Some(&accepted(&with_keywords(&[json!(1.0), json!("1.0")]))),
    );
    assert_eq!(ids(&again), [alike[1].clone(), alike[0].clone()]);
}

#[test]
fn an_id_once_given_is_kept_without_being_written() {
    let first = accepted(&with_ids(&[Some("mine"), None]));
    let second = applied(&with_ids(&[None, None]), Some(&first));
    assert_eq!(ids(&second), ids(&first));
    assert_eq!(ids(&second)[0], "mine");
    let renamed = applied(&with_ids(&[Some("other"), None]), Some(&second));
    assert_eq!(ids(&renamed), ["other".to_owned(), ids(&first)[1].clone()]);
}

#[test]
fn an_id_that_moves_takes_nothing_along() {
    let first = accepted(&with_ids(&[None, None]));
    let [a, b] = [ids(&first)[0].clone(), ids(&first)[1].clone()];
    // Keyword "b" claims the id that "a" had: "a" gets a new one, not the one "b" had, for which deliveries may wait.
    let moved = applied(&with_ids(&[None, Some(&a)]), Some(&first));
    assert_eq!(ids(&moved)[1], a);
    assert_ne!(ids(&moved)[0], a);
    assert_ne!(ids(&moved)[0], b);
    assert_eq!(ids(&applied(&with_ids(&[None, Some(&a)]), Some(&moved))), ids(&moved));
    // Nor does a new webhook get the id of one that is removed by the same edit, though its place would give it.
    let taken = accepted(&with_ids(&[Some("x"), Some(&a)]));
    let replaced =
        r#"{"id": "1", "sections": [{"label": "s", "menu": [{"keyword": "a", "webhook": {"url": "https://e.x/"}}]}]}"#;
    assert_eq!(ids(&applied(replaced, Some(&taken))), ["x"]);
    let other_place = replaced.replace(r#""label": "s""#, r#""label": "t""#);
    let derived = ids(&accepted(&other_place))[0].clone();
    let before = accepted(&with_ids(&[Some(&derived)]));
    assert_ne!(ids(&applied(&other_place, Some(&before)))[0], derived);
    // Another campaign's ids are its own.
    let mut foreign = before;
    foreign.id = "2".to_owned();
    assert_eq!(ids(&applied(&other_place, Some(&foreign))), [derived]);
}

#[test]
fn a_new_id_is_none_that_another_webhook_claims() {
    let derived = ids(&accepted(&with_ids(&[None])))[0].clone();
    let claimed = ids(&accepted(&with_ids(&[None, Some(&derived)])));
    assert_ne!(claimed[0], derived);
    assert_eq!(claimed[0], WebhookId::of_place("1", "s", Some("a"), 1).to_string());
}

#[test]
fn numbers_and_the_order_of_keys_survive() {
    let body = r#"{"z":1.50,"a":123456789012345678901234567890,"m":{"b":-0,"a":[1e+400,0.10]}}"#;
    let text = format!(
        r#"{{"id":"1","sections":[{{"label":"s","webhook":{{"url":"https://e.x/","body":{body},"rateLimit":0.50}}}}]}}"#
    );
    let campaign = accepted(&text);
    let webhook = campaign.sections[0].webhook.as_ref().expect("a webhook");
    assert_eq!(serde_json::to_string(&webhook.body).expect("JSON"), body);
    assert_eq!(webhook.rate_limit.as_ref().expect("a rate").to_string(), "0.50");
}
