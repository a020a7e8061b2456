//! Performance with a million dead letters: they are written to a broker, a worker builds its view, and the operations
//! of people are timed over HTTP, with the worker's memory. `docs/BENCHMARKS.md` has results.
//!
//! ```text
//! make dead-letters                 # 1,000,000 dead letters
//! make dead-letters ARGS=100000
//! ```
//!
//! Fails if a page of a list took more than 50 ms.

#[path = "common/mod.rs"]
mod common;
#[path = "dead_letters/letters.rs"]
mod letters;
#[path = "dead_letters/pages.rs"]
mod pages;
#[path = "dead_letters/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
mod support;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use futures_util::{FutureExt as _, StreamExt as _};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lapin::Connection;
use serde_json::{Value, json};
use waypost_broker::connection::ConnectionConfig;
use waypost_broker::names::Names;
use waypost_broker::stream_reader::{EndDetection, StreamReader};
use waypost_broker::topology::Topology;
use waypost_broker::topology_status::TopologyStatus;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::replay::ReplayState;

use common::interrupt::until_interrupted;
use common::target_broker::target_broker;
use letters::{LetterGenerator, campaign_id};
use pages::{List, MAX_PAGE_TIME, PageTimings};
use report::{Times, disk, load, machine, megabytes, memory, milliseconds, rate, seconds, table};
use support::amqp::Message;
use support::background_server::BackgroundServer;
use support::{Amqp, Waypost, unique, wait_until};

/// The number of records that are published before their confirms are awaited.
const BATCH: u64 = 10_000;

const WAIT_TIMEOUT: Duration = Duration::from_secs(1_800);

/// Concurrent requests of the bare client that a replay is compared with. A replay has the same number.
const REQUESTS: usize = 16;

#[tokio::main]
async fn main() -> ExitCode {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(1_000_000);
    let (url, _private) = target_broker().await;
    let bench = Bench::prepare(url, count).await;
    let ended = until_interrupted(Box::pin(AssertUnwindSafe(bench.run()).catch_unwind())).await;
    // The broker may belong to somebody, so the benchmark removes its objects.
    bench.topology.delete(&bench.connection).await.expect("the declared objects are deleted");
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(code) => code,
    }
}

struct Bench {
    url: String,
    prefix: String,
    connection: Connection,
    topology: Topology,
    stream: String,
    letters: LetterGenerator,
}

/// The measurements of building a view.
struct ViewBuild {
    took: Duration,
    /// Pairs of the number of letters in the view and the worker's memory.
    memory: Vec<(u64, u64)>,
}

impl ViewBuild {
    /// Rows with the memory at a quarter, half and three quarters of `count` letters.
    fn quarters(&self, count: u64) -> Vec<Vec<String>> {
        let with = |quarter: u64| self.memory.iter().find(|(letters, _)| *letters >= count * quarter / 4);
        let row = |(letters, bytes): &(u64, u64)| {
            vec![format!("the view had {} letters", HumanCount(*letters)), megabytes(*bytes), String::new()]
        };
        (1..4).filter_map(with).map(row).collect()
    }
}

impl Bench {
    /// Declares the stream of dead letters under an unused name.
    async fn prepare(url: String, count: u64) -> Self {
        let prefix = unique("dead-letters");
        let names = Names::new(&prefix);
        let stream = names.dead_letters();
        let topology = Topology {
            names,
            shards: 1,
            dead_letter_retention: Duration::from_secs(30 * 24 * 60 * 60),
            status: TopologyStatus::default(),
        };
        let connection = ConnectionConfig::new(url.clone().into()).connect("benchmark").await.expect("a broker");
        topology.declare(&connection).await.expect("the stream is declared");
        Self { url, prefix, connection, topology, stream, letters: LetterGenerator::new(count) }
    }

    async fn run(&self) -> ExitCode {
        let count = self.letters.count();
        println!("{} dead letters. {}", HumanCount(count), machine());
        let began = Instant::now();
        let bytes = self.publish().await;
        let published = began.elapsed();
        let read = self.read().await;

        let waypost = Waypost::launch(&self.url, &self.prefix, &[]);
        let built = self.build(&waypost).await;
        let mut memories = built.quarters(count);
        let mut remember = |when: &str| {
            let (now, most) = memory(waypost.pid());
            memories.push(vec![when.to_owned(), megabytes(now), megabytes(most)]);
        };
        remember("the view was built");
        let disk_built = disk(&waypost.store_path());
        let (receiver, received) = receiver();
        let campaigns = LetterGenerator::campaigns(receiver.url());
        for campaign in &campaigns {
            waypost.put_campaign(campaign).await;
        }

        let mut lists = follow(&waypost, pages::lists(&self.letters)).await;
        remember("the lists were read");
        let probe = pages::probe(&waypost).await;
        self.assert_rare_letters_found(&lists);
        let others = self.measure_lists(&waypost).await;
        remember("summaries, letters and dry runs were read");

        let restarted = self.restart(&waypost).await;
        remember("it was killed and started again");
        let discarded = self.discard(&waypost).await;
        remember("letters were discarded");
        let bare = bare_requests(receiver.url()).await;
        let before = received.load(Ordering::Relaxed);
        let replayed = self.replay(&waypost).await;
        assert_eq!(received.load(Ordering::Relaxed) - before, replayed.0, "requests for the letters replayed");
        remember("letters were replayed");
        lists.extend(follow(&waypost, pages::lists_afterwards()).await);
        remember("all was done");

        let figure = |what: &str, figure: String, beside: String| vec![what.to_owned(), figure, beside];
        let ratio = |of: Duration, to: Duration| format!("{:.1} times", of.as_secs_f64() / to.as_secs_f64());
        table(
            "Speeds",
            &["what", "figure", "beside"],
            [
                figure("letters published", rate(count, published), format!("{} of JSON", megabytes(bytes))),
                figure("a bare reader reads them", rate(count, read), seconds(read)),
                figure(
                    "an empty worker has them all, from its start",
                    rate(count, built.took),
                    format!("{}, {} the bare reader's time", seconds(built.took), ratio(built.took, read)),
                ),
                figure(
                    "after kill -9, until the list answers",
                    seconds(restarted.list),
                    format!("and letters can be discarded after {}", seconds(restarted.whole)),
                ),
                figure(
                    "letters discarded by a filter",
                    rate(discarded.0, discarded.1),
                    format!("{} in {}", HumanCount(discarded.0), seconds(discarded.1)),
                ),
                figure("a bare client's requests, 16 at once", rate(bare.0, bare.1), seconds(bare.1)),
                figure(
                    "letters replayed, without a rate",
                    rate(replayed.0, replayed.1),
                    format!(
                        "{} in {}, {:.0} % of the bare client's speed",
                        HumanCount(replayed.0),
                        seconds(replayed.1),
                        100.0 * (replayed.0 as f64 / replayed.1.as_secs_f64()) / (bare.0 as f64 / bare.1.as_secs_f64())
                    ),
                ),
                figure(
                    "the store on disk, when built",
                    megabytes(disk_built),
                    format!("{:.2} times the letters' JSON", disk_built as f64 / bytes as f64),
                ),
                figure("and in the end", megabytes(disk(&waypost.store_path())), String::new()),
            ],
        );
        table("The worker's memory", &["after", "resident", "at most so far"], memories);
        let pages = lists.iter().map(|list| {
            let first = list.first.map_or_else(|| "none".to_owned(), |page| page.to_string());
            let [number, median, late, worst] = list.times.cells();
            vec![list.what.clone(), number, HumanCount(list.letters).to_string(), first, median, late, worst]
        });
        let titles = ["filter of the list", "pages", "letters", "first on page", "p50", "p99", "worst"];
        table("Pages of at most 100 letters, up to 200 of each list", &titles, pages);
        let others = std::iter::once(("`GET /healthz`, for comparison".to_owned(), probe)).chain(others);
        let others = others.map(|(what, times)| [vec![what], times.cells().to_vec()].concat());
        table("Other requests", &["request", "times", "p50", "p99", "worst"], others);
        println!("\nLoad of the machine at the end: {}.", load());
        verdict(&lists)
    }

    /// Writes the letters to the stream, and returns their size in bytes.
    async fn publish(&self) -> u64 {
        let count = self.letters.count();
        let bar = bar(count, "published");
        let amqp = Amqp::connect(&self.url).await;
        let mut bytes = 0;
        for first in (0..count).step_by(BATCH as usize) {
            let batch = (first..count.min(first + BATCH)).map(|number| {
                let letter: DeadLetter = self.letters.letter(number);
                let body = serde_json::to_vec(&letter).expect("a letter is JSON");
                bytes += body.len() as u64;
                bar.inc(1);
                Message::raw(body).key(&self.stream).id(letter.id.as_str())
            });
            amqp.publish("", batch).await;
        }
        bar.finish_and_clear();
        bytes
    }

    /// Reads the stream as a worker does, and discards the records.
    async fn read(&self) -> Duration {
        let bar = bar(self.letters.count(), "read");
        let began = Instant::now();
        let address = ConnectionConfig::new(self.url.clone().into());
        let connection = address.connect("benchmark").await.expect("a connection");
        let reader = StreamReader::open(&connection, &self.stream, EndDetection::ByLastChunk, None).await;
        let (mut log, _) = reader.expect("the stream");
        let mut read = 0;
        while !log.is_caught_up() {
            log.next().await.expect("a record");
            read += 1;
            bar.inc(1);
        }
        bar.finish_and_clear();
        assert_eq!(read, self.letters.count(), "records of the stream");
        began.elapsed()
    }

    /// Waits until a worker that started with an empty store has all letters.
    async fn build(&self, waypost: &Waypost) -> ViewBuild {
        let bar = bar(self.letters.count(), "in the view");
        let began = Instant::now();
        waypost.wait_until_ready().await;
        let mut samples = Vec::new();
        let watch = async {
            loop {
                let letters = waypost.metric("waypost_dead_letters{state=\"pending\"}").await as u64;
                samples.push((letters, memory(waypost.pid()).0));
                bar.set_position(letters);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        // The list responds once the view is current.
        let listed = wait_until("the view", WAIT_TIMEOUT, async || {
            (waypost.get("/v1/dead-letters?limit=1").await.status == 200).then_some(())
        });
        tokio::select! {
            () = watch => {}
            () = listed => {}
        }
        let took = began.elapsed();
        bar.finish_and_clear();
        assert_eq!(waypost.count_letters("").await, self.letters.count(), "letters in the view");
        ViewBuild { took, memory: samples }
    }

    /// Checks the results, because timings of wrong results are useless.
    fn assert_rare_letters_found(&self, lists: &[PageTimings]) {
        let (teapots, of_rare_campaign) = self.letters.rarities();
        for (what, expected) in [
            ("418, three letters", teapots),
            ("campaign of five old letters", of_rare_campaign),
            ("endpoint of five old letters", of_rare_campaign),
            ("the event of an old letter", 1),
            ("the delivery of an old letter", 1),
        ] {
            let list = lists.iter().find(|list| list.what.ends_with(what)).expect("the list was read");
            assert_eq!(list.letters, expected, "{}", list.what);
        }
    }

    /// Measures all other reads.
    async fn measure_lists(&self, waypost: &Waypost) -> Vec<(String, Times)> {
        eprintln!("reading summaries and letters");
        let campaign = campaign_id(0);
        let ids: Vec<String> = (0..1_000)
            .map(|number| self.letters.letter(number * 7_919 % self.letters.count()).id.as_str().to_owned())
            .collect();
        let dry_run = |filter: Value| json!({ "filter": filter, "dryRun": true });
        let (of_all, of_one) = (dry_run(json!({})), dry_run(json!({ "campaignId": campaign })));
        let of_one_campaign = format!("campaignId={campaign}");
        vec![
            ("summary of all".to_owned(), Times::of(10, async |_| waypost.summary("").await).await),
            (
                "summary of a large campaign".to_owned(),
                Times::of(10, async |_| waypost.summary(&of_one_campaign).await).await,
            ),
            (
                "erasure of a person, a dry run".to_owned(),
                Times::of(10, async |_| erasure(waypost, &self.letters.identities(40).0.replace("%2B", "+")).await)
                    .await,
            ),
            ("a letter by its id".to_owned(), Times::of(ids.len(), async |one| waypost.letter(&ids[one]).await).await),
            ("dry run of a replay of all".to_owned(), Times::of(10, async |_| forecast(waypost, &of_all).await).await),
            (
                "dry run of a replay of a large campaign".to_owned(),
                Times::of(10, async |_| forecast(waypost, &of_one).await).await,
            ),
        ]
    }

    /// Kills the worker and starts it again.
    async fn restart(&self, waypost: &Waypost) -> RestartTimes {
        eprintln!("starting the worker again");
        waypost.kill().await;
        let began = Instant::now();
        waypost.restart().await;
        wait_until("the list", WAIT_TIMEOUT, async || {
            (waypost.get("/v1/dead-letters?limit=1").await.status == 200).then_some(())
        })
        .await;
        let list = began.elapsed();
        // The response comes after the worker has read everything in the log.
        assert_eq!(waypost.discard(&json!({ "ids": [self.letters.letter(0).id] })).await, 1);
        let whole = began.elapsed();
        assert_eq!(waypost.count_letters("").await, self.letters.count(), "letters after the start");
        RestartTimes { list, whole }
    }

    /// Discards a hundredth of the letters, from the middle. Returns the number and the duration.
    async fn discard(&self, waypost: &Waypost) -> (u64, Duration) {
        eprintln!("discarding");
        let filter = json!({ "since": self.letters.at(500), "until": self.letters.at(510) });
        let order = json!({ "filter": filter, "because": "the benchmark" });
        let (began, mut discarded) = (Instant::now(), 0);
        loop {
            let reply = waypost.post("/v1/dead-letters/discard", &order).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            discarded += reply.json()["discarded"].as_u64().expect("a number");
            if reply.json()["more"] == json!(false) {
                return (discarded, began.elapsed());
            }
        }
    }

    /// Replays about a fiftieth of the letters, from the middle. Returns the number and the duration.
    async fn replay(&self, waypost: &Waypost) -> (u64, Duration) {
        // Slightly more than a fiftieth, because not all are exhausted.
        let (since, until_time) = (self.letters.at(600), self.letters.at(622));
        let filter = json!({ "since": since, "until": until_time, "reason": "exhausted" });
        let began = Instant::now();
        let id = waypost.create_replay(&json!({ "filter": filter })).await;
        let bar = bar(waypost.replay(&id).await.total, "replayed");
        let replay = wait_until("the replay's end", WAIT_TIMEOUT, async || {
            let replay = waypost.replay(&id).await;
            bar.set_position(replay.sent);
            (replay.state != ReplayState::Running).then_some(replay)
        })
        .await;
        bar.finish_and_clear();
        assert_eq!((replay.state, replay.failed), (ReplayState::Done, 0), "{replay:#?}");
        (replay.delivered, began.elapsed())
    }
}

/// The duration of a start.
struct RestartTimes {
    /// Until the list responds.
    list: Duration,
    /// Until the worker follows the log of dead letters.
    whole: Duration,
}

async fn follow(waypost: &Waypost, lists: Vec<List>) -> Vec<PageTimings> {
    let bar = bar(lists.len() as u64, "lists read");
    let mut followed = Vec::with_capacity(lists.len());
    for list in lists {
        followed.push(list.follow(waypost).await);
        bar.inc(1);
    }
    bar.finish_and_clear();
    followed
}

/// Runs a dry run of an erasure.
async fn erasure(waypost: &Waypost, phone_number: &str) {
    let mut cursor = Value::Null;
    loop {
        let order = json!({ "phoneNumber": phone_number, "dryRun": true, "cursor": cursor });
        let reply = waypost.post("/v1/dead-letters/erase", &order).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        cursor = reply.json()["next"].clone();
        if cursor.is_null() {
            return;
        }
    }
}

async fn forecast(waypost: &Waypost, order: &Value) {
    let reply = waypost.post("/v1/replays", order).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

/// Endpoints that answer 200 and only count requests, on their own thread.
struct Receiver {
    url: String,
    _server: BackgroundServer,
}

impl Receiver {
    fn url(&self) -> &str {
        &self.url
    }
}

fn receiver() -> (Receiver, Arc<AtomicU64>) {
    let received = Arc::new(AtomicU64::new(0));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a nonblocking socket");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let counter = received.clone();
    let count = move |_: axum::body::Bytes| {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    };
    let router = Router::new().route("/{webhook}", post(count));
    let server = BackgroundServer::start("receiver", move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("the receiver's socket");
        axum::serve(listener, router).await.expect("the receiver serves");
    });
    (Receiver { url, _server: server }, received)
}

/// Requests like those of a replay, from a client that does nothing else.
async fn bare_requests(url: &str) -> (u64, Duration) {
    const COUNT: u64 = 20_000;
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let body = json!({ "campaignId": "13000", "label": "Offers", "phoneNumber": "+15550000000", "response": "hello" });
    let body = body.to_string();
    let began = Instant::now();
    let requests = futures_util::stream::iter(0..COUNT).map(|_| async {
        let request = client.post(format!("{url}bare")).header("content-type", "application/json").body(body.clone());
        let reply = request.send().await.expect("an answer");
        assert!(reply.status().is_success(), "{reply:?}");
        reply.bytes().await.expect("its body");
    });
    requests.buffer_unordered(REQUESTS).collect::<()>().await;
    (COUNT, began.elapsed())
}

/// Fails if a page was too slow.
fn verdict(lists: &[PageTimings]) -> ExitCode {
    let slow: Vec<String> = lists.iter().filter_map(PageTimings::too_slow).collect();
    if slow.is_empty() {
        println!("No page took more than {}.", milliseconds(MAX_PAGE_TIME));
        return ExitCode::SUCCESS;
    }
    println!("A page took more than {} in these lists: {}.", milliseconds(MAX_PAGE_TIME), slow.join("; "));
    ExitCode::FAILURE
}

/// A progress bar on a terminal, otherwise a line.
fn bar(length: u64, doing: &str) -> ProgressBar {
    eprintln!("{doing}: …");
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{human_pos}}/{{human_len}} {doing}  {{eta}} left"));
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
