//! `waypost completions`: the script by which a shell completes the commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use super::stdio::say;

#[derive(Args)]
pub(super) struct Completions {
    /// The shell; load the script as its manual says, in bash with `source <(waypost completions bash)`
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) {
        // To memory first: written to an output that nobody reads any more it would panic.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "waypost", &mut script);
        say!("{}", String::from_utf8_lossy(&script).trim_end());
    }
}
