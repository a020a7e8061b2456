//! A campaigns log that lost records: workers hold their events until an operator decides.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::json::{only, section_mut, webhook_mut};
use crate::support::{Amqp, Broker, DEFAULT_TIMEOUT, Message, Receiver, Waypost, unique, wait_until};
use crate::test_app::SLOW_TIMEOUT;

/// The segment size of a stream under [`trim_campaigns_stream`], and the bytes that the stream keeps.
const SEGMENT_BYTES: usize = 50_000;
const KEPT_BYTES: usize = 100_000;

/// 32 bytes in base64.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A campaign with one webhook.
fn campaign(id: &str, url: &str) -> Value {
    json!({ "id": id, "name": "A campaign", "sections": [{ "label": "Ask", "webhook": { "url": url } }] })
}

fn event(campaign: &str, event_id: &str) -> Value {
    json!({ "campaignId": campaign, "label": "Ask", "phoneNumber": "1", "date": "2024-06-18T23:26:14Z", "eventId": event_id })
}

fn campaigns_stream(prefix: &str) -> String {
    format!("{prefix}.campaigns")
}

/// Waits until a worker holds its events, and returns its message.
async fn wait_until_held(waypost: &Waypost) -> String {
    let detail = wait_until("a worker that holds its events", DEFAULT_TIMEOUT, async || {
        let ready = waypost.get("/readyz").await;
        (ready.status == 503 && ready.body.contains("campaigns restore")).then_some(ready)
    })
    .await;
    assert_eq!(waypost.metric("waypost_config_log_incomplete").await, 1.0);
    detail.expect_problem(503).detail
}

async fn get_configuration(waypost: &Waypost) -> Value {
    waypost.get("/v1/configuration").await.json()
}

/// Launches a worker and waits until it responds.
async fn launch(url: &str, prefix: &str) -> Waypost {
    let waypost = Waypost::launch(url, prefix, &[]);
    waypost.wait_for_log_line("listening").await;
    waypost
}

async fn stop(waypost: &Waypost) {
    waypost.terminate();
    assert!(waypost.wait_for_exit().await.success());
}

/// Relaunches a worker and waits until it responds.
async fn relaunch(waypost: &Waypost) {
    waypost.relaunch(&[]);
    wait_until("an answer", DEFAULT_TIMEOUT, async || {
        let answer = waypost.cli(&["campaigns", "accept-empty", "--dry-run"]).await;
        (answer.code == Some(0)).then_some(())
    })
    .await;
}

async fn events_without_webhook(waypost: &Waypost) -> f64 {
    waypost.metric("waypost_events_total{result=\"no_webhook\"}").await
}

/// All campaigns of a worker with their versions.
async fn campaigns(waypost: &Waypost) -> Vec<(String, u64)> {
    let listed = waypost.get("/v1/campaigns").await.json();
    let items = listed["items"].as_array().unwrap_or_else(|| panic!("{listed:#}")).clone();
    let read =
        |item: &Value| (item["id"].as_str().expect("an id").to_owned(), item["version"].as_u64().expect("a version"));
    items.iter().map(read).collect()
}

/// Restores the campaigns of a worker with the command line.
async fn restore(waypost: &Waypost) {
    let printed = waypost.cli(&["campaigns", "restore"]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

/// Waits until two workers have the same campaigns in the same versions.
async fn wait_until_same(one: &Waypost, other: &Waypost) {
    wait_until("the same campaigns on both", DEFAULT_TIMEOUT, async || {
        let listed = [one.get("/v1/campaigns").await, other.get("/v1/campaigns").await];
        // A worker that holds its events may refuse the list.
        if listed.iter().any(|reply| reply.status != 200) {
            return None;
        }
        (campaigns(one).await == campaigns(other).await).then_some(())
    })
    .await;
}

/// Asserts that the worker has not rebuilt its view since its start.
fn assert_view_not_rebuilt(waypost: &Waypost) {
    let read_again: Vec<_> =
        waypost.log_lines().into_iter().filter(|line| line.contains("campaigns are read again")).collect();
    assert!(read_again.is_empty(), "{read_again:#?}");
}

/// Changes a large campaign until the stream has lost the record at `offset`.
async fn trim_campaigns_stream(waypost: &Waypost, amqp: &Amqp, prefix: &str, offset: u64) {
    let mut filler = campaign("filler", "https://example.com/hook");
    section_mut(&mut filler, "Ask")["message"] = "x".repeat(SEGMENT_BYTES / 4).into();
    wait_until("a stream that has lost its first records", SLOW_TIMEOUT, async || {
        waypost.put_campaign(&filler).await;
        let records = amqp.read_stream(&campaigns_stream(prefix), |records| !records.is_empty()).await;
        (u64::try_from(records[0].offset).expect("an offset") > offset).then_some(())
    })
    .await;
}

async fn broker_with_small_streams() -> Broker {
    let broker = Broker::private().await;
    let policy = json!({ "max-length-bytes": KEPT_BYTES, "stream-max-segment-size-bytes": SEGMENT_BYTES });
    broker.ctl(&["set_policy", "small", "^.*$", &policy.to_string(), "--apply-to", "queues"]).await;
    broker
}

/// Waits until a queue has `events` messages. A probe of the worker may be among them.
async fn wait_for_waiting_events(amqp: &Amqp, prefix: &str, events: u32) {
    wait_until("waiting events", DEFAULT_TIMEOUT, async || {
        let depth = amqp.depth(&format!("{prefix}.events")).await?;
        (events..=events + 1).contains(&depth).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_worker_beside_a_trimmed_log_holds_until_another_restores_it() {
    let broker = broker_with_small_streams().await;
    let (url, prefix, receiver) = (broker.url(), unique("lost"), Receiver::start());
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    let first = old.put_campaign(&campaign("c", &receiver.url("/"))).await;
    trim_campaigns_stream(&old, &amqp, &prefix, 1).await;
    broker.ctl(&["clear_policy", "small"]).await;
    // The worker has all campaigns, also after a restart.
    stop(&old).await;
    old.restart().await;
    assert_eq!(old.metric("waypost_config_log_incomplete").await, 0.0);

    stop(&old).await;
    let new = launch(&url, &prefix).await;
    let detail = wait_until_held(&new).await;
    assert!(detail.contains("begins at offset") && detail.contains("accept-empty"), "{detail}");
    let state = get_configuration(&new).await;
    assert_eq!((&state["state"], &state["reason"]), (&json!("incomplete"), &json!("logBeginsLater")), "{state:#}");
    amqp.publish_events(&prefix, &[event("c", "1"), event("c", "2")]).await;
    wait_for_waiting_events(&amqp, &prefix, 2).await;
    for reply in [new.get("/v1/campaigns").await, new.get("/v1/campaigns/c").await] {
        assert!(reply.expect_problem(503).detail.contains("restore"), "{reply:?}");
    }
    let refused = new.cli(&["campaigns", "restore"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("against a worker that has them"), "{refused:?}");
    // Also after a restart.
    stop(&new).await;
    relaunch(&new).await;
    wait_until_held(&new).await;
    wait_for_waiting_events(&amqp, &prefix, 2).await;

    old.restart().await;
    let dry = old.cli(&["campaigns", "restore", "--dry-run"]).await;
    assert!(dry.code == Some(0) && dry.stdout.contains("append 2 campaigns (last change"), "{dry:?}");
    restore(&old).await;
    new.wait_until_ready().await;
    assert_eq!(campaigns(&new).await, campaigns(&old).await);
    assert_eq!(new.get("/v1/campaigns/c").await.json(), first.json());
    assert_eq!(
        old.get("/v1/campaigns/c").await.headers["etag"],
        first.headers["etag"],
        "a snapshot changes no version"
    );
    assert_eq!(new.metric("waypost_config_log_incomplete").await, 0.0);

    // The worker uses the restored campaigns, and another new worker is complete immediately.
    stop(&old).await;
    let changed = new.put_campaign(&campaign("c", &receiver.url("/changed"))).await;
    let third = Waypost::start(&url, &prefix).await;
    assert_eq!(third.get("/v1/campaigns/c").await.headers["etag"], changed.headers["etag"]);
    amqp.publish_event(&prefix, &event("c", "3")).await;
    let requests = receiver.expect_any().times(3).await;
    assert_eq!(requests.iter().filter(|request| request.path() == "/changed").count(), 1, "{requests:?}");
    assert_eq!((events_without_webhook(&new).await, events_without_webhook(&third).await), (0.0, 0.0));
}

/// A stale worker restores an older state than a ready worker has, and the log lost the changes in between.
#[tokio::test]
async fn a_restore_from_a_stale_worker_takes_nothing_from_a_ready_one() {
    let broker = broker_with_small_streams().await;
    let (url, prefix, receiver) = (broker.url(), unique("lost"), Receiver::start());
    let (ready, stale) = tokio::join!(Waypost::start(&url, &prefix), Waypost::start(&url, &prefix));
    let amqp = Amqp::connect(&url).await;
    ready.put_campaign(&campaign("c", &receiver.url("/old"))).await;
    wait_until_same(&ready, &stale).await;
    stop(&stale).await;
    ready.put_campaign(&campaign("c", &receiver.url("/"))).await;
    ready.put_campaign(&campaign("late", &receiver.url("/"))).await;
    let lost = campaigns(&ready).await.into_iter().map(|(_, version)| version).max().expect("campaigns");
    trim_campaigns_stream(&ready, &amqp, &prefix, lost).await;
    broker.ctl(&["clear_policy", "small"]).await;
    relaunch(&stale).await;
    wait_until_held(&stale).await;
    assert_eq!(get_configuration(&stale).await["reason"], "logTrimmed");
    let before = campaigns(&ready).await;

    restore(&stale).await;
    stale.wait_until_ready().await;
    wait_until_same(&stale, &ready).await;
    assert_eq!(campaigns(&ready).await, before);
    assert_view_not_rebuilt(&ready);
    let events: Vec<Value> =
        (0..20).map(|number| event(if number % 2 == 0 { "c" } else { "late" }, &number.to_string())).collect();
    amqp.publish_events(&prefix, &events).await;
    let requests = receiver.expect_any().times(events.len()).await;
    assert!(requests.iter().all(|request| request.path() == "/"), "{requests:?}");
    assert_eq!((events_without_webhook(&ready).await, events_without_webhook(&stale).await), (0.0, 0.0));
    // A new worker has the same campaigns.
    let third = Waypost::start(&url, &prefix).await;
    assert_eq!(campaigns(&third).await, campaigns(&ready).await);
}

/// A ready worker, and a new worker that holds its events because the log lost its first records.
async fn ready_and_new(broker: &Broker, prefix: &str) -> (Waypost, Waypost, Amqp) {
    let url = broker.url();
    let (ready, amqp) = (Waypost::start(&url, prefix).await, Amqp::connect(&url).await);
    ready.put_campaign(&campaign("c", "https://example.com/c")).await;
    let (_, version) = only(&campaigns(&ready).await).clone();
    trim_campaigns_stream(&ready, &amqp, prefix, version).await;
    broker.ctl(&["clear_policy", "small"]).await;
    let new = launch(&url, prefix).await;
    wait_until_held(&new).await;
    (ready, new, amqp)
}

#[tokio::test]
async fn accept_empty_on_a_new_worker_takes_over_a_ready_workers_campaigns() {
    let (broker, prefix) = (broker_with_small_streams().await, unique("lost"));
    let (ready, new, _amqp) = ready_and_new(&broker, &prefix).await;
    let before = campaigns(&ready).await;
    let dry = new.cli(&["campaigns", "accept-empty", "--dry-run"]).await;
    assert!(dry.code == Some(0) && dry.stdout.contains("Workers that are ready keep their campaigns"), "{dry:?}");
    let refused = new.cli(&["campaigns", "accept-empty", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("nothing was accepted: a worker that is ready"), "{refused:?}");
    new.wait_until_ready().await;
    wait_until_same(&new, &ready).await;
    assert_eq!(campaigns(&ready).await, before);
    assert_view_not_rebuilt(&ready);
}

/// A decision that is appended without a check of the ready worker, as if it had not responded in time.
#[tokio::test]
async fn a_decision_from_elsewhere_removes_nothing_from_a_ready_worker() {
    let (broker, prefix) = (broker_with_small_streams().await, unique("lost"));
    let (ready, new, amqp) = ready_and_new(&broker, &prefix).await;
    let before = campaigns(&ready).await;
    let decision = json!({ "control": "acceptEmpty", "by": "test", "at": "2026-11-30T03:00:00Z" });
    amqp.publish("", [Message::raw(decision.to_string()).key(&campaigns_stream(&prefix)).id("decision")]).await;
    // The new worker continues with the campaigns of the log, and requests the rest.
    new.wait_until_ready().await;
    wait_until_same(&new, &ready).await;
    assert_eq!(campaigns(&ready).await, before);
    assert_view_not_rebuilt(&ready);
    assert_eq!(new.get("/v1/campaigns/c").await.json(), ready.get("/v1/campaigns/c").await.json());
}

#[tokio::test]
async fn a_log_deleted_while_workers_are_stopped_is_restored_from_a_store() {
    let (url, prefix, receiver) = (Broker::shared().await.url(), unique("lost"), Receiver::start());
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    let put = old.put_campaign(&campaign("c", &receiver.url("/"))).await;
    old.put_campaign(&campaign("gone", &receiver.url("/"))).await;
    assert_eq!(old.send(reqwest::Method::DELETE, "/v1/campaigns/gone", None).await.status, 204);
    stop(&old).await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    amqp.publish_events(&prefix, &[event("c", "1"), event("c", "2")]).await;

    relaunch(&old).await;
    wait_until_held(&old).await;
    // The worker shows its campaigns, reports the problem, and refuses changes.
    assert_eq!(old.get("/v1/campaigns/c").await.json(), put.json());
    let listed = old.cli(&["campaigns", "list"]).await;
    assert!(listed.stdout.contains("A campaign") && listed.stderr.contains("campaigns may be missing"), "{listed:?}");
    let refused = old.send(reqwest::Method::PUT, "/v1/campaigns/d", Some(&campaign("d", &receiver.url("/")))).await;
    assert!(refused.expect_problem(503).detail.contains("no change is accepted"));
    // The log tells a new worker about the loss.
    let new = launch(&url, &prefix).await;
    wait_until_held(&new).await;
    assert_eq!(get_configuration(&new).await["reason"], "heldByWorker");
    wait_for_waiting_events(&amqp, &prefix, 2).await;

    restore(&old).await;
    tokio::join!(old.wait_until_ready(), new.wait_until_ready());
    assert_eq!(campaigns(&old).await, campaigns(&new).await);
    assert_eq!(old.get("/v1/campaigns/c").await.json(), put.json(), "the webhook keeps its id");
    let requests = receiver.expect_any().times(2).await;
    assert_eq!(requests.len(), 2);
    assert_eq!((events_without_webhook(&old).await, events_without_webhook(&new).await), (0.0, 0.0));
    let page = old.get("/v1/configuration").await.json();
    assert_eq!((&page["state"], &page["campaigns"]), (&json!("current"), &json!(1)), "{page:#}");

    // After another restart the worker knows the new log.
    stop(&old).await;
    old.restart().await;
    assert_eq!(campaigns(&old).await, campaigns(&new).await);
}

#[tokio::test]
async fn a_log_deleted_under_running_workers_is_restored_by_several_at_once() {
    let (url, prefix, receiver) = (Broker::shared().await.url(), unique("lost"), Receiver::start());
    let (first, second) = tokio::join!(Waypost::start(&url, &prefix), Waypost::start(&url, &prefix));
    let amqp = Amqp::connect(&url).await;
    for id in ["a", "b", "c"] {
        first.put_campaign(&campaign(id, &receiver.url("/"))).await;
    }
    wait_until("both workers to have all campaigns", DEFAULT_TIMEOUT, async || {
        (campaigns(&second).await.len() == 3).then_some(())
    })
    .await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    tokio::join!(wait_until_held(&first), wait_until_held(&second));
    amqp.publish_event(&prefix, &event("b", "1")).await;
    // Restores from both workers, and from one of them twice.
    let restored =
        join_all([&first, &second, &first].map(|waypost| waypost.cli(&["campaigns", "restore", "--json"]))).await;
    assert!(restored.iter().any(|printed| printed.code == Some(0)), "{restored:?}");
    tokio::join!(first.wait_until_ready(), second.wait_until_ready());
    wait_until("the same on both", DEFAULT_TIMEOUT, async || {
        (campaigns(&first).await == campaigns(&second).await && campaigns(&first).await.len() == 3).then_some(())
    })
    .await;
    receiver.expect_any().await;
    assert_eq!(events_without_webhook(&first).await + events_without_webhook(&second).await, 0.0);
    // A new worker has the same campaigns.
    let third = Waypost::start(&url, &prefix).await;
    assert_eq!(campaigns(&third).await, campaigns(&first).await);
}

#[tokio::test]
async fn a_worker_that_took_the_new_log_for_a_first_installation_is_stopped() {
    let (url, prefix, receiver) = (Broker::shared().await.url(), unique("lost"), Receiver::start());
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    old.put_campaign(&campaign("c", &receiver.url("/"))).await;
    stop(&old).await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    let new = Waypost::start(&url, &prefix).await;
    relaunch(&old).await;
    tokio::join!(wait_until_held(&old), wait_until_held(&new));
    amqp.publish_event(&prefix, &event("c", "1")).await;
    wait_for_waiting_events(&amqp, &prefix, 1).await;
    restore(&old).await;
    tokio::join!(old.wait_until_ready(), new.wait_until_ready());
    receiver.expect_any().await;
    assert_eq!(events_without_webhook(&new).await, 0.0);
}

/// Other workers already use the new log. They continue, and only the worker with more campaigns holds its events.
#[tokio::test]
async fn a_worker_with_another_history_does_not_hold_a_log_in_use() {
    let (url, prefix) = (Broker::shared().await.url(), unique("lost"));
    let (stopped, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    stopped.put_campaign(&campaign("old", "https://example.com/old")).await;
    stop(&stopped).await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    let other = Waypost::start(&url, &prefix).await;
    let new = other.put_campaign(&campaign("new", "https://example.com/new")).await;
    relaunch(&stopped).await;
    wait_until_held(&stopped).await;
    other.wait_until_ready().await;
    assert_eq!(other.get("/v1/campaigns/new").await.json(), new.json());
    // The restored campaigns are added to those of the log.
    restore(&stopped).await;
    stopped.wait_until_ready().await;
    other.wait_until_ready().await;
    let ids = |campaigns: Vec<(String, u64)>| campaigns.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(campaigns(&stopped).await), ["new", "old"]);
    wait_until("the same on both", DEFAULT_TIMEOUT, async || {
        (campaigns(&stopped).await == campaigns(&other).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn accept_empty_shows_what_is_lost_first() {
    let (url, prefix, receiver) = (Broker::shared().await.url(), unique("lost"), Receiver::start());
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    old.put_campaign(&campaign("c", &receiver.url("/"))).await;
    let refused = old.cli(&["campaigns", "accept-empty", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "nothing is held: {refused:?}");
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    wait_until_held(&old).await;
    let new = launch(&url, &prefix).await;
    wait_until_held(&new).await;

    let unconfirmed = old.cli(&["campaigns", "accept-empty"]).await;
    assert_eq!(unconfirmed.code, Some(2), "{unconfirmed:?}");
    let dry = old.cli(&["campaigns", "accept-empty", "--dry-run"]).await;
    assert!(dry.code == Some(0) && dry.stdout.contains("1 campaign"), "{dry:?}");
    assert_eq!(get_configuration(&old).await["state"], "incomplete");
    let accepted = old.cli(&["campaigns", "accept-empty", "--yes"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    tokio::join!(old.wait_until_ready(), new.wait_until_ready());
    assert_eq!((campaigns(&old).await, campaigns(&new).await), (vec![], vec![]));
    // The campaigns that the log lost are in a file, which can be applied again.
    let line: Value = serde_json::from_str(&old.wait_for_log_line("previous campaigns of this worker").await)
        .expect("a line of JSON");
    let applied = old.cli(&["campaigns", "apply", line["kept"].as_str().expect("a file")]).await;
    assert_eq!(applied.code, Some(0), "{applied:?}");
    amqp.publish_event(&prefix, &event("c", "1")).await;
    receiver.expect_any().await;
    // The decision applies after restarts and to new workers.
    stop(&old).await;
    old.restart().await;
    let third = Waypost::start(&url, &prefix).await;
    assert_eq!(campaigns(&third).await, campaigns(&old).await);
}

/// No worker has a store any more, but waiting deliveries prove that there were campaigns.
#[tokio::test]
async fn waiting_deliveries_prove_that_the_log_was_lost() {
    let (url, prefix, receiver) = (Broker::shared().await.url(), unique("lost"), Receiver::start());
    receiver.reply("/", 500);
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    old.put_campaign(&campaign("c", &receiver.url("/"))).await;
    amqp.publish_event(&prefix, &event("c", "1")).await;
    old.wait_for_metric("waypost_retries_scheduled_total", 1.0).await;
    old.kill().await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    let new = launch(&url, &prefix).await;
    wait_until_held(&new).await;
    assert_eq!(get_configuration(&new).await["reason"], "deliveriesWait");
    let accepted = new.cli(&["campaigns", "accept-empty", "--yes"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    new.wait_until_ready().await;
    let again = new.cli(&["campaigns", "accept-empty", "--dry-run", "--json"]).await;
    assert_eq!(again.stdout.trim(), r#"{"accepted":false,"campaigns":0}"#);
}

/// A change in a new log would make a worker with an empty store consider the log complete.
#[tokio::test]
async fn no_change_is_accepted_until_a_new_log_is_compared() {
    let (url, prefix) = (Broker::shared().await.url(), unique("lost"));
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    old.put_campaign(&campaign("c", "https://example.com/hook")).await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    let (client, document) = (reqwest::Client::new(), campaign("d", "https://example.com/hook"));
    wait_until("a problem that says what to do", SLOW_TIMEOUT, async || {
        let answer = client.put(old.url("/v1/campaigns/d")).json(&document).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert_eq!(status, 503, "{text}");
        text.contains("accept-empty").then_some(())
    })
    .await;
    // A worker with an empty store learns of the loss from the log.
    let new = launch(&url, &prefix).await;
    wait_until_held(&new).await;
}

#[tokio::test]
async fn secrets_stay_encrypted_in_what_is_restored() {
    let (url, prefix) = (Broker::shared().await.url(), unique("lost"));
    let key = [("WAYPOST_SECRET_KEY", KEY)];
    let (old, amqp) = (Waypost::start_with(&url, &prefix, &key).await, Amqp::connect(&url).await);
    let mut document = campaign("c", "https://example.com/hook");
    webhook_mut(&mut document, "Ask", None)["headers"] = json!({ "X-Api-Key": "the-value-in-the-clear" });
    let put = old.put_campaign(&document).await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    wait_until_held(&old).await;
    restore(&old).await;
    old.wait_until_ready().await;
    assert_eq!(old.get("/v1/campaigns/c").await.json(), put.json());
    let records = amqp
        .read_stream(&campaigns_stream(&prefix), |records| {
            records.iter().any(|record| !record.body.is_empty() && record.json()["control"] == "restoreFinished")
        })
        .await;
    let in_the_clear =
        records.iter().filter(|record| String::from_utf8_lossy(&record.body).contains("the-value-in-the-clear"));
    assert_eq!(in_the_clear.count(), 0);
}

/// A restore that was killed has no effect, and can be repeated.
#[tokio::test]
async fn a_restore_that_was_interrupted_is_repeated() {
    let (url, prefix) = (Broker::shared().await.url(), unique("lost"));
    let (old, amqp) = (Waypost::start(&url, &prefix).await, Amqp::connect(&url).await);
    let count = 300;
    for chunk in 0..count / 50 {
        let put = (0..50).map(async |number| {
            old.put_campaign(&campaign(&format!("c{:03}", chunk * 50 + number), "https://example.com/hook")).await
        });
        join_all(put).await;
    }
    stop(&old).await;
    amqp.delete_queue(&campaigns_stream(&prefix)).await;
    relaunch(&old).await;
    wait_until_held(&old).await;
    // Kills the restore once its first record is in the log.
    let interrupted = async {
        let _ = tokio::time::timeout(DEFAULT_TIMEOUT, old.cli(&["campaigns", "restore"])).await;
    };
    let log = campaigns_stream(&prefix);
    let begun = amqp.read_stream(&log, |records| {
        records.iter().any(|record| !record.body.is_empty() && record.json()["control"] == "restoreStarted")
    });
    let killed = async {
        begun.await;
        old.kill().await;
    };
    tokio::join!(interrupted, killed);
    relaunch(&old).await;
    let is_held = wait_until("a decision, or none", DEFAULT_TIMEOUT, async || {
        match get_configuration(&old).await["state"].as_str() {
            Some("incomplete") => Some(true),
            Some("current") => Some(false),
            _ => None,
        }
    })
    .await;
    if is_held {
        restore(&old).await;
        old.wait_until_ready().await;
    }
    let listed = old.get("/v1/campaigns?limit=1000").await.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(count));
}
