//! `waypost erase`: what dead letters tell of a person is shown and sent no more.

use clap::Args;
use serde_json::{Value, json};

use super::LIST;
use crate::cli::client::{Api, Server};
use crate::cli::confirm::{Confirmation, Decision};
use crate::cli::stdio::say;
use crate::cli::{CliError, progress, sanitize};

#[derive(Args)]
#[command(after_help = "Example:
  waypost erase --phone +5511999990000 --dry-run

The command says how many dead letters it concerns, and asks on a terminal. Phone number, answer, keyword, what receivers said
and bodies that could not be read are gone at once from everything that is shown and sent, on every worker, and for good. The
broker's stream and the workers' folders have them until deadLetters.retention (30 days) is over. Events that still wait in
queues are not looked at.")]
pub(in crate::cli) struct Erase {
    /// The person's, exactly as events have it
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: String,
    #[command(flatten)]
    confirmation: Confirmation,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Whether to count or to erase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Count,
    Erase,
}

/// Letters about the person.
struct Found {
    letters: u64,
    /// Those that are being replayed, and are left.
    replaying: u64,
    /// Where the search began. Letters that died since lie before it.
    from: Value,
}

impl Erase {
    pub(in crate::cli) async fn run(self) -> Result<(), CliError> {
        let api = self.server.api()?;
        let counted = search(&api, &self.phone, Mode::Count, Value::Null).await?;
        let effect = format!("erase what {} tell of the person, for good", sanitize::dead_letters(counted.letters));
        let decision = match counted.letters {
            // There is nothing to ask about.
            0 if !self.confirmation.is_dry_run() => Decision::Proceed,
            _ => self.confirmation.decide(&effect).await?,
        };
        let found = match decision {
            Decision::Report => counted,
            // A letter that died after the question was not meant.
            Decision::Proceed => search(&api, &self.phone, Mode::Erase, counted.from).await?,
        };
        let is_dry_run = decision == Decision::Report;
        if self.json {
            say!("{}", json!({ "erased": found.letters, "replaying": found.replaying, "dryRun": is_dry_run }));
        } else if is_dry_run {
            say!("would {effect}");
        } else {
            say!("erased {}", sanitize::dead_letters(found.letters));
        }
        if found.replaying == 0 {
            return Ok(());
        }
        Err(CliError::Failed(format!(
            "{} being replayed: run this again when that has ended",
            sanitize::dead_letters(found.replaying)
        )))
    }
}

/// Looks at all letters from `cursor` on; null is the newest.
async fn search(api: &Api, phone: &str, mode: Mode, mut cursor: Value) -> Result<Found, CliError> {
    let bar = progress::bar(None, "{spinner} {human_pos} dead letters looked at");
    let mut found = Found { letters: 0, replaying: 0, from: Value::Null };
    loop {
        let body = json!({ "phoneNumber": phone, "cursor": cursor, "dryRun": mode == Mode::Count });
        let answer = api.post(&[LIST, "erase"], Some(&body)).await?.json()?;
        let count = |name: &str| answer[name].as_u64().unwrap_or_default();
        found.letters += count("erased");
        found.replaying += count("replaying");
        bar.inc(count("lookedAt"));
        if found.from.is_null() {
            found.from = answer["from"].clone();
        }
        cursor = answer["next"].clone();
        if cursor.is_null() {
            bar.finish_and_clear();
            return Ok(found);
        }
    }
}
