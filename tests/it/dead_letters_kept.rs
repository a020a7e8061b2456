//! The view of the dead letters is one worker's copy of the log: lost, damaged or overtaken, it is the same again, and every
//! worker has the same.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Stage, chose};
use crate::support::letters::{ids, text};
use crate::support::until::poll;
use crate::support::{Answer, PATIENCE, Waypost, until};

/// Four letters of which one is pending, one has been replayed, one has failed again (and is thus two), and one has been
/// discarded.
async fn of_every_state() -> Stage {
    let stage = Stage::set("kept", &[]).await;
    stage.bury(3, 4).await;
    let letters = ids(&stage.waypost.letters("").await);
    assert_eq!(stage.waypost.discard(&json!({ "ids": [letters[0]], "because": "no use" })).await, 1);
    stage.receiver.answer_in_turn("/agent", vec![Answer::ok(), Answer::status(500)]);
    for (letter, failed) in [(&letters[1], 0), (&letters[2], 1)] {
        let replay = stage.waypost.order_replay(&json!({ "ids": [letter] })).await;
        assert_eq!(stage.waypost.until_replay(&replay, "done").await["failed"], json!(failed));
    }
    for (state, count) in [("pending", 2), ("replaying", 0), ("replayed", 2), ("discarded", 1)] {
        stage.waypost.until_total(&format!("state={state}"), count).await;
    }
    stage
}

/// Everything a worker tells about its letters and replays.
async fn all_told(waypost: &Waypost) -> Vec<Value> {
    let letters = waypost.letters("").await;
    let mut told = vec![waypost.summary("").await];
    for id in ids(&letters) {
        told.push(waypost.letter(&id).await);
    }
    told.extend(letters);
    told.push(waypost.get("/v1/replays").await.json());
    told
}

/// Waits until a worker tells the same.
async fn tells(waypost: &Waypost, told: &[Value]) {
    poll(PATIENCE, async || (all_told(waypost).await == told).then_some(())).await;
    assert_eq!(all_told(waypost).await, told);
}

/// Kills the worker, harms its store, and has it tell the same after its start.
async fn tells_the_same_after(harm: impl Fn(&Path)) {
    let stage = of_every_state().await;
    let told = all_told(&stage.waypost).await;
    stage.waypost.kill().await;
    harm(&stage.waypost.store_path());
    stage.waypost.restart().await;
    tells(&stage.waypost, &told).await;
    stage.waypost.until_states(&[("pending", 2), ("replayed", 2), ("discarded", 1)]).await;
    // And it goes on from there.
    stage.bury(4, 2).await;
    stage.waypost.until_total("state=pending", 4).await;
}

#[tokio::test]
async fn a_worker_that_was_killed_tells_the_same() {
    tells_the_same_after(|_| ()).await;
}

#[tokio::test]
async fn a_worker_that_has_lost_its_disk_tells_the_same() {
    tells_the_same_after(|store| std::fs::remove_dir_all(store).expect("the store is deleted")).await;
}

#[tokio::test]
async fn a_worker_whose_disk_was_damaged_tells_the_same() {
    tells_the_same_after(|store| assert!(damage(store) >= 2, "nothing to be damaged in {}", store.display())).await;
}

/// Writes over whatever sled has in a folder, and tells how many files that were.
fn damage(folder: &Path) -> usize {
    let entries =
        std::fs::read_dir(folder).expect("a folder of the store").map(|entry| entry.expect("an entry").path());
    let damaged = entries.map(|path| {
        if path.is_dir() {
            return damage(&path);
        }
        let is_sleds = ["conf", "db"].iter().any(|name| path.ends_with(name));
        if is_sleds {
            std::fs::write(&path, b"this is not what sled has written").expect("the damage");
        }
        usize::from(is_sleds)
    });
    damaged.sum()
}

/// Whether one of these lines is of the dead letters.
fn speaks_of_them(line: &str) -> bool {
    ["dead-letters", "dead letters"].iter().any(|name| line.contains(name))
}

#[tokio::test]
async fn a_log_deleted_under_a_running_worker_empties_the_view() {
    let stage = of_every_state().await;
    let printed = stage.waypost.lines().len();
    stage.amqp.delete_queue(&format!("{}.dead-letters", stage.prefix)).await;
    let line = until("a line about it", PATIENCE, async || {
        stage.waypost.lines().into_iter().skip(printed).find(|line| speaks_of_them(line))
    });
    line.await;
    stage.waypost.until_total("", 0).await;
    stage.waypost.until_states(&[]).await;
    stage.waypost.ready().await;
    stage.bury(4, 3).await;
    stage.waypost.until_states(&[("pending", 3)]).await;
    assert_eq!(stage.waypost.letters("").await.len(), 3);
}

#[tokio::test]
async fn a_log_made_anew_while_the_worker_is_stopped_empties_the_view() {
    let stage = of_every_state().await;
    stage.waypost.terminate();
    assert!(stage.waypost.wait().await.success());
    stage.amqp.delete_queue(&format!("{}.dead-letters", stage.prefix)).await;
    let printed = stage.waypost.lines().len();
    stage.waypost.restart().await;
    stage.waypost.until_total("", 0).await;
    stage.waypost.until_states(&[]).await;
    assert!(stage.waypost.lines().iter().skip(printed).any(|line| speaks_of_them(line)), "nothing is said of it");
    stage.bury(4, 3).await;
    stage.waypost.until_states(&[("pending", 3)]).await;
}

#[tokio::test]
async fn the_metric_follows_the_states() {
    let stage = Stage::set("kept", &[]).await;
    stage.waypost.until_states(&[]).await;
    stage.bury(3, 6).await;
    stage.waypost.until_states(&[("pending", 6)]).await;
    let letters = ids(&stage.waypost.letters("").await);
    stage.waypost.discard(&json!({ "ids": letters[..2] })).await;
    stage.waypost.until_states(&[("pending", 4), ("discarded", 2)]).await;

    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_secs(1)));
    let replay = stage.waypost.order_replay(&json!({ "ids": letters[2..5] })).await;
    stage.waypost.until_states(&[("pending", 1), ("replaying", 3), ("discarded", 2)]).await;
    stage.waypost.until_replay(&replay, "done").await;
    stage.waypost.until_states(&[("pending", 1), ("replayed", 3), ("discarded", 2)]).await;
}

#[tokio::test]
async fn all_workers_show_the_same_states() {
    let stage = of_every_state().await;
    let second = stage.second().await;
    tells(&second, &all_told(&stage.waypost).await).await;

    // What one is told, the other knows.
    let pending = ids(&stage.waypost.letters("state=pending").await);
    assert_eq!(second.discard(&json!({ "ids": [pending[0]], "because": "told to the second" })).await, 1);
    stage.waypost.until_total("state=discarded", 2).await;
    let letter = stage.waypost.letter(&pending[0]).await;
    assert_eq!(text(&letter["discard"], "because"), "told to the second");
    stage.receiver.answer("/agent", Answer::ok());
    let replay = second.order_replay(&json!({ "ids": [pending[1]] })).await;
    for worker in [&second, &stage.waypost] {
        worker.until_replay(&replay, "done").await;
        worker.until_total("state=replayed", 3).await;
    }
    stage.receiver.answer("/agent", Answer::status(410));
    stage.publish(&chose(3, "after")).await;
    for worker in [&second, &stage.waypost] {
        worker.until_states(&[("pending", 1), ("replayed", 3), ("discarded", 2)]).await;
    }
    tells(&second, &all_told(&stage.waypost).await).await;
}
