//! `waypost dead-letters export`: writes all matching dead letters as JSON lines. Only one page is in memory at a time.

use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::path::PathBuf;

use chrono::Utc;
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use waypost_api::client::Client;
use waypost_core::dead_letter::filter::LetterFilter;

use crate::cli::client::Server;
use crate::cli::error::CliError;
use crate::cli::letter_filter::Filter;
use crate::cli::stdio::out;
use crate::cli::{progress, sanitize};

/// Small, because one unreadable message may have megabytes.
const PAGE_SIZE: usize = 200;

#[derive(Args)]
#[command(after_help = "Examples:
  waypost dead-letters export --campaign 13010 -o dead.ndjson
  waypost dead-letters export --state pending | jq -r .url | sort | uniq -c")]
pub(in crate::cli) struct Export {
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Has no effect: the output is always JSON, one dead letter on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
}

enum ExportEnd {
    /// The number of dead letters.
    Complete(u64),
    /// The reader of the pipe has closed it.
    ReaderClosed,
}

impl Export {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let filter = self.filter.to_filter(Utc::now())?;
        let client = self.server.client()?;
        let Some(path) = self.output else {
            // Output and progress bar would overwrite each other on one terminal.
            let bar = if io::stdout().is_terminal() { ProgressBar::hidden() } else { bar(&client, &filter).await? };
            write(&client, &filter, &bar, BufWriter::new(io::stdout())).await?;
            return Ok(());
        };
        let bar = bar(&client, &filter).await?;
        let name = path.display();
        let file = std::fs::File::create(&path).map_err(|error| CliError::new(format!("{name}: {error}")))?;
        match write(&client, &filter, &bar, BufWriter::new(file)).await {
            Ok(ExportEnd::Complete(count)) => out!("{} exported to {name}", sanitize::dead_letters(count)),
            Ok(ExportEnd::ReaderClosed) => {}
            Err(error) => return Err(error.with_line(&format!("{name} is incomplete. Run the command again"))),
        }
        Ok(())
    }
}

/// A bar up to the number of matching dead letters. They are counted only if the bar is visible.
async fn bar(client: &Client, filter: &LetterFilter) -> Result<ProgressBar, CliError> {
    if !progress::is_visible() {
        return Ok(ProgressBar::hidden());
    }
    let total = client.dead_letter_summary(filter).await?.read()?.total;
    Ok(progress::bar(Some(total), "{bar:30} {human_pos}/{human_len} exported  {eta} left"))
}

async fn write(
    client: &Client,
    filter: &LetterFilter,
    bar: &ProgressBar,
    mut output: impl Write,
) -> Result<ExportEnd, CliError> {
    let mut pages = client.dead_letters(filter);
    let mut count = 0;
    while pages.may_have_more() {
        let letters = pages.next(PAGE_SIZE).await?;
        match write_lines(&letters, &mut output) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExportEnd::ReaderClosed),
            Err(error) => return Err(CliError::new(error)),
        }
        count += letters.len() as u64;
        bar.set_position(count);
    }
    bar.finish_and_clear();
    Ok(ExportEnd::Complete(count))
}

/// Flushes at the end, so that the reader of a pipe gets each page at once.
fn write_lines(letters: &[impl Serialize], output: &mut impl Write) -> io::Result<()> {
    for letter in letters {
        serde_json::to_writer(&mut *output, letter)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_dead_letter_is_a_line() {
        let mut output = Vec::new();
        write_lines(&[json!({ "id": "dl_1", "status": 500 }), json!({ "id": "dl_2", "body": "a\nb" })], &mut output)
            .unwrap();
        assert_eq!(
            String::from_utf8(output).unwrap(),
            "{\"id\":\"dl_1\",\"status\":500}\n{\"id\":\"dl_2\",\"body\":\"a\\nb\"}\n"
        );
    }

    #[test]
    fn write_errors_keep_their_kind() {
        struct FailingWriter(ErrorKind);
        impl Write for FailingWriter {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for kind in [ErrorKind::BrokenPipe, ErrorKind::StorageFull] {
            assert_eq!(write_lines(&[json!({})], &mut FailingWriter(kind)).unwrap_err().kind(), kind);
        }
    }
}
