//! `waypost dead-letters erase`: what dead letters tell of a person is shown and sent no more.

use clap::Args;
use serde_json::{Value, json};

use super::LIST;
use crate::cli::client::Server;
use crate::cli::output::say;
use crate::cli::{Failure, plain, progress};

#[derive(Args)]
#[command(after_help = "Example:
  waypost dead-letters erase --phone +5511999990000 --dry-run

Phone number, answer, keyword, what receivers said and bodies that could not be read are gone at once from everything that is
shown and sent, on every worker, and for good. The broker's stream and the workers' folders have them until
deadLetters.retention (30 days) is over. Events that still wait in queues are not looked at.")]
pub(in crate::cli) struct Erase {
    /// The person's, exactly as events have it
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: String,
    /// Only count them
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Erase {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let api = self.server.api()?;
        let bar = progress::bar(None, "{spinner} {human_pos} dead letters looked at");
        let (mut erased, mut replaying, mut cursor) = (0, 0, Value::Null);
        loop {
            let body = json!({ "phoneNumber": self.phone, "cursor": cursor, "dryRun": self.dry_run });
            let answer = api.post(&[LIST, "erase"], Some(&body)).await?.json()?;
            let count = |name: &str| answer[name].as_u64().unwrap_or_default();
            erased += count("erased");
            replaying += count("replaying");
            bar.inc(count("lookedAt"));
            cursor = answer["next"].clone();
            if cursor.is_null() {
                break;
            }
        }
        bar.finish_and_clear();
        if self.json {
            say!("{}", json!({ "erased": erased, "replaying": replaying, "dryRun": self.dry_run }));
        } else if self.dry_run {
            say!("would erase {}", plain::dead_letters(erased));
        } else {
            say!("erased {}", plain::dead_letters(erased));
        }
        if replaying == 0 {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "{} being replayed: run this again when that has ended",
            plain::dead_letters(replaying)
        )))
    }
}
