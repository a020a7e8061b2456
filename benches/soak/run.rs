//! The run: everything at once, with a sample of the worker every few seconds.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use waypost_broker::names::Names;

use super::Options;
use super::common::load::{Load, Scenario};
use super::common::process;
use super::common::progress::bar;
use super::common::publisher::Pace;
use super::common::receiver::{EndpointBehavior, Receiver, Transport};
use super::endpoints::come_and_go;
use super::operator::{OperatorCounts, operate};
use super::support::{Amqp, Broker, Waypost, unique};
use super::trend::Sample;

/// Concurrent requests that store campaigns.
const CONCURRENT_PUTS: usize = 16;

/// Attempts of a delivery take half a minute, so that some deliveries are exhausted.
const SETTINGS: [(&str, &str); 3] =
    [("WAYPOST_RETRY__INITIAL_DELAY", "1s"), ("WAYPOST_RETRY__MULTIPLIER", "2"), ("WAYPOST_RETRY__MAX_ATTEMPTS", "6")];

/// How long the deliveries that wait at the end may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(180);

const MAX_SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// In a short run, this number of samples is enough for a trend.
const SAMPLES: u32 = 100;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct SoakResults {
    pub(crate) machine: String,
    pub(crate) rabbitmq: String,
    pub(crate) samples: Vec<Sample>,
    pub(crate) published: u64,
    /// Distinct events that were delivered, also by replays.
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) dead_letters: u64,
    /// Dead letters whose replay was delivered.
    pub(crate) replayed: u64,
    pub(crate) replays: u64,
    pub(crate) discards: u64,
    pub(crate) refused: u64,
    pub(crate) worker_cpu: Duration,
}

impl SoakResults {
    /// Events that were neither delivered nor became a dead letter.
    pub(crate) fn unaccounted(&self) -> u64 {
        self.published.saturating_sub(self.delivered + self.dead_letters.saturating_sub(self.replayed))
    }
}

pub(crate) async fn run(options: &Options) -> SoakResults {
    let broker = Broker::private().await;
    let receiver = Receiver::start(&vec![EndpointBehavior::Healthy; options.endpoints], Transport::Plain);
    let scenario = Scenario { healthy: options.endpoints, hanging: 0, transport: Transport::Plain };
    let load = Load::new(scenario, receiver.urls());
    let campaigns: Vec<Value> = load.campaigns().collect();
    let (prefix, url) = (unique("soak"), broker.url());
    let names = Names::new(&prefix);
    let retention = format!("{}s", options.retention().as_secs());
    let settings = [SETTINGS.as_slice(), &[("WAYPOST_DEAD_LETTERS__RETENTION", &retention)]].concat();
    let waypost = Waypost::start_with(&url, &prefix, &settings).await;
    let puts = futures_util::stream::iter(&campaigns).map(async |campaign| drop(waypost.put_campaign(campaign).await));
    puts.buffer_unordered(CONCURRENT_PUTS).collect::<()>().await;
    let amqp = Amqp::connect(&url).await;

    let pace = Pace { per_second: f64::from(options.rate), warm_up: Duration::ZERO, measured: options.duration() };
    receiver.expect(pace.events());
    let (began, counts) = (Instant::now(), OperatorCounts::default());
    let until = began + options.duration();
    let bar = bar(pace.events(), "events");
    let sampler = Sampler { broker: &broker, waypost: &waypost, names: &names, counts: &counts, began };
    let interval = MAX_SAMPLE_INTERVAL.min(options.duration() / SAMPLES);
    let (channel, events) = (amqp.channel().await, names.events());
    let (samples, (), (), ()) = tokio::join!(
        sampler.run(interval, until, |sample| {
            bar.set_message(format!("{} edits, {:.0} MB", sample.edits, sample.memory as f64 / 1e6));
        }),
        pace.publish(channel, &events, &load, receiver.epoch(), || bar.inc(1)),
        come_and_go(&receiver, options.endpoints, until),
        operate(&waypost, &campaigns, &counts, until),
    );
    bar.finish_and_clear();

    let end = Instant::now() + DRAIN_TIMEOUT;
    loop {
        let metrics = waypost.metrics().await;
        let sum = |name: &str| {
            let with_labels = format!("{name}{{");
            metrics.iter().filter(|(key, _)| key.starts_with(&with_labels)).map(|(_, value)| *value as u64).sum::<u64>()
        };
        let (delivered, duplicates) = {
            let tally = receiver.tally();
            (tally.received, tally.duplicates)
        };
        let results = SoakResults {
            machine: process::machine(),
            rabbitmq: String::new(),
            samples: samples.clone(),
            published: pace.events(),
            delivered,
            duplicates,
            dead_letters: sum("waypost_dead_letters_total"),
            replayed: metrics.get("waypost_replayed_total{outcome=\"delivered\"}").copied().unwrap_or_default() as u64,
            replays: counts.replays.load(Ordering::Relaxed),
            discards: counts.discards.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            worker_cpu: process::cpu(waypost.pid()),
        };
        if results.unaccounted() == 0 || Instant::now() > end {
            let rabbitmq = broker.ctl(&["version"]).await.trim().to_owned();
            return SoakResults { rabbitmq, ..results };
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

struct Sampler<'a> {
    broker: &'a Broker,
    waypost: &'a Waypost,
    names: &'a Names,
    counts: &'a OperatorCounts,
    began: Instant,
}

impl Sampler<'_> {
    async fn run(&self, interval: Duration, until: Instant, done: impl Fn(&Sample)) -> Vec<Sample> {
        let mut interval = tokio::time::interval(interval);
        let mut samples = Vec::new();
        while Instant::now() < until {
            interval.tick().await;
            let sample = self.sample().await;
            done(&sample);
            samples.push(sample);
        }
        samples
    }

    async fn sample(&self) -> Sample {
        let pid = self.waypost.pid();
        Sample {
            at: self.began.elapsed(),
            memory: process::memory(pid),
            open_files: process::open_files(pid),
            threads: process::threads(pid),
            in_hand: self.waypost.metric("waypost_deliveries_in_hand").await as u64,
            store: folder_bytes(&self.waypost.store_path(), ""),
            dead_letters: self.stream_bytes(&self.names.dead_letters()),
            campaigns: self.stream_bytes(&self.names.campaigns()),
            edits: self.counts.edits(),
        }
    }

    /// RabbitMQ writes the dots of a stream's name as underscores in the name of its folder.
    fn stream_bytes(&self, stream: &str) -> u64 {
        folder_bytes(&self.broker.data_path().join("stream"), &stream.replace('.', "_"))
    }
}

/// The bytes of all files below a folder whose path contains `name`. A file may be deleted in the meantime.
fn folder_bytes(folder: &Path, name: &str) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            if metadata.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(name) {
                bytes += metadata.len();
            }
        }
    }
    bytes
}
