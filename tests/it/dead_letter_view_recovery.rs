//! The view of dead letters: a worker rebuilds it after loss or damage of its store or of the log, and all workers have
//! the same view.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use waypost_core::replay::ReplayState;

use crate::support::dead_letters::{ids, text_field};
use crate::support::wait::poll_until;
use crate::support::{Answer, DEFAULT_TIMEOUT, Waypost, wait_until};
use crate::test_app::{TestApp, step_event};

/// Four letters: one is pending, one was replayed, one failed again (which adds a letter), and one was discarded.
async fn start_with_every_state() -> TestApp {
    let app = TestApp::builder().process().start().await;
    app.create_dead_letters(3, 4).await;
    let letters = ids(&app.waypost.letters("").await);
    assert_eq!(app.waypost.discard(&json!({ "ids": [letters[0]], "because": "no use" })).await, 1);
    app.receiver.reply("/agent", [200, 500]);
    for (letter, failed) in [(&letters[1], 0), (&letters[2], 1)] {
        let replay = app.waypost.create_replay(&json!({ "ids": [letter] })).await;
        assert_eq!(app.waypost.wait_for_replay(&replay, ReplayState::Done).await.failed, failed);
    }
    for (state, count) in [("pending", 2), ("replaying", 0), ("replayed", 2), ("discarded", 1)] {
        app.waypost.wait_for_letter_count(&format!("state={state}"), count).await;
    }
    app
}

/// All responses of a worker about letters and replays.
async fn read_everything(waypost: &Waypost) -> Vec<Value> {
    let letters = waypost.letters("").await;
    let mut responses = vec![waypost.summary("").await];
    for id in ids(&letters) {
        responses.push(waypost.letter(&id).await);
    }
    responses.extend(letters);
    responses.push(waypost.get("/v1/replays").await.json());
    responses
}

/// Waits until a worker returns these responses.
async fn assert_shows(waypost: &Waypost, responses: &[Value]) {
    poll_until(DEFAULT_TIMEOUT, async || (read_everything(waypost).await == responses).then_some(())).await;
    assert_eq!(read_everything(waypost).await, responses);
}

/// Kills the worker, damages its store, and asserts the same responses after a restart.
async fn assert_same_after(harm: impl Fn(&Path)) {
    let app = start_with_every_state().await;
    let responses = read_everything(&app.waypost).await;
    app.waypost.kill().await;
    harm(&app.waypost.store_path());
    app.waypost.restart().await;
    assert_shows(&app.waypost, &responses).await;
    app.waypost.wait_for_state_counts(&[("pending", 2), ("replayed", 2), ("discarded", 1)]).await;
    // New letters and replays still work.
    app.create_dead_letters(4, 2).await;
    app.waypost.wait_for_letter_count("state=pending", 4).await;
}

#[tokio::test]
async fn a_killed_worker_shows_the_same() {
    assert_same_after(|_| ()).await;
}

#[tokio::test]
async fn a_worker_without_its_store_shows_the_same() {
    assert_same_after(|store| std::fs::remove_dir_all(store).expect("the store is deleted")).await;
}

#[tokio::test]
async fn a_worker_with_damaged_files_shows_the_same() {
    assert_same_after(|store| assert!(damage_files(store) >= 2, "no files to damage in {}", store.display())).await;
}

/// Overwrites all files of sled in a folder, and returns their number.
fn damage_files(folder: &Path) -> usize {
    let entries =
        std::fs::read_dir(folder).expect("a folder of the store").map(|entry| entry.expect("an entry").path());
    let damaged = entries.map(|path| {
        if path.is_dir() {
            return damage_files(&path);
        }
        let is_sleds = ["conf", "db"].iter().any(|name| path.ends_with(name));
        if is_sleds {
            std::fs::write(&path, b"this is not what sled has written").expect("the damage");
        }
        usize::from(is_sleds)
    });
    damaged.sum()
}

/// Returns whether a log line is about dead letters.
fn mentions_letters(line: &str) -> bool {
    ["dead-letters", "dead letters"].iter().any(|name| line.contains(name))
}

#[tokio::test]
async fn a_log_deleted_under_a_running_worker_empties_the_view() {
    let app = start_with_every_state().await;
    let printed = app.waypost.log_lines().len();
    app.amqp.delete_queue(&format!("{}.dead-letters", app.prefix)).await;
    let line = wait_until("a log line about the damage", DEFAULT_TIMEOUT, async || {
        app.waypost.log_lines().into_iter().skip(printed).find(|line| mentions_letters(line))
    });
    line.await;
    app.waypost.wait_for_letter_count("", 0).await;
    app.waypost.wait_for_state_counts(&[]).await;
    app.waypost.wait_until_ready().await;
    app.create_dead_letters(4, 3).await;
    app.waypost.wait_for_state_counts(&[("pending", 3)]).await;
    assert_eq!(app.waypost.letters("").await.len(), 3);
}

#[tokio::test]
async fn a_recreated_log_empties_the_view_at_start() {
    let app = start_with_every_state().await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    app.amqp.delete_queue(&format!("{}.dead-letters", app.prefix)).await;
    let printed = app.waypost.log_lines().len();
    app.waypost.restart().await;
    app.waypost.wait_for_letter_count("", 0).await;
    app.waypost.wait_for_state_counts(&[]).await;
    assert!(
        app.waypost.log_lines().iter().skip(printed).any(|line| mentions_letters(line)),
        "the log does not mention it"
    );
    app.create_dead_letters(4, 3).await;
    app.waypost.wait_for_state_counts(&[("pending", 3)]).await;
}

#[tokio::test]
async fn the_metric_follows_the_states() {
    let app = TestApp::start().await;
    app.waypost.wait_for_state_counts(&[]).await;
    app.create_dead_letters(3, 6).await;
    app.waypost.wait_for_state_counts(&[("pending", 6)]).await;
    let letters = ids(&app.waypost.letters("").await);
    app.waypost.discard(&json!({ "ids": letters[..2] })).await;
    app.waypost.wait_for_state_counts(&[("pending", 4), ("discarded", 2)]).await;

    app.receiver.reply("/agent", Answer::ok().after(Duration::from_secs(1)));
    let replay = app.waypost.create_replay(&json!({ "ids": letters[2..5] })).await;
    app.waypost.wait_for_state_counts(&[("pending", 1), ("replaying", 3), ("discarded", 2)]).await;
    app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    app.waypost.wait_for_state_counts(&[("pending", 1), ("replayed", 3), ("discarded", 2)]).await;
}

#[tokio::test]
async fn all_workers_show_the_same_states() {
    let app = start_with_every_state().await;
    let second = app.start_second_worker().await;
    assert_shows(&second, &read_everything(&app.waypost).await).await;

    // The other worker sees the same.
    let pending = ids(&app.waypost.letters("state=pending").await);
    assert_eq!(second.discard(&json!({ "ids": [pending[0]], "because": "discarded at the second" })).await, 1);
    app.waypost.wait_for_letter_count("state=discarded", 2).await;
    let letter = app.waypost.letter(&pending[0]).await;
    assert_eq!(text_field(&letter["discard"], "because"), "discarded at the second");
    app.receiver.reply("/agent", 200);
    let replay = second.create_replay(&json!({ "ids": [pending[1]] })).await;
    for worker in [&second, &app.waypost] {
        worker.wait_for_replay(&replay, ReplayState::Done).await;
        worker.wait_for_letter_count("state=replayed", 3).await;
    }
    app.receiver.reply("/agent", 410);
    app.publish(step_event().keyword(3).id("after")).await;
    for worker in [&second, &app.waypost] {
        worker.wait_for_state_counts(&[("pending", 1), ("replayed", 3), ("discarded", 2)]).await;
    }
    assert_shows(&second, &read_everything(&app.waypost).await).await;
}
