//! `waypost erase`: erases a person's data from dead letters.

use clap::Args;
use serde_json::json;
use waypost_api::client::Client;
use waypost_api::dead_letters::erase::EraseRequest;

use crate::cli::client::Server;
use crate::cli::confirm::{ConfirmOutcome, Confirmation};
use crate::cli::error::CliError;
use crate::cli::stdio::out;
use crate::cli::{progress, sanitize};

#[derive(Args)]
#[command(after_help = "Example:
  waypost erase --phone +5511999990000 --dry-run

The command says how many dead letters it concerns, and asks on a terminal. It erases the phone number, the user's
response and keyword, the receivers' responses, and bodies that could not be read. Workers stop showing and sending them
at once. This can't be undone. The broker's stream and the workers' folders keep the data until deadLetters.retention
(30 days) has passed. Events that still wait in queues are not erased.")]
pub(in crate::cli) struct Erase {
    /// The person's phone number, exactly as in the events
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: String,
    #[command(flatten)]
    confirmation: Confirmation,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SearchMode {
    Count,
    Erase,
}

/// The dead letters about the person.
struct SearchResult {
    /// Erased, or counted with [`SearchMode::Count`].
    letters: u64,
    /// Not erased, because they are being replayed.
    replaying: u64,
    /// The cursor at which the search began. Later dead letters come before it.
    start: Option<String>,
}

impl Erase {
    pub(in crate::cli) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let counted = search(&client, &self.phone, SearchMode::Count, None).await?;
        let effect = format!("permanently erase the person's data from {}", sanitize::dead_letters(counted.letters));
        let decision = match counted.letters {
            // Nothing to confirm.
            0 if !self.confirmation.is_dry_run() => ConfirmOutcome::Proceed,
            _ => self.confirmation.decide(&effect).await?,
        };
        let result = match decision {
            ConfirmOutcome::Report => counted,
            // Excludes dead letters that are written after the user confirmed.
            ConfirmOutcome::Proceed => search(&client, &self.phone, SearchMode::Erase, counted.start).await?,
        };
        let is_dry_run = decision == ConfirmOutcome::Report;
        if self.json {
            out!("{}", json!({ "erased": result.letters, "replaying": result.replaying, "dryRun": is_dry_run }));
        } else if is_dry_run {
            out!("would {effect}");
        } else {
            out!("erased {}", sanitize::dead_letters(result.letters));
        }
        if result.replaying == 0 {
            return Ok(());
        }
        Err(CliError::Failed(format!(
            "{} not erased: a replay is sending them. Run the command again after the replay has ended",
            sanitize::dead_letters(result.replaying)
        )))
    }
}

/// Walks all dead letters from `cursor` on. `None` starts at the newest.
async fn search(
    client: &Client,
    phone: &str,
    mode: SearchMode,
    cursor: Option<String>,
) -> Result<SearchResult, CliError> {
    let bar = progress::bar(None, "{spinner} {human_pos} dead letters examined");
    let mut result = SearchResult { letters: 0, replaying: 0, start: None };
    let mut request = EraseRequest { phone_number: phone.to_owned(), cursor, dry_run: mode == SearchMode::Count };
    loop {
        let response = client.erase(&request).await?.read()?;
        result.letters += response.erased;
        result.replaying += response.replaying;
        bar.inc(response.looked_at);
        result.start.get_or_insert(response.from);
        request.cursor = response.next;
        if request.cursor.is_none() {
            bar.finish_and_clear();
            return Ok(result);
        }
    }
}
