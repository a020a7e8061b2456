//! The throughput of Waypost compared with baselines: programs that only consume, post and acknowledge. They process
//! the same queue in turn, on a private broker. `docs/BENCHMARKS.md` has results and explains them.
//!
//! ```text
//! make bench                            # everything
//! make bench ARGS="--scenario one"      # a part of it; ARGS=--help lists the options
//! make bench-quick                      # only to see that all of it works
//! ```

mod baselines;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod report;
mod results;
mod setup;
#[path = "../../tests/support/mod.rs"]
mod support;
mod workers;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use common::interrupt::until_interrupted;
use common::load::Scenario;
use common::process;
use common::progress::bar;
use common::publisher::Pace;
use common::receiver::Transport;
use measure::{PacedResult, ReconnectResult, WorkResult, measure_backlog, measure_reconnect, measure_steady_load};
use report::RunInfo;
use results::{Reconnects, ResultRow, Results, Retries};
use setup::BenchSetup;
use support::Broker;
use workers::Worker;

/// The number of endpoints that retries go to.
const RECOVERED: u64 = 100;

/// Measures the throughput of Waypost compared with baselines.
#[derive(Debug, Parser)]
#[command(name = "make bench")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a baseline.
    #[command(hide = true)]
    BareLoop(baselines::Arguments),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Scenarios to run. Default: all.
    #[arg(long)]
    scenario: Vec<Named>,
    /// Workers to run. Default: all. Most run only without hanging endpoints, and some only without TLS.
    #[arg(long)]
    worker: Vec<Worker>,
    /// Rounds of each measurement. Results are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events in the backlog.
    #[arg(long, default_value_t = 60_000)]
    events: u64,
    /// Maximum seconds to process a backlog.
    #[arg(long, default_value_t = 20)]
    limit: u64,
    /// Seconds at half load before measuring.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Seconds at half load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Retries that are due while fresh events are measured. 0 skips this measurement.
    #[arg(long, default_value_t = 100_000)]
    retries: u64,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// How long to wait for events after the last one was published.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    /// The workers of a scenario, in order.
    fn workers(&self, scenario: Scenario) -> impl Iterator<Item = Worker> + '_ {
        let chosen = |worker: &Worker| self.worker.is_empty() || self.worker.contains(worker);
        let takes_part = move |worker: &Worker| worker.takes_part_in(scenario) && worker.missing().is_none();
        Worker::value_variants().iter().copied().filter(chosen).filter(takes_part)
    }

    fn pace(&self, per_second: f64) -> Pace {
        let (warm_up, measured) = (Duration::from_secs(self.warm_up), Duration::from_secs(self.seconds));
        Pace { per_second, warm_up, measured }
    }
}

/// Scenarios that are measured together.
const GROUPS: [&[Named]; 4] = [
    &[Named::One, Named::OneHanging],
    &[Named::Thousand, Named::ThousandHanging],
    &[Named::OneTls],
    &[Named::ThousandTls],
];

/// The scenarios, by number of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    /// One endpoint.
    One,
    /// One endpoint, and a hanging one that gets a tenth of the events.
    OneHanging,
    /// 1,000 endpoints.
    Thousand,
    /// 1,000 endpoints, of which 100 hang and get a tenth of the events.
    ThousandHanging,
    /// One endpoint with TLS.
    OneTls,
    /// 1,000 endpoints with TLS.
    ThousandTls,
}

impl Named {
    fn scenario(self) -> Scenario {
        let (healthy, hanging, transport) = match self {
            Self::One => (1, 0, Transport::Plain),
            Self::OneHanging => (1, 1, Transport::Plain),
            Self::Thousand => (1_000, 0, Transport::Plain),
            Self::ThousandHanging => (900, 100, Transport::Plain),
            Self::OneTls => (1, 0, Transport::Tls),
            Self::ThousandTls => (1_000, 0, Transport::Tls),
        };
        Scenario { healthy, hanging, transport }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command, options } = Cli::parse();
    if let Some(Command::BareLoop(arguments)) = command {
        // On a worker thread of the runtime. From the main thread, each spawned task would have to wake a worker.
        tokio::spawn(baselines::run(arguments)).await.expect("the bare loop runs");
        return ExitCode::SUCCESS;
    }
    for worker in Worker::value_variants() {
        if let Some(why) = worker.missing() {
            eprintln!("skipping `{}`: it {why}", worker.name());
        }
    }
    match until_interrupted(Box::pin(run(&options))).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// Runs the selected measurements, and prints the results.
async fn run(options: &Options) {
    let load_before = process::load();
    let broker = Broker::private().await;
    let mut figures = Results::default();
    for group in GROUPS {
        let chosen = |named: &Named| options.scenario.is_empty() || options.scenario.contains(named);
        measure(&broker, group.iter().copied().filter(chosen), options, &mut figures).await;
    }
    let rabbitmq = broker.ctl(&["version"]).await.trim().to_owned();
    let load_after = process::load();
    let circumstances = RunInfo { machine: process::machine(), rabbitmq, load_before, load_after, options };
    if options.json {
        println!("{:#}", report::json(&figures, &circumstances));
    } else {
        report::print(&figures, &circumstances);
    }
}

/// Measures scenarios that are compared. Each round runs all of them, so that they share the same conditions.
async fn measure(broker: &Broker, scenarios: impl Iterator<Item = Named>, options: &Options, figures: &mut Results) {
    let mut stages = Vec::new();
    for scenario in scenarios.map(Named::scenario) {
        eprintln!("{}: setting up", scenario.name());
        let stage = BenchSetup::start(broker, scenario).await;
        let rows: Vec<ResultRow> = options.workers(scenario).map(|worker| ResultRow::new(scenario, worker)).collect();
        stages.push((stage, rows));
    }
    for round in 1..=options.rounds {
        for (stage, rows) in &mut stages {
            for row in rows {
                row.worked.push(backlog(stage, row.worker, round, options).await);
            }
        }
    }
    // Half of Waypost's throughput without hanging endpoints. The same rate is used with hanging endpoints, for
    // comparison.
    let waypost = stages.iter().flat_map(|(_, rows)| rows).find(|row| row.worker == Worker::Waypost);
    if let Some(rate) = waypost.map(|row| options.pace(row.per_second() / 2.0)) {
        figures.retries = at_half_load(&mut stages, rate, options).await.or(figures.retries.take());
    }
    for (stage, _) in stages.iter().filter(|(stage, _)| stage.scenario == Named::ThousandTls.scenario()) {
        for worker in options.workers(stage.scenario) {
            figures.reconnects.extend(reconnects(stage, worker, options).await);
        }
    }
    for (stage, rows) in stages {
        figures.rows.extend(rows);
        stage.delete_objects(broker).await;
    }
}

/// Measures the delay of events at a steady load, and with a thousand endpoints also during retries.
async fn at_half_load(stages: &mut [(BenchSetup, Vec<ResultRow>)], rate: Pace, options: &Options) -> Option<Retries> {
    let mut retries = Retries { published: options.retries, rounds: Vec::new() };
    for round in 1..=options.rounds {
        for (stage, rows) in &mut *stages {
            for row in rows {
                row.half_load = rate.per_second;
                let doing = format!("{}, round {round}: {} at half load", stage.scenario.name(), row.worker.name());
                row.delays.push(steady_load(stage, row.worker, rate, &doing, options).await.delays);
            }
            if stage.scenario == Named::Thousand.scenario() && options.retries > 0 {
                let bar = bar(options.retries, &format!("round {round}: publishing due retries"));
                stage.publish_retries(options.retries, RECOVERED, || bar.inc(1)).await;
                bar.finish_and_clear();
                let doing = format!("round {round}: events beside due retries");
                retries.rounds.push(steady_load(stage, Worker::Waypost, rate, &doing, options).await);
            }
        }
    }
    Some(retries).filter(|retries| !retries.rounds.is_empty())
}

/// Measures how fast a worker reconnects. `None` if the backlog was too short in each round.
async fn reconnects(stage: &BenchSetup, worker: Worker, options: &Options) -> Option<Reconnects> {
    let mut rounds: Vec<ReconnectResult> = Vec::new();
    for round in 1..=options.rounds {
        let bar = bar(options.events, &format!("round {round}: {} reconnects: publishing", worker.name()));
        stage.publish(options.events, || bar.inc(1)).await;
        bar.finish_and_clear();
        rounds.extend(measure_reconnect(stage, worker, options.events).await);
    }
    (!rounds.is_empty()).then_some(Reconnects { scenario: stage.scenario, worker, rounds })
}

/// Measures one worker with one backlog.
async fn backlog(stage: &BenchSetup, worker: Worker, round: usize, options: &Options) -> WorkResult {
    let doing = format!("{}, round {round}: {}", stage.scenario.name(), worker.name());
    let bar = bar(options.events, &format!("{doing}: publishing"));
    stage.publish(options.events, || bar.inc(1)).await;
    bar.finish_and_clear();
    let bar = self::bar(stage.scenario.healthy_among(options.events), &format!("{doing}: delivering"));
    let limit = Duration::from_secs(options.limit);
    let worked = measure_backlog(stage, worker, options.events, limit, |done| bar.set_position(done)).await;
    bar.finish_and_clear();
    worked
}

/// Measures one worker at a steady load.
async fn steady_load(stage: &BenchSetup, worker: Worker, rate: Pace, doing: &str, options: &Options) -> PacedResult {
    let bar = bar(rate.events(), doing);
    let paced = measure_steady_load(stage, worker, rate, options.patience(), || bar.inc(1)).await;
    bar.finish_and_clear();
    paced
}
