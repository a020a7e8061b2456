//! The baselines with Waypost's allocator. `make bench` builds this program, and the benchmark runs it.

mod baselines;

use clap::Parser;

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    arguments: baselines::Arguments,
}

#[tokio::main]
async fn main() {
    let Cli { arguments } = Cli::parse();
    // On a worker thread of the runtime. From the main thread, each spawned task would have to wake a worker.
    tokio::spawn(baselines::run(arguments)).await.expect("the bare loop runs");
}
