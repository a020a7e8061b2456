//! The `waypost` program. [`waypost::cli`] has its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypost::cli::main()
}
