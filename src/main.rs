//! The `waypost` program. [`waypost::cli`] has its commands.

use std::process::ExitCode;

/// `_RJEM_MALLOC_CONF` in the environment changes its options.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    waypost::cli::main()
}
