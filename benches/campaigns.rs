//! Configuration at scale: workers read 100,000 campaigns, also with 500,000 changes behind them, and people search and
//! change them over HTTP. `docs/BENCHMARKS.md` has results.
//!
//! ```text
//! make campaigns                 # 100,000 campaigns
//! make campaigns ARGS=10000
//! ```
//!
//! Fails if a figure is beyond its limit.

#[path = "common/mod.rs"]
mod common;
#[path = "campaigns/documents.rs"]
mod documents;
#[path = "dead_letters/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lapin::Connection;
use reqwest::Method;
use waypost_broker::connection::ConnectionConfig;
use waypost_broker::names::Names;
use waypost_broker::stream_reader::{EndDetection, StreamReader};
use waypost_broker::topology::Topology;
use waypost_broker::topology_status::TopologyStatus;

use common::interrupt::until_interrupted;
use common::target_broker::target_broker;
use documents::{CampaignGenerator, campaign_id, campaign_name, document};
use report::{Times, disk, load, machine, megabytes, memory, milliseconds, rate, seconds, table};
use support::amqp::Message;
use support::{Amqp, Waypost, unique, wait_until};

/// The number of records that are published before their confirms are awaited.
const BATCH: u64 = 10_000;

/// Changes of each campaign in the stream with a history.
const ROUNDS: u64 = 5;

/// Callers that change campaigns at once.
const CALLERS: usize = 16;

/// Changes over HTTP.
const PUTS: u64 = 20_000;

/// Searches and pages of each kind.
const SEARCHES: usize = 50;

const WAIT_TIMEOUT: Duration = Duration::from_secs(1_800);

/// The limits.
const MAX_EMPTY_START: Duration = Duration::from_secs(15);
const MAX_FULL_START: Duration = Duration::from_secs(2);
/// An empty worker takes at most this many times as long as a reader that discards the records.
const MAX_READ_RATIO: f64 = 2.0;
const MAX_MEMORY_BYTES: u64 = 150_000_000;
/// Times the bytes of the documents.
const MAX_DISK_RATIO: f64 = 3.0;
const MIN_PUTS_PER_SECOND: f64 = 2_000.0;
const MAX_SEARCH: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> ExitCode {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(100_000);
    let (url, _private) = target_broker().await;
    let bench = Bench::prepare(url, count).await;
    let ended = until_interrupted(Box::pin(AssertUnwindSafe(bench.run()).catch_unwind())).await;
    // The broker may belong to somebody, so the benchmark removes its objects.
    for configuration in [&bench.plain, &bench.changed] {
        configuration.topology.delete(&bench.connection).await.expect("the declared objects are deleted");
    }
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(code) => code,
    }
}

struct Bench {
    url: String,
    connection: Connection,
    campaigns: CampaignGenerator,
    /// Each campaign was created and never changed.
    plain: Configuration,
    /// Each campaign was changed [`ROUNDS`] times.
    changed: Configuration,
}

/// A campaigns stream.
struct Configuration {
    prefix: String,
    topology: Topology,
    stream: String,
}

/// A figure with its limit.
struct Figure {
    what: String,
    figure: String,
    limit: String,
    is_met: bool,
}

impl Figure {
    fn at_most<T: PartialOrd + Copy>(what: &str, value: T, limit: T, show: impl Fn(T) -> String) -> Self {
        let limit_text = format!("at most {}", show(limit));
        Self { what: what.to_owned(), figure: show(value), limit: limit_text, is_met: value <= limit }
    }

    fn without_limit(what: &str, figure: String) -> Self {
        Self { what: what.to_owned(), figure, limit: String::new(), is_met: true }
    }
}

impl Configuration {
    /// Declares the objects of an unused prefix.
    async fn declare(connection: &Connection) -> Self {
        let prefix = unique("campaigns");
        let names = Names::new(&prefix);
        let stream = names.campaigns();
        let topology = Topology {
            names,
            shards: 1,
            dead_letter_retention: Duration::from_secs(30 * 24 * 60 * 60),
            status: TopologyStatus::default(),
        };
        topology.declare(connection).await.expect("the stream is declared");
        Self { prefix, topology, stream }
    }
}

impl Bench {
    async fn prepare(url: String, count: u64) -> Self {
        let connection = ConnectionConfig::new(url.clone().into()).connect("benchmark").await.expect("a broker");
        let (plain, changed) = (Configuration::declare(&connection).await, Configuration::declare(&connection).await);
        Self { url, connection, campaigns: CampaignGenerator::new(count), plain, changed }
    }

    async fn run(&self) -> ExitCode {
        let count = self.campaigns.count();
        println!("{} campaigns, each with four webhooks. {}", HumanCount(count), machine());
        let mut figures = Vec::new();
        let documents: u64 = (0..100).map(|number| document(number, 0).to_string().len() as u64).sum::<u64>() / 100;
        figures.push(Figure::without_limit("a document", format!("{documents} bytes")));
        let documents = documents * count;

        self.publish(&self.plain, count).await;
        let plain = self.empty_start(&self.plain, "campaigns that were never changed", &mut figures).await;
        figures.push(Figure::at_most("until it is ready", plain.took, MAX_EMPTY_START, seconds));
        plain.worker.kill().await;
        drop(plain);

        let bytes = self.publish(&self.changed, count * (1 + ROUNDS)).await;
        figures.push(Figure::without_limit("a stream with five changes of each campaign", megabytes(bytes)));
        let read = self.read(&self.changed, count * (1 + ROUNDS)).await;
        figures.push(Figure::without_limit("a bare reader reads it", seconds(read)));
        let changed = self.empty_start(&self.changed, "five changes of each campaign", &mut figures).await;
        let ratio = changed.took.as_secs_f64() / read.as_secs_f64();
        figures.push(Figure::without_limit("until it is ready", seconds(changed.took)));
        let times = |ratio: f64| format!("{ratio:.2} times");
        figures.push(Figure::at_most("of the bare reader's time", ratio, MAX_READ_RATIO, times));
        let worker = changed.worker;
        figures.push(Figure::at_most("most memory", memory(worker.pid()).1, MAX_MEMORY_BYTES, megabytes));
        let on_disk = disk(&worker.store_path());
        let ratio = on_disk as f64 / documents as f64;
        figures.push(Figure::without_limit("its store", megabytes(on_disk)));
        figures.push(Figure::at_most("of the documents", ratio, MAX_DISK_RATIO, times));

        let searched = self.search(&worker).await;
        let slowest = searched.iter().map(|(_, times)| times.worst()).max().unwrap_or_default();
        figures.push(Figure::at_most("the slowest search or page", slowest, MAX_SEARCH, milliseconds));
        let (puts, took) = self.put(&worker).await;
        figures.push(Figure {
            what: format!("changes over HTTP, {CALLERS} callers"),
            figure: rate(puts, took),
            limit: format!("at least {}", rate(MIN_PUTS_PER_SECOND as u64, Duration::from_secs(1))),
            is_met: puts as f64 / took.as_secs_f64() >= MIN_PUTS_PER_SECOND,
        });
        figures.push(Figure::at_most("most memory until then", memory(worker.pid()).1, MAX_MEMORY_BYTES, megabytes));

        worker.terminate();
        worker.wait_for_exit().await;
        let stopped = self.restart(&worker).await;
        figures.push(Figure::at_most("ready again after a stop", stopped, MAX_FULL_START, seconds));
        worker.kill().await;
        let killed = self.restart(&worker).await;
        figures.push(Figure::at_most("ready again after kill -9", killed, MAX_FULL_START, seconds));
        figures.push(Figure::at_most("most memory since", memory(worker.pid()).1, MAX_MEMORY_BYTES, megabytes));
        let rows = searched.into_iter().map(|(what, times)| [vec![what], times.cells().to_vec()].concat());
        table("Searches and pages", &["request", "times", "p50", "p99", "worst"], rows);
        verdict(figures)
    }

    /// Writes the first `records` records to a stream, and returns their size in bytes.
    async fn publish(&self, configuration: &Configuration, records: u64) -> u64 {
        let bar = bar(records, "published");
        let amqp = Amqp::connect(&self.url).await;
        let mut bytes = 0;
        for first in (0..records).step_by(BATCH as usize) {
            let batch = (first..records.min(first + BATCH)).map(|offset| {
                let body = self.campaigns.record(offset);
                bytes += body.len() as u64;
                bar.inc(1);
                Message::raw(body).key(&configuration.stream).id(&format!("record-{offset}"))
            });
            amqp.publish("", batch).await;
        }
        bar.finish_and_clear();
        bytes
    }

    /// Reads the stream as a worker does, and discards the records.
    async fn read(&self, configuration: &Configuration, records: u64) -> Duration {
        let bar = bar(records, "read");
        let began = Instant::now();
        let connection = ConnectionConfig::new(self.url.clone().into()).connect("benchmark").await.expect("a broker");
        let reader = StreamReader::open(&connection, &configuration.stream, EndDetection::ByLastChunk, None).await;
        let (mut log, _) = reader.expect("the stream");
        let mut read = 0;
        while !log.is_caught_up() {
            log.next().await.expect("a record");
            read += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        assert_eq!(read, records, "records of the stream");
        began.elapsed()
    }

    /// Starts a worker with an empty store and waits until it is ready.
    async fn empty_start(&self, configuration: &Configuration, what: &str, figures: &mut Vec<Figure>) -> EmptyStart {
        let began = Instant::now();
        let worker = Waypost::launch(&self.url, &configuration.prefix, &[("WAYPOST_LOG__LEVEL", "info")]);
        wait_until_ready(&worker).await;
        let took = began.elapsed();
        let lines = worker.log_lines().len() as u64;
        let newest = worker.get(&format!("/v1/campaigns/{}", campaign_id(1))).await;
        assert_eq!(newest.status, 200, "{newest:?}");
        figures.push(Figure::without_limit(&format!("an empty worker, {what}: lines of its log"), lines.to_string()));
        EmptyStart { worker, took }
    }

    /// Searches in the console, and reads pages of the API.
    async fn search(&self, worker: &Waypost) -> Vec<(String, Times)> {
        eprintln!("searching");
        let last = self.campaigns.count() - 1;
        let name = campaign_name(last).replace(' ', "+");
        let id = campaign_id(last);
        let mut searched = Vec::new();
        for (what, path) in [
            ("search for a name", format!("/campaigns?q={name}")),
            ("search for an id", format!("/campaigns?q={id}")),
            ("search for nothing that exists", "/campaigns?q=no+such+campaign".to_owned()),
            ("search for all", "/campaigns?q=membership".to_owned()),
            ("a late page of the console", format!("/campaigns?after={}", campaign_id(last / 2))),
            ("a late page of the API", format!("/v1/campaigns?limit=100&cursor={}", campaign_id(last / 2))),
        ] {
            let times = Times::of(SEARCHES, async |_| {
                let reply = worker.get(&path).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                let finds_nothing = path.contains("no+such");
                assert!(finds_nothing || reply.body.contains("campaign-0"), "{path}: {reply:?}");
            })
            .await;
            searched.push((what.to_owned(), times));
        }
        searched
    }

    /// Changes campaigns with several callers at once. Returns the number of changes and the duration.
    async fn put(&self, worker: &Waypost) -> (u64, Duration) {
        let puts = PUTS.min(self.campaigns.count());
        let bar = bar(puts, "changed");
        let began = Instant::now();
        let requests = futures_util::stream::iter(0..puts).map(|number| {
            let bar = &bar;
            async move {
                let (path, document) = (format!("/v1/campaigns/{}", campaign_id(number)), document(number, ROUNDS + 1));
                let reply = worker.send(Method::PUT, &path, Some(&document)).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                bar.inc(1);
            }
        });
        requests.buffer_unordered(CALLERS).collect::<()>().await;
        bar.finish_and_clear();
        (puts, began.elapsed())
    }

    /// Starts a worker again with its store. Returns the time until it is ready.
    async fn restart(&self, worker: &Waypost) -> Duration {
        eprintln!("starting the worker again");
        let began = Instant::now();
        worker.relaunch(&[]);
        wait_until_ready(worker).await;
        let took = began.elapsed();
        let reply = worker.get(&format!("/v1/campaigns/{}", campaign_id(1))).await;
        assert!(reply.body.contains(&format!("({})", ROUNDS + 1)), "the last change is missing: {reply:?}");
        took
    }
}

struct EmptyStart {
    worker: Waypost,
    took: Duration,
}

async fn wait_until_ready(worker: &Waypost) {
    wait_until("a worker that is ready", WAIT_TIMEOUT, async || {
        assert!(worker.take_exit_status().is_none(), "the worker ended before it was ready");
        let ready = reqwest::get(worker.url("/readyz")).await;
        ready.is_ok_and(|reply| reply.status().is_success()).then_some(())
    })
    .await;
}

/// Prints the figures. Fails if one is beyond its limit.
fn verdict(figures: Vec<Figure>) -> ExitCode {
    let missed: Vec<String> = figures
        .iter()
        .filter(|figure| !figure.is_met)
        .map(|figure| format!("{}: {}", figure.what, figure.figure))
        .collect();
    let rows = figures.into_iter().map(|Figure { what, figure, limit, .. }| vec![what, figure, limit]);
    table("Configuration", &["what", "figure", "limit"], rows);
    println!("\nLoad of the machine at the end: {}.", load());
    if missed.is_empty() {
        println!("All figures are within their limits.");
        return ExitCode::SUCCESS;
    }
    println!("Beyond their limits: {}.", missed.join("; "));
    ExitCode::FAILURE
}

/// A progress bar on a terminal, otherwise a line.
fn bar(length: u64, doing: &str) -> ProgressBar {
    eprintln!("{doing}: …");
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{human_pos}}/{{human_len}} {doing}  {{eta}} left"));
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
