//! Dead letters and replays on the command line against a worker: output, requests and exit codes.

use std::collections::BTreeSet;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::amqp::Message;
use crate::support::cli_process::CliProcess;
use crate::support::dead_letters::text_field;
use crate::support::json::{newest, only};
use crate::support::waypost::CommandOutput;
use crate::support::{Answer, DEFAULT_TIMEOUT, Receiver, wait_until};
use crate::test_app::{TestApp, events_with_keyword};

/// An app with `count` dead letters of `/offers`, which answered 410.
async fn start_with_dead_letters(count: usize) -> TestApp {
    let app = TestApp::start().await;
    create_dead_letters(&app, count).await;
    app
}

async fn create_dead_letters(app: &TestApp, count: usize) {
    app.receiver.reply("/offers", Answer::status(410).body("no such offer"));
    app.amqp.publish_events(&app.prefix, &events_with_keyword(count, 4)).await;
    wait_for_letter_count(app, &[], count).await;
}

/// Waits until `count` dead letters match.
async fn wait_for_letter_count(app: &TestApp, filter: &[&str], count: usize) {
    wait_until("the dead letters", DEFAULT_TIMEOUT, async || {
        let summary = parse_json(&run_ok(app, &[&["dead-letters", "summary", "--json"], filter].concat()).await);
        (summary["total"] == count).then_some(())
    })
    .await;
}

/// Runs a command that must succeed, and returns its output.
async fn run_ok(app: &TestApp, arguments: &[&str]) -> String {
    let printed = app.waypost.cli(arguments).await;
    assert_eq!(printed.code, Some(0), "{arguments:?}: {printed:#?}");
    printed.stdout
}

/// Runs a command that must fail with a message that contains `said`.
async fn run_failing(app: &TestApp, arguments: &[&str], said: &str) -> CommandOutput {
    let printed = app.waypost.cli(arguments).await;
    assert_eq!(printed.code, Some(1), "{arguments:?}: {printed:#?}");
    assert!(printed.stderr.contains(said), "stderr does not contain {said:?}: {printed:#?}");
    printed
}

/// Starts a command in its own folder, without waiting for it.
fn spawn(app: &TestApp, arguments: &[&str]) -> (CliProcess, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = app.waypost.url("");
    (CliProcess::start(folder.path(), &[("WAYPOST_SERVER", &server)], arguments, b""), folder)
}

#[track_caller]
fn parse_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn parse_items(text: &str) -> Vec<Value> {
    parse_json(text).as_array().expect("an array").clone()
}

fn ids(letters: &[Value]) -> BTreeSet<String> {
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

/// The `webhook-id`s that a receiver has seen.
fn webhook_ids(receiver: &Receiver) -> BTreeSet<String> {
    receiver.requests_by_webhook_id().into_keys().collect()
}

/// The id in `replay ID of N dead letters created`.
#[track_caller]
fn replay_id(printed: &str) -> String {
    let id = printed.strip_prefix("replay ").and_then(|rest| rest.split(' ').next());
    id.unwrap_or_else(|| panic!("no id: {printed}")).to_owned()
}

#[tokio::test]
async fn dead_letters_are_listed_counted_and_exported() {
    let app = start_with_dead_letters(3).await;
    app.amqp.publish(&format!("{}.events", app.prefix), [Message::raw("no event")]).await;
    wait_for_letter_count(&app, &[], 4).await;

    let table = run_ok(&app, &["dead-letters", "list"]).await;
    let offers = app.receiver.url("/offers");
    for text in ["DEAD", "pending", "gone", "410", "13010", "Welcome Message", &offers, "malformed", "4 dead letters"] {
        assert!(table.contains(text), "no {text}: {table}");
    }
    let all = parse_items(&run_ok(&app, &["dead-letters", "list", "--json"]).await);
    assert_eq!(all.len(), 4);
    assert_eq!(newest(&all)["reason"], "malformed", "the latest is not the first: {all:#?}");

    let two = run_ok(&app, &["dead-letters", "list", "--limit", "2", "--reason", "gone"]).await;
    assert!(two.contains("2 dead letters; there may be more: --limit"), "{two}");
    assert!(!two.contains("malformed"), "{two}");
    let delivered = all.iter().find(|letter| letter["reason"] == "gone").expect("a delivery");
    let of = |name: &str| delivered[name].as_str().expect("text").to_owned();
    let (event, delivery) = (of("eventId"), of("deliveryId"));
    let phone = delivered["event"]["phoneNumber"].as_str().expect("a phone number");
    let endpoint = app.receiver.url("/");
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
        let listed = parse_items(&run_ok(&app, &[&["dead-letters", "list", "--json"], filter].concat()).await);
        assert_eq!(listed.len(), count, "{filter:?}");
    }
    let none = run_ok(&app, &["dead-letters", "list", "--campaign", "other"]).await;
    assert_eq!(none, "No dead letter matches.\n");

    let summary = run_ok(&app, &["dead-letters", "summary"]).await;
    for text in ["4 dead letters, from ", "REASON", "gone", "malformed", "4xx", "CAMPAIGN", "13010", "█"] {
        assert!(summary.contains(text), "no {text}: {summary}");
    }

    let exported = run_ok(&app, &["dead-letters", "export"]).await;
    let exported: Vec<Value> = exported.lines().map(parse_json).collect();
    assert_eq!(exported, all);
    // `--json` is accepted, although it is the only format.
    let asked_for = run_ok(&app, &["dead-letters", "export", "--json"]).await;
    assert_eq!(asked_for.lines().map(parse_json).collect::<Vec<_>>(), all);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("dead.ndjson").display().to_string();
    let said = run_ok(&app, &["dead-letters", "export", "--reason", "gone", "-o", &file]).await;
    assert_eq!(said, format!("3 dead letters exported to {file}\n"));
    assert_eq!(std::fs::read_to_string(&file).expect("the file").lines().count(), 3);
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_all_there_is_to_know() {
    let app = start_with_dead_letters(1).await;
    let letter = parse_items(&run_ok(&app, &["dead-letters", "list", "--json"]).await).remove(0);
    let id = letter["id"].as_str().expect("an id");
    let page = run_ok(&app, &["dead-letters", "show", id]).await;
    let again = format!("waypost dead-letters replay {id}");
    for text in [
        id,
        "gone: the receiver wants no further requests at this URL",
        &format!("POST {}", app.receiver.url("/offers")),
        "x-api-key: ",
        "\"phoneNumber\": \"+15550001\"",
        "Attempts",
        "no such offer",
        &again,
    ] {
        assert!(page.contains(text), "no {text}: {page}");
    }
    assert!(page.trim_end().ends_with(&again), "{page}");
    assert_eq!(parse_json(&run_ok(&app, &["dead-letters", "show", id, "--json"]).await)["id"], id);
    run_failing(&app, &["dead-letters", "show", "dl_unknown"], "error: ").await;

    app.amqp.publish(&format!("{}.events", app.prefix), [Message::raw("{\"date\":\"today\"}")]).await;
    wait_for_letter_count(&app, &["--reason", "malformed"], 1).await;
    let malformed =
        parse_items(&run_ok(&app, &["dead-letters", "list", "--reason", "malformed", "--json"]).await).remove(0);
    let page = run_ok(&app, &["dead-letters", "show", malformed["id"].as_str().expect("an id")]).await;
    for text in ["malformed: ", "$.date: ", "{\"date\":\"today\"}"] {
        assert!(page.contains(text), "no {text}: {page}");
    }
}

#[tokio::test]
async fn a_replay_is_followed_until_all_is_delivered() {
    let app = start_with_dead_letters(5).await;
    let before = webhook_ids(&app.receiver);
    app.receiver.reply("/offers", 200);
    app.receiver.clear_requests();

    let plan = run_ok(&app, &["dead-letters", "replay", "--all", "--dry-run"]).await;
    for text in ["5 dead letters would be sent again", "ENDPOINT", "http://127.0.0.1:", "POST ", "x-api-key: "] {
        assert!(plan.contains(text), "no {text}: {plan}");
    }
    assert!(app.receiver.requests().is_empty(), "a dry run sends nothing");

    let printed = app.waypost.cli(&["dead-letters", "replay", "--all"]).await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let id = replay_id(&printed.stdout);
    assert!(printed.stdout.contains(&format!("replay {id} done: 5 delivered, 0 failed, of 5")), "{printed:#?}");
    assert!(printed.stderr.contains("sent 5 of 5 · delivered 5 · failed 0 · done"), "{printed:#?}");
    assert_eq!(webhook_ids(&app.receiver), before);
    wait_for_letter_count(&app, &["--state", "replayed"], 5).await;

    // A finished replay can still be followed and shown.
    assert!(run_ok(&app, &["replays", "follow", &id]).await.contains(" done: 5 delivered"));
    let replay = parse_json(&run_ok(&app, &["replays", "follow", &id, "--json"]).await);
    assert_eq!((&replay["id"], &replay["state"]), (&Value::from(id.as_str()), &Value::from("done")));
    let table = run_ok(&app, &["replays", "list"]).await;
    for text in ["PROGRESS", "██████████", "done", "--all", &id] {
        assert!(table.contains(text), "no {text}: {table}");
    }
    // No pending letter is left.
    run_failing(&app, &["dead-letters", "replay", "--all"], "error: ").await;
    run_failing(&app, &["replays", "follow", "rp_unknown"], "error: ").await;
}

#[tokio::test]
async fn a_failed_replay_exits_with_an_error_and_advice() {
    let app = start_with_dead_letters(3).await;
    let before = ids(&parse_items(&run_ok(&app, &["dead-letters", "list", "--json"]).await));
    let printed =
        run_failing(&app, &["dead-letters", "replay", "--campaign", "13010"], "3 dead letters failed again").await;
    assert!(printed.stdout.contains(" done: 0 delivered, 3 failed, of 3"), "{printed:#?}");
    let command = printed.stderr.lines().find_map(|line| line.trim().strip_prefix("waypost "));
    let command: Vec<&str> = command.expect("a command").split(' ').chain(["--json"]).collect();
    let new = wait_until("the new dead letters", DEFAULT_TIMEOUT, async || {
        let letters = parse_items(&run_ok(&app, &command).await);
        (letters.len() == 3).then_some(letters)
    })
    .await;
    assert!(ids(&new).is_disjoint(&before), "{new:#?}");
    for letter in &new {
        assert!(before.contains(letter["replayOf"].as_str().expect("a letter before")), "{letter:#}");
    }
    // The page of the old letter links to the new one.
    let letter = newest(&new);
    let page = run_ok(&app, &["dead-letters", "show", text_field(letter, "replayOf")]).await;
    let id = text_field(letter, "id");
    assert!(page.contains(&format!("dead again, as {id}")), "{page}");

    // The result as JSON, for a script.
    let printed = run_failing(&app, &["dead-letters", "replay", id, "--json"], "1 dead letter failed again").await;
    assert_eq!(parse_json(&printed.stdout)["failed"], 1);
}

#[tokio::test]
async fn ctrl_c_leaves_a_replay_to_the_worker() {
    let app = start_with_dead_letters(20).await;
    app.receiver.reply("/offers", 200);
    app.receiver.clear_requests();
    let (run, _folder) = spawn(&app, &["dead-letters", "replay", "--all", "--rate", "2"]);
    run.wait_for_stderr("sent ").await;
    run.interrupt();
    let printed = run.wait_for_exit().await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    let id = replay_id(&printed.stdout);
    for command in ["follow", "pause", "cancel"] {
        assert!(printed.stderr.contains(&format!("waypost replays {command} {id}")), "{printed:#?}");
    }
    assert!(run_ok(&app, &["replays", "follow", &id]).await.contains(" done: 20 delivered"));
    assert_eq!(webhook_ids(&app.receiver).len(), 20);
}

#[tokio::test]
async fn following_a_replay_survives_a_worker_restart() {
    let app = TestApp::builder().process().start().await;
    create_dead_letters(&app, 20).await;
    app.receiver.reply("/offers", 200);
    app.receiver.clear_requests();
    let (run, _folder) = spawn(&app, &["dead-letters", "replay", "--all", "--rate", "2"]);
    app.receiver.expect_any().at_least(2).await;
    run.wait_for_stderr("sent ").await;
    app.waypost.kill().await;
    run.wait_for_stderr("asking again").await;
    app.waypost.restart().await;
    let printed = run.wait_for_exit().await;
    assert_eq!(printed.code, Some(0), "{printed:#?}");
    assert!(printed.stderr.contains("the server answers again"), "{printed:#?}");
    assert!(printed.stdout.contains(" done: 20 delivered, 0 failed"), "{printed:#?}");
    assert_eq!(webhook_ids(&app.receiver).len(), 20);
}

#[tokio::test]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let app = start_with_dead_letters(10).await;
    app.receiver.reply("/offers", 200);
    let detached = ["dead-letters", "replay", "--campaign", "13010", "--rate", "0.2", "--detach"];
    let printed = run_ok(&app, &detached).await;
    let id = replay_id(&printed);
    assert!(printed.contains(&format!("waypost replays follow {id}")), "{printed}");

    assert!(run_ok(&app, &["replays", "pause", &id]).await.contains(&format!("replay {id} paused: ")));
    run_failing(&app, &["replays", "pause", &id], "error: ").await;
    let listed = parse_items(&run_ok(&app, &["replays", "list", "--json"]).await);
    let listed = only(&listed);
    assert_eq!((&listed["id"], &listed["state"]), (&Value::from(id.as_str()), &Value::from("paused")));
    let page = run_ok(&app, &["replays", "show", &id]).await;
    for text in ["paused", "--campaign 13010", "at most 0.2 a second", &format!("waypost replays resume {id}")] {
        assert!(page.contains(text), "no {text}: {page}");
    }
    let resumed = parse_json(&run_ok(&app, &["replays", "resume", &id, "--json"]).await);
    assert_eq!(resumed["state"], "running");

    // Following a cancelled replay reports the cancellation.
    let (run, _folder) = spawn(&app, &["replays", "follow", &id]);
    run.wait_for_stderr("sent ").await;
    let cancel = ["replays", "cancel", &id];
    let printed = app.waypost.cli(&cancel).await;
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(2), ""), "{printed:#?}");
    assert!(printed.stderr.contains("dead letters were not sent, and will be pending again"), "{printed:#?}");
    let dry = parse_json(&run_ok(&app, &[&cancel[..], &["--dry-run", "--json"]].concat()).await);
    assert!(dry["unsent"].as_u64().is_some_and(|unsent| (1..=10).contains(&unsent)), "{dry}");
    assert_eq!(parse_json(&run_ok(&app, &["replays", "show", &id, "--json"]).await)["state"], "running");
    run_ok(&app, &[&cancel[..], &["--yes"]].concat()).await;
    let printed = run.wait_for_exit().await;
    assert_eq!(printed.code, Some(1), "{printed:#?}");
    assert!(printed.stderr.contains("error: cancelled: "), "{printed:#?}");
    assert!(printed.stderr.contains("waypost dead-letters replay --campaign 13010"), "{printed:#?}");
    for command in ["resume", "pause", "cancel"] {
        run_failing(&app, &["replays", command, &id], "error: ").await;
    }
    let replay = parse_json(&run_ok(&app, &["replays", "show", &id, "--json"]).await);
    let sent = usize::try_from(replay["sent"].as_u64().expect("a number")).expect("a small number");
    wait_for_letter_count(&app, &["--state", "pending"], 10 - sent).await;
}

#[tokio::test]
async fn a_failing_replay_stops_itself() {
    let app = start_with_dead_letters(40).await;
    let arguments = ["dead-letters", "replay", "--all", "--stop-on-failure-ratio", "0.5"];
    let printed = run_failing(&app, &arguments, "stopped by the failure ratio (0.5)").await;
    assert!(printed.stderr.contains("waypost dead-letters list --since"), "{printed:#?}");
}

#[tokio::test]
async fn discarded_letters_show_the_reason() {
    let app = start_with_dead_letters(3).await;
    let letters = parse_items(&run_ok(&app, &["dead-letters", "list", "--json"]).await);
    let id = text_field(newest(&letters), "id");
    let discard = ["dead-letters", "discard", id, "--because", "a test"];
    let printed = app.waypost.cli(&discard).await;
    assert_eq!((printed.code, printed.stdout.as_str()), (Some(2), ""), "{printed:#?}");
    for text in ["this would discard 1 dead letter of campaign 13010, sent to http://", "--yes"] {
        assert!(printed.stderr.contains(text), "{printed:#?}");
    }
    let dry = run_ok(&app, &["dead-letters", "discard", "--status", "410", "--dry-run"]).await;
    assert!(dry.starts_with("would discard 3 dead letters of campaign 13010, sent to http://"), "{dry}");
    let dry = run_ok(&app, &["dead-letters", "discard", "--status", "404", "--dry-run", "--json"]).await;
    assert_eq!(parse_json(&dry)["total"], 0);
    wait_for_letter_count(&app, &["--state", "pending"], 3).await;
    let said = run_ok(&app, &[&discard[..], &["--yes"]].concat()).await;
    assert_eq!(said, "discarded 1 dead letter\n");
    wait_for_letter_count(&app, &["--state", "discarded"], 1).await;
    let page = run_ok(&app, &["dead-letters", "show", id]).await;
    assert!(page.contains("Discarded\n") && page.contains(": a test"), "{page}");

    let filter = ["dead-letters", "discard", "--reason", "gone", "--because", "all of them", "--json", "--yes"];
    assert_eq!(parse_json(&run_ok(&app, &filter).await)["discarded"], 2);
    wait_for_letter_count(&app, &["--state", "discarded"], 3).await;
    run_failing(&app, &filter, "no pending dead letter matches").await;
    run_failing(&app, &["dead-letters", "discard", "dl_unknown", "--because", "a test"], "there is no dead letter")
        .await;
}

/// `waypost dead-letters export | head -1` closes the pipe after one line.
#[tokio::test]
async fn an_export_stops_when_the_pipe_closes() {
    let app = start_with_dead_letters(3).await;
    let script = "\"$0\" dead-letters export | true; echo \"${PIPESTATUS[0]}\"";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_waypost")]).env("WAYPOST_SERVER", app.waypost.url(""));
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it ran").expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
