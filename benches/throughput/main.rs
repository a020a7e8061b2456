//! How fast Waypost is, beside the fastest loop its libraries allow: a program that consumes, posts and acknowledges, and
//! does nothing else. Both work the same queue off, one after the other, on a broker of their own. `docs/BENCHMARKS.md`
//! keeps the figures and says how they come about.
//!
//! ```text
//! make bench                            # everything
//! make bench ARGS="--scenario one"      # a part of it; ARGS=--help lists the options
//! make bench-quick                      # only to see that all of it works
//! ```

mod bare;
mod figures;
mod load;
mod measure;
mod process;
mod publisher;
mod receiver;
mod report;
mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use figures::{Figures, Retries, Row};
use load::Scenario;
use measure::{pace, work};
use publisher::Pace;
use report::Circumstances;
use stage::{Contender, Stage};
use support::Broker;

/// Messages in hand at once: Waypost's default, and everybody's.
const PREFETCH: u16 = 512;

/// The limit of a request: Waypost's default, and everybody's.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A steady load runs so long before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// So many of the endpoints are those that the retries go to.
const RECOVERED: u64 = 100;

/// Measures how fast Waypost delivers, beside the bare loop.
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
    /// The yardstick itself.
    #[command(hide = true)]
    BareLoop(bare::Arguments),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Scenarios to run; all where none is named.
    #[arg(long)]
    scenario: Vec<Named>,
    /// Rounds of each measurement; the figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Events of the backlog.
    #[arg(long, default_value_t = 40_000)]
    events: u64,
    /// The most seconds that a backlog is worked off.
    #[arg(long, default_value_t = 30)]
    limit: u64,
    /// Seconds at half load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Retries that are due while fresh events are measured; 0 leaves this out.
    #[arg(long, default_value_t = 100_000)]
    retries: u64,
    /// Prints one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// What cargo tells every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// An event that is later than this after the last one was published is waited for no longer.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    fn pace(&self, per_second: f64) -> Pace {
        Pace { per_second, warm_up: WARM_UP, measured: Duration::from_secs(self.seconds) }
    }
}

/// The scenarios, by number of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    /// One endpoint.
    One,
    /// One endpoint, and one that hangs and gets a tenth of the events.
    OneHanging,
    /// 1,000 endpoints.
    Thousand,
    /// 1,000 endpoints, of which 100 hang and get a tenth of the events.
    ThousandHanging,
}

impl Named {
    fn scenario(self) -> Scenario {
        let (healthy, hanging) = match self {
            Self::One => (1, 0),
            Self::OneHanging => (1, 1),
            Self::Thousand => (1_000, 0),
            Self::ThousandHanging => (900, 100),
        };
        Scenario { healthy, hanging }
    }
}

#[tokio::main]
async fn main() {
    let Cli { command, options } = Cli::parse();
    if let Some(Command::BareLoop(arguments)) = command {
        return bare::run(arguments).await;
    }
    let load_before = process::load();
    let broker = Broker::private().await;
    let mut figures = Figures::default();
    for named in Named::value_variants() {
        if options.scenario.is_empty() || options.scenario.contains(named) {
            measure(&broker, *named, &options, &mut figures).await;
        }
    }
    let rabbitmq = broker.ctl(&["version"]).await.trim().to_owned();
    let load_after = process::load();
    let circumstances =
        Circumstances { machine: process::machine(), rabbitmq, load_before, load_after, options: &options };
    if options.json {
        println!("{:#}", report::json(&figures, &circumstances));
    } else {
        report::print(&figures, &circumstances);
    }
}

/// Measures all workers in a scenario.
async fn measure(broker: &Broker, named: Named, options: &Options, figures: &mut Figures) {
    let scenario = named.scenario();
    let about = scenario.name();
    eprintln!("{about}: setting up");
    let stage = Stage::set_up(broker, scenario).await;
    let mut rows: Vec<Row> =
        [Contender::Bare, Contender::Waypost].map(|contender| Row::new(scenario, contender)).into();
    for round in 1..=options.rounds {
        for row in &mut rows {
            let name = row.contender.name();
            let bar = bar(options.events, &format!("{about}, round {round}: publishing for the {name}"));
            stage.publish(options.events, || bar.inc(1)).await;
            bar.finish_and_clear();
            let bar = self::bar(scenario.healthy_among(options.events), &format!("{about}, round {round}: {name}"));
            let limit = Duration::from_secs(options.limit);
            row.worked.push(work(&stage, row.contender, options.events, limit, |done| bar.set_position(done)).await);
            bar.finish_and_clear();
        }
    }
    let half_load = half_load(scenario, figures, &rows);
    let rate = options.pace(half_load);
    for round in 1..=options.rounds {
        for row in &mut rows {
            row.half_load = half_load;
            let bar = bar(rate.events(), &format!("{about}, round {round}: {} at half load", row.contender.name()));
            let running = stage.start(row.contender).await;
            row.delays.push(pace(&stage, rate, options.patience(), || bar.inc(1)).await);
            stage.stop(running).await;
            bar.finish_and_clear();
        }
    }
    figures.rows.extend(rows);
    if named == Named::Thousand && options.retries > 0 {
        figures.retries = Some(beside_retries(&stage, rate, options).await);
    }
    stage.clear_away(broker).await;
}

/// Half of Waypost's speed with so many endpoints. With hanging endpoints it is the same load, so that the two compare.
fn half_load(scenario: Scenario, figures: &Figures, rows: &[Row]) -> f64 {
    let is_quiet = |row: &&Row| scenario.with_hanging_of(row.scenario);
    let quiet = figures.rows.iter().filter(is_quiet).find(|row| row.contender == Contender::Waypost);
    let own = rows.iter().find(|row| row.contender == Contender::Waypost);
    quiet.or(own).map_or(0.0, |row| row.per_second() / 2.0)
}

/// Measures fresh events while retries are due: those of endpoints that were down, and are well again.
async fn beside_retries(stage: &Stage, rate: Pace, options: &Options) -> Retries {
    let mut retries = Retries { published: options.retries, left: Vec::new(), delays: Vec::new() };
    for round in 1..=options.rounds {
        let bar = bar(options.retries, &format!("round {round}: publishing due retries"));
        stage.publish_retries(options.retries, RECOVERED, || bar.inc(1)).await;
        bar.finish_and_clear();
        let bar = self::bar(rate.events(), &format!("round {round}: events beside due retries"));
        let running = stage.start(Contender::Waypost).await;
        retries.delays.push(pace(stage, rate, options.patience(), || bar.inc(1)).await);
        retries.left.push(stage.amqp.depth(&stage.names.retries()).await.unwrap_or_default());
        stage.stop(running).await;
        bar.finish_and_clear();
    }
    retries
}

/// Drawn on a terminal; a line elsewhere.
fn bar(length: u64, doing: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{human_pos}}/{{human_len}} {doing}"));
    let bar = ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    if bar.is_hidden() {
        eprintln!("{doing}");
    }
    bar
}
