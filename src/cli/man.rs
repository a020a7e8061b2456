//! `waypost man`: prints the manual page, or writes one for each command.

use std::path::PathBuf;

use clap::{Args, Command};

use super::error::CliError;
use super::stdio::out;

#[derive(Args)]
pub(super) struct Man {
    /// Write a page for each command into this folder, e.g. /usr/local/share/man/man1 [default: print the main page]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self, command: Command) -> Result<(), CliError> {
        match self.output {
            Some(folder) => {
                let result = clap_mangen::generate_to(command, &folder);
                result.map_err(|error| CliError::new(format!("{}: {error}", folder.display())))
            }
            None => {
                // Rendered to memory first, because a closed standard output must not be an error.
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).map_err(CliError::new)?;
                out!("{}", String::from_utf8_lossy(&page).trim_end());
                Ok(())
            }
        }
    }
}
