//! Changes of campaigns over HTTP. All workers apply them, and a lost store does not lose them.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::amqp::Record;
use crate::support::json::{find_by, items_of, section_mut, webhook, webhook_id, webhook_mut};
use crate::support::reply::Reply;
use crate::support::{Amqp, Broker, DEFAULT_TIMEOUT, Message, Receiver, Waypost, unique, wait_until};
use crate::test_app::{SLOW_TIMEOUT, bearer_token, token_settings};

/// The maximum size of a campaign document.
const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// Starts a worker with a unique prefix on the shared broker.
async fn start_worker() -> Waypost {
    Waypost::start_in_thread(&Broker::shared().await.url(), &unique("configuration"), &[]).await
}

/// Starts two workers with the same prefix.
async fn start_two_workers() -> (Waypost, Waypost) {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    tokio::join!(Waypost::start_in_thread(&url, &prefix, &[]), Waypost::start_in_thread(&url, &prefix, &[]))
}

/// A campaign with a section's webhook and two webhooks of menu entries.
fn campaign(id: &str, url: &str) -> Value {
    let entry =
        |keyword: u32| json!({ "keyword": keyword, "option": format!("Option {keyword}"), "webhook": { "url": url } });
    json!({ "id": id, "name": "A campaign", "sections": [
        { "label": "Ask", "webhook": { "url": url }, "menu": [entry(1), entry(2)] } ] })
}

/// A campaign for tests that deliver nothing.
fn some_campaign(id: &str) -> Value {
    campaign(id, "https://example.com/hook")
}

/// An event that fires the section's webhook and one of the two entries' webhooks of [`campaign`].
fn event(campaign: &str, event_id: &str) -> Value {
    json!({ "campaignId": campaign, "label": "Ask", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z", "keyword": 1,
            "eventId": event_id })
}

async fn put_with_precondition(waypost: &Waypost, campaign: &Value, precondition: (&str, &str)) -> Reply {
    waypost.send_with(Method::PUT, &campaign_path(campaign), &[precondition], campaign.to_string()).await
}

fn campaign_path(campaign: &Value) -> String {
    format!("/v1/campaigns/{}", campaign["id"].as_str().expect("an id"))
}

async fn delete(waypost: &Waypost, path: &str) -> Reply {
    waypost.send(Method::DELETE, path, None).await
}

fn etag(reply: &Reply) -> &str {
    reply.headers.get("etag").unwrap_or_else(|| panic!("no ETag: {reply:?}"))
}

fn webhook_ids(document: &Value) -> Vec<String> {
    [None, Some(1), Some(2)].map(|keyword| webhook_id(document, "Ask", keyword).to_owned()).to_vec()
}

#[track_caller]
fn violation_paths(reply: &Reply) -> BTreeSet<String> {
    reply.violation_paths().into_iter().collect()
}

/// Waits until a worker has this version of a campaign, or responds 404 if `version` is `None`.
async fn wait_for_version(waypost: &Waypost, path: &str, version: Option<&str>) -> Reply {
    wait_until(&format!("version {version:?} of {path}"), DEFAULT_TIMEOUT, async || {
        let reply = waypost.get(path).await;
        let found = reply.headers.get("etag").map(String::as_str);
        (found == version && reply.status == if version.is_some() { 200 } else { 404 }).then_some(reply)
    })
    .await
}

fn campaigns_stream(prefix: &str) -> String {
    format!("{prefix}.campaigns")
}

#[tokio::test]
async fn a_campaign_is_created_read_replaced_and_deleted() {
    let waypost = start_worker().await;
    let (document, path) = (some_campaign("13010"), "/v1/campaigns/13010");
    waypost.get(path).await.expect_problem(404);

    let created = waypost.send(Method::PUT, path, Some(&document)).await;
    assert_eq!(created.status, 201, "{created:?}");
    let ids = webhook_ids(&created.json());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3, "{ids:?}");
    assert_eq!(created.json()["name"], "A campaign");
    let got = waypost.get(path).await;
    assert_eq!((got.status, etag(&got), got.json()), (200, etag(&created), created.json()));
    assert!(etag(&got).starts_with('"') && etag(&got).ends_with('"'), "an ETag is in quotes: {got:?}");

    // The same document without ids: a new version in which webhooks keep their ids.
    let again = waypost.send(Method::PUT, path, Some(&document)).await;
    assert_eq!((again.status, again.json()), (200, created.json()));
    assert_ne!(etag(&again), etag(&created));
    // An edited campaign with entries in another order.
    let mut edited = campaign("13010", "https://example.com/elsewhere");
    section_mut(&mut edited, "Ask")["menu"].as_array_mut().expect("a menu").swap(0, 1);
    let edited = waypost.send(Method::PUT, path, Some(&edited)).await;
    assert_eq!(edited.status, 200);
    assert_eq!(webhook_ids(&edited.json()), ids, "each entry keeps its id");
    // A campaign that was read can be put unchanged.
    let read = waypost.get(path).await.json();
    assert_eq!(waypost.send(Method::PUT, path, Some(&read)).await.json(), read);

    let gone = delete(&waypost, path).await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    waypost.get(path).await.expect_problem(404);
    delete(&waypost, path).await.expect_problem(404);
    assert_eq!(waypost.send(Method::PUT, path, Some(&document)).await.status, 201);
}

#[tokio::test]
async fn an_id_may_have_any_characters() {
    let waypost = start_worker().await;
    for (id, in_path) in [("summer/2024 ü?#%", "summer%2F2024%20%C3%BC%3F%23%25"), ("a+b", "a+b"), ("{x}", "%7Bx%7D")]
    {
        let path = format!("/v1/campaigns/{in_path}");
        let created = waypost.send(Method::PUT, &path, Some(&some_campaign(id))).await;
        assert_eq!((created.status, &created.json()["id"]), (201, &json!(id)), "{created:?}");
        assert_eq!(waypost.get(&path).await.json(), created.json());
        assert_eq!(delete(&waypost, &path).await.status, 204);
    }
}

#[tokio::test]
async fn campaigns_are_listed_in_pages() {
    let waypost = start_worker().await;
    let empty = waypost.get("/v1/campaigns").await;
    assert_eq!((empty.status, empty.json()), (200, json!({ "items": [], "next": null })));
    // Not in alphabetical order.
    for id in ["c", "a", "e", "b", "d"] {
        waypost.put_campaign(&some_campaign(id)).await;
    }
    let mut pages = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = waypost.get(&format!("/v1/campaigns?{query}")).await.json();
        let ids =
            page["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id").to_owned());
        pages.push(ids.collect::<Vec<_>>());
        let Some(cursor) = page["next"].as_str() else { break };
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(pages, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);

    let all = waypost.get("/v1/campaigns?limit=5").await.json();
    assert_eq!((all["items"].as_array().map(Vec::len), &all["next"]), (Some(5), &Value::Null));
    let item = find_by(items_of(&all["items"]), "id", "a");
    assert_eq!((&item["name"], &item["sections"], &item["webhooks"]), (&json!("A campaign"), &json!(1), &json!(3)));
    assert_eq!(etag(&waypost.get("/v1/campaigns/a").await), format!("\"{}\"", item["version"]));
    for wrong in ["limit=0", "limit=-1", "limit=many", "limit=1001", "page=2"] {
        waypost.get(&format!("/v1/campaigns?{wrong}")).await.expect_problem(400);
    }
}

#[tokio::test]
async fn a_change_with_an_outdated_version_is_rejected() {
    let waypost = start_worker().await;
    let (document, path) = (some_campaign("c"), "/v1/campaigns/c");
    let other = campaign("c", "https://example.com/other");
    let first = put_with_precondition(&waypost, &document, ("if-none-match", "*")).await;
    assert_eq!(first.status, 201);
    let current = put_with_precondition(&waypost, &document, ("if-match", etag(&first))).await;
    assert_eq!(current.status, 200);

    let stale = ("if-match", etag(&first));
    let (weak, several) = (format!("W/{}", etag(&current)), format!("\"999999\", {}", etag(&first)));
    let mut refused = vec![stale, ("if-none-match", "*"), ("if-match", "\"none of ours\""), ("if-match", "\"999999\"")];
    refused.extend([("if-match", &*weak), ("if-match", &*several)]);
    for precondition in refused {
        put_with_precondition(&waypost, &other, precondition).await.expect_problem(412);
    }
    waypost.send_with(Method::DELETE, path, &[stale], "").await.expect_problem(412);
    let unchanged = waypost.get(path).await;
    assert_eq!((etag(&unchanged), unchanged.json()), (etag(&current), current.json()));

    // The precondition is checked first, because a client with an old version has an old document.
    put_with_precondition(&waypost, &json!({ "id": "c" }), stale).await.expect_problem(412);
    assert_eq!(put_with_precondition(&waypost, &other, ("if-match", "*")).await.status, 200);
    let one_of = format!("{}, {}", etag(&first), etag(&waypost.get(path).await));
    assert_eq!(put_with_precondition(&waypost, &other, ("if-match", &one_of)).await.status, 200);
    let newest = waypost.get(path).await;
    assert_eq!(waypost.send_with(Method::DELETE, path, &[("if-match", etag(&newest))], "").await.status, 204);

    // A campaign that does not exist has no current version.
    for precondition in [("if-match", etag(&newest)), ("if-match", "*")] {
        put_with_precondition(&waypost, &document, precondition).await.expect_problem(412);
    }
    waypost.get(path).await.expect_problem(404);
    delete(&waypost, "/v1/campaigns/unknown").await.expect_problem(404);
    assert_eq!(put_with_precondition(&waypost, &document, ("if-none-match", "*")).await.status, 201);
}

#[tokio::test]
async fn a_refused_document_reports_all_violations_and_stores_nothing() {
    let waypost = start_worker().await;
    let document = json!({ "id": "faulty", "sections": [
        { "label": "A", "kind": "welcomeMessage", "menu": [
            { "keyword": 1, "option": "One", "redirect": { "type": "interaction" } },
            { "keyword": " 1 ", "option": "Two", "redirect": { "type": "interaction", "to": "Nowhere" } },
            { "keyword": 3, "option": "Three", "redirect": { "type": "webhook", "to": "A" },
              "webhook": { "url": "https://user:password@example.com/hook" } },
            { "keyword": 4, "redirect": { "type": "webhook" } } ] },
        { "label": "A", "kind": "welcomeMessage", "webhook": {
            "url": "ftp://example.com/", "body": { "phoneNumber": "1" }, "timeoutMs": 30001, "secret": "whsec_short",
            "headers": { "Host": "example.com", "webhook-id": "1", "not a name": "x", "X-Good": "line\nbreak" } } },
        { "label": "B", "webhook": { "body": [], "colour": "red", "retry": { "maxAge": "long" } } } ] });
    let reply = waypost.send(Method::PUT, "/v1/campaigns/faulty", Some(&document)).await;
    let expected = [
        "$.sections[0].menu[0].redirect.to",
        "$.sections[0].menu[1].keyword",
        "$.sections[0].menu[1].redirect.to",
        "$.sections[0].menu[2].option",
        "$.sections[0].menu[2].redirect.to",
        "$.sections[0].menu[2].webhook.url",
        "$.sections[0].menu[3].webhook",
        "$.sections[1].kind",
        "$.sections[1].label",
        "$.sections[1].webhook.body.phoneNumber",
        "$.sections[1].webhook.headers.Host",
        "$.sections[1].webhook.headers[\"X-Good\"]",
        "$.sections[1].webhook.headers[\"not a name\"]",
        "$.sections[1].webhook.headers[\"webhook-id\"]",
        "$.sections[1].webhook.secret",
        "$.sections[1].webhook.timeoutMs",
        "$.sections[1].webhook.url",
        "$.sections[2].webhook.body",
        "$.sections[2].webhook.colour",
        "$.sections[2].webhook.retry.maxAge",
        "$.sections[2].webhook.url",
    ];
    assert_eq!(violation_paths(&reply), expected.map(str::to_owned).into(), "{:#}", reply.json());
    assert!(!reply.body.contains("password"), "the response contains a password: {}", reply.body);
    waypost.get("/v1/campaigns/faulty").await.expect_problem(404);

    let good = waypost.put_campaign(&some_campaign("faulty")).await;
    waypost.send(Method::PUT, "/v1/campaigns/faulty", Some(&document)).await.expect_problem(422);
    assert_eq!(waypost.get("/v1/campaigns/faulty").await.json(), good.json());
}

#[tokio::test]
async fn a_body_that_is_not_a_document_is_refused() {
    let waypost = start_worker().await;
    let put = async |body: &[u8]| waypost.send_with(Method::PUT, "/v1/campaigns/c", &[], body).await;
    let whole = BTreeSet::from(["$".to_owned()]);
    for body in [&b""[..], b"not JSON", b"{\"id\":\"c\",", b"\xff\xfe", b"[]", b"null"] {
        assert_eq!(violation_paths(&put(body).await), whole, "{}", String::from_utf8_lossy(body));
    }
    let id = BTreeSet::from(["$.id".to_owned()]);
    assert_eq!(violation_paths(&put(some_campaign("d").to_string().as_bytes()).await), id);
    for path in ["/v1/campaigns/c", "/v1/campaigns/d"] {
        waypost.get(path).await.expect_problem(404);
    }
}

#[tokio::test]
async fn a_document_is_limited_to_one_mebibyte() {
    let waypost = start_worker().await;
    let document = |size: usize| {
        let mut document = some_campaign("big");
        document["name"] = "".into();
        let padding = "x".repeat(size - document.to_string().len());
        document["name"] = padding.into();
        document.to_string()
    };
    let put = async |body: String| waypost.send_with(Method::PUT, "/v1/campaigns/big", &[], body).await;
    assert_eq!(violation_paths(&put(document(MAX_DOCUMENT_BYTES + 1)).await), BTreeSet::from(["$".to_owned()]));
    waypost.get("/v1/campaigns/big").await.expect_problem(404);
    assert_eq!(put(document(MAX_DOCUMENT_BYTES)).await.status, 201);
    assert_eq!(waypost.get("/v1/campaigns/big").await.json()["id"], "big");
    // A document that is far too large is refused before it is fully received. The response must arrive nevertheless.
    assert_eq!(violation_paths(&put(document(8 * MAX_DOCUMENT_BYTES)).await), BTreeSet::from(["$".to_owned()]));
}

#[tokio::test]
async fn plain_http_is_refused_unless_the_settings_allow_it() {
    let settings = [("WAYPOST_EGRESS__ALLOW_HTTP", "false")];
    let waypost = Waypost::start_in_thread(&Broker::shared().await.url(), &unique("configuration"), &settings).await;
    let mut document = some_campaign("c");
    webhook_mut(&mut document, "Ask", 2)["url"] = "http://example.com/hook".into();
    let refused = waypost.send(Method::PUT, "/v1/campaigns/c", Some(&document)).await;
    assert_eq!(violation_paths(&refused), BTreeSet::from(["$.sections[0].menu[1].webhook.url".to_owned()]));
    assert!(refused.body.contains("egress.allowHttp"), "{}", refused.body);
    assert_eq!(waypost.send(Method::PUT, "/v1/campaigns/c", Some(&some_campaign("c"))).await.status, 201);
}

#[tokio::test]
async fn a_webhook_belongs_to_one_campaign() {
    let (a, b) = start_two_workers().await;
    let owner = a.put_campaign(&some_campaign("owner")).await;
    let id = webhook_id(&owner.json(), "Ask", 1).to_owned();
    wait_for_version(&b, "/v1/campaigns/owner", Some(etag(&owner))).await;
    let mut thief = some_campaign("thief");
    webhook_mut(&mut thief, "Ask", 2)["id"] = id.into();
    for waypost in [&a, &b] {
        let refused = waypost.send(Method::PUT, "/v1/campaigns/thief", Some(&thief)).await;
        assert_eq!(violation_paths(&refused), BTreeSet::from(["$.sections[0].menu[1].webhook.id".to_owned()]));
        assert!(refused.body.contains("owner"), "{}", refused.body);
        waypost.get("/v1/campaigns/thief").await.expect_problem(404);
    }

    // Two workers that have not seen each other's changes get the claims concurrently. Only one claim succeeds.
    let claims = (0..10).map(|number| {
        let mut claim = some_campaign(&format!("claim-{number}"));
        webhook_mut(&mut claim, "Ask", None)["id"] = "wh_claimed".into();
        let waypost = if number % 2 == 0 { &a } else { &b };
        async move { waypost.send(Method::PUT, &campaign_path(&claim), Some(&claim)).await }
    });
    let replies = join_all(claims).await;
    let (won, lost): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 201);
    assert_eq!(won.len(), 1, "{replies:#?}");
    for reply in lost {
        assert_eq!(violation_paths(reply), BTreeSet::from(["$.sections[0].webhook.id".to_owned()]));
    }

    // After its owner is deleted, the id is free.
    assert_eq!(delete(&a, "/v1/campaigns/owner").await.status, 204);
    assert_eq!(a.send(Method::PUT, "/v1/campaigns/thief", Some(&thief)).await.status, 201);
}

/// After a campaign was renamed with its ids, a new campaign uses the old name.
#[tokio::test]
async fn generated_webhook_ids_are_unique() {
    let waypost = start_worker().await;
    let mut renamed = waypost.put_campaign(&some_campaign("old-name")).await.json();
    renamed["id"] = "new-name".into();
    assert_eq!(delete(&waypost, "/v1/campaigns/old-name").await.status, 204);
    let renamed = waypost.put_campaign(&renamed).await.json();
    let created = waypost.send(Method::PUT, "/v1/campaigns/old-name", Some(&some_campaign("old-name"))).await;
    assert_eq!(created.status, 201, "{created:?}");
    let (old, new) = (webhook_ids(&renamed), webhook_ids(&created.json()));
    assert!(new.iter().all(|id| !old.contains(id)), "{new:?} and {old:?} are of two campaigns");
}

#[tokio::test]
async fn a_change_accepted_by_one_worker_is_seen_by_the_other() {
    let (a, b) = start_two_workers().await;
    let path = "/v1/campaigns/c";
    let created = a.put_campaign(&some_campaign("c")).await;
    let seen = wait_for_version(&b, path, Some(etag(&created))).await;
    assert_eq!(seen.json(), created.json());

    // The other worker continues from that version immediately, and enforces it.
    let changed =
        put_with_precondition(&b, &campaign("c", "https://example.com/other"), ("if-match", etag(&seen))).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(wait_for_version(&a, path, Some(etag(&changed))).await.json(), changed.json());
    assert_eq!(delete(&a, path).await.status, 204);
    wait_for_version(&b, path, None).await;
}

#[tokio::test]
async fn of_concurrent_creations_exactly_one_succeeds() {
    let (a, b) = start_two_workers().await;
    let puts = (0..20).map(|number| {
        let waypost = if number % 2 == 0 { &a } else { &b };
        async move {
            put_with_precondition(
                waypost,
                &campaign("c", &format!("https://example.com/{number}")),
                ("if-none-match", "*"),
            )
            .await
        }
    });
    let replies = join_all(puts).await;
    let (won, lost): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 201);
    assert_eq!(won.len(), 1, "{replies:#?}");
    for reply in lost {
        reply.expect_problem(412);
    }
    for waypost in [&a, &b] {
        let held = wait_for_version(waypost, "/v1/campaigns/c", Some(etag(won[0]))).await;
        assert_eq!(held.json(), won[0].json());
    }
}

#[tokio::test]
async fn concurrent_changes_without_a_precondition_all_succeed() {
    let (a, b) = start_two_workers().await;
    let puts = (0..20).map(|number| {
        let waypost = if number % 2 == 0 { &a } else { &b };
        let document = campaign("c", &format!("https://example.com/{number}"));
        async move { waypost.send(Method::PUT, "/v1/campaigns/c", Some(&document)).await }
    });
    let replies = join_all(puts).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert!(statuses.iter().all(|status| [200, 201].contains(status)), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "one of them created it: {statuses:?}");
    let version = |reply: &&Reply| etag(reply).trim_matches('"').parse::<u64>().expect("a version");
    let last = replies.iter().max_by_key(version).expect("replies");
    for waypost in [&a, &b] {
        assert_eq!(wait_for_version(waypost, "/v1/campaigns/c", Some(etag(last))).await.json(), last.json());
    }
}

#[tokio::test]
async fn an_event_is_resolved_with_the_latest_change() {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    let (waypost, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    let (before, after) = (Receiver::start(), Receiver::start());
    waypost.put_campaign(&campaign("c", &before.url("/"))).await;
    amqp.publish_event(&prefix, &event("c", "1")).await;
    before.expect_any().times(2).await;

    waypost.put_campaign(&campaign("c", &after.url("/"))).await;
    amqp.publish_event(&prefix, &event("c", "2")).await;
    after.expect_any().times(2).await;
    assert_eq!(delete(&waypost, "/v1/campaigns/c").await.status, 204);
    amqp.publish_event(&prefix, &event("c", "3")).await;
    waypost.wait_for_metric("waypost_events_total{result=\"no_webhook\"}", 1.0).await;
    assert_eq!((before.requests().len(), after.requests().len()), (2, 2));
}

#[tokio::test]
async fn a_worker_with_an_empty_disk_catches_up() {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    let old = Waypost::start(&url, &prefix).await;
    let first = old.put_campaign(&some_campaign("a")).await;
    old.put_campaign(&some_campaign("b")).await;
    let second = old.put_campaign(&campaign("b", "https://example.com/other")).await;
    old.put_campaign(&some_campaign("deleted")).await;
    assert_eq!(delete(&old, "/v1/campaigns/deleted").await.status, 204);

    let held = async |waypost: &Waypost| {
        for (path, reply) in [("/v1/campaigns/a", &first), ("/v1/campaigns/b", &second)] {
            // Immediately, because a ready worker has read the whole log.
            let got = waypost.get(path).await;
            assert_eq!((got.status, etag(&got), got.json()), (200, etag(reply), reply.json()));
        }
        waypost.get("/v1/campaigns/deleted").await.expect_problem(404);
    };
    held(&Waypost::start(&url, &prefix).await).await;

    old.terminate();
    assert!(old.wait_for_exit().await.success());
    std::fs::remove_dir_all(old.store_path()).expect("the store is deleted");
    old.restart().await;
    held(&old).await;
}

/// A worker that consumed before it has applied the whole log would find no webhook for an event, and drop it. Changes
/// that are appended together form one chunk of the stream, so reading the start of the last chunk is not enough.
#[tokio::test]
async fn a_new_worker_reads_the_whole_log_before_it_delivers() {
    const CHANGES: usize = 2000;
    const EVENTS: usize = 200;
    let (url, prefix, receiver) = (Broker::shared().await.url(), unique("configuration"), Receiver::start());
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    old.put_campaign(&campaign("first", &receiver.url("/"))).await;
    old.terminate();
    assert!(old.wait_for_exit().await.success());

    // Copies of a change as the product writes it, with other ids.
    let is_change = |record: &Record| !record.body.is_empty();
    let written = amqp.read_stream(&campaigns_stream(&prefix), |records| records.iter().any(is_change)).await;
    let change = written.into_iter().find(is_change).expect("a change");
    let copies = (1..=CHANGES).map(|number| {
        let (mut copy, id) = (change.json(), format!("copy-{number}"));
        copy["id"] = id.as_str().into();
        copy["campaign"]["id"] = id.as_str().into();
        for webhook in ["webhook", "menu/0/webhook", "menu/1/webhook"] {
            let webhook = copy.pointer_mut(&format!("/campaign/sections/0/{webhook}/id")).expect("a webhook's id");
            *webhook = format!("{}-{number}", webhook.as_str().expect("text")).into();
        }
        Message::raw(copy.to_string()).key(&campaigns_stream(&prefix)).id(&id)
    });
    amqp.publish("", copies).await;
    let events = (0..EVENTS).map(|number| event(&format!("copy-{CHANGES}"), &number.to_string()));
    amqp.publish_events(&prefix, &events.collect::<Vec<_>>()).await;

    let new = Waypost::start(&url, &prefix).await;
    let counted = async |result: &str| new.metric(&format!("waypost_events_total{{result=\"{result}\"}}")).await;
    wait_until("the end of the events", DEFAULT_TIMEOUT, async || {
        let settled = counted("resolved").await + counted("no_webhook").await;
        (settled >= EVENTS as f64).then_some(())
    })
    .await;
    let dropped = counted("no_webhook").await;
    assert!(dropped == 0.0, "{dropped} of {EVENTS} events were dropped as having no webhook");
    // The events exceed the concurrency of one endpoint, so some are parked.
    let delivered = async || (receiver.requests_by_webhook_id().len() == 2 * EVENTS).then_some(());
    wait_until("all deliveries", SLOW_TIMEOUT, delivered).await;
    // The log line shows the offset that the worker had applied when it started to consume.
    let line: Value =
        serde_json::from_str(&new.wait_for_log_line("configuration is current").await).expect("a line of JSON");
    let end = change.offset + i64::try_from(CHANGES).expect("a small number");
    assert!(line["offset"].as_i64() >= Some(end), "the log ends at {end}: {line}");
}

#[tokio::test]
async fn a_damaged_store_is_moved_aside_and_rebuilt() {
    let waypost = Waypost::start(&Broker::shared().await.url(), &unique("configuration")).await;
    let created = waypost.put_campaign(&some_campaign("c")).await;
    waypost.terminate();
    assert!(waypost.wait_for_exit().await.success());
    for file in ["conf", "db"] {
        let path = waypost.store_path().join("view").join(file);
        assert!(path.is_file(), "{} does not exist", path.display());
        std::fs::write(path, b"this is not what sled has written").expect("the damage");
    }
    waypost.restart().await;
    let held = waypost.get("/v1/campaigns/c").await;
    assert_eq!((held.status, etag(&held), held.json()), (200, etag(&created), created.json()));

    let line = waypost.wait_for_log_line("damaged local store renamed").await;
    let store = waypost.store_path();
    let beside = std::fs::read_dir(&store).expect("the folder").filter_map(Result::ok);
    let aside: Vec<_> = beside.map(|entry| entry.path()).filter(|path| *path != store.join("view")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    let damaged = std::fs::read(aside[0].join("conf")).expect("the damaged file");
    assert_eq!(damaged, b"this is not what sled has written");
    assert!(line.contains(&aside[0].display().to_string()), "the log line has no path: {line}");
    waypost.put_campaign(&some_campaign("d")).await;
}

#[tokio::test]
async fn a_token_has_the_rights_of_its_role() {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    let waypost = Waypost::start_with(&url, &prefix, &[("WAYPOST_HTTP__TOKENS", &token_settings())]).await;
    let path = "/v1/campaigns/c";
    let document = some_campaign("c").to_string();
    let event = event("c", "1").to_string();
    let send = async |role: &str, method: Method, path: &str, body: &str| {
        waypost.send_with(method, path, &[("authorization", &bearer_token(role))], body).await
    };
    let may = [
        ("viewer", [200, 200, 403, 403, 403]),
        ("operator", [200, 200, 202, 403, 403]),
        ("editor", [200, 200, 202, 200, 204]),
    ];
    for (role, statuses) in may {
        let created = send("editor", Method::PUT, path, &document).await;
        assert_eq!(created.status, if role == "viewer" { 201 } else { 200 }, "{created:?}");
        let asked = [
            send(role, Method::GET, "/v1/campaigns", "").await,
            send(role, Method::GET, path, "").await,
            send(role, Method::POST, "/v1/events", &event).await,
            send(role, Method::PUT, path, &document).await,
            send(role, Method::DELETE, path, "").await,
        ];
        assert_eq!(asked.each_ref().map(|reply| reply.status), statuses, "{role}: {asked:#?}");
        for refused in asked.iter().filter(|reply| reply.status == 403) {
            refused.expect_problem(403);
            assert!(refused.body.contains(role), "{refused:?}");
        }
    }

    let wrong = [
        None,
        Some("Bearer wrong".to_owned()),
        Some("Bearer ".to_owned()),
        Some("token-of-the-editor".to_owned()),
        Some("Basic token-of-the-editor".to_owned()),
        Some(format!("{}x", bearer_token("editor"))),
    ];
    for authorization in &wrong {
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        for (method, path) in
            [(Method::GET, "/v1/campaigns"), (Method::PUT, path), (Method::DELETE, path), (Method::POST, "/v1/events")]
        {
            let reply = waypost.send_with(method, path, &headers, document.clone()).await;
            reply.expect_problem(401);
            assert!(reply.headers["www-authenticate"].starts_with("Bearer"), "{reply:?}");
        }
    }
    // The case of the scheme does not matter.
    let lower = bearer_token("viewer").replace("Bearer", "bearer");
    assert_eq!(waypost.send_with(Method::GET, "/v1/campaigns", &[("authorization", &lower)], "").await.status, 200);
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(waypost.get(open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn only_an_editor_is_shown_headers_and_secrets() {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    let waypost = Waypost::start_with(&url, &prefix, &[("WAYPOST_HTTP__TOKENS", &token_settings())]).await;
    let path = "/v1/campaigns/c";
    let secret = "whsec_c2l4dGVlbi1ieXRlcy1hcmUtdG9vLWZldy1mb3ItdGhpcw==";
    let mut document = some_campaign("c");
    for webhook in ["/sections/0/webhook", "/sections/0/menu/0/webhook"] {
        let webhook = document.pointer_mut(webhook).expect("a webhook");
        webhook["headers"] = json!({ "X-Api-Key": "the-key", "Authorization": "Bearer the-other-key" });
        webhook["secret"] = secret.into();
    }
    let send = async |role: &str, method: Method, body: &str| {
        waypost.send_with(method, path, &[("authorization", &bearer_token(role))], body).await
    };
    let put = send("editor", Method::PUT, &document.to_string()).await;
    assert_eq!(put.status, 201, "{put:?}");
    let full = send("editor", Method::GET, "").await;
    assert_eq!(full.json(), put.json());
    for role in ["viewer", "operator"] {
        let reply = send(role, Method::GET, "").await;
        assert_eq!((reply.status, etag(&reply)), (200, etag(&full)));
        for hidden in ["the-key", "the-other-key", secret] {
            assert!(!reply.body.contains(hidden), "{role} can see {hidden}: {}", reply.body);
        }
        let masked = reply.json();
        for keyword in [None, Some(1)] {
            let full = full.json();
            let (masked, full) = (webhook(&masked, "Ask", keyword), webhook(&full, "Ask", keyword));
            // The names of headers are not secret.
            assert!(masked["headers"]["X-Api-Key"].is_string() && masked["headers"]["Authorization"].is_string());
            assert!(masked["secret"].is_string(), "{masked:#}");
            assert_eq!((&masked["id"], &masked["url"]), (&full["id"], &full["url"]));
        }
        assert!(webhook(&masked, "Ask", 2).get("secret").is_none(), "{masked:#}");
    }
    // Log lines do not contain secrets either.
    let shown =
        |line: &String| ["the-key", "the-other-key", secret, "token-of-the"].iter().any(|text| line.contains(text));
    assert_eq!(waypost.log_lines().iter().find(|line| shown(line)), None);
}

#[tokio::test]
async fn without_tokens_it_listens_on_loopback_only() {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let waypost = Waypost::launch(&url, &prefix, &[("WAYPOST_HTTP__LISTEN", listen)]);
        assert_eq!(waypost.wait_for_exit().await.code(), Some(1), "{listen}");
        let line = waypost.wait_for_log_line("http.listen").await;
        assert!(line.contains("token") && line.contains("WAYPOST_HTTP__LISTEN"), "{line}");
    }
    let open = [("WAYPOST_HTTP__LISTEN", "0.0.0.0:0"), ("WAYPOST_HTTP__TOKENS", &token_settings())];
    let waypost = Waypost::launch(&url, &prefix, &open);
    waypost.wait_for_log_line("listening").await;
    waypost.wait_for_log_line("consuming").await;
}

/// Changes after a worker started to read do not delay its readiness.
#[tokio::test]
async fn a_worker_becomes_ready_while_campaigns_are_being_changed() {
    let (url, prefix) = (Broker::shared().await.url(), unique("configuration"));
    let busy = Waypost::start(&url, &prefix).await;
    busy.put_campaign(&some_campaign("c")).await;
    let changing = async {
        loop {
            busy.put_campaign(&some_campaign("c")).await;
        }
    };
    tokio::select! {
        () = changing => unreachable!("it has no end"),
        second = Waypost::start(&url, &prefix) => assert_eq!(second.get("/v1/campaigns/c").await.status, 200),
    }
}
