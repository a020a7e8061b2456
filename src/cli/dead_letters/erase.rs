//! `waypost erase`: erases a person's data from dead letters.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::client::{Api, DEAD_LETTERS, Server};
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
    /// Erased, or counted with [`Mode::Count`].
    letters: u64,
    /// Not erased, because they are being replayed.
    replaying: u64,
    /// The cursor at which the search began. Later dead letters come before it.
    start: Value,
}

impl Erase {
    pub(in crate::cli) async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let counted = search(&api, &self.phone, SearchMode::Count, Value::Null).await?;
        let effect = format!("permanently erase the person's data from {}", sanitize::dead_letters(counted.letters));
        let decision = match counted.letters {
            // Nothing to confirm.
            0 if !self.confirmation.is_dry_run() => ConfirmOutcome::Proceed,
            _ => self.confirmation.decide(&effect).await?,
        };
        let result = match decision {
            ConfirmOutcome::Report => counted,
            // Excludes dead letters that are written after the user confirmed.
            ConfirmOutcome::Proceed => search(&api, &self.phone, SearchMode::Erase, counted.start).await?,
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

/// Walks all dead letters from `cursor` on. Null starts at the newest.
async fn search(api: &Api, phone: &str, mode: SearchMode, mut cursor: Value) -> Result<SearchResult, CliError> {
    let bar = progress::bar(None, "{spinner} {human_pos} dead letters examined");
    let mut result = SearchResult { letters: 0, replaying: 0, start: Value::Null };
    loop {
        let body = json!({ "phoneNumber": phone, "cursor": cursor, "dryRun": mode == SearchMode::Count });
        let response = api.post(&[DEAD_LETTERS, "erase"], Some(&body)).await?.json()?;
        let count = |name: &str| response[name].as_u64().unwrap_or_default();
        result.letters += count("erased");
        result.replaying += count("replaying");
        bar.inc(count("lookedAt"));
        if result.start.is_null() {
            result.start = response["from"].clone();
        }
        cursor = response["next"].clone();
        if cursor.is_null() {
            bar.finish_and_clear();
            return Ok(result);
        }
    }
}
