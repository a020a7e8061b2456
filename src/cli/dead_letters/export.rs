//! `waypost dead-letters export`: all that match, one a line. A page at a time, so that a million take no more memory than
//! a few hundred.

use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::path::PathBuf;

use chrono::Utc;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;

use super::filter::{Filter, FilterQuery};
use super::{LIST, summary};
use crate::cli::client::{Api, Server};
use crate::cli::paginate::Pages;
use crate::cli::stdio::say;
use crate::cli::{CliError, progress, sanitize};

/// Small, because one unreadable message may have megabytes.
const PAGE: usize = 200;

#[derive(Args)]
#[command(after_help = "Examples:
  waypost dead-letters export --campaign 13010 -o dead.ndjson
  waypost dead-letters export --state pending | jq -r .url | sort | uniq -c")]
pub(in crate::cli) struct Export {
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// As JSON, one a line: as without it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
}

/// How an export ended without a failure.
enum Written {
    All(u64),
    /// Whoever read it has seen enough.
    Enough,
}

impl Export {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let conditions = self.filter.conditions(Utc::now())?;
        let api = self.server.api()?;
        let Some(file) = self.output else {
            // Letters and a bar on one terminal would overwrite each other.
            let bar = if io::stdout().is_terminal() { ProgressBar::hidden() } else { bar(&api, &conditions).await? };
            write(&api, &conditions, &bar, BufWriter::new(io::stdout())).await?;
            return Ok(());
        };
        let bar = bar(&api, &conditions).await?;
        let name = file.display();
        let open = std::fs::File::create(&file).map_err(|error| CliError::new(format!("{name}: {error}")))?;
        match write(&api, &conditions, &bar, BufWriter::new(open)).await {
            Ok(Written::All(count)) => say!("{} exported to {name}", sanitize::dead_letters(count)),
            Ok(Written::Enough) => {}
            Err(failure) => return Err(failure.and(&format!("{name} is not complete"))),
        }
        Ok(())
    }
}

/// A bar over all that match. Nobody waits for a count that is not seen.
async fn bar(api: &Api, conditions: &FilterQuery) -> Result<ProgressBar, CliError> {
    if !progress::is_seen() {
        return Ok(ProgressBar::hidden());
    }
    let total = summary::read(api, conditions).await?["total"].as_u64();
    Ok(progress::bar(total, "{bar:30} {human_pos}/{human_len} exported  {eta} left"))
}

async fn write(
    api: &Api,
    conditions: &FilterQuery,
    bar: &ProgressBar,
    mut output: impl Write,
) -> Result<Written, CliError> {
    let mut pages = Pages::new(api, LIST, conditions.query());
    let mut count = 0;
    while pages.may_go_on() {
        let letters = pages.next(PAGE).await?;
        match lines(&letters, &mut output) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Written::Enough),
            Err(error) => return Err(CliError::new(error)),
        }
        count += letters.len() as u64;
        bar.set_position(count);
    }
    bar.finish_and_clear();
    Ok(Written::All(count))
}

/// A page is written as a whole, so that a reader at the other end of a pipe does not wait for the next.
fn lines(letters: &[Value], output: &mut impl Write) -> io::Result<()> {
    for letter in letters {
        serde_json::to_writer(&mut *output, letter)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_each() {
        let mut output = Vec::new();
        lines(&[json!({ "id": "dl_1", "status": 500 }), json!({ "id": "dl_2", "body": "a\nb" })], &mut output).unwrap();
        assert_eq!(
            String::from_utf8(output).unwrap(),
            "{\"id\":\"dl_1\",\"status\":500}\n{\"id\":\"dl_2\",\"body\":\"a\\nb\"}\n"
        );
    }

    #[test]
    fn a_reader_that_has_left_is_told_from_a_disk_that_is_full() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for kind in [ErrorKind::BrokenPipe, ErrorKind::StorageFull] {
            assert_eq!(lines(&[json!({})], &mut Broken(kind)).unwrap_err().kind(), kind);
        }
    }
}
