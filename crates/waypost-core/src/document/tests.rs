//! Tests of the rules for documents. The rules for webhooks are tested in `webhook/tests.rs`.

mod round_trip;

use serde_json::json;

use super::*;
use crate::campaign::{RetryOverrides, WebhookKind};
use crate::ids::WebhookId;

pub(crate) fn example() -> Campaign {
    read_valid(EXAMPLE)
}

fn read_valid(text: &str) -> Campaign {
    apply(text, None)
}

/// Reads a document that replaces `previous`.
fn apply(text: &str, previous: Option<&Campaign>) -> Campaign {
    read(text.as_bytes(), HttpUrls::Refused, previous).unwrap_or_else(|violations| panic!("refused: {violations:#?}"))
}

/// Returns the violations as (path, message).
pub(super) fn violations_of(text: &str) -> Vec<(String, String)> {
    let violations = read(text.as_bytes(), HttpUrls::Refused, None).expect_err("the document was accepted");
    violations.into_iter().map(|violation| (violation.path, violation.message)).collect()
}

/// Checks that `text` has exactly the `expected` violations: the path and a part of the message of each.
pub(super) fn assert_refused(text: &str, expected: &[(&str, &str)]) {
    let violations = violations_of(text);
    let paths: Vec<_> = violations.iter().map(|(path, _)| path.as_str()).collect();
    let expected_paths: Vec<_> = expected.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, expected_paths, "{text:.300}\n{violations:#?}");
    for ((_, message), (path, words)) in violations.iter().zip(expected) {
        assert!(message.contains(words), "{text:.300}\n{path}: {message}\ndoes not contain: {words}");
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
fn null_means_absent_and_the_default_kind_is_interaction() {
    let sparse = read_valid(r#"{"id": "1", "sections": [{"label": "a", "menu": [{"keyword": "yes"}]}]}"#);
    let nulls = read_valid(
        r#"{"id": "1", "name": null, "sections": [{"label": "a", "kind": null, "message": null, "redirect": null,
            "webhook": null, "menu": [{"keyword": "yes", "option": null, "redirect": null, "webhook": null}]}]}"#,
    );
    assert_eq!(sparse, nulls);
    assert_eq!(sparse.sections[0].kind, SectionKind::Interaction);
    assert_eq!(read_valid(r#"{"id": "1", "sections": []}"#).sections, []);
}

#[test]
fn bytes_that_are_not_a_document_are_refused() {
    let large = format!(r#"{{"id": "1", "sections": []}}{}"#, " ".repeat(MAX_DOCUMENT_BYTES));
    let deep = "[".repeat(10_000);
    for (text, words) in [
        (" \n", "empty"),
        ("\u{feff}{}", "byte order mark"),
        ("{", "not valid JSON"),
        (r#"{"id": "1", "sections": []} x"#, "not valid JSON"),
        (&deep, "not valid JSON"),
        ("null", "found null"),
        ("[]", "found an array"),
        (&large, "at most 1048576 bytes"),
    ] {
        assert_refused(text, &[("$", words)]);
    }
    let violations = read(b"{\"id\": \"\xff\"}", HttpUrls::Refused, None).expect_err("not UTF-8");
    assert_eq!(violations[0].path, "$");
    assert!(violations[0].message.contains("not UTF-8 from byte 8 on"));
    let fits = format!("{EXAMPLE}{}", " ".repeat(MAX_DOCUMENT_BYTES - EXAMPLE.len()));
    assert_eq!(read_valid(&fits), example());
}

#[test]
fn a_value_has_the_size_of_its_text() {
    let document = |chars: usize| json!({ "id": "1", "sections": [{ "label": "é".repeat(chars) }], "name": "" });
    let empty = document(0).to_string().len();
    let fits = (MAX_DOCUMENT_BYTES - empty) / "é".len();
    let read = |chars| from_value(&document(chars), UrlPolicy::Scheme(HttpUrls::Refused));
    assert_eq!(read(fits).map(|campaign| campaign.id), Ok("1".to_owned()));
    let violations = read(fits + 1).expect_err("too large");
    assert_eq!(violations.len(), 1, "{violations:?}");
    let bytes = document(fits + 1).to_string().len();
    assert!(violations[0].message.starts_with(&format!("too large ({bytes} bytes)")), "{violations:?}");
}

#[test]
fn invalid_campaigns_are_refused() {
    let long = format!(r#"{{"id": "{}", "sections": []}}"#, "é".repeat(129));
    read_valid(&long.replacen('é', "", 1));
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
fn invalid_sections_are_refused() {
    // Each section follows a Welcome Message.
    for (section, path, words) in [
        (r#"{}"#, ".label", "missing"),
        (r#"{"label": 5}"#, ".label", "expected a string"),
        (r#"{"label": " "}"#, ".label", "must not be empty"),
        (r#"{"label": "Welcome"}"#, ".label", "the same label as $.sections[0].label"),
        (r#"{"label": "a", "kind": "menu"}"#, ".kind", "one of `welcomeMessage` and `interaction`"),
        (r#"{"label": "a", "kind": 1}"#, ".kind", "expected a string"),
        (
            r#"{"label": "a", "kind": "welcomeMessage"}"#,
            ".kind",
            "second Welcome Message, the first is $.sections[0].kind",
        ),
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
fn invalid_menu_entries_are_refused() {
    // Each entry follows entries with the keywords 1 and "Yes".
    for (entry, path, words) in [
        ("7", "", "expected a menu entry (an object), found a number"),
        (r#"{}"#, ".keyword", "missing"),
        (r#"{"keyword": true}"#, ".keyword", "expected a string or a number, found a boolean"),
        (r#"{"keyword": " "}"#, ".keyword", "is empty or invisible"),
        (r#"{"keyword": 1}"#, ".keyword", "keyword already used at $.sections[0].menu[0].keyword"),
        (r#"{"keyword": " 1 "}"#, ".keyword", "keyword already used at $.sections[0].menu[0].keyword"),
        (r#"{"keyword": 1.0}"#, ".keyword", "keyword already used at $.sections[0].menu[0].keyword"),
        (r#"{"keyword": 10e-1}"#, ".keyword", "keyword already used at $.sections[0].menu[0].keyword"),
        (r#"{"keyword": "１"}"#, ".keyword", "keyword already used at $.sections[0].menu[0].keyword"),
        (r#"{"keyword": "\u200b"}"#, ".keyword", "is empty or invisible"),
        (r#"{"keyword": "ye\u00adｓ"}"#, ".keyword", "keyword already used at $.sections[0].menu[1].keyword"),
        (r#"{"keyword": "yES"}"#, ".keyword", "keyword already used at $.sections[0].menu[1].keyword"),
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
    // `to` is also checked if the type is unknown.
    assert_refused(
        r#"{"id": "1", "sections": [{"label": "a", "redirect": {"type": "x", "to": 5}}]}"#,
        &[("$.sections[0].redirect.type", "must be one of"), ("$.sections[0].redirect.to", "expected a string")],
    );
    // Keywords only have to be unique within a menu.
    read_valid(
        r#"{"id": "1", "sections": [{"label": "a", "menu": [{"keyword": 1}]},
                 {"label": "b", "menu": [{"keyword": 1}]}]}"#,
    );
}

#[test]
fn all_violations_are_reported_at_once() {
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
            ("$.sections[0].menu[1].keyword", "keyword already used"),
            ("$.sections[0].menu[1].redirect.to", "no section"),
            ("$.sections[0].menu[1].webhook.header", "did you mean `headers`?"),
            ("$.sections[0].menu[1].webhook.url", "use https://host/path"),
            ("$.sections[0].menu[1].webhook.url", "credentials"),
            ("$.sections[0].menu[1].webhook.url", "fragment"),
            ("$.sections[0].menu[1].webhook.body.date", "choose another name"),
            ("$.sections[0].menu[1].webhook.body.label", "choose another name"),
            ("$.sections[0].menu[1].webhook.headers.Host", "reserved"),
            (r#"$.sections[0].menu[1].webhook.headers["x-a"]"#, "header value"),
            (r#"$.sections[0].menu[1].webhook.headers["X-A"]"#, "duplicate of"),
            ("$.sections[0].menu[1].webhook.timeoutMs", "from 1 to 30000"),
            ("$.sections[1].label", "the same label"),
            ("$.sections[1].kind", "second Welcome Message"),
            ("$.sections[1].webhook.url", "missing"),
            ("$.sections[1].webhook.retry.jitter", "from 0 to 1"),
        ],
    );
}

/// A small document must not cause a response of 100 MB.
#[test]
fn the_list_of_violations_is_limited() {
    let items = vec!["1"; 100_000].join(",");
    let violations = violations_of(&format!(r#"{{"id": "1", "sections": [{items}]}}"#));
    assert_eq!(violations.len(), json_cursor::MAX_VIOLATIONS + 1);
    let (path, message) = violations.last().expect("violations");
    assert_eq!(path, "$");
    assert!(message.starts_with("99000 more errors"), "{message}");

    let long = "x".repeat(500_000);
    for text in [
        format!(r#"{{"id": "1", "sections": [], "{long}": 1}}"#),
        format!(
            r#"{{"id": "1", "sections": [{{"label": "a", "redirect": {{"type": "interaction", "to": "{long}"}}}}]}}"#
        ),
        format!(r#"{{"id": "1", "{long}": {{"a": 1, "a": 2}}, "sections": []}}"#),
    ] {
        for (path, message) in violations_of(&text) {
            assert!(path.len() + message.len() < 400, "{path:.500} {message:.500}");
        }
    }
    // A path has the names of all parents, and each of these names takes 480 bytes.
    let [open, close] = [format!(r#"{{"{}":"#, r"\u0001".repeat(80)), "}".to_owned()].map(|part| part.repeat(100));
    let violations = violations_of(&format!("{open}{{{}}}{close}", vec![r#""a":1"#; 100_000].join(",")));
    let bytes: usize = violations.iter().map(|(path, message)| path.len() + message.len()).sum();
    assert!(bytes < json_cursor::MAX_VIOLATION_BYTES + 100_000, "{} violations of {bytes} bytes", violations.len());
}

/// A document with a menu of keywords "a", "b", …, whose webhooks have these ids.
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
    let first_ids = ids(&first);
    assert_eq!(first_ids.iter().collect::<HashSet<_>>().len(), 4, "{first_ids:?}");
    assert!(first_ids.iter().all(|id| id.starts_with("wh_")));
    assert_eq!(example(), first, "the ids come from the document alone");
    assert_eq!(apply(EXAMPLE, Some(&first)), first);

    let edited = EXAMPLE
        .replace("https://example.com/hooks/agent", "https://example.org/")
        .replace(r#"{ "keyword": 3, "redirect""#, r#"{ "keyword": " 3 ", "redirect""#);
    assert_eq!(ids(&apply(&edited, Some(&first))), first_ids);

    let mut reordered: Value = serde_json::from_str(EXAMPLE).expect("JSON");
    reordered["sections"].as_array_mut().expect("sections").reverse();
    let reordered = apply(&reordered.to_string(), Some(&first));
    assert_eq!(ids(&reordered), [&first_ids[3], &first_ids[0], &first_ids[1], &first_ids[2]].map(String::clone));
}

/// A campaign with these keywords in a menu, each with a webhook. Old versions of Waypost stored campaigns whose
/// keywords have equal normal forms.
fn stored_campaign(keywords: &[Value]) -> Campaign {
    let ids: Vec<String> = (0..keywords.len()).map(|number| format!("wh_{number}")).collect();
    let ids: Vec<Option<&str>> = ids.iter().map(|id| Some(id.as_str())).collect();
    let mut campaign = read_valid(&with_ids(&ids));
    for (entry, keyword) in campaign.sections[0].menu.iter_mut().zip(keywords) {
        entry.keyword = Keyword::from_json(keyword).expect("a keyword");
    }
    campaign
}

/// A document with these keywords in a menu, each with a webhook that has no id.
fn with_keywords(keywords: &[Value]) -> String {
    let entry = |keyword: &Value| json!({ "keyword": keyword, "webhook": { "url": "https://example.com/" } });
    let menu: Vec<_> = keywords.iter().map(entry).collect();
    json!({ "id": "1", "sections": [{ "label": "s", "menu": menu }] }).to_string()
}

#[test]
fn webhooks_of_stored_campaigns_with_equal_keywords_keep_their_ids() {
    let before = stored_campaign(&[json!(1.0), json!("１"), json!(1), json!("b")]);
    let bytes = serde_json::to_vec(&before).expect("JSON");
    assert_eq!(serde_json::from_slice::<Campaign>(&bytes).expect("a campaign"), before);
    // A document can have one of these keywords. Its webhook keeps its id.
    for (keyword, id) in [(json!(1.0), "wh_0"), (json!("１"), "wh_1"), (json!(1), "wh_2"), (json!("1"), "wh_2")] {
        let after = apply(&with_keywords(&[keyword.clone(), json!("B")]), Some(&before));
        assert_eq!(ids(&after), [id, "wh_3"], "{keyword}");
    }
    // A keyword that is written differently gets the id of the first, which is the entry that events match.
    assert_eq!(ids(&apply(&with_keywords(&[json!("①")]), Some(&before))), ["wh_0"]);
    let paths: Vec<_> =
        violations_of(&with_keywords(&[json!(1), json!("１"), json!(1.0)])).into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["$.sections[0].menu[1].keyword", "$.sections[0].menu[2].keyword"]);
}

/// Ids are derived from the written form of keywords, not from the normal form.
#[test]
fn derived_ids_do_not_change() {
    let derived = |keyword: &str| WebhookId::derive("1", "s", Some(keyword), 0).to_string();
    for (keyword, written) in
        [(json!(" Yes"), "yes"), (json!(1.0), "1.0"), (json!("１"), "１"), (json!("Größe"), "größe")]
    {
        assert_eq!(ids(&read_valid(&with_keywords(&[keyword]))), [derived(written)]);
    }
    let alike = ids(&read_valid(&with_keywords(&[json!(1.0), json!("1.0")])));
    assert_eq!(alike[0], derived("1.0"));
    assert_ne!(alike[0], alike[1], "equal when written, but not the same keyword");
    let again = apply(
        &with_keywords(&[json!("1.0"), json!(1.0)]),
        Some(&read_valid(&with_keywords(&[json!(1.0), json!("1.0")]))),
    );
    assert_eq!(ids(&again), [alike[1].clone(), alike[0].clone()]);
}

#[test]
fn an_id_is_kept_when_the_document_omits_it() {
    let first = read_valid(&with_ids(&[Some("mine"), None]));
    let second = apply(&with_ids(&[None, None]), Some(&first));
    assert_eq!(ids(&second), ids(&first));
    assert_eq!(ids(&second)[0], "mine");
    let renamed = apply(&with_ids(&[Some("other"), None]), Some(&second));
    assert_eq!(ids(&renamed), ["other".to_owned(), ids(&first)[1].clone()]);
}

#[test]
fn ids_of_removed_webhooks_are_not_reused() {
    let first = read_valid(&with_ids(&[None, None]));
    let [a, b] = [ids(&first)[0].clone(), ids(&first)[1].clone()];
    // Keyword "b" takes the id of "a". Keyword "a" gets a new id, not the old id of "b", because deliveries may wait
    // for it.
    let moved = apply(&with_ids(&[None, Some(&a)]), Some(&first));
    assert_eq!(ids(&moved)[1], a);
    assert_ne!(ids(&moved)[0], a);
    assert_ne!(ids(&moved)[0], b);
    assert_eq!(ids(&apply(&with_ids(&[None, Some(&a)]), Some(&moved))), ids(&moved));
    // A new webhook does not get the id of a webhook that the same edit removes, even if its place derives this id.
    let taken = read_valid(&with_ids(&[Some("x"), Some(&a)]));
    let replaced =
        r#"{"id": "1", "sections": [{"label": "s", "menu": [{"keyword": "a", "webhook": {"url": "https://e.x/"}}]}]}"#;
    assert_eq!(ids(&apply(replaced, Some(&taken))), ["x"]);
    let other_place = replaced.replace(r#""label": "s""#, r#""label": "t""#);
    let derived = ids(&read_valid(&other_place))[0].clone();
    let before = read_valid(&with_ids(&[Some(&derived)]));
    assert_ne!(ids(&apply(&other_place, Some(&before)))[0], derived);
    // Ids of another campaign do not matter here.
    let mut foreign = before;
    foreign.id = "2".to_owned();
    assert_eq!(ids(&apply(&other_place, Some(&foreign))), [derived]);
}

#[test]
fn a_new_id_differs_from_the_ids_in_the_document() {
    let derived = ids(&read_valid(&with_ids(&[None])))[0].clone();
    let claimed = ids(&read_valid(&with_ids(&[None, Some(&derived)])));
    assert_ne!(claimed[0], derived);
    assert_eq!(claimed[0], WebhookId::derive("1", "s", Some("a"), 1).to_string());
}

#[test]
fn numbers_and_the_order_of_keys_are_kept() {
    let body = r#"{"z":1.50,"a":123456789012345678901234567890,"m":{"b":-0,"a":[1e+400,0.10]}}"#;
    let text = format!(
        r#"{{"id":"1","sections":[{{"label":"s","webhook":{{"url":"https://e.x/","body":{body},"rateLimit":0.50}}}}]}}"#
    );
    let campaign = read_valid(&text);
    let webhook = campaign.sections[0].webhook.as_ref().expect("a webhook");
    assert_eq!(serde_json::to_string(&webhook.body).expect("JSON"), body);
    assert_eq!(webhook.rate_limit.as_ref().expect("a rate").to_string(), "0.50");
}
