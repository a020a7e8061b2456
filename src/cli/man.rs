//! `waypost man`: the manual pages, one for each command.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::stdio::say;
use super::{Cli, CliError};

#[derive(Args)]
pub(super) struct Man {
    /// Write one file for each command into this folder, e.g. /usr/local/share/man/man1 [default: the first page, to standard output]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self.output {
            Some(folder) => {
                let written = clap_mangen::generate_to(Cli::command(), &folder);
                written.map_err(|error| CliError::new(format!("{}: {error}", folder.display())))
            }
            None => {
                // To memory first: written to an output that nobody reads any more it would fail with an error of its own.
                let mut page = Vec::new();
                clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(CliError::new)?;
                say!("{}", String::from_utf8_lossy(&page).trim_end());
                Ok(())
            }
        }
    }
}
