//! A fault drill with a report: workers and a cluster of three RabbitMQ nodes, with publishers and receivers. A
//! schedule that is derived from a seed injects faults, and the account shows what happened to every event.
//! `docs/RELIABILITY.md` has a report and explains it.
//!
//! ```text
//! make chaos                                  # two minutes, any seed
//! make chaos ARGS="--seed 7 --minutes 10"     # the same again, and longer
//! ```
//!
//! The drill is in `tests/support/chaos`. The integration tests run a short one.

mod report;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use support::chaos::fault::Fault;
use support::chaos::{self, ChaosResult, ChaosRun, DrainResult, Progress, ScheduleMode};

/// Injects faults for a while, and reports what happened to every event.
#[derive(Debug, Parser)]
#[command(name = "make chaos")]
struct Options {
    /// Seed of the schedule. Random if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long to publish events and inject faults.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Number of workers.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Events published per second.
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// Use TLS between workers and the broker. Needs root, for a network of the nodes' own.
    #[arg(long)]
    tls: bool,
    /// Inject one fault at a time, to measure the effect of each.
    #[arg(long)]
    apart: bool,
    /// Also kill all nodes at once. RabbitMQ's streams, and so dead letters, may lose records then.
    #[arg(long)]
    all_nodes: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // The hash keys are the only random numbers in the standard library. Short, to be easy to type.
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 100_000);
    let drill = ChaosRun {
        seed,
        duration: Duration::from_secs_f64(options.minutes * 60.0),
        mode: if options.apart { ScheduleMode::Sequential } else { ScheduleMode::Concurrent },
        nodes: 3,
        workers: options.workers,
        publishers: 2,
        receivers: 6,
        events_per_second: options.rate,
        tls: options.tls,
        excluded: if options.all_nodes { Vec::new() } else { vec![Fault::ClusterKilled] },
    };
    let (rate, tls) = (format!(" --rate {}", options.rate), if options.tls { " --tls" } else { "" });
    let apart = if options.apart { " --apart" } else { "" };
    let all_nodes = if options.all_nodes { " --all-nodes" } else { "" };
    let version = support::broker::broker_version();
    let again = format!(
        "make chaos ARGS=\"--seed {seed} --minutes {}{rate}{tls}{apart}{all_nodes}\" RABBITMQ={}",
        options.minutes,
        minor(&version)
    );
    eprintln!("{again}");
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    // Dropping the future ends everything it started, also on SIGTERM or Ctrl-C.
    let findings = tokio::select! {
        findings = Box::pin(run(&drill)) => findings,
        _ = terminate.recv() => return ExitCode::from(143),
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    };
    report::print(&drill, &version, &findings);
    println!("To repeat this run: {again}");
    if findings.passed() {
        return ExitCode::SUCCESS;
    }
    println!("What the workers and the nodes printed is in {}", keep_logs(seed, &findings));
    ExitCode::FAILURE
}

/// `4.3` of `4.3.6`.
fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

async fn run(drill: &ChaosRun) -> ChaosResult {
    let bar = ProgressBar::new(drill.duration.as_secs());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} s  {msg}");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message("starting a cluster");
    if bar.is_hidden() {
        eprintln!("starting a cluster, and injecting faults for {} s", drill.duration.as_secs());
    }
    let findings = chaos::run(drill, |progress: Progress| {
        bar.set_position(progress.elapsed.min(drill.duration).as_secs());
        let Progress { elapsed, published, accepted, faults, in_progress } = progress;
        let doing = if elapsed < drill.duration { String::new() } else { format!("{}: ", in_progress.join(", ")) };
        bar.set_message(format!("{doing}{published} events, {accepted} deliveries, {faults} faults"));
        // Prints progress for a log every 30 s.
        if bar.is_hidden() && elapsed.as_secs().is_multiple_of(30) {
            let in_progress = in_progress.join(", ");
            eprintln!(
                "{} s: {published} events, {accepted} deliveries, {faults} faults; {in_progress}",
                elapsed.as_secs()
            );
        }
    });
    let findings = findings.await;
    bar.finish_and_clear();
    findings
}

/// Writes the output of workers and nodes to a folder, and returns its path.
fn keep_logs(seed: u64, findings: &ChaosResult) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (number, lines) in findings.logs.iter().enumerate() {
        std::fs::write(folder.join(format!("worker-{number}.log")), lines.join("\n")).expect("a log file");
    }
    for (number, log) in findings.node_logs.iter().enumerate() {
        std::fs::write(folder.join(format!("node-{number}.log")), log).expect("a log file");
    }
    let happened = findings.entries.faults.iter().map(|happened| format!("{happened:?}\n")).collect::<String>();
    std::fs::write(folder.join("faults.log"), happened).expect("a log file");
    let orders = findings.entries.commands.iter().map(|order| format!("{order:?}\n")).collect::<String>();
    std::fs::write(folder.join("orders.log"), orders).expect("a log file");
    if let DrainResult::TimedOut { left, diagnosis, .. } = &findings.drained {
        std::fs::write(folder.join("left.log"), format!("{left}\n\n{diagnosis}")).expect("a log file");
    }
    let lost = format!("{:?}\n{:?}\n", findings.account.lost, findings.control_stream.lost);
    std::fs::write(folder.join("lost.log"), lost).expect("a log file");
    let contradictions = [findings.account.contradictions.join("\n"), findings.commands.contradictions.join("\n")];
    std::fs::write(folder.join("contradictions.log"), contradictions.join("\n")).expect("a log file");
    folder.display().to_string()
}
