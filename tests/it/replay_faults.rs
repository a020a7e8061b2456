//! Replays survive crashes of workers and of the broker. Every letter is sent, and a fault repeats at most the requests
//! that were in flight.

use std::time::Duration;

use serde_json::json;
use waypost_core::replay::ReplayState;

use crate::support::receiver::Request;
use crate::support::{Answer, Broker, Waypost, heavy, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, step_event};

/// The maximum number of letters in flight, which may be sent again after a fault.
const MAX_IN_FLIGHT: usize = 100;

/// Creates a replay of all letters.
async fn replay_all(app: &TestApp) -> String {
    app.waypost.create_replay(&json!({ "filter": { "reason": "gone" } })).await
}

/// Waits until a replay of `letters` is done, and asserts that each was sent and that `faults` caused no more
/// repetitions than allowed.
async fn assert_all_sent(app: &TestApp, by: &Waypost, replay: &str, letters: usize, faults: usize) {
    let done = by.wait_for_replay_within(SLOW_TIMEOUT, replay, ReplayState::Done).await;
    let all = letters as u64;
    assert_eq!([done.total, done.sent, done.delivered, done.failed], [all, all, all, 0], "{done:#?}");
    let requests = app.receiver.requests_by_webhook_id();
    assert_eq!(requests.len(), letters, "sent letters");
    let repeated = requests.values().sum::<usize>() - letters;
    assert!(repeated <= faults * MAX_IN_FLIGHT, "{repeated} repeated requests after {faults} faults");
    by.wait_for_state_counts(&[("replayed", u32::try_from(letters).expect("a small number"))]).await;
}

#[tokio::test]
async fn a_killed_worker_continues_with_ten_thousand_letters() {
    const LETTERS: usize = 10_000;
    let _turn = heavy().await;
    let app = TestApp::builder().process().start().await;
    app.create_dead_letters(3, LETTERS).await;
    let replay = replay_all(&app).await;
    for so_far in [3_000, 6_000] {
        app.receiver.expect_any().at_least(so_far).await;
        app.waypost.kill().await;
        app.waypost.restart().await;
    }
    assert_all_sent(&app, &app.waypost, &replay, LETTERS, 2).await;
}

#[tokio::test]
async fn a_killed_broker_loses_none_of_ten_thousand_letters() {
    const LETTERS: usize = 10_000;
    let _turn = heavy().await;
    let broker = Broker::private().await;
    let app = TestApp::builder().broker(&broker.url()).start().await;
    app.create_dead_letters(3, LETTERS).await;
    let replay = replay_all(&app).await;
    app.receiver.expect_any().at_least(3_000).await;
    broker.kill().await;
    broker.start().await;
    assert_all_sent(&app, &app.waypost, &replay, LETTERS, 1).await;
    app.waypost.wait_until_ready().await;
}

#[tokio::test]
async fn two_workers_never_send_the_same_letter() {
    const LETTERS: usize = 2_000;
    let _turn = heavy().await;
    let app = TestApp::start().await;
    app.create_dead_letters(3, LETTERS).await;
    let second = app.start_second_worker().await;
    second.wait_for_letter_count("state=pending", LETTERS).await;
    let replay = second.create_replay(&json!({ "filter": { "reason": "gone" } })).await;
    assert_all_sent(&app, &app.waypost, &replay, LETTERS, 0).await;
    assert_all_sent(&app, &second, &replay, LETTERS, 0).await;
}

#[tokio::test]
async fn another_worker_continues_after_a_kill() {
    const LETTERS: usize = 2_000;
    let _turn = heavy().await;
    let app = TestApp::builder().process().start().await;
    app.create_dead_letters(3, LETTERS).await;
    let second = app.start_second_worker().await;
    second.wait_for_letter_count("state=pending", LETTERS).await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(100)));
    let replay = replay_all(&app).await;
    let replays = async |worker: &Waypost| worker.metric("waypost_replayed_total{outcome=\"delivered\"}").await > 0.0;
    let workers = [&app.waypost, &second];
    let runner = wait_until("a worker that runs the replay", SLOW_TIMEOUT, async || {
        for (number, worker) in workers.into_iter().enumerate() {
            if replays(worker).await {
                return Some(number);
            }
        }
        None
    })
    .await;
    workers[runner].kill().await;
    assert!(app.receiver.requests().len() < LETTERS, "the replay was done before the kill");
    assert_all_sent(&app, workers[1 - runner], &replay, LETTERS, 1).await;
}

#[tokio::test]
async fn replays_survive_the_deletion_of_their_queue() {
    const LETTERS: usize = 2_000;
    let _turn = heavy().await;
    let app = TestApp::start().await;
    app.create_dead_letters(3, LETTERS).await;
    let queues = Broker::shared().await.queues(&app.prefix).await;
    let queues: Vec<&String> = queues.keys().filter(|name| name.ends_with(".replays")).collect();
    assert!(!queues.is_empty(), "replays have no queue");
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(100)));
    let replay = replay_all(&app).await;
    app.receiver.expect_any().at_least(200).await;
    for queue in queues {
        app.amqp.delete_queue(queue).await;
    }
    assert_all_sent(&app, &app.waypost, &replay, LETTERS, 1).await;
    app.waypost.wait_until_ready().await;
}

#[tokio::test]
async fn a_stopped_replay_loses_none_and_sends_none_twice() {
    const LETTERS: usize = 2_000;
    let _turn = heavy().await;
    let app = TestApp::builder().process().start().await;
    app.create_dead_letters(3, LETTERS).await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(100)));
    let replay = replay_all(&app).await;
    app.receiver.expect_any().at_least(500).await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    assert!(app.receiver.requests().len() < LETTERS, "the replay did not stop");
    app.waypost.restart().await;
    assert_all_sent(&app, &app.waypost, &replay, LETTERS, 0).await;
}

#[tokio::test]
async fn a_large_replay_does_not_delay_new_events() {
    const LETTERS: usize = 3_000;
    let _turn = heavy().await;
    let app = TestApp::start().await;
    app.create_dead_letters(3, LETTERS).await;
    app.receiver.reply("/agent", Answer::ok().after(Duration::from_millis(150)));
    let replay = replay_all(&app).await;
    app.receiver.expect_any().at_least(200).await;
    let fresh = |requests: &[Request]| requests.iter().filter(|request| request.path() == "/survey").count();
    for number in 0..20 {
        app.publish(step_event().keyword(5).id(&format!("fresh-{number}"))).await;
        app.receiver.wait_until_within(Duration::from_secs(10), |requests| fresh(requests) > number).await;
    }
    let under_way = app.waypost.replay(&replay).await;
    assert_eq!(under_way.state, ReplayState::Running, "the first replay was done too soon: {under_way:#?}");
    assert_eq!(app.waypost.control_replay(&replay, "cancel").await.status, 200);
    app.waypost.wait_for_letter_count("state=replaying", 0).await;
}
