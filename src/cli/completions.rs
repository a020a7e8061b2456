//! `waypost completions`: prints the completion script for a shell.

use clap::{Args, Command};
use clap_complete::Shell;

use super::stdio::out;

#[derive(Args)]
pub(super) struct Completions {
    /// The shell. The shell's manual says how to load the script; in bash: `source <(waypost completions bash)`
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) {
        // Generated to memory first, because writing to a closed standard output would panic.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "waypost", &mut script);
        out!("{}", String::from_utf8_lossy(&script).trim_end());
    }
}
