//! The two measurements: the throughput of a worker with a backlog, and the delay of events at half of that load.

use std::time::{Duration, Instant};

use super::common::delays::Delays;
use super::common::process;
use super::common::publisher::Pace;
use super::common::receiver::HandshakeStats;
use super::setup::BenchSetup;
use super::workers::Worker;

/// A worker that has delivered nothing within this time is broken.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The interval between two progress checks.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// The measurements of a backlog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkResult {
    /// Deliveries per second to healthy endpoints.
    pub(crate) per_second: f64,
    /// CPU time of the worker for 10,000 deliveries.
    pub(crate) cpu_seconds: f64,
    /// Peak resident memory, in bytes.
    pub(crate) peak_memory: u64,
    /// Requests for events that had already been delivered.
    pub(crate) duplicates: u64,
    /// The part of the time in which the receiver's thread was busy, from 0 to 1. Near 1, the receiver is the limit.
    pub(crate) receiver_load: f64,
}

/// Runs a worker with a backlog of `events` events, for at most `limit`. `done` receives the number of deliveries.
pub(crate) async fn measure_backlog(
    stage: &BenchSetup,
    worker: Worker,
    events: u64,
    limit: Duration,
    done: impl Fn(u64),
) -> WorkResult {
    stage.receiver.expect(events);
    let wanted = stage.scenario.healthy_among(events);
    let running = stage.start_worker(worker).await;
    let sample = || (stage.receiver.tally().received, process::cpu(running.pid), stage.receiver.cpu());
    let began = Instant::now();
    let before = loop {
        let sample = sample();
        if sample.0 > 0 {
            break sample;
        }
        assert!(began.elapsed() < WAIT_TIMEOUT, "{} delivered nothing", worker.name());
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    };
    let end = Instant::now() + limit;
    let after = loop {
        let sample = sample();
        done(sample.0);
        if sample.0 >= wanted || Instant::now() > end {
            break sample;
        }
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    };
    let peak_memory = process::peak_memory(running.pid);
    let (took, duplicates) = {
        let tally = stage.receiver.tally();
        // If deliveries are missing, the worker may have stopped long ago, so the full time counts.
        let last = if tally.received >= wanted { tally.last } else { stage.receiver.epoch().elapsed() };
        (last - tally.first, tally.duplicates)
    };
    stage.stop(running).await;
    WorkResult {
        per_second: after.0.saturating_sub(1) as f64 / took.as_secs_f64(),
        cpu_seconds: (after.1 - before.1).as_secs_f64() / (after.0 - before.0).max(1) as f64 * 10_000.0,
        peak_memory,
        duplicates,
        receiver_load: (after.2 - before.2).as_secs_f64() / took.as_secs_f64(),
    }
}

/// The measurements of a steady load.
#[derive(Debug, Clone)]
pub(crate) struct PacedResult {
    pub(crate) delays: Delays,
    /// Retries that were delivered meanwhile.
    pub(crate) retries_delivered: u64,
    /// Retries that were still waiting at the end.
    pub(crate) retries_left: u32,
}

/// Measures the delay of events that are published at a steady pace. Stops waiting `patience` after the last event was
/// published. `done` is called for each published event.
pub(crate) async fn measure_steady_load(
    stage: &BenchSetup,
    worker: Worker,
    pace: Pace,
    patience: Duration,
    done: impl Fn(),
) -> PacedResult {
    stage.receiver.expect(pace.events());
    let wanted = stage.scenario.healthy_among(pace.events());
    let running = stage.start_worker(worker).await;
    stage.wait_for_consumer().await;
    let channel = stage.amqp.channel().await;
    pace.publish(channel, &stage.names.events(), &stage.load, stage.receiver.epoch(), done).await;
    let end = Instant::now() + patience;
    while stage.receiver.tally().received < wanted && Instant::now() < end {
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
    let retries_left = stage.amqp.depth(&stage.names.retries()).await.unwrap_or_default();
    let (received, retries_delivered) = {
        let tally = stage.receiver.tally();
        (tally.latencies.clone(), tally.waiting)
    };
    stage.stop(running).await;
    PacedResult { delays: Delays::new(received, wanted), retries_delivered, retries_left }
}

/// The handshakes of 1,000 endpoints that a worker connects to at once.
#[derive(Debug, Clone)]
pub(crate) struct ReconnectResult {
    pub(crate) handshakes: HandshakeStats,
    pub(crate) per_second: f64,
}

/// Measures the handshakes of a worker with a backlog after all endpoints have closed their connections, until there
/// were as many as endpoints. `None` if the backlog was too short.
pub(crate) async fn measure_reconnect(stage: &BenchSetup, worker: Worker, events: u64) -> Option<ReconnectResult> {
    let endpoints = stage.scenario.healthy as u64;
    stage.receiver.expect(events);
    let running = stage.start_worker(worker).await;
    let began = Instant::now();
    // Twice the number of endpoints, so that each has a connection and a ticket.
    while stage.receiver.tally().received < 2 * endpoints {
        assert!(began.elapsed() < WAIT_TIMEOUT, "{} delivered nothing", worker.name());
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
    stage.receiver.tally().handshakes = HandshakeStats::default();
    stage.receiver.close_connections();
    let closed = Instant::now();
    let reconnected = loop {
        let (handshakes, received) = {
            let tally = stage.receiver.tally();
            (tally.handshakes.clone(), tally.received)
        };
        if handshakes.total() >= endpoints {
            let took = (stage.receiver.epoch() + handshakes.last).saturating_duration_since(closed);
            break Some(ReconnectResult { per_second: handshakes.total() as f64 / took.as_secs_f64(), handshakes });
        }
        if received >= events || closed.elapsed() > WAIT_TIMEOUT {
            break None;
        }
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    };
    stage.stop(running).await;
    reconnected
}
