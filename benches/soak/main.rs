//! A worker for an hour or longer: events at a steady rate, endpoints that come and go, an edit of a campaign each
//! second, dead letters and replays. Memory, open files, threads, the store and the dead-letter stream must not grow.
//! `docs/BENCHMARKS.md` explains the measurement.
//!
//! ```text
//! make soak                                     # an hour
//! make soak ARGS="--minutes 5 --rate 200"       # a short one; ARGS=--help lists the options
//! ```

#[path = "../common/mod.rs"]
mod common;
mod endpoints;
mod operator;
mod report;
mod run;
#[path = "../../tests/support/mod.rs"]
mod support;
mod trend;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use common::interrupt::until_interrupted;
use common::table::TargetResult;

/// The time after which everything is in a steady state, in an hour.
const SETTLING: Duration = Duration::from_secs(600);

/// Runs a worker for long, and fails if something grows.
#[derive(Debug, Parser)]
#[command(name = "make soak")]
struct Options {
    /// How long events are published. Growth is measured after ten minutes, or after a third of a shorter run.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Events published per second. Each is one delivery.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Endpoints, each of which is away now and then.
    #[arg(long, default_value_t = 50)]
    endpoints: usize,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// The time before growth is measured.
    fn settling(&self) -> Duration {
        SETTLING.min(self.duration() / 3)
    }

    /// Dead letters are kept for this time, so that some are deleted before growth is measured.
    fn retention(&self) -> Duration {
        Duration::from_secs((self.settling() / 4).as_secs().max(10))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let results = match until_interrupted(Box::pin(run::run(&options))).await {
        Ok(results) => results,
        Err(code) => return code,
    };
    if options.json {
        println!("{:#}", report::json(&options, &results));
    } else {
        report::print(&options, &results);
    }
    let missed = report::targets(&options, &results).iter().any(|target| target.verdict() == TargetResult::Miss);
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
