//! Replays survive what their workers and their broker do not: every letter is sent, and a fault costs no more repetitions
//! than were in flight.

use std::time::Duration;

use serde_json::json;

use crate::stage::{LONG, Stage, chose};
use crate::support::receiver::Request;
use crate::support::{Answer, Broker, Waypost, until};

/// So many letters are in flight at most, and may be sent once more after a fault.
const IN_FLIGHT: usize = 100;

/// Orders a replay of all that is there.
async fn replay_all(stage: &Stage) -> String {
    stage.waypost.order_replay(&json!({ "filter": { "reason": "gone" } })).await
}

/// Waits until a replay of `letters` is done: each was sent, and `faults` made no more repetitions than they may.
async fn all_sent(stage: &Stage, by: &Waypost, replay: &str, letters: usize, faults: usize) {
    let done = by.until_replay_within(LONG, replay, "done").await;
    let counters = ["total", "sent", "delivered", "failed"].map(|name| done[name].clone());
    assert_eq!(counters, [json!(letters), json!(letters), json!(letters), json!(0)], "{done:#}");
    let requests = stage.receiver.by_webhook_id();
    assert_eq!(requests.len(), letters, "letters that were sent");
    let repeated = requests.values().sum::<usize>() - letters;
    assert!(repeated <= faults * IN_FLIGHT, "{repeated} requests too many after {faults} faults");
    by.until_states(&[("replayed", u32::try_from(letters).expect("a small number"))]).await;
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_of_ten_thousand_letters_goes_on() {
    const LETTERS: usize = 10_000;
    let stage = Stage::set("faults", &[]).await;
    stage.bury(3, LETTERS).await;
    let replay = replay_all(&stage).await;
    for so_far in [3_000, 6_000] {
        stage.receiver.until(|requests| requests.len() >= so_far).await;
        stage.waypost.kill().await;
        stage.waypost.restart().await;
    }
    all_sent(&stage, &stage.waypost, &replay, LETTERS, 2).await;
}

#[tokio::test]
async fn a_broker_killed_in_the_middle_of_ten_thousand_letters_costs_none() {
    const LETTERS: usize = 10_000;
    let broker = Broker::private().await;
    let stage = Stage::set_on(&broker.url(), "faults", &[]).await;
    stage.bury(3, LETTERS).await;
    let replay = replay_all(&stage).await;
    stage.receiver.until(|requests| requests.len() >= 3_000).await;
    broker.kill().await;
    broker.start().await;
    all_sent(&stage, &stage.waypost, &replay, LETTERS, 1).await;
    stage.waypost.ready().await;
}

#[tokio::test]
async fn of_two_workers_none_sends_what_the_other_has_sent() {
    const LETTERS: usize = 2_000;
    let stage = Stage::set("faults", &[]).await;
    stage.bury(3, LETTERS).await;
    let second = stage.second().await;
    second.until_total("state=pending", LETTERS).await;
    let replay = second.order_replay(&json!({ "filter": { "reason": "gone" } })).await;
    all_sent(&stage, &stage.waypost, &replay, LETTERS, 0).await;
    all_sent(&stage, &second, &replay, LETTERS, 0).await;
}

#[tokio::test]
async fn when_the_worker_that_replays_is_killed_the_other_goes_on() {
    const LETTERS: usize = 2_000;
    let stage = Stage::set("faults", &[]).await;
    stage.bury(3, LETTERS).await;
    let second = stage.second().await;
    second.until_total("state=pending", LETTERS).await;
    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_millis(100)));
    let replay = replay_all(&stage).await;
    let replays = async |worker: &Waypost| worker.metric("waypost_replayed_total{outcome=\"delivered\"}").await > 0.0;
    let workers = [&stage.waypost, &second];
    let runner = until("one of them to replay", LONG, async || {
        for (number, worker) in workers.into_iter().enumerate() {
            if replays(worker).await {
                return Some(number);
            }
        }
        None
    })
    .await;
    workers[runner].kill().await;
    assert!(stage.receiver.requests().len() < LETTERS, "it came to its end before it could be killed");
    all_sent(&stage, workers[1 - runner], &replay, LETTERS, 1).await;
}

#[tokio::test]
async fn a_queue_of_replays_deleted_under_way_is_not_the_end_of_them() {
    const LETTERS: usize = 2_000;
    let stage = Stage::set("faults", &[]).await;
    stage.bury(3, LETTERS).await;
    let queues = Broker::shared().await.queues(&stage.prefix).await;
    let queues: Vec<&String> = queues.keys().filter(|name| name.contains("replay")).collect();
    assert!(!queues.is_empty(), "replays have no queue");
    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_millis(100)));
    let replay = replay_all(&stage).await;
    stage.receiver.until(|requests| requests.len() >= 200).await;
    for queue in queues {
        stage.amqp.delete_queue(queue).await;
    }
    all_sent(&stage, &stage.waypost, &replay, LETTERS, 1).await;
    stage.waypost.ready().await;
}

#[tokio::test]
async fn asked_to_stop_in_the_middle_it_loses_none_and_sends_none_twice() {
    const LETTERS: usize = 2_000;
    let stage = Stage::set("faults", &[]).await;
    stage.bury(3, LETTERS).await;
    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_millis(100)));
    let replay = replay_all(&stage).await;
    stage.receiver.until(|requests| requests.len() >= 500).await;
    stage.waypost.terminate();
    assert!(stage.waypost.wait().await.success());
    assert!(stage.receiver.requests().len() < LETTERS, "it did not stop");
    stage.waypost.restart().await;
    all_sent(&stage, &stage.waypost, &replay, LETTERS, 0).await;
}

#[tokio::test]
async fn a_large_replay_does_not_hold_up_fresh_events() {
    const LETTERS: usize = 3_000;
    let stage = Stage::set("faults", &[]).await;
    stage.bury(3, LETTERS).await;
    stage.receiver.answer("/agent", Answer::ok().after(Duration::from_millis(150)));
    let replay = replay_all(&stage).await;
    stage.receiver.until(|requests| requests.len() >= 200).await;
    let fresh = |requests: &[Request]| requests.iter().filter(|request| request.path() == "/survey").count();
    for number in 0..20 {
        stage.publish(&chose(5, &format!("fresh-{number}"))).await;
        stage.receiver.until_within(Duration::from_secs(10), |requests| fresh(requests) > number).await;
    }
    let under_way = stage.waypost.replay(&replay).await;
    assert_eq!(under_way["state"], json!("running"), "it was over too soon to be in the way: {under_way:#}");
    assert_eq!(stage.waypost.tell_replay(&replay, "cancel").await.status, 200);
    stage.waypost.until_total("state=replaying", 0).await;
}
