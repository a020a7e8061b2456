//! Dead letters and replays on the command line, against a worker: what is printed, what is sent, and how it ends.

use std::collections::BTreeSet;

use serde_json::Value;
use tempfile::TempDir;

use crate::cli::Run;
use crate::stage::{Stage, many};
use crate::support::amqp::Message;
use crate::support::waypost::Printed;
use crate::support::{Answer, PATIENCE, Receiver, until};

/// A stage whose `/offers` is gone, and so many dead letters of it, all seen by the API.
async fn with_dead_letters(count: usize) -> Stage {
    let stage = Stage::set("dlcli", &[]).await;
    stage.receiver.answer("/offers", Answer::status(410).body("no such offer"));
    stage.amqp.publish_events(&stage.prefix, &many(count, 4)).await;
    until_total(&stage, &[], count).await;
    stage
}

/// Waits until so many dead letters match.
async fn until_total(stage: &Stage, filter: &[&str], count: usize) {
    until("the dead letters", PATIENCE, async || {
        let summary = json(&ask(stage, &[&["dead-letters", "summary", "--json"], filter].concat()).await);
        (summary["total"] == count).then_some(())
    })
    .await;
}

/// Runs a command that must end well.
async fn ask(stage: &Stage, arguments: &[&str]) -> String {
    let printed = stage.waypost.cli(arguments).await;
    assert_eq!(printed.code, Some(0), "{arguments:?}: {printed:#?}");
    printed.stdout
}

/// Runs a command that must fail, and say why.
async fn fail(stage: &Stage, arguments: &[&str], said: &str) -> Printed {
    let printed = stage.waypost.cli(arguments).await;
    assert_eq!(printed.code, Some(1), "{arguments:?}: {printed:#?}");
    assert!(printed.stderr.contains(said), "it does not say {said:?}: {printed:#?}");
    printed
}

/// Starts a command that is not waited for, in a folder of its own.
fn start(stage: &Stage, arguments: &[&str]) -> (Run, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = stage.waypost.url("");
    (Run::start(folder.path(), &[("WAYPOST_SERVER", &server)], arguments, b""), folder)
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn items(text: &str) -> Vec<Value> {
    json(text).as_array().expect("an array").clone()
}

fn ids(letters: &[Value]) -> BTreeSet<String> {
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

/// The `webhook-id`s a receiver has seen.
fn webhook_ids(receiver: &Receiver) -> BTreeSet<String> {
    receiver.by_webhook_id().into_keys().collect()
}

/// The id in `replay ID of N dead letters created`.
#[track_caller]
fn replay_id(printed: &str) -> String {
    let id = printed.strip_prefix("replay ").and_then(|rest| rest.split(' ').next());
    id.unwrap_or_else(|| panic!("no id: {printed}")).to_owned()
}

#[tokio::test]
async fn dead_letters_are_listed_counted_and_exported() {
    let stage = with_dead_letters(3).await;
    stage.amqp.publish(&format!("{}.events", stage.prefix), [Message::raw("no event")]).await;
    until_total(&stage, &[], 4).await;

    let table = ask(&stage, &["dead-letters", "list"]).await;
    let offers = stage.receiver.url("/offers");
    for text in ["DEAD", "pending", "gone", "410", "13010", "Welcome Message", &offers, "malformed", "4 dead letters"] {
        assert!(table.contains(text), "no {text}: {table}");
    }
    let all = items(&ask(&stage, &["dead-letters", "list", "--json"]).await);
    assert_eq!(all.len(), 4);
    assert_eq!(all[0]["reason"], "malformed", "the latest is not the first: {all:#?}");

    let two = ask(&stage, &["dead-letters", "list", "--limit", "2", "--reason", "gone"]).await;
    assert!(two.contains("2 dead letters; there may be more: --limit"), "{two}");
    assert!(!two.contains("malformed"), "{two}");
    let delivered = all.iter().find(|letter| letter["reason"] == "gone").expect("a delivery");
    let of = |name: &str| delivered[name].as_str().expect("text").to_owned();
    let (event, delivery) = (of("eventId"), of("deliveryId"));
    let phone = delivered["event"]["phoneNumber"].as_str().expect("a phone number");
    let endpoint = stage.receiver.url("/");
    let filters: [(&[&str], usize); 12] = [
        (&["--phone", phone], 3),
        (&["--phone", "+19995550000"], 0),
        (&["--event", &event], 1),
        (&["--delivery", &delivery], 1),
        (&["--endpoint", &endpoint, "--state", "pending"], 3),
        (&["--campaign", "13010"], 3),
        (&["--campaign", "other"], 0),
        (&["--label", "Welcome Message", "--status", "410"], 3),
        (&["--reason", "malformed"], 1),
        (&["--since", "1h"], 4),
        (&["--until", "1h"], 0),
        (&["--state", "discarded"], 0),
    ];
    for (filter, count) in filters {
        let listed = items(&ask(&stage, &[&["dead-letters", "list", "--json"], filter].concat()).await);
        assert_eq!(listed.len(), count, "{filter:?}");
    }
    let none = ask(&stage, &["dead-letters", "list", "--campaign", "other"]).await;
    assert_eq!(none, "No dead letter matches.\n");

    let summary = ask(&stage, &["dead-letters", "summary"]).await;
    for text in ["4 dead letters, from ", "REASON", "gone", "malformed", "4xx", "CAMPAIGN", "13010", "█"] {
        assert!(summary.contains(text), "no {text}: {summary}");
    }

    let exported = ask(&stage, &["dead-letters", "export"]).await;
    let exported: Vec<Value> = exported.lines().map(json).collect();
    assert_eq!(exported, all);
    // There is no other form, so to ask for it is no mistake.
    let asked_for = ask(&stage, &["dead-letters", "export", "--json"]).await;
    assert_eq!(asked_for.lines().map(json).collect::<Vec<_>>(), all);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("dead.ndjson").display().to_string();
    let said = ask(&stage, &["dead-letters", "export", "--reason", "gone", "-o", &file]).await;
    assert_eq!(said, format!("3 dead letters exported to {file}\n"));
    assert_eq!(std::fs::read_to_string(&file).expect("the file").lines().count(), 3);
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_all_there_is_to_know() {
    let stage = with_dead_letters(1).await;
    let letter = items(&ask(&stage, &["dead-letters", "list", "--json"]).await).remove(0);
    let id = letter["id"].as_str().expect("an id");
    let page = ask(&stage, &["dead-letters", "show", id]).await;
    let again = format!("waypost dead-letters replay {id}");
    for text in [
        id,
        "gone: the receiver wants no further requests at this URL",
        &format!("POST {}", stage.receiver.url("/offers")),
        "x-api-key: ",
        "\"phoneNumber\": \"+15550001\"",
        "Attempts",
        "no such offer",
        &again,
    ] {
        assert!(page.contains(text), "no {text}: {page}");
    }
    assert!(page.trim_end().ends_with(&again), "{page}");
    assert_eq!(json(&ask(&stage, &["dead-letters", "show", id, "--json"]).await)["id"], id);
    fail(&stage, &["dead-letters", "show", "dl_unknown"], "error: ").await;

    stage.amqp.publish(&format!("{}.events", stage.prefix), [Message::raw("{\"date\":\"today\"}")]).await;
    until_total(&stage, &["--reason", "malformed"], 1).await;
    let malformed = items(&ask(&stage, &["dead-letters", "list", "--reason", "malformed", "--json"]).await).remove(0);
    let page = ask(&stage, &["dead-letters", "show", malformed["id"].as_str().expect("an id")]).await;
    for text in ["malformed: ", "$.date: ", "{\"date\":\"today\"}"] {
        assert!(page.contains(text), "no {text}: {page}");
    }
}

#[tokio::test]
async fn a_replay_is_followed_until_all_is_delivered() {
    let stage = with_dead_letters(5).await;
    let before = webhook_ids(&stage.receiver);
    stage.receiver.answer("/offers", Answer::ok());
    stage.receiver.forget();

    let plan = ask(&stage, &["dead-letters", "replay", "--all", "--dry-run"]).await;
    for text in ["5 dead letters would be sent again", "ENDPOINT", "http://127.0.0.1:", "POST ", "x-api-key: "] {
        assert!(plan.contains(text), "no {text}: {plan}");
    }
    assert!(stage.receiver.requests().is_empty(), "a dry run sends nothing");

    let printed = stage.waypost.cli(&["dead-letters", "replay", "--all"]).await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let id = replay_id(&printed.stdout);
    assert!(printed.stdout.contains(&format!("replay {id} done: 5 delivered, 0 failed, of 5")), "{printed:#?}");
    assert!(printed.stderr.contains("sent 5 of 5 · delivered 5 · failed 0 · done"), "{printed:#?}");
    assert_eq!(webhook_ids(&stage.receiver), before);
    until_total(&stage, &["--state", "replayed"], 5).await;

    // What has ended can be followed still, and looked at.
    assert!(ask(&stage, &["replays", "follow", &id]).await.contains(" done: 5 delivered"));
    let replay = json(&ask(&stage, &["replays", "follow", &id, "--json"]).await);
    assert_eq!((&replay["id"], &replay["state"]), (&Value::from(id.as_str()), &Value::from("done")));
    let table = ask(&stage, &["replays", "list"]).await;
    for text in ["PROGRESS", "██████████", "done", "--all", &id] {
        assert!(table.contains(text), "no {text}: {table}");
    }
    // Nothing pending is left to choose.
    fail(&stage, &["dead-letters", "replay", "--all"], "error: ").await;
    fail(&stage, &["replays", "follow", "rp_unknown"], "error: ").await;
}

#[tokio::test]
async fn what_fails_again_is_a_failure_that_says_where_to_look() {
    let stage = with_dead_letters(3).await;
    let before = ids(&items(&ask(&stage, &["dead-letters", "list", "--json"]).await));
    let printed = fail(&stage, &["dead-letters", "replay", "--campaign", "13010"], "3 dead letters failed again").await;
    assert!(printed.stdout.contains(" done: 0 delivered, 3 failed, of 3"), "{printed:#?}");
    let command = printed.stderr.lines().find_map(|line| line.trim().strip_prefix("waypost "));
    let command: Vec<&str> = command.expect("a command").split(' ').chain(["--json"]).collect();
    let new = until("the new dead letters", PATIENCE, async || {
        let letters = items(&ask(&stage, &command).await);
        (letters.len() == 3).then_some(letters)
    })
    .await;
    assert!(ids(&new).is_disjoint(&before), "{new:#?}");
    for letter in &new {
        assert!(before.contains(letter["replayOf"].as_str().expect("a letter before")), "{letter:#}");
    }
    // The page of the old one leads to the new one.
    let page = ask(&stage, &["dead-letters", "show", new[0]["replayOf"].as_str().expect("an id")]).await;
    assert!(page.contains(&format!("dead again, as {}", new[0]["id"].as_str().expect("an id"))), "{page}");

    // Its end as JSON, by id, for a script.
    let id = new[0]["id"].as_str().expect("an id");
    let printed = fail(&stage, &["dead-letters", "replay", id, "--json"], "1 dead letter failed again").await;
    assert_eq!(json(&printed.stdout)["failed"], 1);
}

#[tokio::test]
async fn ctrl_c_leaves_a_replay_to_the_worker() {
    let stage = with_dead_letters(20).await;
    stage.receiver.answer("/offers", Answer::ok());
    stage.receiver.forget();
    let (run, _folder) = start(&stage, &["dead-letters", "replay", "--all", "--rate", "4"]);
    run.until_stderr("sent ").await;
    run.interrupt();
    let printed = run.end().await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let id = replay_id(&printed.stdout);
    for command in ["follow", "pause", "cancel"] {
        assert!(printed.stderr.contains(&format!("waypost replays {command} {id}")), "{printed:#?}");
    }
    assert!(ask(&stage, &["replays", "follow", &id]).await.contains(" done: 20 delivered"));
    assert_eq!(webhook_ids(&stage.receiver).len(), 20);
}

#[tokio::test]
async fn a_restart_of_the_worker_does_not_end_the_following() {
    let stage = with_dead_letters(20).await;
    stage.receiver.answer("/offers", Answer::ok());
    stage.receiver.forget();
    let (run, _folder) = start(&stage, &["dead-letters", "replay", "--all", "--rate", "4"]);
    stage.receiver.until(|requests| requests.len() >= 2).await;
    run.until_stderr("sent ").await;
    stage.waypost.kill().await;
    run.until_stderr("asking again").await;
    stage.waypost.restart().await;
    let printed = run.end().await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    assert!(printed.stderr.contains("the server answers again"), "{printed:#?}");
    assert!(printed.stdout.contains(" done: 20 delivered, 0 failed"), "{printed:#?}");
    assert_eq!(webhook_ids(&stage.receiver).len(), 20);
}

#[tokio::test]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let stage = with_dead_letters(10).await;
    stage.receiver.answer("/offers", Answer::ok());
    let detached = ["dead-letters", "replay", "--campaign", "13010", "--rate", "0.2", "--detach"];
    let printed = ask(&stage, &detached).await;
    let id = replay_id(&printed);
    assert!(printed.contains(&format!("waypost replays follow {id}")), "{printed}");

    assert!(ask(&stage, &["replays", "pause", &id]).await.contains(&format!("replay {id} paused: ")));
    fail(&stage, &["replays", "pause", &id], "error: ").await;
    let listed = items(&ask(&stage, &["replays", "list", "--json"]).await);
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&Value::from(id.as_str()), &Value::from("paused")));
    let page = ask(&stage, &["replays", "show", &id]).await;
    for text in ["paused", "--campaign 13010", "at most 0.2 a second", &format!("waypost replays resume {id}")] {
        assert!(page.contains(text), "no {text}: {page}");
    }
    let resumed = json(&ask(&stage, &["replays", "resume", &id, "--json"]).await);
    assert_eq!(resumed["state"], "running");

    // Whoever follows it learns that it was cancelled.
    let (run, _folder) = start(&stage, &["replays", "follow", &id]);
    run.until_stderr("sent ").await;
    let cancel = ["replays", "cancel", &id];
    let printed = stage.waypost.cli(&cancel).await;
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(2), ""), "{printed:#?}");
    assert!(printed.stderr.contains("dead letters that it has not sent are pending again"), "{printed:#?}");
    let dry = json(&ask(&stage, &[&cancel[..], &["--dry-run", "--json"]].concat()).await);
    assert!(dry["unsent"].as_u64().is_some_and(|unsent| (1..=10).contains(&unsent)), "{dry}");
    assert_eq!(json(&ask(&stage, &["replays", "show", &id, "--json"]).await)["state"], "running");
    ask(&stage, &[&cancel[..], &["--yes"]].concat()).await;
    let printed = run.end().await;
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert!(printed.stderr.contains("error: cancelled: "), "{printed:#?}");
    assert!(printed.stderr.contains("waypost dead-letters replay --campaign 13010"), "{printed:#?}");
    for command in ["resume", "pause", "cancel"] {
        fail(&stage, &["replays", command, &id], "error: ").await;
    }
    let replay = json(&ask(&stage, &["replays", "show", &id, "--json"]).await);
    let sent = usize::try_from(replay["sent"].as_u64().expect("a number")).expect("a small number");
    until_total(&stage, &["--state", "pending"], 10 - sent).await;
}

#[tokio::test]
async fn a_replay_that_goes_badly_stops_by_itself() {
    let stage = with_dead_letters(40).await;
    let arguments = ["dead-letters", "replay", "--all", "--stop-on-failure-ratio", "0.5"];
    let printed = fail(&stage, &arguments, "stopped by the failure ratio (0.5)").await;
    assert!(printed.stderr.contains("waypost dead-letters list --since"), "{printed:#?}");
}

#[tokio::test]
async fn what_is_discarded_says_why() {
    let stage = with_dead_letters(3).await;
    let letters = items(&ask(&stage, &["dead-letters", "list", "--json"]).await);
    let id = letters[0]["id"].as_str().expect("an id");
    let discard = ["dead-letters", "discard", id, "--because", "a test"];
    let printed = stage.waypost.cli(&discard).await;
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(2), ""), "{printed:#?}");
    for text in ["this would discard 1 dead letter of campaign 13010, sent to http://", "--yes"] {
        assert!(printed.stderr.contains(text), "{printed:#?}");
    }
    let dry = ask(&stage, &["dead-letters", "discard", "--status", "410", "--dry-run"]).await;
    assert!(dry.starts_with("would discard 3 dead letters of campaign 13010, sent to http://"), "{dry}");
    let dry = ask(&stage, &["dead-letters", "discard", "--status", "404", "--dry-run", "--json"]).await;
    assert_eq!(json(&dry)["total"], 0);
    until_total(&stage, &["--state", "pending"], 3).await;
    let said = ask(&stage, &[&discard[..], &["--yes"]].concat()).await;
    assert_eq!(said, "discarded 1 dead letter\n");
    until_total(&stage, &["--state", "discarded"], 1).await;
    let page = ask(&stage, &["dead-letters", "show", id]).await;
    assert!(page.contains("Discarded\n") && page.contains(": a test"), "{page}");

    let filter = ["dead-letters", "discard", "--reason", "gone", "--because", "all of them", "--json", "--yes"];
    assert_eq!(json(&ask(&stage, &filter).await)["discarded"], 2);
    until_total(&stage, &["--state", "discarded"], 3).await;
    fail(&stage, &filter, "no pending dead letter matches").await;
    fail(&stage, &["dead-letters", "discard", "dl_unknown", "--because", "a test"], "there is no dead letter").await;
}

/// `waypost dead-letters export | head -1` closes its end after a line.
#[tokio::test]
async fn an_export_ends_with_its_reader() {
    let stage = with_dead_letters(3).await;
    let script = "\"$0\" dead-letters export | true; echo \"${PIPESTATUS[0]}\"";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_waypost")]).env("WAYPOST_SERVER", stage.waypost.url(""));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
