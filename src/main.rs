//! The `waypost` program: see [`waypost::cli`].

use std::process::ExitCode;

/// A delivery makes some fifty small allocations on one thread and gives them back on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost::cli::main()
}
