//! The two measurements: the throughput of a worker with a backlog, and the delay of events at half of that load.

use std::time::{Duration, Instant};

use super::process;
use super::publisher::Pace;
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
    let sample = || (stage.receiver.tally().received, process::cpu(running.pid));
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
    }
}

/// The delays from when an event was due to be published until a healthy endpoint received it.
#[derive(Debug, Clone)]
pub(crate) struct Delays {
    /// In microseconds, in ascending order.
    received: Vec<u32>,
    /// The number of events for healthy endpoints.
    wanted: u64,
}

impl Delays {
    /// The delay at a quantile. `None` if too few events arrived.
    pub(crate) fn part(&self, part: f64) -> Option<Duration> {
        let place = (self.wanted as f64 * part).ceil() as usize;
        let micros = self.received.get(place.saturating_sub(1))?;
        Some(Duration::from_micros(u64::from(*micros)))
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
    let (mut received, retries_delivered) = {
        let tally = stage.receiver.tally();
        (tally.latencies.clone(), tally.retries)
    };
    stage.stop(running).await;
    received.sort_unstable();
    PacedResult { delays: Delays { received, wanted }, retries_delivered, retries_left }
}
