//! After an outage: many deliveries wait in the delay queues, parked or between two attempts, and their endpoints come
//! back. How fast are they delivered, and what do fresh events notice? `docs/BENCHMARKS.md` explains the measurement.
//!
//! ```text
//! make outage                                 # 500,000 deliveries
//! make outage ARGS="--deliveries 20000"       # a short one; ARGS=--help lists the options
//! ```

#[path = "../common/mod.rs"]
mod common;
mod ladder;
mod report;
mod run;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use common::interrupt::until_interrupted;
use ladder::Outage;

/// Measures how fast deliveries are made up for after an outage.
#[derive(Debug, Parser)]
#[command(name = "make outage")]
struct Options {
    /// Deliveries that wait.
    #[arg(long, default_value_t = 500_000)]
    deliveries: u64,
    /// Endpoints that come back.
    #[arg(long, default_value_t = 100)]
    endpoints: usize,
    /// Part of the deliveries that is parked. The others wait between two attempts.
    #[arg(long, default_value_t = 0.8)]
    parked: f64,
    /// All deliveries are due within this number of seconds after the endpoints have come back.
    #[arg(long, default_value_t = 40)]
    due_within: u32,
    /// Fresh events per second, for endpoints that were never away. 0 for none.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Seconds to measure after the endpoints have come back.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Maximum seconds to deliver the rest without fresh events.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn outage(&self) -> Outage {
        Outage {
            deliveries: self.deliveries,
            endpoints: self.endpoints,
            parked: self.parked,
            due_within: Duration::from_secs(u64::from(self.due_within)),
        }
    }

    fn measured(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
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
        println!("{:#}", report::json(&results));
    } else {
        report::print(&options, &results);
    }
    ExitCode::SUCCESS
}
