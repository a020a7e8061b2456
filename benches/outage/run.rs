//! The measurement: fresh events alone, the outage, and the minute after the endpoints have come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use waypost_broker::delay_queues::{DelayQueue, next_delay_queue};
use waypost_broker::names::Names;

use super::Options;
use super::common::delays::Delays;
use super::common::load::{Load, Scenario};
use super::common::process;
use super::common::progress::bar;
use super::common::publisher::Pace;
use super::common::receiver::{EndpointBehavior, Receiver, Transport};
use super::ladder::{BATCH, DueGroup, WaitingDelivery};
use super::support::amqp::Message;
use super::support::{Amqp, Broker, Waypost, unique};

/// Endpoints that were never away.
const HEALTHY: usize = 100;

/// Concurrent requests that store campaigns.
const CONCURRENT_PUTS: usize = 16;

/// Publishing is assumed to be at least this fast. If it is slower, some deliveries are due before the endpoints return.
const PUBLISHED_PER_SECOND: f64 = 20_000.0;

/// Messages that are published before the broker's confirms are awaited.
const MESSAGES_AT_ONCE: usize = 500;

const WARM_UP: Duration = Duration::from_secs(3);

/// How long to wait for the last fresh events.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long fresh events are measured while nothing waits.
const QUIET_TIME: Duration = Duration::from_secs(20);

const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) struct OutageResults {
    pub(crate) machine: String,
    pub(crate) rabbitmq: String,
    pub(crate) published: u64,
    /// How long it took to publish the waiting deliveries.
    pub(crate) publishing: Duration,
    /// The delays of fresh events without waiting deliveries, and after the return.
    pub(crate) quiet: Option<Delays>,
    pub(crate) meanwhile: Option<Delays>,
    pub(crate) returned: ReturnResult,
    pub(crate) rest: Rest,
    pub(crate) duplicates: u64,
    pub(crate) peak_memory: u64,
}

/// The time after the endpoints have come back.
pub(crate) struct ReturnResult {
    pub(crate) samples: Vec<Sample>,
    /// Waiting deliveries that were delivered until the end of the measured time.
    pub(crate) delivered: u64,
    /// The time until all were delivered, if that was within the measured time. Otherwise the measured time.
    pub(crate) took: Duration,
}

impl ReturnResult {
    pub(crate) fn per_second(&self) -> f64 {
        self.delivered as f64 / self.took.as_secs_f64()
    }
}

/// The deliveries after the measured time, without fresh events.
pub(crate) struct Rest {
    pub(crate) delivered: u64,
    /// Until the last of them.
    pub(crate) took: Duration,
    /// Not delivered within the limit.
    pub(crate) left: u64,
}

struct CpuTimes {
    worker: Duration,
    broker: Duration,
}

/// The state at a time after the endpoints have come back.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) delivered: u64,
    /// Messages in all delay queues, and in the retries queue.
    pub(crate) delayed: u64,
    pub(crate) due: u64,
    /// CPU time since the return.
    pub(crate) worker_cpu: Duration,
    pub(crate) broker_cpu: Duration,
}

impl Sample {
    pub(crate) fn start() -> Self {
        Self {
            at: Duration::ZERO,
            delivered: 0,
            delayed: 0,
            due: 0,
            worker_cpu: Duration::ZERO,
            broker_cpu: Duration::ZERO,
        }
    }
}

struct Stage {
    broker: Broker,
    receiver: Receiver,
    load: Load,
    names: Names,
    amqp: Amqp,
    waypost: Waypost,
}

pub(crate) async fn run(options: &Options) -> OutageResults {
    let stage = Stage::start(options).await;
    let quiet = stage.quiet(options).await;

    let outage = options.outage();
    let began = Instant::now();
    let publishing = Duration::from_secs_f64(outage.deliveries as f64 / PUBLISHED_PER_SECOND) + WARM_UP;
    let back_at = Utc::now() + publishing;
    stage.publish_waiting(options, back_at).await;
    let published_in = began.elapsed();
    // Fresh events flow before the endpoints come back.
    tokio::time::sleep_until((began + publishing - WARM_UP).into()).await;

    let pace = fresh_pace(options, options.measured());
    stage.receiver.expect(pace.events());
    let return_at = Instant::now() + WARM_UP;
    let ((), returned) = tokio::join!(stage.publish_fresh(pace), stage.observe_return(options, return_at));
    let meanwhile = stage.fresh_delays(pace).await;
    let rest = stage.deliver_rest(options).await;
    let duplicates = stage.receiver.tally().waiting_duplicates;
    OutageResults {
        machine: process::machine(),
        rabbitmq: stage.broker.ctl(&["version"]).await.trim().to_owned(),
        published: outage.deliveries,
        publishing: published_in,
        quiet,
        meanwhile,
        returned,
        rest,
        duplicates,
        peak_memory: process::peak_memory(stage.waypost.pid()),
    }
}

fn fresh_pace(options: &Options, measured: Duration) -> Pace {
    Pace { per_second: f64::from(options.rate), warm_up: WARM_UP, measured }
}

impl Stage {
    /// Starts a worker with the campaigns of all endpoints.
    async fn start(options: &Options) -> Self {
        let broker = Broker::private().await;
        let healthy = std::iter::repeat_n(EndpointBehavior::Healthy, HEALTHY);
        let failing = std::iter::repeat_n(EndpointBehavior::Failing, options.endpoints);
        let receiver = Receiver::start(&healthy.chain(failing).collect::<Vec<_>>(), Transport::Plain);
        let scenario = Scenario { healthy: HEALTHY, hanging: 0, transport: Transport::Plain };
        let load = Load::new(scenario, receiver.urls());
        let (prefix, url) = (unique("outage"), broker.url());
        let waypost = Waypost::start(&url, &prefix).await;
        let puts = futures_util::stream::iter(load.campaigns())
            .map(async |campaign| drop(waypost.put_campaign(&campaign).await));
        puts.buffer_unordered(CONCURRENT_PUTS).collect::<()>().await;
        let amqp = Amqp::connect(&url).await;
        Self { broker, receiver, load, names: Names::new(&prefix), amqp, waypost }
    }

    /// The delays of fresh events while nothing waits.
    async fn quiet(&self, options: &Options) -> Option<Delays> {
        let pace = fresh_pace(options, QUIET_TIME);
        self.receiver.expect(pace.events());
        self.publish_fresh(pace).await;
        self.fresh_delays(pace).await
    }

    async fn publish_fresh(&self, pace: Pace) {
        let channel = self.amqp.channel().await;
        let bar = bar(pace.events(), "fresh events");
        pace.publish(channel, &self.names.events(), &self.load, self.receiver.epoch(), || bar.inc(1)).await;
        bar.finish_and_clear();
    }

    /// `None` without fresh events.
    async fn fresh_delays(&self, pace: Pace) -> Option<Delays> {
        let end = Instant::now() + PATIENCE;
        while self.receiver.tally().received < pace.events() && Instant::now() < end {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        (pace.events() > 0).then(|| Delays::new(self.receiver.tally().latencies.clone(), pace.events()))
    }

    /// Publishes the waiting deliveries to the delay queues in which a worker would put them. As many as a worker allows
    /// share a message.
    async fn publish_waiting(&self, options: &Options, back_at: DateTime<Utc>) {
        let outage = options.outage();
        let bar = bar(outage.deliveries, "publishing deliveries to the delay queues");
        let mut batches: BTreeMap<u32, (DelayQueue, Vec<Vec<u8>>)> = BTreeMap::new();
        let message = |queue: DelayQueue, deliveries: Vec<Vec<u8>>| {
            let body = [b"[".as_slice(), &deliveries.join(b",".as_slice()), b"]"].concat();
            Message::raw(body).key(&self.names.delay(queue))
        };
        let mut full = Vec::new();
        for DueGroup { deliveries, due_after } in outage.groups() {
            bar.inc(deliveries.len() as u64);
            let due = back_at + due_after;
            let queue = next_delay_queue(due, Utc::now()).unwrap_or(DelayQueue::SHORTEST);
            let (_, batch) = batches.entry(queue.seconds()).or_insert_with(|| (queue, Vec::new()));
            for WaitingDelivery { number, endpoint, attempts } in deliveries {
                batch.push(self.load.waiting(number, HEALTHY + endpoint, attempts, due));
            }
            if batch.len() as u64 >= BATCH {
                full.push(message(queue, std::mem::take(batch)));
            }
            if full.len() >= MESSAGES_AT_ONCE {
                self.amqp.publish("", full.drain(..)).await;
            }
        }
        let rest = batches.into_values().filter(|(_, batch)| !batch.is_empty());
        self.amqp.publish("", full.into_iter().chain(rest.map(|(queue, batch)| message(queue, batch)))).await;
        bar.finish_and_clear();
    }

    /// Lets the endpoints come back at a time, and observes what happens for the measured time.
    async fn observe_return(&self, options: &Options, return_at: Instant) -> ReturnResult {
        tokio::time::sleep_until(return_at.into()).await;
        for endpoint in 0..options.endpoints {
            self.receiver.set_behavior(HEALTHY + endpoint, EndpointBehavior::Healthy);
        }
        let before = self.cpu();
        let bar = bar(options.deliveries, "delivering what waited");
        let mut samples = Vec::new();
        let mut next = return_at + SAMPLE_INTERVAL;
        let end = return_at + options.measured();
        let took = loop {
            let delivered = self.receiver.tally().waiting;
            bar.set_position(delivered);
            let (now, is_over) = (Instant::now(), delivered >= options.deliveries);
            if now >= next || is_over {
                let [delayed, due] = self.depths().await;
                let cpu = self.cpu();
                samples.push(Sample {
                    at: return_at.elapsed(),
                    delivered: self.receiver.tally().waiting,
                    delayed,
                    due,
                    worker_cpu: cpu.worker - before.worker,
                    broker_cpu: cpu.broker - before.broker,
                });
                next += SAMPLE_INTERVAL;
            }
            if is_over || now >= end {
                break return_at.elapsed();
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        bar.finish_and_clear();
        ReturnResult { samples, delivered: self.receiver.tally().waiting, took }
    }

    /// Waits for the deliveries that are left, while no fresh events are published.
    async fn deliver_rest(&self, options: &Options) -> Rest {
        let (began, before) = (Instant::now(), self.receiver.tally().waiting);
        let bar = bar(options.deliveries - before, "delivering the rest without fresh events");
        let limit = Duration::from_secs(options.limit);
        let mut last = (before, began);
        while last.0 < options.deliveries && began.elapsed() < limit {
            tokio::time::sleep(POLL_INTERVAL).await;
            let delivered = self.receiver.tally().waiting;
            if delivered > last.0 {
                last = (delivered, Instant::now());
            }
            bar.set_position(delivered - before);
        }
        bar.finish_and_clear();
        Rest { delivered: last.0 - before, took: last.1 - began, left: options.deliveries - last.0 }
    }

    /// The ready messages in all delay queues together, and in the retries queue.
    async fn depths(&self) -> [u64; 2] {
        let mut delayed = 0;
        for queue in DelayQueue::all() {
            delayed += u64::from(self.amqp.depth(&self.names.delay(queue)).await.unwrap_or_default());
        }
        [delayed, u64::from(self.amqp.depth(&self.names.retries()).await.unwrap_or_default())]
    }

    fn cpu(&self) -> CpuTimes {
        let broker = self.broker.pid().parse().expect("a pid");
        CpuTimes { worker: process::cpu(self.waypost.pid()), broker: process::cpu(broker) }
    }
}
