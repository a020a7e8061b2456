//! The end of a drill: all faults are over, and the remaining messages must be processed.

use std::time::Duration;

use waypost_broker::delay_queues::DelayQueue;
use waypost_broker::names::Names;

use super::setup::{ChaosSetup, is_ready};
use crate::support::Amqp;
use crate::support::wait::poll_until;

/// All attempts of a delivery take at most a minute. A receiver that failed for half a minute is tried again after
/// another half.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// The work that was left at the deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DrainResult {
    Drained {
        after: Duration,
    },
    TimedOut {
        left: String,
        /// What the broker and the workers report about the remaining work.
        diagnosis: String,
        /// The work left after the quorum queues with messages have new leaders. Empty if RabbitMQ held the messages
        /// for channels that had ended.
        left_by_new_leaders: String,
    },
}

/// The `rabbitmqctl` commands to run if work is left.
const DIAGNOSTIC_COMMANDS: [&[&str]; 4] = [
    &["list_queues", "name", "messages", "messages_ready", "messages_unacknowledged", "consumers", "leader", "online"],
    &["list_consumers", "queue_name", "channel_pid", "consumer_tag", "prefetch_count", "active"],
    &["list_channels", "pid", "connection", "consumer_count", "messages_unacknowledged", "messages_uncommitted"],
    &["list_connections", "pid", "client_properties", "state", "peer_port"],
];

/// New leaders need this long at most to deliver the messages that the old leaders held.
const NEW_LEADERS_TIMEOUT: Duration = Duration::from_secs(60);

/// An expression for `rabbitmqctl eval` that returns the state of a quorum queue, with its consumers and their
/// unacknowledged messages.
fn queue_state(queue: &str) -> String {
    format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
         ra:leader_query(amqqueue:get_pid(Q), fun(State) -> State end)."
    )
}

/// An expression for `rabbitmqctl eval` that moves the leader of a quorum queue to another member.
fn move_leader(queue: &str) -> String {
    format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
         {{Name, Leader}} = amqqueue:get_pid(Q), \
         Nodes = case maps:get(nodes, amqqueue:get_type_state(Q)) of Map when is_map(Map) -> maps:keys(Map); List -> List end, \
         ra:transfer_leadership({{Name, Leader}}, {{Name, hd(Nodes -- [Leader])}})."
    )
}

/// Waits until no work is left in several polls, because RabbitMQ updates its counters every five seconds.
pub(crate) async fn wait_until_drained(setup: &ChaosSetup) -> DrainResult {
    let url = setup.cluster.nodes()[0].url();

    let began = std::time::Instant::now();
    let mut left = String::new();
    let mut empty_since = None;
    let drained = poll_until(DRAIN_TIMEOUT, async || {
        setup.restart_ended_workers();
        // Connects without a proxy. The node may pause itself, which closes the connection.
        let amqp = Amqp::connect_with_retry(&url).await;
        left = remaining_work(setup, &amqp).await;
        if !left.is_empty() {
            empty_since = None;
            return None;
        }
        let since = *empty_since.get_or_insert_with(std::time::Instant::now);
        (since.elapsed() > Duration::from_secs(6)).then_some(())
    });
    match drained.await {
        Some(()) => DrainResult::Drained { after: began.elapsed() },
        None => {
            let names = Names::new(&setup.prefix);
            let queues = DelayQueue::all().map(|queue| names.delay(queue)).chain([
                names.events(),
                names.retries(),
                names.replays(),
            ]);
            let queues: Vec<String> = queues.filter(|queue| left.contains(&format!("{queue} has"))).collect();
            let mut diagnosis = diagnose(setup, &queues).await;
            for queue in &queues {
                let answer = setup.cluster.ctl(&["eval", &move_leader(queue)]).await;
                diagnosis.push_str(&format!("another leader of {queue}: {answer:?}\n"));
            }
            let amqp = Amqp::connect_with_retry(&url).await;
            let mut left_by_new_leaders = String::new();
            poll_until(NEW_LEADERS_TIMEOUT, async || {
                left_by_new_leaders = remaining_work(setup, &amqp).await;
                left_by_new_leaders.is_empty().then_some(())
            })
            .await;
            DrainResult::TimedOut { left, diagnosis, left_by_new_leaders }
        }
    }
}

async fn diagnose(setup: &ChaosSetup, queues: &[String]) -> String {
    let mut diagnosis = String::new();
    let states: Vec<String> = queues.iter().map(|queue| queue_state(queue)).collect();
    let questions = DIAGNOSTIC_COMMANDS.iter().map(|question| question.to_vec());
    let questions = questions.chain(states.iter().map(|state| vec!["eval", state]));
    for question in questions {
        let question = [vec!["--timeout", "10"], question].concat();
        let answer = setup.cluster.ctl(&question).await.unwrap_or_else(|| "no answer".to_owned());
        diagnosis.push_str(&format!("{question:?}\n{answer}\n"));
    }
    for (number, worker) in setup.workers.iter().enumerate() {
        let ready = match reqwest::get(worker.url("/readyz")).await {
            Ok(reply) => reply.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        diagnosis.push_str(&format!("worker {number}: {ready}\n"));
    }
    diagnosis
}

/// Describes the remaining work. Empty if none is left.
async fn remaining_work(setup: &ChaosSetup, amqp: &Amqp) -> String {
    let mut left = Vec::new();
    for (number, worker) in setup.workers.iter().enumerate() {
        if !is_ready(worker).await {
            left.push(format!("worker {number} is not ready"));
            continue;
        }
        let in_flight = worker.metric("waypost_deliveries_in_flight").await;
        if in_flight > 0.0 {
            left.push(format!("worker {number} has {in_flight} deliveries in flight"));
        }
    }
    let names = Names::new(&setup.prefix);
    let queues =
        DelayQueue::all().map(|rung| names.delay(rung)).chain([names.events(), names.retries(), names.replays()]);
    for queue in queues {
        match amqp.depth(&queue).await {
            Some(0) => {}
            Some(depth) => left.push(format!("{queue} has {depth}")),
            None => left.push(format!("{queue} is not there")),
        }
    }
    if !left.is_empty() {
        return left.join(", ");
    }
    // Unacknowledged messages too. This query is slow, so it comes last.
    let streams = [names.dead_letters(), names.campaigns()];
    let listing = setup.cluster.ctl(&["list_queues", "--no-table-headers", "name", "messages"]).await;
    let Some(listing) = listing else { return "the broker does not answer".to_owned() };
    let queues = listing.lines().filter_map(|line| line.split_once('\t'));
    let queues =
        queues.filter(|(name, _)| name.starts_with(&setup.prefix) && !streams.iter().any(|stream| stream == name));
    let unsettled = queues.filter(|(_, count)| count.trim() != "0");
    unsettled.map(|(name, count)| format!("{name} has {count}")).collect::<Vec<_>>().join(", ")
}
